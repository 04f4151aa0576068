"""Direct logit attribution: what each layer's attention and MLP add to one token's logit over another's."""

import torch

import steer

model = steer.Model.from_pretrained("examples/data/demo")
prompt = "In the land of Pelia, the river is"
logits, cache = model.run_with_cache(prompt)
answer, other = logits[0, -1].topk(2).indices.tolist()

names, parts = model.logit_attribution(cache, [answer, other])  # [parts, batch, tokens, 2]
difference = (parts[..., 0] - parts[..., 1])[:, 0, -1]
print(f"{model.to_string([answer])!r} over {model.to_string([other])!r}: {difference.sum():.3f} logits")
for name, value in zip(names, difference.tolist()):
    print(f"  {name:24} {value:+.3f}")
assert torch.isclose(difference.sum(), logits[0, -1, answer] - logits[0, -1, other], atol=1e-3)
