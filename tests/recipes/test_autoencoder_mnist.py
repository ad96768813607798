"""The autoencoder recipe, end to end on the embedded digits."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

import dbn

SMOKE = ("autoencoder_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a finished run, and what it printed."""
    cwd = tmp_path_factory.mktemp("autoencoder")
    done = run_recipe(*SMOKE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/autoencoder_digits-smoke", done.stdout


def test_the_figures_are_those_of_the_saved_network_on_the_test_images(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["held_out"], metrics["layers"]) == ("test", [64, 30, 20, 5])
    data = dbn.data.load("digits")
    x, test = np.concatenate([data.train.x, data.valid.x])[:500], data.test.x
    model = keras.saving.load_model(folder / "autoencoder.keras")
    error = np.mean(np.sum((model.predict(test, verbose=0) - test) ** 2, axis=1))
    np.testing.assert_allclose(metrics["squared_error"], error, rtol=1e-5)
    assert f"Code of 5: squared error per image {error:.3f}" in printed
    for name, count in (("", 5), ("_2d", 2)):
        pca = PCA(count).fit(x)
        error = np.mean(np.sum((pca.inverse_transform(pca.transform(test)) - test) ** 2, axis=1))
        np.testing.assert_allclose(metrics[f"pca_squared_error{name}"], error, rtol=1e-3)
        errors = metrics[f"training_squared_errors{name}"]
        assert errors[-1] < errors[0]
    # Three rows of 20 test images.
    picture = dbn.images.chains(np.zeros((3, 20, 64)), (8, 8))
    drawn = np.array(Image.open(folder / "reconstructions.png"))
    assert drawn.shape == picture.shape
    np.testing.assert_array_equal(drawn[:8, :8], np.uint8(test[0].reshape(8, 8) * 255))
    for name in ("codes.png", "course.png"):
        assert len(Image.open(folder / name).convert("RGB").getcolors(1000000)) > 3
    # The stack is the pretrained one: fine-tuning went to copies.
    stack = dbn.load_model(folder / "stack.keras")
    assert [int(rbm.updates.value) for rbm in stack.rbms] == [20, 20, 20]
    assert np.any(stack.rbms[0].layer.W != model.get_layer("encoder").layers[0].kernel)


@pytest.mark.slow
def test_the_other_arm_and_validation_have_folders_of_their_own(smoke, run_recipe):
    runs = smoke[0].parent
    done = run_recipe(*SMOKE, "--no-pretraining", "--validation", cwd=runs.parent)
    assert done.returncode == 0, done.stderr
    folder = runs / "autoencoder_digits-smoke-no-pretraining-validation"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pretraining"] is False and metrics["held_out"] == "validation"
    assert "pretraining_seconds" not in metrics and not (folder / "stack.keras").exists()
