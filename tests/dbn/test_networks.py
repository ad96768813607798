"""The plain Keras models made from a stack."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import dbn

pytestmark = pytest.mark.usefixtures("without_xla")

WITHOUT_DBN = """
import sys
sys.modules["dbn"] = None  # Any import of it fails.
import keras, numpy as np, tensorflow as tf
out = {}
for name in sys.argv[1:]:
    x = np.load(f"{name}.npy")
    out[f"{name} loaded"] = keras.saving.load_model(f"{name}.keras")(x)
    exported = tf.saved_model.load(name)
    out[f"{name} exported"] = exported.serve(x)
np.savez("out.npz", **out)
"""


@pytest.fixture
def x():
    return np.random.default_rng(0).random((50, 12)).astype("float32")


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.5)


def sigmoid(a):
    return 1 / (1 + np.exp(-np.asarray(a, "float64")))


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


def test_every_network_loads_without_this_package(x, tmp_path):
    stack = dbn.DBN([7, dbn.RBMLayer(5, hidden="gaussian")], seed=0)
    stack.build((None, 12))
    heads = {"kernel_constraint": keras.constraints.MaxNorm(2.0), "dropout": 0.5}
    classifier = stack.classifier(3, input_dropout=0.2, batch_normalization=x, **heads)
    rates = dbn.fine_tuning.by_layer(
        classifier, keras.optimizers.Adam(0.1), {classifier.layers[1]: 0.01}
    )
    classifier.compile(rates, "sparse_categorical_crossentropy")
    regressor, autoencoder = stack.regressor(2, **heads), stack.autoencoder()
    for model in (classifier, regressor):
        model.layers[-1].kernel.assign(
            np.random.default_rng(0).normal(size=(5, model.output_shape[1]))
        )
    encoder, decoder = (autoencoder.get_layer(name) for name in ("encoder", "decoder"))
    networks = {"classifier": classifier, "regressor": regressor, "autoencoder": autoencoder}
    networks |= {"encoder": encoder, "decoder": decoder}
    for name, model in networks.items():
        model.save(tmp_path / f"{name}.keras")
        model.export(tmp_path / name, verbose=False)
        np.save(tmp_path / name, encoder(x) if name == "decoder" else x)
    subprocess.run([sys.executable, "-c", WITHOUT_DBN, *networks], check=True, cwd=tmp_path)
    with np.load(tmp_path / "out.npz") as out:
        for name, model in networks.items():
            expected = model(np.load(tmp_path / f"{name}.npy"))
            for how in ("loaded", "exported"):
                np.testing.assert_allclose(out[f"{name} {how}"], expected, atol=1e-6)


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


def test_a_head_needs_a_built_stack():
    for head in (lambda stack: stack.classifier(3), lambda stack: stack.regressor()):
        with pytest.raises(ValueError, match="not built"):
            head(dbn.DBN([7]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": 0}, "`outputs` must be an integer >= 1; got 0"),
        ({"outputs": 1.5}, "`outputs` must be an integer >= 1"),
        ({"dropout": 1}, r"`dropout` must be a number in \[0, 1\); got 1"),
        ({"dropout": [0.5]}, "`dropout` must be a number"),
        ({"input_dropout": -0.1}, r"`input_dropout` must be a number in \[0, 1\)"),
        ({"kernel_constraint": "narrow"}, "narrow"),
        ({"batch_normalization": True}, r"`batch_normalization` must have shape \(cases, width\)"),
        ({"batch_normalization": "x"}, "`batch_normalization` must hold numbers"),
        ({"batch_normalization": np.zeros((5, 11))}, "`batch_normalization` must have width 12"),
        ({"batch_normalization": np.zeros((0, 12))}, "`batch_normalization` is empty"),
        ({"batch_normalization": np.zeros((1, 12))}, "must have at least 2 cases; it has 1"),
        ({"batch_normalization": np.full((5, 12), np.nan)}, "`batch_normalization` holds NaN"),
        ({"batch_normalization": np.full((5, 12), 1.5)}, r"`batch_normalization` .*\[0, 1\]"),
    ],
)
def test_bad_arguments_leave_the_stack_as_it_is(arguments, message):
    stack = dbn.DBN([7])
    stack.build((None, 12))
    with pytest.raises(ValueError, match=message):
        stack.regressor(**{"kernel_constraint": "non_neg", **arguments})
    assert stack.rbms[0].layer.W.constraint is None


def test_dropout_leaves_units_the_mean_input_that_pretraining_gave_them(x, assert_mean):
    stack = dbn.DBN([7, 5], seed=0)
    stack.build((None, 12))
    for rbm in stack.rbms:
        rbm.layer.hbias.assign(np.random.default_rng(1).normal(size=rbm.layer.hbias.shape))
    keras.utils.set_random_seed(0)
    model = stack.classifier(3, dropout=0.5, input_dropout=0.2)
    model.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(5, 3)))
    # The network without dropout is the pretrained one.
    np.testing.assert_allclose(model(x), model.layers[-1](stack(x)), rtol=1e-6)
    below = x[:1]
    for number, keep in ((0, 0.8), (1, 0.5)):
        drop, dense = model.layers[2 * number : 2 * number + 2]
        W, b = np.array(dense.kernel, "float64"), np.array(dense.bias, "float64")
        dropped = np.array(drop(np.repeat(below, 20000, 0), training=True), "float64")
        mask = dropped != 0
        assert_mean(mask, keep)
        assert_mean(dropped @ W + b, (below @ W + b)[0])
        # Srivastava et al. (2014): no scale in training, but pretrained weights over p.
        np.testing.assert_allclose(dropped @ W, (mask * below) @ (W / keep), atol=1e-5)
        below = np.array(dense(below))


@pytest.mark.parametrize("hidden", ["bernoulli", "relu"])
def test_batch_normalization_starts_as_the_pretrained_network(x, hidden):
    above = dbn.RBMLayer(5, visible="bernoulli" if hidden == "bernoulli" else "gaussian")
    stack = dbn.DBN([dbn.RBMLayer(7, hidden=hidden), above], seed=0)
    stack.build((None, 12))
    random = np.random.default_rng(1)
    for rbm in stack.rbms:
        rbm.layer.W.assign(random.normal(size=rbm.layer.W.shape))
        rbm.layer.hbias.assign(random.normal(size=rbm.layer.hbias.shape))
    plain, model = stack.classifier(3), stack.classifier(3, batch_normalization=x[:30])
    for network in (plain, model):
        network.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(model(x), plain(x), rtol=1e-4)
    # The same where a batch of these very cases is normalised by its own mean and variance.
    np.testing.assert_allclose(model(x[:30], training=True), plain(x[:30]), rtol=1e-4)
    # Of other cases, by theirs; its scale and shift are the statistics of the first 30.
    W, b = (np.array(w, "float64") for w in stack.rbms[0].layer.dense.weights)
    first, other = (cases.astype("float64") @ W + b for cases in (x[:30], x[30:]))
    expected = (other - other.mean(0)) / np.sqrt(other.var(0) + 1e-3)
    expected = expected * np.sqrt(first.var(0) + 1e-3) + first.mean(0)
    expected = sigmoid(expected) if hidden == "bernoulli" else np.maximum(expected, 0)
    h = x[30:]
    for layer in model.layers[:3]:
        h = layer(h, training=True) if "norm" in layer.name else layer(h)
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)


def test_a_normalised_network_shares_or_copies(x):
    stack, y = dbn.DBN([7, 5], seed=0), np.arange(50) % 3
    stack.pretrain(x, verbose=0)
    before, W = weights(stack), stack.rbms[1].layer.W
    copied = stack.classifier(3, share=False, batch_normalization=x)
    shared = stack.classifier(3, batch_normalization=x)
    assert_same(shared.get_weights(), copied.get_weights())
    for model in (copied, shared):
        rates = {model.layers[0]: 0.0, model.layers[3]: 0.5}
        model.compile(
            dbn.fine_tuning.by_layer(model, keras.optimizers.SGD(0.1), rates),
            "sparse_categorical_crossentropy",
        )
    copied.fit(x, y, epochs=3, batch_size=25, shuffle=False, verbose=0)
    assert_same(weights(stack), before)
    shared.fit(x, y, epochs=3, batch_size=25, shuffle=False, verbose=0)
    assert_same(shared.get_weights(), copied.get_weights())
    assert W is shared.layers[3].kernel and np.any(W != before[4])
    assert_same(weights(stack)[:3], before[:3])  # Frozen by its rate.
    # The stack's own layers are as they were: pretraining goes on.
    stack.pretrain(x, verbose=0)
    np.testing.assert_array_equal(shared.layers[0].kernel, stack.rbms[0].layer.W)


def test_the_regressor_learns_on_other_data_than_its_stack():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype("float32")
    y = x[:, 0] - 2 * x[:, 1] + 1
    layer = dbn.RBMLayer(7, visible="gaussian")
    stack = dbn.DBN([layer], seed=0)
    stack.pretrain(random.normal(size=(90, 6)), batch_size=30, epochs=2, verbose=0)
    pretrained, model = weights(stack), stack.regressor(kernel_constraint="max_norm")
    np.testing.assert_array_equal(model(x), np.zeros((200, 1)))
    model.layers[-1].kernel.assign(random.normal(size=(7, 1)))
    hidden = sigmoid(x @ pretrained[1].astype("float64") + pretrained[2])
    np.testing.assert_allclose(model(x), hidden @ np.array(model.layers[-1].kernel), rtol=1e-4)
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=True)
    model.fit(x, y, epochs=30, verbose=0)
    # Of the variance, which is 5, the linear part of the sigmoids alone explains most.
    assert model.evaluate(x, y, verbose=0) < 1
    np.testing.assert_array_equal(layer.W, model.layers[0].kernel)
    assert np.any(layer.W != pretrained[1])


def test_a_constraint_is_of_the_variables_and_holds_in_pretraining_too(x):
    stack = dbn.DBN([7], seed=0)
    stack.rbms[0].compile(sgd(), jit_compile=False, steps_per_execution=1)
    stack.pretrain(x, verbose=0)
    stack.classifier(3, share=False, kernel_constraint=keras.constraints.MaxNorm(0.5))
    W = stack.rbms[0].layer.W
    stack.pretrain(x, verbose=0)
    assert np.all(np.linalg.norm(W, axis=0) > 0.6)  # Copies have constraints of their own.
    stack.classifier(3, kernel_constraint=keras.constraints.MaxNorm(0.5))
    stack.pretrain(x, verbose=0)
    assert np.all(np.linalg.norm(W, axis=0) < 0.5 + 1e-4)


def test_a_frozen_layer_keeps_its_values_and_cannot_be_pretrained(x):
    stack = dbn.DBN([7, 5], seed=0)
    stack.build((None, 12))
    before, model = weights(stack), stack.classifier(3)
    model.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(5, 3)))
    model.layers[0].trainable = False
    model.compile(sgd(), "sparse_categorical_crossentropy")
    model.fit(x, np.arange(50) % 3, verbose=0)
    after = weights(stack)
    assert_same(after[:3], before[:3])
    assert np.any(after[4] != before[4]) and np.any(after[5] != before[5])
    rbm = stack.rbms[0]
    rbm.compile(sgd(), jit_compile=False, steps_per_execution=1)
    with pytest.raises(ValueError, match="Set `rbm.layer.dense.trainable = True`"):
        stack.pretrain(x, epochs=[1, 0], verbose=0)
    rbm.layer.dense.trainable = True
    stack.pretrain(x, epochs=[1, 0], verbose=0)
    assert np.any(rbm.layer.W != before[1])
