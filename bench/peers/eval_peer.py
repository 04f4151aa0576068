"""The work of bench/eval in Hugging Face transformers: letters under six arms, the SAE's edits in forward hooks that
encode, edit, decode and add the error back. Speaks the line protocol of bench/eval.

usage: eval_peer.py MODEL_FOLDER WORK_FOLDER THREADS BATCH

Each arm runs in batches of BATCH prompts of about equal length, padded, with logits of the last position only.
"""
import json
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


class SaeEdit:
    """h' = decode(edited f) + (h - decode(f)), as SAELens with use_error_term and the notebooks do."""

    def __init__(self, weights, edit):
        self.w_enc, self.w_dec, self.b_enc, self.b_dec = (weights[k] for k in ("W_enc", "W_dec", "b_enc", "b_dec"))
        self.features, self.value, self.pin = edit["features"], edit["value"], edit["kind"] == "pin"

    def __call__(self, module, inputs, output):
        h = output[0] if isinstance(output, tuple) else output
        f = torch.relu(h @ self.w_enc + self.b_enc)
        error = h - (f @ self.w_dec + self.b_dec)
        if self.pin:
            f[..., self.features] = self.value
        else:
            f[..., self.features] += self.value
        out = f @ self.w_dec + self.b_dec + error
        return (out,) + tuple(output[1:]) if isinstance(output, tuple) else out


@torch.inference_mode()
def letters(model, work, hooks, rows, batch):
    """p of the right letter among the letters, for each row."""
    answers = [0.0] * len(rows)
    layer = model.model.layers[work["layer"]]
    for arm in range(work["arms"]):
        own = sorted(range(arm, len(rows), work["arms"]), key=lambda i: len(rows[i]["ids"]))
        handle = layer.register_forward_hook(hooks[arm - 2]) if arm >= 2 else None
        for at in range(0, len(own), batch):
            some = own[at:at + batch]
            longest = max(len(rows[i]["ids"]) for i in some)
            ids = torch.zeros((len(some), longest), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for j, i in enumerate(some):  # padded on the left, so that the last position is everyone's last
                ids[j, longest - len(rows[i]["ids"]):] = torch.tensor(rows[i]["ids"])
                mask[j, longest - len(rows[i]["ids"]):] = 1
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            p = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1).logits[:, -1].softmax(-1)
            for j, i in enumerate(some):
                mass = [float(p[j, k].sum()) for k in work["letters"]]
                answers[i] = mass[rows[i]["gold"]] / sum(mass)
        if handle:
            handle.remove()
    return answers


def main():
    folder, work_folder, threads, batch = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    work = json.loads((work_folder / "work.json").read_text())
    weights = load_file(work_folder / "sae" / "sae_weights.safetensors")
    hooks = [SaeEdit(weights, edit) for edit in work["edits"]]
    print(json.dumps({"batch": batch}), flush=True)
    for line in sys.stdin:
        what, begin, count = line.split()
        rows = work["rows"][int(begin) * work["arms"]:(int(begin) + int(count)) * work["arms"]]
        start = time.perf_counter()
        p_gold = letters(model, work, hooks, rows, batch)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "tokens": sum(len(r["ids"]) for r in rows), "p_gold": p_gold}), flush=True)


if __name__ == "__main__":
    main()
