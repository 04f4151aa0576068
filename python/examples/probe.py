"""A linear probe on activations, trained by torch on some texts and tested on others."""

import torch

import steer

model = steer.Model.from_pretrained("examples/data/demo")
point = "blocks.2.hook_resid_post"
questions = steer.load_questions("examples/data/demo/questions.jsonl")
examples, labels = [], []
for q in questions:
    kind = "river" in q.text
    cache = model.run_with_cache(q.text, point, return_type=None)[1]
    examples.append(cache[point][0, -1])
    labels.append(float(kind))
x, y = torch.stack(examples), torch.tensor(labels)
half = len(x) // 2

probe = torch.nn.Linear(model.cfg.d_model, 1)
optimizer = torch.optim.Adam(probe.parameters(), lr=1e-2, weight_decay=1e-3)
for _ in range(200):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(probe(x[:half])[:, 0], y[:half])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
right = ((probe(x[half:])[:, 0] > 0) == y[half:].bool()).float().mean()
print(f"{len(x)} texts, {y.mean():.2f} of them about rivers; right on the second half: {right:.2f}")
w, b = steer.logistic_probe(x[:half][y[:half] == 1], x[:half][y[:half] == 0])
print(f"steer.logistic_probe: {((x[half:] @ w + b > 0) == y[half:].bool()).float().mean():.2f}")
