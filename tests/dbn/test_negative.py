import gc
import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import negative, noise

X = np.random.default_rng(0).integers(0, 2, (40, 4)).astype("float32")
CHAINS = 20000
BETAS = [0.0, 0.4, 1.0]
BASE = np.array([0.3, 0.5, 0.6, 0.2])


@pytest.fixture
def model(reference):
    return reference.random(4, 3, seed=3, scale=1.5)


def tempered(reference, model, beta):
    """The RBM at an inverse temperature: only its visible bias does not go to zero."""
    base = np.log(BASE / (1 - BASE))
    return reference(beta * model.W, beta * model.hbias, base + beta * (model.vbias - base))


def drawn(random, probabilities, n):
    """States of n binary units, with these probabilities."""
    found = random.choice(2**n, CHAINS, p=probabilities)
    return ((found[:, None] >> np.arange(n)[::-1]) & 1).astype("float32")


def assert_distribution(states, probabilities):
    """Frequencies of all states within 4.5 standard errors."""
    states = np.asarray(states, int)
    numbers = states @ (1 << np.arange(states.shape[1])[::-1])
    found = np.bincount(numbers, minlength=len(probabilities)) / len(states)
    error = np.sqrt(probabilities * (1 - probabilities) / len(states))
    assert np.max(np.abs(found - probabilities) / error) < 4.5


def run(phase, layer, v=X):
    """Returns a function that makes an update of a number, and returns its visible states."""
    phase.build(tuple(layer.W.shape))

    def update(number):
        chain = None if phase.chain is None else phase.chain.value
        end = phase.end(layer, v, phase.draw(layer, len(v), 1, number), chain)
        phase.keep(end.chain, end.counts)
        return end.v

    return update


def test_cd_leaves_the_distribution_invariant(model):
    v = drawn(np.random.default_rng(1), model.p_v(), 4)
    assert_distribution(run(negative.CD(3), model.layer(), v)(0), model.p_v())


@pytest.mark.parametrize("k", [1, 3])
def test_cd_ends_in_the_means_given_the_last_hidden_sample(k, joint):
    rbm = joint("scaled", "bernoulli", seed=2)
    layer, v = rbm.layer("float64"), np.random.default_rng(1).normal(size=(30, 2))
    phase = negative.CD(k, reconstruction="mean")
    uniforms = phase.draw(layer, len(v), 1, 5)
    end = phase.end(layer, tf.constant(v), uniforms).v
    variance = np.exp(rbm.log_variance)
    for step, u in enumerate(np.float64(uniforms[0])):
        h = u[:, 2:] < 1 / (1 + np.exp(-(v @ rbm.W + rbm.hbias)))
        v = variance * (h @ rbm.W.T + rbm.vbias)
        if step < k - 1:
            z = [statistics.NormalDist().inv_cdf(x) for x in u[:, :2].ravel()]
            v = v + np.sqrt(variance) * np.reshape(z, v.shape)
    np.testing.assert_allclose(end, v, rtol=1e-5, atol=1e-5)


def test_pcd_leaves_the_distribution_invariant(model):
    phase = negative.PCD(3, CHAINS)
    end = run(phase, model.layer())
    phase.chain.assign(drawn(np.random.default_rng(2), model.p_h(), 3))
    assert_distribution(end(0), model.p_v())
    assert_distribution(phase.hidden_states(), model.p_h())


def test_fast_pcd_leaves_the_distribution_with_fast_weights_invariant(model, reference):
    other = reference.random(4, 3, seed=4)
    both = reference(model.W + other.W, model.hbias + other.hbias, model.vbias + other.vbias)
    phase = negative.FastPCD(3, CHAINS)
    end = run(phase, model.layer())
    for fast, value in zip(phase.fast, (other.W, other.hbias, other.vbias), strict=True):
        fast.assign(value)
    phase.chain.assign(drawn(np.random.default_rng(3), both.p_h(), 3))
    assert_distribution(end(0), both.p_v())
    assert_distribution(phase.hidden_states(), both.p_h())


def parallel(model, reference, k):
    """Parallel tempering in equilibrium, and the RBMs of its temperatures."""
    phase = negative.ParallelTempering(k, CHAINS, np.array(BETAS), base_rates=BASE)
    end, random = run(phase, model.layer()), np.random.default_rng(4)
    rbms = [tempered(reference, model, beta) for beta in BETAS]
    phase.chain.assign(np.stack([drawn(random, rbm.p_h(), 3) for rbm in rbms]))
    return phase, end, rbms


