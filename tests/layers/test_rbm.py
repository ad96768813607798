import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.testing import TestCase

import dbn
from dbn import RBMLayer, noise
from dbn.layers import Bernoulli, Binomial, Categorical, Mixed, ScaledGaussian

DTYPES = [("float32", 1e-5), ("float64", 1e-12)]


def built(visible=4, hidden=3, **kwargs):
    layer = RBMLayer(hidden, **kwargs)
    layer.build((None, visible))
    return layer


def dense(units=3, visible=4, **kwargs):
    layer = keras.layers.Dense(units, **{"activation": "sigmoid", **kwargs})
    if visible:
        layer.build((None, visible))
    return layer


def uniforms(*shape, seed=0):
    return noise.uniforms(shape, seed)


# Initial values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("visible", "hidden"), [(784, 500), (100, 1000), (64, 3)])
def test_initial_weights_are_the_tutorials(visible, hidden, assert_mean):
    keras.utils.set_random_seed(1)
    layer = built(visible, hidden)
    W = np.ravel(layer.W.value)
    bound = 4 * np.sqrt(6 / (visible + hidden))
    assert np.abs(W).max() <= bound
    # The largest of n uniform numbers is below 1 - t with probability (1 - t)**n = 1e-6.
    assert np.abs(W).max() > bound * (1 - 14 / W.size)
    assert_mean(W, 0)
    assert_mean(W**2, bound**2 / 3)
    assert_mean(W**4, bound**4 / 5)
    assert not np.any(layer.hbias.value) and not np.any(layer.vbias.value)


@pytest.mark.parametrize("sides", [("gaussian", "bernoulli"), ("bernoulli", "relu")])
def test_initial_weights_between_other_types_are_small(sides, assert_mean):
    keras.utils.set_random_seed(1)
    layer = RBMLayer(100, *sides)
    layer.build((None, 200))
    W = np.ravel(layer.W.value)
    assert_mean(W, 0)
    assert_mean(W**2, 1e-4)
    assert_mean(W**4, 3e-8)


def test_weight_decay_of_the_dense_that_the_layer_makes():
    layer = RBMLayer(3, kernel_regularizer=keras.regularizers.L2(0.1))
    layer.build((None, 4))
    expected = 0.1 * np.sum(np.square(layer.W.value))
    assert len(layer.losses) == 1 and np.allclose(layer.losses[0], expected)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert np.allclose(again.dense.kernel_regularizer.l2, 0.1)
    with pytest.raises(ValueError, match="`kernel_regularizer` are for the Dense that the layer"):
        RBMLayer(dense=dense(), kernel_regularizer="l2")


def test_initial_weights_follow_keras_seed():
    weights = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        weights.append(np.array(built().W.value))
    assert np.array_equal(weights[0], weights[1]) and not np.any(weights[0] == weights[2])


def test_other_initialisers():
    layer = built(
        kernel_initializer="ones",
        hbias_initializer=keras.initializers.Constant(-4.0),
        vbias_initializer=keras.initializers.Constant(2.0),
    )
    for variable, shape, value in (
        (layer.W, (4, 3), 1),
        (layer.hbias, (3,), -4),
        (layer.vbias, (4,), 2),
    ):
        assert np.array_equal(variable.value, np.full(shape, value))


