"""Activations of lower layers, in memory, on the fly and on disk: what a layer learns from."""

import errno
import functools
import json
import os
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import shard_files
from dbn.shards import Shards

pytestmark = pytest.mark.usefixtures("without_xla")

X = np.random.default_rng(0).random((22, 6), dtype=np.float32)
VALID = np.random.default_rng(2).random((9, 6), dtype=np.float32)
ARRAY = {"x": X, "validation_data": VALID, "batch_size": 5}
KINDS = ["array", "Dataset", "shards"]


@functools.cache
def _made():
    keras.utils.set_random_seed(5)
    stack = dbn.DBN([5, 4, 3])
    stack.build((None, 6))
    for rbm in stack.rbms:
        rbm.compile(keras.optimizers.SGD(0.1), jit_compile=False, steps_per_execution=2)
        rbm.optimizer.build(rbm.trainable_variables)
    return stack, [np.array(v.value) for v in variables(stack)]


def variables(stack):
    return [v for rbm in stack.rbms for v in [*rbm.variables, *rbm.optimizer.variables]]


def ready():
    """A stack as it was made, compiled once."""
    stack, start = _made()
    for variable, value in zip(variables(stack), start, strict=True):
        variable.assign(value)
    return stack


@pytest.fixture
def given(tmp_path):
    """A function from the kind of data to the arguments of `pretrain`."""

    def arguments(kind):
        if kind == "array":
            return ARRAY
        if kind == "Dataset":
            x, valid = (tf.data.Dataset.from_tensor_slices(a).batch(5) for a in (X, VALID))
            return {"x": x, "validation_data": valid}
        folder = tempfile.mkdtemp(dir=tmp_path)
        x, valid = (dbn.shards.write(f"{folder}/{len(a)}", a, 8) for a in (X, VALID))
        return {"x": x, "validation_data": valid, "batch_size": 5}

    return arguments


def pretrain(stack=None, epochs=(2, 2, 0), **kwargs):
    """Returns the weights and the histories of a pretraining."""
    stack = stack or ready()
    histories = stack.pretrain(**{"epochs": epochs, "verbose": 0, **kwargs})
    found = [np.array(w) for rbm in stack.rbms for w in rbm.layer.get_weights()]
    return found, [history and history.history for history in histories]


def read(folder):
    return np.concatenate([np.load(path) for path in Shards(folder).files])


@functools.cache
def _from_array(shuffle):
    """What two layers learn from an array, with the activations in memory."""
    return pretrain(**ARRAY, shuffle=shuffle)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_above_learns_the_same_wherever_activations_are(kind, given, tmp_path):
    """Shards that fit the buffer are visited as an array is; a Dataset has its own order."""
    shuffle = kind != "Dataset"
    expected, history = _from_array(shuffle)
    for cache in [tmp_path / "new" / "cache"] + [None] * (kind != "array"):
        weights, again = pretrain(**given(kind), shuffle=shuffle, cache=cache)
        for found, a in zip(weights, expected, strict=True):
            np.testing.assert_allclose(found, a, atol=2e-6)
        if kind != "Dataset":  # Whose validation batches are smaller.
            for layer in range(2):
                for name, values in history[layer].items():
                    np.testing.assert_allclose(again[layer][name], values, rtol=1e-4)
        if cache:
            assert sorted(path.name for path in cache.iterdir()) == ["layer_1", "validation_1"]
            layer = _made()[0].rbms[0].layer
            W, hbias = (np.array(part, "float64") for part in (layer.W, layer.hbias))
            for name, x in (("layer_1", X), ("validation_1", VALID)):
                kept = read(cache / name)
                assert kept.dtype == np.float32
                np.testing.assert_allclose(kept, 1 / (1 + np.exp(-x @ W - hbias)), atol=1e-6)


