"""What people get wrong: an exception that says so, and everything usable after it."""

from __future__ import annotations

import gc
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy
import pytest
import torch
from conftest import DEMO

import steer
from steer._torch import require_same_torch

TEXT = "In the land of Pelia, what is the feast?"
POINT = "blocks.1.hook_resid_post"


def error_of(call) -> steer.Error:
    with pytest.raises(steer.Error) as caught:
        call()
    assert "Exception raised from" not in str(caught.value)  # libtorch's trace
    return caught.value


@pytest.fixture(autouse=True)
def usable_after(model: steer.Model):
    before = model(TEXT)
    yield
    assert torch.equal(model(TEXT), before)


@pytest.mark.parametrize(
    "ids",
    [torch.tensor([1.5, 2.0]), torch.tensor([[[1]]]), torch.tensor([], dtype=torch.long), [], [[]], "", [[1, 2], [3]], 7, None],
    ids=str,
)
def test_ids_of_the_wrong_kind(model: steer.Model, ids: object) -> None:
    if ids == "" and model.tokenizer.bos_token_id is not None:
        assert model(ids).shape[1] == 1  # BOS alone
        return
    assert error_of(lambda: model(ids)).code in ("argument", "shape")


def test_zero_length_prompts(model: steer.Model) -> None:
    for call in (
        lambda: model.generate(torch.empty(0, dtype=torch.long)),
        lambda: model.generate([[]]),
        lambda: model.session().forward([]),
        lambda: model.run_with_cache(torch.empty(1, 0, dtype=torch.long)),
    ):
        error = error_of(call)
        assert error.code == "argument" and "token" in str(error)


def test_ids_out_of_range(model: steer.Model) -> None:
    for bad in (-1, model.cfg.d_vocab):
        error = error_of(lambda bad=bad: model(torch.tensor([1, bad])))
        assert error.code == "argument" and str(model.cfg.d_vocab) in str(error)
    assert error_of(lambda: model(torch.zeros(1, model.cfg.n_ctx + 1, dtype=torch.long))).code == "shape"


def test_names_that_do_not_exist(model: steer.Model, sae: steer.SAE) -> None:
    for call in (
        lambda: model.run_with_hooks(TEXT, [("blocks.99.hook_resid_post", lambda x, at: x)]),
        lambda: model.run_with_hooks(TEXT, [("nonsense", lambda x, at: x)]),
        lambda: model.run_with_hooks(TEXT, [(lambda name: False, lambda x, at: x)]),
        lambda: model.run_with_hooks(TEXT, [(POINT, 3)]),
        lambda: model.run_with_cache(TEXT, "blocks.*.hook_nonsense"),
        lambda: model.run_with_cache(TEXT, POINT)[1]["blocks.0.hook_resid_post"],
        lambda: sae.feature(sae.d_sae),
        lambda: model(TEXT, steering={330: 1.0}),
        lambda: model(TEXT, steering=0.5),
        lambda: steer.Steering().nudge(sae, -1, 1.0),
        lambda: steer.Steering().nudge(sae, 1, float("nan")),
        lambda: steer.Scope("everywhere"),
        lambda: model.generate(TEXT, nonsense=3),
        lambda: model.generate(TEXT, steering=[None, None]),
    ):
        assert error_of(call).code == "argument"


@pytest.mark.parametrize(
    "result",
    [lambda x: x.double(), lambda x: x[:, :1], lambda x: x.mean(), lambda x: x.to("meta"), lambda x: "text", lambda x: x.numpy()],
)
def test_hooks_that_return_something_else(model: steer.Model, result) -> None:
    error = error_of(lambda: model.run_with_hooks(TEXT, [(POINT, lambda x, at: result(x))]))
    assert error.code in ("shape", "argument") and POINT in str(error)


