"""Experiments: alone, stopped and started again, on several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO

import steer
from steer.executors import run_on


def study() -> tuple[steer.Model, steer.Experiment, steer.Judge]:
    """Two arms over a few questions."""
    model = steer.Model.from_pretrained(DEMO)
    sae = steer.SAE.load(DEMO / "sae.safetensors")
    experiment = steer.Experiment(
        questions=steer.load_questions(DEMO / "questions.jsonl")[:8],
        behaviours=["imaginative"],
        arms=[steer.Arm.control(), steer.Arm.steered("steered", {"": steer.Steering().nudge(sae, 330, 6.0)})],
        max_tokens=48,
    )
    return model, experiment, steer.judge(length, "length in words")


def length(rubric: str, prompt: str, response: str, behaviour: str | None) -> float | None:
    return min(5.0, 1 + len(response.split()) / 20)


@pytest.fixture(scope="module")
def alone() -> steer.Report:
    model, experiment, judge = study()
    return experiment.run(model, judge=judge)


def same(a: steer.Report, b: steer.Report) -> bool:
    return a.html() == b.html() and a.markdown() == b.markdown() and a.rows() == b.rows()


def test_report(alone: steer.Report, tmp_path: Path) -> None:
    rows = alone.rows()
    assert len(rows) == 16 and {r["arm"] for r in rows} == {"control", "steered"}
    for row in rows:
        assert row["scores"]["behaviour"] == pytest.approx(length("", "", row["response"], None))
    cells = {c["arm"]: c for c in alone.tradeoffs() if c["behaviour"] == ""}
    for arm, cell in cells.items():
        right = [r["answer"] == r["gold"] for r in rows if r["arm"] == arm]
        assert cell["n"] == len(right) and cell["accuracy"]["mean"] == pytest.approx(sum(right) / len(right))
        scores = [r["scores"]["behaviour"] for r in rows if r["arm"] == arm]
        assert cell["scores"]["behaviour"]["mean"] == pytest.approx(sum(scores) / len(scores))
    alone.write(tmp_path / "report.html")
    assert (tmp_path / "results.csv").exists()
    pandas = pytest.importorskip("pandas")
    table = alone.to_pandas()
    assert isinstance(table, pandas.DataFrame) and len(table) == len(rows)
    pytest.importorskip("matplotlib").use("Agg")
    assert len(alone.plot().lines) >= 2
    assert alone.headline() in alone._repr_html_() or "&" in alone._repr_html_()


def test_ctrl_c_and_again(alone: steer.Report, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_experiment import study
model, experiment, judge = study()
print("ready", flush=True)
try:
    experiment.run(model, judge=judge, journal=sys.argv[1], batch=1)
except KeyboardInterrupt:
    print("stopped")
"""
    journal = tmp_path / "run.journal"
    process = subprocess.Popen([sys.executable, "-c", code, str(journal)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size > 4000) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out in ("stopped\n", "") and process.returncode == 0
    model, experiment, judge = study()
    assert same(experiment.run(model, judge=judge, journal=journal, batch=1), alone)


def test_errors(tmp_path: Path) -> None:
    model, experiment, _ = study()
    experiment.behaviours = ["nonsense"]
    with pytest.raises(steer.Error, match="imaginative"):
        experiment.run(model)
    experiment.behaviours, experiment.arms = ["imaginative"], []
    with pytest.raises(steer.Error):
        experiment.run(model)

    def broken(rubric: str, prompt: str, response: str, behaviour: str | None) -> float:
        raise ZeroDivisionError

    model, experiment, _ = study()
    experiment.questions = experiment.questions[:1]
    with pytest.raises(ZeroDivisionError):
        experiment.run(model, judge=steer.judge(broken, "broken"))


def test_concurrent_futures(alone: steer.Report, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert same(run_on(pool, study, workers=2, journal=tmp_path / "run.journal", batch=1), alone)


def test_submitit(alone: steer.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))  # jobs import this file
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = run_on(executor, study, workers=2, journal=tmp_path / "run.journal", batch=1)
    assert same(report, alone)


def test_dask(alone: steer.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))  # workers import this file
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert same(run_on(client, study, workers=2, journal=tmp_path / "run.journal", batch=1), alone)


class Refusing:
    """An executor whose processes never start."""

    def submit(self, *_: object) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(OSError("no room"))
        return future


def test_processes_that_ended_early_are_told_of(alone: steer.Report, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="2 of 2 processes ended early.*no room"):
        report = run_on(Refusing(), study, workers=2, journal=tmp_path / "run.journal", batch=1, timeout_s=2)
    assert same(report, alone)


def test_ray_with_one_worker_killed(alone: steer.Report, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    tests, pids, driver = str(Path(__file__).parent), tmp_path / "pids", os.getpid()
    pids.mkdir()

    def wait_for(what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 400  # workers import torch, which takes a busy machine minutes
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def build() -> tuple[steer.Model, steer.Experiment, steer.Judge]:
        sys.path.insert(0, tests)
        from test_experiment import study

        model, experiment, judge = study()
        if os.getpid() != driver:
            (pids / str(os.getpid())).touch()
            return model, experiment, judge
        run = experiment.run

        def patient(*args: Any, **options: Any) -> steer.Report:
            # Workers take seconds to start: without waiting, this process would have done everything before.
            wait_for(lambda: len(list(pids.iterdir())) == 2)
            return run(*args, **options)

        experiment.run = patient  # type: ignore[method-assign]
        return model, experiment, judge

    def kill_one() -> None:
        wait_for(lambda: sum(p.stat().st_size for p in tmp_path.glob("run.journal*") if p.is_file()) > 4000)
        os.kill(int(next(pids.iterdir()).name), signal.SIGKILL)  # an error here says that it had ended by itself
        killed.append(True)

    killed: list[bool] = []
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
    try:
        killer = threading.Thread(target=kill_one)
        killer.start()
        report = run_on(ray, build, workers=2, journal=tmp_path / "run.journal", batch=1, timeout_s=5)
        killer.join(timeout=410)
    finally:
        ray.shutdown()
    assert killed and same(report, alone)
