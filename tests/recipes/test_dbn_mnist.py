"""The DBN recipe, end to end on the embedded digits."""

import importlib
import json
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dbn

SMOKE = ("dbn_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a finished run, and what it printed."""
    cwd = tmp_path_factory.mktemp("dbn")
    done = run_recipe(*SMOKE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/dbn_digits-smoke", done.stdout


def test_the_figures_agree_with_each_other_and_with_the_export(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["data_set"], metrics["layers"]) == ("digits", [64, 30, 20, 10])
    assert metrics["validation_error"] == min(metrics["validation_errors"])
    best = metrics["validation_errors"][metrics["best_epoch"] - 1]
    assert best == metrics["validation_error"]
    assert metrics["export_difference"] < 1e-5 and metrics["export_other_class"] == 0
    assert f"Test error {metrics['test_error']:.2%} ({metrics['test_wrong']} of 300)" in printed

    test = dbn.data.load("digits").test
    exported = tf.saved_model.load(str(folder / "saved_model"))
    wrong = np.sum(np.argmax(exported.serve(test.x), axis=1) != test.y)
    assert wrong == metrics["test_wrong"] and metrics["test_error"] == wrong / 300


def test_the_classifier_is_left_as_it_was_in_its_best_epoch(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "recipes")
    recipe, runs = importlib.import_module("dbn_mnist"), importlib.import_module("runs")
    train, valid, _ = dbn.data.load("digits")
    for seed in range(10):
        keras.utils.set_random_seed(seed)
        stack, metrics = dbn.DBN([30]), runs.Metrics()
        stack.build((None, 64))
        model, how = stack.classifier(10), recipe.Training(5, 50, 0.3, momentum=None, decay=False)
        recipe.fine_tune(model, train, valid, how, seed, tmp_path / str(seed), metrics)
        found = np.mean(np.argmax(model(valid.x), axis=1) != valid.y)
        assert found == pytest.approx(min(metrics["validation_errors"]), abs=1e-6)
        if metrics["best_epoch"] < 5:
            return
    pytest.fail("The best epoch was the last one every time: this has tested nothing.")


def test_the_pretrained_stack_is_kept(smoke):
    folder, _ = smoke
    stack = keras.saving.load_model(folder / "stack.keras")
    keras.utils.set_random_seed(0)
    start = dbn.DBN([30, 20])
    start.build((None, 64))
    # 2 epochs of 500 cases in batches of 50.
    assert [int(rbm.updates.value) for rbm in stack.rbms] == [20, 20]
    other = dbn.DBN([30, 20])
    other.build((None, 64))
    near, far = (
        np.abs(np.subtract(stack.rbms[0].layer.W, untrained.rbms[0].layer.W)).mean()
        for untrained in (start, other)
    )
    assert 0 < near < far  # It began at the weights that the seed gives.
    picture = dbn.images.filters(np.array(stack.rbms[0].layer.W), (8, 8))
    np.testing.assert_array_equal(np.array(Image.open(folder / "filters.png")), picture)


@pytest.mark.slow
def test_a_finished_run_is_refused_and_the_other_arm_has_a_folder_of_its_own(smoke, run_recipe):
    folder, _ = smoke
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = run_recipe(*SMOKE, cwd=folder.parents[1])
    assert again.returncode == 2 and "finished run" in again.stderr
    other = run_recipe(*SMOKE, "--no-pretraining", cwd=folder.parents[1])
    assert other.returncode == 0, other.stderr
    metrics = json.loads(
        (folder.parent / "dbn_digits-smoke-no-pretraining/metrics.json").read_text()
    )
    assert metrics["pretraining"] is False and "pretraining_seconds" not in metrics
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_while_fine_tuning_it_goes_on_and_ends_the_same(
    smoke, tmp_path, stop_recipe, run_recipe
):
    killed = stop_recipe(signal.SIGKILL, "Epoch 2/2", *SMOKE, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    done = run_recipe(*SMOKE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Epoch 1/2" not in done.stdout  # It was made before.
    folders = tmp_path / "runs/dbn_digits-smoke", smoke[0]
    metrics, whole = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    for name in ("reconstruction_cross_entropy", "validation_errors", "test_error", "best_epoch"):
        assert metrics[name] == whole[name]
    assert metrics["tries"] == 2
    x = dbn.data.load("digits").test.x
    models = [tf.saved_model.load(str(folder / "saved_model")) for folder in folders]
    np.testing.assert_array_equal(*[model.serve(x) for model in models])
    assert not (folders[0] / "checkpoints").exists()


@pytest.mark.slow
def test_help_explains(tmp_path, run_recipe):
    done = run_recipe("dbn_mnist.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--no-pretraining" in done.stdout and "tutorial" in done.stdout
