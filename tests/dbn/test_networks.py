"""The plain Keras models made from a stack."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import dbn

WITHOUT_DBN = """
import sys
sys.modules["dbn"] = None  # Any import of it fails.
import keras, numpy as np, tensorflow as tf
keras_file, saved_model, x, out = sys.argv[1:]
x = np.load(x)
exported = tf.saved_model.load(saved_model)
np.savez(out, a=keras.saving.load_model(keras_file)(x), b=exported.serve(x))
"""


@pytest.fixture
def x():
    return np.random.default_rng(0).random((50, 12)).astype("float32")


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.5)


def weights(stack):
    return [np.array(w) for rbm in stack.rbms for w in rbm.layer.weights]


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_classifier_shares_or_copies(x):
    stack = dbn.DBN([7, 5], seed=0)
    stack.pretrain(x, verbose=0)
    y = np.arange(50) % 3
    shared, copied = stack.classifier(3), stack.classifier(3, share=False)
    assert_same(shared.get_weights(), copied.get_weights())
    before = weights(stack)
    for model in (copied, shared):
        model.compile(sgd(), "sparse_categorical_crossentropy")
    copied.fit(x, y, epochs=1, verbose=0, shuffle=False)
    assert_same(weights(stack), before)
    shared.fit(x, y, epochs=1, verbose=0, shuffle=False)
    assert_same(shared.get_weights(), copied.get_weights())
    assert stack.rbms[0].layer.W is shared.layers[0].kernel
    assert (weights(stack)[1] != before[1]).any()
    # And training the stack trains the classifier.
    stack.pretrain(x, verbose=0)
    np.testing.assert_array_equal(shared.layers[0].kernel, stack.rbms[0].layer.W)


def test_the_classifier_is_softmax_regression_on_the_top_means(x):
    stack = dbn.DBN([7, 5], seed=0)
    stack.build((None, 12))
    model = stack.classifier(3)
    np.testing.assert_allclose(model(x), 1 / 3, rtol=1e-6)
    head = np.random.default_rng(0).normal(size=(5, 3))
    model.layers[-1].kernel.assign(head)
    logits = np.exp(np.array(stack(x), "float64") @ head)
    np.testing.assert_allclose(model(x), logits / logits.sum(1, keepdims=True), rtol=1e-5)


def test_the_classifier_loads_without_this_package(x, tmp_path):
    stack = dbn.DBN([7, 5], seed=0)
    stack.build((None, 12))
    model = stack.classifier(3)
    model.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(5, 3)))
    assert_the_same_without_dbn(model, x, tmp_path)


def assert_the_same_without_dbn(model, x, tmp_path):
    """A `.keras` file and a SavedModel give the same where this package is not installed."""
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "saved_model", verbose=False)
    np.save(tmp_path / "x.npy", x)
    paths = [str(tmp_path / name) for name in ("model.keras", "saved_model", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", WITHOUT_DBN, *paths], check=True, cwd=tmp_path)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["a"], model(x), atol=1e-6)
        np.testing.assert_allclose(out["b"], model(x), atol=1e-6)


@pytest.mark.parametrize("classes", [1, 0, 2.5, None])
def test_bad_number_of_classes(classes):
    stack = dbn.DBN([7])
    stack.build((None, 12))
    with pytest.raises(ValueError, match="`num_classes` must be an integer >= 2"):
        stack.classifier(classes)


def unrolled(stack, x):
    """What comes back from the top of a stack, layer by layer, and the code there."""
    code = v = np.asarray(stack(x))
    for rbm in reversed(stack.rbms):
        _, v = rbm.layer.propdown(v)
    return code, v


def test_the_autoencoder_starts_as_the_way_up_and_down(x):
    layers = [
        dbn.RBMLayer(7, visible=dbn.layers.ScaledGaussian()),
        5,
        dbn.RBMLayer(2, hidden="gaussian"),
    ]
    stack = dbn.DBN(layers)
    stack.build((None, 12))
    random = np.random.default_rng(0)
    stack.rbms[0].layer.visible.log_variance.assign(random.normal(size=12))
    for rbm in stack.rbms:
        rbm.layer.W.assign(random.normal(size=rbm.layer.W.shape))
        rbm.layer.vbias.assign(random.normal(size=rbm.layer.vbias.shape))
    model = stack.autoencoder()
    code, back = unrolled(stack, x)
    np.testing.assert_allclose(model.get_layer("encoder")(x), code, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.get_layer("decoder")(code), back, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model(x), back, rtol=1e-5, atol=1e-5)
    names = [layer.activation.__name__ for part in model.layers for layer in part.layers]
    assert names == ["sigmoid", "sigmoid", "linear", "sigmoid", "sigmoid", "linear"]


def test_the_autoencoder_shares_its_encoder_alone(x):
    stack = dbn.DBN([7, 5], seed=0)
    stack.pretrain(x, verbose=0)
    shared, copied = stack.autoencoder(), stack.autoencoder(share=False)
    before = weights(stack)
    for model in (copied, shared):
        model.compile(sgd(), "mse")
    copied.fit(x, x, verbose=0, shuffle=False)
    assert_same(weights(stack), before)
    shared.fit(x, x, verbose=0, shuffle=False)
    assert_same(shared.get_weights(), copied.get_weights())
    after, decoder = weights(stack), shared.get_layer("decoder")
    for number, rbm in enumerate(stack.rbms):
        vbias, W, hbias = after[3 * number : 3 * number + 3]
        down = decoder.layers[1 - number]
        assert np.any(W != before[3 * number + 1]) and np.any(hbias != before[3 * number + 2])
        assert np.any(np.array(down.kernel) != W.T)
        np.testing.assert_array_equal(vbias, before[3 * number])  # The decoder's is a copy.
        assert np.any(np.array(down.bias) != vbias)
        np.testing.assert_array_equal(
            rbm.layer.W, shared.get_layer("encoder").layers[number].kernel
        )


def test_the_autoencoder_loads_without_this_package(x, tmp_path):
    stack = dbn.DBN([7, 5], seed=0)
    stack.build((None, 12))
    assert_the_same_without_dbn(stack.autoencoder(), x, tmp_path)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (dbn.layers.Categorical(3), "A decoder cannot end in 'categorical' units .* one group"),
        (dbn.layers.Binomial(4), "A decoder cannot end in 'binomial' units"),
    ],
)
def test_an_autoencoder_whose_decoder_is_no_dense_layer(units, message):
    stack = dbn.DBN([dbn.RBMLayer(3, visible=units)])
    stack.build((None, 6))
    with pytest.raises(ValueError, match=message):
        stack.autoencoder()
    with pytest.raises(ValueError, match="not built"):
        dbn.DBN([7]).autoencoder()


def test_a_classifier_needs_a_built_stack():
    with pytest.raises(ValueError, match="not built"):
        dbn.DBN([7]).classifier(3)
