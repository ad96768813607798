import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dbn import noise
from dbn.layers import Bernoulli, Gaussian, Spin, units

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
    for kind in units.TYPES.values():
        assert kind().uniforms(7) == 7
    assert (Bernoulli.low, Bernoulli.high, Bernoulli.activation) == (0, 1, "sigmoid")
    assert (Spin.low, Spin.high, Spin.activation) == (-1, 1, "tanh")
    assert (Gaussian.low, Gaussian.high, Gaussian.activation) == (-np.inf, np.inf, "linear")


# Every type ---------------------------------------------------------------------------------------

# Values, and the weight of each in a sum or an integral over them.
SUPPORT = {
    "bernoulli": (np.array([0.0, 1.0]), 1.0),
    "spin": (np.array([-1.0, 1.0]), 1.0),
    "gaussian": (np.linspace(-20, 20, 4001), 0.01),
}
every_type = pytest.mark.parametrize("kind", units.TYPES.values(), ids=units.TYPES)


@every_type
def test_density_from_its_energy(kind, reference):
    """Mean, cumulant and log-density by summing exp(x a - energy(x)) over x."""
    a = np.linspace(-6, 6, 25)
    x, weight = SUPPORT[kind.name]
    energy = kind().energy(tf.constant(x[:, None])).numpy()
    log_f = a[:, None] * x - energy + np.log(weight)
    cumulant = reference.logsumexp(log_f, 1)
    p = np.exp(log_f - cumulant[:, None])
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-5)):
        column = tf.constant(a[:, None], dtype)
        assert np.allclose(kind().cumulant(column), cumulant, rtol=tolerance, atol=tolerance)
        assert np.allclose(kind().mean(column)[:, 0], p @ x, rtol=tolerance, atol=tolerance)
        for i in (0, len(x) // 3, len(x) - 1):
            found = kind().log_prob(tf.fill(column.shape, tf.constant(x[i], dtype)), column)
            expected = np.log(p[:, i] / weight)
            assert np.allclose(found, expected, rtol=10 * tolerance, atol=10 * tolerance)


@every_type
def test_samples_have_the_moments_of_the_density(kind, assert_mean):
    a = np.array([-3.0, -0.7, 0, 0.4, 2], "float32")
    draws = kind().sample(tf.tile(a[None], (40000, 1)), noise.uniforms((40000, 5), seed=4))
    draws = np.array(draws, "float64")
    x, _ = SUPPORT[kind.name]
    p = np.exp(a[:, None] * x - kind().energy(tf.constant(x[:, None])).numpy())
    p /= p.sum(1, keepdims=True)
    for power in (1, 2, 3, 4):
        assert_mean(draws**power, p @ x**power)


@every_type
def test_the_cumulants_gradient_is_the_mean(kind):
    a = tf.constant([[-80.0, -3, -0.1, 0, 0.5, 7, 90]])
    with tf.GradientTape() as tape:
        tape.watch(a)
        cumulant = kind().cumulant(a)
    assert np.all(np.isfinite(cumulant))
    assert np.allclose(tape.gradient(cumulant, a), kind().mean(a), rtol=1e-6, atol=1e-7)


@every_type
@pytest.mark.parametrize("jit_compile", [False, True])
def test_extreme_numbers_of_the_generator_stay_finite(kind, jit_compile):
    u = tf.constant([[LOWEST, 2.0**-23, 0.5, 1 - 2.0**-23, HIGHEST]])
    sample = tf.function(kind().sample, jit_compile=jit_compile)
    for a in (-1e4, -1.0, 0.0, 1.0, 1e4):
        draws = np.array(sample(tf.fill(u.shape, a), u))
        assert np.all(np.isfinite(draws))
        assert kind.low <= draws.min() and draws.max() <= kind.high
    if kind is Gaussian:
        z = np.array(sample(tf.zeros(u.shape), u), "float64")[0]
        # Phi(z) = u at both ends; z is -5.2938 where u = 2^-24 = 5.96e-8.
        cdf = [0.5 * math.erfc(-x / math.sqrt(2)) for x in z]
        assert np.allclose(cdf[:3], u[0, :3], rtol=2e-4)
        assert np.allclose(z, -z[::-1], rtol=1e-6)


@every_type
def test_bias_from_mean_gives_the_mean(kind):
    mean = tf.constant([[0.001, 0.3, 0.8]], tf.float64)
    assert np.allclose(kind().mean(kind().bias_from_mean(mean)), mean, rtol=1e-10)
    ends = tf.constant([[max(kind.low, -5.0), min(kind.high, 5.0)]], tf.float64)
    assert np.all(np.isfinite(kind().bias_from_mean(ends)))


@every_type
def test_every_type_is_known_by_name_and_serialisable(kind):
    assert type(units.get(kind.name)) is kind
    config = keras.saving.serialize_keras_object(kind())
    assert type(keras.saving.deserialize_keras_object(config)) is kind


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
