"""The recipe of Potts groups, end to end on the embedded digits, and its mixture model."""

import importlib
import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import dbn

RECIPES = Path(__file__).parents[2] / "recipes"
SMOKE = ("potts_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture(scope="module")
def recipe():
    """The recipe as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPES)
        yield importlib.import_module("potts_mnist")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a run on digits, and what it printed."""
    cwd = tmp_path_factory.mktemp("potts")
    done = run_recipe(*SMOKE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/potts_digits-smoke", done.stdout


@pytest.fixture(scope="module")
def codes():
    """The levels of the test images, `(images, pixels)`."""
    return np.minimum(np.int64(4 * dbn.data.load("digits").test.x), 3)


def test_levels_one_hot(recipe):
    grey = np.array([[0.0, 0.2499, 0.25], [0.5, 0.75, 1.0]], "float32")
    x = recipe.one_hot(grey)
    assert x.shape == (2, 12) and x.dtype == "float32"
    np.testing.assert_array_equal(x, dbn.layers.Categorical(4).one_hot([[0, 0, 1], [2, 3, 3]]))
    np.testing.assert_allclose(recipe.levels(x), np.array([[0, 0, 1], [2, 3, 3]]) / 3)


def test_the_figures_of_the_rbm_are_those_of_the_saved_model_by_enumeration(smoke, codes):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    rbm = keras.saving.load_model(folder / "rbm.keras")
    W, hbias, vbias = (np.float64(w) for w in (rbm.layer.W, rbm.layer.hbias, rbm.layer.vbias))
    assert W.shape == (256, 10)
    # Second implementation: log Z over the 2^10 hidden states, the free energy by its formula.
    h = np.array(list(itertools.product([0.0, 1.0], repeat=10)))
    groups = (h @ W.T + vbias).reshape(len(h), 64, 4)
    log_z = np.logaddexp.reduce(h @ hbias + np.logaddexp.reduce(groups, axis=2).sum(1))
    x = np.eye(4)[codes].reshape(len(codes), -1)
    logs = x @ vbias + np.logaddexp(0, x @ W + hbias).sum(1) - log_z
    assert dbn.likelihood.exact_log_partition(rbm).value == pytest.approx(log_z, abs=1e-6)
    assert metrics["log_partition"] == pytest.approx(log_z, abs=0.05)
    assert metrics["log_likelihood"] == pytest.approx(logs.mean(), abs=0.05)
    assert metrics["low"] <= metrics["log_likelihood"] <= metrics["high"]
    assert metrics["raise_cases_by_ais"] == pytest.approx(logs[:20].mean(), abs=0.05)
    assert metrics["raise_log_likelihood"] == pytest.approx(logs[:20].mean(), abs=0.3)
    assert metrics["images"] == [500, 300, 300]
    assert f"{metrics['log_likelihood']:.2f} nats per image" in printed


def test_the_figure_of_the_mixture_is_that_of_the_saved_parameters(smoke, codes):
    folder, _ = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    with np.load(folder / "mixture.npz") as saved:
        weights, p = saved["weights"], saved["p"].reshape(-1, 64, 4)
    assert weights.shape == (5,) and weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(p.sum(2), 1, rtol=1e-6)
    # The probability of each pixel's level in each component, looked up one by one.
    each = np.array([np.log(p[:, np.arange(64), row]).sum(1) for row in codes])
    logs = np.log(np.exp(each) @ weights)
    assert metrics["mixture"] == pytest.approx(logs.mean(), abs=1e-3)
    better = metrics["log_likelihood"] - metrics["mixture"]
    assert metrics["better"] == pytest.approx(better)
    by_raise = metrics["raise_log_likelihood"] - logs[:20].mean()
    assert metrics["better_by_raise"] == pytest.approx(by_raise, abs=1e-3)


def test_an_iteration_of_em_by_hand(recipe):
    codes = np.array([[0, 1], [0, 3], [2, 1]])
    x = np.float32(np.eye(4)[codes].reshape(3, 8))
    random = np.random.default_rng(0)
    p, weights = random.dirichlet(np.ones(4), (2, 2)), np.array([0.3, 0.7])
    before = recipe.Mixture(weights, p.reshape(2, 8))
    joint = np.array([[weights[k] * p[k, 0, a] * p[k, 1, b] for k in (0, 1)] for a, b in codes])
    np.testing.assert_allclose(before.log_likelihood(x), np.log(joint.sum(1)), atol=1e-5)
    posterior = joint / joint.sum(1, keepdims=True)
    after = before.improved(x, 0.5)
    size = posterior.sum(0)
    np.testing.assert_allclose(after.weights, (size + 0.5) / (3 + 2 * 0.5), rtol=1e-5)
    # Level 0 of the first pixel: the first two images have it.
    np.testing.assert_allclose(after.p[:, 0], (posterior[:2].sum(0) + 0.5) / (size + 2), rtol=1e-5)
    better = before.improved(x, 0.001)
    assert better.log_likelihood(x).sum() > before.log_likelihood(x).sum()


def test_em_finds_the_mixture_that_drew_the_images(recipe):
    random = np.random.default_rng(0)
    weights, p = np.array([0.25, 0.75]), random.dirichlet(np.full(4, 0.3), (2, 20))
    component = random.choice(2, 3000, p=weights)
    codes = (random.random((3000, 20, 1)) > np.cumsum(p, 2)[component][:, :, :3]).sum(2)
    x = np.float32(np.eye(4)[codes].reshape(3000, 80))
    found, mixture = recipe.fit_mixture(x[:2000], x[2000:], components=2, smoothing=0.1)
    truth = recipe.Mixture(weights, np.maximum(p.reshape(2, 80), 1e-12))
    assert found == pytest.approx(truth.log_likelihood(x[2000:]).mean(), abs=0.1)
    np.testing.assert_allclose(np.sort(mixture.weights), weights, atol=0.03)


def test_pictures(smoke, recipe):
    folder, _ = smoke
    samples = np.array(Image.open(folder / "samples.png"))
    assert samples.shape == (9 * 11 - 1, 9 * 20 - 1) and np.ptp(samples) > 100
    W = np.array(keras.saving.load_model(folder / "rbm.keras").layer.W).reshape(64, 4, 10)
    rise = (W * np.array([-1.5, -0.5, 0.5, 1.5])[:, None]).sum(1)
    drawn = np.array(Image.open(folder / "filters.png"), "int64")
    # Rounding down may meet another sum of the same numbers.
    assert np.abs(drawn - dbn.images.filters(rise, (8, 8))).max() <= 1
