"""A driver for TransformerLens' bridge (4.3): `RemoteBridge` with steer as what runs the model.

    from steer.adapters.transformer_lens import boot
    bridge = boot(model)
    logits, cache = bridge.run_with_cache(tokens)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import RemoteBridge
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.driver_protocol import ForwardResult, to_torch

from .._errors import Error
from ..feature import SteeringLike
from ..model import HookFunction, Model

_OPS = ("suppress", "scale", "add", "set")


class SteerDriver:
    """TransformerLens' Driver protocol over a model. Its interventions may be functions of the activation or specs:
    {"op": "suppress" | "scale" | "add" | "set", "factor" or "value", "pos"}."""

    provides_sequence_logits = True
    _supported_features = frozenset({"intervention_callbacks"})

    def __init__(self, model: Model, tokenizer: Any = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        c = model.cfg
        self.architecture = f"steer/{c.family}"
        self.bridge_config = TransformerBridgeConfig(
            d_model=c.d_model, d_head=c.d_head, n_layers=c.n_layers, n_ctx=c.n_ctx, n_heads=c.n_heads, d_vocab=c.d_vocab,
            d_mlp=c.d_mlp, architecture=self.architecture, model_name=c.name or c.family,
        )  # fmt: skip
        self.supported_hook_points = frozenset(model.hook_names)
        self.non_fireable_hook_points: frozenset[str] = frozenset()

    def forward(
        self,
        input_ids: Any = None,
        *,
        capture: tuple[str, ...] = (),
        intervene: Mapping[str, Any] | None = None,
        max_new_tokens: int = 1,
        return_logits: bool = True,
        steering: SteeringLike = None,
        **kwargs: Any,
    ) -> ForwardResult:
        """Logits [batch, tokens, vocab] and what `capture` names, as `Model.run_with_cache` gives them; with
        max_new_tokens > 1 also the greedy continuation, [batch, max_new_tokens]."""
        mask = kwargs.pop("attention_mask", None)
        if mask is not None and not bool(to_torch(mask).bool().all()):
            raise NotImplementedError("steer's rows have no padding: give one row at a time instead of an attention_mask")
        if kwargs:
            raise TypeError(f"SteerDriver.forward got what it does not know: {', '.join(sorted(kwargs))}")
        ids = to_torch(input_ids)
        ids = ids[None] if ids.dim() == 1 else ids
        hooks = [(name, _intervention(name, spec)) for name, spec in (intervene or {}).items()]
        with ExitStack() as stack:
            stack.enter_context(self.model.hooks(hooks))
            stack.enter_context(self.model.steer(steering))
            if capture:
                logits, cache = self.model.run_with_cache(ids, list(capture), return_type="logits" if return_logits else None)
                captured: Mapping[str, torch.Tensor] = cache.cache_dict
            else:
                logits, captured = self.model(ids, return_type="logits" if return_logits else None), {}
            new = None
            if max_new_tokens > 1:
                whole = self.model.generate(ids, max_new_tokens, return_type="tokens", stop_at_eos=False)
                new = whole[:, ids.shape[1] :]
        return ForwardResult(logits=logits, captured=captured, new_tokens=new)

    def supports(self, feature: str) -> bool:
        """Whether of TransformerLens' KNOWN_FEATURES this one is served."""
        return feature in self._supported_features

    def close(self) -> None:
        """Nothing is held besides the model."""


def _intervention(name: str, spec: Any) -> HookFunction:
    if callable(spec):
        function: Any = spec
        return lambda x, at: function(x)
    op = spec.get("op") if isinstance(spec, Mapping) else None
    if op not in _OPS or set(spec) - {"op", "pos", "factor" if op == "scale" else "value"}:
        raise Error(
            f"[SteerDriver] expected a function, or {{'op': one of {', '.join(_OPS)}, 'factor' or 'value', 'pos'}} at "
            f"{name} but got {spec!r}",
            "argument",
        )
    need = {"scale": "factor", "add": "value", "set": "value"}.get(op)
    if need is not None and need not in spec:
        raise Error(f"[SteerDriver] expected '{need}' beside op '{op}' at {name}", "argument")

    def hook(x: torch.Tensor, at: Any) -> None:
        part = x if spec.get("pos") is None else x[:, spec["pos"] : spec["pos"] + 1 or None]
        if op == "suppress":
            part.zero_()
        elif op == "scale":
            part.mul_(spec["factor"])
        elif op == "add":
            part.add_(torch.as_tensor(spec["value"], dtype=x.dtype))
        else:
            part.copy_(torch.as_tensor(spec["value"], dtype=x.dtype).expand_as(part))

    return hook


class _Adapter(ArchitectureAdapter):
    """What RemoteBridge asks of an architecture: its configuration. There are no modules to map."""

    supports_hf_output_attentions = False

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self.component_mapping: dict[str, Any] = {}


class SteerBridge(RemoteBridge):
    """TransformerLens' RemoteBridge, which runs and caches, and the `generate` that it lacks."""

    def generate(self, input: Any, max_new_tokens: int = 10, **options: Any) -> Any:
        """`Model.generate`: greedy unless sampling is asked for; steering=, return_type= and the others are its own."""
        return self._driver.model.generate(input, max_new_tokens, **options)


def boot(model: Model, tokenizer: Any = None) -> SteerBridge:
    """TransformerLens' bridge on a model. tokenizer: a Hugging Face one, for calls that take text."""
    driver = SteerDriver(model, tokenizer)
    return SteerBridge(adapter=_Adapter(driver.bridge_config), tokenizer=tokenizer, driver=driver)
