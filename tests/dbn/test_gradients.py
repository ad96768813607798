import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn.gradients import Centered

X = np.random.default_rng(0).integers(0, 2, (60, 5)).astype("float32")


def centered(m, n, rate=0.01):
    """With given offsets."""
    gradient = Centered(rate)
    gradient.build((len(m), len(n)))
    gradient.visible_offset.assign(m)
    gradient.hidden_offset.assign(n)
    return gradient


def plain(rbm, v, end):
    """Gradient of F(v) - F(end) for W, hbias, vbias, in NumPy."""
    pairs = zip(rbm.free_energy_gradient(v), rbm.free_energy_gradient(end), strict=True)
    return [a - b for a, b in pairs]


def changed(gradient, rbm, v, end):
    given = [tf.constant(part, tf.float32) for part in plain(rbm, v, end)]
    return [np.array(part, "float64") for part in gradient.change(*given)]


def test_change_is_the_gradient_with_offsets_taken_away(reference):
    rbm, random = reference.random(5, 4, seed=1), np.random.default_rng(1)
    v, end = random.integers(0, 2, (2, 7, 5)).astype("float64")
    m, n = random.random(5), random.random(4)
    dW, dc, db = changed(centered(m, n), rbm, v, end)

    def statistics(x):
        h = rbm.mean_h(x)
        return (x - m).T @ (h - n) / len(x), h.mean(0), x.mean(0)

    (W_v, h_v, v_v), (W_m, h_m, v_m) = statistics(v), statistics(end)
    expected = -(W_v - W_m)
    np.testing.assert_allclose(dW, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dc, -(h_v - h_m) - expected.T @ m, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(db, -(v_v - v_m) - expected @ n, rtol=1e-4, atol=1e-6)


def test_change_is_the_same_learning_whether_bits_are_flipped_or_not(reference):
    """With x = 1 - x' for some pixels: W, vbias change sign there, hbias takes up their sum."""
    rbm, random = reference.random(5, 4, seed=2), np.random.default_rng(2)
    v, end = random.integers(0, 2, (2, 9, 5)).astype("float64")
    m, n = random.random(5), random.random(4)
    flip = np.array([True, False, True, True, False])
    sign = np.where(flip, -1.0, 1.0)
    flipped = reference(sign[:, None] * rbm.W, rbm.hbias + rbm.W[flip].sum(0), sign * rbm.vbias)
    np.testing.assert_allclose(flipped.mean_h(np.where(flip, 1 - v, v)), rbm.mean_h(v))

    dW, dc, db = changed(centered(m, n), rbm, v, end)
    m, v, end = (np.where(flip, 1 - x, x) for x in (m, v, end))
    dW_flipped, dc_flipped, db_flipped = changed(centered(m, n), flipped, v, end)
    np.testing.assert_allclose(dW_flipped, sign[:, None] * dW, atol=1e-5)
    np.testing.assert_allclose(db_flipped, sign * db, atol=1e-5)
    np.testing.assert_allclose(dc_flipped, dc + dW[flip].sum(0), atol=1e-5)


def test_offsets_are_plain_averages_at_first_and_moving_ones_later(reference):
    rbm, gradient = reference.random(5, 4, seed=3), centered(np.zeros(5), np.zeros(4), rate=0.25)
    visible, hidden = np.zeros(5), np.zeros(4)
    for number in range(8):
        v = X[7 * number : 7 * number + 7]
        gradient.update_offsets(v.mean(0), rbm.mean_h(v).mean(0), tf.constant(number, tf.int64))
        rate = max(0.25, 1 / (number + 1))
        visible = (1 - rate) * visible + rate * v.mean(0)
        hidden = (1 - rate) * hidden + rate * rbm.mean_h(v).mean(0)
        np.testing.assert_allclose(gradient.visible_offset, visible, rtol=1e-5)
        np.testing.assert_allclose(gradient.hidden_offset, hidden, rtol=1e-5)
        if number == 3:
            np.testing.assert_allclose(gradient.visible_offset, X[:28].mean(0), rtol=1e-5)


def model():
    layer = dbn.RBMLayer(4, kernel_initializer=keras.initializers.RandomNormal(seed=1))
    rbm = dbn.RBM(layer, k=2, persistent=True, chains=6, seed=5, gradient=Centered())
    rbm.compile(keras.optimizers.SGD(0.1, momentum=0.5))
    return rbm


def test_float64():
    layer = dbn.RBMLayer(4, dtype="float64")
    rbm = dbn.RBM(layer, seed=0, gradient=Centered())
    rbm.compile(keras.optimizers.SGD(0.1))
    rbm.fit(X, verbose=0)
    assert layer.W.dtype == "float64"
    assert np.all(np.isfinite(layer.W))


def test_one_object_serves_one_rbm():
    gradient = Centered()
    first, second = dbn.RBM(4, gradient=gradient, name="first"), dbn.RBM(4, gradient=gradient)
    first.build((None, 5))
    with pytest.raises(ValueError, match="`gradient` serves 'first' already"):
        second.build((None, 5))


def values(rbm):
    return [np.array(w) for w in rbm.weights]


@pytest.mark.parametrize("persistent", [False, True])
def test_fit_makes_the_updates_of_a_loop_of_ones_own(persistent):
    rbm = dbn.RBM(4, k=2, persistent=persistent, chains=6, seed=5, gradient=Centered(0.4))
    rbm.compile(keras.optimizers.SGD(0.1))
    rbm.build((None, 5))
    layer = dbn.RBMLayer(4)
    layer.build((None, 5))
    layer.set_weights(rbm.layer.get_weights())
    gradient = centered(np.zeros(5), np.zeros(4), rate=0.4)
    rbm.fit(X[:40], batch_size=10, epochs=1, shuffle=False, verbose=0)

    state = tf.zeros((6, 4)) if persistent else None
    for number in range(4):
        v = X[10 * number : 10 * number + 10]
        u = dbn.sampling.gibbs_noise(layer, 6 if persistent else 10, 2, seed=5, step=number)
        with tf.GradientTape() as tape:
            cost, state = dbn.contrastive_divergence(layer, v, state, u, 2)
        parameters = (layer.W, layer.hbias, layer.vbias)
        gradients = tape.gradient(cost, parameters)
        h = layer.propup(v)[1]
        gradient.update_offsets(tf.reduce_mean(v, axis=0), tf.reduce_mean(h, axis=0), number)
        for parameter, part in zip(parameters, gradient.change(*gradients), strict=True):
            parameter.assign_sub(0.1 * part)
    for a, b in zip(rbm.layer.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rbm.gradient.hidden_offset, gradient.hidden_offset, rtol=1e-5)


@pytest.mark.usefixtures("without_xla")
def test_saved_and_loaded_training_goes_on_bit_for_bit(tmp_path):
    whole, parts = model(), model()
    whole.fit(X, batch_size=8, epochs=4, verbose=0)
    parts.fit(X, batch_size=8, epochs=2, verbose=0)
    parts.save(tmp_path / "rbm.keras")
    parts = keras.models.load_model(tmp_path / "rbm.keras")
    assert parts.gradient.rate == 0.01
    parts.fit(X, batch_size=8, epochs=2, verbose=0)
    for a, b in zip(values(whole), values(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.ptp(whole.gradient.visible_offset) > 0


@pytest.mark.usefixtures("without_xla")
def test_an_execution_that_fails_takes_the_offsets_back():
    rbm = model()
    rbm.fit(X, batch_size=8, verbose=0)
    before = values(rbm)

    def batches():
        yield X[:8]
        yield X[:8]
        yield np.full((8, 5), np.nan, "float32")

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((None, 5), tf.float32)
    )
    with pytest.raises(ValueError, match="has been restored"):
        rbm.fit(data, verbose=0)
    for a, b in zip(before, values(rbm), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, "fast", None, float("nan")])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match=r"`rate` must be in \(0, 1\]"):
        Centered(rate)


@pytest.mark.parametrize("gradient", ["centered", Centered, 0.01, keras.layers.Dense(3)])
def test_bad_gradients(gradient):
    with pytest.raises(ValueError, match="`gradient` must be None or a `dbn.gradients.Centered`"):
        dbn.RBM(3, gradient=gradient)


def test_all_parameters_must_be_trainable():
    rbm = model()
    rbm.build((None, 5))
    rbm.layer.vbias.trainable = False
    with pytest.raises(ValueError, match="`gradient` needs W, hbias and vbias to be trainable"):
        rbm.fit(X, verbose=0)
