import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/replicas.py"
pytestmark = pytest.mark.slow


def test_ratio_is_that_of_the_rounds(tmp_path):
    arguments = ["--cases", "cd1", "--rounds", "2", "--updates", "3", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out").read_text())["cd1"]
    pairs = zip(found["rounds_ms"]["one"], found["rounds_ms"]["two"], strict=True)
    ratio = statistics.median(two / one for one, two in pairs)
    assert found["two / one"] == pytest.approx(ratio) and ratio > 0
    assert f"{ratio:.2f}" in done.stdout
