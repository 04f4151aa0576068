"""What is known of one feature: its label, where it fires, what it writes."""

import steer

model = steer.Model.from_pretrained("examples/data/demo")
sae = steer.SAE.load("examples/data/demo/sae.safetensors")
texts = [q.prompt() for q in steer.load_questions("examples/data/demo/questions.jsonl")]
feature = 330

found = []
for text in texts:
    cache = model.run_with_cache(text, sae.hook_name, return_type=None)[1]
    f = sae.encode_subset(cache[sae.hook_name], [feature])[0, 1:, 0]  # not BOS
    position = int(f.argmax()) + 1
    found.append((float(f.max()), model.to_str_tokens(text)[max(0, position - 6) : position + 1]))
for value, tokens in sorted(found, reverse=True)[:5]:
    print(f"{value:6.2f}  {''.join(tokens)!r}")
promoted, suppressed = steer.logit_effects(model, sae, feature, 6)
print("writes for", [token for token, _ in promoted], "and against", [token for token, _ in suppressed])
