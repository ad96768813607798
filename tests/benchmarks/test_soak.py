import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/soak.py"
pytestmark = pytest.mark.slow


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_killed_training_comes_to_its_end_and_is_counted(tmp_path):
    out = tmp_path / "new" / "soak.json"
    done = run("--kills", 1, "--trainings", "fine-tuning", "--out", out)
    assert done.returncode == 0, done.stderr
    (name, counts), *others = json.loads(out.read_text()).items()
    assert (name, others) == ("fine-tuning", [])
    # A training that ended before the moment came was not killed, and is counted as an end.
    assert counts["kills"] == 1 and counts["unreadable"] == 0
    assert counts["same"] == counts["ends"] >= 1
    assert f"{name:12}{1:8}{counts['ends']:8}" in done.stdout


def test_no_kill_is_refused(tmp_path):
    done = run("--kills", 0, "--out", tmp_path / "soak.json")
    assert done.returncode == 2 and "at least 1" in done.stderr
    assert not any(tmp_path.iterdir())
