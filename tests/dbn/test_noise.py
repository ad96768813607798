import itertools

import numpy as np
import pytest
import tensorflow as tf

from dbn import noise
from dbn.noise import Stream

LOWEST, HIGHEST = 2.0**-24, 1 - 2.0**-24


def draw(count=100_000, seed=1, **kwargs):
    return np.array(noise.uniforms((count,), seed, **kwargs), "float64")


@pytest.mark.parametrize("shape", [(7,), (20, 1284), (3, 5, 11), ()])
def test_same_bits_with_and_without_xla(shape):
    """Under XLA, in a graph and eagerly; with numbers and with tensors as seed and step."""

    def function(seed, step):
        return noise.uniforms(shape, seed, step, Stream.SAMPLE)

    eager = function(3, 5)
    assert eager.shape == shape and eager.dtype == tf.float32
    for jit_compile, integer in itertools.product((False, True), (tf.int32, tf.int64)):
        compiled = tf.function(function, jit_compile=jit_compile)
        assert np.array_equal(compiled(tf.constant(3, integer), tf.constant(5, integer)), eager)


def test_rows_are_the_beginnings_of_rows_of_whole_blocks():
    rows, whole = noise.uniforms((3, 5, 11), 1), noise.uniforms((3, 5, 12), 1)
    assert np.array_equal(rows, whole[..., :11])


@pytest.mark.parametrize(
    ("bits", "u"),
    [
        (0, LOWEST),
        (0x1FF, LOWEST),
        (0x200, 3 * LOWEST),
        (0x7FFFFFFF, 0.5 - LOWEST),
        (0x80000000, 0.5 + LOWEST),
        (0xFFFFFFFF, HIGHEST),
    ],
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_extremes_lie_inside(bits, u, jit_compile, monkeypatch):
    def fixed_bits(shape, seed, **kwargs):
        return tf.fill(shape, tf.constant(bits, tf.uint32))

    monkeypatch.setattr(tf.random, "stateless_uniform", fixed_bits)
    function = tf.function(lambda: noise.uniforms((4,), 0), jit_compile=jit_compile)
    assert np.array_equal(np.array(function(), "float64"), np.full(4, u))
    assert 0 < u < 1 and float(np.float32(u)) == u


def test_each_seed_stream_and_step_has_its_own_numbers():
    drawn = [
        draw(1000, seed=seed, step=step, stream=stream)
        for seed in (0, 1, 2**32, 2**40 + 1)
        for step in (0, 1, 2**32, 2**48 - 1)
        for stream in Stream
    ]
    # Some 46,000 pairs of draws of 1,000 numbers with 2**23 values: 5 coincidences are expected.
    equal = [np.sum(one == other) for one, other in itertools.combinations(drawn, 2)]
    expected = len(equal) * 1000 / 2**23
    assert np.sum(equal) <= expected + 4.5 * np.sqrt(expected)
    # Steps and streams that differ in any one bit.
    steps = [0, *(2**bit for bit in range(48))]
    firsts = {tuple(draw(4, step=step, stream=stream)) for step in steps for stream in Stream}
    assert len(firsts) == len(steps) * len(Stream)


def test_moments(assert_mean):
    u = draw()
    assert u.min() >= LOWEST and u.max() <= HIGHEST
    for power in (1, 2, 3, 4):
        assert_mean(u**power, 1 / (power + 1))
    # Each bit of the 23 is a fair coin.
    integers = (u * 2**23).astype(int)
    assert np.array_equal((integers + 0.5) / 2**23, u)
    assert_mean((integers[:, None] >> np.arange(23)) & 1, 0.5)


def test_evenly_spread():
    counts = np.bincount((draw(200_000) * 100).astype(int), minlength=100)
    chi_square = np.sum((counts - 2000) ** 2 / 2000)
    assert abs(chi_square - 99) < 4 * np.sqrt(2 * 99)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 500])
def test_neighbours_are_uncorrelated(lag, assert_mean):
    x = np.sqrt(12) * (draw() - 0.5)
    assert_mean(x[lag:] * x[:-lag], 0)


@pytest.mark.parametrize(
    "other",
    [{"step": 1}, {"seed": 2}, {"stream": Stream.TEST}, {"seed": 1 + 2**32}, {"step": 2**32}],
    ids=str,
)
def test_draws_are_uncorrelated(other, assert_mean):
    x, y = (np.sqrt(12) * (u - 0.5) for u in (draw(), draw(**other)))
    assert_mean(x * y, 0)


def test_steps_of_one_unit_are_uncorrelated(assert_mean):
    """The numbers that one unit sees over the updates: first of each draw."""

    def first(step):
        return noise.uniforms((5,), 1, step)[0]

    draws = tf.function(lambda: tf.map_fn(first, tf.range(10_000), tf.float32))
    u = np.array(draws(), "float64")
    x = np.sqrt(12) * (u - 0.5)
    assert_mean(x, 0)
    assert_mean(x**2, 1)
    for lag in (1, 2, 3):
        assert_mean(x[lag:] * x[:-lag], 0)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_permutation_is_one(count):
    order = noise.permutation(count, seed=3)
    assert order.dtype == tf.int64
    assert np.array_equal(np.sort(order), np.arange(count))


def test_permutation_depends_on_seed_and_epoch_alone():
    count = 1000
    first = noise.permutation(count, seed=3, step=4)
    in_graph = tf.function(lambda step: noise.permutation(count, 3, step))
    assert np.array_equal(in_graph(tf.constant(4, tf.int64)), first)
    for other in ({"seed": 4}, {"step": 5}, {"stream": Stream.TEST}):
        # The number of fixed points of a random permutation has mean and variance 1.
        again = noise.permutation(count, **{"seed": 3, "step": 4, **other})
        assert np.sum(again == first) <= 6


def test_permutation_places_everything_everywhere(assert_mean):
    count, epochs = 8, 3000
    draws = tf.function(
        lambda: tf.map_fn(lambda i: noise.permutation(count, 5, i), tf.range(epochs), tf.int64)
    )
    orders = np.array(draws())
    assert_mean(orders[:, :, None] == np.arange(count), 1 / count)
    # Pairs in line: each of the 56 ordered pairs as often.
    pairs = orders[:, :-1] * count + orders[:, 1:]
    counts = np.bincount(pairs.ravel(), minlength=64).reshape(count, count)
    expected = epochs / count
    assert np.all(np.diag(counts) == 0)
    off_diagonal = counts[~np.eye(count, dtype=bool)]
    assert np.all(np.abs(off_diagonal - expected) < 4 * np.sqrt(expected))


def test_permutation_has_no_memory_of_the_old_order():
    """Ranks at lags 1 to 3, where `index_shuffle` has correlations up to 0.18."""
    order = np.array(noise.permutation(50_000, seed=6), "float64")
    x = (order - order.mean()) / order.std()
    for lag in (1, 2, 3):
        assert abs(np.mean(x[lag:] * x[:-lag])) < 4 / np.sqrt(len(x))
    assert abs(np.mean(x * np.linspace(-1, 1, len(x)) * np.sqrt(3))) < 4 / np.sqrt(len(x))
