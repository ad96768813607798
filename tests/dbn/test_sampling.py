from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from dbn import noise, sampling
from dbn.sampling import Samples


@pytest.fixture(scope="module")
def rbm(reference):
    return reference.random(4, 3, seed=0, scale=1.5)


@pytest.fixture(scope="module")
def layer(rbm):
    return rbm.layer()


def coins(*shape, seed=0):
    return tf.cast(noise.uniforms(shape, seed, stream=noise.Stream.START) < 0.5, tf.float32)


def moments(v):
    """First and second moments, `(cases, n + n * n)`."""
    v = np.asarray(v, "float64")
    return np.concatenate([v, (v[:, :, None] * v[:, None]).reshape(len(v), -1)], 1)


def test_noise_of_an_update(layer):
    u = sampling.gibbs_noise(layer, chains=5, k=3, seed=7, step=11)
    assert u.shape == (3, 5, 7)
    assert np.array_equal(u, noise.uniforms((3, 5, 7), 7, 11, noise.Stream.UPDATE))
    assert np.array_equal(u, sampling.gibbs_noise(layer, tf.constant(5), 3, 7, tf.constant(11)))


@pytest.mark.parametrize(
    ("k", "jit_compile"),
    [(1, None), (32, None), (33, None), (50, None), (3, False), (50, False), (3, True), (50, True)],
)
def test_k_steps_are_one_step_k_times(k, jit_compile, layer):
    """Up to 32 steps are unrolled, more are a loop."""
    u = sampling.gibbs_noise(layer, 6, k, seed=2, step=0)
    h0, v0 = coins(6, 3), coins(6, 4)
    hvh, vhv = sampling.gibbs_hvh, sampling.gibbs_vhv
    if jit_compile is not None:
        hvh, vhv = (
            tf.function(lambda s, u, f=f: f(layer, s, u, k), jit_compile=jit_compile)
            for f in (hvh, vhv)
        )
        v_k, h_k = hvh(h0, u)
        end = vhv(v0, u)
    else:
        v_k, h_k = hvh(layer, h0, u, k)
        end = vhv(layer, v0, u, k)
    v, h = v0, h0
    for i in range(k):
        v = layer.gibbs_vhv(v, u[i])[-1]
        _, _, v_of_h, _, _, h = layer.gibbs_hvh(h, u[i])
    assert np.array_equal(v_k, v_of_h) and np.array_equal(h_k, h)
    assert np.array_equal(end, v)


@pytest.mark.parametrize("k", [1, 5, 32, 33, 50])
def test_each_step_uses_its_own_noise_once_and_in_order(k):
    """With a step that, unlike a chain, forgets nothing."""

    def step(state, u):
        return (3 * state + u) % 1_000_003

    forgets_nothing = SimpleNamespace(
        uniforms_per_step=(2, 2),
        gibbs_vhv=lambda v, u: (step(v, u),),
        gibbs_hvh=lambda h, u: (None, None, step(h, u) + 1, None, None, step(h, u)),
    )
    u = np.random.default_rng(0).integers(0, 1_000_003, (k, 6, 4))
    start = state = u[0] // 2
    for i in range(k):
        state = step(state, u[i])
    start, u = tf.constant(start), tf.constant(u)
    assert np.array_equal(sampling.gibbs_vhv(forgets_nothing, start, u, k), state)
    v, h = sampling.gibbs_hvh(forgets_nothing, start, u, k)
    assert np.array_equal(v, state + 1) and np.array_equal(h, state)


def test_k_steps_by_hand(rbm, layer):
    """Independent of the layer, from the uniform numbers to the states."""
    u = sampling.gibbs_noise(layer, 200, 5, seed=3, step=0)
    h = np.array(coins(200, 3))
    ours = sampling.gibbs_hvh(layer, h, u, 5)
    for u_v, u_h in zip(np.array(u[..., :4]), np.array(u[..., 4:]), strict=True):
        v = u_v < rbm.mean_v(h)
        h = u_h < rbm.mean_h(v)
    assert np.array_equal(ours[0], v) and np.array_equal(ours[1], h)


