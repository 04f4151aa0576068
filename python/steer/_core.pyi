"""steer's C++ library. Use it through the package `steer`."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
from typing import Any, overload

import torch

import steer.feature


def set_threads(count: int) -> None:
    """
    Sets how many threads steer and torch use in this process; 0: one a core. The same as torch.set_num_threads.
    """

def threads() -> int:
    """How many threads products use now."""

class Tokenizer:
    """
    Text to ids and back, exactly as the model's own tokenizer does it. Immutable; all members may be called from several threads.
    """

    @staticmethod
    def load(path: str | os.PathLike) -> Tokenizer:
        """
        From a folder (tokenizer.json, else tokenizer.model), one of these files or a GGUF file.
        """

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """
        Ids of a text. parse_special=False keeps untrusted text from spelling special tokens.
        """

    def encode_spans(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[tuple[int, int, int]]:
        """Ids with the bytes [begin, end) of the text each came from."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of ids."""

    def token(self, id: int) -> str:
        """The vocabulary's spelling of an id."""

    def id_of(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary, or None."""

    def is_special(self, id: int) -> bool:
        """Whether an id is a control token."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    def bos_token_id(self) -> int | None:
        """Begin of sequence, where the files name one."""

    @property
    def eos_token_id(self) -> int | None:
        """End of sequence, where the files name one."""

    @property
    def hash(self) -> str:
        """Identifies the vocabulary and its rules."""

class ChatTemplate:
    """Renders conversations in one model's chat format. Immutable."""

    @property
    def source(self) -> str:
        """The Jinja template."""

    @property
    def end_of_turn(self) -> list[int]:
        """Ids that end an assistant's message."""

    def render(self, messages: Sequence[Mapping[str, str]], *, generation_prompt: bool = True, date: str = '', variables: Mapping[str, object] | None = None) -> tuple[str, list[int]]:
        """
        A conversation of {"role", "content"} as text and ids; special tokens spelled in a message stay text.
        """

class ModelConfig:
    """What decides a model's numbers."""

    @property
    def family(self) -> str:
        """"llama", "qwen3", "gpt_oss" and so on."""

    @property
    def name(self) -> str:
        """What the file calls itself; may be empty."""

    @property
    def d_vocab(self) -> int:
        """Rows of the embedding."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    def n_layers(self) -> int:
        """Blocks."""

    @property
    def n_heads(self) -> int:
        """Query heads a layer."""

    @property
    def n_key_value_heads(self) -> int:
        """Key and value heads a layer."""

    @property
    def d_head(self) -> int:
        """Width of a head."""

    @property
    def d_mlp(self) -> int:
        """Neurons of an MLP (of an expert, where there are experts)."""

    @property
    def n_ctx(self) -> int:
        """Longest sequence."""

    @property
    def bos_ids(self) -> list[int]:
        """Begin of sequence."""

    @property
    def eos_ids(self) -> list[int]:
        """End of sequence, by the configuration; see Model.stop_ids."""

    @property
    def tied_embeddings(self) -> bool:
        """Embedding and unembedding are one matrix."""

    @property
    def parallel_residual(self) -> bool:
        """Attention and MLP both read resid_pre."""

    @property
    def normalization_type(self) -> str:
        """RMS or LN, of all norms."""

    @property
    def eps(self) -> float:
        """What norms add to the mean square."""

    @property
    def logit_scale(self) -> float:
        """Multiplies the logits, before their cap."""

    @property
    def output_logits_soft_cap(self) -> float:
        """c of c tanh(logits / c); 0: none."""

    @property
    def warnings(self) -> list[str]:
        """What was let through while reading, a sentence each."""

    def __repr__(self) -> str: ...

class Model:
    """
    Weights, configuration and tokenizer. Immutable, shared by any number of sessions.
    """

    @staticmethod
    def load(path: str | os.PathLike, *, weights: str = 'stored', compute: str = 'f32', device: str = 'cpu', max_memory: int = 0, context: int = 0, allow_unknown_config: Sequence[str] = [], adapter: str | os.PathLike = ..., chat_format: str | None = None) -> Model:
        """
        From a Hugging Face folder, a weight file of one, or a GGUF file. weights: stored, f32, bf16 or int8. compute: what activations are rounded to before products, f32 (not), bf16 or int8; faster and less exact.
        """

    @property
    def config(self) -> ModelConfig:
        """What decides its numbers."""

    @property
    def has_tokenizer(self) -> bool:
        """Whether its files had one."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises Error(config) without one."""

    @property
    def chat(self) -> ChatTemplate:
        """The model's own chat format."""

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end a generation."""

    @property
    def device(self) -> str:
        """Where its weights are."""

    @property
    def weight_bytes(self) -> int:
        """What the weights take."""

    @property
    def warnings(self) -> list[str]:
        """What was let through while loading, a sentence each."""

    @property
    def hash(self) -> str:
        """Identifies the weights."""

    def unembed(self, h: torch.Tensor) -> torch.Tensor:
        """
        Logits [tokens, d_vocab] of residuals [tokens, d_model], as behind the last layer.
        """

    @property
    def unembedding(self) -> torch.Tensor:
        """[d_vocab, d_model], f32."""

    @property
    def final_norm_gain(self) -> torch.Tensor:
        """[d_model], f32."""

def hook_point(name: str) -> str:
    """
    The TransformerLens name of a hook point given by that or by a Hugging Face module name.
    """

def sae_sources() -> dict[str, str]:
    """Absolute paths of the SAEs that were loaded in this process, by hash."""

class SAE:
    """
    A sparse autoencoder or transcoder, of any published layout: f = act(x W_enc + b_enc), x^ = f W_dec + b_dec. Immutable, cheap to copy. Arithmetic is f32; gradients flow to an x that asks for them.
    """

    @staticmethod
    def load(path: str | os.PathLike, *, device: str = 'cpu', norm_scaling_factor: float | None = None, k: int | None = None, saelens_llama_scope: bool = False) -> SAE:
        """From a file or folder of any layout that docs/sae-formats.md lists."""

    @staticmethod
    def from_weights(cfg: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> SAE:
        """
        From tensors in memory: W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc, b_dec; threshold for jumprelu.
        """

    def save(self, path: str | os.PathLike) -> None:
        """
        Writes SAELens' layout: a folder, or one file for a name in .safetensors.
        """

    @property
    def cfg(self) -> dict[str, object]:
        """What the file says besides the weights."""

    @property
    def d_in(self) -> int:
        """Width of what it reads."""

    @property
    def d_out(self) -> int:
        """Width of what it writes."""

    @property
    def d_sae(self) -> int:
        """How many features it has."""

    @property
    def device(self) -> str:
        """Where its weights are."""

    @property
    def hash(self) -> str:
        """Identifies weights and configuration."""

    @property
    def hook_name(self) -> str:
        """Where it was trained; may be empty."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Feature activations [.., d_sae] of x [.., d_in]."""

    def encode_subset(self, x: torch.Tensor, features: Sequence[int]) -> torch.Tensor:
        """Activations of the named features only, [.., len(features)]."""

    def encode_sparse(self, x: torch.Tensor, limit: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Non-zero activations only, as (offsets [tokens + 1], index, value): token r holds [offsets[r], offsets[r+1]).
        """

    def decode(self, features: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """
        Reconstruction [.., d_out]; SAEs that normalise their input need that x.
        """

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """decode(encode(x))."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """decode(encode(x)), as SAELens' SAEs do when called."""

    def error(self, x: torch.Tensor) -> torch.Tensor:
        """x - decode(encode(x))."""

    def fold_W_dec_norm(self) -> SAE:
        """The same function with decoder rows of unit norm."""

    def select(self, features: Sequence[int]) -> SAE:
        """An SAE of the named features only, in that order."""

    @property
    def W_enc(self) -> torch.Tensor:
        """[d_in, d_sae], f32."""

    @property
    def b_enc(self) -> torch.Tensor:
        """[d_sae]."""

    @property
    def W_dec(self) -> torch.Tensor:
        """[d_sae, d_out], f32."""

    @property
    def b_dec(self) -> torch.Tensor:
        """[d_out]."""

    @property
    def threshold(self) -> torch.Tensor | None:
        """[d_sae], or None."""

    def __repr__(self) -> str: ...

    def __eq__(self, other: object, /) -> bool: ...

    def feature(self, index: int) -> steer.feature.Feature:
        """
        The feature of that index, to steer with: {sae.feature(330): +0.6}. Raises Error(argument) outside the SAE.
        """

    def __reduce__(self) -> tuple[object, ...]: ...

    def __hash__(self) -> int: ...

class FeatureLabels:
    """What is known of an SAE's features besides weights. Immutable, mapped."""

    @staticmethod
    def open(path: str | os.PathLike) -> FeatureLabels:
        """
        Opens a store that `import_neuronpedia` wrote: no parsing, whatever its size.
        """

    @staticmethod
    def import_neuronpedia(folder: str | os.PathLike, store: str | os.PathLike) -> FeatureLabels:
        """
        Reads a Neuronpedia export, its folder or one file (explanations, .jsonl or .jsonl.gz), writes it to `store` and opens that. Raises Error(io | format) naming file and line.
        """

    def __len__(self) -> int:
        """One past the largest feature known."""

    def label(self, feature: int) -> str:
        """The first explanation; empty without one."""

    def max_activation(self, feature: int) -> float | None:
        """The largest that was seen, or None."""

class SAETrainer:
    """
    Trains a sparse autoencoder on a model's activations while they are computed.
    """

    def __init__(self, model: Model, hook_point: str, texts: Sequence[str], options: Mapping[str, object], context: int = 128) -> None: ...

    def step(self) -> dict[str, float]:
        """Runs one step; what it saw."""

    @property
    def steps_done(self) -> int:
        """Those of a checkpoint included."""

    def sae(self) -> SAE:
        """The autoencoder as it is now."""

    def save_checkpoint(self, path: str | os.PathLike) -> None:
        """
        Everything a later trainer with this file as its option `checkpoint` goes on from.
        """

class Scope:
    """
    Which positions an edit touches. Position 0, an attention sink, only with include_bos.
    """

    def __init__(self, where: str = 'all', *, count: int = 0, begin: int = 0, end: int = 0, tag: str = '', include_bos: bool = False, tokens: Sequence[int] = [], but_not: Sequence[Scope] = []) -> None:
        """
        where: all, prompt, generated, onset (the first `count` generated), last, from_last, span ([begin, end)), inside_tag, outside_tag. tokens: only these ids. but_not: none that one of these scopes selects.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __repr__(self) -> str: ...

class Condition:
    """When an edit acts, decided token by token."""

    @staticmethod
    def feature_above(sae: SAE, feature: int, threshold: float, *, point: str | None = None, release: float = 0.0, sticky: bool = False) -> Condition:
        """
        The feature's activation, read as it arrives at `point` (where the SAE was trained), exceeds `threshold`. release: once on, stays on until the value is so far below. sticky: once on, stays on for the sequence.
        """

    @staticmethod
    def feature_at_most(sae: SAE, feature: int, threshold: float, *, point: str | None = None, release: float = 0.0, sticky: bool = False) -> Condition:
        """The feature's activation is at most `threshold`."""

    @staticmethod
    def probe_above(w: torch.Tensor, b: float, *, point: str, release: float = 0.0, sticky: bool = False) -> Condition:
        """w.h + b > 0 at `point`, with w [width]."""

    @staticmethod
    def entropy_between(low: float, high: float, *, sticky: bool = False) -> Condition:
        """The next-token entropy lies in [low, high], in nats."""

    @staticmethod
    def all_of(parts: Sequence[Condition]) -> Condition:
        """Every part holds."""

    @staticmethod
    def any_of(parts: Sequence[Condition]) -> Condition:
        """One part holds."""

    def __repr__(self) -> str: ...

class Edit:
    """One edit, a value."""

    @property
    def point(self) -> str:
        """The hook point it acts at."""

    @property
    def kind(self) -> str:
        """As files spell it: "nudge", "add"."""

    @property
    def strength(self) -> float:
        """Multiplies what it does."""

    @property
    def unit(self) -> str:
        """
        raw, residual_norm (shares of |h|) or max_activation (of the feature's).
        """

    @property
    def scope(self) -> Scope:
        """Which positions it touches."""

    @property
    def when(self) -> Condition | None:
        """Its condition, or None."""

    @property
    def name(self) -> str:
        """For the audit; may be empty."""

    def number(self, parameter: str) -> float:
        """A parameter by the name it has in files: "value", "feature"."""

    def vector(self, parameter: str) -> torch.Tensor:
        """A vector by the name it has in files: "vector", "w"."""

    def __repr__(self) -> str: ...

class Steering:
    """An ordered list of edits: a value, for one row. Builders return self."""

    def __init__(self) -> None: ...

    def add(self, vector: torch.Tensor, at: str, strength: float = 1.0, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        h + strength * vector; with unit="residual_norm" h + strength * |h| * vector / |vector| (arXiv:2308.10248, 2312.06681).
        """

    def nudge(self, sae: SAE, feature: int, value: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        f' = f + value: adds to a feature's activation. Alone, it needs no encode.
        """

    def pin(self, sae: SAE, feature: int, value: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """f' = value."""

    def mul(self, sae: SAE, feature: int, factor: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """f' = factor * f."""

    def clamp(self, sae: SAE, feature: int, low: float, high: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """f' = min(max(f, low), high)."""

    def cap(self, sae: SAE, feature: int, high: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """f' = min(f, high)."""

    def ablate(self, sae: SAE, feature: int, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """f' = 0."""

    def project_out(self, vector: torch.Tensor, at: str, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        h - (h.v^) v^ with v^ = v / |v|: directional ablation (arXiv:2406.11717).
        """

    def scale_along(self, vector: torch.Tensor, at: str, factor: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """h + (factor - 1) (h.v^) v^."""

    def project_to(self, vector: torch.Tensor, at: str, target: float, side: str = 'below', *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        h + (target - h.v^) v^ where h.v^ lies below (or above, or on either side of) the target; with unit="residual_norm" the target is a share of |h|.
        """

    def rotate(self, a: torch.Tensor, b: torch.Tensor, at: str, radians: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        Rotates the part of h in the plane of a and b, a towards b; the rest and |h| stay.
        """

    def swap(self, a: torch.Tensor, b: torch.Tensor, at: str, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """Exchanges the parts of h along a and b; the rest and |h| stay."""

    def gated_add(self, w: torch.Tensor, b: float, z: torch.Tensor, at: str, a: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """h + a relu(w.h + b) z."""

    def splice(self, sae: SAE, with_error: bool = False, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        Puts decode(encode(h)) in h's place; with_error adds what the SAE does not explain.
        """

    def cap_norm(self, at: str, limit: float, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        Scales h down to |h| = limit where it is longer; with unit="residual_norm" the limit is a multiple of the norm on arrival.
        """

    def keep_norm(self, at: str, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        Scales h to the norm it had on arrival, undoing what the edits before did to it.
        """

    def custom(self, function: Callable, at: str, *, scope: Scope | None = None, when: Condition | None = None, unit: str = 'raw', max_activation: float = 0.0, point: str | None = None, name: str = '') -> Steering:
        """
        h + strength * (function(h, positions) - h), over the tokens in scope: h [tokens, width], a copy.
        """

    def edit(self, edit: Edit) -> Steering:
        """A copy of an edit, of another steering."""

    def abort_when(self, when: Condition, reason: str) -> Steering:
        """Ends the row when the condition becomes true."""

    @property
    def edits(self) -> list[Edit]:
        """In the order in which they act."""

    @property
    def empty(self) -> bool:
        """Neither edits nor watches."""

    def __len__(self) -> int: ...

    def __bool__(self) -> bool: ...

    def __iadd__(self, arg: Steering, /) -> Steering: ...

    def __add__(self, arg: Steering, /) -> Steering: ...

    def __mul__(self, factor: float) -> Steering:
        """Every strength multiplied; 0 switches off."""

    def __rmul__(self, factor: float) -> Steering: ...

    def __neg__(self) -> Steering: ...

    def scaled(self, factor: float) -> Steering:
        """Every strength multiplied; 0 switches off."""

    def __eq__(self, other: object, /) -> bool: ...

    def diff(self, other: Steering) -> list[str]:
        """What differs, one line an edit."""

    def copy(self) -> Steering:
        """Builders change a steering in place; this keeps the one before."""

    def __copy__(self) -> Steering: ...

    def __deepcopy__(self, memo: object) -> Steering: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    def describe(self) -> str:
        """One line an edit."""

    def __repr__(self) -> str: ...

    def save(self, file: str | os.PathLike, *, sae_paths: Mapping[str, str | os.PathLike] = {}) -> None:
        """
        Writes JSON (docs/steering-schema.md), and vectors as safetensors beside it. sae_paths: by SAE.hash; by default where an SAE was loaded from.
        """

    @staticmethod
    def load(file: str | os.PathLike, *, saes: Sequence[SAE] = []) -> Steering:
        """
        Reads what `save` wrote. saes: used for references with the same hash; others are loaded from their path. Raises Error(format | config) for an unknown key or kind, or a vector or SAE that is not the one of its hash.
        """

    def to_json(self, *, sae_paths: Mapping[str, str] = {}) -> dict[str, object]:
        """The JSON, vectors inline."""

    @staticmethod
    def from_json(json: object, *, saes: Sequence[SAE] = [], folder: str | os.PathLike = '') -> Steering:
        """
        From the dict that `to_json` made. folder: what relative paths in it are relative to.
        """

def from_hosted_variant(json: object, sae: SAE) -> Steering:
    """A variant of Goodfire's hosted service."""

def from_vllm_json(json: object) -> Steering:
    """Steering JSON of the vLLM steering forks."""

class EditAudit:
    """What one edit did in one sequence."""

    @property
    def edit(self) -> str:
        """Its name or description."""

    @property
    def point(self) -> str:
        """The hook point."""

    @property
    def seen(self) -> int:
        """Tokens that passed the hook point."""

    @property
    def in_scope(self) -> int:
        """Of those, tokens its scope and condition selected."""

    @property
    def edited(self) -> int:
        """Of those, tokens whose activation it changed."""

    @property
    def mean_change(self) -> float:
        """|change| / |h on arrival|, mean over edited tokens."""

    @property
    def max_change(self) -> float:
        """The largest."""

class SteeringAudit:
    """What a sequence's steering did; empty edits mean it did nothing."""

    def __init__(self) -> None: ...

    @property
    def edits(self) -> list[EditAudit]:
        """One EditAudit an edit, in their order."""

    @property
    def edited(self) -> int:
        """Tokens changed, over all edits."""

    @property
    def fired(self) -> bool:
        """Whether any token was changed."""

    def require_fired(self, where: str = 'require_fired') -> None:
        """
        Raises an Error that lists the counts when there are edits and none changed a token.
        """

    def __repr__(self) -> str: ...

class HookCall:
    """
    What a hook is told besides the activation: where it is, and whose tokens these are.
    """

    @property
    def name(self) -> str:
        """The hook point's TransformerLens name."""

    def layer(self) -> int:
        """The block's index."""

    @property
    def site(self) -> str:
        """Without the layer: "resid_post"."""

    @property
    def ids(self) -> list[int]:
        """Each token's id."""

    @property
    def positions(self) -> list[int]:
        """Each token's position in its sequence."""

    @property
    def sequences(self) -> list[int]:
        """Each token's sequence."""

    @property
    def generated(self) -> list[bool]:
        """Whether each token was generated, not part of the prompt."""

    def __repr__(self) -> str: ...

def point_names(model: Model) -> list[str]:
    """Every hook point of a model, in order of computation."""

class HookHandle:
    """
    Keeps a hook registered: until remove(), the end of a with block, or when it is dropped.
    """

    def remove(self) -> None:
        """The hook is not called again. Twice does no harm."""

    def __enter__(self) -> HookHandle: ...

    def __exit__(self, *args: object) -> None: ...

class FlatCache:
    """Activations by hook point, [tokens, width]."""

    def __getitem__(self, name: str) -> torch.Tensor: ...

    def __contains__(self, name: str) -> bool: ...

    def keys(self) -> list[str]:
        """Names, in order of computation."""

    @property
    def logits(self) -> torch.Tensor:
        """As asked for; None when the run stopped before the end."""

class Session:
    """
    Work on one model: sequences, each with its cache and its steering, and hooks. One thread at a time; any number of sessions share a model.
    """

    def __init__(self, model: Model, *, batch_invariant: bool = False, prompt_chunk: int = 512, max_cache_bytes: int = 0, cache: str = 'f32', backend: str = 'automatic', graphs: bool = True, on_warning: str = 'keep') -> None: ...

    @property
    def model(self) -> Model:
        """What it runs."""

    def hook(self, point: str, function: Callable[[torch.Tensor, HookCall], torch.Tensor | None], *, shape: str = 'flat', read_only: bool = False, order: int = 0) -> HookHandle:
        """
        Calls function(x, at) whenever the point is computed, decode steps included. x is the activation itself: edit it in place, or return a tensor to put in its place. read_only hooks get a copy and may not edit.

        Raises Error(argument) for a point this model does not compute.
        """

    def open(self, *, steering: Steering | None = None) -> int:
        """A new, empty sequence."""

    def fork(self, source: int, *, length: int = -1) -> int:
        """A copy of a sequence that shares its cache until either grows."""

    def close(self, sequence: int) -> None:
        """Forgets a sequence, its steering and its audit."""

    def audit(self, sequence: int) -> SteeringAudit:
        """What the sequence's steering has done to its tokens."""

    def length(self, sequence: int) -> int:
        """Tokens in the cache of a sequence."""

    @property
    def warnings(self) -> list[str]:
        """What a person should know of the steerings seen so far."""

    @property
    def cache_bytes(self) -> int:
        """Bytes the KV cache holds."""

    def step(self, inputs: Sequence[tuple[int, Sequence[int]]], *, phase: str = 'prompt', logits: str = 'last') -> torch.Tensor:
        """
        Appends tokens to sequences, [(sequence, ids), ...], and computes them in one pass. Logits f32: [inputs, vocab] for "last", [tokens, vocab] for "all", None for "none".
        """

    def forward(self, ids: Sequence[int], *, steering: Steering | None = None, logits: str = 'all', positions: Sequence[int] = []) -> torch.Tensor:
        """
        Logits, f32, of a prompt on its own: [tokens, vocab]. Gradients flow to tensors that hooks put in.
        """

    def run_with_cache(self, ids: Sequence[int], patterns: Sequence[str], *, steering: Steering | None = None, logits: str = 'all', stop_after_layer: int = -1) -> FlatCache:
        """`forward`, recording every point whose name matches a glob pattern."""

    def record(self, prompts: Sequence[Sequence[int]], patterns: Sequence[str], *, steering: Steering | None = None, logits: str = 'all', stop_after_layer: int = -1) -> tuple[torch.Tensor | None, list[tuple[str, torch.Tensor]]]:
        """
        `run_with_cache` of equally long prompts, with a dimension for rows and one for heads, as TransformerLens shapes activations.
        """

    def log_probabilities(self, ids: Sequence[int], *, steering: Steering | None = None, begin: int = 1, end: int = -1) -> list[float]:
        """
        How likely each token of a text is, given all before it: natural logarithms.
        """

class GenerateResult:
    """One generated row."""

    @property
    def ids(self) -> list[int]:
        """Generated only, without the stop token."""

    @property
    def text(self) -> str:
        """Of `ids`; up to a stop string."""

    @property
    def finish(self) -> str:
        """stop_token, stop_string, length, context, aborted or failed."""

    @property
    def stop(self) -> str:
        """For stop_string: which one."""

    @property
    def abort_reason(self) -> str:
        """For aborted and failed."""

    @property
    def prompt_log_probabilities(self) -> list[float]:
        """From score_from on."""

    @property
    def prompt_top(self) -> list[list[tuple[int, float]]]:
        """By prompt token from score_from on: (alternative, log-probability)."""

    @property
    def log_probabilities(self) -> list[float]:
        """Of each id, under the unfiltered distribution."""

    @property
    def top(self) -> list[list[tuple[int, float]]]:
        """By id: (alternative, log-probability), likeliest first."""

    @property
    def audit(self) -> SteeringAudit:
        """What the row's steering did."""

    @property
    def warnings(self) -> list[str]:
        """What a person should know of the steering."""

    def __repr__(self) -> str: ...

@overload
def generate(on: Session, prompts: Sequence[Sequence[int]], *, steering: Sequence[Steering | None] = [], seeds: Sequence[int] = [], **options) -> list[GenerateResult]: ...

@overload
def generate(on: Model, prompts: Sequence[Sequence[int]], *, steering: Sequence[Steering | None] = [], seeds: Sequence[int] = [], **options) -> list[GenerateResult]:
    """
    Generates for a batch of prompts. A row depends on its own prompt, steering and seed only. Options are those of GenerateOptions; on_token(row, id, text) is called per token, False ends that row.
    """

class Engine:
    """
    Generates for rows that come and go at any time; each step is one pass over all of them.
    """

    def __init__(self, model: Model, *, max_rows: int = 32, max_cache_bytes: int = 0, step_tokens: int = 256, keep_prefixes: bool = True, batch_invariant: bool = True) -> None: ...

    def submit(self, ids: Sequence[int], *, steering: Steering | None = None, **options: object) -> int:
        """
        Adds a row, or `samples` of them, from any thread; the first one's id. Options are those of EngineRequest: temperature, max_tokens (0: the prompt is read only), stop, seed, priority, top, score_from, given and so on.
        """

    def step(self, on_event: Callable[[int, int, str, GenerateResult | None], object] | None = None) -> bool:
        """
        One pass. Calls on_event(row, id, text, result or None) for every token, and once more for each row that ends. Whether rows are left.
        """

    def cancel(self, row: int) -> bool:
        """
        Ends a row, from any thread; its last event follows. False for a row that has ended or is unknown.
        """

    def load(self) -> dict[str, int]:
        """What it holds now, and has done so far."""

def score(model: Model, texts: Sequence[tuple[Sequence[int], int]], *, steering: Steering | None = None) -> list[list[float]]:
    """
    Natural log-probabilities of the tokens from `begin` on of each text, [(ids, begin), ...], under the steering, if there is one, as if they had been generated.
    """

def sae_point(model: Model, sae: SAE) -> str:
    """
    The hook point an SAE reads on a model, after checking that the two fit.
    """

def pooled_features(session: Session, sae: SAE, texts: Sequence[Sequence[int]], pooling: str = 'mean') -> torch.Tensor:
    """Feature activations pooled over each text's tokens, [texts, d_sae]."""

def contrast(positive: torch.Tensor, negative: torch.Tensor, *, limit: int = 100, bootstrap: int = 500, seed: int = 0) -> list[dict[str, object]]:
    """
    Features that tell two sets of texts apart, of pooled activations [texts, d_sae], the strongest first.
    """

def logit_effects(model: Model, sae: SAE, feature: int, top: int = 10) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """
    (promoted, suppressed): tokens a feature's direction writes for, as (id, logits a unit of activation).
    """

def search_labels(labels: FeatureLabels, query: str, limit: int = 20) -> list[tuple[int, str, float]]:
    """
    Features whose label has words of the query, best first, as (feature, label, BM25 score). A number finds the feature of that index.
    """

class Inspection:
    """Which features a text activates, and where."""

    @property
    def hook_point(self) -> str:
        """Where the SAE read."""

    def to_dict(self) -> dict[str, object]:
        """The numbers: tokens, and features by token and over the text."""

    def to_html(self, title: str = 'Feature activations') -> str:
        """A page of its own."""

    def write(self, file: str | os.PathLike) -> None:
        """Writes the page or, for a name ending in .json, the numbers."""

def inspect(session: Session, sae: SAE, ids: Sequence[int], *, top_features: int = 30, top_per_token: int = 5, labels: FeatureLabels | None = None) -> Inspection:
    """
    Which features ids activate, and where. Position 0, an attention sink, is left out.
    """

class CalibratedStrength:
    """A steering brought to a wanted effect."""

    @property
    def steering(self) -> Steering:
        """At that strength."""

    @property
    def factor(self) -> float:
        """What every strength was multiplied by."""

    @property
    def kl(self) -> float:
        """The quantile of its tokens' KL, nats."""

    @property
    def reached(self) -> bool:
        """Whether the effect came within reach of the target."""

    @property
    def reason(self) -> str:
        """What was found, in words."""

    def __repr__(self) -> str: ...

def calibrate_strength(model: Model, steering: Steering, target: float, *, texts: Sequence[Sequence[int]] = []) -> CalibratedStrength:
    """
    Multiplies a steering's strengths until the 95th percentile of next-token KL reaches `target` nats.
    """

def difference_of_means(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """
    mean(positive) - mean(negative), of [examples, width], not normalised (arXiv:2312.06681).
    """

def principal_direction(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """
    The first principal component of the examples' differences, unit length, from negative to positive (arXiv:2310.01405): of pairs for equally many examples, else about the midpoint of the two means.
    """

def logistic_probe(positive: torch.Tensor, negative: torch.Tensor, *, l2: float = 0.001) -> tuple[torch.Tensor, float]:
    """
    A linear classifier (w [width], b): positive where w.h + b > 0. Logistic regression with a penalty l2 |w|^2 / 2 on standardised inputs; each class weighs one half.
    """

class AutoSteerTrial:
    """One steering that was tried."""

    @property
    def form(self) -> str:
        """"nudge the first 8 tokens" and so on."""

    @property
    def strength(self) -> float:
        """In the form's own unit."""

    @property
    def effect(self) -> float:
        """95th percentile of next-token KL, nats."""

    @property
    def features(self) -> list[int]:
        """Those that are edited."""

    @property
    def steering(self) -> Steering:
        """What was tried."""

    @property
    def behaviour(self) -> float:
        """0: as unsteered, 1: as when asked for."""

    @property
    def accuracy(self) -> float:
        """On the capability questions; NaN where not measured."""

    @property
    def within_bounds(self) -> bool:
        """Whether what it costs is allowed."""

    @property
    def dropped(self) -> str:
        """Why it was not chosen; empty if it was."""

class AutoSteerResult:
    """What a search found, and why."""

    @property
    def behaviour(self) -> str:
        """As it was asked for."""

    @property
    def mode(self) -> str:
        """safe or published."""

    @property
    def verdict(self) -> str:
        """"steered", or why there is no steering."""

    @property
    def reason(self) -> str:
        """A sentence."""

    @property
    def steering(self) -> Steering:
        """Empty unless the verdict is "steered"."""

    @property
    def trials(self) -> list[AutoSteerTrial]:
        """Everything that was tried."""

    @property
    def chosen(self) -> int:
        """Place in `trials`; -1: none."""

    @property
    def warnings(self) -> list[str]:
        """What a person should know of the search."""

    def explain(self) -> str:
        """A page of text: the verdict, the features and the strength curve."""

    def plot(self, ax: Any = None) -> Any:
        """
        Behaviour and accuracy of every trial over its effect (KL, nats), one line a form. Returns matplotlib's axes.
        """

    def to_svg(self) -> str:
        """The strength curve as a picture."""

    def to_dict(self) -> dict[str, object]:
        """Everything but the tensors, the certificate included."""

    def __repr__(self) -> str: ...

class AutoSteerOptions:
    """How a search goes; made by search_options."""

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""

    @seed.setter
    def seed(self, arg: int, /) -> None: ...

    @property
    def max_tokens(self) -> int:
        """Of an answer."""

    @max_tokens.setter
    def max_tokens(self, arg: int, /) -> None: ...

    @property
    def batch(self) -> int:
        """Rows generated at once."""

    @batch.setter
    def batch(self, arg: int, /) -> None: ...

    @property
    def candidates(self) -> int:
        """Features kept by contrast."""

    @candidates.setter
    def candidates(self, arg: int, /) -> None: ...

    @property
    def features(self) -> int:
        """At most this many are edited."""

    @features.setter
    def features(self, arg: int, /) -> None: ...

    @property
    def effects(self) -> list[float]:
        """
        safe: the effects, see AutoSteerTrial.effect, whose strengths are tried.
        """

    @effects.setter
    def effects(self, arg: Sequence[float], /) -> None: ...

    @property
    def others(self) -> list[str]:
        """Other behaviours that the wanted one is told from."""

    @others.setter
    def others(self, arg: Sequence[str], /) -> None: ...

    @property
    def ask(self) -> str:
        """System prompt that asks; {} is the behaviour."""

    @ask.setter
    def ask(self, arg: str, /) -> None: ...

    @property
    def ask_opposite(self) -> str:
        """That asks for the opposite; empty: never asked."""

    @ask_opposite.setter
    def ask_opposite(self, arg: str, /) -> None: ...

    @property
    def labels(self) -> FeatureLabels | None:
        """FeatureLabels of the SAE, for names; or None."""

    @labels.setter
    def labels(self, arg: FeatureLabels | None, /) -> None: ...

    @property
    def journal(self) -> pathlib.Path:
        """
        A file that keeps every answer: a search that was stopped goes on there. Empty: none.
        """

    @journal.setter
    def journal(self, arg: str | os.PathLike, /) -> None: ...

    @property
    def prompts(self) -> list[str]:
        """Neutral user messages, at least 4."""

    @prompts.setter
    def prompts(self, arg: Sequence[str], /) -> None: ...

class AutoSteer:
    """
    From a behaviour in words to a steering; remembers answers between behaviours.
    """

    def __init__(self, model: Model, sae: SAE, options: AutoSteerOptions) -> None: ...

    def find(self, behaviour: str, mode: str = 'safe') -> AutoSteerResult:
        """
        What `steer.auto_steer` returns. Ctrl-C ends it; with a journal the next goes on there.
        """

class Question:
    """A multiple-choice question, or an open prompt when it has no choices."""

    def __init__(self, id: str, text: str, choices: Sequence[str] = [], answer: int = -1, subject: str = '') -> None: ...

    @property
    def id(self) -> str:
        """Names it in results."""

    @property
    def subject(self) -> str:
        """May be empty."""

    @property
    def text(self) -> str:
        """The question alone."""

    @property
    def choices(self) -> list[str]:
        """A, B, C, ...; none of an open prompt."""

    @property
    def answer(self) -> int:
        """Index of the right choice; -1 when there are none."""

    @property
    def gold(self) -> str:
        """The right letter."""

    def prompt(self) -> str:
        """As a user message."""

    def __repr__(self) -> str: ...

def load_questions(path: str | os.PathLike) -> list[Question]:
    """Questions from JSON or JSON lines, in any of the published shapes."""

def load_mmlu(folder: str | os.PathLike, selection: str = 'first_three_dev') -> list[Question]:
    """
    Questions of MMLU in its original layout, CSV files without a header. selection: first_three_dev (the study's 171), dev, val or test.
    """

class Behaviour:
    """Something a model can be steered to be."""

    def __init__(self, name: str, instruction: str) -> None:
        """instruction completes "When answering, please ...": "be funny"."""

    @property
    def name(self) -> str:
        """"funny"."""

    @property
    def instruction(self) -> str:
        """What a prompt asks for."""

    def __repr__(self) -> str: ...

def study_behaviours() -> list[Behaviour]:
    """The 14 behaviours of arXiv:2602.04903."""

def load_behaviours(json: str | os.PathLike) -> list[Behaviour]:
    """Behaviours of a JSON file: [{"name", "instruction"}, ...]."""

class Arm:
    """
    One condition of an experiment: what is asked, and how the model is steered.
    """

    @staticmethod
    def control() -> Arm:
        """No request, no steering: what the others are compared with."""

    @staticmethod
    def prompt() -> Arm:
        """The request in the system prompt."""

    @staticmethod
    def strong_prompt() -> Arm:
        """A system prompt that insists."""

    @staticmethod
    def steered(name: str, steerings: Mapping[str, Steering]) -> Arm:
        """One steering for each behaviour by name, or one for all under ""."""

    @staticmethod
    def from_files(name: str, path: str | os.PathLike, *, saes: Sequence[SAE] = []) -> Arm:
        """
        Steering files: one for all behaviours, or a folder of <behaviour>.json. saes: as Steering.load.
        """

    @staticmethod
    def auto_steer(sae: SAE, options: AutoSteerOptions, mode: str = 'safe') -> Arm:
        """Steerings found by a search, one a behaviour."""

    def with_prompt(self) -> Arm:
        """The same steering, and the request in the system prompt."""

    def random_features(self, seed: int = 42) -> Arm:
        """A control: other features of the same SAE, edited by as much."""

    def noise(self, seed: int = 42) -> Arm:
        """A control: random directions of the same length."""

    def flipped(self) -> Arm:
        """A control: the opposite of every edit."""

    def at_strength(self, factor: float) -> Arm:
        """Every edit's strength multiplied."""

    def strength_sweep(self, strengths: Sequence[float], every: int = 1) -> list[Arm]:
        """
        One arm a strength: the report draws them as a curve. every: answers every n-th question only.
        """

    @property
    def name(self) -> str:
        """In results and reports."""

    @property
    def description(self) -> str:
        """One line."""

    def __repr__(self) -> str: ...

def search_options(model: Model, held_out: Sequence[Question], max_tokens: int, seed: int = 42, *, prompts: int = 24, checks: int = 64, certificate: int = 0) -> AutoSteerOptions:
    """
    Search options from questions that nothing else asks: prompts, checks and a certificate are taken from them.
    """

class Judge:
    """Scores responses."""

    @property
    def identity(self) -> str:
        """What its scores depend on, for journals."""

def python_judge(function: Callable[[str, str, str, str | None], float | None], identity: str) -> Judge:
    """
    A judge that is function(rubric, prompt, response, behaviour) -> 1 to 5 or None; rubric is "behaviour" or "coherence".
    """

def logit_judge(model: Model) -> Judge:
    """A local language model as the judge."""

def request_evidence(model: Model) -> Judge:
    """
    How much the unsteered model takes a text for an answer to the request; no score of a judge.
    """

def http_judge(url: str, model: str, key_variable: str = 'OPENAI_API_KEY') -> Judge:
    """
    A judge behind an OpenAI-compatible API; the key comes from the environment.
    """

class Report:
    """Results, their analysis, and the files that show them."""

    @property
    def title(self) -> str:
        """Of the page."""

    @title.setter
    def title(self, arg: str, /) -> None: ...

    def verdict(self) -> str:
        """Headline and findings as text."""

    def headline(self) -> str:
        """The one sentence."""

    def __repr__(self) -> str: ...

    def findings(self) -> list[str]:
        """The sentences below it."""

    def html(self) -> str:
        """The page that `write` writes."""

    def markdown(self) -> str:
        """The same as Markdown."""

    @property
    def settings(self) -> str:
        """JSON of everything the run depends on."""

    @property
    def notes(self) -> list[str]:
        """What a reader should know of the run."""

    @property
    def warnings(self) -> list[str]:
        """Of the steerings; shown before the notes."""

    @property
    def steerings(self) -> dict[str, dict[str, Steering]]:
        """What searches found, by arm and behaviour."""

    def write(self, file: str | os.PathLike) -> None:
        """
        One page, and beside it report.md, results.csv, results.jsonl and steerings.
        """

    def rows(self) -> list[dict[str, Any]]:
        """One dict a result."""

    def to_pandas(self) -> Any:
        """
        One row an answer: a DataFrame where pandas is installed, else a list of dicts.
        """

    def plot(self, score: str = 'behaviour', behaviour: str = '', ax: Any = None) -> Any:
        """
        Accuracy over a score, one point an arm, with the intervals of both. Returns matplotlib's axes.
        """

    def tradeoffs(self) -> list[dict[str, Any]]:
        """
        One dict an arm and behaviour ("": all): arm, behaviour, n, accuracy and scores by name, each a dict of mean, low and high, the 95 % interval by question.
        """

def run_experiment(model: Model, *, questions: Sequence[Question], behaviours: Sequence[Behaviour], arms: Sequence[Arm], mode: str = 'generate', temperature: float = 0.6, top_p: float = 0.9, max_tokens: int = 1024, seed: int = 42, nll: bool = True, kl: bool = False, force_answers: bool = False, judge: Judge | None = None, journal: str | os.PathLike = ..., batch: int = 64, baseline: str = 'control', progress: bool = False, rank: int = 0, ranks: int = 1, address: str = '', port: int = 0, timeout_s: float = 60.0) -> Report:
    """
    Runs an experiment; killed and started again with the same journal it goes on where it was.
    """
