"""The recipe on photographs, and the two figures by which it calls a filter Gabor-like."""

import importlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import dbn

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def recipe():
    """The recipe as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPES)
        yield importlib.import_module("natural_patches")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a run, and what it printed."""
    cwd = tmp_path_factory.mktemp("patches")
    done = run_recipe("natural_patches.py", "--preset", "smoke", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/natural_patches", done.stdout


def gabor(degrees, frequency=0.2, deviation=2.0):
    """A Gabor filter that varies along the axis of this angle, `(14, 14)`."""
    y, x = np.mgrid[:14, :14] - 6.5
    angle = np.radians(degrees)
    along = x * np.cos(angle) + y * np.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / (2 * deviation**2))
    return envelope * np.cos(2 * np.pi * frequency * along + 0.5)


def test_gabor_filters_are_localised_and_oriented_at_every_angle(recipe):
    filters = np.stack([gabor(degrees) for degrees in range(0, 180, 12)])
    assert recipe.localised(filters).min() > 0.9
    assert recipe.oriented(filters).min() > 0.8


def test_noise_is_neither_as_the_docstring_says(recipe):
    filters = np.random.default_rng(0).normal(size=(2000, 14, 14))
    local, orient = recipe.localised(filters), recipe.oriented(filters)
    assert np.median(local) == pytest.approx(0.33, abs=0.01)
    assert np.quantile(local, 0.95) == pytest.approx(0.39, abs=0.01)
    assert np.median(orient) == pytest.approx(0.32, abs=0.01)
    assert np.quantile(orient, 0.95) == pytest.approx(0.37, abs=0.01)


def test_one_of_the_two_is_not_enough(recipe):
    grating = np.sin(0.8 * np.arange(14.0)) * np.ones((14, 1))
    pixel = np.zeros((14, 14))
    pixel[3, 10] = 1.0
    filters = np.stack([grating, pixel])
    np.testing.assert_allclose(recipe.localised(filters), [0.25, 1.0], atol=0.05)
    assert recipe.oriented(filters)[0] > 0.8
    # The spectrum of a pixel is flat: 45 of 180 degrees hold a quarter of it.
    assert recipe.oriented(filters)[1] == pytest.approx(0.25, abs=0.01)


def test_localised_by_trying_every_window(recipe):
    filters = np.random.default_rng(1).normal(size=(20, 14, 14))
    squares = filters**2
    windows = [squares[:, i : i + 7, j : j + 7].sum((1, 2)) for i in range(8) for j in range(8)]
    expected = np.max(windows, axis=0) / squares.sum((1, 2))
    np.testing.assert_allclose(recipe.localised(filters), expected)


def test_patches_are_white(recipe):
    x = recipe.draw_patches(2000)
    assert x.shape == (2000, 196)
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(1), 1, atol=1e-4)
    white = recipe.whiten(x)
    assert white.dtype == np.float32 and white.std() == pytest.approx(1, abs=1e-4)
    # The same variance in each direction that is kept, none in the others.
    variances = np.linalg.eigvalsh(np.cov(white, rowvar=False))
    kept = variances > 1e-3
    np.testing.assert_allclose(variances[kept], 196 / kept.sum(), rtol=0.01)
    assert variances[~kept].max() < 1e-5 and 80 < kept.sum() < 180


def test_figures_are_those_of_the_saved_model(smoke, recipe):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    rbm = keras.saving.load_model(folder / "rbm.keras")
    W = np.array(rbm.layer.W)
    assert (metrics["hidden"], metrics["patches"]) == (20, 1000) and W.shape == (196, 20)
    filters = W.T.reshape(-1, 14, 14)
    assert metrics["localised"] == pytest.approx(np.median(recipe.localised(filters)))
    assert metrics["oriented"] == pytest.approx(np.median(recipe.oriented(filters)))
    assert metrics["gabor_share_before"] == 0
    x = recipe.whiten(recipe.draw_patches(1000))
    activity = 1 / (1 + np.exp(-(x @ W + np.array(rbm.layer.hbias))))
    assert metrics["activity"] == pytest.approx(activity.mean(), rel=1e-3)
    assert len(metrics["reconstruction_cross_entropy"]) == 1
    assert f"Of 20 filters {metrics['gabor_share']:.0%}" in printed


def test_pictures(smoke):
    folder, _ = smoke
    W = np.array(keras.saving.load_model(folder / "rbm.keras").layer.W)
    picture = dbn.images.filters(W, (14, 14))
    np.testing.assert_array_equal(np.array(Image.open(folder / "filters.png")), picture)
    patches = Image.open(folder / "patches.png")
    assert patches.size == (15 * 20 - 1, 15 * 4 - 1) and np.ptp(np.array(patches)) > 200
