import math
import warnings

import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import annealing
from dbn.annealing import (
    LogPartition,
    annealed_importance_sampling,
    inverse_temperatures,
    raise_log_likelihood,
    reverse_annealed_importance_sampling,
)

RATES = np.array([0.2, 0.5, 0.9, 0.4, 0.7])


@pytest.fixture
def rbm(reference):
    return reference.random(5, 4, seed=1, scale=1.2)


def bias_of(rates):
    return np.log(rates) - np.log1p(-rates)


def annealed_model(reference, rbm, betas, rates):
    """Probabilities of all visible states after AIS' own chain: one exact Gibbs step a beta."""
    base, v = bias_of(rates), rbm.states(len(rbm.vbias))
    p = np.exp(v @ base)
    p /= p.sum()
    for beta in betas[1:]:
        at = reference(beta * rbm.W, beta * rbm.hbias, base + beta * (rbm.vbias - base))
        p = p @ at.p_h_given_v() @ at.p_v_given_h()
    return p


def assert_mean_is(values, expected, errors=4):
    """The mean is the expected one within so many standard errors, which are not nought."""
    error = np.std(values, 0, ddof=1) / np.sqrt(len(values))
    assert np.all(error > 0)
    assert np.all(np.abs(np.mean(values, 0) - expected) < errors * error)


# Inverse temperatures


def test_schedules_are_those_of_their_papers():
    np.testing.assert_allclose(inverse_temperatures(6), [0, 0.2, 0.4, 0.6, 0.8, 1])
    piecewise = inverse_temperatures(14501, "piecewise")
    assert np.allclose(
        piecewise[[0, 250, 500, 2500, 4500, 9500, 14500]], [0, 0.25, 0.5, 0.7, 0.9, 0.95, 1]
    )
    sigmoid = inverse_temperatures(5, "sigmoid")
    s = [1 / (1 + math.exp(-4 * t)) for t in (-1, -0.5, 0, 0.5, 1)]
    np.testing.assert_allclose(sigmoid, [(x - s[0]) / (s[-1] - s[0]) for x in s], atol=1e-12)
    own = [0, 0.1, 1]
    np.testing.assert_array_equal(inverse_temperatures(own), own)


@pytest.mark.parametrize(
    ("temperatures", "kind", "message"),
    [
        (1, "linear", "`temperatures` must be an integer >= 2; got 1"),
        (2.5, "linear", "`temperatures` must be an integer >= 2; got 2.5"),
        (9, "cosine", "Unknown `schedule` 'cosine'; known: 'linear', 'sigmoid', 'piecewise'"),
        ([0.0, 0.5], "linear", "must rise from 0 to 1"),
        ([0.0, 0.6, 0.5, 1.0], "linear", "must rise from 0 to 1"),
        ([0.0, np.nan, 1.0], "linear", "must rise from 0 to 1"),
        ([1.0], "linear", "must rise from 0 to 1"),
    ],
)
def test_schedules_refuse(temperatures, kind, message):
    with pytest.raises(ValueError, match=message):
        inverse_temperatures(temperatures, kind)


# Annealed importance sampling


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rates", [None, RATES])
def test_an_rbm_without_weights_is_known_exactly(reference, rates, dtype):
    """Every importance weight is Z where beta changes nothing."""
    vbias = np.zeros(5) if rates is None else bias_of(rates)
    plain = reference(np.zeros((5, 4)), np.zeros(4), vbias)
    found = annealed_importance_sampling(plain.layer(dtype), rates, chains=40, temperatures=3)
    assert found.value == pytest.approx(plain.log_partition(), abs=1e-5)
    assert found.standard_error < 1e-5
    assert found.effective_sample_size == pytest.approx(40)


@pytest.mark.parametrize(
    ("temperatures", "kind"), [(2, "linear"), (6, "sigmoid"), ([0, 0.7, 1], "")]
)
@pytest.mark.parametrize("rates", [None, RATES])
@pytest.mark.filterwarnings("ignore:The effective sample size")
def test_the_estimate_of_z_is_unbiased(rbm, rates, temperatures, kind):
    layer = rbm.layer()
    found = [
        annealed_importance_sampling(layer, rates, 200, temperatures, kind, seed).value
        for seed in range(60)
    ]
    assert_mean_is(np.exp(np.array(found) - rbm.log_partition()), 1)
    # Hence that of log Z is too low (Jensen).
    assert np.mean(found) < rbm.log_partition() + 3 * np.std(found) / np.sqrt(60)


@pytest.mark.parametrize(("temperatures", "kind"), [(2, "linear"), (6, "sigmoid")])
@pytest.mark.filterwarnings("ignore:The effective sample size")
def test_the_reverse_estimate_of_1_over_z_is_unbiased(rbm, temperatures, kind):
    layer, random, states = rbm.layer(), np.random.default_rng(0), rbm.states(5)
    found = []
    for seed in range(60):
        samples = states[random.choice(32, size=200, p=rbm.p_v())]
        found.append(
            reverse_annealed_importance_sampling(
                layer, samples, RATES, temperatures, kind, seed
            ).value
        )
    assert_mean_is(np.exp(rbm.log_partition() - np.array(found)), 1)
    assert np.mean(found) > rbm.log_partition() - 3 * np.std(found) / np.sqrt(60)


