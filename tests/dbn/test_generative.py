"""GenerativeDBN: up-down by NumPy, samples and labels by enumeration, files, and bad input."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import GenerativeDBN, noise
from dbn.layers import Mixed, RBMLayer

WITHOUT_DBN = """
import sys
sys.modules["dbn"] = None  # Any import of it fails.
import numpy as np, tensorflow as tf
saved_model, x, out = sys.argv[1:]
loaded = tf.saved_model.load(saved_model)
labels = tf.constant([0, 2, 1, 2], tf.int64)
images = loaded.generate(labels, tf.constant(20, tf.int64), tf.constant(5, tf.int64))
try:
    loaded.generate(labels + 1, tf.constant(20, tf.int64), tf.constant(5, tf.int64))
except tf.errors.InvalidArgumentError as error:
    assert "labels must lie in 0 to 2" in str(error)
else:
    raise AssertionError("A class that there is not was drawn.")
try:
    loaded.generate(labels, tf.constant(0, tf.int64), tf.constant(5, tf.int64))
except tf.errors.InvalidArgumentError as error:
    assert "steps must be >= 1" in str(error)
else:
    raise AssertionError("Digits were drawn in no step.")
np.savez(out, probabilities=loaded.serve(np.load(x)), images=images)
"""


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(a):
    p = np.exp(a - a.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.fixture
def data():
    """23 cases of 5 columns, grey levels, and labels of 3 classes."""
    random = np.random.default_rng(0)
    return random.random((23, 5)).astype("float32"), random.integers(0, 3, 23)


def make(layers=(4, 3, 6), classes=3, visible=5, seed=0, scale=1.0, **kwargs):
    """A built model of which every weight is random, those up and down different."""
    model = GenerativeDBN(list(layers), classes, seed=seed, **kwargs)
    model.build((None, visible))
    random = np.random.default_rng(seed)
    for variable in UpDown.variables(model):
        variable.assign(scale * random.normal(size=variable.shape))
    return model


class UpDown:
    """Appendix B of Hinton, Osindero & Teh (2006) in float64, for any number of layers.

    With the two changes that `GenerativeDBN` states: means of the top hidden units in the
    statistics, and sampled labels. `top` has the rows of the layer below, then of the labels.
    """

    def __init__(self, model):
        def values(variables):
            return [np.array(variable.value, "float64") for variable in variables]

        layers = [rbm.layer for rbm in model.below.rbms]
        self.recognition = values(layer.W for layer in layers)
        self.recognition_bias = values(layer.hbias for layer in layers)
        self.generative = values(model.generative)
        self.generative_bias = values(layer.vbias for layer in layers)
        top = model.top.layer
        self.top, self.top_bias, self.bias = values([top.W, top.hbias, top.vbias])
        self.classes, self.chain = model.classes, None

    def parameters(self):
        below = (self.recognition, self.recognition_bias, self.generative, self.generative_bias)
        return [x for part in below for x in part] + [self.top, self.top_bias, self.bias]

    @staticmethod
    def variables(model):
        layers = [rbm.layer for rbm in model.below.rbms]
        below = [[layer.W for layer in layers], [layer.hbias for layer in layers]]
        below += [model.generative, [layer.vbias for layer in layers]]
        top = model.top.layer
        return [x for part in below for x in part] + [top.W, top.hbias, top.vbias]

    def gibbs(self, h, u):
        """Visible states of the top RBM given hidden ones: bits, then one label by inverse CDF."""
        a = h @ self.top.T + self.bias
        n = a.shape[1] - self.classes
        upto = np.cumsum(softmax(a[:, n:]), 1)
        label = np.eye(self.classes)[(upto[:, :-1] <= u[:, n:]).sum(1)]
        return np.concatenate([u[:, :n] < sigmoid(a[:, :n]), label], 1)

    def update(self, x, label, wake, steps, sleep, rate, change=None):
        """One update; returns the cross entropy of x given the layer above, of each case.

        `change(v, positive, W, bias, top_bias)` may put others for the last three: what the top RBM
        learns, uphill.
        """
        count, ends = len(self.recognition), np.cumsum([w.shape[1] for w in self.recognition])
        up, states = np.split(wake, ends[:-1], 1), [np.float64(x)]
        for W, b, u in zip(self.recognition, self.recognition_bias, up, strict=True):
            states.append(np.float64(u < sigmoid(states[-1] @ W + b)))
        v = np.concatenate([states[-1], label], 1)
        positive = sigmoid(v @ self.top + self.top_bias)
        n = len(self.bias) - self.classes + 1  # Uniform numbers of a visible state.
        if self.chain is None:
            end = v
            for u in steps:
                h = np.float64(u[:, n:] < sigmoid(end @ self.top + self.top_bias))
                end = self.gibbs(h, u[:, :n])
        else:
            h = self.chain
            for u in steps:
                end = self.gibbs(h, u[:, :n])
                h = np.float64(u[:, n:] < sigmoid(end @ self.top + self.top_bias))
            self.chain = h
        negative = sigmoid(end @ self.top + self.top_bias)
        dream = [end[:, : n - 1]]
        ends = np.cumsum([w.shape[0] for w in self.generative])
        down = np.split(sleep, ends[:-1], 1)
        for i in reversed(range(count)):
            p = sigmoid(dream[0] @ self.generative[i].T + self.generative_bias[i])
            dream.insert(0, np.float64(down[i] < p) if i else p)
        # Predictions, all by the weights before the update.
        below = [
            sigmoid(h @ W.T + b)
            for h, W, b in zip(states[1:], self.generative, self.generative_bias, strict=True)
        ]
        above = [
            sigmoid(h @ W + b)
            for h, W, b in zip(dream, self.recognition, self.recognition_bias, strict=False)
        ]
        p = below[0]
        cost = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1)
        cases, chains = len(x), len(end)
        for i in range(count):
            error = (states[i] - below[i]) / cases
            self.generative[i] += rate * error.T @ states[i + 1]
            self.generative_bias[i] += rate * error.sum(0)
            error = (dream[i + 1] - above[i]) / chains
            self.recognition[i] += rate * dream[i].T @ error
            self.recognition_bias[i] += rate * error.sum(0)
        W = v.T @ positive / cases - end.T @ negative / chains
        bias, top_bias = v.mean(0) - end.mean(0), positive.mean(0) - negative.mean(0)
        if change is not None:
            W, bias, top_bias = change(v, positive, W, bias, top_bias)
        self.top += rate * W
        self.bias += rate * bias
        self.top_bias += rate * top_bias
        return cost


class CenteredSparse:
    """What `Sparsity` and then `Centered` make of the top RBM's learning, from first principles."""

    def __init__(self, target, cost, decay, rate):
        self.target, self.cost, self.decay, self.rate = target, cost, decay, rate
        self.activity, self.m, self.n, self.number = target, 0.0, 0.0, 0

    def __call__(self, v, positive, W, bias, top_bias):
        v, positive = v.mean(0), positive.mean(0)
        self.activity = self.decay * self.activity + (1 - self.decay) * positive
        excess = self.cost * (self.activity - self.target)
        W, top_bias = W - np.outer(v, excess), top_bias - excess
        self.number += 1
        rate = max(self.rate, 1 / self.number)
        self.m, self.n = self.m + rate * (v - self.m), self.n + rate * (positive - self.n)
        W = W - np.outer(bias, self.n) - np.outer(self.m, top_bias)
        return W, bias - W @ self.n, top_bias - self.m @ W


