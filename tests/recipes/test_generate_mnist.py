"""The recipe of the generative DBN, end to end on the embedded digits."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dbn

RECIPES = Path(__file__).parents[2] / "recipes"
SMOKE = ("generate_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a finished run, and what it printed."""
    cwd = tmp_path_factory.mktemp("generate")
    done = run_recipe(*SMOKE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/generate_digits-smoke", done.stdout


def test_the_figures_are_those_of_the_saved_model_and_of_the_export(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["layers"], metrics["classes"]) == ([64, 30, 20, 40], 10)
    assert metrics["validation_error"] == pytest.approx(min(metrics["validation_errors"]), abs=1e-6)
    best = metrics["validation_errors"][metrics["best_epoch"] - 1]
    assert metrics["validation_error"] == pytest.approx(best, abs=1e-6)
    assert f"Test error {metrics['test_error']:.2%} ({metrics['test_wrong']} of 300)" in printed
    test = dbn.data.load("digits").test
    model = dbn.load_model(folder / "model.keras")
    exported = tf.saved_model.load(str(folder / "saved_model"))
    for probabilities in (model.predict(test.x, verbose=0), exported.serve(test.x)):
        assert np.sum(np.argmax(probabilities, axis=1) != test.y) == metrics["test_wrong"]
    assert [int(rbm.updates.value) for rbm in (*model.below.rbms, model.top)] == [10, 10, 10]

    labels = np.repeat(np.arange(10), 20)
    means = np.reshape(model.sample(labels, steps=10).mean, (10, 20, 64))
    picture = dbn.images.chains(means, (8, 8))
    # Means are in other programs here and there: a grey level may round to the next.
    drawn = np.int64(Image.open(folder / "digits.png"))
    assert np.abs(drawn - picture).max() <= 1
    assert metrics["pretraining"] is True and len(metrics["validation_errors"]) == 2
    assert len(Image.open(folder / "course.png").convert("RGB").getcolors(100000)) > 3


def test_both_arms_start_from_the_same_weights(starts, monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    recipe = importlib.import_module("generate_mnist")
    one, other, pretrained = starts(recipe, SMOKE, (recipe, "pretrain"), "up_down")
    assert pretrained == 1
    for values, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(values, others)
    assert max(np.std(values) for values in one) > 0