def test_the_two_sides_close_as_temperatures_grow(rbm):
    layer, states = rbm.layer(), rbm.states(5)
    samples = states[np.random.default_rng(0).choice(32, size=1000, p=rbm.p_v())]
    for temperatures, width in ((20, 0.2), (1000, 0.02)):
        up = annealed_importance_sampling(layer, RATES, 1000, temperatures)
        down = reverse_annealed_importance_sampling(layer, samples, RATES, temperatures)
        for found in (up, down):
            assert found.value == pytest.approx(rbm.log_partition(), abs=4 * found.standard_error)
            assert found.high - found.low < width


def test_intervals_cover_at_their_rate(rbm):
    layer, covered = rbm.layer(), []
    for seed in range(300):
        found = annealed_importance_sampling(layer, RATES, 100, 30, seed=seed)
        assert found.high - found.value == pytest.approx(1.96 * found.standard_error, rel=1e-3)
        covered.append(found.low <= rbm.log_partition() <= found.high)
    # 95 % of 300, four standard errors (0.0126) either way.
    assert 0.90 <= np.mean(covered) <= 1.0


def test_the_seed_governs_and_an_rbm_serves_as_well_as_its_layer(rbm):
    layer = rbm.layer()
    first = annealed_importance_sampling(layer, RATES, 50, 20, seed=3)
    assert annealed_importance_sampling(dbn.RBM(layer), RATES, 50, 20, seed=3) == first
    assert annealed_importance_sampling(layer, RATES, 50, 20, seed=4) != first


def test_many_chains_are_run_in_blocks_with_noise_of_their_own(rbm):
    found = annealed_importance_sampling(rbm.layer(), RATES, 1200, 40)
    assert found.value == pytest.approx(rbm.log_partition(), abs=4 * found.standard_error)
    half = annealed_importance_sampling(rbm.layer(), RATES, 512, 40)
    assert found.standard_error == pytest.approx(half.standard_error * (512 / 1200) ** 0.5, rel=0.2)
    assert 0 < abs(found.value - half.value)


def test_changed_weights_are_seen(rbm):
    layer = rbm.layer()
    before = annealed_importance_sampling(layer, chains=500, temperatures=50).value
    layer.vbias.assign(layer.vbias + 1.0)
    rbm.vbias += 1.0
    after = annealed_importance_sampling(layer, chains=500, temperatures=50)
    assert after.value - before > 1
    assert after.value == pytest.approx(rbm.log_partition(), abs=4 * after.standard_error)


def test_mixed_precision_is_within_the_interval(reference):
    rbm = reference.random(12, 9, seed=2, scale=0.7)
    layer = rbm.layer("mixed_bfloat16")
    found = annealed_importance_sampling(layer, chains=500, temperatures=100)
    # The products are those of weights rounded to eight bits.
    W = tf.cast(tf.cast(layer.W, tf.bfloat16), tf.float64).numpy()
    rounded = reference(W, rbm.hbias, rbm.vbias)
    assert found.value == pytest.approx(rounded.log_partition(), abs=4 * found.standard_error)


# RAISE


@pytest.mark.parametrize("betas", [(0, 1), (0, 0.4, 1)])
def test_raise_estimates_the_probabilities_of_the_annealed_model(reference, rbm, betas):
    layer, states = rbm.layer(), rbm.states(5)
    found = [
        raise_log_likelihood(layer, states, RATES, chains=20, temperatures=betas, seed=seed)
        for seed in range(60)
    ]
    assert_mean_is(np.exp(found), annealed_model(reference, rbm, betas, RATES), errors=5)


@pytest.mark.parametrize("temperatures", [2, 10, 300])
def test_raise_is_below_the_log_likelihood(rbm, temperatures):
    states = rbm.states(5)
    found = raise_log_likelihood(rbm.layer(), np.repeat(states, 200, 0), RATES, 1, temperatures)
    found = found.reshape(32, 200)
    short = (rbm.log_likelihood(states)[:, None] - found) @ np.ones(200) / 200
    error = found.std(1, ddof=1) / np.sqrt(200)
    # Of the annealed model, whose probabilities sum to 1 as well: on average over the model.
    gap, gap_error = rbm.p_v() @ short, np.sqrt(rbm.p_v() ** 2 @ error**2)
    assert gap > -4 * gap_error
    if temperatures == 300:
        assert gap < 0.02


def test_cases_keep_their_figures_whatever_follows_them(rbm):
    layer = rbm.layer()
    x = rbm.states(5)[np.random.default_rng(0).integers(0, 32, 600)]
    whole = raise_log_likelihood(layer, x, temperatures=5)
    np.testing.assert_allclose(
        raise_log_likelihood(layer, x[:512], temperatures=5), whole[:512], atol=1e-5
    )
    # The blocks have noise of their own.
    again = raise_log_likelihood(layer, np.repeat(x[:1], 1024, 0), temperatures=5)
    assert len(np.unique(again)) > 16


