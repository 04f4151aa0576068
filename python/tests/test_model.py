"""Reading, hooks, gradients, generation: against slow and plainly right versions in torch."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy
import pytest
import torch
from conftest import DEMO

import steer

TEXT = "In the land of Pelia, what is the feast?"


def test_text_goes_both_ways(model: steer.Model) -> None:
    tokens = model.to_tokens(TEXT)
    assert tokens.dtype == torch.long and tokens.shape[0] == 1
    assert tokens[0, 0] == model.tokenizer.bos_token_id
    assert "".join(model.to_str_tokens(TEXT, prepend_bos=False)) == TEXT
    assert model.to_string(model.to_tokens(TEXT, prepend_bos=False)[0]) == TEXT
    assert len(model.to_str_tokens(tokens)[0]) == tokens.shape[1]
    assert model.to_tokens([TEXT, "In the"]).shape == tokens.new_empty(2, tokens.shape[1]).shape


def test_cache_by_every_name(model: steer.Model) -> None:
    logits, cache = model.run_with_cache(TEXT)
    length = model.to_tokens(TEXT).shape[1]
    assert logits.shape == (1, length, model.cfg.d_vocab)
    assert list(cache) == model.hook_names
    assert cache["resid_post", 1] is cache["blocks.1.hook_resid_post"] is cache["model.layers.1"]
    assert cache["q", 0].shape == (1, length, model.cfg.n_heads, model.cfg.d_head)
    assert cache["pattern", 0].shape == (1, model.cfg.n_heads, length, length)
    torch.testing.assert_close(cache["pattern", 0].sum(-1), torch.ones(1, model.cfg.n_heads, length))
    mid = cache["resid_pre", 2] + cache["attn_out", 2]
    torch.testing.assert_close(mid, cache["resid_mid", 2])
    torch.testing.assert_close(mid + cache["mlp_out", 2], cache["resid_post", 2])
    some = model.run_with_cache(TEXT, lambda name: name.endswith("hook_resid_mid"))[1]
    assert len(some) == model.cfg.n_layers and all(torch.equal(some[n], cache[n]) for n in some)
    stopped, early = model.run_with_cache(TEXT, "blocks.*.hook_resid_post", stop_at_layer=2, remove_batch_dim=True)
    assert stopped is None and len(early) == 2
    torch.testing.assert_close(early["resid_post", 1], cache["resid_post", 1][0])
    assert cache.stack_activation("resid_post").shape == (model.cfg.n_layers, 1, length, model.cfg.d_model)


def test_rows_of_a_batch_are_each_their_own(model: steer.Model) -> None:
    ids = torch.randint(0, model.cfg.d_vocab, (3, 9), generator=torch.Generator().manual_seed(0))
    together, cache = model.run_with_cache(ids, ["blocks.*.hook_resid_post", "blocks.0.attn.hook_z"])
    for row in range(3):
        alone, own = model.run_with_cache(ids[row], ["blocks.*.hook_resid_post", "blocks.0.attn.hook_z"])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cache["z", 0][row], own["z", 0][0], rtol=1e-4, atol=1e-4)
    seen = []
    model.run_with_hooks(ids, [("blocks.1.attn.hook_q", lambda x, at: seen.append((x.shape, at.positions)))])
    assert seen == [((3, 9, model.cfg.n_heads, model.cfg.d_head), list(range(9)) * 3)]


def test_loss_is_cross_entropy(model: steer.Model) -> None:
    ids = model.to_tokens(TEXT)
    logits, loss = model(ids, return_type="both")
    expected = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    torch.testing.assert_close(loss, expected)
    assert model(ids, return_type=None) is None


def test_activations_are_rounded_where_asked(model: steer.Model) -> None:
    exact = torch.log_softmax(model(TEXT)[0].double(), -1)
    for weights, compute in (("bf16", "bf16"), ("int8", "int8")):
        rounded = steer.Model.from_pretrained(DEMO, weights=weights, compute=compute)
        divergence = (exact.exp() * (exact - torch.log_softmax(rounded(TEXT)[0].double(), -1))).sum(-1)
        assert 0 < divergence.mean() < 0.02
    with pytest.raises(steer.Error, match="f32, bf16, int8"):
        steer.Model.from_pretrained(DEMO, compute="fp4")  # type: ignore[arg-type]


def test_tensors_are_shared_and_outlive_everything() -> None:
    model = steer.Model.from_pretrained(DEMO)
    sae = steer.SAE.load(DEMO / "sae.safetensors")
    session = model.session()
    logits = session.forward([1, 2, 3])
    cache = session.run_with_cache([1, 2, 3], ["blocks.1.hook_resid_post"])
    value = cache["blocks.1.hook_resid_post"]
    assert value.data_ptr() == cache["blocks.1.hook_resid_post"].data_ptr()
    assert sae.W_dec.data_ptr() == sae.W_dec.data_ptr() and sae.feature(3).direction.data_ptr() == sae.W_dec[3].data_ptr()
    row, unembed = sae.W_dec[330], model.W_U
    copies = [t.clone() for t in (logits, value, row, unembed)]
    array, exported = row.numpy(), torch.from_dlpack(value)
    assert array.__array_interface__["data"][0] == row.data_ptr() and exported.data_ptr() == value.data_ptr()
    del session, cache, model, sae
    gc.collect()
    filler = [torch.full_like(logits, 7.0) for _ in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(copies, (logits, value, row, unembed)))
    assert numpy.array_equal(array, copies[2].numpy()) and filler


@pytest.mark.parametrize("kind", ["tensor", "view", "array"])
def test_what_a_hook_keeps_stays_as_it_was(model: steer.Model, kind: str) -> None:
    keep = {"tensor": lambda x: x, "view": lambda x: x[:, -1], "array": lambda x: x.detach().numpy()}[kind]
    kept = {}
    names = [n for n in model.hook_names if n.endswith(("hook_resid_pre", "hook_resid_mid", "attn.hook_q", "mlp.hook_pre"))]

    def hook(x: torch.Tensor, at: steer.HookCall) -> None:
        kept[at.name] = keep(x)

    hooked = model.run_with_hooks(TEXT, [(name, hook) for name in names])
    model.generate("In the land of", 8)  # uses the buffers again
    plain, cache = model.run_with_cache(TEXT, names)
    assert torch.equal(hooked, plain)
    for name in names:
        assert numpy.array_equal(numpy.asarray(kept[name]), numpy.asarray(keep(cache[name]))), name


def test_hooks_edit_in_place_or_by_what_they_return(model: steer.Model, sae: steer.SAE) -> None:
    vector, point = 0.5 * sae.W_dec[330], "blocks.1.hook_resid_post"
    expected = model(TEXT, steering=steer.Steering().add(vector, point, 1.0, scope=steer.Scope(include_bos=True)))

    def in_place(x: torch.Tensor, at: steer.HookCall) -> None:
        x.add_(vector)

    for hook in (in_place, lambda x, at: x + vector, lambda x, at: x.add_(vector), lambda x, at: (x + vector).clone()):
        torch.testing.assert_close(model.run_with_hooks(TEXT, [(point, hook)]), expected, rtol=1e-4, atol=1e-4)
    strided = torch.stack([vector, vector], dim=-1)
    got = model.run_with_hooks(TEXT, [(point, lambda x, at: torch.stack([x, x], -1)[..., 0] + strided[..., 0])])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    zeroed = model.run_with_hooks(TEXT, [("blocks.0.attn.hook_pattern", lambda x, at: torch.zeros_like(x))])
    by_z = model.run_with_hooks(TEXT, [("blocks.0.attn.hook_z", lambda x, at: torch.zeros_like(x))])
    torch.testing.assert_close(zeroed, by_z)
    with model.hooks([(point, in_place)]):
        torch.testing.assert_close(model(TEXT), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(TEXT), model(TEXT, steering=None))


def test_gradients_flow_to_python(model: steer.Model, sae: steer.SAE) -> None:
    ids, point = model.to_tokens(TEXT), "blocks.1.hook_resid_post"
    vector = (0.1 * sae.W_dec[330]).clone().requires_grad_()
    target = 5
    model.run_with_hooks(ids, [(point, lambda x, at: x + vector)])[0, -1, target].backward()
    step = torch.zeros_like(vector)
    step[3] = 1e-2

    def logit(v: torch.Tensor) -> float:
        with torch.no_grad():
            return model.run_with_hooks(ids, [(point, lambda x, at: x + v)])[0, -1, target].item()

    numeric = (logit(vector.detach() + step) - logit(vector.detach() - step)) / 2e-2
    assert vector.grad is not None
    assert abs(vector.grad[3].item() - numeric) <= 2e-2 * max(1.0, abs(numeric))
    scale = torch.ones(1, requires_grad=True)

    def in_place(x: torch.Tensor, at: steer.HookCall) -> None:
        x.mul_(scale)

    (grad,) = torch.autograd.grad(model.run_with_hooks(ids, [(point, in_place)])[0, -1, target], scale)
    h = 1e-2
    up, down = (model.run_with_hooks(ids, [(point, lambda x, at, s=s: x * s)])[0, -1, target].item() for s in (1 + h, 1 - h))
    assert abs(grad.item() - (up - down) / (2 * h)) <= 2e-2 * max(1.0, abs(grad.item()))


def test_generate_is_the_argmax_of_forward(model: steer.Model) -> None:
    ids = model.to_tokens("In the land of")[0].tolist()
    for _ in range(6):
        ids.append(int(model(torch.tensor(ids))[0, -1].argmax()))
    got = model.generate(model.to_tokens("In the land of"), 6, stop_at_eos=False, return_type="tokens")
    assert got[0].tolist() == ids
    assert model.generate("In the land of", 6, stop_at_eos=False) == model.tokenizer.decode(ids, skip_special=True)
    rows = model.generate(["In the land of", "What"], 4)
    assert isinstance(rows, list) and len(rows) == 2
    seen = []
    results = model.generate("In the", 5, return_type="results", on_token=lambda row, id, text: seen.append(id))
    assert [i for i in seen if i >= 0] == results[0].ids and len(results[0].log_probabilities) == len(results[0].ids)
    ended = model.generate("In the", 50, return_type="results", on_token=lambda row, id, text: False)
    assert ended[0].finish == "aborted" and len(ended[0].ids) == 1
    same = [model.generate("In the", 8, temperature=1.0, seed=3) for _ in range(2)]
    assert same[0] == same[1]


def test_bars_end_with_the_work(model: steer.Model, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    seen: list[int] = []

    def until_three(row: int, id: int, text: str) -> bool:
        seen.append(id)
        return len(seen) < 3

    shown = model.generate("In the", 50, return_type="results", verbose=True, on_token=until_three)[0]
    assert shown.ids == model.generate("In the", 3, return_type="results")[0].ids
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert last.startswith("generate: 100%") and "3/3" in last


def test_hooks_see_generated_tokens(model: steer.Model) -> None:
    shapes: list[tuple[int, ...]] = []
    generated: list[list[bool]] = []

    def hook(x: torch.Tensor, at: steer.HookCall) -> None:
        shapes.append(tuple(x.shape))
        generated.append(at.generated)

    with model.hooks([("blocks.1.hook_resid_post", hook)]):
        model.generate(["In the land of", "What is"], 4, stop_at_eos=False)
    assert all(len(s) == 3 and s[-1] == model.cfg.d_model for s in shapes)
    assert sum(s[0] * s[1] for s in shapes) == sum(len(model.to_tokens(t)[0]) for t in ("In the land of", "What is")) + 2 * 3
    assert any(all(g) for g in generated) and any(not any(g) for g in generated)


def test_threads_share_a_model(model: steer.Model) -> None:
    expected = {text: model(text) for text in ("In the land of", "What is the feast?")}
    wrong: list[str] = []

    def work(text: str) -> None:
        for _ in range(10):
            if not torch.equal(model(text), expected[text]):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(text,)) for text in list(expected) * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_engine_rows_come_and_go(model: steer.Model, sae: steer.SAE) -> None:
    engine = model.engine(max_rows=2)
    prompt = model.to_tokens("In the land of")[0].tolist()
    steering = steer.Steering().nudge(sae, 330, 6.0)
    rows = {engine.submit(prompt, max_tokens=5): None, engine.submit(prompt, max_tokens=5, steering=steering): steering}
    done: dict[int, steer.GenerateResult] = {}

    def event(row: int, id: int, text: str, result: steer.GenerateResult | None) -> None:
        if result is not None:
            done[row] = result

    while engine.step(event):
        pass
    for row, given in rows.items():
        alone = model.generate([prompt], 5, steering=given, return_type="results")[0]
        assert done[row].ids == alone.ids and done[row].audit.edited == alone.audit.edited


def test_score_is_the_log_probability(model: steer.Model) -> None:
    ids = model.to_tokens(TEXT)[0].tolist()
    log_p = model(torch.tensor(ids)).log_softmax(-1)[0]
    expected = [log_p[i - 1, ids[i]].item() for i in range(4, len(ids))]
    (got,) = steer.score(model, [(ids, 4)])
    assert numpy.allclose(got, expected, atol=1e-4)
    assert numpy.allclose(model.session().log_probabilities(ids, begin=4), expected, atol=1e-4)


def test_chat(model: steer.Model) -> None:
    chat = [{"role": "user", "content": TEXT}]
    text, ids = model.chat.render(chat)
    assert TEXT in text
    results = model.generate(chat, 12, return_type="results")
    assert model.generate(chat, 12) == results[0].text
    assert results[0].ids == model.generate([ids], 12, return_type="results")[0].ids


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(steer.Error) as error:
        steer.Model.from_pretrained(tmp_path / "absent")
    assert error.value.code == "io" and "absent" in str(error.value)
