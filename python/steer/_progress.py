"""Progress bars, where tqdm is installed; without it nothing is shown."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class _Silent:
    """Stands in for a bar."""

    n = total = 0

    def update(self, count: int = 1) -> None: ...

    def set_postfix(self, **values: object) -> None: ...

    def close(self) -> None: ...


@contextmanager
def bar(title: str, total: int, shown: bool = True) -> Iterator[Any]:
    """A tqdm bar for terminal or notebook. Work that ends before `total` was done; only an exception leaves it short."""
    line: Any = _Silent()
    if shown:
        with suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a notebook without ipywidgets gets a line of text
            from tqdm.auto import tqdm

            line = tqdm(total=total, desc=title, mininterval=0.5)
    try:
        yield line
        line.total = line.n
    finally:
        line.close()


def counting(line: Any, then: Callable[[int, int, str], bool | None] | None) -> Callable[[int, int, str], bool | None]:
    """An on_token that counts in a bar, then asks `then`."""

    def on_token(row: int, id: int, text: str) -> bool | None:
        if id >= 0:
            line.update()
        return then(row, id, text) if then is not None else None

    return on_token
