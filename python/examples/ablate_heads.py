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

        loss = model.run_with_hooks(prompt, [(f"blocks.{layer}.attn.hook_z", ablate)], return_type="loss")
        effect[layer, head] = loss - whole

print("loss", f"{whole:.3f}", "and what losing a head adds to it (layers down, heads across):")
print(effect.numpy().round(3))
