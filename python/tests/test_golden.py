"""What transformers and SAELens compute, through Python. Every folder that is there is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import golden_dirs
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
