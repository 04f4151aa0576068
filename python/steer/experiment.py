"""Experiments, and the search for steerings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

from . import _core
from ._core import SAE, Arm, AutoSteerOptions, AutoSteerResult, Behaviour, Judge, Question, Report
from ._errors import Error
from .model import Model

JudgeFunction = Callable[[str, str, str, "str | None"], "float | None"]


def judge(function: JudgeFunction, identity: str) -> Judge:
    """A judge that is function(rubric, prompt, response, behaviour) -> a score of 1 to 5, or None for none.

    rubric is "behaviour" or "coherence" (then behaviour is None). identity says what scores depend on, for journals.
    """
    return _core.python_judge(function, identity)


def logit_judge(model: Model) -> Judge:
    """A local language model as the judge: the expected digit of 1 to 5."""
    return _core.logit_judge(model._core)


def request_evidence(model: Model) -> Judge:
    """How much the unsteered model takes a text for an answer to the request, in nats a token; no score of a judge."""
    return _core.request_evidence(model._core)


def search_options(
    model: Model,
    held_out: Sequence[Question],
    max_tokens: int,
    *,
    seed: int = 42,
    prompts: int = 24,
    checks: int = 64,
    certificate: int = 0,
) -> AutoSteerOptions:
    """Options of a search from questions that nothing else asks: `prompts` of them are answered in the search, on
    `checks` it measures what a steering costs, on `certificate` that cost is then certified."""
    return _core.search_options(
        model._core, list(held_out), max_tokens, seed, prompts=prompts, checks=checks, certificate=certificate
    )


def auto_steer(
    model: Model,
    sae: SAE,
    behaviour: str,
    *,
    mode: Literal["safe", "published"] = "safe",
    options: AutoSteerOptions,
) -> AutoSteerResult:
    """From a behaviour in words ("funny") to a steering, with its evidence.

    `result.steering` is empty unless `result.verdict` is "steered"; `result.explain()` says why. Takes minutes: every
    form and strength is tried on the model's own answers. options: of `search_options`.
    """
    return _core.AutoSteer(model._core, sae, options).find(behaviour, mode)


@dataclass
class Experiment:
    """What is measured: every arm answers every question under every behaviour.

    behaviours: names of the study's 14, or Behaviour. temperature and top_p: of every answer; 0 is greedy.
    """

    questions: Sequence[Question]
    arms: Sequence[Arm]
    behaviours: Sequence[Behaviour | str] = field(default_factory=_core.study_behaviours)
    mode: Literal["generate", "letters"] = "generate"
    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = 1024
    seed: int = 42
    nll: bool = True
    kl: bool = False
    force_answers: bool = False

    def run(
        self,
        model: Model,
        *,
        judge: Judge | None = None,
        journal: str | PathLike[str] = "",
        batch: int = 64,
        baseline: str = "control",
        progress: bool = False,
        **process: Any,
    ) -> Report:
        """Takes all answers, judges them, and analyses. With a journal (a folder) a run that was stopped, by Ctrl-C or
        by anything else, goes on where it was when it is started again, and its report has the same bytes.

        process: of a run that several processes share: rank, ranks, address, port (`executors.run_on` sets them)."""
        known = {b.name: b for b in _core.study_behaviours()}
        behaviours = []
        for b in self.behaviours:
            if isinstance(b, str) and b not in known:
                raise Error(f"[Experiment] expected a Behaviour or one of {', '.join(known)} but got {b!r}", "argument")
            behaviours.append(known[b] if isinstance(b, str) else b)
        return _core.run_experiment(
            model._core, questions=list(self.questions), behaviours=behaviours, arms=list(self.arms), mode=self.mode,
            temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed, nll=self.nll,
            kl=self.kl, force_answers=self.force_answers, judge=judge, journal=journal, batch=batch, baseline=baseline,
            progress=progress, **process,
        )  # fmt: skip


def frame(rows: list[dict[str, Any]]) -> Any:
    """A pandas DataFrame where pandas is installed, else the list itself."""
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.json_normalize(rows, sep="_")
