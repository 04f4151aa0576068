"""Sees that torch is the one the extension was built with, before the extension is loaded."""

from __future__ import annotations

import re

import torch

from ._build import TORCH_VERSION


def require_same_torch(running: str, built: str) -> None:
    """torch's C++ interface changes between minor versions: another one would crash, or worse, not crash."""
    if re.match(r"\d+\.\d+", running) and re.match(r"\d+\.\d+", built):
        if running.split(".")[:2] == built.split(".")[:2]:
            return
    minor = ".".join(built.split(".")[:2])
    raise ImportError(
        f"steer was built with torch {built}, but torch {running} is running. Build steer again for it: "
        f"`pip install --force-reinstall --no-deps .` in steer's folder; or go back: `pip install 'torch=={minor}.*'`."
    )


require_same_torch(torch.__version__, TORCH_VERSION)
