"""interp-engine's model protocol (1.14) over a model: capture, generation and the lens, as far as steer's points go.

    from steer.adapters.interp_engine import SteerInterpModel
    activations = await SteerInterpModel(model).capture(ids, ["resid_post.5"])

What it does not serve it refuses by name: `refuses(point)` says why, the methods raise CapabilityUnsupported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import torch
from interp_engine.address import Address, to_address
from interp_engine.autograd_support import GradSupport
from interp_engine.describe import describe_model
from interp_engine.dispatch import CapabilityUnsupported
from interp_engine.protocol import Completion, checked_rows, checked_vocab_ids, layer_out_of_range
from interp_engine.residual_basis import ResidualBasis
from interp_engine.sampling import RecommendedSampling, SamplingSettings, resolve_sampling
from interp_engine.steer import GenStep

from .._core import GenerateResult
from ..feature import SteeringLike
from ..model import Model

#: interp-engine's names of what steer computes. attn_out and mlp_out here are what is added to the residual stream,
#: which interp-engine calls *_post.
_POINTS = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post",
    "attn_out_post": "hook_attn_out", "mlp_out_post": "hook_mlp_out", "z": "attn.hook_z", "value": "attn.hook_v",
    "mlp_act": "mlp.hook_post", "router_logits": "mlp.hook_router_logits",
}  # fmt: skip


class SteerInterpModel:
    """A model as interp-engine's `InterpModel`. steering_spec takes what steer calls a steering."""

    hooks_available, graph_replay = True, False
    static_points: tuple[Any, ...] = ()
    static_writes: tuple[Any, ...] = ()
    residual_basis = ResidualBasis()
    grad_support = GradSupport(downstream=True, through_forward=False, blockers=("steer's weights are constants",))
    recommended_sampling = RecommendedSampling()
    tokenizer_prepends_bos = False

    def __init__(self, model: Model, hf_model_id: str = "") -> None:
        self.model = model
        self.hf_model_id = hf_model_id or model.cfg.name or model.cfg.family
        self.tokenizer = model.tokenizer
        self._names = frozenset(model.hook_names)

    @property
    def n_layers(self) -> int:
        return self.model.cfg.n_layers

    @property
    def d_model(self) -> int:
        return self.model.cfg.d_model

    @property
    def n_heads(self) -> int:
        return self.model.cfg.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.model.cfg.n_key_value_heads

    @property
    def head_dim(self) -> int:
        return self.model.cfg.d_head

    @property
    def default_prepend_bos(self) -> bool:
        return self.model.tokenizer.bos_token_id is not None

    @property
    def tok(self) -> Any:
        """Refuses whatever is asked of it: chats are rendered by `Model.chat`."""
        return _Refused("interp-engine's chat formatter (tok)", "render with Model.chat")

    def is_linear_attention_layer(self, layer: int) -> bool:
        return f"blocks.{layer}.attn.hook_pattern" not in self._names

    def refuses(self, point: Any, layer: int | None = None) -> str | None:
        """Why this model cannot produce a point, or None."""
        try:
            address = Address(point, layer) if layer is not None and isinstance(point, str) else to_address(point)
        except ValueError as error:
            return str(error)
        if (outside := layer_out_of_range(address, self.n_layers)) is not None:
            return outside
        if address.name == "embeddings":
            return None
        if address.name not in _POINTS:
            return f"steer does not compute {address.name}; it serves embeddings, {', '.join(_POINTS)}"
        if address.layer is None or address.stream is not None:
            return f"{address.name} is one tensor a layer: give its layer, and no stream"
        if self._name(address) not in self._names:
            return f"this family has no {address.name} in layer {address.layer}"
        return None

    def serves(self, point: Any, layer: int | None = None) -> bool:
        return self.refuses(point, layer) is None

    def describe(self) -> Any:
        return describe_model(self, "eager")  # type: ignore[arg-type]

    def sampling_settings(self, **given: Any) -> SamplingSettings:
        return resolve_sampling(self.recommended_sampling, **given)

    def to_tokens(self, text: str | list[str], **options: Any) -> torch.Tensor:
        return self.model.to_tokens(text, **options)

    def to_str_tokens(self, text: Any, **options: Any) -> Any:
        return self.model.to_str_tokens(text, **options)

    def to_string(self, tokens: Any) -> Any:
        return self.model.to_string(tokens)

    async def warmup(self) -> None:
        """Nothing is deferred."""

    async def shutdown(self) -> None:
        """Nothing is held on a device by this object."""

    async def capture(
        self, prompt_token_ids: Sequence[int], points: Sequence[Any], *, steering_spec: SteeringLike = None,
        detach: bool = True, rows: Sequence[int] | None = None,
    ) -> dict[Address, torch.Tensor]:  # fmt: skip
        """{address: [tokens, width]} of one prompt; heads are joined to a width."""
        if not detach:
            self.grad_support.require_through_forward()
        ids = [int(t) for t in prompt_token_ids]
        picked = checked_rows(rows, len(ids))
        addresses = [to_address(p) for p in points]
        for address in addresses:
            if (why := self.refuses(address)) is not None:
                raise CapabilityUnsupported(why)
        names = {address: self._name(address) for address in addresses}
        cache = self.model.run_with_cache([ids], list(dict.fromkeys(names.values())), steering=steering_spec, return_type=None)[1]
        flat = {address: cache[name][0].flatten(1) for address, name in names.items()}
        return flat if picked is None else {address: value[picked] for address, value in flat.items()}

    async def project(self, prompt_token_ids: Sequence[int], directions: Sequence[Any], *, steering_spec: SteeringLike = None) -> list[torch.Tensor]:
        raise _refusal("project", "capture the point and multiply")

    async def capture_generation(
        self, prompt_token_ids: Sequence[int], points: Sequence[Any], *, max_tokens: int = 8, temperature: float = 0.0,
        seed: int | None = None, steering_spec: SteeringLike = None,
    ) -> tuple[Completion, dict[Address, torch.Tensor]]:  # fmt: skip
        """The completion, and the points at prompt and generated tokens but the last."""
        prompt = [int(t) for t in prompt_token_ids]
        with self.model.steer(steering_spec):
            result = self._generate(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed)
        captured = await self.capture(prompt + list(result.ids)[:-1], points, steering_spec=steering_spec)
        return Completion(result.text, list(result.ids)), captured

    async def capture_generation_stream(
        self, prompt_token_ids: Sequence[int], points: Sequence[Any], **options: Any
    ) -> AsyncIterator[tuple[dict[Address, torch.Tensor], list[int]]]:
        completion, captured = await self.capture_generation(prompt_token_ids, points, **options)
        yield captured, list(completion.token_ids)

    async def capture_attention(self, prompt_token_ids: Sequence[int], layers: Sequence[int]) -> dict[int, dict[str, torch.Tensor]]:
        raise _refusal("attention scores before the softmax", "Model.run_with_cache has the probabilities (attn.hook_pattern)")

    def _generate(
        self, prompt: Sequence[int], *, max_tokens: int, seed: int | None = None, stop_at_eos: bool = True,
        n_logprobs: int = 0, **knobs: Any,
    ) -> GenerateResult:  # fmt: skip
        s = self.sampling_settings(**knobs)
        (result,) = self.model.generate(
            [[int(t) for t in prompt]], max_tokens, do_sample=s.temperature > 0, temperature=s.temperature, top_k=s.top_k,
            top_p=s.top_p, presence_penalty=s.presence_penalty, seed=seed or 0, stop_at_eos=stop_at_eos, top=n_logprobs,
            return_type="results",
        )  # fmt: skip
        return result

    async def generate_text(self, prompt_token_ids: Sequence[int], *, max_tokens: int = 200, **knobs: Any) -> str:
        return self._generate(prompt_token_ids, max_tokens=max_tokens, **knobs).text

    async def generate_stream(self, prompt_token_ids: Sequence[int], *, max_tokens: int = 200, **knobs: Any) -> AsyncIterator[str]:
        async for step in self.generate_steps(prompt_token_ids, max_tokens=max_tokens, **knobs):
            yield step.token_str

    async def generate_steps(self, prompt_token_ids: Sequence[int], *, max_tokens: int = 64, **knobs: Any) -> AsyncIterator[GenStep]:
        """One step a token; all are there when the first is handed over."""
        result = self._generate(prompt_token_ids, max_tokens=max_tokens, **knobs)
        texts = _deltas(self.model, list(result.ids))
        for i, (id, text) in enumerate(zip(result.ids, texts)):
            top = [{"token_id": t, "logprob": p} for t, p in result.top[i]] if knobs.get("n_logprobs") else None
            yield GenStep(token_id=id, token_str=text, logprobs=top)  # type: ignore[arg-type]

    async def generate_steps_from_embeds(self, prompt_embeds: torch.Tensor, **knobs: Any) -> AsyncIterator[GenStep]:
        raise _refusal("prompts given as embeddings", "edit hook_embed in a hook")
        yield  # makes this a generator, as the protocol has it

    async def unembed_rows(self, token_ids: Sequence[int]) -> torch.Tensor:
        return self.model.W_U.T[checked_vocab_ids(token_ids, self.model.cfg.d_vocab)]

    async def decode_residuals(self, residuals: torch.Tensor, *, detach: bool = True) -> torch.Tensor:
        """Logits [rows, vocab] of residuals [rows, d_model]: final norm, unembedding, caps."""
        if not detach:
            self.grad_support.require_through_forward()
        return self.model.unembed(residuals)

    @staticmethod
    def _name(address: Address) -> str:
        return "hook_embed" if address.name == "embeddings" else f"blocks.{address.layer}.{_POINTS[address.name]}"


class _Refused:
    """Stands where the protocol wants an object that steer does not have."""

    def __init__(self, what: str, instead: str) -> None:
        self._why = (what, instead)

    def __getattr__(self, name: str) -> Any:
        raise _refusal(*self._why)


def _refusal(what: str, instead: str) -> CapabilityUnsupported:
    return CapabilityUnsupported(f"steer does not serve {what}; {instead}")


def _deltas(model: Model, ids: list[int]) -> list[str]:
    """What each id adds to the text: bytes of one character may come in several."""
    out, before = [], ""
    for i in range(len(ids)):
        text = model.tokenizer.decode(ids[: i + 1])
        whole = text if i + 1 == len(ids) else text.removesuffix("\ufffd")
        out.append(whole[len(before) :])
        before = whole
    return out
