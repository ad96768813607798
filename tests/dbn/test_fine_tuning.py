"""Learning rates by layer and adversarial training against NumPy; what is looked at before."""

import keras
import numpy as np
import pytest

import dbn
from dbn.fine_tuning import Adversarial, by_layer, check

pytestmark = pytest.mark.usefixtures("without_xla")

RATES = 0.02, 0.05, 0.1  # Of two hidden layers and the head.
X = np.random.default_rng(0).random((12, 6)).astype("float32")
Y = np.arange(12) % 3


def network(**between):
    stack = dbn.DBN([5, 4], seed=1)
    stack.build((None, 6))
    model = stack.classifier(3, **between)
    model.layers[-1].kernel.assign(np.random.default_rng(1).normal(size=(4, 3)))
    return model


def differentiated(parameters, x=X):
    """The mean cross entropy, its gradients by W and b of each layer, and by x, in float64."""
    activations, (*body, (W, b)) = [x.astype("float64")], parameters
    for kernel, bias in body:
        activations.append(1 / (1 + np.exp(-activations[-1] @ kernel - bias)))
    odds = np.exp(activations[-1] @ W + b)
    p, found = odds / odds.sum(1, keepdims=True), []
    delta = (p - np.eye(3)[Y]) / len(x)
    for (kernel, _), below in zip(reversed(parameters), reversed(activations), strict=True):
        found.insert(0, (below.T @ delta, delta.sum(0)))
        slope = delta @ kernel.T
        delta = slope * below * (1 - below)
    return -np.log(p[np.arange(len(x)), Y]).mean(), found, slope


def gradients(parameters):
    return differentiated(parameters)[1]


def by_numpy(model, step, updates):
    """The parameters after some updates of all cases, a layer at a time with its rate."""
    parameters = [[np.array(w, "float64") for w in layer.weights] for layer in model.layers]
    states = [[np.zeros((3, *w.shape)) for w in layer] for layer in parameters]
    for number in range(updates):
        for layer, (found, rate) in enumerate(zip(gradients(parameters), RATES, strict=True)):
            for i, gradient in enumerate(found):
                parameters[layer][i], states[layer][i] = step(
                    parameters[layer][i], gradient, states[layer][i], rate, number + 1
                )
    return parameters, states


def momentum(w, g, state, rate, number):
    state = 0.9 * state - rate * g
    return w + state[0], state


def adam(w, g, state, rate, number):
    """With decoupled weight decay of 0.1, and an average of the weights, the last of the state."""
    m, v, average = 0.9 * state[0] + 0.1 * g, 0.999 * state[1] + 0.001 * g**2, state[2]
    w = w - rate * 0.1 * w
    w = w - rate * (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-12)
    average = w if number == 1 else 0.5 * average + 0.5 * w
    return w, np.stack([m, v, average])


@pytest.mark.parametrize("step", [momentum, adam])
def test_each_layer_moves_at_its_rate(step):
    model = network()
    expected, states = by_numpy(model, step, updates=4)
    optimizer = (
        keras.optimizers.SGD(RATES[2], momentum=0.9)
        if step is momentum
        else keras.optimizers.Adam(
            RATES[2], weight_decay=0.1, use_ema=True, ema_momentum=0.5, epsilon=1e-12
        )
    )
    lower, upper = model.layers[:2]
    model.compile(
        by_layer(model, optimizer, {upper.name: RATES[1], lower: RATES[0]}),
        "sparse_categorical_crossentropy",
        jit_compile=True,
    )
    model.fit(X, Y, batch_size=12, epochs=4, verbose=0)
    for layer, values, state in zip(model.layers, expected, states, strict=True):
        for found, w, parts in zip(layer.weights, values, state, strict=True):
            np.testing.assert_allclose(found, w if step is momentum else parts[2], atol=1e-5)
    assert not optimizer.built  # Each part is a copy.


