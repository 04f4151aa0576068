"""What transformers and SAELens compute, through Python. Every folder that is there is run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import ROOT, golden_dirs
from golden import read

import steer


def cases(kind: str) -> list[Path]:
    return [f.parent for root in golden_dirs() for f in sorted((root / kind).glob("*/golden.safetensors"))]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


def test_a_named_folder_has_cases() -> None:
    if "STEER_GOLDEN_DIR" in os.environ:
        assert cases("models") and cases("saes")


@pytest.mark.parametrize("folder", cases("models") + cases("families"), ids=lambda p: f"{p.parent.name}-{p.name}")
def test_model(folder: Path) -> None:
    golden, meta = read(folder / "golden.safetensors")
    model = steer.Model.from_pretrained(folder)
    ids = golden["input_ids"]
    stored = {n: v for n, v in golden.items() if n.startswith("blocks.") and n in model.hook_names}
    logits, cache = model.run_with_cache(ids, list(stored))
    assert difference(logits, golden["logits"]) <= 1e-4
    for name, value in stored.items():
        assert difference(cache[name], value) <= 1e-4, name
    attributed = [f"blocks.{i}.hook_{s}" for i in range(model.cfg.n_layers) for s in ("attn_out", "mlp_out")]
    ends = ["blocks.0.hook_resid_pre", f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
    _, parts = model.logit_attribution(model.run_with_cache(ids, attributed + ends)[1], [5, 0, 7])
    total, cap = parts.sum(0), model.cfg.output_logits_soft_cap
    total = cap * torch.tanh(total / cap) if cap else total
    assert difference(total, golden["logits"][..., [5, 0, 7]]) <= 1e-3
    if "steered_all.logits" not in golden:
        return

    names = {"resid_post": "hook_resid_post", "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid",
             "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}  # fmt: skip
    site = meta["steer_site"]
    point = site if site.startswith("blocks.") else f"blocks.{meta['steer_layer']}.{names.get(site, site)}"
    vector = golden["steer_vector"]

    def edit(x: torch.Tensor, at: steer.HookCall) -> None:
        x += vector

    assert difference(model.run_with_hooks(ids, [(point, edit)]), golden["steered_all.logits"]) <= 1e-4
    returned = model.run_with_hooks(ids, [(point, lambda x, at: x + vector)])
    assert difference(returned, golden["steered_all.logits"]) <= 1e-4
    steering = steer.Steering().add(vector, point, 1.0, scope=steer.Scope(include_bos=True))
    assert difference(model(ids, steering=steering), golden["steered_all.logits"]) <= 1e-4
    if "gen_ids" in golden:
        options = dict(max_new_tokens=golden["gen_ids"].shape[1], stop_at_eos=False, return_type="tokens")
        assert torch.equal(model.generate(ids, **options)[:, ids.shape[1] :], golden["gen_ids"])
        with model.steer(steering):
            steered = model.generate(ids, **options)
        assert torch.equal(steered[:, ids.shape[1] :], golden["steered_all.gen_ids"])


@pytest.mark.parametrize("folder", cases("saes"), ids=lambda p: p.name)
def test_sae(folder: Path) -> None:
    golden, _ = read(folder / "golden.safetensors")
    factor = golden.get("norm_scaling_factor")
    sae = steer.SAE.load(folder, norm_scaling_factor=None if factor is None else factor.item())
    x = golden["x"]
    features = sae.encode(x)
    assert difference(features, golden["feature_acts"]) <= 1e-4
    assert difference(sae.decode(features, x), golden["recon"]) <= 1e-4
    if "forward" in golden:
        assert difference(sae(x), golden["forward"]) <= 1e-4


def layouts() -> list[tuple[Path, Path]]:
    """(weights, golden) of SAEs in their hub layouts; whole cross-layer and temporal transcoders have no Python names."""
    out = []
    for root in golden_dirs():
        for golden in sorted((root / "sae_layouts").rglob("golden*.safetensors")):
            beside = golden.with_name(golden.name.removeprefix("golden."))
            files = [beside] if beside.name != "safetensors" and beside.exists() else list(golden.parent.glob("*.pt"))
            out += [(file, golden) for file in files]
    return out


@pytest.mark.parametrize("weights, golden", layouts(), ids=lambda p: f"{p.parent.name}-{p.stem}"[-40:])
def test_sae_layout(weights: Path, golden: Path) -> None:
    tensors, _ = read(golden)
    sae = steer.SAE.load(weights)
    features = sae.encode(tensors["x"])
    assert difference(features, tensors["feature_acts"]) <= 1e-4
    assert difference(sae.decode(features, tensors["x"]), tensors["recon"]) <= 1e-4


def tokenizers() -> list[tuple[Path, Path]]:
    """(folder of a tokenizer, its cases)."""
    named = os.environ.get("STEER_TOKENIZERS")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "tokenizers"
    cases = [f for root in golden_dirs() for f in sorted((root / "tokenizers").glob("*.jsonl")) if not f.name.startswith("chat.")]
    return [(folder / f.name.split(".")[0], f) for f in cases if (folder / f.name.split(".")[0]).is_dir()]


@pytest.mark.parametrize("folder, cases", tokenizers(), ids=lambda p: p.name)
def test_tokenizer(folder: Path, cases: Path) -> None:
    tokenizer = steer.Tokenizer.load(folder)
    plain = "sentencepiece" in cases.name  # by that library itself: special tokens in a text are text
    for case in map(json.loads, cases.read_text().splitlines()):
        ids = tokenizer.encode(case["text"], add_special=case.get("add_special", False), parse_special=not plain)
        assert ids == case["ids"], case["text"]
        assert tokenizer.decode(ids) == case["decoded"], case["text"]