@pytest.mark.parametrize(
    ("chains", "parts"), [(None, False), (5, False), (None, True)], ids=["CD", "PCD", "parts"]
)
def test_up_down_is_that_of_numpy(chains, parts, data):
    """Three updates, the last of fewer cases, by CD-2 or from 5 persistent chains.

    Or with a top RBM that has a centered gradient and a sparsity.
    """
    x, y = data
    negative = dbn.negative.CD(2) if chains is None else dbn.negative.PCD(2, chains)
    change = {}
    if parts:
        top = dbn.RBM(
            RBMLayer(6, visible=Mixed([("bernoulli", 3), ("categorical", 3)])),
            negative=negative,
            gradient=dbn.gradients.Centered(0.4),
            sparsity=dbn.penalties.Sparsity(0.2, cost=0.5, decay=0.7),
        )
        model = make(layers=(4, 3, top))
        change["change"] = CenteredSparse(0.2, 0.5, 0.7, 0.4)
    else:
        model = make(negative=negative)
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=chains is not None)
    expected = UpDown(model)
    if chains is not None:
        expected.chain = np.zeros((chains, 6))
    before, costs = expected.parameters(), []
    before = [value.copy() for value in before]
    for number, rows in enumerate(np.split(np.arange(23), [10, 20])):
        count = chains or len(rows)
        shapes = (len(rows), 4 + 3), (2, count, 3 + 1 + 6), (count, 5 + 4)
        streams = noise.Stream.WAKE, noise.Stream.UPDATE, noise.Stream.SLEEP
        u = [
            np.array(noise.uniforms(shape, model.seed, number, stream))
            for shape, stream in zip(shapes, streams, strict=True)
        ]
        costs.extend(expected.update(x[rows], np.eye(3)[y[rows]], *u, rate=0.5, **change))
    history = model.fit(x, y, batch_size=10, shuffle=False, verbose=0).history
    for found, start, value in zip(
        UpDown.variables(model), before, expected.parameters(), strict=True
    ):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
        assert np.abs(value - start).max() > 1e-3
    np.testing.assert_allclose(history["reconstruction_cross_entropy"], np.mean(costs), rtol=1e-5)
    assert int(model.updates.value) == 3 and int(model.epochs.value) == 1