# Intervals and warnings


def test_log_partition_from_log_weights():
    """By the formulas, on weights 1, 2, 3 scaled by e^1000."""
    found = LogPartition.from_log_weights(1000 + np.log([1.0, 2.0, 3.0]))
    assert found.value == pytest.approx(1000 + math.log(2))
    assert found.standard_error == pytest.approx(1 / (2 * math.sqrt(3)))
    assert found.effective_sample_size == pytest.approx(36 / 14)
    inverse = LogPartition.from_log_weights(-1000 - np.log([1.0, 2.0, 3.0]), sign=-1)
    assert inverse.value == pytest.approx(1000 - math.log((1 + 1 / 2 + 1 / 3) / 3))
    one = LogPartition.from_log_weights(np.array([3.0]))
    assert (one.value, one.low, one.high) == (3.0, -math.inf, math.inf)


def test_few_effective_chains_are_warned_of(reference):
    rbm = reference.random(10, 8, seed=3, scale=3)
    with pytest.warns(RuntimeWarning, match="effective sample size .* of 50 chains, under 30"):
        annealed_importance_sampling(rbm.layer(), chains=50, temperatures=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annealed_importance_sampling(rbm.layer(), chains=200, temperatures=2000)


def test_grey_levels_are_warned_of(rbm):
    with pytest.warns(RuntimeWarning, match="`x` holds values between 0 and 1.* Binarise"):
        raise_log_likelihood(rbm.layer(), np.full((1, 5), 0.5), temperatures=3)


def test_too_few_chains_are_told_from_too_few_temperatures(rbm):
    with pytest.warns(RuntimeWarning, match="of 10 chains, under 30.* Give more chains"):
        annealed_importance_sampling(rbm.layer(), RATES, 10, 500)


def test_means_as_samples_are_warned_of(rbm):
    samples = np.repeat(rbm.states(5), 4, 0)
    samples[0, 0] = 0.5
    with pytest.warns(RuntimeWarning, match="`samples` holds values between 0 and 1"):
        reverse_annealed_importance_sampling(rbm.layer(), samples, RATES, 50)


def test_no_two_estimates_share_their_noise(rbm):
    """From one state: the two downward runs differ, since each has numbers of its own."""
    layer, x = rbm.layer(), rbm.states(5)[:1]
    raised = raise_log_likelihood(layer, x, RATES, temperatures=4)[0]
    with pytest.warns(RuntimeWarning):
        down = reverse_annealed_importance_sampling(layer, x, RATES, temperatures=4).value
    assert abs(raised - (-rbm.free_energy(x)[0] - down)) > 1e-3


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chains": 0}, "`chains` must be an integer >= 1; got 0"),
        ({"temperatures": 1}, "`temperatures` must be an integer >= 2; got 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0; got -1"),
        ({"base_rates": np.full(4, 0.5)}, "`base_rates` must have width 5"),
        ({"base_rates": np.full((2, 5), 0.5)}, r"`base_rates` must have shape \(visible,\)"),
        ({"base_rates": np.full(5, 1.5)}, r"`base_rates` must lie in \[0, 1\]"),
        ({"base_rates": np.full(5, np.nan)}, "`base_rates` holds NaN"),
    ],
)
@pytest.mark.parametrize("estimate", ["up", "down", "raise"])
def test_bad_arguments(rbm, estimate, arguments, message):
    layer, x = rbm.layer(), rbm.states(5)
    run = {
        "up": lambda **k: annealed_importance_sampling(layer, **k),
        "down": lambda **k: reverse_annealed_importance_sampling(layer, x, **k),
        "raise": lambda **k: raise_log_likelihood(layer, x, **k),
    }[estimate]
    if estimate == "down" and "chains" in arguments:
        pytest.skip("as many chains as samples")
    with pytest.raises(ValueError, match=message):
        run(**{"temperatures": 3, **arguments})


@pytest.mark.parametrize(
    "x", [np.zeros((2, 4)), np.full((2, 5), 2.0), np.zeros((0, 5)), np.zeros(5)]
)
def test_bad_cases(rbm, x):
    layer = rbm.layer()
    with pytest.raises(ValueError, match="`x`"):
        raise_log_likelihood(layer, x)
    with pytest.raises(ValueError, match="`samples`"):
        reverse_annealed_importance_sampling(layer, x)


@pytest.mark.parametrize(
    ("rbm", "message"),
    [
        (dbn.RBMLayer(3), "The RBM is not built"),
        (dbn.RBM(3), "not built"),
        (3, "`rbm` must be an RBM"),
    ],
)
def test_bad_models(rbm, message):
    with pytest.raises(ValueError, match=message):
        annealing.annealed_importance_sampling(rbm)


@pytest.mark.parametrize("name", ["W", "hbias", "vbias"])
def test_parameters_that_are_not_finite(rbm, name):
    layer = rbm.layer()
    getattr(layer, name).assign(np.nan * getattr(layer, name))
    for figure in (annealed_importance_sampling, dbn.likelihood.exact_log_partition):
        with pytest.raises(ValueError, match=f"The RBM's {name} holds NaN or infinity"):
            figure(layer)