# Energies and conditionals ------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("visible", "hidden"), [(4, 3), (784, 500)])
def test_formulas(dtype, tolerance, visible, hidden, reference):
    rbm = reference.random(visible, hidden, seed=1, scale=0.3)
    layer = rbm.layer(dtype)
    random = np.random.default_rng(2)
    v, h = random.random((20, visible)), random.integers(0, 2, (20, hidden)).astype("float64")

    def agree(ours, expected):
        assert ours.dtype == dtype
        assert np.allclose(ours, expected, rtol=tolerance, atol=tolerance)

    for (pre_activation, mean), a, p in (
        (layer.propup(tf.constant(v, dtype)), v @ rbm.W + rbm.hbias, rbm.mean_h(v)),
        (layer.propdown(tf.constant(h, dtype)), h @ rbm.W.T + rbm.vbias, rbm.mean_v(h)),
    ):
        agree(pre_activation, a)
        agree(mean, p)
    agree(layer(tf.constant(v, dtype)), rbm.mean_h(v))
    agree(layer.energy(v, h), rbm.energy(v, h))
    agree(layer.free_energy(v), rbm.free_energy(v))


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_free_energy_sums_out_the_hidden_units(dtype, tolerance, reference):
    rbm = reference.random(6, 5, seed=3)
    ours = rbm.layer(dtype).free_energy(rbm.states(6))
    assert np.allclose(ours, rbm.enumerated_free_energy(), rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_conditionals_are_those_of_the_joint_distribution(dtype, tolerance, reference):
    rbm = reference.random(4, 3, seed=4)
    layer, v, h = rbm.layer(dtype), rbm.states(4), rbm.states(3)
    assert np.allclose(layer.propup(v)[1], rbm.p_h_given_v() @ h, rtol=tolerance)
    assert np.allclose(layer.propdown(h)[1], rbm.p_v_given_h() @ v, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_free_energy_gradient(dtype, tolerance, reference):
    rbm = reference.random(30, 20, seed=5, scale=0.5)
    layer, v = rbm.layer(dtype), np.random.default_rng(0).random((10, 30))
    variables = [layer.W, layer.hbias, layer.vbias]
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(layer.free_energy(v))
    for ours, exact in zip(
        tape.gradient(mean, [x.value for x in variables]),
        rbm.free_energy_gradient(v),
        strict=True,
    ):
        assert np.allclose(ours, exact, rtol=tolerance, atol=tolerance)


def test_fifty_times_the_weights(reference):
    """Sums of thousands: finite, and still those of float64."""
    rbm = reference.random(784, 500, seed=6, scale=0.3)
    rbm = reference(50 * rbm.W, rbm.hbias, rbm.vbias)
    layer = rbm.layer()
    v = np.random.default_rng(7).integers(0, 2, (20, 784)).astype("float32")
    assert np.abs(rbm.W.T @ v.T).max() > 1000
    u = uniforms(20, 500)
    h = layer.sample_h_given_v(v, u)[-1]
    with tf.GradientTape(persistent=True) as tape:
        free_energy = layer.free_energy(v)
        cross_entropy = dbn.likelihood.reconstruction_cross_entropy(layer, v, u)
    assert np.allclose(free_energy, rbm.free_energy(v), rtol=1e-5)
    assert np.allclose(cross_entropy, rbm.reconstruction_cross_entropy(v, h), rtol=1e-5)
    for cost in (free_energy, cross_entropy):
        for gradient in tape.gradient(cost, [layer.W.value, layer.vbias.value]):
            assert np.all(np.isfinite(gradient))
    # A float32 pre-activation in the thousands is good to 2e-4; where it is near 0, a sigmoid has a
    # quarter of that.
    ours = tape.gradient(free_energy, layer.W.value) / 20
    assert np.allclose(ours, rbm.free_energy_gradient(v)[0], rtol=1e-5, atol=5e-5)


def test_bfloat16_products_keep_free_energies(reference):
    # Products with 8 bits of mantissa, sums with 24; bfloat16 sums alone would be off by up to 2.
    rbm = reference.random(784, 500, seed=8, scale=0.05)
    layer = rbm.layer("mixed_bfloat16")
    v = np.random.default_rng(7).integers(0, 2, (20, 784)).astype("float32")
    assert layer.W.dtype == "float32"
    ours = layer.free_energy(v)
    assert ours.dtype == "float32" and np.abs(ours).min() > 300
    assert np.abs(ours - rbm.free_energy(v)).max() < 0.3
    assert layer(v).dtype == "bfloat16"


# Every combination of unit types ------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_energies_of_every_combination(dtype, tolerance, any_joint):
    """The free energy is the log of the sum, or the integral, over the hidden units."""
    v, h = any_joint.draw(20, seed=1)
    layer = any_joint.layer(dtype)
    for ours, expected in (
        (layer.energy(v, h), any_joint.energy(v, h)),
        (layer.free_energy(v), any_joint.free_energy(v)),
    ):
        assert np.allclose(ours, expected, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_conditional_means_of_every_combination(dtype, tolerance, any_joint):
    layer, p = any_joint.layer(dtype), any_joint.p
    # States that are neither impossible nor cut off by the end of the grid.
    rows, columns = p.sum(1) > 1e-6, p.sum(0) > 1e-6
    expected = p[rows] @ any_joint.h / p[rows].sum(1, keepdims=True)
    assert np.allclose(layer.propup(any_joint.v[rows])[1], expected, rtol=tolerance, atol=tolerance)
    expected = p[:, columns].T @ any_joint.v / p[:, columns].sum(0)[:, None]
    assert np.allclose(
        layer.propdown(any_joint.h[columns])[1], expected, rtol=tolerance, atol=tolerance
    )
    assert np.allclose(layer(any_joint.v[rows]), layer.propup(any_joint.v[rows])[1])


def test_gradients_of_every_combination(any_joint):
    """Against central differences of the free energy by summing or integrating."""
    v, _ = any_joint.draw(5, seed=2)
    layer = any_joint.layer("float64")
    parameters = any_joint.parameters()
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(layer.free_energy(v))
    found = tape.gradient(mean, [any_joint.variable(layer, name).value for name in parameters])
    for gradient, value in zip(found, parameters.values(), strict=True):
        for at in np.ndindex(value.shape):
            sides = []
            for step in (1e-5, -1e-5):
                value[at] += step
                sides.append(any_joint.free_energy(v).mean())
                value[at] -= step
            difference = (sides[0] - sides[1]) / 2e-5
            assert np.allclose(gradient[at], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["hvh", "vhv"])
def test_gibbs_steps_of_every_combination_have_the_moments_of_the_joint(
    kind, any_joint, assert_mean
):
    """Few steps from draws of it leave it invariant; long chains from one state reach it."""
    layer, (v, h) = any_joint.layer(), any_joint.draw(40_000, seed=3)
    if kind == "vhv":
        v = np.repeat(any_joint.v[:1], len(v), axis=0)
    for step in range(3 if kind == "hvh" else 60):
        u = noise.uniforms((len(v), sum(layer.uniforms_per_step)), seed=4, step=step)
        if kind == "hvh":
            _, _, v, _, _, h = layer.gibbs_hvh(np.float32(h), u)
        else:
            _, _, h, _, _, v = layer.gibbs_vhv(np.float32(v), u)
    if kind == "vhv":  # v comes last there, so h belongs to the v before it.
        u = noise.uniforms((len(v), layer.uniforms_per_step[1]), seed=5)
        h = layer.sample_h_given_v(v, u)[-1]
    assert_mean(any_joint.moments_of(v, h), any_joint.moments())


def test_visible_bias_from_data_of_every_type(any_joint):
    layer, x = any_joint.layer(), any_joint.draw(200, seed=6)[0].astype("float32")
    layer.set_vbias_from_data(x)
    assert np.allclose(layer.visible.mean(layer.vbias[None])[0], x.mean(0), atol=1e-5)


@pytest.mark.parametrize(
    "visible", ["gaussian", "scaled_gaussian", Mixed([("spin", 1), ("gaussian", 1)])]
)
def test_two_gaussian_sides_are_refused(visible):
    with pytest.raises(ValueError, match="Gaussian `visible` and Gaussian `hidden`.*W stay below"):
        RBMLayer(3, visible=visible, hidden="gaussian")


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"visible": "relu"}, "`visible` cannot be 'relu' units: data have no use"),
        ({"hidden": "scaled_gaussian"}, "`hidden` cannot be 'scaled_gaussian' units: the variance"),
        ({"hidden": Binomial(3)}, r"`hidden` cannot be 'binomial' units: .* n sigmoid\(a\), is"),
        ({"hidden": Categorical([2, 3])}, "`hidden` cannot be 'categorical' units: .* one group"),
        ({"hidden": Mixed([("spin", 5)])}, "`hidden` cannot be 'mixed' units: .* one activation"),
    ],
)
def test_sides_that_a_type_cannot_be_on(sides, message):
    with pytest.raises(ValueError, match=message):
        RBMLayer(5, **sides)