def test_a_rate_of_zero_at_first_unfreezes_gradually_through_a_saved_file(tmp_path):
    def made():
        model = network()
        later = keras.optimizers.schedules.PiecewiseConstantDecay([7], [0.0, 0.05])
        rates = {model.layers[0]: later, model.layers[1]: 0.02}
        optimizer = by_layer(model, keras.optimizers.Adam(0.1), rates)
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=True)
        return model

    def fit(model, updates):
        model.fit(X, Y, batch_size=12, epochs=updates, shuffle=False, verbose=0)

    straight, broken = made(), made()
    start = straight.get_weights()
    fit(broken, 8)
    for before, after in zip(start[:2], broken.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert all(np.any(a != b) for a, b in zip(start[2:], broken.get_weights()[2:], strict=True))
    broken.save(tmp_path / "model.keras")
    broken = dbn.load_model(tmp_path / "model.keras")
    fit(broken, 1)
    # By Adam, the moments gathered meanwhile: not further than the rate, or little.
    moved = np.abs(broken.get_weights()[0] - start[0])
    assert 0.02 < moved.max() < 0.06
    fit(broken, 3)
    fit(straight, 12)
    for a, b in zip(straight.get_weights(), broken.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("optimizer", "rates", "message"),
    [
        ("adam", {"softmax": 0.1}, "`optimizer` must be one Keras optimizer"),
        (None, {}, "`rates` must be a dict"),
        (None, [0.1, 0.2], "`rates` must be a dict"),
        (None, {"softmax": -0.1}, "The rate of layer 'softmax' in `rates` must be a number >= 0"),
        (None, {"softmax": "fast"}, "must be a number >= 0 or a Keras schedule; got 'fast'"),
        (None, {"softmax": np.nan}, "must be a number >= 0"),
        (None, {"hardmax": 0.1}, "No such layer: hardmax"),
        (None, {0: 0.1}, "0 in `rates` is no layer of the model"),
        (None, {keras.layers.Dense(2): 0.1}, "is no layer of the model"),
    ],
)
def test_bad_rates(optimizer, rates, message):
    with pytest.raises(ValueError, match=message):
        by_layer(network(), optimizer or keras.optimizers.SGD(0.1), rates)


def test_rates_of_layers_that_are_not_told_apart():
    model, sgd = network(), keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="Layer 'softmax' is named twice"):
        by_layer(model, sgd, {"softmax": 0.1, model.layers[-1]: 0.2})
    twins = keras.Sequential(
        [
            keras.Input((6,)),
            *(
                keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="twin")])
                for _ in "ab"
            ),
        ]
    )
    with pytest.raises(
        ValueError, match="cannot tell .*twin.* apart: layers must have names of their own"
    ):
        by_layer(twins, sgd, {twins.layers[0]: 0.1})
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="nothing to train"):
        by_layer(model, sgd, {model.layers[0]: 0.1})


def test_a_layer_of_layers_and_every_variable_has_one_rate():
    stack = dbn.DBN([5, 4], seed=1)
    stack.build((None, 6))
    model = stack.autoencoder()
    parts = by_layer(model, keras.optimizers.SGD(0.1), {"encoder": 0.01, "decoder": 0.02})
    parts.build(model.trainable_variables)
    rates = [float(part.learning_rate.value) for part in parts.optimizers]
    np.testing.assert_allclose(rates, [0.01, 0.02, 0.1])
    assert [len(part._trainable_variables) for part in parts.optimizers[:2]] == [4, 4]


# Adversarial training -----------------------------------------------------------------------------


