import io
import zipfile

import keras
import numpy as np
import pytest

import dbn


@pytest.fixture(scope="module")
def model():
    rbm = dbn.RBM(4, persistent=True, chains=3, seed=0)
    rbm.compile(keras.optimizers.SGD(0.1, momentum=0.5), jit_compile=False, steps_per_execution=1)
    rbm.fit(np.eye(6, dtype="float32"), verbose=0)
    return rbm


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "rbm.keras")
    return tmp_path / "rbm.keras"


def values(model):
    return [np.asarray(v.value) for v in [*model.variables, *model.optimizer.variables]]


def test_what_was_saved_is_loaded(model, path):
    loaded = dbn.load_model(str(path))
    for a, b in zip(values(loaded), values(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not dbn.load_model(path, compile=False).compiled


def test_a_truncated_file_is_refused(path):
    content = path.read_bytes()
    for size in (0, 10, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="rbm.keras is damaged, or no .keras file"):
            dbn.load_model(path)


def test_a_flipped_bit_is_refused_or_changes_nothing(model, path):
    content, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        flipped = bytearray(content)
        flipped[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            # In the archive's own tables there are bits that nobody reads, such as its dates.
            for a, b in zip(values(dbn.load_model(path)), values(model), strict=True):
                np.testing.assert_array_equal(a, b)
        except ValueError as error:
            assert "rbm.keras is damaged" in str(error)
            refused += 1
    assert refused > 130


def test_foreign_files_are_refused(path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("thesis.tex", "years of work")
    for content, message in (
        (b"years of work", "no .keras file"),
        (archive.getvalue(), "no .keras file: it has the parts thesis.tex"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"rbm.keras is .*{message}"):
            dbn.load_model(path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["rbm.h5", "rbm.zip", "rbm"])
def test_a_file_that_keras_would_read_as_something_else_is_refused(path, name):
    path.rename(path.with_name(name))
    with pytest.raises(ValueError, match="name of a .keras file must end so; got .*rbm"):
        dbn.load_model(path.with_name(name))


def test_a_lambda_is_refused_and_not_executed(tmp_path):
    def harm(x, path=str(tmp_path / "harm")):
        open(path, "w").close()
        return x

    layers = [keras.Input((3,)), keras.layers.Lambda(lambda x: harm(x))]
    keras.Sequential(layers).save(tmp_path / "lambda.keras")
    (tmp_path / "harm").unlink()  # Calling the model, to build it, has made it.
    with pytest.raises(ValueError, match="arbitrary code execution"):
        dbn.load_model(tmp_path / "lambda.keras")
    assert not (tmp_path / "harm").exists()


def test_a_file_that_is_not_there_is_no_value_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.keras"):
        dbn.load_model(tmp_path / "nothing.keras")