def test_units_that_do_not_make_whole_groups_are_refused():
    with pytest.raises(ValueError, match=r"sizes 3 do not make 7 units.*one_hot\(codes\)"):
        RBMLayer(2, visible=Categorical(3)).build((None, 7))


def test_mixed_units_have_the_columns_of_their_parts():
    with pytest.raises(ValueError, match=r"`Mixed` units of 2 \+ 3 = 5 columns cannot be 6 units"):
        RBMLayer(2, visible=Mixed([("spin", 2), ("categorical", 3)])).build((None, 6))


def test_learnt_variances_serve_one_layer():
    kind = ScaledGaussian()
    RBMLayer(2, visible=kind).build((None, 3))
    with pytest.raises(ValueError, match="serve an RBMLayer already"):
        RBMLayer(2, visible=kind).build((None, 3))


@pytest.mark.parametrize(
    ("hidden", "activation"),
    [
        ("bernoulli", "sigmoid"),
        ("categorical", "softmax"),
        ("gaussian", "linear"),
        ("relu", "relu"),
        ("spin", "tanh"),
    ],
)
def test_the_shared_dense_has_the_activation_of_the_hidden_type(hidden, activation):
    assert RBMLayer(3, hidden=hidden).dense.activation is keras.activations.get(activation)
    layer = RBMLayer(dense=dense(activation=activation), hidden=hidden)
    assert layer.units == 3
    with pytest.raises(ValueError, match=f"{hidden} hidden units need {activation!r}"):
        RBMLayer(dense=dense(activation="elu"), hidden=hidden)


