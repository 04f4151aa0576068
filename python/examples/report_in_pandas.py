"""An experiment's answers as a table: accuracy and length by arm, and the answers that changed."""

import steer

model = steer.Model.from_pretrained("examples/data/demo")
sae = steer.SAE.load("examples/data/demo/sae.safetensors")
report = steer.Experiment(
    questions=steer.load_questions("examples/data/demo/questions.jsonl")[:8],
    behaviours=["imaginative"],
    arms=[steer.Arm.control(), steer.Arm.steered("steered", {"": steer.Steering().nudge(sae, 330, 6.0)})],
    max_tokens=64,
    temperature=0.0,
).run(model)
print(report.headline())
table = report.to_pandas()
table["right"] = table["answer"] == table["gold"]
print(table.groupby("arm")[["right", "tokens"]].mean())
wide = table.pivot(index="question", columns="arm", values="answer")
print(wide[wide["control"] != wide["steered"]])
