"""Features as things to steer with, and what counts as a steering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

import torch

from ._core import SAE, Steering
from ._errors import Error


@dataclass(frozen=True)
class Feature:
    """One feature of an SAE: the key of `model.steer({sae.feature(330): +0.6})`."""

    sae: SAE
    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.sae.d_sae:
            raise Error(f"[SAE.feature] expected a feature in [0, {self.sae.d_sae}) but got {self.index}", "argument")

    @property
    def direction(self) -> torch.Tensor:
        """Its decoder row, [d_out], over the SAE's memory."""
        return self.sae.W_dec[self.index]

    def __repr__(self) -> str:
        return f"{self.sae!r}.feature({self.index})"


#: What functions take as a steering: None for none, a Steering, or {feature: how much its activation is nudged}.
SteeringLike = Union[Steering, Mapping[Feature, float], None]


def as_steering(given: SteeringLike) -> Steering | None:
    """A Steering of what a caller gave; a mapping nudges each feature's activation by its value, everywhere."""
    if given is None or isinstance(given, Steering):
        return given
    if not isinstance(given, Mapping):
        raise Error(
            f"[steer] expected a Steering, a mapping of features to strengths, or None but got {type(given).__name__}",
            "argument",
        )
    steering = Steering()
    for key, value in given.items():
        if not isinstance(key, Feature):
            raise Error(f"[steer] expected features (sae.feature(330)) as keys but got {key!r}", "argument")
        steering.nudge(key.sae, key.index, float(value))
    return steering