# Gibbs steps --------------------------------------------------------------------------------------


def test_gibbs_steps_by_hand(reference):
    """All six results in the tutorial's order, the uniforms of the visible units first."""
    rbm = reference.random(4, 3, seed=9)
    layer, u = rbm.layer(), uniforms(50, 7)
    u_v, u_h = np.array(u[:, :4]), np.array(u[:, 4:])
    random = np.random.default_rng(0)

    h0 = random.integers(0, 2, (50, 3)).astype("float64")
    v1 = (u_v < rbm.mean_v(h0)).astype("float64")
    h1 = (u_h < rbm.mean_h(v1)).astype("float64")
    down = (h0 @ rbm.W.T + rbm.vbias, rbm.mean_v(h0), v1)
    up = (v1 @ rbm.W + rbm.hbias, rbm.mean_h(v1), h1)
    for ours, expected in zip(layer.gibbs_hvh(h0, u), (*down, *up), strict=True):
        assert np.allclose(ours, expected, rtol=1e-5, atol=1e-6)

    v0 = random.integers(0, 2, (50, 4)).astype("float64")
    h1 = (u_h < rbm.mean_h(v0)).astype("float64")
    v1 = (u_v < rbm.mean_v(h1)).astype("float64")
    up = (v0 @ rbm.W + rbm.hbias, rbm.mean_h(v0), h1)
    down = (h1 @ rbm.W.T + rbm.vbias, rbm.mean_v(h1), v1)
    for ours, expected in zip(layer.gibbs_vhv(v0, u), (*up, *down), strict=True):
        assert np.allclose(ours, expected, rtol=1e-5, atol=1e-6)
    assert layer.uniforms_per_step == (4, 3)


@pytest.mark.parametrize("kind", ["hvh", "vhv"])
def test_gibbs_transition(kind, reference):
    """From each state, how often each other is reached: the exact transition matrix."""
    rbm = reference.random(4, 3, seed=10)
    layer, chains = rbm.layer(), 4000
    down, up = rbm.p_v_given_h(), rbm.p_h_given_v()
    step, exact, n = (
        (layer.gibbs_hvh, down @ up, 3) if kind == "hvh" else (layer.gibbs_vhv, up @ down, 4)
    )
    start = np.repeat(rbm.states(n), chains, 0)
    end = np.array(step(start, uniforms(len(start), 7, seed=11))[-1])
    number = (end @ 2 ** np.arange(n)[::-1]).astype(int).reshape(2**n, chains)
    counts = np.stack([np.bincount(row, minlength=2**n) for row in number])
    error = np.sqrt(exact * (1 - exact) / chains)
    # 256 cells: 4.5 standard errors are passed by chance once in a thousand runs.
    assert np.all(np.abs(counts / chains - exact) < 4.5 * error + 1 / chains)


