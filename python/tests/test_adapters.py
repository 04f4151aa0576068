"""Each peer's own checks, where the peer is installed."""

from __future__ import annotations

import asyncio

import pytest
import torch
from conftest import DEMO

import steer

IDS = torch.tensor([[1, 5, 9, 20, 33]])


def test_transformer_lens(model: steer.Model, sae: steer.SAE) -> None:
    protocol = pytest.importorskip("transformer_lens.model_bridge.driver_protocol")
    from steer.adapters.transformer_lens import SteerDriver, boot

    driver = SteerDriver(model)
    protocol.validate_driver(driver)
    assert isinstance(driver, protocol.Driver)
    bridge = boot(model)
    protocol.validate_driver(bridge._driver, after_bridge_construction=True)
    logits, cache = bridge.run_with_cache(IDS)
    expected, own = model.run_with_cache(IDS)
    assert torch.equal(logits, expected) and set(cache.cache_dict) == set(own)
    assert all(torch.equal(cache[n], own[n]) for n in own)
    torch.testing.assert_close(bridge.forward(IDS, return_type="loss"), model(IDS, return_type="loss"))
    whole = bridge.generate(IDS, max_new_tokens=6, stop_at_eos=False, return_type="tokens")
    assert torch.equal(whole, model.generate(IDS, 6, stop_at_eos=False, return_type="tokens"))
    new = driver.forward(IDS, max_new_tokens=6).new_tokens
    assert torch.equal(new, model.generate(IDS, 6, stop_at_eos=False, return_type="tokens")[:, IDS.shape[1] :])
    spec = {"blocks.1.hook_resid_post": {"op": "add", "value": sae.W_dec[330], "pos": 2}}

    def edit(x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        out[:, 2] += sae.W_dec[330]
        return out

    by_spec, by_call = (driver.forward(IDS, intervene=i).logits for i in (spec, {"blocks.1.hook_resid_post": edit}))
    assert torch.equal(by_spec, by_call) and not torch.equal(by_spec, expected)
    with pytest.raises(steer.Error):
        driver.forward(IDS, intervene={"blocks.1.hook_resid_post": {"op": "add", "position": 2}})
    with pytest.raises(TypeError):
        driver.forward(IDS, nonsense=1)


def test_lm_eval(model: steer.Model, sae: steer.SAE, tmp_path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    from steer.adapters.lm_eval import SteerLM

    assert get_model("steer") is SteerLM
    steering = steer.Steering().nudge(sae, 330, 6.0)
    steering.save(tmp_path / "s.json", sae_paths={sae.hash: DEMO / "sae.safetensors"})
    lm = SteerLM.create_from_arg_string(f"pretrained={DEMO}", {"batch_size": 4})
    steered = SteerLM.create_from_arg_string(f"pretrained={DEMO},steering={tmp_path / 's.json'}")

    def instance(kind: str, *args: object) -> Instance:
        return Instance(request_type=kind, doc={}, arguments=args, idx=0)

    pairs = [("In the land of", " Pelia"), ("What is the", " feast of Pelia"), ("", "In the land")]
    got = lm.loglikelihood([instance("loglikelihood", *p) for p in pairs])
    for (context, continuation), (log_p, greedy) in zip(pairs[:2], got):
        ids = model.to_tokens(context + continuation)[0]
        begin = model.to_tokens(context).shape[1]
        scores = model(ids).log_softmax(-1)[0]
        each = [scores[i - 1, ids[i]].item() for i in range(begin, len(ids))]
        assert log_p == pytest.approx(sum(each), abs=1e-3)
        assert greedy == all(int(scores[i - 1].argmax()) == int(ids[i]) for i in range(begin, len(ids)))
    assert steered.loglikelihood([instance("loglikelihood", *pairs[1])]) != got[1:2]
    (text,) = lm.generate_until([instance("generate_until", "In the land of", {"until": ["\n"], "max_gen_toks": 12})])
    whole = model.generate("In the land of", 12, return_type="results")[0].text
    assert text == whole.split("\n")[0]
    (rolling,) = lm.loglikelihood_rolling([instance("loglikelihood_rolling", "In the land of Pelia")])
    assert rolling == pytest.approx(-model("In the land of Pelia", "loss").item() * (model.to_tokens("In the land of Pelia").shape[1] - 1), abs=1e-2)


def test_inspect_ai(model: steer.Model, sae: steer.SAE, tmp_path) -> None:
    pytest.importorskip("inspect_ai")
    from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model

    import steer.adapters.inspect_ai as adapter  # noqa: F401  # registers the provider

    steering = steer.Steering().nudge(sae, 330, 6.0)
    steering.save(tmp_path / "s.json", sae_paths={sae.hash: DEMO / "sae.safetensors"})
    api = get_model(f"steer/{DEMO}", steering=str(tmp_path / "s.json"))
    text = "In the land of Pelia, what is the feast?"
    out = asyncio.run(api.generate([ChatMessageUser(content=text)], config=GenerateConfig(max_tokens=12)))
    expected = model.generate([{"role": "user", "content": text}], 12, steering=steering, return_type="results")[0]
    assert out.completion == expected.text
    assert out.metadata["steering_audit"][0]["edited"] == expected.audit.edited
    assert out.usage.output_tokens == len(expected.ids)


def test_interp_engine(model: steer.Model, sae: steer.SAE) -> None:
    protocol = pytest.importorskip("interp_engine.protocol")
    from interp_engine.dispatch import CapabilityUnsupported
    from interp_engine.sync import sync_model

    from steer.adapters.interp_engine import SteerInterpModel

    served = SteerInterpModel(model)
    assert isinstance(served, protocol.InterpModel)
    points = served.describe().capture_points
    assert {"resid_pre", "resid_post", "z", "mlp_act"} <= set(points)
    ids = IDS[0].tolist()
    held = sync_model(served)
    captured = held.capture(ids, ["resid_post.1", ("z", 0), "embeddings"], rows=[0, 2])
    cache = model.run_with_cache(IDS)[1]
    by = {str(a): v for a, v in captured.items()}
    assert torch.equal(by["resid_post.1"], cache["resid_post", 1][0, [0, 2]])
    assert torch.equal(by["z.0"], cache["z", 0][0, [0, 2]].flatten(1))
    text = held.generate_text(ids, max_tokens=6, temperature=0.0)
    assert text == model.generate([ids], 6, return_type="results")[0].text
    logits = asyncio.run(served.decode_residuals(cache["resid_post", model.cfg.n_layers - 1][0]))
    torch.testing.assert_close(logits, model(IDS)[0], rtol=1e-4, atol=1e-4)
    completion, rows = asyncio.run(served.capture_generation(ids, ["resid_mid.0"], max_tokens=4))
    assert next(iter(rows.values())).shape[0] == len(ids) + len(completion.token_ids) - 1
    assert served.refuses("attn_scores", 0) and served.refuses("resid_post", 99) and not served.refuses("resid_post", 0)
    with pytest.raises(CapabilityUnsupported):
        asyncio.run(served.capture(ids, ["mlp_pre.0"]))