# By enumeration -----------------------------------------------------------------------------------


class Enumerated:
    """The joint density of a small model's cases and labels, from every state of every layer."""

    def __init__(self, model, reference):
        layers, top = [rbm.layer for rbm in model.below.rbms], model.top.layer
        n, classes = layers[-1].units, model.classes
        states, hidden = reference.states(n), reference.states(top.units)
        W, hbias, vbias = (np.array(w.value, "float64") for w in (top.W, top.hbias, top.vbias))
        v = np.array([[*h, *one] for h in states for one in np.eye(classes)])
        log_f = reference.logsumexp((v @ W + hbias) @ hidden.T, 1) + v @ vbias
        self.log_f = log_f.reshape(len(states), classes)
        joint = np.exp(log_f - reference.logsumexp(log_f)).reshape(len(states), classes)
        self.top = joint
        for layer, weights in [*zip(layers, model.generative, strict=True)][::-1]:
            below = reference.states(layer.W.shape[0])
            mean = sigmoid(states @ np.array(weights, "float64").T + np.array(layer.vbias))
            p = np.prod(np.where(below == 1, mean[:, None], 1 - mean[:, None]), -1)
            joint, states = p.T @ joint, below
        self.joint = joint  # (visible states, classes)


@pytest.fixture(scope="module")
def small():
    return make(layers=(3, 3, 2), classes=2, visible=4, seed=11, scale=1.5)


def numbers(v):
    return np.int64(v) @ 2 ** np.arange(np.shape(v)[1])[::-1]


def test_samples_of_a_class_have_its_enumerated_distribution(small, reference, assert_mean):
    exact = Enumerated(small, reference).joint
    label = np.repeat([0, 1], 20_000)
    found = small.sample(label, steps=40)
    conditional = exact / exact.sum(0)
    sample, mean = np.asarray(found.sample), np.asarray(found.mean)
    for c in (0, 1):
        assert_mean(numbers(sample[label == c])[:, None] == np.arange(16), conditional[:, c])
        assert_mean(mean[label == c], conditional[:, c] @ reference.states(4))
    np.testing.assert_array_equal(found.top.sample[:, -2:], np.eye(2)[label])
    assert np.abs(conditional[:, 0] - conditional[:, 1]).max() > 0.05


def test_samples_of_no_given_class_have_the_joint_distribution(small, reference, assert_mean):
    exact = Enumerated(small, reference).joint
    found = small.sample(chains=40_000, steps=40, seed=8)
    number = 2 * numbers(found.sample) + np.argmax(found.top.sample[:, -2:], 1)
    assert_mean(number[:, None] == np.arange(32), exact.ravel())
    # Not what the weights of the way up would bring down.
    tied = make(layers=(3, 3, 2), classes=2, visible=4, seed=11, scale=1.5)
    for layer, weights in zip([r.layer for r in tied.below.rbms], tied.generative, strict=True):
        weights.assign(layer.W)
    assert np.abs(Enumerated(tied, reference).joint - exact).max() > 0.02