def test_sampling_at_probabilities_zero_and_one(reference):
    rbm = reference(np.zeros((2, 2)), [1e4, -1e4], [-1e4, 1e4])
    for u in (2.0**-24, 1 - 2.0**-24):
        _, _, v, _, _, h = rbm.layer().gibbs_hvh(np.zeros((1, 2)), tf.fill((1, 4), u))
        assert np.array_equal(v, [[0, 1]]) and np.array_equal(h, [[1, 0]])


# Sharing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visible", [4, None])
def test_dense_is_shared_not_copied(visible):
    shared = dense(visible=visible)
    layer = RBMLayer(dense=shared)
    layer.build((None, 4))
    assert layer.dense is shared and layer.units == 3
    assert layer.W is shared.kernel and layer.hbias is shared.bias
    assert {id(x) for x in layer.trainable_variables} == {
        id(x) for x in (shared.kernel, shared.bias, layer.vbias)
    }


def test_training_the_rbm_trains_the_dense():
    shared = dense()
    model = keras.Sequential([keras.Input((4,)), shared])
    layer = RBMLayer(dense=shared)
    x = np.random.default_rng(0).integers(0, 2, (8, 4)).astype("float32")
    layer(x)
    kernel, before = np.array(shared.kernel.value), model(x)
    with tf.GradientTape() as tape:
        cost = tf.reduce_mean(layer.free_energy(x))
    variables = layer.trainable_variables
    gradients = tape.gradient(cost, variables)
    keras.optimizers.SGD(0.5).apply(gradients, variables)
    index = next(i for i, x in enumerate(variables) if x is layer.W)
    assert np.allclose(shared.kernel.value, kernel - 0.5 * gradients[index], rtol=1e-6)
    assert np.abs(model(x) - before).max() > 0.01
    assert np.allclose(model(x), layer(x), rtol=1e-6)


def test_training_the_dense_trains_the_rbm(reference):
    shared = dense()
    layer = RBMLayer(dense=shared)
    model = keras.Sequential([keras.Input((4,)), shared, keras.layers.Dense(1)])
    x = np.random.default_rng(0).random((8, 4)).astype("float32")
    layer(x)
    before = np.array(layer.free_energy(x))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(x, 5 + np.zeros((8, 1)), epochs=2, verbose=0)
    assert np.abs(layer.free_energy(x) - before).max() > 0.01
    kernel, bias = shared.get_weights()
    now = reference(kernel, bias, layer.vbias.value).free_energy(x)
    assert np.allclose(layer.free_energy(x), now, rtol=1e-5)


def test_vbias_is_shared():
    vbias = keras.Variable([1.0, 2, 3, 4])
    one, two = RBMLayer(3, vbias=vbias), RBMLayer(2, vbias=vbias)
    for layer in (one, two):
        layer.build((None, 4))
        assert layer.vbias is vbias
        assert sum(x is vbias for x in layer.trainable_variables) == 1
    keras.optimizers.SGD(1.0).apply([tf.ones(4)], [one.vbias])
    assert np.array_equal(two.propdown(np.zeros((1, 2)))[0], [[0, 1, 2, 3]])


def test_a_shared_dense_gives_its_precision():
    assert RBMLayer(dense=dense(dtype="float64")).dtype_policy.name == "float64"
    assert RBMLayer(dense=dense(dtype="float64"), dtype="float32").compute_dtype == "float32"


def lora(**kwargs):
    layer = dense(**kwargs)
    layer.enable_lora(2)
    return layer


