"""Gradients through a hook: a vector at one layer trained so that a prompt's next token becomes another one."""

import torch

import steer

model = steer.Model.from_pretrained("examples/data/demo")
ids = model.to_tokens("In the land of Pelia, the river is")
wanted = int(model(ids)[0, -1].topk(5).indices[4])
vector = torch.zeros(model.cfg.d_model, requires_grad=True)
optimizer = torch.optim.Adam([vector], lr=0.05)
for step in range(31):
    logits = model.run_with_hooks(ids, [("blocks.1.hook_resid_post", lambda x, at: x + vector)])
    loss = -logits[0, -1].log_softmax(-1)[wanted]
    if step % 10 == 0:
        print(f"step {step:2}: p({model.to_string([wanted])!r}) = {(-loss).exp():.3f}, |v| = {vector.norm():.2f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
