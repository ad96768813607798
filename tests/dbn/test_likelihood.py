import numpy as np
import pytest
import tensorflow as tf

from dbn import likelihood, noise

DTYPES = [("float32", 1e-5), ("float64", 1e-12)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("bit", [0, 7, "each"])
@pytest.mark.parametrize("grey", [False, True])
def test_pseudo_log_likelihood(dtype, tolerance, bit, grey, reference):
    """By two free energies, as the tutorial writes it."""
    rbm = reference.random(50, 30, seed=1, scale=0.3)
    random = np.random.default_rng(2)
    v = random.random((40, 50)).astype("float32")
    v = v if grey else np.round(v)
    bit = random.integers(0, 50, 40) if bit == "each" else bit
    ours = likelihood.pseudo_log_likelihood(rbm.layer(dtype), tf.constant(v), tf.constant(bit))
    assert ours.dtype == dtype
    assert np.allclose(ours, rbm.pseudo_log_likelihood(v, bit), rtol=tolerance, atol=tolerance)


def test_pseudo_log_likelihood_rounds(reference):
    rbm = reference.random(4, 3, seed=3)
    layer = rbm.layer()
    v = np.array([[0.49, 0.51, 0.0, 1.0]], "float32")
    for bit in range(4):
        assert np.array_equal(
            likelihood.pseudo_log_likelihood(layer, v, bit),
            likelihood.pseudo_log_likelihood(layer, np.array([[0.0, 1, 0, 1]], "float32"), bit),
        )


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_mean_over_bits_is_the_log_pseudo_likelihood(dtype, tolerance, reference):
    """Sum of log p(x_i | the others), each from the table of p(v)."""
    rbm = reference.random(4, 3, seed=4)
    layer, v, p = rbm.layer(dtype), rbm.states(4), rbm.p_v()
    exact = np.zeros(16)
    for bit in range(4):
        flipped = np.arange(16) ^ (8 >> bit)
        exact += np.log(p / (p + p[flipped]))
    ours = np.mean([likelihood.pseudo_log_likelihood(layer, v, bit) for bit in range(4)], 0)
    assert np.allclose(ours, exact, rtol=tolerance)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_pseudo_log_likelihood_of_a_cycling_bit(jit_compile, reference):
    rbm = reference.random(5, 3, seed=5)
    layer, v = rbm.layer(), np.random.default_rng(0).integers(0, 2, (9, 5)).astype("float32")
    function = tf.function(
        lambda v, bit: likelihood.pseudo_log_likelihood(layer, v, bit), jit_compile=jit_compile
    )
    for bit in range(5):
        ours = function(v, tf.constant(bit))
        assert np.allclose(ours, rbm.pseudo_log_likelihood(v, bit), rtol=1e-5, atol=1e-6)
    assert function.experimental_get_tracing_count() == 1


def test_pseudo_log_likelihood_at_fifty_times_the_weights(reference):
    rbm = reference.random(784, 500, seed=6, scale=0.3)
    rbm = reference(50 * rbm.W, rbm.hbias, rbm.vbias)
    v = np.random.default_rng(7).integers(0, 2, (20, 784)).astype("float32")
    bits = np.arange(20) * 39
    ours = likelihood.pseudo_log_likelihood(rbm.layer(), v, bits)
    expected = rbm.pseudo_log_likelihood(v, bits)
    # Free energies of 1e5 nats, whose difference is good to 1e-2 in float32; times 784.
    assert np.all(np.isfinite(ours)) and expected.min() < -1e5
    assert np.allclose(ours, expected, rtol=1e-4, atol=8)


def test_pseudo_likelihood_needs_bits(reference, monkeypatch):
    layer = reference.random().layer()
    monkeypatch.setattr(layer.visible, "name", "gaussian")
    with pytest.raises(ValueError, match="needs Bernoulli visible units; got 'gaussian'"):
        likelihood.pseudo_log_likelihood(layer, tf.zeros((2, 4)), 0)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("grey", [False, True])
def test_reconstruction_cross_entropy(dtype, tolerance, grey, reference):
    rbm = reference.random(50, 30, seed=8, scale=0.3)
    v = np.random.default_rng(9).random((40, 50)).astype("float32")
    v = v if grey else np.round(v)
    u = noise.uniforms((40, 30), seed=1)
    data, v = tf.constant(v), v.astype("float64")
    h = np.array(u, "float64") < rbm.mean_h(v)
    p = rbm.mean_v(h)
    exact = -(v * np.log(p) + (1 - v) * np.log(1 - p)).sum(-1)
    ours = likelihood.reconstruction_cross_entropy(rbm.layer(dtype), data, u)
    assert ours.dtype == dtype
    assert np.allclose(ours, exact, rtol=tolerance)


def test_expected_reconstruction_cross_entropy(reference, assert_mean):
    """Over the noise: sum over h of p(h | v) times -log p(v | h), from enumeration."""
    rbm = reference.random(4, 3, seed=10)
    number, cases = 5, 20_000
    v = np.tile(rbm.states(4)[number], (cases, 1))
    ours = likelihood.reconstruction_cross_entropy(
        rbm.layer(), v, noise.uniforms((cases, 3), seed=2)
    )
    exact = -rbm.p_h_given_v()[number] @ np.log(rbm.p_v_given_h()[:, number])
    assert_mean(ours, exact)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_free_energy_gap_is_the_difference_of_log_likelihoods(dtype, tolerance, reference):
    rbm = reference.random(6, 5, seed=11)
    states, log_p = rbm.states(6), np.log(rbm.p_v())
    train, valid = np.split(np.random.default_rng(0).permutation(64)[:40], 2)
    ours = likelihood.free_energy_gap(rbm.layer(dtype), states[train], states[valid])
    exact = log_p[train].mean() - log_p[valid].mean()
    assert abs(exact) > 0.1
    assert np.allclose(ours, exact, rtol=10 * tolerance)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_float32_data_in_layers_of_other_precision(dtype, reference):
    rbm = reference.random(30, 20, seed=12, scale=0.3)
    layer, v = rbm.layer(dtype), np.random.default_rng(1).random((10, 30)).astype("float32")
    tolerance = 1e-12 if dtype == "float64" else 0.05
    for ours, expected in (
        (likelihood.pseudo_log_likelihood(layer, v, 3), rbm.pseudo_log_likelihood(v, 3)),
        (
            likelihood.free_energy_gap(layer, v[:5], v[5:]),
            rbm.free_energy(v[5:]).mean() - rbm.free_energy(v[:5]).mean(),
        ),
    ):
        assert np.allclose(ours, expected, rtol=tolerance, atol=tolerance)