def quantized():
    layer = dense()
    layer.quantize("int8")
    return layer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either `units`.*or `dense`.*units=None, dense=None"),
        ({"units": 3, "dense": dense()}, "either `units`.*or `dense`.*units=3"),
        ({"units": 0}, "`units` must be an integer >= 1; got 0"),
        ({"units": -2}, "`units` must be an integer >= 1; got -2"),
        ({"units": 2**31}, r"`units` must be an integer >= 1 and < 2\*\*31; got 2147483648"),
        ({"units": True}, "`units` must be an integer >= 1; got True"),
        ({"units": 3.0}, "`units` must be an integer >= 1; got 3.0"),
        ({"units": "3"}, "`units` must be an integer >= 1; got '3'"),
        ({"units": np.array([3, 4])}, "`units` must be an integer >= 1; got array"),
        ({"units": np.array(3.5)}, r"`units` must be an integer >= 1; got array\(3.5\)"),
        ({"units": tf.constant(3.5)}, "`units` must be an integer >= 1; got <tf.Tensor"),
        ({"dense": 3}, "`dense` must be a `keras.layers.Dense`; got 3 of type int"),
        ({"dense": keras.layers.Activation("sigmoid")}, "`dense` must be.*of type Activation"),
        ({"dense": dense(use_bias=False)}, "`dense` has use_bias=False"),
        ({"dense": dense(activation="relu")}, "activation 'relu'; bernoulli.*need 'sigmoid'"),
        ({"dense": dense(activation=None)}, "activation 'linear'; bernoulli.*need 'sigmoid'"),
        ({"dense": dense(activation=tf.nn.tanh)}, "`dense` has activation .*need 'sigmoid'"),
        ({"dense": dense(lora_rank=2)}, "`dense` has LoRA"),
        ({"dense": dense(visible=None, lora_rank=2)}, "`dense` has LoRA"),
        ({"dense": lora()}, "`dense` has LoRA"),
        ({"dense": quantized()}, r"`dense` is quantised \(int8\)"),
        ({"dense": dense(visible=None, dtype="int8_from_float32")}, "`dense` is quantised"),
        ({"dense": dense(activity_regularizer="l2")}, "`dense` has an activity regularizer"),
        ({"units": 3, "activity_regularizer": "l2"}, "`RBMLayer` has an activity regularizer"),
        ({"dense": dense(), "kernel_initializer": "ones"}, "`kernel_initializer`.*`dense`"),
        ({"dense": dense(), "hbias_initializer": "ones"}, "`hbias_initializer`.*`dense`"),
        ({"units": 3, "vbias": np.zeros(4)}, "`vbias` must be a `keras.Variable`; got ndarray"),
        ({"units": 3, "visible": "binary"}, "Unknown unit type 'binary'"),
        ({"units": 3, "hidden": None}, "Unknown unit type None"),
    ],
    ids=str,
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RBMLayer(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"units": 3}, (4,), r"rank 2 and known width.*shape \(4,\)"),
        ({"units": 3}, (None, 4, 4), r"rank 2 and known width.*shape \(None, 4, 4\)"),
        ({"units": 3}, (None, None), r"rank 2 and known width.*shape \(None, None\)"),
        ({"dense": dense(visible=5)}, (None, 4), "`dense` takes 5 inputs; the data have 4"),
        ({"units": 3, "vbias": keras.Variable([0.0] * 5)}, (None, 4), r"shape \(4,\).*got \(5,\)"),
        ({"units": 3, "vbias": keras.Variable([[0.0] * 4])}, (None, 4), r"got \(1, 4\)"),
    ],
    ids=str,
)
def test_refused_inputs(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        RBMLayer(**arguments).build(shape)


@pytest.mark.parametrize("spoil", ["lora", "quantize", "activation"])
def test_a_dense_spoilt_later_is_noticed(spoil):
    layer = RBMLayer(dense=dense())
    if spoil == "lora":
        layer.dense.enable_lora(2)
    elif spoil == "quantize":
        layer.dense.quantize("int8")
    else:
        layer.dense.activation = keras.activations.relu
    for check in (layer.check_dense, lambda: layer.build((None, 4))):
        with pytest.raises(ValueError, match="`dense` (has LoRA|is quantised|has activation)"):
            check()


def test_later_inputs_are_checked():
    layer = built()
    for shape in ((2, 5), (2, 4, 4)):
        with pytest.raises(ValueError, match="incompatible"):
            layer(np.zeros(shape, "float32"))


@pytest.mark.parametrize("called", [False, True])
def test_regularisers_enter_the_cost(called, reference):
    rbm = reference.random(4, 3, seed=12)
    shared = dense(
        kernel_regularizer=keras.regularizers.L2(0.1), bias_regularizer=keras.regularizers.L1(0.3)
    )
    layer = RBMLayer(dense=shared)
    v = np.random.default_rng(0).integers(0, 2, (6, 4)).astype("float32")
    layer.build((None, 4))
    shared.set_weights([rbm.W, rbm.hbias])
    layer.vbias.assign(rbm.vbias)
    if called:  # As part of a classifier, say.
        layer(v)
    penalties = 0.1 * (rbm.W**2).sum(), 0.3 * np.abs(rbm.hbias).sum()
    assert np.allclose(sorted(layer.losses), sorted(penalties), rtol=1e-5)

    u = dbn.sampling.gibbs_noise(layer, 6, 1, seed=0, step=0)
    with tf.GradientTape() as tape:
        cost, _ = dbn.contrastive_divergence(layer, v, None, u, k=1)
    end = layer.gibbs_vhv(v, u[0])[-1]
    gap = rbm.free_energy(v).mean() - rbm.free_energy(end).mean()
    assert np.allclose(cost, gap + sum(penalties), rtol=1e-5)
    expected = rbm.free_energy_gradient(v)[0] - rbm.free_energy_gradient(end)[0] + 0.2 * rbm.W
    assert np.allclose(tape.gradient(cost, layer.W.value), expected, rtol=1e-5, atol=1e-6)


# Bias from data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, tf.constant, lambda x: x.astype("uint8")])
def test_vbias_from_data(convert, reference):
    layer = built(5)
    x = (np.arange(20)[:, None] < [0, 5, 10, 19, 20]).astype("float64")
    layer.set_vbias_from_data(convert(x))
    # Without weights, the means of the visible units are those of the data.
    expected = [0.001, 0.25, 0.5, 0.95, 0.999]
    assert np.allclose(reference.sigmoid(np.array(layer.vbias.value)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(4), r"shape \(cases, 4\); got \(4,\)"),
        (np.zeros((2, 5)), r"shape \(cases, 4\); got \(2, 5\)"),
        (np.zeros((0, 4)), r"shape \(cases, 4\); got \(0, 4\)"),
        (np.full((2, 4), np.nan), "`x` holds NaN or infinity"),
        (np.full((2, 4), np.inf), "`x` holds NaN or infinity"),
        (np.full((2, 4), 255), r"must lie in \[0, 1\].*from 255 to 255"),
        (np.full((2, 4), -1), r"must lie in \[0, 1\].*from -1 to -1"),
    ],
)
def test_vbias_from_bad_data(x, message):
    layer = built()
    with pytest.raises(ValueError, match=message):
        layer.set_vbias_from_data(x)
    assert not np.any(layer.vbias.value)


