"""The stubs say what the extension has: python/steer/_core.pyi is what nanobind's generator writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import steer

STUB = ROOT / "python" / "steer" / "_core.pyi"


def test_stub_is_what_the_module_has(tmp_path: Path) -> None:
    pytest.importorskip("nanobind")
    out = tmp_path / "_core.pyi"
    subprocess.run([sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "steer._core", "-o", str(out)], check=True)
    assert out.read_text() == STUB.read_text(), f"write it anew: python -m nanobind.stubgen -m steer._core -o {STUB}"


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_package_and_the_examples_pass_type_checkers(checker: str) -> None:
    pytest.importorskip(checker)
    done = subprocess.run([sys.executable, "-m", checker], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_typed_and_says_what_it_has() -> None:
    assert (ROOT / "python" / "steer" / "py.typed").exists()
    assert all(hasattr(steer, name) for name in steer.__all__)
    inside = [f"{n}.{m}" for n in steer.__all__ if isinstance(getattr(steer, n), type)
              for m, v in vars(getattr(steer, n)).items()
              if not m.startswith("_") and not isinstance(v, str) and not (getattr(v, "__doc__", "") or "").strip()]  # fmt: skip
    assert not inside
    undocumented = [n for n in steer.__all__ if callable(getattr(steer, n)) and not (getattr(steer, n).__doc__ or "").strip()]
    assert not undocumented
