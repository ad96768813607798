import numpy as np
import pytest
import tensorflow as tf

import dbn
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
    for jit_compile in (False, True):
        at_once = tf.function(
            lambda v: likelihood.pseudo_log_likelihood(layer, v), jit_compile=jit_compile
        )
        assert np.allclose(at_once(v), exact, rtol=tolerance)


def test_exact_pseudo_log_likelihood_of_large_layers(reference):
    rbm = reference.random(50, 30, seed=1, scale=0.3)
    v = np.random.default_rng(2).integers(0, 2, (40, 50)).astype("float32")
    expected = np.mean([rbm.pseudo_log_likelihood(v, bit) for bit in range(50)], 0)
    assert np.allclose(likelihood.pseudo_log_likelihood(rbm.layer(), v), expected, rtol=1e-5)


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


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"visible": "gaussian"}, "needs Bernoulli or spin visible units.* got 'gaussian'"),
        ({"hidden": "relu"}, "no 'relu' hidden ones; got 'bernoulli' and 'relu'"),
    ],
)
def test_pseudo_likelihood_needs_bits(sides, message):
    layer = dbn.RBMLayer(3, **sides)
    layer.build((None, 4))
    with pytest.raises(ValueError, match=message):
        likelihood.pseudo_log_likelihood(layer, tf.zeros((2, 4)), 0)
    rbm = dbn.RBM(layer, persistent=True)
    with pytest.raises(ValueError, match=message):
        rbm.compile(metrics=["pseudo_log_likelihood"])
    rbm.compile()
    history = rbm.fit(np.eye(4), verbose=0).history
    assert list(history) == ["reconstruction_cross_entropy"]


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


# log Z and log-likelihood