def test_vbias_from_data_needs_a_built_layer():
    with pytest.raises(ValueError, match="not built"):
        RBMLayer(3).set_vbias_from_data(np.zeros((2, 4)))


# Saving -------------------------------------------------------------------------------------------


def test_config_round_trip():
    layer = RBMLayer(
        np.int64(3),
        visible=Bernoulli(),
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.5, seed=3),
        hbias_initializer=keras.initializers.Constant(-4.0),
        vbias_initializer="ones",
        name="bottom",
        dtype="float64",
        trainable=False,
    )
    again = RBMLayer.from_config(layer.get_config())
    assert (again.name, again.trainable, again.dtype_policy.name) == ("bottom", False, "float64")
    assert again.dense.dtype_policy.name == "float64"
    for one in (layer, again):
        one.build((None, 4))
    for name in ("W", "hbias", "vbias"):
        assert np.array_equal(getattr(layer, name).value, getattr(again, name).value)
        assert getattr(layer, name) is not getattr(again, name)
    assert np.std(layer.W.value) > 0.1  # The values compared are not all zeros.


def functional():
    shared = dense(visible=None)
    inputs = keras.Input((4,))
    plain = keras.layers.Dense(2)(shared(inputs))
    return keras.Model(inputs, [plain, RBMLayer(dense=shared)(inputs)])


def rbm_first():
    layer = RBMLayer(3)
    inputs = keras.Input((4,))
    means = layer(inputs)
    return keras.Model(inputs, [means, keras.layers.Dense(2)(layer.dense(inputs))])


