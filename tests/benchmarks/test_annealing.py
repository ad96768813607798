import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/annealing.py"
pytestmark = pytest.mark.slow
SMALL = "--visible 20 --hidden 10 --chains 5 --temperatures 20 --rounds 3".split()


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_ratios_are_those_of_the_rounds(tmp_path):
    out = tmp_path / "new" / "annealing.json"
    done = run("--out", out)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    rounds = results["rounds_ms"]
    assert all(len(taken) == 3 and min(taken) > 0 for taken in rounds.values())
    for name in ("gibbs", "ais"):
        pairs = zip(rounds[name], rounds["bound"], strict=True)
        expected = statistics.median(slow / fast for slow, fast in pairs)
        assert results["ratios"][f"{name} / bound"] == pytest.approx(expected)
        assert f"{name} / bound" in done.stdout


def test_one_temperature_is_refused(tmp_path):
    done = run("--temperatures", 1, "--out", tmp_path / "annealing.json")
    assert done.returncode == 2 and "--temperatures" in done.stderr
    assert not any(tmp_path.iterdir())
