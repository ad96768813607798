"""The recipe of the best classifier, end to end on the embedded digits."""

import importlib
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dbn

RECIPES = Path(__file__).parents[2] / "recipes"
SMOKE = ("best_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The recipe as a module, whose `main` runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module("best_mnist")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a finished run, and what it printed."""
    cwd = tmp_path_factory.mktemp("best")
    done = run_recipe(*SMOKE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/best_digits-smoke", done.stdout


def test_the_figures_are_those_of_the_saved_classifier_and_of_the_export(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["held_out"], metrics["layers"]) == ("test", [64, 60, 40, 10])
    assert metrics["images"] == 500 and "validation_errors" not in metrics
    test = dbn.data.load("digits").test
    model = keras.saving.load_model(folder / "classifier.keras")
    assert {type(layer).__module__.split(".")[0] for layer in (model, *model.layers)} == {"keras"}
    probabilities = model.predict(test.x, verbose=0)
    wrong = np.argmax(probabilities, axis=1) != test.y
    assert (metrics["test_wrong"], metrics["test_cases"]) == (np.sum(wrong), 300)
    assert metrics["test_error"] == np.mean(wrong)
    assert f"Test error {np.mean(wrong):.2%} ({np.sum(wrong)} of 300)" in printed
    exported = tf.saved_model.load(str(folder / "saved_model"))
    np.testing.assert_allclose(exported.serve(test.x), probabilities, atol=1e-6)
    assert metrics["export_difference"] < 1e-5 and metrics["export_other_class"] == 0
    # Rows of 20, of those that are wrong; the last row is filled up with blanks.
    pictures = test.x[wrong][:200]
    rows = np.zeros((math.ceil(len(pictures) / 20), 20, 64))
    rows.reshape(-1, 64)[: len(pictures)] = pictures
    drawn = np.array(Image.open(folder / "errors.png"))
    np.testing.assert_array_equal(drawn, dbn.images.chains(rows, (8, 8)))

    losses = metrics["training_losses"]
    assert len(losses) == 20 and losses[-1] == metrics["training_loss"] < losses[0]
    assert len(Image.open(folder / "course.png").convert("RGB").getcolors(100000)) > 3


def test_the_pretrained_stack_is_kept(smoke):
    folder, printed = smoke
    stack = dbn.load_model(folder / "stack.keras")
    assert [int(rbm.updates.value) for rbm in stack.rbms] == [20, 20]
    assert [float(rbm.optimizer.learning_rate) for rbm in stack.rbms] == [0, 0]
    picture = dbn.images.filters(np.array(stack.rbms[0].layer.W), (8, 8))
    np.testing.assert_array_equal(np.array(Image.open(folder / "filters.png")), picture)
    model = keras.saving.load_model(folder / "classifier.keras")
    assert np.any(stack.rbms[0].layer.W != model.layers[0].kernel)
    costs = json.loads((folder / "metrics.json").read_text())["reconstruction_cross_entropy"]
    assert len(costs) == 2 and f"{costs} nats a case" in printed


def test_both_arms_start_from_the_same_weights(recipe, starts):
    one, other, pretrained = starts(recipe, SMOKE, (recipe.classifiers, "pretrain"), "fine_tune")
    assert pretrained == 1
    assert [len(values) for values in (one, other)] == [12, 12]
    for values, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(values, others)
    assert np.std(one[0]) > 0


@pytest.mark.slow
def test_validation_reads_no_test_image(recipe, monkeypatch, tmp_path):
    data = dbn.data.load("digits")
    monkeypatch.setattr(dbn.data, "load", lambda name: data._replace(test=None))
    monkeypatch.setattr("sys.argv", [*SMOKE, "--no-pretraining", "--validation"])
    trained, fit = [], dbn.checkpoints.fit
    monkeypatch.setattr(
        dbn.checkpoints,
        "fit",
        lambda model, *a, **k: (trained.append(model), fit(model, *a, **k))[1],
    )
    recipe.main()
    folder = tmp_path / "runs/best_digits-smoke-no-pretraining-validation"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["pretraining"], metrics["held_out"]) == (False, "validation")
    assert not {"pretraining_seconds", "test_error"} & metrics.keys()
    assert not (folder / "stack.keras").exists()
    model = keras.saving.load_model(folder / "classifier.keras")
    wrong = np.argmax(model.predict(data.valid.x, verbose=0), axis=1) != data.valid.y
    assert metrics["validation_error"] == np.mean(wrong)
    optimizer = trained[0].optimizer
    assert trained[0].radius == 0.5
    assert int(optimizer.iterations) == 200 and float(optimizer.learning_rate) == 0
    assert len(metrics["validation_errors"]) == 20
    assert metrics["validation_errors"][-1] == pytest.approx(np.mean(wrong))
