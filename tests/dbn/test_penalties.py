import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn.penalties import Sparsity

X = np.random.default_rng(0).integers(0, 2, (30, 5)).astype("float32")


def test_gradient_is_cost_times_excess_in_every_case(reference):
    """That of sum_j cost (q_j - p) mean_n a_nj, a the pre-activations, by TensorFlow."""
    model = reference.random(5, 4, seed=1)
    layer, sparsity = model.layer(), Sparsity(0.2, cost=0.7, decay=0.9)
    sparsity.build((5, 4))
    activity = np.array([0.1, 0.5, 0.9, 0.2])
    sparsity.activity.assign(activity)
    q = 0.9 * activity + 0.1 * model.mean_h(X).mean(0)
    with tf.GradientTape() as tape:
        a = tf.reduce_mean(layer.propup(X)[0], axis=0)
        penalty = tf.reduce_sum(0.7 * tf.cast(q - 0.2, a.dtype) * a)
    expected = tape.gradient(penalty, [layer.W.value, layer.hbias.value])
    means = [tf.reduce_mean(x, axis=0) for x in (X, layer.propup(X)[1])]
    dW, dc = sparsity.gradient(*means)
    np.testing.assert_allclose(dW, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dc, expected[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sparsity.activity.numpy(), q, rtol=1e-5)
    np.testing.assert_allclose(dc, 0.7 * (q - 0.2), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dW, np.outer(X.mean(0), 0.7 * (q - 0.2)), rtol=1e-4, atol=1e-6)


def fitted(epochs, x=X, **arguments):
    keras.utils.set_random_seed(0)
    rbm = dbn.RBM(6, seed=2, **arguments)
    rbm.compile(keras.optimizers.SGD(0.1))
    rbm.fit(x, batch_size=10, epochs=epochs, verbose=0)
    return rbm


def test_activities_reach_the_target():
    many = np.tile(X, (30, 1))
    rbm = fitted(10, many, sparsity=Sparsity(0.1, cost=3.0))
    activities = np.array(rbm(X)).mean(0)
    assert np.all(np.abs(activities - 0.1) < 0.05)
    assert np.array(fitted(10, many)(X)).mean() > 0.3


@pytest.mark.usefixtures("without_xla")
def test_no_cost_changes_nothing():
    np.testing.assert_array_equal(
        fitted(3, sparsity=Sparsity(0.1, cost=0.0)).layer.W.numpy(), fitted(3).layer.W.numpy()
    )


def test_a_layer_of_float64_learns_the_same():
    found = []
    for dtype in ("float32", "float64"):
        rbm = dbn.RBM(dbn.RBMLayer(4, dtype=dtype), seed=0, sparsity=Sparsity(0.1, cost=0.5))
        rbm.build((None, X.shape[1]))
        rbm.layer.W.assign(np.random.default_rng(1).normal(size=rbm.layer.W.shape))
        rbm.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        rbm.fit(X, batch_size=10, verbose=0)
        found.append(np.array(rbm.layer.hbias))
    assert found[1].dtype == "float64"
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("without_xla")
def test_a_saved_model_goes_on_as_if_it_had_not_stopped(tmp_path):
    rbm = fitted(2, sparsity=Sparsity(0.1, cost=0.5, decay=0.8))
    rbm.save(tmp_path / "rbm.keras")
    loaded = keras.saving.load_model(tmp_path / "rbm.keras")
    assert loaded.sparsity.get_config() == rbm.sparsity.get_config()
    for model in (rbm, loaded):
        model.fit(X, batch_size=10, verbose=0)
    for one, other in zip(rbm.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0}, r"`target` must be in \(0, 1\); got 0"),
        ({"target": "low"}, r"`target` must be in \(0, 1\); got 'low'"),
        ({"target": 0.1, "cost": -1}, "`cost` must be a number >= 0; got -1"),
        ({"target": 0.1, "decay": 1.0}, r"`decay` must be in \[0, 1\); got 1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sparsity(**arguments)


def test_rbm_refuses_what_is_no_sparsity():
    with pytest.raises(ValueError, match="`sparsity` must be None or a .*; got 0.1"):
        dbn.RBM(3, sparsity=0.1)
