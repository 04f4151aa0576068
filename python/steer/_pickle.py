"""Pickling: SAEs travel as the path they came from, steerings as their JSON."""

from __future__ import annotations

import json
from typing import Any

from ._core import SAE, Steering, sae_sources
from ._errors import Error

_loaded: dict[str, SAE] = {}  # by hash: what was pickled as one SAE arrives as one


def _load_sae(path: str, hash: str) -> SAE:
    if hash not in _loaded:
        sae = SAE.load(path)
        if sae.hash != hash:
            raise Error(f"[pickle] expected the SAE that was pickled but {path} holds another one", "config")
        _loaded[hash] = sae
    return _loaded[hash]


def _source(hash: str) -> str:
    path = sae_sources().get(hash)
    if path is None:
        raise Error(
            "[pickle] expected SAEs that SAE.load read from a file but one was made in memory; save it and load it first",
            "unsupported",
        )
    return path


def reduce_sae(self: SAE) -> Any:
    return _load_sae, (_source(self.hash), self.hash)


def _load_steering(text: str, saes: dict[str, str]) -> Steering:
    return Steering.from_json(json.loads(text), saes=[_load_sae(path, hash) for hash, path in saes.items()])


def reduce_steering(self: Steering) -> Any:
    value: dict[str, Any] = self.to_json()
    return _load_steering, (json.dumps(value), {hash: _source(hash) for hash in value.get("saes", {})})