@pytest.mark.parametrize("k", [1, 4, 40])
def test_parallel_tempering_leaves_every_distribution_invariant(k, model, reference):
    phase, end, rbms = parallel(model, reference, k)
    assert_distribution(end(0), model.p_v())
    for h, rbm in zip(phase.chain.value, rbms, strict=True):
        assert_distribution(h, rbm.p_h())


def test_swap_rates_are_those_of_all_pairs_of_states(model, reference):
    phase, end, rbms = parallel(model, reference, 2)
    end(0)
    v, h = reference.states(4), reference.states(3)
    base = np.log(BASE / (1 - BASE))
    grows = (v @ (model.vbias - base))[:, None] + (v @ model.W + model.hbias) @ h.T
    for pair in (0, 1):
        difference = BETAS[pair + 1] - BETAS[pair]
        ratio = difference * (grows.reshape(-1, 1) - grows.reshape(1, -1))
        weights = np.outer(rbms[pair].p_vh(), rbms[pair + 1].p_vh())
        expected = np.sum(weights * np.exp(np.minimum(ratio, 0)))
        # An acceptance probability has a standard deviation of at most 1 / 2.
        assert abs(phase.swap_rates.numpy()[pair] - expected) < 4.5 * 0.5 / np.sqrt(CHAINS)


def test_swap_rates_average_over_updates_where_a_pair_had_its_turn(model, reference):
    phase, end, _ = parallel(model, reference, 1)
    rates = []
    for number in range(4):
        end(number)
        rates.append(phase.swap_rates.numpy())
    assert rates[0][1] == 0 and np.all(rates[1] > 0)
    assert rates[0][0] == rates[1][0] and rates[1][1] == rates[2][1]
    np.testing.assert_array_equal(phase._exchanges.numpy(), [2, 2])