def adversarial(radius=0.5, rate=0.3, **between):
    model = Adversarial(network(**between), radius)
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("jit_compile", [False, True])
def test_adversarial_updates_are_those_of_numpy(jit_compile):
    model, losses, validation = adversarial(), [], []
    model.jit_compile = jit_compile
    expected = [[np.array(w, "float64") for w in layer.weights] for layer in model.model.layers]
    for _ in range(3):
        here, found, slope = differentiated(expected)
        beside = X + 0.5 * slope / np.linalg.norm(slope, axis=1, keepdims=True)
        other, more, _ = differentiated(expected, beside)
        assert other > here + 0.05
        for layer, one, two in zip(expected, found, more, strict=True):
            layer[:] = [w - 0.15 * (a + b) for w, a, b in zip(layer, one, two, strict=True)]
        losses.append((here + other) / 2)
        validation.append(differentiated(expected)[0])
    history = model.fit(X, Y, batch_size=12, epochs=3, validation_data=(X, Y), verbose=0).history
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"], validation, rtol=1e-5)
    for layer, values in zip(model.model.layers, expected, strict=True):
        for found, w in zip(layer.weights, values, strict=True):
            np.testing.assert_allclose(found, w, atol=1e-5)
    outputs = model.predict(X, verbose=0)
    np.testing.assert_allclose(outputs, model.model.predict(X, verbose=0), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_the_step_has_its_length_however_small_the_slope(scale):
    slopes = scale * np.array([[3.0, 0, -4.0], [0, 0, 1.0]], "float32")
    expected = np.array([[0.6, 0, -0.8], [0, 0, 1.0]]) * (scale > 0)
    np.testing.assert_allclose(dbn.fine_tuning._directions(slopes), expected, rtol=1e-6)


def test_moving_averages_are_those_of_the_cases_and_not_beside():
    model = adversarial(batch_normalization=X)
    sums, normalisation = model.model.layers[:2]
    a = X.astype("float64") @ np.array(sums.kernel)
    mean, variance = a.mean(0), a.var(0)
    for number in range(3):
        a = X[number::3].astype("float64") @ np.array(sums.kernel)
        mean = 0.99 * mean + 0.01 * a.mean(0)
        variance = 0.99 * variance + 0.01 * a.var(0)
        model.fit(X[number::3], Y[number::3], batch_size=4, verbose=0)
    np.testing.assert_allclose(normalisation.moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(normalisation.moving_variance, variance, rtol=1e-5)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_regularizers_enter_the_loss_here_and_beside(run_eagerly):
    random = np.random.default_rng(3)
    W = random.normal(size=(6, 5))
    dense = keras.layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.1))
    activity = keras.layers.ActivityRegularization(l2=0.5)
    network = keras.Sequential([keras.Input((6,)), dense, activity, keras.layers.Dense(3)])
    network.layers[-1].kernel.assign(np.zeros((5, 3)))
    dense.kernel.assign(W)
    # Every slope is 0, so beside is here: Keras divides what is of activities by the cases.
    loss = np.mean(np.sum(X[:, :3] ** 2, 1)) / 3 + 0.1 * np.sum(W**2)
    loss += 0.5 * np.sum((X @ W) ** 2) / 12
    model = Adversarial(network, 1e-6)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=run_eagerly)
    history = model.fit(X, X[:, :3], batch_size=12, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["loss"], [loss, loss], rtol=1e-5)


def test_every_pass_has_a_mask_of_its_own():
    masks = []

    class Spy(keras.layers.Layer):
        def call(self, x, training=None):
            if training and not isinstance(x, keras.KerasTensor):
                masks.append((np.array(x) > 0).tobytes())
            return x

    parts = [keras.layers.Dropout(0.5), Spy(), keras.layers.BatchNormalization()]
    model = Adversarial(keras.Sequential([keras.Input((6,)), *parts, keras.layers.Dense(2)]), 0.1)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X + 0.1, X[:, :2], batch_size=6, epochs=2, verbose=0)
    assert len(masks) == len(set(masks)) == 4 * 3


@pytest.mark.parametrize("between", [{}, {"batch_normalization": X}])
def test_an_adversarial_training_goes_on_from_its_file_and_its_checkpoint(tmp_path, between):
    whole, half = adversarial(**between), adversarial(**between)
    whole.fit(X, Y, batch_size=12, epochs=4, shuffle=False, verbose=0)
    half.fit(X, Y, batch_size=12, epochs=2, shuffle=False, verbose=0)
    half.save(tmp_path / "model.keras")
    loaded = dbn.load_model(tmp_path / "model.keras")
    assert loaded.radius == 0.5
    loaded.fit(X, Y, batch_size=12, epochs=2, shuffle=False, verbose=0)
    training = {"batch_size": 12, "shuffle": False, "verbose": 0}
    at_once = adversarial(**between)
    dbn.checkpoints.fit(at_once, X, Y, epochs=4, checkpoint=tmp_path / "once", **training)
    for epochs in (2, 4):
        resumed = adversarial(**between)
        dbn.checkpoints.fit(resumed, X, Y, epochs=epochs, checkpoint=tmp_path / "c", **training)
    for one, other in ((whole, loaded), (at_once, resumed)):
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    # Keras' own `fit` takes a batch's variance another way, to the last bit.
    for a, b in zip(whole.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 if between else 0)
    with pytest.raises(ValueError, match="`y` must be labels from 0 to 2"):
        dbn.checkpoints.fit(
            adversarial(), X, Y + 1, epochs=1, checkpoint=tmp_path / "c", **training
        )