@pytest.mark.parametrize(("visible", "hidden"), [(4, 3), (3, 5), (1, 6), (13, 2), (6, 6)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_log_partition(visible, hidden, scale, dtype, reference):
    rbm = reference.random(visible, hidden, seed=6, scale=scale)
    layer = rbm.layer(dtype)
    found = likelihood.exact_log_partition(layer)
    # The layer's weights are rounded, the sum is not.
    assert found.value == pytest.approx(reference.of(layer).log_partition(), rel=1e-12)
    assert (found.low, found.high) == (found.value, found.value)
    assert (found.standard_error, found.effective_sample_size) == (0, np.inf)
    assert likelihood.exact_log_partition(dbn.RBM(layer)) == found


def test_exact_log_partition_in_blocks(reference):
    """2**14 states are four blocks; independent units have a closed form."""
    random = np.random.default_rng(0)
    rbm = reference(np.zeros((14, 14)), random.normal(size=14), random.normal(size=14))
    expected = np.logaddexp(0, rbm.hbias).sum() + np.logaddexp(0, rbm.vbias).sum()
    assert likelihood.exact_log_partition(rbm.layer("float64")).value == pytest.approx(expected)


def test_exact_log_partition_sees_changed_weights(reference):
    rbm = reference.random(4, 3, seed=7)
    layer = rbm.layer("float64")
    likelihood.exact_log_partition(layer)
    layer.W.assign(2 * rbm.W)
    found = likelihood.exact_log_partition(layer).value
    assert found == pytest.approx(reference(2 * rbm.W, rbm.hbias, rbm.vbias).log_partition())


def test_exact_log_partition_of_every_combination(any_joint):
    found = likelihood.exact_log_partition(any_joint.layer("float64"))
    assert found.value == pytest.approx(any_joint.log_partition, abs=1e-9)


@pytest.mark.parametrize(
    "types",
    [
        ("bernoulli", "gaussian"),
        ("binomial", "bernoulli"),
        ("categorical", "categorical"),
        ("gaussian", "spin"),
        ("groups", "gaussian"),
        ("scaled", "bernoulli"),
    ],
    ids="-".join,
)
def test_annealed_importance_sampling_of_every_type(types, joint):
    model = joint(*types)
    layer, rates = model.layer(), model.draw(200, seed=7)[0].mean(0)
    found = likelihood.annealed_importance_sampling(layer, rates, chains=2000, temperatures=10)
    assert 0 < found.standard_error < 0.05
    assert abs(found.value - model.log_partition) < 4 * found.standard_error


def test_noisy_rectified_units_have_no_likelihood():
    layer = dbn.RBMLayer(3, hidden="relu")
    layer.build((None, 4))
    x = np.eye(4, dtype="float32")
    for measure in (
        likelihood.exact_log_partition,
        likelihood.annealed_importance_sampling,
        lambda layer: likelihood.log_likelihood(layer, x),
        lambda layer: likelihood.raise_log_likelihood(layer, x),
        lambda layer: dbn.RBM(layer, negative=dbn.negative.ParallelTempering()).build((None, 4)),
    ):
        with pytest.raises(ValueError, match="need a density, and 'relu' units have none"):
            measure(layer)


def test_exact_log_partition_says_what_is_too_large():
    layer = dbn.RBMLayer(26)
    layer.build((None, 30))
    message = "30 bernoulli visible and 26 bernoulli hidden .* at most 2.25 .*annealed_importance"
    with pytest.raises(ValueError, match=message):
        likelihood.exact_log_partition(layer)
    with pytest.raises(ValueError, match="not built"):
        likelihood.exact_log_partition(dbn.RBMLayer(3))


def test_log_likelihood_is_exact_for_a_small_rbm(reference):
    rbm = reference.random(6, 4, seed=8)
    x = np.random.default_rng(0).integers(0, 2, (2500, 6)).astype("float32")
    exact = rbm.log_likelihood(x)
    found = likelihood.log_likelihood(rbm.layer(), x)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-6)
    assert found.low == found.high == found.mean
    assert found.standard_error == pytest.approx(exact.std(ddof=1) / 50, rel=1e-5)
    assert found.log_partition.value == pytest.approx(rbm.log_partition(), rel=1e-6)


def test_log_likelihood_hands_on_the_interval_of_log_z(reference):
    rbm = reference.random(6, 4, seed=8)
    x = rbm.states(6)
    given = likelihood.LogPartition(7.0, 0.1, 6.5, 7.2, 100.0)
    found = likelihood.log_likelihood(rbm.layer(), x, given)
    mean = -rbm.free_energy(x).mean()
    assert (found.low, found.mean, found.high) == pytest.approx((mean - 7.2, mean - 7, mean - 6.5))
    assert found.log_partition is given
    assert likelihood.log_likelihood(rbm.layer(), x[:1], given).standard_error == np.inf


def test_log_likelihood_of_a_larger_rbm_is_estimated_from_the_means_of_the_cases(reference):
    rbm = reference(np.zeros((30, 22)), np.zeros(22), np.full(30, -1.0))
    x = (np.random.default_rng(0).random((500, 30)) < rbm.sigmoid(-1.0)).astype("float32")
    found = likelihood.log_likelihood(rbm.layer(), x)
    exact = -rbm.free_energy(x).mean() - 22 * np.log(2) - 30 * np.logaddexp(0, -1.0)
    assert found.low < exact < found.high
    assert 0 < found.high - found.low < 0.1


def test_grey_levels_are_warned_of(reference):
    x = np.full((2, 6), 0.5)
    with pytest.warns(RuntimeWarning, match="`x` holds values between 0 and 1.* Binarise"):
        likelihood.log_likelihood(reference.random(6, 4).layer(), x)


@pytest.mark.parametrize("x", [np.zeros((2, 5)), np.full((2, 6), 1.5), np.zeros((0, 6))])
def test_log_likelihood_refuses(x, reference):
    with pytest.raises(ValueError, match="`x`"):
        likelihood.log_likelihood(reference.random(6, 4).layer(), x)


# DBN


def small_stack(reference, sizes=(4, 3, 3, 2)):
    """A stack of given RBMs that counts as pretrained, and the RBMs."""
    rbms = [
        reference.random(visible, hidden, seed=number, scale=0.8)
        for number, (visible, hidden) in enumerate(zip(sizes, sizes[1:], strict=False))
    ]
    stack = dbn.DBN([rbm.layer() for rbm in rbms])
    stack.build((None, sizes[0]))
    for rbm in stack.rbms:
        rbm.epochs.assign(1)
    return stack, rbms


def enumerated_bound(rbms):
    """The bound of every visible state, and its log p(v), from the tables of the RBMs."""
    top = rbms[-1]
    inner, log_p = -top.enumerated_free_energy() - top.log_partition(), np.log(top.p_v())
    for rbm in reversed(rbms[:-1]):
        q, down = rbm.p_h_given_v(), rbm.p_v_given_h()
        # Each term of E_Q[log p(v | h) - log Q(h | v) + what h gives above].
        inner = (q * (np.log(down.T) - np.log(q) + inner)).sum(1)
        log_p = np.log(np.exp(log_p) @ down)
    return inner, log_p


@pytest.mark.parametrize("sizes", [(4, 3, 2), (4, 3, 3, 2)])
def test_variational_lower_bound(sizes, reference):
    stack, rbms = small_stack(reference, sizes)
    v = rbms[0].states(4)
    bound, log_p = enumerated_bound(rbms)
    assert np.all(bound < log_p)
    found = [
        likelihood.variational_lower_bound(stack, v, samples=20, seed=seed).mean
        for seed in range(40)
    ]
    error = np.std(found, ddof=1) / np.sqrt(40)
    assert 0 < error < 0.02
    assert np.mean(found) == pytest.approx(bound.mean(), abs=4 * error)


def test_variational_lower_bound_of_one_rbm_is_its_log_likelihood(reference):
    stack, (rbm,) = small_stack(reference, (4, 3))
    x = np.repeat(rbm.states(4), 100, 0)
    found = likelihood.variational_lower_bound(stack, x, samples=1)
    exact = rbm.log_likelihood(x)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-6)
    assert found.standard_error == pytest.approx(exact.std(ddof=1) / 40, rel=1e-5)
    given = likelihood.LogPartition(7.0, 0.1, 6.5, 7.2, 100.0)
    found = likelihood.variational_lower_bound(stack, x, given)
    mean = -rbm.free_energy(x).mean()
    assert (found.low, found.mean, found.high) == pytest.approx((mean - 7.2, mean - 7, mean - 6.5))


def test_variational_lower_bound_refuses(reference):
    stack, _ = small_stack(reference)
    with pytest.raises(ValueError, match="`x` must have width 4"):
        likelihood.variational_lower_bound(stack, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="`samples` must be an integer >= 1"):
        likelihood.variational_lower_bound(stack, np.zeros((2, 4)), samples=0)
    stack.rbms[1].epochs.assign(0)
    with pytest.raises(ValueError, match="Layer 2 of the stack has not been pretrained"):
        likelihood.variational_lower_bound(stack, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="Layer 1 of the stack has not been pretrained"):
        likelihood.variational_lower_bound(dbn.DBN([3, 2]), np.zeros((2, 4)))