def test_probabilities_of_the_labels_are_enumerated(small, reference):
    log_f = Enumerated(small, reference).log_f
    expected = log_f - reference.logsumexp(log_f, 1)[:, None]
    # Layers below that bring every state of the layer beneath the top RBM up as it is.
    model = make(layers=(3, 3, 2), classes=2, visible=3, seed=3)
    model.top.set_weights(small.top.get_weights())
    for rbm in model.below.rbms:
        rbm.layer.W.assign(60 * np.eye(3))
        rbm.layer.hbias.assign(-30 * np.ones(3))
    x = reference.states(3)
    np.testing.assert_allclose(model.log_probabilities(x), expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), np.exp(expected), atol=1e-5)
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.5


def test_sampling_goes_on_bit_for_bit_also_with_another_label(small):
    whole = small.sample(1, chains=5, steps=20)
    half = small.sample(1, chains=5, steps=10)
    rest = small.sample(1, steps=10, start=half)
    np.testing.assert_array_equal(rest.mean, whole.mean)
    np.testing.assert_array_equal(rest.sample, whole.sample)
    other = small.sample([0, 1, 0, 1, 0], steps=10, start=half)
    np.testing.assert_array_equal(other.top.sample[:, -2:], np.eye(2)[[0, 1, 0, 1, 0]])
    x = np.array([[1, 0, 0.3, 1], [0, 1, 1, 0]], "float32")
    from_data = small.sample(0, steps=3, start=x)
    assert from_data.mean.shape == (2, 4) and from_data.top.steps == 3


def test_chains_start_at_random_cases_that_have_gone_up(small):
    coins = np.array(noise.uniforms((5, 4), seed=3, stream=noise.Stream.START)) < 0.5
    expected = small.sample(1, steps=2, start=coins.astype("float32"), seed=3)
    assert 0 < coins.mean() < 1
    for label in (1, [1] * 5):
        found = small.sample(label, chains=5, steps=2, seed=3)
        np.testing.assert_array_equal(found.mean, expected.mean)
        np.testing.assert_array_equal(found.top.sample, expected.top.sample)


