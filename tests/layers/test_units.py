import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from dbn import noise
from dbn.layers import (
    Bernoulli,
    Binomial,
    Categorical,
    Gaussian,
    Mixed,
    NoisyReLU,
    ScaledGaussian,
    Spin,
    units,
)

LOWEST, HIGHEST = 2.0**-24, 1 - 2.0**-24


def sample(a, u):
    """The sample of one unit with pre-activation a for the uniform number u."""
    return float(Bernoulli().sample(tf.constant([[a]]), tf.constant([[u]]))[0, 0])


def test_mean(reference):
    a = np.linspace(-30, 30, 121)
    assert np.allclose(Bernoulli().mean(tf.constant(a)), reference.sigmoid(a), rtol=1e-12)
    assert np.allclose(Bernoulli().mean(tf.constant(a, tf.float32)), reference.sigmoid(a), 1e-5)


@pytest.mark.parametrize(
    ("a", "u", "expected"),
    [
        # p = 1/2 and 1/4: on below p, off from p on, as the inverse CDF of 1 - x has it.
        (0.0, 0.4999999, 1),
        (0.0, 0.5, 0),
        (0.0, 0.5000001, 0),
        (-np.log(3.0), 0.2499, 1),
        (-np.log(3.0), 0.2501, 0),
        # Probabilities inside (0, 1) are reached from both ends ...
        (-16.0, LOWEST, 1),
        (-17.0, LOWEST, 0),
        (16.0, HIGHEST, 0),
        # ... and those that round to 0 or 1 never miss.
        (-1e4, LOWEST, 0),
        (-1e4, HIGHEST, 0),
        (1e4, LOWEST, 1),
        (1e4, HIGHEST, 1),
        (float("-inf"), LOWEST, 0),
        (float("inf"), HIGHEST, 1),
    ],
)
def test_sample_by_inverse_cdf(a, u, expected):
    assert sample(a, u) == expected


def test_sampled_frequencies(assert_mean, reference):
    a = np.array([-6.0, -2, -0.5, 0, 0.3, 1, 4], "float32")
    samples = Bernoulli().sample(tf.tile(a[None], (40000, 1)), noise.uniforms((40000, 7), seed=1))
    assert set(np.unique(samples)) == {0, 1}
    assert_mean(samples, reference.sigmoid(a.astype("float64")))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_samples_of_narrow_floats_have_their_exact_probability(dtype):
    # p = 0.99748; its neighbours in bfloat16 are 0.9961 and 1.
    cases = 200_000
    a = tf.fill((cases, 1), tf.cast(5.96875, dtype))  # A number that bfloat16 holds exactly.
    samples = Bernoulli().sample(a, noise.uniforms((cases, 1), seed=2))
    p = 1 / (1 + np.exp(-5.96875))
    assert samples.dtype == dtype
    frequency = np.mean(tf.cast(samples, tf.float64))
    assert abs(frequency - p) < 4 * np.sqrt(p * (1 - p) / cases)


