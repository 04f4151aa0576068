"""A model class for EleutherAI's lm-evaluation-harness.

    python -m steer.adapters.lm_eval --model steer --model_args pretrained=examples/data/demo,steering=funny.json --tasks ...
"""

from __future__ import annotations

from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from .._core import SAE, GenerateResult, Steering
from .._errors import Error
from ..model import Model


@register_model("steer")
class SteerLM(TemplateLM):
    """Log-likelihoods and generations of a steered model; a row's numbers do not depend on its batch."""

    backend = "causal"

    def __init__(
        self,
        pretrained: str | Model,
        steering: str | Steering | None = None,
        sae: str | None = None,
        batch_size: int | str = 16,
        max_gen_toks: int = 256,
        max_length: int = 0,
        weights: str = "stored",
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        """steering: a file (docs/steering-schema.md); what it says counts for continuations and generated tokens. sae: a
        file or folder the steering refers to by hash alone. Raises Error(argument) for arguments it does not know."""
        super().__init__()
        unknown.pop("max_batch_size", None)
        if unknown:
            raise Error(f"[lm_eval] expected pretrained, steering, sae, ... but got {', '.join(sorted(unknown))}", "argument")
        self.model = pretrained if isinstance(pretrained, Model) else Model.from_pretrained(
            pretrained, weights=weights, device=device or "cpu"  # type: ignore[arg-type]
        )
        saes = [SAE.load(sae)] if sae else []
        self.steering = Steering.load(steering, saes=saes) if isinstance(steering, str) else steering
        self.rows = 16 if batch_size == "auto" else int(batch_size)
        self.max_gen_toks, self.max_length = max_gen_toks, max_length or self.model.cfg.n_ctx

    @property
    def eot_token_id(self) -> int:
        ids = self.model._core.stop_ids
        return ids[0] if ids else 0

    @property
    def prefix_token_id(self) -> int:
        bos = self.model.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.model._encode(string, prepend_bos=add_special_tokens is not False)

    def _run(self, requests: list[tuple[list[int], dict[str, Any]]]) -> list[GenerateResult]:
        engine = self.model.engine(max_rows=self.rows)
        rows = {engine.submit(ids, steering=self.steering, **options): i for i, (ids, options) in enumerate(requests)}
        done: list[Any] = [None] * len(requests)

        def event(row: int, id: int, text: str, result: GenerateResult | None) -> None:
            if result is not None:
                done[rows[row]] = result

        while engine.step(event):
            pass
        for result in done:
            if result is None or result.finish == "failed":
                raise Error(f"[lm_eval] a row failed: {result.abort_reason if result else 'no result'}", "argument")
        return done

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, **_: Any) -> list[tuple[float, bool]]:
        rows = []
        for _, context, continuation in requests:
            room = self.max_length - len(continuation) - 1
            ids = (context or [self.prefix_token_id])[-max(room, 1) :]
            options = dict(given=list(continuation), max_tokens=len(continuation), top=1, ignore_eos=True)
            rows.append((list(ids), options))
        return [
            (sum(r.log_probabilities), all(t[0][0] == i for t, i in zip(r.top, r.ids))) for r in self._run(rows)
        ]  # fmt: skip

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        out = []
        for request in requests:
            windows = utils.get_rolling_token_windows(  # pyright: ignore[reportAttributeAccessIssue]
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id, max_seq_len=self.max_length - 1, context_len=1,
            )  # fmt: skip
            parts = [(None, *utils.make_disjoint_window(w)) for w in windows]  # pyright: ignore[reportAttributeAccessIssue]
            out.append(sum(p for p, _ in self._loglikelihood_tokens(parts)))
        return out

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        rows: list[Any] = []
        for request in requests:
            context, given = request.args
            until = given.get("until") or []
            tokens = int(given.get("max_gen_toks", self.max_gen_toks))
            sampled = given.get("do_sample", False)
            options = dict(
                stop=[until] if isinstance(until, str) else [u for u in until if u], max_tokens=tokens,
                temperature=float(given.get("temperature") or 1.0) if sampled else 0.0,
                top_p=float(given.get("top_p", 1.0)) if sampled else 1.0, seed=len(rows),
            )  # fmt: skip
            rows.append((self.tok_encode(context)[-(self.max_length - tokens) :], options))
        return [r.text for r in self._run(rows)]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
