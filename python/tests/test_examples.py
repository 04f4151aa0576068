"""The short programs of python/examples run, and say what they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SAYS = {
    "ablate_heads": r"loss [\d.]+ and",
    "contrast_vector": r"CalibratedStrength\(",
    "feature_dashboard": r"writes for \[",
    "logit_attribution": r"over .* logits\n  embed",
    "probe": r"right on the second half: (1\.00|0\.9\d)",
    "report_in_pandas": r"control +1\.000",
    "rows_of_their_own": r" 0\.0    0 tokens edited.*\n.*\n 6\.0 +[1-9]\d* tokens edited",
    "train_a_vector": r"step 30: .* = 0\.9",
}


@pytest.mark.parametrize("path", sorted((ROOT / "python" / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_example(path: Path) -> None:
    if path.stem == "report_in_pandas":
        pytest.importorskip("pandas")
    done = subprocess.run(
        [sys.executable, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=300, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SAYS[path.stem], done.stdout), done.stdout
