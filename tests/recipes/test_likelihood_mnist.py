import json

import keras
import numpy as np
import pytest
from PIL import Image

import dbn

SMOKE = ("likelihood_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a run on digits, and what it printed."""
    cwd = tmp_path_factory.mktemp("likelihood")
    done = run_recipe(*SMOKE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/likelihood_digits-smoke", done.stdout


def test_figures_are_those_of_the_saved_model_by_enumeration(smoke):
    folder, _ = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    rbm = keras.saving.load_model(folder / "rbm.keras")
    x = dbn.data.load("digits", binarize="stochastic", seed=0).test.x[:500]
    exact = dbn.likelihood.exact_log_partition(rbm)
    assert metrics["log_partition"] == pytest.approx(exact.value, abs=0.05)
    found = dbn.likelihood.log_likelihood(rbm, x, exact).mean
    assert metrics["log_likelihood"] == pytest.approx(found, abs=0.05)
    # The last figure on the way is that of the averages, which the saved model holds; 20 hidden
    # units are enumerated.
    assert metrics["course"][-1] == pytest.approx(found, abs=1e-3)
    same = dbn.likelihood.log_likelihood(rbm, x[:20], exact).mean
    assert metrics["raise_log_likelihood"] == pytest.approx(same, abs=0.3)
    assert metrics["gap"] == pytest.approx(
        metrics["raise_cases_by_ais"] - metrics["raise_log_likelihood"]
    )


def test_what_was_measured_is_stated(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["binarization"] == "stochastic" and metrics["held_out"] == "test"
    assert metrics["images"] == 500 and metrics["hidden"] == 20
    assert metrics["low"] <= metrics["log_likelihood"] <= metrics["high"]
    assert metrics["training_seconds"] + metrics["measuring_seconds"] < metrics["total_seconds"]
    assert f"{metrics['log_likelihood']:.2f} nats per image" in printed


def test_pictures(smoke):
    folder, _ = smoke
    low, high = Image.open(folder / "samples.png").getextrema()
    assert high - low > 100 and Image.open(folder / "samples.png").size == (9 * 20 - 1, 9 * 10 - 1)
    assert np.ptp(np.array(Image.open(folder / "filters.png"))) > 100
