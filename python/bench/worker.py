"""One library's side of peers.py: answers a line of work, a JSON object, with a JSON object. Not run by hand.

    worker.py LIBRARY MODEL_FOLDER SAE_FOLDER THREADS

Work: {"do": "cache"} runs 256 tokens and keeps the residual stream behind every layer; {"do": "decode", "rows": n}
generates greedily under an edit of three features; both with "save", a path, also write what they computed.
{"do": "generate", "rows": n, "tokens": t} generates unsteered; {"do": "hook"} times a Python hook's call (steer only).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

LAYER, FEATURES, VALUE, DECODED = 6, [3, 77, 1234], 2.0, 16
VOCAB = 32000
DEMO = Path(__file__).resolve().parents[2] / "examples" / "data" / "demo"


def prompt(tokens: int) -> torch.Tensor:
    return torch.randint(3, 30000, (1, tokens), generator=torch.Generator().manual_seed(2))


class Steer:
    """Ours."""

    def __init__(self, model: str, sae: str) -> None:
        import steer

        self.model = steer.Model.from_pretrained(model)
        self.sae = steer.SAE.load(sae)
        self.names = [f"blocks.{i}.hook_resid_post" for i in range(self.model.cfg.n_layers)]
        self.steering = steer.Steering()
        for feature in FEATURES:
            self.steering.nudge(self.sae, feature, VALUE, scope=steer.Scope(include_bos=True))

    def cache(self) -> torch.Tensor:
        kept = self.model.run_with_cache(prompt(256), self.names)[1]
        return kept[self.names[-1]]

    def decode(self, rows: int) -> torch.Tensor:
        ids = prompt(16).expand(rows, -1)
        return self.model.generate(ids, DECODED, steering=self.steering, stop_at_eos=False, return_type="tokens")

    def generate(self, rows: int, tokens: int) -> list[int]:
        results = self.model.generate([prompt(16)[0].tolist()] * rows, tokens, stop_at_eos=False, return_type="results")
        return results[0].ids

    def hook(self) -> float:
        """Microseconds of this thread that a call of a Python hook adds to a pass over one token: 48 hooks, small model."""
        import steer

        session = steer.Model.from_pretrained(DEMO).session()
        names = [f"blocks.{layer}.hook_{site}" for layer in range(4) for site in ("resid_pre", "resid_mid", "resid_post")]

        def passes(hooks: int) -> float:
            handles = [session.hook(n, lambda x, at: None, shape="rows") for n in names for _ in range(hooks)]
            session.forward([1], logits="none")
            start = time.thread_time()
            for _ in range(200):
                session.forward([1], logits="none")
            took = (time.thread_time() - start) / 200
            for handle in handles:
                handle.remove()
            return took

        one, five = passes(1), passes(5)
        return (five - one) / (4 * len(names)) * 1e6


class TransformerLens:
    """TransformerLens alone."""

    def __init__(self, model: str, sae: str) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        torch.set_grad_enabled(False)
        self.bridge = TransformerBridge.boot_transformers(model, device="cpu", dtype=torch.float32)
        self.names = {f"blocks.{i}.{n}" for i in range(12) for n in ("hook_out", "hook_resid_post")}

    def cache(self) -> torch.Tensor:
        kept = self.bridge.run_with_cache(prompt(256), names_filter=lambda name: name in self.names)[1].cache_dict
        return next(kept[n] for n in ("blocks.11.hook_out", "blocks.11.hook_resid_post") if n in kept)


class SAELens:
    """SAELens on the TransformerLens it runs with: the SAE attached with its error term, features edited in a hook."""

    def __init__(self, model: str, sae: str) -> None:
        from sae_lens import SAE
        from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge

        torch.set_grad_enabled(False)
        self.bridge = SAETransformerBridge.boot_transformers(model, device="cpu", dtype=torch.float32)
        self.sae = SAE.load_from_disk(sae)
        self.bridge.add_sae(self.sae, use_error_term=True)
        self.point = self.bridge.get_sae_hook_name(self.sae)

    def edit(self, features: torch.Tensor, hook: Any) -> torch.Tensor:
        features[..., FEATURES] += VALUE
        return features

    def decode(self, rows: int) -> torch.Tensor:
        ids = prompt(16).expand(rows, -1).contiguous()
        with self.bridge.hooks(fwd_hooks=[(self.point, self.edit)]):
            return self.bridge.generate(
                ids, max_new_tokens=DECODED, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens"
            )  # fmt: skip


def main() -> None:
    library, model, sae, threads = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    torch.set_num_threads(int(threads))
    side = {"steer": Steer, "transformer_lens": TransformerLens, "sae_lens": SAELens}[library](model, sae)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        do, save = work.pop("do"), work.pop("save", None)
        start = time.perf_counter()
        result = getattr(side, do)(**work)
        answer: dict[str, Any] = {"seconds": time.perf_counter() - start}
        if isinstance(result, torch.Tensor):
            if save:
                torch.save(result.detach().clone(), save)
        elif isinstance(result, list):
            answer["ids"] = result
        else:
            answer["value"] = result
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
