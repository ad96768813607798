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
    assert (metrics["held_out"], metrics["images"]) == ("test", 500)
    assert "validation_errors" not in metrics
    assert f"Test error {metrics['test_error']:.2%} ({metrics['test_wrong']} of 300)" in printed
    train, _, test = dbn.data.load("digits")
    model = dbn.load_model(folder / "model.keras")
    exported = tf.saved_model.load(str(folder / "saved_model"))
    for probabilities in (model.predict(test.x, verbose=0), exported.serve(test.x)):
        assert np.sum(np.argmax(probabilities, axis=1) != test.y) == metrics["test_wrong"]
    found = np.argmax(model.log_probabilities(train.x[:500]), axis=1)
    assert metrics["training_error"] == np.mean(found != train.y[:500])
    assert [int(rbm.updates.value) for rbm in model.below.rbms] == [10, 10]
    assert int(model.updates.value) == 5 and model.top.chains == 100 and model.k == 3
    assert np.mean(model.top.chain) > 0.2  # Zeros at first.

    labels = np.repeat(np.arange(10), 20)
    means = np.reshape(model.sample(labels, steps=10).mean, (10, 20, 64))
    picture = dbn.images.chains(means, (8, 8))
    # Means are in other programs here and there: a grey level may round to the next.
    drawn = np.int64(Image.open(folder / "digits.png"))
    assert np.abs(drawn - picture).max() <= 1
    costs = metrics["cross_entropies"]
    assert metrics["pretraining"] is True and len(costs) == 3
    assert 64 * np.log(2) > costs[0] > costs[1] > costs[2]
    assert len(Image.open(folder / "course.png").convert("RGB").getcolors(100000)) > 3


def test_both_arms_start_from_the_same_weights(starts, monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    recipe = importlib.import_module("generate_mnist")
    one, other, pretrained = starts(recipe, SMOKE, (recipe, "pretrain"), "up_down")
    assert pretrained == 1
    for values, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(values, others)
    assert max(np.std(values) for values in one) > 0


@pytest.mark.slow
def test_validation_reads_no_test_image(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(RECIPES)
    data = dbn.data.load("digits")
    monkeypatch.setattr(dbn.data, "load", lambda name: data._replace(test=None))
    monkeypatch.setattr("sys.argv", [*SMOKE, "--validation"])
    importlib.import_module("generate_mnist").main()
    folder = tmp_path / "runs/generate_digits-smoke-validation"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["held_out"] == "validation" and "test_error" not in metrics
    model = dbn.load_model(folder / "model.keras")
    wrong = np.argmax(model.log_probabilities(data.valid.x), axis=1) != data.valid.y
    assert metrics["validation_error"] == np.mean(wrong)
    assert len(metrics["validation_errors"]) == 3
    assert metrics["validation_errors"][-1] == pytest.approx(np.mean(wrong), abs=1e-6)
