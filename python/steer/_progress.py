"""Progress bars, where tqdm is installed; without it nothing is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def bar(title: str, total: int) -> Any:
    """A tqdm bar for terminal or notebook, or None without tqdm."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=title)


def counting(
    rows: int, tokens: int, then: Callable[[int, int, str], bool | None] | None
) -> Callable[[int, int, str], bool | None]:
    """An on_token that counts in a bar, then asks `then`."""
    shown = bar("generate", rows * tokens)

    def on_token(row: int, id: int, text: str) -> bool | None:
        if shown is not None and id >= 0:
            shown.update()
        return then(row, id, text) if then is not None else None

    return on_token
