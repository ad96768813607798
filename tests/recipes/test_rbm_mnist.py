import json
import math
import signal

import pytest
from PIL import Image

SMOKE = ("rbm_mnist.py", "--preset", "smoke")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a run on digits, and what it printed."""
    cwd = tmp_path_factory.mktemp("rbm")
    done = run_recipe(*SMOKE, "--data-set", "digits", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/rbm_digits", done.stdout


def test_metrics_are_finite_and_complete(smoke):
    folder, _ = smoke
    text = (folder / "metrics.json").read_text()
    metrics = json.loads(text)
    assert (metrics["data_set"], metrics["preset"], metrics["images"]) == ("digits", "smoke", 1000)
    assert len(metrics["cost"]) == 2
    assert all(math.isfinite(cost) and cost < 0 for cost in metrics["cost"])
    assert 0 < metrics["train_seconds"] + metrics["sample_seconds"] < metrics["total_seconds"]
    assert '"/' not in text  # no path of this machine


def test_every_figure_printed_is_in_the_metrics(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    lines = [
        f"Training epoch {epoch}, cost is {cost:f}" for epoch, cost in enumerate(metrics["cost"])
    ]
    lines.append(f"Training took {metrics['train_seconds']:.1f} s")
    lines.append(f"Sampling took {metrics['sample_seconds']:.1f} s")
    lines.append(f"{metrics['total_seconds']:.0f} s in all, ")
    assert all(line in printed for line in lines)
    assert len(printed.splitlines()) == len(lines) + 2  # and the data set, and the folder


def test_pictures(smoke):
    folder, _ = smoke
    names = ["filters_at_epoch_0.png", "filters_at_epoch_1.png", "samples.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "metrics.json"])
    # 500 tiles of 8 x 8 as near a square as may be, a pixel apart; 10 rows of 20 chains.
    rows = math.isqrt(500)
    columns = math.ceil(500 / rows)
    sizes = {name: Image.open(folder / name).size for name in names}
    assert sizes["filters_at_epoch_1.png"] == (9 * columns - 1, 9 * rows - 1)
    assert sizes["samples.png"] == (9 * 20 - 1, 9 * 10 - 1)


def test_pictures_are_no_single_grey(smoke):
    folder, _ = smoke
    for path in folder.glob("*.png"):
        low, high = Image.open(path).getextrema()
        assert high - low > 200


def test_a_run_on_digits_is_never_called_mnist(smoke):
    folder, printed = smoke
    assert "digits" in printed
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("recipe") == "rbm_mnist"
    assert "mnist" not in (printed + json.dumps(metrics)).lower()


def test_a_finished_run_is_refused_and_left_as_it_is(smoke, run_recipe):
    folder, _ = smoke
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    done = run_recipe(*SMOKE, "--data-set", "digits", cwd=folder.parents[1])
    assert done.returncode == 2
    assert "holds a finished run" in done.stderr
    assert "Traceback" not in done.stderr
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before


@pytest.mark.slow
def test_stopped_by_ctrl_c_it_goes_on_and_ends_the_same(smoke, tmp_path, stop_recipe, run_recipe):
    command = (*SMOKE, "--data-set", "digits")
    stopped = stop_recipe(signal.SIGINT, "epoch 0, cost", *command, cwd=tmp_path)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    done = run_recipe(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on with it" in done.stdout
    expected, _ = smoke
    folder = tmp_path / "runs/rbm_digits"
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    for path in folder.glob("*.png"):
        assert path.read_bytes() == (expected / path.name).read_bytes()
    metrics, whole = (json.loads((f / "metrics.json").read_text()) for f in (folder, expected))
    assert metrics["cost"] == whole["cost"]
    assert metrics["tries"] == 2 and "tries" not in whole


def test_an_unknown_data_set_is_refused_and_no_folder_made(refused_recipe):
    assert "no_such_set" in refused_recipe(*SMOKE, "--data-set", "no_such_set")


def test_help_explains(tmp_path, run_recipe):
    done = run_recipe(*SMOKE, "--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("--preset", "--data-set", "--run-dir", "--seed", "tutorial", "metrics.json"):
        assert word in done.stdout
