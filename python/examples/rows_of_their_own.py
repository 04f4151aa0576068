"""One batch, a steering a row: a sweep of strengths in one call, kept in a file and read again."""

import tempfile
from pathlib import Path

import steer

model = steer.Model.from_pretrained("examples/data/demo")
sae = steer.SAE.load("examples/data/demo/sae.safetensors")
question = [{"role": "user", "content": steer.load_questions("examples/data/demo/questions.jsonl")[0].prompt()}]
prompt = model.chat.render(question)[1]

file = Path(tempfile.mkdtemp()) / "imaginative.json"
imaginative = steer.Steering().nudge(sae, 330, 6.0, scope=steer.Scope("inside_tag", tag="thinking"))
imaginative.save(file)
again = steer.Steering.load(file, saes=[sae])
assert again == imaginative

strengths = [0.0, 0.5, 1.0, 1.5]
rows = model.generate([prompt] * 4, 40, steering=[again * s for s in strengths], return_type="results")
for strength, row in zip(strengths, rows):
    print(f"{6 * strength:4.1f}  {row.audit.edited:3} tokens edited  {row.text[:90]!r}")