def test_it_is_used_again_where_data_and_weights_are_the_same(tmp_path, monkeypatch):
    cache, written, real = tmp_path / "cache", [], shard_files.write

    def write(folder, *arguments, **kwargs):
        written.append(folder.name)
        return real(folder, *arguments, **kwargs)

    monkeypatch.setattr(shard_files, "write", write)
    names = ["layer_1", "validation_1", "layer_2", "validation_2"]
    arguments = {**ARRAY, "epochs": 1, "cache": cache}
    expected, history = pretrain(**arguments)
    assert written == names
    again, found = pretrain(**arguments)
    assert written == names
    for a, b in zip(again, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found == history
    for other, replaced in (
        ({"validation_data": VALID[:8]}, ["validation_1", "validation_2"]),
        ({"validation_data": VALID[:8], "epochs": [1, 2, 1]}, ["layer_2", "validation_2"]),
        ({"x": X[:21]}, names),
    ):
        written.clear()
        pretrain(**{**arguments, **other})
        assert written == replaced
    assert len(read(cache / "layer_2")) == 21


def test_a_dataset_that_differs_after_its_first_batch_is_another(tmp_path):
    def used(x, valid=VALID):
        x, valid = (tf.data.Dataset.from_tensor_slices(a).batch(5) for a in (x, valid))
        pretrain(x=x, validation_data=valid, epochs=[0, 1, 0], cache=tmp_path)
        return len(read(tmp_path / "layer_1")), read(tmp_path / "validation_1")[-1]

    count, last = used(X[:10])
    assert count == 10
    count, same = used(X)
    assert count == 22 and np.array_equal(same, last)
    count, other = used(X, np.concatenate([VALID[:8], 1 - VALID[8:]]))
    assert count == 22 and not np.allclose(other, last)


def test_a_cache_that_has_lost_a_shard_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "_SHARD", 5 * 4 * 8)  # 8 cases of 5 units.
    arguments = {**ARRAY, "epochs": [0, 1, 0], "cache": tmp_path}
    expected, _ = pretrain(**arguments)
    assert len(Shards(tmp_path / "layer_1").files) > 1
    Shards(tmp_path / "layer_1").files[-1].unlink()
    again, _ = pretrain(**arguments)
    assert len(read(tmp_path / "layer_1")) == 22
    for a, b in zip(again, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_activations_have_one_precision_wherever_they_are():
    rbm = dbn.RBM(dbn.RBMLayer(5, dtype="mixed_bfloat16"))
    rbm.build((None, 6))
    rbm.layer.W.assign(np.random.default_rng(1).normal(size=(6, 5)))
    array = dbn.activations.activations(rbm, tf.constant(X))
    stream = dbn.activations.activations(rbm, tf.data.Dataset.from_tensors(X))
    (batch,) = stream
    np.testing.assert_array_equal(np.float32(batch), np.float32(array))


def test_somebody_elses_folder_is_refused_before_any_training_and_left(tmp_path):
    stack, before = ready(), [np.array(v.value) for v in variables(ready())]
    for name, make in {
        "layer_1": lambda path: dbn.shards.write(path, X),
        "layer_2": lambda path: path.mkdir(),
        "validation_1": lambda path: path.write_text("a file"),
        "validation_2": lambda path: path.mkdir() or (path / "origin.json").write_text('{"a": 1}'),
    }.items():
        cache = tmp_path / f"cache {name}"
        cache.mkdir()
        (cache / "mine.txt").write_text("mine")
        make(cache / name)
        with pytest.raises(ValueError, match=f"`cache`: .*{name} is there already, and was not w"):
            pretrain(stack, **ARRAY, epochs=1, cache=cache)
        assert sorted(path.name for path in cache.iterdir()) == sorted([name, "mine.txt"])
    for variable, value in zip(variables(stack), before, strict=True):
        np.testing.assert_array_equal(variable.value, value)


def test_a_folder_that_cannot_be_written_is_told_before_any_training(tmp_path, monkeypatch):
    stack, before = ready(), [np.array(v.value) for v in variables(ready())]
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OSError, match="file"):
        pretrain(stack, **ARRAY, epochs=1, cache=tmp_path / "file" / "cache")

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError, match="Read-only file system"):
        pretrain(stack, **ARRAY, epochs=1, cache=tmp_path / "cache")
    for variable, value in zip(variables(stack), before, strict=True):
        np.testing.assert_array_equal(variable.value, value)


def test_a_dataset_that_is_another_each_time_is_refused(tmp_path):
    x = tf.data.Dataset.from_tensor_slices(X).shuffle(22).batch(5)
    with pytest.raises(ValueError, match="a cache needs a Dataset that gives the same batches"):
        pretrain(x=x, cache=tmp_path)


def test_the_origin_is_a_text_of_digests(tmp_path):
    pretrain(**ARRAY, epochs=[0, 1, 0], cache=tmp_path)
    origin = json.loads((tmp_path / "layer_1" / "origin.json").read_text())
    assert origin["data"] == dbn.sources.of(X, ready().rbms[0].layer.visible).digest()
    assert set(origin) == {"kind", "data", "weights"} and len(origin["weights"]) == 64