@keras.saving.register_keras_serializable(package="test")
class Subclassed(keras.Model):
    def __init__(self, shared=None, rbm=None, **kwargs):
        super().__init__(**kwargs)
        self.shared = shared or dense(visible=None)
        self.rbm = rbm or RBMLayer(dense=self.shared)

    def call(self, x):
        return self.shared(x), self.rbm(x)

    def get_config(self):
        parts = {"shared": self.shared, "rbm": self.rbm}
        serialize = keras.saving.serialize_keras_object
        return {**super().get_config(), **{key: serialize(value) for key, value in parts.items()}}

    @classmethod
    def from_config(cls, config):
        for key in ("shared", "rbm"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)


def sequential():
    return keras.Sequential([keras.Input((4,)), RBMLayer(3, dtype="float64"), RBMLayer(2)])


@pytest.mark.parametrize("make", [functional, rbm_first, Subclassed, sequential])
def test_file_round_trip_keeps_values_and_sharing(make, tmp_path):
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).random((5, 4)).astype("float32")
    model = make()
    before = model(x)
    layer = next(layer for layer in model.layers if isinstance(layer, RBMLayer))
    layer.vbias.assign([1.0, 2, 3, 4])
    energies = layer.free_energy(x)
    model.save(os.path.join(tmp_path, "model.keras"))
    keras.utils.set_random_seed(4)  # Values that were drawn anew would differ.
    loaded = keras.saving.load_model(os.path.join(tmp_path, "model.keras"))
    again = next(layer for layer in loaded.layers if isinstance(layer, RBMLayer))
    for ours, expected in zip(tf.nest.flatten(loaded(x)), tf.nest.flatten(before), strict=True):
        assert np.array_equal(ours, expected)
    assert np.array_equal(again.free_energy(x), energies)
    assert again.dtype_policy.name == again.dense.dtype_policy.name == layer.dtype_policy.name
    if make is not sequential:
        plain = [x for x in loaded.layers if type(x) is keras.layers.Dense]
        assert sum(x is again.dense for x in plain) == 1
        assert len(loaded.weights) == len(model.weights)
        again.W.assign(tf.zeros_like(again.W.value))
        again.hbias.assign(tf.zeros_like(again.hbias.value))
        outputs = [y for y in loaded(x) if y.shape[-1] == 3]
        assert outputs and all(np.array_equal(y, np.full((5, 3), 0.5)) for y in outputs)


# Keras' own harness -------------------------------------------------------------------------------


class RBMLayerInKerasHarness(TestCase):
    def runTest(self):
        """Keras' harness is a unittest; `pytest` collects the functions below instead."""


RBMLayerInKerasHarness.__test__ = False

# The harness trains on a loss that does not hold vbias, from a generator.
of_the_harness = pytest.mark.filterwarnings(
    "ignore:Gradients do not exist", "ignore:`shuffle=True` was passed"
)


@of_the_harness
@pytest.mark.parametrize(
    "arguments",
    [
        {"units": 3},
        {"units": 3, "dtype": "float64"},
        {"units": 3, "hbias_initializer": "ones", "vbias_initializer": "ones", "name": "rbm"},
    ],
    ids=str,
)
def test_keras_layer_harness(arguments):
    RBMLayerInKerasHarness().run_layer_test(
        RBMLayer,
        arguments,
        input_shape=(2, 4),
        input_dtype=arguments.get("dtype", "float32"),
        expected_output_shape=(2, 3),
        expected_output_dtype=arguments.get("dtype", "float32"),
        expected_num_trainable_weights=3,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=False,
    )


@of_the_harness
def test_keras_layer_harness_computes_the_means(reference):
    x = tf.constant([[0.0, 1, 0.5, 1], [1, 0, 0, 0]])
    expected = reference(np.ones((4, 3)), np.zeros(3), np.zeros(4)).mean_h(x)
    RBMLayerInKerasHarness().run_layer_test(
        RBMLayer,
        {"units": 3, "kernel_initializer": "ones"},
        input_data=x,
        expected_output=tf.constant(expected, tf.float32),
    )


def test_symbolic_shape():
    layer = RBMLayer(3)
    assert layer(keras.Input((4,))).shape == (None, 3)
    assert layer.compute_output_shape((7, 4)) == (7, 3)
