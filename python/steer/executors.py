"""An experiment on several processes that an executor brings: Ray, Dask, submitit, concurrent.futures."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable
from os import PathLike
from typing import Any

from ._core import Judge, Report
from ._errors import Error
from .experiment import Experiment
from .model import Model

#: Makes what a process works with: the model, the experiment, and the judge if there is one.
Build = Callable[[], "tuple[Model, Experiment] | tuple[Model, Experiment, Judge | None]"]


def _one_process(build: Build, options: dict[str, Any]) -> None:
    """What an executor's process does: its share of the items, each journalled as soon as it is done."""
    model, experiment, *judge = build()
    experiment.run(model, judge=judge[0] if judge else None, **options)


class _Ray:
    """Ray with the two methods that are needed here; its workers are one core each unless `options` says otherwise."""

    def __init__(self, ray: Any, options: dict[str, Any]) -> None:
        self._ray, self._remote = ray, ray.remote(max_retries=0, **options)(_one_process)

    def submit(self, _: Any, build: Build, options: dict[str, Any]) -> Any:
        return self._remote.remote(build, options)

    def reap(self, future: Any) -> None:
        self._ray.cancel(future, force=True)

    def failure(self, future: Any) -> BaseException | None:
        if not self._ray.wait([future], timeout=0)[0]:
            return None
        try:
            self._ray.get(future)
        except Exception as error:
            return error
        return None


def _failure(pool: Any, future: Any) -> BaseException | None:
    """Why a process ended early; None while it runs and when it did its share."""
    if isinstance(pool, _Ray):
        return pool.failure(future)
    if not (hasattr(future, "done") and future.done()) or (hasattr(future, "cancelled") and future.cancelled()):
        return None
    return future.exception()


def _let_end(futures: list[Any], seconds: float = 5) -> None:
    """Processes whose work is done leave by themselves; what has not even started by then is cancelled."""
    deadline = time.monotonic() + seconds
    while any(hasattr(f, "done") and not f.done() for f in futures) and time.monotonic() < deadline:
        time.sleep(0.05)


def run_on(
    executor: Any,
    build: Build,
    *,
    journal: str | PathLike[str],
    workers: int = 2,
    address: str = "127.0.0.1",
    port: int = 0,
    timeout_s: float = 60,
    **options: Any,
) -> Report:
    """`Experiment.run` with `workers` further processes, which `executor` starts: anything with `submit(function, *args)`
    (concurrent.futures' executors, a Dask client, submitit's executor), or the module `ray`.

    build: makes model, experiment and judge, here and in each process; it must be picklable for the executor. Items go
    to whoever is free; what a process finished stands in a journal of its own in the folder of `journal`, which all must
    see. When a process dies the others do what it had taken, so the report has the bytes of one process's; a
    RuntimeWarning says how many died and the first one's reason. address: under
    which the others reach this machine. timeout_s: a process that is silent for so long is taken for dead. options: those of `Experiment.run`.
    """
    if workers < 1:
        raise Error(f"[run_on] expected at least one worker but got {workers}", "argument")
    model, experiment, *judge = build()
    if port == 0:
        with socket.socket() as free:
            free.bind((address, 0))
            port = free.getsockname()[1]
    common = {**options, "journal": str(journal), "ranks": workers + 1, "address": address, "port": port, "timeout_s": timeout_s}
    pool = _Ray(executor, {}) if getattr(executor, "__name__", "") == "ray" else executor
    futures = [pool.submit(_one_process, build, {**common, "rank": rank}) for rank in range(1, workers + 1)]
    try:
        report = experiment.run(model, judge=judge[0] if judge else None, **common, rank=0)
        _let_end(futures)
        lost = [why for future in futures if (why := _failure(pool, future)) is not None]
        if lost:
            warnings.warn(
                f"{len(lost)} of {workers} processes ended early and the others did their items; the first: {lost[0]!r}",
                RuntimeWarning,
                stacklevel=2,
            )
        return report
    finally:
        for future in futures:
            if isinstance(pool, _Ray):
                pool.reap(future)
            elif hasattr(future, "cancel"):
                future.cancel()
