import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/speed.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The benchmark's JSON and what it printed, on digits and as short as it goes."""
    out = tmp_path_factory.mktemp("speed") / "new" / "speed.json"
    arguments = "--data-set digits --cases cd1 pcd15 --rounds 2 --seconds 0.1 --out".split()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, str(out)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def test_times_are_finite_and_positive(run):
    results, _ = run
    assert set(results["cases"]) == {"cd1", "pcd15"}
    for case in results["cases"].values():
        assert case["contenders"]["ours"] is not None
        assert case["contenders"]["bound"] is not None
        for times in filter(None, case["contenders"].values()):
            assert len(times["rounds_ms"]) == 2
            numbers = [times["first_run_seconds"], *times["rounds_ms"]]
            assert all(math.isfinite(number) and number > 0 for number in numbers)
            assert 0 <= times["others"] <= 1


def test_ratios_are_those_of_the_rounds(run):
    results, _ = run
    for case in results["cases"].values():
        assert "ours / bound" in case["ratios"]
        for name, ratio in case["ratios"].items():
            slow, fast = (case["contenders"][key]["rounds_ms"] for key in name.split(" / "))
            expected = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
            assert ratio == pytest.approx(expected)


def test_scikit_learn_stands_only_where_it_does_the_same(run):
    results, _ = run
    assert "scikit-learn" in results["cases"]["cd1"]["contenders"]
    assert "scikit-learn" not in results["cases"]["pcd15"]["contenders"]


def test_table_names_the_data_and_every_contender(run):
    results, printed = run
    assert "digits" in printed
    assert "mnist" not in printed.lower()
    for case in results["cases"].values():
        for contender, times in case["contenders"].items():
            assert contender in printed
            assert times is not None or "not installed" in printed


def test_both_log_the_same_metric(run):
    results, _ = run
    for case in results["cases"].values():
        both = [case["contenders"][name] for name in ("ours", "pytorch")]
        values = [times["metric"] for times in both if times is not None]
        assert all(math.isfinite(value) for value in values)
        assert values[0] == pytest.approx(values[-1], rel=0.25)
