"""Which attention heads a prediction needs: the loss with each head's output set to zero."""

import torch

import steer

model = steer.Model.from_pretrained("examples/data/demo")
prompt = steer.load_questions("examples/data/demo/questions.jsonl")[0].prompt()
whole = model(prompt, return_type="loss")

effect = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
for layer in range(model.cfg.n_layers):
    for head in range(model.cfg.n_heads):

        def ablate(z, at):  # [batch, tokens, heads, d_head]
            z[:, :, head] = 0

        logits = model.run_with_hooks(prompt, [(f"blocks.{layer}.attn.hook_z", ablate)])
        ids = model.to_tokens(prompt)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
        effect[layer, head] = loss - whole

print("loss", f"{whole:.3f}", "and what losing a head adds to it (layers down, heads across):")
print(effect.numpy().round(3))
