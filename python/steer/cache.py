"""Recorded activations by hook point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from ._core import hook_point
from ._errors import Error

_LAYERED = {
    "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v", "z": "attn.hook_z", "pattern": "attn.hook_pattern",
    "attn": "attn.hook_pattern", "pre": "mlp.hook_pre", "post": "mlp.hook_post", "normalized1": "ln1.hook_normalized",
    "normalized2": "ln2.hook_normalized", "router_logits": "mlp.hook_router_logits",
}  # fmt: skip


class ActivationCache(Mapping[str, torch.Tensor]):
    """Activations by hook point, each [batch, tokens, ...] as TransformerLens shapes them, in order of computation.

    `cache["blocks.5.hook_resid_post"]`, `cache["resid_post", 5]` and `cache["model.layers.5"]` are the same tensor.
    The tensors are the caller's own: they outlive the model.
    """

    def __init__(self, values: Mapping[str, torch.Tensor], has_batch_dim: bool = True) -> None:
        self.cache_dict = dict(values)
        self.has_batch_dim = has_batch_dim

    def _name(self, key: str | tuple) -> str:
        if isinstance(key, tuple):
            site, *layer = key
            site = _LAYERED.get(site, site if site.startswith(("hook_", "attn.", "mlp.", "ln")) else f"hook_{site}")
            return f"blocks.{layer[0]}.{site}" if layer else site
        return key if key in self.cache_dict else hook_point(key)

    def __getitem__(self, key: str | tuple) -> torch.Tensor:
        name = self._name(key)
        if name not in self.cache_dict:
            known = ", ".join(self.cache_dict) or "none"
            raise Error(
                f"[ActivationCache] expected one of the recorded activations ({known}) but got \"{name}\"; "
                "add it to names_filter",
                "argument",
            )
        return self.cache_dict[name]

    def __contains__(self, key: object) -> bool:
        try:
            return self._name(key) in self.cache_dict  # type: ignore[arg-type]
        except Error:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __len__(self) -> int:
        return len(self.cache_dict)

    def to(self, device: str | torch.device) -> ActivationCache:
        """The same on another device."""
        return ActivationCache({k: v.to(device) for k, v in self.cache_dict.items()}, self.has_batch_dim)

    def remove_batch_dim(self) -> ActivationCache:
        """Drops the dimension of a batch of one. Raises Error(shape) for a larger one."""
        if self.has_batch_dim:
            for name, value in self.cache_dict.items():
                if value.shape[0] != 1:
                    raise Error(f"[ActivationCache] expected a batch of one but {name} has {value.shape[0]} rows", "shape")
            self.cache_dict = {k: v[0] for k, v in self.cache_dict.items()}
            self.has_batch_dim = False
        return self

    def stack_activation(self, name: str, layers: range | None = None) -> torch.Tensor:
        """One site of every layer, or of `layers`, stacked: [layers, batch, tokens, ...]."""
        found = [self[name, i] for i in layers] if layers is not None else [
            v for k, v in self.cache_dict.items() if k.split(".", 2)[-1] == self._name((name, 0)).split(".", 2)[-1]
        ]
        return torch.stack(found)

    def __repr__(self) -> str:
        return f"ActivationCache({len(self)} activations: {', '.join(self.cache_dict)})"
