"""Sources: the same questions to an array, a Dataset and shards."""

import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import noise, sources
from dbn.layers import Bernoulli

pytestmark = pytest.mark.usefixtures("without_xla")

X = np.random.default_rng(0).random((22, 6), dtype=np.float32)
UNITS = Bernoulli()


def array(_, x=X):
    return x


def dataset(_, x=X):
    return tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(5)


def shards(folder, x=X):
    return dbn.shards.write(folder / str(len(list(folder.iterdir()))), x, 8)


def listed(data):
    return [np.array(part).tolist() for part in data]


@pytest.mark.parametrize("kind", [array, dataset, shards])
def test_all_answer_alike(kind, tmp_path):
    x, epoch = kind(tmp_path), tf.Variable(3, dtype=tf.int64)
    source = sources.of(x, UNITS)
    assert source.width == 6
    np.testing.assert_array_equal(source.first(9), X[:9])
    np.testing.assert_array_equal(source.seen, X[: len(source.seen)])
    assert source.seen_name == {
        array: "x", dataset: "the first batch of x", shards: "the first cases of x"
    }[kind]  # fmt: skip
    given = None if kind is dataset else 5
    assert listed(source.test(given, "size")) == [X[at : at + 5].tolist() for at in range(0, 22, 5)]
    order = np.arange(22) if kind is dataset else noise.permutation(22, 7, 3).numpy()
    train, steps = source.train(given, True, 7, epoch, None)
    cases = [np.array(part) for part in train]
    if kind is array:
        assert source.array.shape == (22, 6)
        cases = [X[rows] for rows in cases]
    else:
        assert source.array.shape == (0, 6)
    assert steps is None and [len(part) for part in cases] == [5, 5, 5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(cases), X[order])
    train, steps = source.train(given, False, 7, epoch, 2)
    # A Dataset goes on where it was, so its steps are counted.
    assert (steps, len(list(train.take(6)))) == ((2, 6) if kind is dataset else (None, 2))
    assert source.digest() == sources.of(kind(tmp_path), UNITS).digest()
    assert source.digest() != sources.of(kind(tmp_path, X[::-1].copy()), UNITS).digest()
    again = sources.of(source.data, UNITS, 6)
    np.testing.assert_array_equal(again.first(22), X)


@pytest.mark.parametrize("kind", [array, dataset, shards])
def test_all_are_looked_at(kind, tmp_path):
    for x, message in ((X + 1, r"v` must lie in \[0, 1\]"), (X[:, :5], "v` must have width 6")):
        with pytest.raises(ValueError, match=message):
            sources.of(kind(tmp_path, x), UNITS, 6, "v")


def test_an_array_alone_can_be_split(tmp_path):
    source = sources.of(X, UNITS)
    np.testing.assert_array_equal(source.hold_out(0.25), X[16:])
    np.testing.assert_array_equal(source.first(22), X[:16])
    assert source.data is source.array and len(source.array) == 16
    for kind in (dataset, shards):
        with pytest.raises(ValueError, match="`validation_split` is for arrays"):
            sources.of(kind(tmp_path), UNITS).hold_out(0.25)
