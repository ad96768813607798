import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/units.py"
pytestmark = pytest.mark.slow
SMALL = "--hidden 5 --batch 4 --updates 3 --rounds 3".split()


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_ratios_are_those_of_the_rounds(tmp_path):
    out = tmp_path / "new" / "units.json"
    done = run("--out", out)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    rounds = results["rounds_ms"]
    assert results["ratios"]["bernoulli-bernoulli"] == 1
    for name, taken in rounds.items():
        assert len(taken) == 3 and min(taken) > 0
        pairs = zip(taken, rounds["bernoulli-bernoulli"], strict=True)
        expected = statistics.median(slow / fast for slow, fast in pairs)
        assert results["ratios"][name] == pytest.approx(expected)
        assert name in done.stdout


def test_no_update_is_refused(tmp_path):
    done = run("--updates", 0, "--out", tmp_path / "units.json")
    assert done.returncode == 2 and "at least 1" in done.stderr
    assert not any(tmp_path.iterdir())
