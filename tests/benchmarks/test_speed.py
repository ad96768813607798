import importlib.util
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import dbn

SCRIPT = Path(__file__).parents[2] / "benchmarks/speed.py"


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_ratios_are_those_of_the_rounds(run):
    results, _ = run
    for case in results["cases"].values():
        assert "ours / bound" in case["ratios"]
        for name, ratio in case["ratios"].items():
            slow, fast = (case["contenders"][key]["rounds_ms"] for key in name.split(" / "))
            expected = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
            assert ratio == pytest.approx(expected)


@pytest.mark.slow
def test_utilisation_is_that_of_the_rounds(run):
    results, _ = run
    for case in results["cases"].values():
        assert len(case["peaks"]) == 2 and min(case["peaks"]) > 0
        for times in filter(None, case["contenders"].values()):
            pairs = [*zip(times["rounds_ms"], case["peaks"], strict=True)]
            expected = statistics.median(case["flops"] / (ms / 1e3) / peak for ms, peak in pairs)
            assert times["utilisation"] == pytest.approx(expected)
            second = 1e3 / statistics.median(times["rounds_ms"])
            assert times["updates_per_second"] == pytest.approx(second)


@pytest.mark.slow
def test_scikit_learn_stands_only_where_it_does_the_same(run):
    results, _ = run
    assert "scikit-learn" in results["cases"]["cd1"]["contenders"]
    assert "scikit-learn" not in results["cases"]["pcd15"]["contenders"]


@pytest.mark.slow
def test_table_names_the_data_and_every_contender(run):
    results, printed = run
    assert "digits" in printed
    assert "mnist" not in printed.lower()
    for case in results["cases"].values():
        for contender, times in case["contenders"].items():
            assert contender in printed
            assert times is not None or "not installed" in printed


@pytest.mark.slow
def test_both_log_the_same_metric(run):
    results, _ = run
    for case in results["cases"].values():
        ours, theirs = (case["contenders"][name] for name in ("ours", "pytorch"))
        assert math.isfinite(ours["metric"])
        if theirs is None:
            pytest.skip("benchmarks/speed.py compares with PyTorch where it is installed")
        assert ours["metric"] == pytest.approx(theirs["metric"], rel=0.25)


@pytest.mark.parametrize(("k", "persistent"), [(1, False), (3, False), (3, True)])
def test_flops_are_those_of_the_program_that_xla_makes(k, persistent, monkeypatch):
    """Of our update: each product of two matrices in it, by the shapes that it has there."""
    pytest.importorskip("psutil", reason="benchmarks/speed.py needs psutil")
    monkeypatch.syspath_prepend(SCRIPT.parent)  # What it shares with other benchmarks is there.
    spec = importlib.util.spec_from_file_location("speed", SCRIPT)
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)

    rbm = dbn.RBM(11, k=k, persistent=persistent, chains=5, seed=0)
    rbm.compile("sgd")
    rbm.build((None, 7))
    rbm.optimizer.build(rbm.trainable_variables)
    prepared = rbm.prepare(tf.random.uniform((5, 7)), tf.constant(0, tf.int64))
    program = rbm._run_update.experimental_get_compiler_ir(*prepared)("optimized_hlo")

    shapes = {
        name: [int(size) for size in sizes.split(",")]
        for name, sizes in re.findall(r"(%[\w.-]+) = f32\[([\d,]+)\]", program)
    }
    products = re.findall(
        r"(%[\w.-]+) = f32\S+ dot\((%[\w.-]+), .*lhs_contracting_dims={(\d)}", program
    )
    counted = sum(
        2 * math.prod(shapes[name]) * shapes[left][int(axis)]
        for name, left, axis in products
        if len(shapes[name]) == 2
    )
    assert speed.Case(hidden=11, batch=5, k=k, persistent=persistent).flops(7) == counted