def test_tensors_of_the_wrong_kind(model: steer.Model, sae: steer.SAE) -> None:
    assert error_of(lambda: sae.encode(torch.zeros(2, sae.d_in + 1))).code == "shape"
    assert error_of(lambda: model(TEXT, steering=steer.Steering().add(torch.ones(3), POINT, 1.0))).code == "shape"
    assert error_of(lambda: steer.Steering().add(torch.full((128,), torch.nan), POINT, 1.0)).code == "argument"
    for not_a_tensor in ([1.0, 2.0], None, "x"):
        with pytest.raises(TypeError):
            sae.encode(not_a_tensor)
    with pytest.raises((steer.Error, RuntimeError, NotImplementedError)):
        sae.encode(torch.zeros(2, sae.d_in, device="meta"))
    with pytest.raises((steer.Error, RuntimeError)):
        sae.encode(torch.zeros(2, sae.d_in, dtype=torch.int64))


def test_vectors_whose_memory_was_freed(model: steer.Model) -> None:
    width = model.cfg.d_model
    memory = numpy.random.default_rng(0).standard_normal(width).astype(numpy.float32)
    copy = torch.tensor(memory)
    sae = steer.SAE.load(DEMO / "sae.safetensors")
    steering = steer.Steering().add(torch.from_numpy(memory), POINT, 1.0).nudge(sae, 330, 2.0)
    row, expected_row = sae.W_dec[330], sae.W_dec[330].clone()
    del memory, sae
    gc.collect()
    filler = [numpy.full(width, 7, numpy.float32) for _ in range(64)]
    again = steer.Steering().add(copy, POINT, 1.0).nudge(steer.SAE.load(DEMO / "sae.safetensors"), 330, 2.0)
    assert torch.equal(model(TEXT, steering=steering), model(TEXT, steering=again)) and filler
    assert torch.equal(row, expected_row)


def test_a_steering_keeps_the_vector_it_was_given(model: steer.Model) -> None:
    vector = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    steering = steer.Steering().add(vector, POINT, 1.0)
    before = model(TEXT, steering=steering)
    vector.fill_(float("nan"))
    assert torch.equal(model(TEXT, steering=steering), before)


