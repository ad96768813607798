import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/streaming.py"
pytestmark = pytest.mark.slow


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_ratios_are_those_of_what_was_measured(tmp_path):
    out = tmp_path / "new" / "streaming.json"
    done = run("--smoke", "--folder", tmp_path / "data", "--out", out)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    # TensorFlow alone takes hundreds of MiB; this is no measurement.
    assert all(100 < found < 10000 for found in results["peaks_mib"].values())
    expected = results["peaks_mib"]["32"] / results["peaks_mib"]["16"]
    assert results["ratios"]["peak, largest / smallest data"] == pytest.approx(expected)
    speeds = results["updates_per_second"]
    assert all(len(found) == 3 and min(found) > 0 for found in speeds.values())
    pairs = zip(speeds["shards"], speeds["memory"], strict=True)
    expected = statistics.median(shards / memory for shards, memory in pairs)
    assert results["ratios"]["speed, shards / memory"] == pytest.approx(expected)
    assert f"{expected:.3f}" in done.stdout
    assert not any((tmp_path / "data").iterdir())


def test_no_size_is_refused(tmp_path):
    done = run("--sizes", 0, "--out", tmp_path / "streaming.json")
    assert done.returncode == 2 and "at least 1" in done.stderr
    assert not any(tmp_path.iterdir())
