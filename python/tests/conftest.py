"""The demo model and its SAE, once for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import steer

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "data" / "demo"
counts = {"passed": 0, "failed": 0, "skipped": 0}


@pytest.fixture(scope="session")
def model() -> steer.Model:
    return steer.Model.from_pretrained(DEMO)


@pytest.fixture(scope="session")
def sae() -> steer.SAE:
    return steer.SAE.load(DEMO / "sae.safetensors")


def golden_dirs() -> list[Path]:
    """Folders of reference vectors: the one that is named, else what lies beside the checkout, if it does."""
    named = os.environ.get("STEER_GOLDEN_DIR")
    beside = ROOT.parent / "shared" / "fixtures" / "golden"
    folders = [Path(named)] if named else []
    return folders + ([beside] if not named and beside.is_dir() else [])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        counts[report.outcome] += 1


def pytest_unconfigure() -> None:
    print(f"\npython: {counts['passed']} cases passed, {counts['failed']} failed, {counts['skipped']} skipped")