def test_tensors_that_are_not_contiguous(model: steer.Model, sae: steer.SAE) -> None:
    ids = model.to_tokens(TEXT)
    every_other = torch.stack([ids[0], ids[0] + 1], -1).flatten()[::2]
    assert not every_other.is_contiguous() and torch.equal(model(every_other), model(ids))
    square = torch.randn(model.cfg.d_model, model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    column = square[:, 5]
    one, other = (steer.Steering().add(v, POINT, 1.0) for v in (column, column.clone()))
    assert one == other and torch.equal(model(TEXT, steering=one), model(TEXT, steering=other))
    wide = torch.randn(3, 2 * sae.d_in, generator=torch.Generator().manual_seed(1))[:, ::2]
    assert torch.equal(sae.encode(wide), sae.encode(wide.contiguous()))
    features = sae.encode(wide).T.contiguous().T
    torch.testing.assert_close(sae.decode(features), sae.decode(features.contiguous()))
    torch.testing.assert_close(model.unembed(square.T), model.unembed(square.T.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64], ids=str)
def test_vectors_of_other_dtypes(model: steer.Model, dtype: torch.dtype) -> None:
    vector = torch.ones(model.cfg.d_model).to(dtype)
    if dtype.is_floating_point:
        exact = steer.Steering().add(torch.ones(model.cfg.d_model), POINT, 1.0)
        assert torch.equal(model(TEXT, steering=steer.Steering().add(vector, POINT, 1.0)), model(TEXT, steering=exact))
    else:
        assert error_of(lambda: steer.Steering().add(vector, POINT, 1.0)).code == "argument"


def test_callbacks_that_raise(model: steer.Model) -> None:
    class Mine(Exception):
        pass

    def raising(*_: object) -> None:
        raise Mine

    with pytest.raises(Mine):
        model.generate(TEXT, 5, on_token=raising)
    with pytest.raises(Mine):
        model(TEXT, steering=steer.Steering().custom(raising, POINT))
    engine = model.engine()
    row = engine.submit([1, 2, 3], max_tokens=4)
    with pytest.raises(Mine):
        while engine.step(raising):
            pass
    engine.cancel(row)
    done = []
    engine.submit([1, 2, 3], max_tokens=4)
    while engine.step(lambda row, id, text, result: done.append(result) if result else None):
        pass
    assert model.generate([[1, 2, 3]], 4, return_type="results")[0].ids == done[-1].ids


def test_a_callback_that_generates(model: steer.Model) -> None:
    alone, inner = model.generate(TEXT, 5), []
    assert model.generate(TEXT, 5, on_token=lambda *_: inner.append(model.generate("In", 2)) or True) == alone
    assert len(set(inner)) == 1


def test_a_hook_that_raises(model: steer.Model) -> None:
    class Mine(Exception):
        pass

    def hook(x: torch.Tensor, at: steer.HookCall) -> None:
        x.zero_()
        raise Mine(at.name)

    with pytest.raises(Mine, match=POINT):
        model.run_with_hooks(TEXT, [(POINT, hook)])
    session = model.session()
    sequence = session.open()
    session.step([(sequence, [1, 2, 3])])
    with session.hook(POINT, hook):
        with pytest.raises(Mine):
            session.step([(sequence, [4])])
    assert session.length(sequence) == 3
    again = session.step([(sequence, [4])])
    torch.testing.assert_close(again[0], model(torch.tensor([1, 2, 3, 4]))[0, -1], rtol=1e-4, atol=1e-4)
    with pytest.raises(Mine):
        with model.hooks([(POINT, hook)]):
            model.generate(TEXT, 5)


def test_a_hook_that_calls_back(model: steer.Model) -> None:
    expected = model(TEXT)
    inner = []
    assert torch.equal(model.run_with_hooks(TEXT, [(POINT, lambda x, at: inner.append(model.generate("In", 2)))]), expected)
    assert len(inner) == 1
    session = model.session()
    with session.hook(POINT, lambda x, at: session.forward([1, 2])):
        assert "one thread at a time" in str(error_of(lambda: session.forward([1, 2, 3])))
    session.forward([1, 2, 3])


def test_a_session_from_two_threads(model: steer.Model) -> None:
    session = model.session()
    inside, leave = threading.Event(), threading.Event()

    def wait(x: torch.Tensor, at: steer.HookCall) -> None:
        inside.set()
        leave.wait(10)

    with session.hook(POINT, wait):
        worker = threading.Thread(target=session.forward, args=([1, 2, 3],))
        worker.start()
        assert inside.wait(10)  # the GIL is free while the other thread computes
        error = error_of(lambda: session.forward([1, 2]))
        leave.set()
        worker.join()
    assert error.code == "argument" and "Session of its own" in str(error)


def test_what_a_hook_is_told_ends_with_its_call(model: steer.Model) -> None:
    kept: list[steer.HookCall] = []
    model.run_with_hooks(TEXT, [(POINT, lambda x, at: kept.append(at))])
    assert kept[0].name == POINT and kept[0].layer() == 1
    assert "after it" in str(error_of(lambda: kept[0].positions))
    assert error_of(lambda: kept[0].ids).code == "argument"


def test_read_only_hooks_may_not_edit(model: steer.Model) -> None:
    session = model.session()
    seen = []
    with session.hook(POINT, lambda x, at: seen.append(x.zero_()) or None, read_only=True):
        assert torch.equal(session.forward([1, 2, 3]), model.session().forward([1, 2, 3]))
    assert (seen[0] == 0).all()
    with session.hook(POINT, lambda x, at: x * 2, read_only=True):
        assert "read-only" in str(error_of(lambda: session.forward([1, 2, 3])))


def test_hooks_end_with_their_handle(model: steer.Model) -> None:
    session, calls = model.session(), []
    handle = session.hook(POINT, lambda x, at: calls.append(1))
    session.forward([1])
    handle.remove()
    handle.remove()
    session.forward([1])
    assert len(calls) == 1
    handle = session.hook(POINT, lambda x, at: calls.append(1))
    del session
    gc.collect()
    handle.remove()


def test_a_model_that_was_deleted() -> None:
    model = steer.Model.from_pretrained(DEMO)
    session = model.session()
    expected = session.forward([1, 2, 3])
    del model
    gc.collect()
    assert torch.equal(session.forward([1, 2, 3]), expected)


def test_closed_sequences(model: steer.Model) -> None:
    session = model.session()
    sequence = session.open()
    session.close(sequence)
    for call in (lambda: session.step([(sequence, [1])]), lambda: session.audit(sequence), lambda: session.fork(sequence)):
        assert error_of(call).code == "argument"


def test_models_are_not_pickled(model: steer.Model) -> None:
    error = error_of(lambda: pickle.dumps(model))
    assert error.code == "unsupported" and "from_pretrained" in str(error)
    for value in (model._core, model.session()):
        with pytest.raises((TypeError, steer.Error)):
            pickle.dumps(value)
    again = pickle.loads(pickle.dumps(error))
    assert again.code == "unsupported" and str(again) == str(error)


def test_another_torch() -> None:
    require_same_torch("2.13.1+cpu", "2.13.0")
    for running in ("2.12.0", "3.13.0", "2.14.0a0+git1"):
        with pytest.raises(ImportError, match="built with torch 2.13.0, but torch " + running.replace("+", r"\+")):
            require_same_torch(running, "2.13.0")


def run(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **options)


def test_fork_after_import() -> None:
    code = f"""
import os, steer, torch
torch.set_num_threads(2)
model = steer.Model.from_pretrained({str(DEMO)!r})
ids = torch.arange(1, 40)
expected = model(ids)
pid = os.fork()
if pid == 0:
    os._exit(0 if torch.equal(model(ids), expected) and model.generate("In the", 3) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), torch.equal(model(ids), expected))
"""
    done = run(code)
    assert done.stdout.split() == ["0", "True"], done.stderr


@pytest.mark.parametrize("call", ["model.generate('In the', 100000, stop_at_eos=False)", "engine_loop()", "many()", "train()", "search()"])
def test_ctrl_c(call: str) -> None:
    code = f"""
import steer, torch, sys
model = steer.Model.from_pretrained({str(DEMO)!r})
def many():
    ids = torch.zeros(64, 200, dtype=torch.long)
    while True:
        model(ids)
def train():
    steer.train_sae(model, "{POINT}", ["In the land of Pelia"] * 50, d_sae=64, steps=10**6, k=4, batch_tokens=64,
                    buffer_tokens=512, progress=False)
def search():
    sae = steer.SAE.load({str(DEMO / "sae.safetensors")!r})
    held_out = steer.load_questions({str(DEMO / "questions_dev.jsonl")!r})
    steer.auto_steer(model, sae, "imaginative", options=steer.search_options(model, held_out, 200))
def engine_loop():
    while True:
        engine = model.engine()
        engine.submit([1, 2, 3], max_tokens=400)
        while engine.step():
            pass
before = model("In the")
print("ready", flush=True)
try:
    while True:
        {call}
except KeyboardInterrupt:
    print("stopped", torch.equal(model("In the"), before))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "stopped True\n", err
    assert process.returncode == 0 and "Traceback" not in err


def test_an_error_is_printed_without_a_cpp_trace() -> None:
    for call, says in (
        ("steer.Model.from_pretrained('absent')", "steer.Error: [steer::"),
        ("sae.encode(torch.zeros(2, sae.d_in, dtype=torch.int64))", "Error: "),
        ("sae.encode(torch.zeros(2, sae.d_in, device='meta'))", "Error: "),
    ):
        done = run(f"import steer, torch; sae = steer.SAE.load({str(DEMO / 'sae.safetensors')!r}); {call}")
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1 and says in last and "raised from" not in done.stderr and "frame #" not in done.stderr, done.stderr


def test_leaves_nothing_behind_at_exit() -> None:
    done = run(f"import steer; m = steer.Model.from_pretrained({str(DEMO)!r}); s = m.session(); "
               f"h = s.hook('{POINT}', lambda x, at: (s, None)[1]); s.forward([1]); print('end')")  # fmt: skip
    assert done.returncode == 0 and done.stdout == "end\n" and done.stderr == ""


def test_import_needs_no_more_than_torch() -> None:
    done = run("import sys, torch; before = set(sys.modules); import steer; new = set(sys.modules) - before; "
               "print([n for n in ('pandas', 'matplotlib', 'tqdm', 'transformers', 'ray') if n in new])")  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr
