"""The Python of README.md and docs/python.md runs, in the order of the page, and prints what the page shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from conftest import ROOT

BLOCK = re.compile(r"```python\n(.*?)```(?:[^`\n]*\n+[^`\n]*\n*```\n(.*?)```)?", re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for code, shown in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, page, "exec"), names)
        if shown:
            assert re.split(r"\s+", out.getvalue().strip()) == re.split(r"\s+", shown.strip()), out.getvalue()
