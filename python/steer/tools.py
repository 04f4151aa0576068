"""Finding features, and training SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch

from . import _core
from ._core import SAE, CalibratedStrength, FeatureLabels, Inspection
from ._progress import bar
from .experiment import frame
from .feature import SteeringLike, as_steering
from .model import Input, Model


def inspect(
    model: Model, sae: SAE, input: Input, *, top_features: int = 30, top_per_token: int = 5,
    labels: FeatureLabels | None = None,
) -> Inspection:  # fmt: skip
    """Which features a text activates, and where; in a notebook the text itself, shaded. Position 0 is left out."""
    row = model._rows("inspect", input)[0]
    return _core.inspect(
        model.session(), sae, row, top_features=top_features, top_per_token=top_per_token, labels=labels
    )


def pooled_features(model: Model, sae: SAE, texts: Input, pooling: str = "mean") -> torch.Tensor:
    """Feature activations pooled over each text's tokens, [texts, d_sae]; pooling: mean, max, last, active."""
    return _core.pooled_features(model.session(), sae, model._rows("pooled_features", texts), pooling)


def contrast(positive: torch.Tensor, negative: torch.Tensor, *, limit: int = 100, bootstrap: int = 500, seed: int = 0) -> Any:
    """Features that tell two sets of texts apart (of `pooled_features`), the strongest first: a DataFrame where pandas is."""
    return frame(_core.contrast(positive, negative, limit=limit, bootstrap=bootstrap, seed=seed))


def logit_effects(model: Model, sae: SAE, feature: int, top: int = 10) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """(promoted, suppressed) tokens of a feature's direction through the unembedding: (text, logits a unit)."""
    promoted, suppressed = _core.logit_effects(model._core, sae, feature, top)
    named = [[(model.tokenizer.decode([i]), effect) for i, effect in part] for part in (promoted, suppressed)]
    return named[0], named[1]


def calibrate_strength(model: Model, steering: SteeringLike, target: float, *, texts: Sequence[Sequence[int]] = ()) -> CalibratedStrength:
    """Multiplies a steering's strengths until the 95th percentile of next-token KL reaches `target` nats."""
    given = as_steering(steering)
    return _core.calibrate_strength(model._core, given if given is not None else _core.Steering(), target, texts=list(texts))


def score(model: Model, texts: Sequence[tuple[Sequence[int], int]], *, steering: SteeringLike = None) -> list[list[float]]:
    """Natural log-probabilities of each text's tokens from `begin` on, [(ids, begin), ...], as if they were generated."""
    return _core.score(model._core, list(texts), steering=as_steering(steering))


def train_sae(
    model: Model, hook_point: str, texts: Sequence[str], *, d_sae: int, steps: int, context: int = 128,
    checkpoint: str | PathLike[str] | None = None, progress: bool = True, **options: Any,
) -> SAE:  # fmt: skip
    """Trains a sparse autoencoder on a model's activations over texts, computed while it goes.

    options: k, activation, l1, learning_rate, batch_tokens and the others of SaeTrainingOptions. Ctrl-C between steps
    ends it; with a checkpoint (a file) the next call goes on there.
    """
    options.update(d_sae=d_sae, steps=steps)
    if checkpoint is not None:
        options["checkpoint"] = checkpoint
    trainer = _core.SAETrainer(model._core, hook_point, list(texts), options, context)
    with bar("train", steps, progress) as line:
        line.update(trainer.steps_done)
        while trainer.steps_done < steps:
            metrics = trainer.step()
            line.set_postfix(explained=f"{metrics['explained_variance']:.3f}", l0=f"{metrics['l0']:.0f}", refresh=False)
            line.update()
    if checkpoint is not None:
        trainer.save_checkpoint(checkpoint)
    return trainer.sae()
