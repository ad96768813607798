"""Shards: what is read, in which order and with how much memory, and trainings from them."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import noise, shards
from dbn.noise import Stream
from dbn.shards import Shards

pytestmark = pytest.mark.usefixtures("without_xla")

X = np.random.default_rng(0).random((22, 6), dtype=np.float32)
SEED = 5


def collected(data, size=4, **kwargs):
    return np.concatenate([np.array(v) for v in data.batches(size, **kwargs)])


def numbers(count):
    """Cases that are their own number."""
    return np.arange(count, dtype="int32")[:, None]


def order(data, epoch=0, size=4):
    return collected(data, size, seed=SEED, epoch=epoch)[:, 0].astype(int)


@functools.cache
def _made():
    keras.utils.set_random_seed(3)
    rbm = dbn.RBM(dbn.RBMLayer(4), seed=7)
    rbm.build((None, 6))
    both = ["pseudo_log_likelihood", "free_energy_gap"]
    rbm.compile(keras.optimizers.SGD(0.1), both, jit_compile=False, steps_per_execution=3)
    rbm.optimizer.build(rbm.trainable_variables)
    return rbm, state(rbm)


def ready():
    """An RBM as it was made, compiled once."""
    rbm, start = _made()
    for variable, value in zip([*rbm.variables, *rbm.optimizer.variables], start, strict=True):
        variable.assign(value)
    return rbm


def state(rbm):
    return [np.array(v.value) for v in [*rbm.variables, *rbm.optimizer.variables]]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


# Order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [1, 50, 24 * 9, 2**26])
@pytest.mark.parametrize("size", [1, 5, 22, 30])
def test_batches_are_the_cases_as_float32_the_last_one_shorter(buffer, size, tmp_path):
    shards.write(tmp_path / "data", X.astype("float64"), rows_per_shard=8)
    data = Shards(tmp_path / "data", buffer)
    dataset = data.batches(size, shuffle=False)
    assert dataset.element_spec == tf.TensorSpec((None, 6), tf.float32)
    found = list(dataset)
    assert len(dataset) == len(found) == -(-22 // size)
    assert {len(v) for v in found[:-1]} <= {size}
    np.testing.assert_array_equal(np.concatenate(found), X)
    np.testing.assert_array_equal(data.first(9), X[:9])
    assert dataset.options().autotune.enabled is False


def test_data_that_fit_the_buffer_are_visited_as_an_array_is(tmp_path):
    shards.write(tmp_path / "data", numbers(100), rows_per_shard=30)
    data, epoch = Shards(tmp_path / "data", buffer=400), tf.Variable(0, dtype=tf.int64)
    dataset = data.batches(7, seed=SEED, epoch=epoch)
    for number in (0, 3):
        epoch.assign(number)  # Read when an iteration begins.
        found = np.concatenate(list(dataset))[:, 0]
        np.testing.assert_array_equal(found, noise.permutation(100, SEED, number))


@pytest.mark.parametrize(("epoch", "size"), [(0, 7), (3, 500)])
def test_larger_data_are_visited_as_the_docstring_says(epoch, size, tmp_path):
    """The order once more: blocks in a random order, so many to a pool, shuffled case by case."""
    shards.write(tmp_path / "data", numbers(3000), rows_per_shard=1001)
    data = Shards(tmp_path / "data", buffer=4 * 1024)  # Blocks of 4 cases; pools of 1,024.
    blocks = [np.arange(at, min(at + 4, end)) for start, end in [(0, 1001), (1001, 2002),
              (2002, 3000)] for at in range(start, end, 4)]  # fmt: skip
    expected, pool, ended = [], [], 0
    for block in np.array(noise.permutation(len(blocks), SEED, epoch, Stream.BLOCKS)):
        # A pool has the blocks that end in its 1,024 cases.
        if (ended + len(blocks[block]) - 1) // 1024 > len(expected):
            expected.append(np.concatenate(pool))
            pool = []
        ended += len(blocks[block])
        pool.append(blocks[block])
    expected.append(np.concatenate(pool))
    for number, cases in enumerate(expected):
        step = epoch * 2**28 + number
        expected[number] = cases[noise.permutation(len(cases), SEED, step, Stream.POOL)]
    assert len(expected) == 3
    found = order(data, epoch, size)
    np.testing.assert_array_equal(found, np.concatenate(expected))
    np.testing.assert_array_equal(np.sort(found), np.arange(3000))
    np.testing.assert_array_equal(found, order(data, epoch, size))
    assert (found != order(data, epoch + 1, size)).mean() > 0.99
    assert (found != collected(data, size, seed=6, epoch=epoch)[:, 0]).mean() > 0.99


def test_sorted_files_do_no_harm(tmp_path):
    """Of two classes, one after the other, a pool has as many of each as random blocks have."""
    cases = (np.arange(20480) >= 10240).astype("uint8")[:, None]
    shards.write(tmp_path / "data", cases, rows_per_shard=5000)
    data = Shards(tmp_path / "data", buffer=5120)  # 4 pools of 256 blocks of 20 cases.
    shares = [order(data, epoch)[:5120].mean() for epoch in range(10)]
    # 256 of 1,024 blocks without putting back; the mean of 10 independent pools.
    error = np.sqrt(0.25 / 256 * (1 - 256 / 1024) / 10)
    assert abs(np.mean(shares) - 0.5) < 4 * error
    assert 0.2 * error < np.std(shares) / np.sqrt(10) < 3 * error
    # Within a pool, any order: in runs of 20 the variance is that of independent draws.
    runs = order(data)[:5120].reshape(256, 20).mean(1)
    assert runs.var() == pytest.approx(0.25 / 20, rel=4 * np.sqrt(2 / 256))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_pool_is_no_larger_than_the_buffer_and_a_block(shuffle, tmp_path, monkeypatch):
    """Whatever the sizes of the files."""
    cases = numbers(2500)
    shards.write(tmp_path / "small", cases[:500], rows_per_shard=1)
    shards.write(tmp_path / "large", cases[500:])
    files = [*Shards(tmp_path / "small").files, *Shards(tmp_path / "large").files]
    read, real = [], Shards._read_blocks

    def spy(self, *arguments):
        read.append(real(self, *arguments))
        return read[-1]

    monkeypatch.setattr(Shards, "_read_blocks", spy)
    data = Shards(files, buffer=4 * 512)
    assert len(collected(data, 100, shuffle=shuffle)) == 2500
    assert not shuffle or len(read) in (5, 6)
    assert max(len(pool) for pool in read) <= (512 + 2 - 1 if shuffle else 2)
    assert sum(len(pool) for pool in read) == 2500


def test_map(tmp_path):
    pixels = (255 * X).astype("uint8")
    data = shards.write(tmp_path / "data", pixels, 9)
    halves = data.map(lambda v: v / 255).map(lambda v: v[:, :3])
    assert (data.width, halves.width, len(halves), halves.dtype) == (6, 3, 22, np.dtype("uint8"))
    np.testing.assert_allclose(collected(halves, shuffle=False), pixels[:, :3] / 255, rtol=1e-6)
    np.testing.assert_array_equal(collected(data, shuffle=False), pixels)
    bits = collected(data.map(lambda v: v > 127), shuffle=False)
    np.testing.assert_array_equal(bits, pixels > 127)
    assert bits.dtype == np.float32
    for function in (lambda v: v[:, 0], lambda v: (v, v), lambda v: tf.boolean_mask(v, v[0], 1)):
        with pytest.raises(ValueError, match=r"`function` must give a tensor of shape \(cases, w"):
            data.map(function)


def test_digest_knows_data_from_others(tmp_path):
    def digest(x=X, rows=8, buffer=2**26, name="data", change=None, function=None):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / name
        shards.write(folder, x, rows)
        if change is not None:
            path = folder / "shard_000001.npy"
            array = np.load(path)
            array[change] += 1
            np.save(path, array)
        data = Shards(folder, buffer)
        return data.digest() if function is None else data.map(function).digest()

    first = digest()
    assert first[0].startswith("(22, 6) float32, buffer 67108864, sum ")
    assert digest(name="moved") == first
    others = [
        digest(change=(0, 0)),
        digest(change=(3, 4)),
        digest(change=(-1, -1)),
        digest(rows=9),
        digest(buffer=100),
        digest(x=X.astype("float64")),
        digest(x=X[:, :5]),
        digest(x=X[::-1]),
        digest(function=lambda v: v / 2),
        digest(function=lambda v: v / 3),
    ]
    assert first not in others
    assert len({tuple(other) for other in others}) == len(others)


def test_buffer_and_batch_size_are_at_least_1(tmp_path):
    data = shards.write(tmp_path / "data", X)
    with pytest.raises(ValueError, match="`buffer` must be an integer >= 1; got 0"):
        Shards(tmp_path / "data", buffer=0)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1; got 0"):
        data.batches(0)


# Training -------------------------------------------------------------------------------------


def test_fit_from_shards_is_fit_from_the_array(tmp_path):
    data = shards.write(tmp_path / "data", X, 8)
    rbm = ready()
    history = rbm.fit(X, batch_size=5, epochs=2, validation_data=X[:7], verbose=0).history
    expected = state(rbm)
    held_out = shards.write(tmp_path / "held_out", X[:7], 4)
    again = ready()
    found = again.fit(data, batch_size=5, epochs=2, validation_data=held_out, verbose=0).history
    assert_same(state(again), expected)
    assert found == history
    # In two calls as in one.
    again = ready()
    for _ in range(2):
        twice = again.fit(data, batch_size=5, validation_data=held_out, verbose=0).history
    assert_same(state(again), expected)
    assert twice["free_energy_gap"] == history["free_energy_gap"][1:]
    figures = again.evaluate(data, verbose=0, return_dict=True)
    assert figures == again.evaluate(X, verbose=0, return_dict=True)


def test_whole_numbers_are_taken_where_the_units_can_have_them(tmp_path):
    bits = (X > 0.5).astype("uint8")
    rbm = ready()
    rbm.fit(bits, batch_size=5, validation_data=bits, verbose=0)
    expected = state(rbm)
    data = shards.write(tmp_path / "bits", bits)
    ready().fit(data, batch_size=5, validation_data=data, verbose=0)
    assert_same(state(rbm), expected)
    pixels = shards.write(tmp_path / "pixels", 255 * bits)
    with pytest.raises(ValueError, match=r"`the first cases of x` must lie in \[0, 1\].*255"):
        rbm.fit(pixels)
    with pytest.raises(ValueError, match="`the first cases of validation_data` must lie in"):
        rbm.fit(X, validation_data=pixels)
    with pytest.raises(ValueError, match="`the first cases of x` must have width 6; got"):
        rbm.fit(data.map(lambda v: v[:, 1:]))
    with pytest.raises(ValueError, match="`validation_split` is for arrays"):
        rbm.fit(data, validation_split=0.5)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1; got 0"):
        rbm.fit(data, batch_size=0)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be at most 1, .*; got 2"):
        rbm.fit(data, steps_per_epoch=2)
    assert_same(state(rbm), expected)


def test_steps_per_epoch_are_the_first_of_each_order(tmp_path):
    data = shards.write(tmp_path / "data", X, 8)
    arguments = {"batch_size": 5, "steps_per_epoch": 3, "validation_data": X, "verbose": 0}
    rbm = ready()
    rbm.fit(X, epochs=2, **arguments)
    expected = state(rbm)
    ready().fit(data, epochs=2, **arguments)
    assert_same(state(rbm), expected)


@pytest.mark.parametrize("bad", [np.nan, 2.0])
def test_a_bad_case_is_found_when_it_is_read(bad, tmp_path):
    x = np.tile(X, (30, 1))
    x[-1, 2] = bad  # Beyond the cases that are looked at first.
    data = shards.write(tmp_path / "data", x)
    rbm = ready()
    with pytest.raises(ValueError, match="A batch of x, at one of .*NaN.*has been restored"):
        rbm.fit(data, batch_size=100, shuffle=False, validation_data=X, verbose=0)
    made = int(rbm.updates)
    assert made == 6  # Executions of 3 updates.
    expected = [np.array(weight) for weight in rbm.layer.weights]
    ready().fit(x[: made * 100], batch_size=100, shuffle=False, validation_data=X, verbose=0)
    assert_same(expected, rbm.layer.weights)
    with pytest.raises(ValueError, match="A batch of the validation data .*NaN"):
        rbm.evaluate(data, verbose=0)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [cut, Path.unlink], ids=["cut", "unlink"])
def test_a_file_that_is_lost_meanwhile_ends_fit_in_the_last_good_state(spoil, tmp_path):
    shards.write(tmp_path / "data", np.tile(X, (300, 1)), 300)
    data = Shards(tmp_path / "data", buffer=24 * 2560)
    spoil(data.files[20])  # Cases 6,000 to 6,299, beyond those that the gap is computed of.
    rbm = ready()
    lost = f"{data.files[20]} (has been cut off|cannot be read any more: No such file)"
    with pytest.raises(ValueError, match=f"updates 12 to 14, could not be read: {lost}"):
        rbm.fit(data, batch_size=500, shuffle=False, validation_data=X, verbose=0)
    assert int(rbm.updates) == 12
    assert all(np.isfinite(value).all() for value in state(rbm))
    with pytest.raises(ValueError, match=f"^{lost}"):
        data.first(7000)