def test_cumulant(reference):
    a = 5 * np.random.default_rng(0).normal(size=(20, 7))
    # log sum over x in {0, 1} of exp(x a), unit by unit.
    expected = reference.logsumexp(np.stack([np.zeros_like(a), a]), 0).sum(-1)
    assert np.allclose(Bernoulli().cumulant(tf.constant(a)), expected, rtol=1e-12)
    assert np.allclose(Bernoulli().cumulant(tf.constant(a, tf.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("a", "value", "slope"), [(1e4, 1e4, 1), (-1e4, 0, 0), (0, np.log(2), 0.5), (100, 100, 1)]
)
def test_cumulant_is_stable_and_its_gradient_is_the_mean(a, value, slope):
    a = tf.constant([[a]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(a)
        cumulant = Bernoulli().cumulant(a)
    assert np.allclose(cumulant, value, rtol=1e-6)
    assert np.allclose(tape.gradient(cumulant, a), slope, rtol=1e-6)


def test_log_prob():
    random = np.random.default_rng(1)
    a, x = 3 * random.normal(size=(20, 5)), random.random((20, 5))
    x[:10] = np.round(x[:10])
    p = 1 / (1 + np.exp(-a))
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        ours = Bernoulli().log_prob(tf.constant(x, dtype), tf.constant(a, dtype))
        assert np.allclose(ours, expected, rtol=tolerance)
    # Where log(1 - p) itself is -infinity.
    one = tf.ones((1, 1))
    assert float(Bernoulli().log_prob(1 - one, 1e4 * one)[0]) == -1e4


def test_energy_holds_no_term_of_its_own():
    assert np.array_equal(Bernoulli().energy(tf.ones((3, 2))), np.zeros(3))


def test_bias_from_mean(reference):
    mean = np.array([0.0, 0.0005, 0.25, 0.5, 0.9, 1.0])
    bias = Bernoulli().bias_from_mean(tf.constant(mean))
    assert np.allclose(reference.sigmoid(bias.numpy()), np.clip(mean, 0.001, 0.999), rtol=1e-12)


def test_uniforms_and_range():
    for kind in (Bernoulli(), Binomial(4), Gaussian(), NoisyReLU(), ScaledGaussian(), Spin()):
        assert kind.uniforms(7) == 7
    assert (Bernoulli.low, Bernoulli.high, Bernoulli.activation) == (0, 1, "sigmoid")
    assert (Spin.low, Spin.high, Spin.activation) == (-1, 1, "tanh")
    assert (Gaussian.low, Gaussian.high, Gaussian.activation) == (-np.inf, np.inf, "linear")
    assert (NoisyReLU.low, NoisyReLU.high, NoisyReLU.activation) == (0, np.inf, "relu")
    assert (Binomial(4).low, Binomial(4).high) == (0, 4)


# Every type of single units -----------------------------------------------------------------------


def scaled(variance=0.4, floor=0.1):
    kind = ScaledGaussian(floor)
    kind.build(keras.layers.Layer(), 1)
    kind.log_variance.assign([math.log(variance - floor)])
    return kind


# A type, its values, and the weight of each in a sum or an integral over them.
SINGLE = {
    "bernoulli": (Bernoulli, np.array([0.0, 1.0]), 1.0),
    "binomial": (lambda: Binomial(4), np.arange(5.0), 1.0),
    "spin": (Spin, np.array([-1.0, 1.0]), 1.0),
    "gaussian": (Gaussian, np.linspace(-20, 20, 4001), 0.01),
    "scaled": (scaled, np.linspace(-20, 20, 4001), 0.01),
}


@pytest.fixture(params=SINGLE)
def single(request):
    make, *support = SINGLE[request.param]
    return make(), *support


def test_density_from_its_energy(single, reference):
    """Mean, cumulant and log-density by summing exp(x a - energy(x)) over x."""
    kind, x, weight = single
    a = np.linspace(-6, 6, 25)
    energy = kind.energy(tf.constant(x[:, None])).numpy()
    log_f = a[:, None] * x - energy + np.log(weight)
    cumulant = reference.logsumexp(log_f, 1)
    p = np.exp(log_f - cumulant[:, None])
    # A learnt variance is a float32 variable.
    exact = 1e-6 if isinstance(kind, ScaledGaussian) else 1e-10
    for dtype, tolerance in (("float64", exact), ("float32", 1e-5)):
        column = tf.constant(a[:, None], dtype)
        assert np.allclose(kind.cumulant(column), cumulant, rtol=tolerance, atol=tolerance)
        assert np.allclose(kind.mean(column)[:, 0], p @ x, rtol=tolerance, atol=tolerance)
        for i in (0, len(x) // 3, len(x) - 1):
            found = kind.log_prob(tf.fill(column.shape, tf.constant(x[i], dtype)), column)
            expected = np.log(p[:, i] / weight, where=p[:, i] > 0, out=np.full(len(p), np.nan))
            close = np.isclose(found, expected, rtol=10 * tolerance, atol=10 * tolerance)
            assert np.all(close | ~np.isfinite(expected))


def test_samples_have_the_moments_of_the_density(single, assert_mean):
    kind, x, _ = single
    a = np.array([-3.0, -0.7, 0, 0.4, 2], "float32")
    draws = kind.sample(tf.tile(a[None], (40000, 1)), noise.uniforms((40000, 5), seed=4))
    draws = np.array(draws, "float64")
    p = np.exp(a[:, None] * x - kind.energy(tf.constant(x[:, None])).numpy())
    p /= p.sum(1, keepdims=True)
    for power in (1, 2, 3, 4):
        assert_mean(draws**power, p @ x**power)


@pytest.mark.parametrize("trials", [1, 10, 100, 255])
def test_binomial_counts_are_the_inverse_of_the_distribution(trials):
    """At both ends, too, where sums of probabilities are rounded to what is below 1."""
    u = np.array([LOWEST, 2.0**-23, 1e-4, 0.3, 0.5, 0.7, 1 - 1e-4, 1 - 2.0**-23, HIGHEST])
    a = np.linspace(-12, 12, 25)[:, None]
    log_p = [
        math.log(math.comb(trials, x)) + x * a - trials * np.logaddexp(0, a)
        for x in range(trials + 1)
    ]
    upto = np.cumsum(np.exp(log_p), axis=0)[:-1]

    def inverse(u):
        return np.sum(upto <= u, axis=0)

    tiled = np.broadcast_to(u, (25, len(u))).astype("float32")
    found = Binomial(trials).sample(tf.constant(np.tile(a, len(u)), tf.float32), tf.constant(tiled))
    # Where the distribution function is within rounding of u, either count is right.
    rounding = 1e-3 * np.minimum(u, 1 - u)
    low, high = inverse(u - rounding), inverse(u + rounding)
    assert np.all((low <= found) & (found <= high)) and np.mean(low == high) > 0.9


def test_binomial_energy_counts_the_ways():
    x = np.arange(6.0)
    expected = -np.log([1, 5, 10, 10, 5, 1])
    assert np.allclose(Binomial(5).energy(tf.constant(x[:, None])), expected, atol=1e-12)


@pytest.fixture(params=[*SINGLE, "relu"])
def smooth(request):
    return NoisyReLU() if request.param == "relu" else SINGLE[request.param][0]()


def test_the_cumulants_gradient_is_the_mean(smooth):
    a = tf.constant([[-80.0, -3, -0.1, 0, 0.5, 7, 90]])
    with tf.GradientTape() as tape:
        tape.watch(a)
        cumulant = smooth.cumulant(a)
    assert np.all(np.isfinite(cumulant))
    assert np.allclose(tape.gradient(cumulant, a), smooth.mean(a), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_extreme_numbers_of_the_generator_stay_finite(smooth, jit_compile):
    u = tf.constant([[LOWEST, 2.0**-23, 0.5, 1 - 2.0**-23, HIGHEST]])
    sample = tf.function(smooth.sample, jit_compile=jit_compile)
    for a in (-1e4, -1.0, 0.0, 1.0, 1e4):
        draws = np.array(sample(tf.fill(u.shape, a), u))
        assert np.all(np.isfinite(draws))
        assert smooth.low <= draws.min() and draws.max() <= smooth.high
    if isinstance(smooth, Gaussian):
        a = tf.zeros(u.shape)
        z = np.array(sample(a, u) / smooth.sample(a, u)[0, -1] * 5.2938, "float64")[0]
        # Phi(z) = u at both ends; z is 5.2938 where u = 1 - 2^-24.
        cdf = [0.5 * math.erfc(-x / math.sqrt(2)) for x in z]
        assert np.allclose(cdf[:3], u[0, :3], rtol=1e-3)
        assert np.allclose(z, -z[::-1], rtol=1e-6)


def test_bias_from_mean_gives_the_mean(smooth):
    mean = tf.constant([[0.001, 0.3, 0.8]], tf.float64)
    tolerance = 1e-6 if isinstance(smooth, ScaledGaussian) else 1e-10
    ours = smooth.mean(smooth.bias_from_mean(smooth.high * mean if smooth.high == 4 else mean))
    assert np.allclose(ours / (smooth.high if smooth.high == 4 else 1), mean, rtol=tolerance)
    ends = tf.constant([[max(smooth.low, -5.0), min(smooth.high, 5.0)]], tf.float64)
    assert np.all(np.isfinite(smooth.bias_from_mean(ends)))


def test_noisy_relu_has_the_moments_of_the_rectified_normal(assert_mean):
    a = np.array([-3.0, -0.5, 0, 0.7, 4])
    tiled = tf.tile(tf.constant(a[None], tf.float32), (40000, 1))
    draws = np.float64(NoisyReLU().sample(tiled, noise.uniforms((40000, 5), seed=6)))
    x, deviation = np.linspace(1e-4, 20, 200_001), np.sqrt(1 / (1 + np.exp(-a)))
    density = np.exp(-(((x - a[:, None]) / deviation[:, None]) ** 2) / 2)
    density /= deviation[:, None] * np.sqrt(2 * np.pi)
    for power in (1, 2, 3):
        assert_mean(draws**power, np.trapezoid(density * x**power, x, axis=1))


# Learnt variances ---------------------------------------------------------------------------------


def test_a_variance_stays_above_its_floor_and_is_refused_where_it_collapses():
    kind = scaled(0.4, floor=0.1)
    assert np.allclose(kind.variance, [0.4]) and bool(kind.sound())
    kind.log_variance.assign([-100.0])
    assert np.allclose(kind.variance, [0.1]) and bool(kind.sound())
    kind = scaled(2e-4, floor=0.0)
    assert bool(kind.sound())
    kind.log_variance.assign([math.log(0.9e-4)])
    assert not bool(kind.sound())
    assert "The variance of visible unit 0 fell to 9e-05" in kind.unsoundness()


@pytest.mark.parametrize("floor", [-0.1, 1, True, "a", float("nan")])
def test_bad_floors(floor):
    with pytest.raises(ValueError, match="`floor` must be a number in"):
        ScaledGaussian(floor)


# Categorical units --------------------------------------------------------------------------------

GROUPINGS = {"one": (None, [5]), "equal": (3, [3, 3]), "different": ([2, 4, 3], [2, 4, 3])}


@pytest.fixture(params=GROUPINGS)
def grouped(request):
    """The type, the sizes of its groups, and pre-activations of 30 cases."""
    sizes, groups = GROUPINGS[request.param]
    return Categorical(sizes), groups, 2 * np.random.default_rng(3).normal(size=(30, sum(groups)))


def by_group(x, groups):
    return np.split(x, np.cumsum(groups)[:-1], axis=-1)


def test_categorical_mean_and_cumulant(grouped, reference):
    kind, groups, a = grouped
    sums = [reference.logsumexp(part, 1) for part in by_group(a, groups)]
    mean = [np.exp(p - s[:, None]) for p, s in zip(by_group(a, groups), sums, strict=True)]
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        ours = tf.constant(a, dtype)
        assert np.allclose(kind.mean(ours), np.concatenate(mean, 1), rtol=tolerance)
        assert np.allclose(kind.cumulant(ours), sum(sums), rtol=tolerance)
    with tf.GradientTape() as tape:
        tape.watch(ours)
        cumulant = kind.cumulant(ours)
    assert np.allclose(tape.gradient(cumulant, ours), kind.mean(ours), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_categorical_samples_by_inverse_cdf(grouped, jit_compile):
    kind, groups, a = grouped
    assert kind.uniforms(sum(groups)) == len(groups)
    u = np.random.default_rng(4).uniform(size=(30, len(groups))).astype("float32")
    sample = tf.function(kind.sample, jit_compile=jit_compile)
    found = np.array(sample(tf.constant(a, tf.float32), tf.constant(u)))
    for x, logits, numbers in zip(by_group(found, groups), by_group(a, groups), u.T, strict=True):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = (np.cumsum(p, 1)[:, :-1] <= numbers[:, None]).sum(1)
        np.testing.assert_array_equal(x, np.eye(len(p[0]))[expected])


def test_categorical_samples_at_the_extremes(grouped):
    kind, groups, a = grouped
    for u in (LOWEST, HIGHEST):
        for scale in (0.0, 1.0, 1e8):
            numbers = tf.fill((30, len(groups)), u)
            found = kind.sample(tf.constant(scale * a, tf.float32), numbers)
            for x, logits in zip(by_group(found, groups), by_group(a, groups), strict=True):
                np.testing.assert_array_equal(np.sum(x, 1), 1)
                if scale == 1e8:  # All others have probability 0.
                    np.testing.assert_array_equal(np.argmax(x, 1), np.argmax(logits, 1))
                elif u == HIGHEST:
                    assert np.all(np.array(x)[:, -1] == 1)


def test_categorical_states_are_all_there(grouped):
    kind, groups, _ = grouped
    count = kind.count(sum(groups))
    states = kind.states(tf.range(count, dtype=tf.int64), sum(groups)).numpy()
    assert count == np.prod(groups) and len(np.unique(states, axis=0)) == count
    assert all(np.all(part.sum(1) == 1) for part in by_group(states, groups))


def test_one_hot_and_back():
    kind, codes = Categorical([2, 4, 3]), np.array([[0, 3, 2], [1, 0, 1]])
    expected = [[1, 0, 0, 0, 0, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0, 0, 1, 0]]
    np.testing.assert_array_equal(kind.one_hot(codes), expected)
    np.testing.assert_array_equal(kind.codes(kind.one_hot(codes)), codes)
    many = np.random.default_rng(0).integers(0, 4, (50, 7))
    np.testing.assert_array_equal(Categorical(4).codes(Categorical(4).one_hot(many)), many)


@pytest.mark.parametrize(
    ("sizes", "codes", "message"),
    [
        (3, [[0, 3]], "`codes` holds 3 for group 1, in case 0: its values must be from 0 to 2"),
        (3, [[0, 1], [-1, 2]], "`codes` holds -1 for group 0, in case 1"),
        ([2, 3], [[0, 1, 1]], "`codes` must have 2 columns, one a group; got 3"),
        (3, [[0.0, 1.0]], "`codes` must be integers of shape .*; got float64"),
        (3, [0, 1], r"got int64 of shape \(2,\)"),
        (None, [[0, 1]], "for units of given sizes"),
    ],
)
def test_bad_codes(sizes, codes, message):
    with pytest.raises(ValueError, match=message):
        Categorical(sizes).one_hot(codes)


@pytest.mark.parametrize("sizes", [1, 0, -2, 2.0, True, "a", [], [2, 1], [2, 2.5], [[2, 2]]])
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match="`sizes` must be an integer >= 2, or a list of such"):
        Categorical(sizes)


@pytest.mark.parametrize("trials", [0, 256, 1.0, True, None])
def test_bad_trials(trials):
    with pytest.raises(ValueError, match="`trials` must be an integer from 1 to 255"):
        Binomial(trials)


@pytest.mark.parametrize(
    "kind",
    [
        Bernoulli(),
        Binomial(7),
        Categorical(),
        Categorical(3),
        Categorical([2, 3]),
        Gaussian(),
        Mixed([("bernoulli", 2), (Categorical([2, 3]), 5), (ScaledGaussian(0.25), 1)]),
        NoisyReLU(),
        ScaledGaussian(0.25),
        Spin(),
    ],
    ids=lambda kind: kind.name,
)
def test_every_type_is_serialisable_and_known_by_name(kind):
    config = keras.saving.serialize_keras_object(kind)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(kind) and again.get_config() == kind.get_config()
    if kind.name not in ("binomial", "mixed"):  # They need arguments.
        assert type(units.get(kind.name)) is type(kind)


# Several types side by side -----------------------------------------------------------------------


@pytest.fixture
def mixed():
    """Two bits, a spin, groups of 2 and 3, and a count from 0 to 4: 9 columns."""
    return Mixed([("bernoulli", 2), ("spin", 1), (Categorical([2, 3]), 5), (Binomial(4), 1)])


def test_mixed_units_are_their_parts(mixed):
    random = np.random.default_rng(5)
    a, u = random.normal(size=(20, 9)).astype("float32"), random.random((20, 6)).astype("float32")
    parts = (
        (Bernoulli(), slice(0, 2), slice(0, 2)),
        (Spin(), slice(2, 3), slice(2, 3)),
        (Categorical([2, 3]), slice(3, 8), slice(3, 5)),
        (Binomial(4), slice(8, 9), slice(5, 6)),
    )
    assert mixed.uniforms(9) == 6
    x = mixed.sample(tf.constant(a), tf.constant(u))
    mean = mixed.mean(tf.constant(a))
    energy = cumulant = log_prob = 0
    for kind, columns, numbers in parts:
        part = tf.constant(a[:, columns])
        np.testing.assert_array_equal(x[:, columns], kind.sample(part, u[:, numbers]))
        np.testing.assert_array_equal(mean[:, columns], kind.mean(part))
        energy += kind.energy(x[:, columns])
        cumulant += kind.cumulant(part)
        log_prob += kind.log_prob(x[:, columns], part)
    assert np.allclose(mixed.energy(x), energy) and np.allclose(mixed.cumulant(a), cumulant)
    assert np.allclose(mixed.log_prob(x, a), log_prob, rtol=1e-5)
    assert bool(mixed.valid(x)) and bool(mixed.possible(x)) and mixed.fault(x) is None
    assert bool(mixed.valid(mean)) and not bool(mixed.possible(mean))


def test_states_of_mixed_units_are_all_there(mixed):
    assert mixed.count(9) == 2**2 * 2 * 6 * 5
    states = mixed.states(tf.range(mixed.count(9), dtype=tf.int64), 9)
    assert len(np.unique(states, axis=0)) == mixed.count(9)
    assert bool(mixed.valid(states)) and bool(mixed.possible(states))
    # 2^2000 is too large for a float.
    assert Mixed([("bernoulli", 2000), ("gaussian", 1)]).count(2001) == math.inf


def test_mixed_units_name_the_columns_that_are_no_data_of_theirs(mixed):
    x = mixed.states(tf.range(2, dtype=tf.int64), 9).numpy()
    for at, value, message in (
        (0, 2.0, r"\(columns 0 to 1\) must lie in \[0, 1\] for bernoulli units"),
        (2, -2.0, r"\(column 2\) must lie in \[-1, 1\] for spin units"),
        (4, 1.0, r"\(columns 3 to 7\) must be one-hot, .*; in case 0, group 0 sums to 2"),
        (8, np.nan, r"\(column 8\) holds NaN"),
    ):
        bad = x.copy()
        bad[0, at] = value
        assert not bool(mixed.valid(tf.constant(bad)))
        assert re.match(message, mixed.fault(tf.constant(bad)))
    assert mixed.fault(tf.constant(x[:, 1:])) == "must have 9 columns; got 8."
    assert "in columns 3 to 7 NaN, infinity or values outside [0, 1], or groups" in mixed.invalid


def test_variances_of_mixed_units_are_watched():
    kind = Mixed([("bernoulli", 2), ("scaled_gaussian", 3), ("scaled_gaussian", 1)])
    kind.build(keras.layers.Layer(), 6)
    assert bool(kind.sound())
    kind.kinds[2].log_variance.assign([math.log(0.9e-4)])
    assert not bool(kind.sound())
    assert kind.unsoundness().startswith("In column 5: The variance of visible unit 0 fell to 9e-")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "`parts` must be a list of pairs"),
        ("bernoulli", "`parts` must be a list of pairs"),
        (["bernoulli"], r"Each of `parts` must be a pair .*; got 'bernoulli'"),
        ([("bernoulli", 2, 3)], "Each of `parts` must be a pair"),
        ([("bits", 2)], "Unknown unit type 'bits'"),
        ([("bernoulli", 0)], "columns of 'bernoulli' units in `parts` must be an integer >= 1"),
        ([("bernoulli", 2.0)], "must be an integer >= 1; got 2.0"),
        ([("relu", 2)], "`parts` cannot hold 'relu' units: data have no use"),
        ([(Mixed([("spin", 1)]), 1)], "cannot hold 'mixed' units: its parts can stand here"),
        ([(Categorical(3), 4)], "sizes 3 do not make 4 units"),
    ],
)
def test_bad_parts(parts, message):
    with pytest.raises(ValueError, match=message):
        Mixed(parts)


# Names --------------------------------------------------------------------------------------------


def test_get():
    own = Bernoulli()
    assert units.get(own) is own
    assert type(units.get("bernoulli")) is Bernoulli


@pytest.mark.parametrize("identifier", ["binary", None, 3, Bernoulli])
def test_get_names_the_unknown_and_the_known(identifier):
    with pytest.raises(ValueError, match="Unknown unit type") as error:
        units.get(identifier)
    assert repr(identifier) in str(error.value) and "'bernoulli'" in str(error.value)


def test_serialisation():
    config = keras.saving.serialize_keras_object(Bernoulli())
    assert config["registered_name"] == "dbn>Bernoulli"
    assert type(keras.saving.deserialize_keras_object(config)) is Bernoulli
