"""Features by words of their labels, and what is known of one: where it fires, what it writes for."""

import tempfile

import steer

model = steer.Model.from_pretrained("examples/data/demo")
sae = steer.SAE.load("examples/data/demo/sae.safetensors")
labels = steer.FeatureLabels.import_neuronpedia("examples/data/demo/labels.jsonl", tempfile.mkdtemp() + "/labels")
hits = steer.search_labels(labels, "river", 3)
for feature, label, score in hits:
    print(f"{feature:4} {score:5.2f} {label}")
feature = hits[0][0]

found = []
for question in steer.load_questions("examples/data/demo/questions.jsonl"):
    tokens = model.to_str_tokens(question.prompt())
    cache = model.run_with_cache(question.prompt(), sae.hook_name, return_type=None)[1]
    values = sae.encode_subset(cache[sae.hook_name], [feature])[0, 1:, 0]  # not BOS
    at = int(values.argmax()) + 1
    found.append((float(values.max()), "".join(tokens[max(1, at - 5) : at]) + "[" + tokens[at] + "]"))
for value, text in list(dict.fromkeys(sorted(found, reverse=True)))[:5]:
    print(f"{value:6.2f}  {text!r}")
promoted, suppressed = steer.logit_effects(model, sae, feature, 6)
print("writes for", [token for token, _ in promoted], "and against", [token for token, _ in suppressed])