@pytest.mark.parametrize("function", [sampling.gibbs_hvh, sampling.gibbs_vhv])
@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "`k` must be an integer >= 1; got 0"),
        (2.0, "`k` must be an integer >= 1; got 2.0"),
        (2, r"`noise` must have shape \(2, 6, 7\), .*; got \(3, 6, 7\)"),
        (40, r"`noise` must have shape \(40, 6, 7\), .*; got \(3, 6, 7\)"),
    ],
)
def test_bad_k(function, k, message, layer):
    start = coins(6, 3 if function is sampling.gibbs_hvh else 4)
    with pytest.raises(ValueError, match=message):
        function(layer, start, sampling.gibbs_noise(layer, 6, 3, 0, 0), k)


@pytest.mark.parametrize("shape", [(2, 1, 7), (2, 6, 8), (6, 7), (2, 5, 7)])
@pytest.mark.parametrize("function", [sampling.gibbs_hvh, sampling.gibbs_vhv])
def test_noise_of_another_shape_is_refused(function, shape, layer):
    start = coins(6, 3 if function is sampling.gibbs_hvh else 4)
    with pytest.raises(ValueError, match=r"`noise` must have shape \(2, 6, 7\), .*; got \("):
        function(layer, start, tf.fill(shape, 0.5), 2)


def test_long_chains_reach_the_model(rbm, layer, assert_mean):
    """gibbs_hvh, as PCD runs it: 20,000 chains, 50 steps from zeros."""
    u = sampling.gibbs_noise(layer, 20_000, 50, seed=4, step=0)
    v, h = sampling.gibbs_hvh(layer, tf.zeros((20_000, 3)), u, 50)
    assert_mean(moments(v), rbm.p_v() @ moments(rbm.states(4)))
    assert_mean(moments(h), rbm.p_h() @ moments(rbm.states(3)))


def test_the_model_is_invariant(rbm, layer, assert_mean):
    """One step from exact samples leaves every visible state as probable as it was."""
    chains, p = 40_000, rbm.p_v()
    start = rbm.states(4)[np.random.default_rng(5).choice(16, chains, p=p)]
    end = sampling.sample(layer, start, steps=1, seed=6).sample
    number = np.asarray(end) @ [8, 4, 2, 1]
    assert_mean(number[:, None] == np.arange(16), p)


def test_sampled_distribution(rbm, layer, assert_mean):
    samples = sampling.sample(layer, coins(40_000, 4), steps=60, seed=7)
    number = np.asarray(samples.sample) @ [8, 4, 2, 1]
    assert_mean(number[:, None] == np.arange(16), rbm.p_v())
    # The means are those of the last hidden sample: each one of 8 rows, as often as its p(h).
    rows = rbm.mean_v(rbm.states(3))
    distance = np.abs(np.asarray(samples.mean)[:, None] - rows[None]).max(-1)
    assert distance.min(1).max() < 1e-6
    assert_mean(distance < 1e-6, rbm.p_h())


def test_sample_continues_bit_for_bit(layer):
    start = coins(10, 4)
    whole = sampling.sample(layer, start, steps=1000, seed=8)
    half = sampling.sample(layer, start, steps=500, seed=8)
    assert (half.steps, whole.steps) == (500, 1000)
    rest = sampling.sample(layer, half, steps=500, seed=8)
    assert rest.steps == 1000
    assert np.array_equal(rest.sample, whole.sample) and np.array_equal(rest.mean, whole.mean)
    assert not np.array_equal(half.sample, whole.sample)
    # Not just any 500 further steps: those with their own numbers.
    restart = sampling.sample(layer, half.sample, steps=500, seed=8)
    assert not np.array_equal(restart.sample, whole.sample)


def test_steps_use_the_noise_of_seed_and_step(rbm, layer):
    v = np.array(coins(100, 4))
    ours = sampling.sample(layer, Samples(None, v, 17), steps=3, seed=9)
    for t in (17, 18, 19):
        u = np.array(noise.uniforms((100, 7), 9, t, noise.Stream.SAMPLE))
        mean = rbm.mean_v(u[:, 4:] < rbm.mean_h(v))
        v = u[:, :4] < mean
    assert np.array_equal(ours.sample, v)
    assert np.allclose(ours.mean, mean, rtol=1e-5)
    assert ours.steps == 20


