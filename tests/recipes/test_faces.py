import importlib
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import dbn


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A file of small pictures, 8 bits a pixel."""
    path = tmp_path_factory.mktemp("faces") / "faces.npz"
    images = load_digits().images[:400]
    np.savez(path, images=np.uint8(images * 15)[:, :, 1:7])
    return path


def test_the_figures_are_those_of_the_saved_rbm_on_the_standardised_faces(
    faces, tmp_path, run_recipe
):
    done = run_recipe("faces.py", "--faces", faces, "--preset", "smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/faces"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["cases"], metrics["pixels"]) == ([320, 40, 40], 48)
    # The split, by hand: uniform numbers, then the order, of NumPy's generator of seed 0.
    images = np.load(faces)["images"].reshape(400, 48)
    random = np.random.default_rng(0)
    grey = (images + random.uniform(size=images.shape)) / 256
    order = random.permutation(400)
    train, test = grey[order[80:]], grey[order[:40]]
    train, test = ((part - train.mean(0)) / train.std(0) for part in (train, test))
    rbm = keras.saving.load_model(folder / "rbm.keras")
    exact = dbn.likelihood.log_likelihood(rbm, test, dbn.likelihood.exact_log_partition(rbm))
    # Few epochs: the RBM is still so near a Gaussian that AIS is all but exact.
    assert metrics["rbm"] == pytest.approx(exact.mean, abs=0.1)
    assert metrics["by_raise"] == pytest.approx(exact.mean, abs=0.5)
    diagonal = -0.5 * np.sum(test**2 + np.log(2 * np.pi), axis=1)
    assert metrics["diagonal"] == pytest.approx(diagonal.mean(), abs=0.01)
    assert metrics["mean_variance"] == pytest.approx(
        float(np.mean(rbm.layer.visible.variance)), rel=1e-5
    )
    assert f"diagonal {metrics['diagonal']:.1f}" in done.stdout
    assert Image.open(folder / "variance.png").size == (48, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no faces", "is no .npz file with an array `images`"),
        ({"pictures": np.zeros((30, 4, 4), np.uint8)}, "is no .npz file with an array `images`"),
        ({"images": np.zeros((30, 4, 4))}, r"got float64 of shape \(30, 4, 4\)"),
        ({"images": np.zeros((30, 16), np.uint8)}, r"got uint8 of shape \(30, 16\)"),
        ({"images": np.zeros((3, 4, 4), np.uint8)}, r"at least 63; got uint8 of shape \(3, 4, 4\)"),
        ({"images": np.zeros((80, 0, 4), np.uint8)}, r"got uint8 of shape \(80, 0, 4\)"),
        (b"", "is no .npz file with an array `images`"),
        (np.zeros((30, 4, 4), np.uint8), "is no .npz file with an array `images`"),
        ("cut off", "is no .npz file with an array `images`"),
    ],
)
def test_what_holds_no_faces_is_refused(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "recipes"))
    path = tmp_path / "faces.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        with path.open("wb") as file:
            np.save(file, content)
    elif content == "cut off":
        np.savez(path, images=np.zeros((80, 4, 4), np.uint8))
        path.write_bytes(path.read_bytes()[:-30])
    else:
        np.savez(path, **content)
    with pytest.raises(SystemExit) as exit:
        importlib.import_module("faces").load(path, fewest=63)
    assert exit.value.code == 2 and re.search(message, capsys.readouterr().err)