# Training -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_xla")
def test_pretraining_is_that_of_the_rbms_by_hand(data):
    x, y = data
    sgd = keras.optimizers.SGD(0.1)
    model = GenerativeDBN([4, 3, 6], 3, seed=1)
    histories = model.pretrain(x, y, [2, 1, 2], 10, [sgd, sgd, "adam"], verbose=0)
    assert [len(h.history["reconstruction_cross_entropy"]) for h in histories] == [2, 1, 2]
    hand = GenerativeDBN([4, 3, 6], 3, seed=1)
    hand.below.pretrain(x, [2, 1], 10, sgd, verbose=0)
    hand.build((None, 5))
    hand.top.compile("adam")
    hand.top.fit(tf.concat([hand.below(x), np.eye(3)[y]], 1), batch_size=10, epochs=2, verbose=0)
    for ours, theirs in zip(model.variables, hand.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for rbm, weights in zip(model.below.rbms, model.generative, strict=True):
        np.testing.assert_array_equal(rbm.layer.W, weights)
    # What up-down has made of a layer that is not trained again stays.
    model.generative[0].assign(np.ones((5, 4)))
    model.pretrain(x, y, [0, 1, 0], 10, verbose=0)
    np.testing.assert_array_equal(model.generative[0], np.ones((5, 4)))
    np.testing.assert_array_equal(model.generative[1], model.below.rbms[1].layer.W)


def exact_log_likelihood(model, reference, x, y):
    return np.log(Enumerated(model, reference).joint[numbers(x), y]).mean()


@pytest.mark.usefixtures("without_xla")
def test_up_down_raises_the_exact_likelihood(reference):
    """Two classes of 4 bits, each with two patterns and noise."""
    random = np.random.default_rng(1)
    y = random.integers(0, 2, 1000)
    patterns = np.array([[[1, 1, 0, 0], [1, 0, 1, 0]], [[0, 1, 0, 1], [0, 0, 1, 1]]])
    x = patterns[y, random.integers(0, 2, 1000)]
    x = np.where(random.random(x.shape) < 0.05, 1 - x, x).astype("float32")
    model = GenerativeDBN([5, 5, 8], 2, negative=dbn.negative.CD(5), seed=2)
    sgd = keras.optimizers.SGD(0.1)
    model.pretrain(x, y, epochs=10, batch_size=20, optimizer=sgd, verbose=0)
    start = exact_log_likelihood(model, reference, x, y)
    model.compile(sgd, metrics="error")
    model.fit(x, y, batch_size=20, epochs=30, verbose=0)
    end = exact_log_likelihood(model, reference, x, y)
    # The entropy of the source is a little less: patterns two bits apart become each other.
    best = -2 * np.log(2) + 4 * (0.05 * np.log(0.05) + 0.95 * np.log(0.95))
    assert -5 * np.log(2) < start < best - 0.5  # Better than coins, and far from the best.
    assert end > best - 0.35
    error = np.mean(model.predict(x, verbose=0).argmax(1) != y)
    assert error < 0.15
    assert model.evaluate(x, y, verbose=0) == pytest.approx(error, abs=1e-6)


def assert_same(one, other):
    for ours, theirs in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("without_xla")
def test_saved_stopped_and_gone_on_with_it_ends_with_the_same_bits(data, tmp_path):
    x, y = data

    def started():
        model = make(negative=dbn.negative.FastPCD(1, 5))
        sgd = keras.optimizers.SGD(0.1, momentum=0.5)
        model.compile(sgd, metrics=["error"], run_eagerly=True)
        return model

    how = {"batch_size": 10, "verbose": 0, "validation_data": (x[:9], y[:9])}
    whole = started()
    history = whole.fit(x, y, epochs=3, **how).history
    assert list(history) == ["error", "val_error"]
    part = started()
    part.fit(x, y, epochs=1, checkpoint=tmp_path / "kept", **how)
    part.save(tmp_path / "model.keras")
    again = started()
    assert again.fit(x, y, epochs=3, checkpoint=tmp_path / "kept", **how).history == history
    assert_same(again, whole)
    loaded = dbn.load_model(tmp_path / "model.keras")
    assert (loaded.seed, loaded.classes) == (part.seed, 3)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(23)
    loaded.fit(x, y, epochs=2, **how | {"validation_data": pairs})
    assert_same(loaded, whole)
    np.testing.assert_array_equal(
        loaded.sample([0, 1], steps=5).mean, whole.sample([0, 1], steps=5).mean
    )


def test_the_export_needs_no_dbn(data, tmp_path):
    model = make()
    model.export(tmp_path / "saved_model", verbose=False)
    np.save(tmp_path / "x.npy", data[0])
    paths = [str(tmp_path / name) for name in ("saved_model", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", WITHOUT_DBN, *paths], check=True)
    found = np.load(paths[-1])
    np.testing.assert_allclose(found["probabilities"], model(data[0]), atol=1e-6)
    images = model.sample([0, 2, 1, 2], steps=20, seed=5).mean
    np.testing.assert_allclose(found["images"], images, atol=1e-6)


def test_a_dataset_of_pairs_is_fitted_in_its_order(data):
    x, y = data
    one, other = make(), make()
    for model in (one, other):
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    one.fit(x, y, batch_size=10, shuffle=False, verbose=0)
    pairs = tf.data.Dataset.from_tensor_slices((x, y.astype("int16")))
    other.fit(pairs.batch(10), verbose=0)
    assert_same(one, other)
    bad = tf.data.Dataset.from_tensor_slices((x, np.where(np.arange(23) == 15, 3, y))).batch(10)
    with pytest.raises(ValueError, match="A batch of x, .*columns 5 to 7 NaN, .* do not sum to 1"):
        other.fit(bad, verbose=0)


def test_other_unit_types_are_trained_and_sampled():
    """Real-valued cases with learnt variances, spins above."""
    layers = [RBMLayer(4, "scaled_gaussian", "spin"), RBMLayer(3, "spin", "spin"), 6]
    model = GenerativeDBN(layers, 3, seed=0)
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    model.build((None, 5))
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    before = np.array(layers[0].visible.log_variance)
    model.fit(x, np.arange(60) % 3, batch_size=20, verbose=0)
    assert np.abs(layers[0].visible.log_variance - before).max() > 1e-4
    assert np.isin(model.sample(1, 4, 10).top.sample[:, :3], [-1, 1]).all()


def test_columns_of_several_types_are_trained_as_those_of_one(data):
    """Two types side by side that are the same are one type."""
    x, y = data
    mixed = Mixed([("bernoulli", 2), ("bernoulli", 3)])
    one, other = make(), make(layers=(dbn.RBM(RBMLayer(4, visible=mixed), seed=0), 3, 6))
    for model in (one, other):
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.fit(x, y, batch_size=10, verbose=0)
    np.testing.assert_allclose(one.generative[0], other.generative[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.top.layer.W, other.top.layer.W, rtol=1e-5, atol=1e-6)


def test_a_bottom_rbm_that_binarises_does_so_here_too(data):
    x, y = data
    model = make(layers=(dbn.RBM(4, seed=7, binarize=True), 3, 6))
    bottom = model.below.rbms[0]
    bottom.updates.assign(11)
    model.compile(run_eagerly=True)
    joined = tf.concat([x, np.eye(3, dtype="float32")[y]], 1)
    states = np.array(model.prepare(joined, tf.constant(5, tf.int64))[0])
    u = np.array(noise.uniforms((23, 5), 7, 16, noise.Stream.BINARIZE))
    np.testing.assert_array_equal(states, np.concatenate([u < x, np.eye(3)[y]], 1))
    model.fit(x, y, validation_data=(x, y), verbose=0)


def test_pretraining_in_float64(data):
    x, y = data
    before, found = keras.config.dtype_policy(), []
    try:
        for policy in ("float32", "float64"):
            keras.config.set_dtype_policy(policy)
            model = make()
            for rbm in (*model.below.rbms, model.top):
                rbm.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
            model.pretrain(x, y, verbose=0)
            found.append(np.array(model.top.layer.W))
    finally:
        keras.config.set_dtype_policy(before)
    assert found[1].dtype == "float64"
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


# Bad input ----------------------------------------------------------------------------------------

LABELLED = Mixed([("bernoulli", 3), ("categorical", 3)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [4]}, "`layers` must be a list of at least two"),
        ({"layers": 4}, "`layers` must be a list of at least two"),
        ({"classes": 1}, "`classes` must be an integer >= 2"),
        ({"negative": 3}, "`negative` must be a `dbn.negative.NegativePhase`"),
        ({"layers": [4, "a"]}, "`units` must be an integer >= 1"),
        (
            {"layers": [4, 3, RBMLayer(6)]},
            r"must have the visible units Mixed\(\[\('bernoulli', 3\), \('categorical', 3\)\]\)",
        ),
        (
            {"layers": [4, 2, RBMLayer(6, visible=LABELLED)]},
            r"Mixed\(\[\('bernoulli', 2\), .*got Mixed\(\[\('bernoulli', 3\)",
        ),
        (
            {"layers": [3, RBMLayer(6, LABELLED)], "negative": dbn.negative.CD(2)},
            "`negative` is for a top RBM given as an integer",
        ),
        ({"layers": [RBMLayer(4, "gaussian", "relu"), 3]}, "Layer 1 has 'relu' hidden units"),
        ({"layers": [4, RBMLayer(3, "spin"), 6]}, "Layer 2 has spin visible units above bernoulli"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_models(arguments, message):
    with pytest.raises(ValueError, match=message):
        GenerativeDBN(**{"layers": [4, 3, 6], "classes": 3} | arguments)


X, Y = np.full((6, 5), 0.5, "float32"), np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, None, "`y` must be the label of each case"),
        (X, Y[:5], "`y` must have a label for each of 6 cases; got 5"),
        (X, Y + 1, "`y` must lie in 0 to 2, for 3 classes; got 3 for case 2"),
        (X, Y - 1, "`y` must lie in 0 to 2, for 3 classes; got -1 for case 0"),
        (X, Y / 1, r"`y` must hold integers, .*; got float64 of shape \(6,\)"),
        (X, np.eye(3, dtype=int)[Y], r"`y` must hold integers, .* of shape \(6, 3\)"),
        (X, list("abcabc"), "`y` must hold integers"),
        (X[:, :4], Y, r"`x` must have width 5; got shape \(6, 4\)"),
        (2 * X + 1, Y, r"`x` must lie in \[0, 1\]"),
        (X[:2], Y[:2], "`x` has 2 cases, fewer than the 3 classes"),
    ],
)
def test_bad_data(x, y, message):
    model = make()
    model.compile()
    before = [np.array(variable) for variable in model.variables]
    for train in (model.fit, model.pretrain):
        with pytest.raises(ValueError, match=message):
            train(x, y)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_bad_arguments(data):
    x, y = data
    model = make()
    with pytest.raises(ValueError, match="`epochs` must be one value or a list .* 3 layers; got 2"):
        model.pretrain(x, y, epochs=[1, 2])
    with pytest.raises(ValueError, match="`epochs` must be an integer >= 0; got -1"):
        model.pretrain(x, y, epochs=[1, 1, -1])
    with pytest.raises(ValueError, match="`x` must be an array here, not a Dataset"):
        model.pretrain(tf.data.Dataset.from_tensors((x, y)), None)
    with pytest.raises(ValueError, match="up-down algorithm has no loss"):
        model.compile(loss="mse")
    with pytest.raises(ValueError, match="Unknown metric 'accuracy' .*known: reconstruction_cross"):
        model.compile(metrics=["accuracy"])
    model.compile()
    with pytest.raises(ValueError, match=r"`validation_data` must be a pair \(x, y\)"):
        model.fit(x, y, validation_data=x)
    with pytest.raises(ValueError, match=r"`validation_data\[1\]` must lie in 0 to 2"):
        model.fit(x, y, validation_data=(x, y + 1))
    with pytest.raises(ValueError, match=r"must have pairs \(x, y\)"):
        model.fit(tf.data.Dataset.from_tensors(x))
    with pytest.raises(ValueError, match="`x` must have width 5"):
        model.log_probabilities(x[:, :3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": 3}, "`label` must lie in 0 to 2, for 3 classes; got 3"),
        ({"label": "one"}, "`label` must hold integers"),
        ({"label": 1.0}, "`label` must hold integers"),
        ({"label": [0, 1], "chains": 3}, "`label` is for 2 chains, but there are 3"),
        ({"start": "persistent"}, "`start` must be cases, samples or 'noise'"),
        ({"start": X[:, :2]}, "`start` must have width 5"),
        ({"steps": 0}, "`steps` must be an integer >= 1"),
        ({"chains": 0}, "`chains` must be an integer >= 1"),
        ({"chains": 2, "start": X}, "`chains` is 2, but `start` has 6 chains"),
    ],
)
def test_bad_arguments_of_sample(arguments, message):
    with pytest.raises(ValueError, match=message):
        make().sample(**arguments)


@pytest.mark.parametrize("name", ["model", "model.below.rbms[0].layer", "model.top.layer.dense"])
def test_frozen_weights_are_not_trained_around(name, data):
    model = make()
    part = eval(name, {"model": model})
    part.trainable = False
    model.compile()
    with pytest.raises(ValueError, match=re.escape(f"Set `{name}.trainable = True`")):
        model.fit(*data)
    part.trainable = True
    model._check_trainable()
    model = GenerativeDBN([4, 3], 2, trainable=False)
    assert not model.below.rbms[0].layer.dense.trainable and not model.top.layer.dense.trainable


def test_what_is_not_built_is_refused(tmp_path):
    model = GenerativeDBN([4, 3], 2)
    for use in (
        model.sample,
        lambda: model.log_probabilities(X),
        lambda: model.export(tmp_path / "saved_model"),
    ):
        with pytest.raises(ValueError, match="The GenerativeDBN is not built"):
            use()