def test_bad_adversarial_arguments():
    for radius in (0, -1.0, np.nan, True, "1"):
        with pytest.raises(ValueError, match="`radius` must be a number > 0"):
            Adversarial(network(), radius)
    with pytest.raises(ValueError, match="`radius` must be finite"):
        Adversarial(network(), np.inf)
    for model in (keras.Sequential([keras.layers.Dense(3)]), "model"):
        with pytest.raises(ValueError, match="`model` must be a built Keras model"):
            Adversarial(model, 1.0)
    inputs = [keras.Input((2,)), keras.Input((2,))]
    with pytest.raises(ValueError, match="must be a network with one input; it has 2"):
        Adversarial(keras.Model(inputs, keras.layers.Add()(inputs)), 1.0)
    whole = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(3, 2)])
    with pytest.raises(ValueError, match="must have a floating-point input; it has one of int32"):
        Adversarial(whole, 1.0)
    with pytest.raises(ValueError, match="must be a network with one input; it has 0"):
        Adversarial(Adversarial(network(), 1.0), 1.0)


@pytest.fixture(scope="module")
def heads():
    stack = dbn.DBN([5], seed=1)
    stack.build((None, 6))
    return {"classifier": stack.classifier(3), "regressor": stack.regressor()}


@pytest.mark.parametrize("y", [Y, Y[:, None], Y.astype("float32"), np.eye(3)[Y], list(Y)])
def test_good_labels(heads, y):
    check(heads["classifier"], X, y)
    check(Adversarial(heads["classifier"], 1.0), X, y)


@pytest.mark.parametrize("y", [X[:, 0], X[:, :1], Y, np.float64(X[:, 0])])
def test_good_targets(heads, y):
    check(heads["regressor"], X, y)


@pytest.mark.parametrize(
    ("head", "x", "y", "message"),
    [
        ("classifier", X, Y + 1, "`y` must be labels from 0 to 2, whole .* from 1 to 3"),
        ("classifier", X, Y - 1, "`y` must be labels from 0 to 2, whole .* from -1 to 1"),
        ("classifier", X, Y + 0.5, "`y` must be labels from 0 to 2, whole numbers"),
        ("classifier", X, np.where(Y, np.nan, 0), "`y` must be labels from 0 to 2"),
        ("classifier", X, np.array(["a", "b"] * 6), "`y` must hold numbers.*LabelEncoder"),
        ("classifier", X, Y[:11], "`x` has 12 cases, and `y` has 11"),
        ("classifier", X[:2], Y[:2], "`y` has 2 cases, fewer than the 3"),
        (
            "classifier",
            X,
            np.eye(4)[Y],
            r"shape \(cases,\), or probabilities .* got shape \(12, 4\)",
        ),
        ("classifier", X, np.ones((12, 3)), "one-hot labels or probabilities"),
        ("classifier", X, 1, "must be labels of shape"),
        ("classifier", X[:, :5], Y, "`x` must have width 6"),
        ("classifier", np.where(X < 0.1, np.inf, X), Y, "`x` holds NaN or infinity"),
        ("regressor", X, np.array(["1.0"] * 12), "`y` must hold numbers"),
        ("regressor", X, np.where(Y, np.nan, 0), "`y` holds NaN or infinity"),
        ("regressor", X, X[:, :2], "`y` must have width 1"),
        ("regressor", X, X[:9, 0], "`x` has 12 cases, and `y` has 9"),
    ],
)
def test_bad_cases_and_targets(heads, head, x, y, message):
    with pytest.raises(ValueError, match=message):
        check(heads[head], x, y)


def test_labels_are_looked_at_before_a_training_with_checkpoints(heads, tmp_path):
    model, path = heads["classifier"], tmp_path / "a.checkpoint"
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="`y` must be labels from 0 to 2"):
        dbn.checkpoints.fit(model, X, Y + 1, checkpoint=path)
    with pytest.raises(ValueError, match="`validation_data` must be labels from 0 to 2"):
        dbn.checkpoints.fit(model, X, Y, checkpoint=path, validation_data=(X, Y + 1))
    assert not path.exists()