def test_exchange_by_hand():
    tempered = tf.constant([[3.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    betas = tf.constant([0.0, 0.5, 1.0])
    u = tf.constant([[0.99, 0.4], [2.0, 2.0]])
    order, probability = negative._exchange(betas, tempered, u)
    # exp(0.5 (0 - 2)) = 0.37 < 0.4: refused; the first is always accepted.
    np.testing.assert_array_equal(order, [2, 1, 0, 3, 4, 5])
    expected = np.exp(np.minimum([[1, -1], [0.5, 1]], 0))
    np.testing.assert_allclose(probability, expected, rtol=1e-6)


def fitted(**arguments):
    keras.utils.set_random_seed(0)
    rbm = dbn.RBM(3, seed=5, **arguments)
    rbm.compile(keras.optimizers.SGD(0.1))
    rbm.fit(X, batch_size=10, epochs=2, verbose=0)
    return rbm


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize(
    ("short", "phase"),
    [
        ({"k": 2}, negative.CD(2)),
        ({"k": 2, "persistent": True, "chains": 7}, negative.PCD(2, 7)),
    ],
)
def test_k_persistent_and_chains_are_short_for_a_phase(short, phase):
    for one, other in zip(fitted(**short).weights, fitted(negative=phase).weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_fast_weights_learn_and_decay_as_by_hand(reference):
    rate, decay, model = 0.3, 0.9, reference.random(4, 3, seed=6)
    phase = negative.FastPCD(2, 5, rate, decay)
    rbm = dbn.RBM(model.layer(), negative=phase, seed=5)
    rbm.compile(keras.optimizers.SGD(0.1))
    rbm.build((None, 4))
    h = np.zeros((5, 3))
    slow = [model.W, model.hbias, model.vbias]
    fast = [np.zeros_like(x) for x in slow]
    for number in range(3):
        rbm.fit(X, batch_size=len(X), shuffle=False, verbose=0)
        both = reference(*(a + b for a, b in zip(slow, fast, strict=True)))
        for u in np.array(noise.uniforms((2, 5, 7), 5, number)):
            v = (u[:, :4] < both.mean_v(h)).astype(float)
            h = (u[:, 4:] < both.mean_h(v)).astype(float)
        model = reference(*slow)
        pairs = zip(model.free_energy_gradient(X), model.free_energy_gradient(v), strict=True)
        gradients = [a - b for a, b in pairs]
        slow = [x - 0.1 * g for x, g in zip(slow, gradients, strict=True)]
        fast = [decay * x - rate * g for x, g in zip(fast, gradients, strict=True)]
    np.testing.assert_array_equal(rbm.chain.numpy(), h)
    for found, expected in zip(phase.fast, fast, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rbm.layer.W.numpy(), slow[0], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize(
    "phase",
    [
        negative.CD(2, reconstruction="mean"),
        negative.FastPCD(2, 5, 0.2, 0.5),
        negative.ParallelTempering(2, 5, np.array(BETAS), base_rates=BASE),
    ],
)
def test_a_saved_model_goes_on_as_if_it_had_not_stopped(phase, tmp_path):
    rbm = fitted(negative=phase, gradient=dbn.gradients.Centered())
    rbm.save(tmp_path / "rbm.keras")
    loaded = keras.saving.load_model(tmp_path / "rbm.keras")
    assert loaded.negative.get_config() == phase.get_config()
    for model in (rbm, loaded):
        model.fit(X, batch_size=10, verbose=0)
    for one, other in zip(rbm.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.usefixtures("without_xla")
def test_samples_go_on_from_the_chains_at_beta_one():
    rbm = fitted(negative=negative.ParallelTempering(1, 6, 4))
    assert rbm.persistent and rbm.chains == 6 and rbm.chain.shape == (4, 6, 3)
    np.testing.assert_array_equal(rbm.negative.hidden_states(), rbm.chain.numpy()[-1])
    ends = []
    for hot in (0.0, 1.0):
        rbm.chain.assign(np.concatenate([np.full((3, 6, 3), hot), np.zeros((1, 6, 3))]))
        ends.append(rbm.sample(steps=1).sample)
    assert np.array_equal(*ends)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: negative.CD(0), "`k` must be an integer >= 1; got 0"),
        (lambda: negative.CD(reconstruction="both"), '"sample" or "mean"; got \'both\''),
        (lambda: negative.PCD(1, 0), "`chains` must be an integer >= 1; got 0"),
        (lambda: negative.FastPCD(rate=0), "`rate` must be a number > 0; got 0"),
        (lambda: negative.FastPCD(rate=float("nan")), "`rate` must be a number > 0; got nan"),
        (lambda: negative.FastPCD(decay=1.0), r"`decay` must be a number in \[0, 1\); got 1.0"),
        (lambda: negative.ParallelTempering(temperatures=1), "`temperatures` must be .*; got 1"),
        (lambda: negative.ParallelTempering(temperatures=[0.2, 1]), "must rise from 0 to 1"),
        (lambda: negative.ParallelTempering(base_rates=[[0.5]]), r"got shape \(1, 1\)"),
        (lambda: dbn.RBM(3, negative="pcd"), "must be a `dbn.negative.NegativePhase`; got 'pcd'"),
        (lambda: dbn.RBM(3, k=2, negative=negative.CD()), "Give either `negative` or `k`"),
        (
            lambda: dbn.RBM(3, negative=negative.ParallelTempering(base_rates=[0.5])).build(
                (None, 4)
            ),
            r"`base_rates` must have shape \(4,\); got \(1,\)",
        ),
        (
            lambda: dbn.RBM(3, negative=negative.ParallelTempering(base_rates=[0.5, 2])).build(
                (None, 2)
            ),
            r"`base_rates` must lie in \[0, 1\] for bernoulli units; got values from 0.5 to 2",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_phase_serves_one_rbm():
    phase = negative.PCD()
    first, second = (dbn.RBM(3, negative=phase, name=name) for name in ("first", "second"))
    first.build((None, 4))
    with pytest.raises(ValueError, match="`negative` serves 'first' already.*a `PCD` of its own"):
        second.build((None, 4))
    del first
    gc.collect()
    with pytest.raises(ValueError, match="`negative` serves an RBM that is gone already"):
        second.build((None, 4))


def test_fast_weights_learn_the_same_whatever_scales_the_loss():
    x = np.random.default_rng(0).integers(0, 2, (40, 6)).astype("float32")

    def fitted(scale):
        optimizer = keras.optimizers.SGD(0.01)
        if scale is not None:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
        keras.utils.set_random_seed(2)
        phase = negative.FastPCD(1, 10, rate=0.1)
        rbm = dbn.RBM(4, seed=1, negative=phase)
        rbm.compile(optimizer, run_eagerly=True)
        rbm.fit(x, batch_size=10, verbose=0)
        return [np.array(weights) for weights in (*phase.fast, rbm.layer.W)]

    plain = fitted(None)
    assert all(np.abs(weights).max() > 1e-3 for weights in plain[:3])
    for found, expected in zip(fitted(2.0**15), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    # Every gradient overflows, and every update is skipped.
    *fast, W = fitted(float("inf"))
    assert all(np.all(weights == 0) for weights in fast) and np.all(np.isfinite(W))
