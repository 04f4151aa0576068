"""Steering, SAEs, pickling, displays."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import steer

TEXT = "In the land of Pelia, what is the feast?"


def test_a_mapping_is_a_steering(model: steer.Model, sae: steer.SAE) -> None:
    explicit = steer.Steering().nudge(sae, 330, 0.6)
    assert steer.as_steering({sae.feature(330): +0.6}) == explicit
    logits = model(TEXT, steering=explicit)
    with model.steer({sae.feature(330): +0.6}) as steered:
        assert torch.equal(model(TEXT), logits)
    assert steered.audit.fired and steered.audit.edits[0].point == sae.hook_name
    assert steered.audit.edits[0].seen == model.to_tokens(TEXT).shape[1]
    assert not torch.equal(model(TEXT), logits)
    # h += 0.6 * decoder row, at all positions but the first
    moved = model.run_with_cache(TEXT, sae.hook_name, steering=explicit)[1][sae.hook_name]
    plain = model.run_with_cache(TEXT, sae.hook_name)[1][sae.hook_name]
    torch.testing.assert_close((moved - plain)[0, 1:], (0.6 * sae.W_dec[330]).expand(moved.shape[1] - 1, -1), rtol=0, atol=1e-4)
    assert torch.equal(moved[0, 0], plain[0, 0])


def test_blocks_add_up_and_end(model: steer.Model, sae: steer.SAE) -> None:
    both = steer.Steering().nudge(sae, 330, 1.0).nudge(sae, 12, 2.0)
    with model.steer({sae.feature(330): 1.0}):
        with model.steer({sae.feature(12): 2.0}):
            inside = model(TEXT)
    torch.testing.assert_close(inside, model(TEXT, steering=both))
    with pytest.raises(ZeroDivisionError):
        with model.steer(both):
            raise ZeroDivisionError
    assert torch.equal(model(TEXT), model(TEXT, steering=steer.Steering()))


def test_each_row_has_its_own(model: steer.Model, sae: steer.SAE) -> None:
    texts = ["In the land of Pelia,"] * 3
    each = [None, {sae.feature(330): 6.0}, steer.Steering().pin(sae, 330, 8.0)]
    together = model.generate(texts, 12, steering=each, return_type="results")
    for given, result in zip(each, together):
        alone = model.generate(texts[0], 12, steering=given, return_type="results")[0]
        assert alone.ids == result.ids and alone.audit.edited == result.audit.edited
    assert not together[0].audit.edits and together[1].audit.fired
    with model.steer({sae.feature(330): 6.0}) as steered:
        model.generate(texts[:2], 4)
    assert len(steered.audits) == 2


def test_value_algebra(sae: steer.SAE) -> None:
    a, b = steer.Steering().nudge(sae, 1, 1.0), steer.Steering().ablate(sae, 2)
    assert len(a + b) == 2 and a * 2 == 2 * a and a != b and (a + b).diff(a)
    assert (a * 0.5).edits[0].strength == 0.5
    scope = steer.Scope("onset", count=3)
    c = steer.Steering().clamp(sae, 3, 0.0, 2.0, scope=scope, when=steer.Condition.feature_above(sae, 7, 0.5), name="x")
    assert c.edits[0].scope == scope and c.edits[0].name == "x" and c.edits[0].number("high") == 2.0


def test_files_and_pickles(model: steer.Model, sae: steer.SAE, tmp_path: Path) -> None:
    vector = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(1))
    steering = steer.Steering().nudge(sae, 330, 0.6).add(vector, "blocks.2.hook_resid_post", 0.5)
    steering.save(tmp_path / "s.json")
    assert steer.Steering.load(tmp_path / "s.json", saes=[sae]) == steering
    assert steer.Steering.from_json(steering.to_json(), saes=[sae]) == steering
    assert pickle.loads(pickle.dumps(steering)) == steering
    assert pickle.loads(pickle.dumps(sae)) == sae
    made = steer.SAE.from_weights(
        {"architecture": "relu", "hook_name": "blocks.1.hook_resid_post"},
        {"W_enc": torch.randn(128, 4), "b_enc": torch.zeros(4), "W_dec": torch.randn(4, 128), "b_dec": torch.zeros(128)},
    )
    with pytest.raises(steer.Error, match="made in memory"):
        pickle.dumps(made)
    made.save(tmp_path / "made.safetensors")
    assert pickle.loads(pickle.dumps(steer.SAE.load(tmp_path / "made.safetensors"))).d_sae == 4


def test_sae_is_its_formula(model: steer.Model, sae: steer.SAE) -> None:
    x = model.run_with_cache(TEXT, sae.hook_name)[1][sae.hook_name]
    z = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    expected = torch.where(z > sae.threshold, z.relu(), torch.zeros(()))
    f = sae.encode(x)
    torch.testing.assert_close(f, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(f), f @ sae.W_dec + sae.b_dec, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.encode_subset(x, [330, 2]), f[..., [330, 2]], rtol=1e-4, atol=1e-4)
    offsets, index, value = sae.encode_sparse(x[0])
    assert torch.equal(offsets[1:] - offsets[:-1], (f[0] != 0).sum(-1)) and index.numel() == value.numel()
    assert sae.cfg["d_sae"] == sae.d_sae == sae.W_dec.shape[0]
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(sae.encode(strided), f)
    torch.testing.assert_close(sae.encode(x.double()), f, rtol=1e-4, atol=1e-4)
    assert sae.encode(x.bfloat16()).dtype == torch.float32


def test_custom_edits_and_conditions(model: steer.Model, sae: steer.SAE) -> None:
    steering = steer.Steering().custom(lambda h, positions: h * 2, "blocks.1.hook_resid_post", name="double")
    seen = model.run_with_hooks(TEXT, [("blocks.1.hook_resid_post", lambda x, at: torch.cat([x[:, :1], x[:, 1:] * 2], 1))])
    torch.testing.assert_close(model(TEXT, steering=steering), seen)
    with pytest.raises(steer.Error) as error:
        pickle.dumps(steering)
    assert error.value.code == "unsupported"
    never = steer.Condition.feature_above(sae, 330, 1e6)
    assert torch.equal(model(TEXT, steering=steer.Steering().nudge(sae, 330, 5.0, when=never)), model(TEXT))
    with pytest.raises(steer.Error, match="no token"):
        model.generate("In the", 3, steering=steer.Steering().nudge(sae, 330, 5.0, when=never), require_fired=True)


def test_displays(model: steer.Model, sae: steer.SAE) -> None:
    steering = steer.Steering().nudge(sae, 330, 0.6)
    assert "nudge 330 by 0.6" in steering._repr_html_()
    with model.steer(steering) as steered:
        model(TEXT)
    assert "<td" in steered.audit._repr_html_()
    inspection = steer.inspect(model, sae, TEXT)
    assert "<iframe" in inspection._repr_html_()
    features = sae.encode(model.run_with_cache(TEXT, sae.hook_name)[1][sae.hook_name])[0]
    top = inspection.to_dict()["features"][0]
    assert top["max"] == pytest.approx(features[1:, top["feature"]].max().item(), abs=1e-4)
    promoted, _ = steer.logit_effects(model, sae, 330)
    assert len(promoted) == 10 and promoted[0][1] >= promoted[-1][1]


def test_vectors_from_data() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(20, 8, generator=generator) + 2, torch.randn(20, 8, generator=generator)
    torch.testing.assert_close(steer.difference_of_means(a, b), a.mean(0) - b.mean(0))
    w, bias = steer.logistic_probe(a, b)
    assert ((a @ w + bias > 0).float().mean() + (b @ w + bias <= 0).float().mean()) / 2 > 0.9