@pytest.mark.parametrize(
    "convert",
    [list, np.float64, lambda x: x.astype("uint8"), tf.constant],
    ids=["list", "float64", "uint8", "tensor"],
)
def test_starts_of_any_type(convert, layer):
    start = np.array(coins(5, 4))
    ours = sampling.sample(layer, convert(start), 2, 0)
    assert np.array_equal(ours.sample, sampling.sample(layer, start, 2, 0).sample)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_bad_steps(steps, layer):
    with pytest.raises(ValueError, match="`steps` must be an integer >= 1"):
        sampling.sample(layer, coins(5, 4), steps, 0)


def test_clamped_sampling_is_conditional(rbm, layer, assert_mean):
    """Each chain against p(free units | its clamped ones), from enumeration."""
    mask, values = np.array([True, False, True, False]), [[0, 0], [0, 1], [1, 0], [1, 1]]
    each = 10_000
    start = np.array(coins(4 * each, 4, seed=10))
    start[:, mask] = np.repeat(values, each, 0)
    samples = sampling.sample(layer, start, steps=50, seed=11, clamp=mask)
    v, states, p = np.asarray(samples.sample), rbm.states(4), rbm.p_v()
    assert np.array_equal(v[:, mask], start[:, mask])
    assert np.array_equal(np.asarray(samples.mean)[:, mask], start[:, mask])
    exact = []
    for i, value in enumerate(values):
        fits = np.all(states[:, mask] == value, 1)
        conditional = p[fits] / p[fits].sum()
        exact.append(conditional)
        number = v[i * each : (i + 1) * each][:, ~mask] @ [2, 1]
        assert_mean(number[:, None] == np.arange(4), conditional)
    # Were the clamped units ignored, the four would be alike.
    assert np.ptp(exact, axis=0).max() > 0.1


def test_clamped_values_stay_exact(layer):
    """Any value, any mask for each chain, over a continued run."""
    start = np.random.default_rng(0).random((8, 4)).astype("float32")
    mask = np.random.default_rng(1).random((8, 4)) < 0.5
    first = sampling.sample(layer, start, 5, seed=1, clamp=mask)
    again = sampling.sample(layer, first, 5, seed=1, clamp=mask)
    for samples in (first, again):
        assert np.array_equal(np.asarray(samples.sample)[mask], start[mask])
        assert np.array_equal(np.asarray(samples.mean)[mask], start[mask])
        assert np.isin(np.asarray(samples.sample)[~mask], [0, 1]).all()
    whole = sampling.sample(layer, start, 10, seed=1, clamp=mask)
    assert np.array_equal(again.sample, whole.sample)


def test_nothing_clamped_is_no_clamp(layer):
    start = coins(8, 4)
    free = sampling.sample(layer, start, 5, seed=1)
    unmasked = sampling.sample(layer, start, 5, seed=1, clamp=np.zeros(4, bool))
    assert np.array_equal(free.sample, unmasked.sample)
    held = sampling.sample(layer, start, 5, seed=1, clamp=np.ones(4, bool))
    assert np.array_equal(held.sample, start) and np.array_equal(held.mean, start)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_other_precisions(dtype, rbm, assert_mean):
    layer = rbm.layer(dtype)
    samples = sampling.sample(layer, coins(20_000, 4), steps=40, seed=12)
    assert samples.sample.dtype == layer.variable_dtype
    # Products in bfloat16 move probabilities by up to 2e-3.
    exact = rbm.p_v() @ moments(rbm.states(4))
    slack = 2e-3 if dtype == "mixed_bfloat16" else 0
    error = moments(samples.sample).std(0) / np.sqrt(20_000)
    assert np.all(np.abs(moments(samples.sample).mean(0) - exact) < 4 * error + slack)
