"""A steering vector from pairs of texts, and how strong it may be."""

import torch

import steer

model = steer.Model.from_pretrained("examples/data/demo")
point = "blocks.1.hook_resid_post"
wanted = ["<thinking> A lantern whispers secrets of the land.", "<thinking> The dreaming trees murmur of the river."]
plain = ["<thinking> The land in question is Pelia.", "<thinking> The list has four names."]


def last_tokens(texts):
    return torch.stack([model.run_with_cache(text, point)[1][point][0, -1] for text in texts])


vector = steer.difference_of_means(last_tokens(wanted), last_tokens(plain))
calibrated = steer.calibrate_strength(model, steer.Steering().add(vector, point), 3.0)  # 95th percentile of KL, nats
print(calibrated)
question = [{"role": "user", "content": steer.load_questions("examples/data/demo/questions.jsonl")[0].prompt()}]
print(model.generate(question, 40))
print(model.generate(question, 40, steering=calibrated.steering))
