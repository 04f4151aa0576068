"""A model as TransformerLens users know one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal, Union, cast

import torch

from . import _core
from ._core import (
    ChatTemplate, Engine, GenerateResult, HookCall, ModelConfig, Session, Steering, SteeringAudit, Tokenizer,
)  # fmt: skip
from ._errors import Error
from ._progress import bar, counting
from .cache import ActivationCache
from .feature import SteeringLike, as_steering

#: Text, texts, ids [tokens], ids [batch, tokens], or lists of ids.
Input = Union[str, Sequence[str], torch.Tensor, Sequence[int], Sequence[Sequence[int]]]
Chat = Sequence[Mapping[str, str]]
HookFunction = Callable[[torch.Tensor, HookCall], "torch.Tensor | None"]
NamesFilter = Union[str, Sequence[str], Callable[[str], bool], None]
Hook = tuple[Union[str, Callable[[str], bool]], HookFunction]


def _refuse(where: str, text: str, code: str = "argument") -> Error:
    return Error(f"[{where}] {text}", code)


@dataclass
class Steered:
    """What `with model.steer(...) as steered` gives: the steering, and what it did in each row since."""

    steering: Steering
    audits: list[SteeringAudit] = field(default_factory=list)

    @property
    def audit(self) -> SteeringAudit:
        """Of the last row that was run; empty before the first."""
        return self.audits[-1] if self.audits else SteeringAudit()


@dataclass(frozen=True)
class _Active:
    """What `with` blocks have switched on, for one model, in this thread or task."""

    model: Model
    steered: Steered | None = None
    hooks: tuple[tuple[str, HookFunction], ...] = ()


_active: ContextVar[tuple[_Active, ...]] = ContextVar("steer_active", default=())


class Model:
    """A language model. Immutable: `steer` and `hooks` switch things on for a `with` block, in one thread or task.

    Any number of threads may use one model at the same time. What a call computes belongs to the caller: tensors
    outlive the model.
    """

    def __init__(self, core: _core.Model) -> None:
        self._core = core
        self._names: list[str] | None = None
        self._sessions = threading.local()

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        weights: Literal["stored", "f32", "bf16", "int8"] = "stored",
        compute: Literal["f32", "bf16", "int8"] = "f32",
        device: str = "cpu",
        max_memory: int = 0,
        context: int = 0,
        allow_unknown_config: Sequence[str] = (),
        adapter: str | PathLike[str] = "",
        chat_format: str | None = None,
    ) -> Model:
        """From a Hugging Face folder, one of its weight files, or a GGUF file. Nothing is downloaded.

        weights: how they are kept; "stored" uses them where they lie in the file. compute: what activations are rounded to
        before products; "f32" rounds nothing, the others are faster and less exact. max_memory: bytes they may take, 0 for
        no limit. context: lowers the longest sequence. adapter: folder of a LoRA adapter to merge. chat_format: in place
        of the files' own template. Raises Error naming the file, key or tensor.
        """
        return cls(
            _core.Model.load(
                path, weights=weights, compute=compute, device=device, max_memory=max_memory, context=context,
                allow_unknown_config=list(allow_unknown_config), adapter=adapter, chat_format=chat_format,
            )  # fmt: skip
        )

    # --- what it is ---

    @property
    def cfg(self) -> ModelConfig:
        """Sizes and family; attribute names are TransformerLens'."""
        return self._core.config

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises Error(config) where the model's files have none."""
        return self._core.tokenizer

    @property
    def chat(self) -> ChatTemplate:
        """The model's own chat format."""
        return self._core.chat

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return torch.device(self._core.device)

    @property
    def warnings(self) -> list[str]:
        """What was let through while loading, a sentence each."""
        return self._core.warnings

    @property
    def hash(self) -> str:
        """Identifies the weights."""
        return self._core.hash

    @property
    def W_U(self) -> torch.Tensor:
        """The unembedding, [d_model, d_vocab], f32."""
        return self._core.unembedding.T

    def unembed(self, residual: torch.Tensor) -> torch.Tensor:
        """Logits [tokens, d_vocab] of residuals [tokens, d_model] as a pass computes them behind the last layer: final norm,
        unembedding, scale and cap. Of an earlier layer's residuals this is the logit lens."""
        return self._core.unembed(residual)

    def logit_attribution(
        self, cache: ActivationCache, tokens: int | Sequence[int]
    ) -> tuple[list[str], torch.Tensor]:
        """Direct logit attribution: what each part of the residual stream adds to the logits of some tokens.

        Returns (names, parts [len(names), batch, tokens, len(tokens)]): the embedding, each layer's attention and MLP and,
        where the final norm has one, its bias. The final norm's scale is held at what it was, so that parts add up to the
        logits before their soft cap. cache: of `run_with_cache` with all points, or at least resid_pre of layer 0, all
        attn_out and mlp_out and the last resid_post. Raises Error(argument) for a cache without them.
        """
        last = cache["resid_post", self.cfg.n_layers - 1].float()
        named = {"embed": cache["resid_pre", 0]}
        for layer in range(self.cfg.n_layers):
            named |= {f"{layer}.attn_out": cache["attn_out", layer], f"{layer}.mlp_out": cache["mlp_out", layer]}
        ids = torch.tensor([tokens] if isinstance(tokens, int) else list(tokens))
        columns = (self._core.unembedding[ids] * self._core.final_norm_gain).T * self.cfg.logit_scale  # [d_model, tokens]
        centred = self.cfg.normalization_type == "LN"
        if centred:  # what the norm subtracts from the stream may as well be taken from what reads it
            columns = columns - columns.mean(0)
            last = last - last.mean(-1, keepdim=True)
        scale = (last.square().mean(-1, keepdim=True) + self.cfg.eps).sqrt()
        parts = torch.stack([value.float() @ columns for value in named.values()]) / scale
        if not centred:
            return list(named), parts
        bias = self.unembed(torch.zeros(1, self.cfg.d_model))[0, ids]
        return [*named, "final_bias"], torch.cat([parts, bias.expand_as(parts[:1])])

    @property
    def hook_names(self) -> list[str]:
        """Every hook point this model computes, in order."""
        if self._names is None:
            self._names = _core.point_names(self._core)
        return list(self._names)

    def session(self, **options: Any) -> Session:
        """A Session of one's own, for work step by step: caches, forks, several prompts in one pass."""
        return Session(self._core, **options)

    def engine(self, **options: Any) -> Engine:
        """An Engine: rows that come and go at any time, computed together; options are those of `Engine`."""
        return Engine(self._core, **options)

    # --- text ---

    def to_tokens(self, input: str | Sequence[str], prepend_bos: bool = True) -> torch.Tensor:
        """Ids [batch, tokens], i64; shorter texts are padded on the right with the end-of-sequence token."""
        rows = [self._encode(text, prepend_bos) for text in ([input] if isinstance(input, str) else input)]
        longest = max((len(r) for r in rows), default=0)
        if any(len(r) != longest for r in rows):
            pad = self.tokenizer.eos_token_id or 0
            rows = [r + [pad] * (longest - len(r)) for r in rows]
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), longest)

    def _encode(self, text: str, prepend_bos: bool = True) -> list[int]:
        tokenizer = self.tokenizer
        ids = tokenizer.encode(text, add_special=False)
        bos = tokenizer.bos_token_id
        return [bos, *ids] if prepend_bos and bos is not None else ids

    def to_string(self, tokens: torch.Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Any:
        """Text of ids [tokens]; a list of texts of ids [batch, tokens]."""
        rows = _rows("Model.to_string", tokens)
        texts = [self.tokenizer.decode(row) for row in rows]
        return texts if _is_batch(tokens) else texts[0]

    def to_str_tokens(self, input: Input, prepend_bos: bool = True) -> Any:
        """The text of each token, a list; for a batch a list of lists."""
        if isinstance(input, str):
            return self._pieces(self._encode(input, prepend_bos))
        rows = self._rows("Model.to_str_tokens", input, prepend_bos)
        out = [self._pieces(row) for row in rows]
        return out if _is_batch(input) else out[0]

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        tokenizer = self.tokenizer
        return [tokenizer.token(i) if tokenizer.is_special(i) else tokenizer.decode([i]) for i in ids]

    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token. Raises Error(argument) for any other."""
        ids = self.tokenizer.encode(text, add_special=False)
        if len(ids) != 1:
            raise _refuse("Model.to_single_token", f"expected text of one token but {text!r} has {len(ids)}")
        return ids[0]

    def _rows(self, where: str, input: Input, prepend_bos: bool = True) -> list[list[int]]:
        if isinstance(input, str):
            return [self._encode(input, prepend_bos)]
        if isinstance(input, Sequence) and input and isinstance(input[0], str):
            return [self._encode(text, prepend_bos) for text in input]  # type: ignore[arg-type]
        return _rows(where, input)  # type: ignore[arg-type]

    def _even_rows(self, where: str, input: Input, prepend_bos: bool = True) -> list[list[int]]:
        """Rows of one length, padded as `to_tokens` pads texts."""
        if isinstance(input, Sequence) and input and isinstance(input[0], str) and not isinstance(input, str):
            return self.to_tokens(input, prepend_bos).tolist()  # type: ignore[arg-type]
        rows = self._rows(where, input, prepend_bos)
        if len({len(row) for row in rows}) > 1:
            raise _refuse(where, f"expected rows of one length but got {[len(row) for row in rows]}", "shape")
        return rows

    # --- runs ---

    def __call__(
        self,
        input: Input,
        return_type: Literal["logits", "loss", "both"] | None = "logits",
        *,
        prepend_bos: bool = True,
        steering: SteeringLike = None,
        loss_per_token: bool = False,
    ) -> Any:
        """Logits [batch, tokens, vocab], f32; or the mean cross-entropy of the next token; or both; or None.

        Gradients flow to tensors that hooks put in; weights are constants.
        """
        rows = self._even_rows("Model", input, prepend_bos)
        with self._running(steering) as run:
            logits = run.forward(rows, "none" if return_type is None else "all")
        if return_type is None:
            return None
        if return_type == "logits":
            return logits
        loss = _loss(logits, rows, loss_per_token)
        return loss if return_type == "loss" else (logits, loss)

    forward = __call__

    def run_with_cache(
        self,
        input: Input,
        names_filter: NamesFilter = None,
        *,
        prepend_bos: bool = True,
        remove_batch_dim: bool = False,
        stop_at_layer: int | None = None,
        steering: SteeringLike = None,
        return_type: Literal["logits", "loss"] | None = "logits",
    ) -> tuple[Any, ActivationCache]:
        """(logits [batch, tokens, vocab], activations by hook point).

        names_filter: a name or glob ("blocks.*.hook_resid_post"), several, a function of names, or None for all.
        stop_at_layer: runs the layers before it only; the first result is then None. Raises Error(argument) for a name
        that this model does not compute.
        """
        rows = self._even_rows("Model.run_with_cache", input, prepend_bos)
        stop = -1 if stop_at_layer is None else stop_at_layer - 1
        if stop_at_layer is not None and stop_at_layer < 1:
            raise _refuse("Model.run_with_cache", f"expected stop_at_layer of 1 or more but got {stop_at_layer}")
        with self._running(steering) as run:
            logits, cache = run.record(rows, self._patterns(names_filter, stop), return_type is not None, stop)
        if return_type == "loss" and logits is not None:
            logits = _loss(logits, rows, False)
        return logits, cache.remove_batch_dim() if remove_batch_dim else cache

    def run_with_hooks(
        self,
        input: Input,
        fwd_hooks: Sequence[Hook] = (),
        return_type: Literal["logits", "loss", "both"] | None = "logits",
        **options: Any,
    ) -> Any:
        """`model(input)` with hooks, each (name or function of names, function(x, at)).

        x is the activation itself, [batch, tokens, width] ([batch, tokens, heads, d_head] at q, k, v and z): edit it in
        place, or return a tensor to put in its place. `at` has name, layer(), ids, positions, sequences, generated.
        """
        with self.hooks(fwd_hooks):
            return self(input, return_type, **options)

    @contextmanager
    def hooks(self, fwd_hooks: Sequence[Hook] = ()) -> Iterator[Model]:
        """Hooks of every run in the block, `generate` included; runs that a hook itself starts are plain."""
        with self._activated(_Active(self, hooks=tuple((n, _plainly(f)) for n, f in self._resolved(fwd_hooks)))):
            yield self

    @contextmanager
    def steer(self, steering: SteeringLike) -> Iterator[Steered]:
        """Steers every run in the block: with model.steer({sae.feature(330): +0.6}) as steered: ...

        `steered.audit` then says what it did in the last row, `steered.audits` in each. Blocks add up.
        """
        given = as_steering(steering)
        steered = Steered(given if given is not None else Steering())
        with self._activated(_Active(self, steered=steered)):
            yield steered

    @contextmanager
    def _activated(self, entry: _Active) -> Iterator[None]:
        token = _active.set((*_active.get(), entry))
        try:
            yield
        finally:
            _active.reset(token)

    def _resolved(self, hooks: Sequence[Hook]) -> list[tuple[str, HookFunction]]:
        out: list[tuple[str, HookFunction]] = []
        for name, function in hooks:
            if not callable(function):
                raise _refuse("Model.hooks", f"expected functions as hooks but got {function!r} for {name!r}")
            if callable(name):
                chosen = [n for n in self.hook_names if name(n)]
                if not chosen:
                    raise _refuse("Model.hooks", "expected a function of names that chooses some but it chose none")
                out.extend((n, function) for n in chosen)
            else:
                out.append((name, function))
        return out

    def _patterns(self, names: NamesFilter, stop_after_layer: int) -> list[str]:
        if names is None:
            return ["*"]
        if isinstance(names, str):
            return [names]
        if callable(names):
            reached = [n for n in self.hook_names if stop_after_layer < 0 or _layer_of(n) <= stop_after_layer]
            chosen = [n for n in reached if names(n)]
            if not chosen:
                raise _refuse("Model.run_with_cache", "expected a names_filter that chooses some names but it chose none")
            return chosen
        return list(names)

    @contextmanager
    def _running(self, steering: SteeringLike = None) -> Iterator[_Run]:
        """A session with what the `with` blocks around have switched on, and `steering` of this call."""
        mine = [entry for entry in _active.get() if entry.model is self]
        steered = [entry.steered for entry in mine if entry.steered is not None]
        total: Steering | None = None
        for part in [s.steering for s in steered] + [as_steering(steering)]:
            if part is not None and part:
                total = part if total is None else total + part
        with ExitStack() as stack:
            session = stack.enter_context(self._borrowed())
            for entry in mine:
                for name, function in entry.hooks:
                    stack.enter_context(session.hook(name, function, shape="rows"))
            yield _Run(session, total, steered)

    @contextmanager
    def _borrowed(self) -> Iterator[Session]:
        """This thread's idle session, or a new one: a call from within a hook gets one of its own."""
        idle: list[Session] = self._sessions.__dict__.setdefault("idle", [])
        session = idle.pop() if idle else Session(self._core)
        yield session  # after an exception it is dropped, not kept
        idle.append(session)

    # --- generation ---

    def generate(
        self,
        input: Input | Chat,
        max_new_tokens: int = 256,
        *,
        steering: SteeringLike | Sequence[SteeringLike] = None,
        stop_at_eos: bool = True,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        seeds: Sequence[int] = (),
        prepend_bos: bool = True,
        return_type: Literal["input", "str", "tokens", "results"] = "input",
        require_fired: bool = False,
        on_token: Callable[[int, int, str], bool | None] | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> Any:
        """Continues a text, texts or ids; or answers a chat, a list of {"role", "content"}.

        Greedy unless a temperature, top_k, top_p or do_sample=True (temperature 1) asks for sampling. A row depends on
        its own prompt, steering and seed only, not on its batch mates. steering: one for all rows, or a list, one a row.

        return_type: "input" is what the input was, prompt included, as TransformerLens returns it (for a chat the
        answer's text); "str" and "tokens" say which; "results" is a list of GenerateResult, with text, audit and
        log-probabilities of the new tokens only. Ctrl-C ends the call and leaves the model usable.
        """
        sampled = do_sample if do_sample is not None else any(v is not None for v in (temperature, top_k, top_p))
        chosen = dict(
            max_tokens=max_new_tokens,
            temperature=(1.0 if temperature is None else temperature) if sampled else 0.0,
            top_k=top_k or 0, top_p=1.0 if top_p is None else top_p, min_p=min_p, repetition_penalty=repetition_penalty,
            ignore_eos=not stop_at_eos, stop=list(stop), seed=seed, require_fired=require_fired, on_token=on_token,
            **options,
        )  # fmt: skip
        chat = _is_chat(input)
        rows = [self.chat.render(cast(Chat, input))[1]] if chat else self._rows("Model.generate", cast(Input, input), prepend_bos)
        each: list[SteeringLike] = list(steering) if isinstance(steering, Sequence) else [steering] * len(rows)
        if len(each) != len(rows):
            raise _refuse("Model.generate", f"expected one steering a row but got {len(each)} for {len(rows)} rows")
        with self._generating(chosen, len(rows), verbose) as run:
            results = run(rows, [as_steering(s) for s in each], list(seeds))
        if return_type == "results":
            return results
        if chat:
            return results[0].text
        whole = [[*row, *result.ids] for row, result in zip(rows, results)]
        as_text = return_type == "str" or (return_type == "input" and _is_text(input))
        if as_text:
            texts = [self.tokenizer.decode(row, skip_special=True) for row in whole]
            return texts if _is_batch(input) else texts[0]
        return _padded(whole, self.tokenizer.eos_token_id or 0 if self._core.has_tokenizer else 0)

    @contextmanager
    def _generating(self, options: dict[str, Any], rows: int, verbose: bool) -> Iterator[Callable[..., Any]]:
        mine = [entry for entry in _active.get() if entry.model is self]
        steered = [entry.steered for entry in mine if entry.steered is not None]
        hooked = [hook for entry in mine for hook in entry.hooks]
        def run(prompts: list[list[int]], each: list[Steering | None], seeds: list[int]) -> list[GenerateResult]:
            total = [_sum([s.steering for s in steered] + [own]) for own in each]
            with ExitStack() as stack:
                if verbose:
                    line = stack.enter_context(bar("generate", rows * options["max_tokens"]))
                    options["on_token"] = counting(line, options.get("on_token"))
                on: Any = self._core
                if hooked:
                    on = Session(self._core, batch_invariant=options.pop("batch_invariant", True))
                    for name, function in hooked:
                        stack.enter_context(on.hook(name, function, shape="rows"))
                results = _core.generate(on, prompts, steering=total, seeds=seeds, **options)
            for entry in steered:
                entry.audits.extend(result.audit for result in results)
            return results

        yield run

    # --- what cannot be ---

    def __reduce__(self) -> Any:
        raise _refuse(
            "Model",
            "expected not to be pickled: a model is gigabytes that lie in files; send the path and call "
            "Model.from_pretrained there",
            "unsupported",
        )

    def __repr__(self) -> str:
        return f"Model({self.cfg!r}, device='{self._core.device}')"


class _Run:
    """One run of a session under a steering, whose audits go where `with` blocks can see them."""

    def __init__(self, session: Session, steering: Steering | None, steered: list[Steered]) -> None:
        self.session, self.steering, self.steered = session, steering, steered

    def forward(self, rows: list[list[int]], logits: str) -> torch.Tensor | None:
        if len(rows) == 1 and not self.steered:
            out = self.session.forward(rows[0], steering=self.steering, logits=logits)
            return None if out is None else out.unsqueeze(0)
        together = self._step(rows, logits)
        return None if together is None else together.view(len(rows), -1, together.shape[-1])

    def _step(self, rows: list[list[int]], logits: str) -> torch.Tensor | None:
        opened: list[int] = []
        try:
            for _ in rows:
                opened.append(self.session.open(steering=self.steering))
            return self.session.step(list(zip(opened, rows)), logits=logits)
        finally:
            for sequence in opened:
                audit = self.session.audit(sequence)
                for entry in self.steered:
                    entry.audits.append(audit)
                self.session.close(sequence)

    def record(
        self, rows: list[list[int]], patterns: list[str], logits: bool, stop: int
    ) -> tuple[torch.Tensor | None, ActivationCache]:
        out, values = self.session.record(
            rows, patterns, steering=self.steering, logits="all" if logits else "none", stop_after_layer=stop
        )
        return out, ActivationCache(dict(values))


def _plainly(function: HookFunction) -> HookFunction:
    """Without hooks and steerings around: else a hook that runs the model would call itself."""

    def hook(x: torch.Tensor, at: HookCall) -> torch.Tensor | None:
        token = _active.set(())
        try:
            return function(x, at)
        finally:
            _active.reset(token)

    return hook


def _sum(parts: Sequence[Steering | None]) -> Steering | None:
    total: Steering | None = None
    for part in parts:
        if part is not None and part:
            total = part if total is None else total + part
    return total


def _is_chat(input: Any) -> bool:
    return isinstance(input, Sequence) and len(input) > 0 and isinstance(input[0], Mapping)


def _is_text(input: Any) -> bool:
    return isinstance(input, str) or (isinstance(input, Sequence) and len(input) > 0 and isinstance(input[0], str))


def _is_batch(input: Any) -> bool:
    if isinstance(input, torch.Tensor):
        return input.dim() > 1
    return not isinstance(input, str) and isinstance(input, Sequence) and len(input) > 0 and not isinstance(input[0], int)


def _rows(where: str, tokens: Any) -> list[list[int]]:
    """Ids as lists, from a tensor or lists of them."""
    if isinstance(tokens, torch.Tensor):
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool or tokens.dim() not in (1, 2):
            raise _refuse(
                where, f"expected ids [tokens] or [batch, tokens] of an integer dtype but got {list(tokens.shape)} {tokens.dtype}"
            )
        values = tokens.tolist()
        rows = values if tokens.dim() == 2 else [values]
    elif isinstance(tokens, Sequence) and not isinstance(tokens, (str, bytes)):
        rows = [list(row) for row in tokens] if len(tokens) and not isinstance(tokens[0], int) else [list(tokens)]
    else:
        raise _refuse(where, f"expected text, ids or lists of them but got {type(tokens).__name__}")
    if not rows or any(not row for row in rows):
        raise _refuse(where, "expected at least one token but got none; an empty prompt has no next token (start with BOS)")
    return rows


def _loss(logits: torch.Tensor | None, rows: list[list[int]], per_token: bool) -> torch.Tensor:
    assert logits is not None
    log_p = logits[:, :-1].log_softmax(-1)
    loss = -log_p.gather(-1, torch.tensor(rows, device=logits.device)[:, 1:, None])[..., 0]
    return loss if per_token else loss.mean()


def _padded(rows: list[list[int]], pad: int) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows], dtype=torch.long)


def _layer_of(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blocks.") else 0
