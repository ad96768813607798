"""`contrastive_divergence` and `RBM` beside a second implementation in NumPy float64."""

import functools
import gc
import json
import re
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import contrastive_divergence, noise, sampling, trainer, training

VISIBLE, HIDDEN, SEED = 6, 4, 7
X = np.random.default_rng(0).random((22, VISIBLE), dtype=np.float32)
VALID = np.random.default_rng(1).random((9, VISIBLE), dtype=np.float32)
# Five batches, the last one short: two executions of three steps.
PARTS = [X[at : at + 5] for at in range(0, 22, 5)]
# How to run it: by default, or, where that is not what is tested, in ways that compile faster.
MODES = {
    "xla": {},
    "graph": {"jit_compile": False, "steps_per_execution": 3},
    "eager": {"run_eagerly": True, "steps_per_execution": 3},
}
BOTH = ["pseudo_log_likelihood", "reconstruction_cross_entropy"]


def make(layer=None, optimizer=None, metrics=BOTH, mode="graph", seed=SEED, **kwargs):
    """A built and compiled RBM, with the same initial weights each time."""
    keras.utils.set_random_seed(3)
    rbm = dbn.RBM(layer or dbn.RBMLayer(HIDDEN), seed=seed, **kwargs)
    rbm.build((None, VISIBLE))
    rbm.compile(optimizer or keras.optimizers.SGD(0.1), metrics=metrics, **MODES[mode])
    rbm.optimizer.build(rbm.trainable_variables)
    return rbm


@functools.cache
def _compiled(persistent, mode, *metrics):
    rbm = make(persistent=persistent, chains=3, k=2, metrics=metrics or BOTH, mode=mode)
    return rbm, state(rbm)


def ready(persistent=False, mode="graph", *metrics):
    """An RBM in its first state that is compiled once for all tests, which must leave it so."""
    rbm, start = _compiled(persistent, mode, *metrics)
    put(rbm, start)
    return rbm


def fit(rbm, x=X, **kwargs):
    batch_size = None if isinstance(x, tf.data.Dataset) else 5
    return rbm.fit(x, **{"batch_size": batch_size, "verbose": 0, **kwargs})


def state(rbm):
    """Copies of all that training changes: weights, chains, counters, the optimizer's state."""
    return [np.array(v.value) for v in [*rbm.variables, *rbm.optimizer.variables]]


def put(rbm, values):
    """Goes back to what `state` returned."""
    for variable, value in zip([*rbm.variables, *rbm.optimizer.variables], values, strict=True):
        variable.assign(value)


def written(config):
    """A config as a file keeps it."""
    return json.loads(json.dumps(config))


def assert_same(left, right):
    """Bit for bit."""
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_differ(left, right):
    assert any((a != b).any() for a, b in zip(left, right, strict=True))


def assert_close(rbm, replica, tolerance=1e-5):
    for found, expected in zip(
        (rbm.layer.W, rbm.layer.hbias, rbm.layer.vbias),
        (replica.W, replica.hbias, replica.vbias),
        strict=True,
    ):
        np.testing.assert_allclose(np.array(found.value), expected, tolerance, tolerance)


def dataset(parts=None, pairs=False):
    """A Dataset of unknown length and shape, of a generator."""
    parts = PARTS if parts is None else parts
    spec = tf.TensorSpec(None, tf.float32)
    if not pairs:
        return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=spec)
    return tf.data.Dataset.from_generator(
        lambda: ((part, part[:, 0]) for part in parts), output_signature=(spec, spec)
    )


def slices(x=X, size=5):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


# A second implementation ----------------------------------------------------------------------


def gibbs(model, v, h, u):
    """The steps of noise u `(k, chains, visible + hidden)`: from h, or from v if h is None."""
    width = len(model.vbias)
    for u_v, u_h in ((step[:, :width], step[:, width:]) for step in np.array(u)):
        if h is None:
            v = (u_v < model.mean_v(u_h < model.mean_h(v))).astype(float)
        else:
            v = (u_v < model.mean_v(h)).astype(float)
            h = (u_h < model.mean_h(v)).astype(float)
    return v, h


def gradients(model, v, end):
    data, chains = (model.free_energy_gradient(part) for part in (v, end))
    return [a - b for a, b in zip(data, chains, strict=True)]


class Replica:
    """What `fit` does to an RBM with plain SGD, from the RBM's present values on."""

    def __init__(self, reference, rbm):
        self.model, self.rbm = reference.of(rbm.layer), rbm
        self.chain = np.array(rbm.chain.value) if rbm.persistent else None
        self.updates, self.epochs = int(rbm.updates), int(rbm.epochs)
        self.trajectory = []

    def shuffled(self, size=5):
        """The batches of X in the order of the next epoch."""
        order = np.array(noise.permutation(len(X), SEED, self.epochs))
        return [X[order[at : at + size]] for at in range(0, len(X), size)]

    def epoch(self, parts, rate=0.1, change=lambda gradient: gradient):
        """Trains on these batches; returns the epoch's figures, means over cases."""
        figures = []
        for v in parts:
            chains = len(self.chain) if self.rbm.persistent else len(v)
            shape = (self.rbm.k, chains, VISIBLE + HIDDEN)
            u = np.array(noise.uniforms(shape, SEED, self.updates))
            u_h = u[0, :, VISIBLE:]
            if self.rbm.persistent:
                step = (SEED, self.updates, noise.Stream.METRIC)
                u_h = np.array(noise.uniforms((len(v), HIDDEN), *step))
            figures.append(self.figures(v, self.updates % VISIBLE, u_h))
            end, self.chain = gibbs(self.model, v, self.chain, u)
            step = map(change, gradients(self.model, v, end))
            for name, gradient in zip(("W", "hbias", "vbias"), step, strict=True):
                factor = rate(self.updates) if callable(rate) else rate
                setattr(self.model, name, getattr(self.model, name) - factor * gradient)
            self.updates += 1
            self.trajectory.append((self.model.W, self.model.hbias, self.model.vbias))
        self.epochs += 1
        return np.concatenate(figures, 1).mean(1)

    def figures(self, v, bit, u_h):
        h = u_h < self.model.mean_h(v)
        cross_entropy = self.model.reconstruction_cross_entropy(v, h)
        return np.stack([self.model.pseudo_log_likelihood(v, bit), cross_entropy])

    def test(self, parts):
        """The `val_` figures: the same fixed noise for a batch whenever it is asked for."""
        figures = []
        for number, v in enumerate(parts):
            u = noise.uniforms((len(v), 1 + HIDDEN), SEED, number, noise.Stream.TEST).numpy()
            figures.append(self.figures(v, (u[:, 0] * VISIBLE).astype(int), u[:, 1:]))
        return np.concatenate(figures, 1).mean(1)


@pytest.fixture
def replica(reference):
    return lambda rbm: Replica(reference, rbm)


# contrastive_divergence -----------------------------------------------------------------------


def regularized_layer(reference, visible, hidden):
    dense = keras.layers.Dense(
        hidden,
        activation="sigmoid",
        kernel_regularizer=keras.regularizers.L2(0.01),
        bias_regularizer=keras.regularizers.L1(0.1),
    )
    layer = dbn.RBMLayer(dense=dense)
    layer.build((None, visible))
    model = reference.random(visible, hidden, scale=0.5)
    dense.set_weights([model.W, model.hbias])
    layer.vbias.assign(model.vbias)
    return layer, reference.of(layer)


@pytest.mark.parametrize(("k", "persistent"), [(1, 0), (3, 0), (40, 0), (15, 1), (40, 1)])
def test_cost_gradient_and_state_equal_numpy(reference, k, persistent):
    layer, model = regularized_layer(reference, 12, 9)
    v = np.random.default_rng(1).random((10, 12), dtype=np.float32)
    h = np.random.default_rng(2).integers(0, 2, (8, 9)).astype("float32") if persistent else None
    u = sampling.gibbs_noise(layer, 8 if persistent else 10, k, seed=4, step=2)
    with tf.GradientTape() as tape:
        cost, after = contrastive_divergence(layer, v, None if h is None else tf.constant(h), u, k)
    found = tape.gradient(cost, [w.value for w in (layer.W, layer.hbias, layer.vbias)])

    end, h = gibbs(model, v, h, u)
    gap = model.free_energy(v).mean() - model.free_energy(end).mean()
    regularization = 0.01 * (model.W**2).sum() + 0.1 * np.abs(model.hbias).sum()
    np.testing.assert_allclose(cost, gap + regularization, 1e-5)
    expected = gradients(model, v, end)
    expected[0] += 0.02 * model.W
    expected[1] += 0.1 * np.sign(model.hbias)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())
    if persistent:
        np.testing.assert_array_equal(after, h)
    else:
        assert after is None


@pytest.mark.parametrize("k", [1, 50])
def test_expected_gradient_of_pcd_is_the_enumerated_one(reference, k):
    """From exact samples after one step, and from zeros after 50: within 4 standard errors."""
    model, chains = reference.random(4, 3), 100_000
    layer = model.layer()
    x = np.random.default_rng(3).integers(0, 2, (50, 4)).astype("float32")
    start = np.zeros((chains, 3), "float32")
    if k == 1:
        draw = np.random.default_rng(4).choice(8, chains, p=model.p_h())
        start = model.states(3)[draw].astype("float32")
    u = sampling.gibbs_noise(layer, chains, k, seed=5, step=0)
    with tf.GradientTape() as tape:
        cost, after = contrastive_divergence(layer, x, tf.constant(start), u, k)
    found = tape.gradient(cost, [w.value for w in (layer.W, layer.hbias, layer.vbias)])

    v, p = model.states(4), model.p_v()
    h = model.mean_h(v)
    terms = (v[:, :, None] * h[:, None], h, v)  # Of a chain that ends at v.
    for a, b, term in zip(found, model.gradient(x), terms, strict=True):
        variance = np.tensordot(p, term**2, 1) - np.tensordot(p, term, 1) ** 2
        assert np.all(np.abs(a - b) < 4 * np.sqrt(variance / chains))
    share = np.bincount((np.array(after) @ [4, 2, 1]).astype(int), minlength=8) / chains
    error = np.sqrt(model.p_h() * (1 - model.p_h()) / chains)
    assert np.all(np.abs(share - model.p_h()) < 4 * error)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None])
def test_k_below_1_is_refused(reference, k):
    layer = reference.random().layer()
    with pytest.raises(ValueError, match="`k` must be an integer >= 1; got"):
        contrastive_divergence(layer, tf.ones((2, 4)), None, tf.ones((1, 2, 7)), k)
    with pytest.raises(ValueError, match="`k` must be an integer >= 1; got"):
        dbn.RBM(HIDDEN, k=k)


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 5, 7), (2, 4, 7), (2, 1, 7), (2, 5, 8), (5, 7)])
@pytest.mark.parametrize("persistent", [False, True])
def test_noise_of_another_shape_is_refused(reference, shape, persistent):
    layer = reference.random().layer()
    v, h = (tf.ones((3, 4)), tf.ones((5, 3))) if persistent else (tf.ones((5, 4)), None)
    contrastive_divergence(layer, v, h, tf.fill((2, 5, 7), 0.5), 2)
    with pytest.raises(ValueError, match=r"`noise` must have shape \(2, 5, 7\), .*; got \("):
        contrastive_divergence(layer, v, h, tf.fill(shape, 0.5), 2)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_loop_of_ones_own_equals_fit(persistent):
    rbm = ready(persistent)
    own = make().layer
    h, optimizer = tf.zeros((3, HIDDEN)) if persistent else None, keras.optimizers.SGD(0.1)
    for step, v in enumerate(PARTS):
        u = sampling.gibbs_noise(own, 3 if persistent else len(v), 2, SEED, step)
        with tf.GradientTape() as tape:
            cost, h = contrastive_divergence(own, v, h, u, 2)
        optimizer.apply(tape.gradient(cost, own.trainable_variables), own.trainable_variables)
    fit(rbm, shuffle=False)
    for a, b in zip(rbm.layer.weights, own.weights, strict=True):
        np.testing.assert_allclose(np.array(a.value), np.array(b.value), 1e-6, 1e-6)
    if persistent:
        np.testing.assert_array_equal(np.array(rbm.chain.value), h)


# fit: what it computes ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("persistent", [False, True])
def test_fit_equals_numpy_however_it_is_run(replica, mode, persistent):
    """Order, noise, short last batch, chains, counters, cycling bit, means over cases."""
    rbm = ready(persistent, mode)
    numpy = replica(rbm)
    history = fit(rbm, epochs=2).history
    expected = [numpy.epoch(numpy.shuffled()) for _ in range(2)]
    assert_close(rbm, numpy.model)
    assert list(history) == BOTH
    np.testing.assert_allclose(np.transpose([history[name] for name in BOTH]), expected, 1e-5)
    assert int(rbm.updates) == 10 and int(rbm.epochs) == 2
    if persistent:
        np.testing.assert_array_equal(np.array(rbm.chain.value), numpy.chain)


@pytest.mark.parametrize(
    ("persistent", "name"),
    [(True, "pseudo_log_likelihood"), (False, "reconstruction_cross_entropy")],
)
def test_metric_by_default(persistent, name):
    assert list(fit(make(persistent=persistent, metrics=None)).history) == [name]


def test_cycling_bit_goes_on_over_fits_and_files(replica, tmp_path):
    rbm = make(persistent=True, chains=3, metrics="pseudo_log_likelihood")
    numpy = replica(rbm)
    found = fit(rbm, epochs=2).history["pseudo_log_likelihood"]
    rbm.evaluate(VALID, verbose=0)  # Updates alone advance it.
    rbm.save(tmp_path / "rbm.keras")
    rbm = keras.saving.load_model(tmp_path / "rbm.keras")
    found += fit(rbm).history["pseudo_log_likelihood"]
    expected = [numpy.epoch(numpy.shuffled())[0] for _ in range(3)]
    np.testing.assert_allclose(found, expected, 1e-5)
    assert int(rbm.updates) % VISIBLE == 3


# fit: going on --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("persistent", [False, True])
def test_two_fits_equal_one_bit_for_bit(mode, persistent):
    rbm = ready(persistent, mode)
    whole = fit(rbm, epochs=4).history
    end = state(rbm)
    assert ready(persistent, mode) is rbm
    first = fit(rbm, epochs=2).history
    half = state(rbm)
    second = fit(rbm, epochs=2).history
    assert_same(state(rbm), end)
    assert_differ(half, end)
    assert whole == {name: first[name] + second[name] for name in BOTH}
    assert int(rbm.updates) == 20 and int(rbm.epochs) == 4


def test_compile_in_between_touches_no_counter():
    one, two = ready(True), make(persistent=True, chains=3, k=2)
    fit(one, epochs=2)
    fit(two)
    two.compile(keras.optimizers.SGD(0.1), **MODES["graph"])
    fit(two)
    assert_same(state(one)[:-2], state(two)[:-2])  # All but the new optimizer's own counter.
    assert int(two.updates) == 10


@pytest.mark.parametrize(
    ("optimizer", "mode"),
    [(keras.optimizers.SGD(0.1, momentum=0.9), "xla"), (keras.optimizers.Adam(0.01), "graph")],
    ids=["momentum", "adam"],
)
def test_fit_save_load_fit_is_uninterrupted_training_bit_for_bit(tmp_path, optimizer, mode):
    rbm = make(persistent=True, chains=3, metrics=None, optimizer=optimizer, mode=mode)
    x = X[:20]
    fit(rbm, x)
    rbm.save(tmp_path / "rbm.keras")
    loaded = keras.saving.load_model(tmp_path / "rbm.keras")
    assert_same(state(rbm), state(loaded))
    assert loaded.chain.shape == (3, HIDDEN) and np.any(np.array(loaded.chain.value))
    assert loaded.layer.W is loaded.layer.dense.kernel
    assert written(loaded.get_config()) == written(rbm.get_config())
    assert written(loaded.get_compile_config()) == written(rbm.get_compile_config())
    histories = [fit(model, x).history for model in (rbm, loaded)]
    assert histories[0] == histories[1]
    assert_same(state(rbm), state(loaded))
    assert int(loaded.updates) == 8


def test_save_weights_and_load_weights_keep_chains_and_counters(tmp_path):
    rbm, other = ready(True), make(persistent=True, chains=3, k=2)
    fit(rbm, epochs=2)
    rbm.save_weights(tmp_path / "rbm.weights.h5")
    fit(rbm)
    other.load_weights(tmp_path / "rbm.weights.h5")
    fit(other)
    assert_same(*([np.array(w.value) for w in model.weights] for model in (rbm, other)))
    assert int(other.updates) == 15


def test_file_of_a_model_that_was_not_compiled(tmp_path):
    rbm = dbn.RBM(HIDDEN, k=3, seed=5)
    rbm.build((None, VISIBLE))
    rbm.save(tmp_path / "rbm.keras")
    loaded = keras.saving.load_model(tmp_path / "rbm.keras")
    assert not loaded.compiled and written(loaded.get_config()) == written(rbm.get_config())
    np.testing.assert_array_equal(np.array(rbm(X)), np.array(loaded(X)))


def test_config_round_trip():
    dense = keras.layers.Dense(5, activation="sigmoid", name="shared", kernel_regularizer="l2")
    rbm = dbn.RBM(dbn.RBMLayer(dense=dense), k=3, persistent=True, chains=9, seed=11, name="lower")
    other = dbn.RBM.from_config(rbm.get_config())
    assert other.get_config() == rbm.get_config()
    assert (other.k, other.persistent, other.chains, other.seed) == (3, True, 9, 11)
    assert other.name == "lower" and other.layer.dense.kernel_regularizer.l2 == 0.01
    assert other.layer.dense is not dense


def test_chains_are_100_unless_said_otherwise_whatever_the_batch_size():
    rbm = dbn.RBM(HIDDEN, persistent=True)
    rbm.compile(**MODES["eager"])
    fit(rbm, steps_per_epoch=2)
    assert rbm.chain.shape == (100, HIDDEN) and not rbm.chain.trainable
    assert 0 < np.array(rbm.chain.value).mean() < 1
    assert rbm.chains == 100 and dbn.RBM(HIDDEN).chains is None


def test_seeds():
    def after(global_seed, seed=None, rate=0.1):
        keras.utils.set_random_seed(global_seed)
        rbm = dbn.RBM(HIDDEN, persistent=True, chains=3, seed=seed)
        rbm.build((None, VISIBLE))
        rbm.layer.W.assign(tf.zeros((VISIBLE, HIDDEN)) if seed else rbm.layer.W)
        rbm.compile(keras.optimizers.SGD(rate), **MODES["eager"])
        fit(rbm, steps_per_epoch=2)
        return state(rbm)

    first = after(1)
    assert_same(first, after(1))
    assert_differ(first, after(2))
    # With equal weights, seed= alone decides.
    assert_same(after(1, seed=5), after(2, seed=5))
    assert_differ(after(1, seed=5), after(1, seed=6))


@pytest.mark.parametrize("data", [X, slices()], ids=["array", "dataset"])
def test_steps_per_execution_changes_no_bit(data):
    found = []
    for steps in (1, 7, "auto"):
        rbm = make(k=2)
        rbm.compile(keras.optimizers.SGD(0.1), jit_compile=False, steps_per_execution=steps)
        history = fit(rbm, data, epochs=2, validation_data=VALID, validation_batch_size=2).history
        found.append([state(rbm), history])
        assert rbm.steps_per_execution == 1  # It lasts as long as fit.
    for other in found[1:]:
        assert_same(found[0][0], other[0])
        assert found[0][1] == other[1]


def test_probing_for_the_length_of_an_execution_may_diverge():
    """It makes more updates than the training that follows; those must not count."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 5, np.inf, staircase=True)
    auto, three = (make(optimizer=keras.optimizers.SGD(rate)) for _ in range(2))
    auto.compile(auto.optimizer, metrics=BOTH, jit_compile=False)
    fit(auto)
    fit(three)
    assert_same(state(auto), state(three))


# fit: its arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "arguments", "epochs"),
    [
        (X, {"shuffle": False, "epochs": 2}, [PARTS] * 2),
        (X.tolist(), {"shuffle": False}, [PARTS]),
        (tf.constant(X, tf.float64), {"shuffle": False}, [PARTS]),
        (X, {"shuffle": False, "batch_size": None}, [[X]]),  # 32 by default.
        (X, {"shuffle": False, "batch_size": np.int64(11)}, [[X[:11], X[11:]]]),
        (X, {"shuffle": False, "steps_per_epoch": 2, "epochs": 2}, [PARTS[:2]] * 2),
        (X, {"shuffle": False, "steps_per_epoch": 5}, [PARTS]),
        (X, {"shuffle": False, "validation_split": 0.3}, [PARTS[:3]]),
        (X, {"shuffle": False, "initial_epoch": 2, "epochs": 3}, [PARTS]),
        (X, {"initial_epoch": 3, "epochs": 3}, []),
        (slices(), {"epochs": 2}, [PARTS] * 2),
        (slices(X.astype("float64")), {}, [PARTS]),
        (tf.data.Dataset.zip((slices(), slices(X[:, 0]))), {}, [PARTS]),
        (dataset(pairs=True), {"epochs": 2}, [PARTS] * 2),
        (dataset(), {"epochs": 3}, [PARTS] * 3),
        (dataset(PARTS[:3]), {"epochs": 2}, [PARTS[:3]] * 2),  # One execution an epoch.
        # Where there are steps an epoch, the next one goes on where the last one ended.
        (
            slices().repeat(),
            {"epochs": 2, "steps_per_epoch": 4},
            [PARTS[:4], [PARTS[4], *PARTS[:3]]],
        ),
        (slices(), {"epochs": 2, "steps_per_epoch": 4}, [PARTS[:4], [PARTS[4], *PARTS[:3]]]),
        (dataset(), {"epochs": 2, "steps_per_epoch": 4}, [PARTS[:4], [PARTS[4], *PARTS[:3]]]),
        (slices(), {"steps_per_epoch": 7}, [[*PARTS, *PARTS[:2]]]),
    ],
)
def test_fit_makes_its_updates_from_these_batches(replica, recwarn, x, arguments, epochs):
    rbm = ready()
    numpy = replica(rbm)
    history = fit(rbm, x, **arguments)
    expected = [numpy.epoch(parts) for parts in epochs]
    assert_close(rbm, numpy.model)
    assert int(rbm.updates) == numpy.updates and int(rbm.epochs) == len(epochs)
    first = arguments.get("initial_epoch", 0)
    assert history.epoch == list(range(first, first + len(epochs)))
    found = [history.history.get(name, []) for name in BOTH]
    np.testing.assert_allclose(np.transpose(found), np.reshape(expected, (-1, 2)), 1e-5)
    assert not [w for w in recwarn if "ran out of data" in str(w.message)]


@pytest.mark.parametrize(
    ("validation", "parts"),
    [
        ({"validation_data": VALID}, [VALID]),
        (
            {"validation_data": VALID, "validation_batch_size": 4},
            [VALID[:4], VALID[4:8], VALID[8:]],
        ),
        (
            {"validation_data": (VALID, None), "validation_batch_size": 2, "validation_steps": 4},
            [VALID[at : at + 2] for at in (0, 2, 4, 6)],
        ),
        ({"validation_split": 0.4}, [X[13:]]),
        ({"validation_data": slices(VALID, 8)}, [VALID[:8], VALID[8:]]),
        ({"validation_data": dataset([VALID[:3], VALID[3:]])}, [VALID[:3], VALID[3:]]),
        (
            {"validation_data": dataset([VALID[:3]] * 9, pairs=True), "validation_steps": 4},
            [VALID[:3]] * 4,
        ),
        ({"validation_data": slices(VALID).repeat(), "validation_steps": 1}, [VALID[:5]]),
    ],
)
def test_validation_figures_equal_numpy_with_the_same_bits_each_epoch(
    replica, recwarn, validation, parts
):
    rbm = ready(True, "graph", *BOTH, "free_energy_gap")
    rbm.optimizer.learning_rate = 0.0
    logs = fit(rbm, epochs=3, **validation).history
    numpy = replica(rbm)
    figures = numpy.test(parts)
    for name, figure in zip(BOTH, figures, strict=True):
        assert len(set(logs[f"val_{name}"])) == 1
        np.testing.assert_allclose(logs[f"val_{name}"][0], figure, 1e-5)
    count = min(13, sum(map(len, parts)))
    gap = [numpy.model.free_energy(v).mean() for v in (X[:count], np.concatenate(parts)[:count])]
    np.testing.assert_allclose(logs["free_energy_gap"], [gap[1] - gap[0]] * 3, 1e-4, 1e-5)
    if "validation_data" in validation:
        found = rbm.evaluate(
            validation["validation_data"],
            batch_size=validation.get("validation_batch_size"),
            steps=validation.get("validation_steps"),
            verbose=0,
            return_dict=True,
        )
        assert found == {name: logs[f"val_{name}"][0] for name in BOTH}
    assert not [w for w in recwarn if "ran out of data" in str(w.message)]


def test_figures_of_an_epoch_are_those_of_its_last_weights(replica):
    rbm = ready(True, "graph", *BOTH, "free_energy_gap")
    numpy = replica(rbm)
    logs = fit(rbm, epochs=2, shuffle=False, validation_data=VALID).history
    for epoch in range(2):
        numpy.epoch(PARTS)
        np.testing.assert_allclose(
            [logs[f"val_{name}"][epoch] for name in BOTH], numpy.test([VALID]), 1e-5
        )
        gap = numpy.model.free_energy(VALID).mean() - numpy.model.free_energy(X[:9]).mean()
        np.testing.assert_allclose(logs["free_energy_gap"][epoch], gap, 1e-4, 1e-5)
    assert logs["val_pseudo_log_likelihood"][0] != logs["val_pseudo_log_likelihood"][1]


@pytest.mark.parametrize("data", [X, slices(), dataset()])
def test_gap_compares_the_first_training_cases(replica, monkeypatch, data):
    monkeypatch.setattr(trainer, "_GAP_CASES", 7)
    rbm = ready(True, "graph", "free_energy_gap")
    rbm.optimizer.learning_rate = 0.0
    model = replica(rbm).model
    gap = model.free_energy(VALID[:7]).mean() - model.free_energy(X[:7]).mean()
    logs = fit(rbm, data, validation_data=VALID).history
    np.testing.assert_allclose(logs["free_energy_gap"], gap, 1e-4, 1e-5)
    assert list(logs) == ["free_energy_gap"]


@pytest.mark.parametrize(("freq", "evaluated"), [(2, 1), ([1, 3], 2)])
def test_validation_freq(freq, evaluated):
    logs = fit(ready(), epochs=3, validation_data=VALID, validation_freq=freq).history
    assert len(logs["reconstruction_cross_entropy"]) == 3
    assert len(logs["val_reconstruction_cross_entropy"]) == evaluated


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (2, 2)])
def test_verbose(capsys, verbose, lines):
    fit(ready(), epochs=2, verbose=verbose)
    out = capsys.readouterr().out
    assert out.count("reconstruction_cross_entropy") == lines and bool(out) == bool(lines)


# fit: Keras' own tools ------------------------------------------------------------------------


def test_callbacks_one_or_several_and_once_an_execution():
    seen = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((batch, list(logs))),
        on_epoch_end=lambda epoch, logs: seen.append(int(rbm.epochs)),
    )
    for callbacks in (count, [count], (count,)):
        rbm = ready()
        fit(rbm, callbacks=callbacks)
        # When a callback hears of it, the epoch has been counted: what it saves goes on from there.
        assert seen == [(2, BOTH), (5, BOTH), 1]
        seen.clear()


def test_a_callback_may_predict_and_is_given_all_cases():
    alone, rbm, seen = make(), make(), []
    rbm.predict(X, verbose=0)
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append((rbm.predict(X, batch_size=5, verbose=0), rbm(X)))
    )
    fit(rbm, callbacks=[look], epochs=2)
    fit(alone, epochs=2)
    assert_same(state(alone), state(rbm))
    for found, expected in seen:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_callback_may_take_a_training_up_from_elsewhere(tmp_path):
    """As Keras' BackupAndRestore does: weights and counters are there when training begins."""
    whole, first, resumed = make(), make(), make()
    fit(whole, epochs=5)
    fit(first, epochs=3)
    first.save_weights(tmp_path / "rbm.weights.h5")
    load = keras.callbacks.LambdaCallback(
        on_train_begin=lambda _: resumed.load_weights(tmp_path / "rbm.weights.h5")
    )
    fit(resumed, epochs=2, callbacks=[load])
    assert_same(whole.get_weights(), resumed.get_weights())


def test_accumulated_gradients_are_those_of_larger_batches():
    """The step of two batches is the mean of the steps of each from the same weights."""
    plain = make(optimizer=keras.optimizers.SGD(0.1), mode="eager")
    start = [np.array(w) for w in (plain.layer.W, plain.layer.hbias, plain.layer.vbias)]
    accumulated = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    rbm = make(optimizer=accumulated, mode="eager")
    steps = []
    for number in range(2):  # The gradient of each batch at the same weights.
        for w, value in zip(
            (plain.layer.W, plain.layer.hbias, plain.layer.vbias), start, strict=True
        ):
            w.assign(value)
        plain.updates.assign(number)
        plain.update(*plain.prepare(tf.constant(X[5 * number :][:5]), plain.updates.value))
        steps.append([np.array(plain.layer.W) - start[0], np.array(plain.layer.hbias) - start[1]])
    rbm.fit(X[:10], batch_size=5, shuffle=False, verbose=0)
    for w, value, one, two in zip((rbm.layer.W, rbm.layer.hbias), start, *steps, strict=False):
        np.testing.assert_allclose(w, value + (one + two) / 2, rtol=1e-5, atol=1e-6)


def test_evaluate_gives_figures_in_the_order_of_compile():
    rbm = make(metrics=BOTH[::-1])
    in_order = rbm.evaluate(X, verbose=0)
    by_name = rbm.evaluate(X, verbose=0, return_dict=True)
    assert in_order == [by_name[name] for name in BOTH[::-1]]


def test_early_stopping_and_checkpoint(tmp_path):
    path = tmp_path / "at_{epoch}.keras"
    rbm = make(persistent=True, chains=3, optimizer=keras.optimizers.Adam(0.01))
    fit(rbm, epochs=3, callbacks=keras.callbacks.ModelCheckpoint(str(path)))
    middle = keras.saving.load_model(str(path).format(epoch=2))
    assert int(middle.updates) == 10 and int(middle.epochs) == 2
    fit(middle)
    assert_same(state(middle), state(rbm))

    rbm.optimizer.learning_rate = 0.0
    stop = keras.callbacks.EarlyStopping("val_pseudo_log_likelihood", patience=1, mode="max")
    assert len(fit(rbm, epochs=9, validation_data=VALID, callbacks=stop).epoch) == 2
    assert int(rbm.epochs) == 5


CLIP = keras.optimizers.SGD(0.1, clipnorm=0.2)
SCHEDULE = keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(0.2, 1, 0.5))


@pytest.mark.parametrize(
    ("optimizer", "callbacks", "rate", "change"),
    [
        (None, None, 0.1, None),
        (SCHEDULE, None, lambda update: 0.2 / (1 + 0.5 * update), None),
        (
            None,
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.3 - 0.2 * epoch),
            lambda update: 0.3 if update < 5 else 0.1,
            None,
        ),
        (CLIP, None, 0.1, lambda g: g * min(1, 0.2 / np.linalg.norm(g))),
        (keras.optimizers.SGD(0.1, loss_scale_factor=8.0), None, 0.1, None),
    ],
    ids=["plain", "schedule", "scheduler", "clipnorm", "loss scale"],
)
def test_optimizers_and_schedules(replica, optimizer, callbacks, rate, change):
    rbm = make(optimizer=optimizer)
    numpy = replica(rbm)
    fit(rbm, epochs=2, callbacks=callbacks)
    for _ in range(2):
        numpy.epoch(numpy.shuffled(), rate, change or (lambda gradient: gradient))
    assert_close(rbm, numpy.model)


def test_moving_average_of_weights(replica):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8)
    rbm = make(optimizer=optimizer)
    numpy = replica(rbm)
    fit(rbm, epochs=2)
    for _ in range(2):
        numpy.epoch(numpy.shuffled())
    average = numpy.trajectory[0]
    for weights in numpy.trajectory[1:]:
        average = [0.8 * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
    numpy.model.W, numpy.model.hbias, numpy.model.vbias = average
    assert_close(rbm, numpy.model)


def test_regularizers_of_a_shared_dense_enter_the_updates(reference, replica):
    layer, _ = regularized_layer(reference, VISIBLE, HIDDEN)
    rbm = make(layer)
    numpy = replica(rbm)

    def change(gradient):
        W, hbias = numpy.model.W, numpy.model.hbias
        added = {W.shape: 0.02 * W, hbias.shape: 0.1 * np.sign(hbias)}
        return gradient + added.get(gradient.shape, 0)

    fit(rbm, shuffle=False)
    numpy.epoch(PARTS, change=change)
    assert_close(rbm, numpy.model)


def test_vbias_alone_may_be_frozen():
    vbias = keras.Variable(np.full(VISIBLE, 0.5, "float32"), trainable=False)
    rbm = make(dbn.RBMLayer(HIDDEN, vbias=vbias))
    W = np.array(rbm.layer.W.value)
    fit(rbm)
    assert np.all(np.array(vbias) == 0.5) and np.all(np.array(rbm.layer.W.value) != W)


# fit: nothing stays behind --------------------------------------------------------------------


def assert_nothing_resident(rbm, *references):
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    assert rbm._resident is rbm._steps_left is rbm._eval_epoch_iterator is None


def test_another_array_neither_retraces_nor_keeps_the_first(monkeypatch, replica):
    traces = []

    def traced(*arguments):
        traces.append(1)
        return cost(*arguments)

    cost = training._cost
    monkeypatch.setattr(training, "_cost", traced)
    rbm = make()
    numpy = replica(rbm)
    for x in (X, 1 - X):
        x, valid = tf.constant(x), tf.constant(VALID)
        references = [weakref.ref(part) for part in (x, valid)]
        fit(rbm, x, validation_data=valid, shuffle=False)
        numpy.epoch([np.array(x[at : at + 5]) for at in range(0, 22, 5)])
        del x, valid
        assert_nothing_resident(rbm, *references)
    assert_close(rbm, numpy.model)
    assert len(traces) == 1


class Interrupt(keras.callbacks.Callback):
    """Presses Ctrl-C at the end of the first execution of an epoch, or at the epoch's end."""

    def __init__(self, epoch, at_end):
        super().__init__()
        self.epoch, self.at_end = epoch, at_end

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and not self.at_end:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("at_end", "updates", "epochs"), [(False, 8, 1), (True, 10, 2)])
def test_ctrl_c_keeps_weights_counters_and_history(replica, at_end, updates, epochs):
    rbm = ready(True)
    numpy = replica(rbm)
    x, valid = tf.constant(X), tf.constant(VALID)
    references = [weakref.ref(part) for part in (x, valid)]
    with pytest.raises(KeyboardInterrupt) as interrupt:
        fit(rbm, x, epochs=3, validation_data=valid, callbacks=[Interrupt(1, at_end)])
    del x, valid, interrupt
    assert_nothing_resident(rbm, *references)
    figures = numpy.epoch(numpy.shuffled())
    np.testing.assert_allclose([rbm.history.history[name] for name in BOTH], figures[:, None], 1e-5)
    numpy.epoch(numpy.shuffled()[: updates - 5])
    assert_close(rbm, numpy.model)
    assert (int(rbm.updates), int(rbm.epochs)) == (updates, epochs)
    # What was not finished begins anew, with the noise of the updates that follow.
    numpy.epochs = epochs
    fit(rbm)
    numpy.epoch(numpy.shuffled())
    assert_close(rbm, numpy.model)


def test_ctrl_c_within_an_eager_update_leaves_none_half_made():
    class Interrupted(keras.optimizers.SGD):
        def apply(self, gradients, variables=None):
            super().apply(gradients, variables)
            if int(self.iterations) == 3:
                raise KeyboardInterrupt

    rbm, other = (
        make(persistent=True, chains=3, optimizer=kind(0.1), mode="eager")
        for kind in (Interrupted, keras.optimizers.SGD)
    )
    rbm.compile(rbm.optimizer, run_eagerly=True)
    with pytest.raises(KeyboardInterrupt):
        fit(rbm)
    fit(other, steps_per_epoch=2)
    assert_same_but_epochs(state(rbm), state(other))
    assert int(rbm.updates) == 2


# Bad input ------------------------------------------------------------------------------------


def without_end():
    return slices().repeat()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"`x` must have shape \(cases, width\); got shape \(6,\)"),
        (X[None], r"`x` must have shape \(cases, width\); got shape \(1, 22, 6\)"),
        (X[:, :5], r"`x` must have width 6; got shape \(22, 5\)"),
        (X[:0], r"`x` is empty: its shape is \(0, 6\)"),
        (np.where(X > 0.99, np.nan, X), "`x` holds NaN or infinity"),
        (np.where(X > 0.99, np.inf, X), "`x` holds NaN or infinity"),
        (np.where(X > 0.99, -np.inf, X), "`x` holds NaN or infinity"),
        (2 * X, r"`x` must lie in \[0, 1\] for bernoulli units; got values from"),
        ((255 * X).astype("uint8"), r"`x` must lie in \[0, 1\].*Divide grey levels 0-255 by 255"),
        (X - 0.5, r"`x` must lie in \[0, 1\] for bernoulli units; got values from -0\.4"),
        (X.astype(str), "`x` must hold numbers; got dtype"),
        (object(), "`x` must hold numbers; got dtype object"),
        ([[0, 1], [1]], "`x` is not an array"),
        (tf.data.Dataset.from_tensor_slices(X), r"`x` must be a Dataset of batches.*\.batch\("),
        (slices({"a": X}), "`x` must be a Dataset of batches"),
        (slices(X[:0]), "`x` is empty: the Dataset has no batch"),
        (slices(255 * X), "the first batch of x` must lie in .*255"),
        (slices(X[:, 1:]), "the first batch of x` must have width 6"),
        (tf.data.Dataset.zip((slices(),) * 3), "`x` must be a Dataset of x .* unweighted"),
        (without_end(), "infinite .*: give `"),
    ],
)
def test_data_that_fit_refuses(x, message):
    rbm = ready()
    start = state(rbm)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        fit(rbm, x)
    with pytest.raises(ValueError, match="(?s)" + message.replace("x`", "validation_data`")):
        fit(rbm, X, validation_data=x)
    assert_same(start, state(rbm))
    assert_nothing_resident(rbm)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": X[:, 0]}, "`y` must be None: an RBM learns from x alone"),
        ({"class_weight": {0: 1.0}}, "`class_weight` must be None"),
        ({"sample_weight": X[:, 0]}, "`sample_weight` must be None"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1; got 0"),
        ({"epochs": 1.5}, "`epochs` must be an integer >= 1; got 1.5"),
        ({"initial_epoch": -1}, "`initial_epoch` must be an integer >= 0; got -1"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1; got 0"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer >= 1; got 2.5"),
        ({"x": slices(), "batch_size": 5}, "`batch_size` is for arrays and shards; x is a Dataset"),
        ({"x": slices(), "validation_split": 0.5}, "`validation_split` is for arrays"),
        ({"shuffle": "batch"}, "`shuffle` must be True or False; got 'batch'"),
        ({"steps_per_epoch": 6}, "`steps_per_epoch` must be at most 5, the number .*; got 6"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` must be an integer >= 1; got 0"),
        ({"x": slices(), "steps_per_epoch": 0}, "`steps_per_epoch` must be an integer >= 1"),
        ({"validation_split": 1.5}, "`validation_split` must be between 0 and 1; got 1.5"),
        ({"validation_split": -0.5}, "`validation_split` must be between 0 and 1; got -0.5"),
        ({"validation_split": 0.999}, "`validation_split=0.999` of 22 cases leaves an empty part"),
        ({"validation_split": 0.5, "validation_data": X}, "either `validation_split` or"),
        ({"validation_data": (X, X[:, 0])}, "`validation_data` must be x alone"),
        ({"validation_data": X, "validation_steps": 2}, "`validation_steps` must be at most 1"),
        ({"validation_data": X, "validation_steps": 0}, "`validation_steps` must be an integer"),
        ({"validation_data": without_end()}, "infinite .*: give `validation_steps`"),
        ({"validation_data": X, "validation_batch_size": 0}, "`validation_batch_size` must be an"),
        (
            {"validation_data": slices(), "validation_batch_size": 5},
            "`validation_batch_size` is for arrays and shards; validation_data is a Dataset",
        ),
        ({"validation_data": X, "validation_freq": 0}, "`validation_freq` must be an integer >= 1"),
        ({"validation_steps": 2}, "`validation_steps`, .* need `validation_data`"),
        ({"validation_batch_size": 2}, "`validation_batch_size` .*need `validation_data`"),
        ({"validation_freq": 2}, "`validation_freq` need `validation_data`"),
        ({"callbacks": keras.callbacks.CallbackList()}, "`callbacks` must be a list of callbacks"),
    ],
)
def test_arguments_that_fit_refuses(arguments, message):
    rbm = ready()
    start = state(rbm)
    with pytest.raises(ValueError, match=message):
        fit(rbm, **arguments)
    assert_same(start, state(rbm))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "mse"}, "cost is `dbn.contrastive_divergence`, not a loss; got loss='mse'"),
        ({"metrics": ["accuracy"]}, "Unknown metric 'accuracy' in `metrics`; known: pseudo_log"),
        ({"metrics": "mse"}, "Unknown metric 'mse' in `metrics`"),
        ({"steps_per_execution": 0}, "`steps_per_execution` must be an integer >= 1; got 0"),
    ],
)
def test_settings_that_compile_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        dbn.RBM(HIDDEN).compile(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 0}, "`units` must be an integer >= 1; got 0"),
        ({"layer": True}, "`units` must be an integer >= 1; got True"),
        ({"layer": "500"}, "`layer` must be an RBMLayer or a number of hidden units; got '500'"),
        ({"layer": keras.layers.Dense(3)}, "`layer` must be an RBMLayer or a number"),
        ({"chains": 0}, "`chains` must be an integer >= 1; got 0"),
        ({"chains": 2.0}, "`chains` must be an integer >= 1; got 2.0"),
        ({"seed": -1}, "`seed` must be an integer >= 0; got -1"),
    ],
)
def test_settings_that_an_rbm_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        dbn.RBM(**{"layer": HIDDEN, **arguments})


def test_fit_and_evaluate_need_compile_and_have_no_variant_by_the_batch():
    rbm = dbn.RBM(HIDDEN)
    for method in (rbm.fit, rbm.evaluate):
        with pytest.raises(ValueError, match="compile"):
            method(X)
    for method in (rbm.train_on_batch, rbm.test_on_batch):
        with pytest.raises(NotImplementedError, match="An RBM has no `t.*_on_batch`: use `"):
            method(X)
    rbm.compile(metrics=["free_energy_gap"])
    with pytest.raises(ValueError, match="`free_energy_gap` needs `validation_data`"):
        rbm.fit(X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": X}, "`y` must be None"),
        ({"sample_weight": X}, "`sample_weight` must be None"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1; got 0"),
        ({"x": slices(), "batch_size": 5}, "`batch_size` is for arrays and shards; x is a Dataset"),
        ({"steps": 2}, "`steps` must be at most 1"),
        ({"x": without_end()}, "infinite .*: give `steps`"),
        ({"x": X + 1}, r"`x` must lie in \[0, 1\]"),
        ({"stepps": 2}, "stepps"),
    ],
)
def test_arguments_that_evaluate_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ready().evaluate(**{"x": X, "verbose": 0, **arguments})


def test_evaluate_refuses_a_later_bad_batch():
    with pytest.raises(ValueError, match=r"holds no case, or NaN, infinity or values outside"):
        ready().evaluate(slices(np.r_[X, X + 1]), verbose=0)


@pytest.mark.parametrize("name", ["rbm.layer.dense", "rbm.layer", "rbm"])
def test_frozen_weights_are_not_trained_around(name):
    rbm = make(mode="eager")
    frozen = {"rbm.layer.dense": rbm.layer.dense, "rbm.layer": rbm.layer, "rbm": rbm}[name]
    frozen.trainable = False
    with pytest.raises(ValueError, match=f"Dense layer is frozen .*Set `{name}.trainable = True`"):
        fit(rbm)
    assert np.isfinite(rbm.evaluate(VALID, verbose=0)).all()
    frozen.trainable = True
    fit(rbm, steps_per_epoch=1)
    assert int(rbm.updates) == 1


def test_a_layer_that_is_made_frozen_is_frozen():
    layer = dbn.RBMLayer(HIDDEN, trainable=False)
    assert not layer.dense.trainable
    for rbm in (dbn.RBM(layer), dbn.DBN([HIDDEN], trainable=False).rbms[0]):
        rbm.compile()
        with pytest.raises(ValueError, match="Dense layer is frozen"):
            fit(rbm)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_a_layer_made_from_a_number_has_the_dtype_of_its_model(dtype):
    stack = dbn.DBN([HIDDEN], dtype=dtype)
    seeded = dbn.DBN([HIDDEN], dtype=dtype, seed=1)
    joint = dbn.GenerativeDBN([HIDDEN, 3], 2, dtype=dtype)
    rbms = [dbn.RBM(HIDDEN, dtype=dtype), *stack.rbms, *seeded.rbms, *joint.below.rbms, joint.top]
    for rbm in rbms:
        assert rbm.layer.dense.dtype_policy.name == rbm.dtype_policy.name == dtype


def test_lora_after_the_fact_is_refused():
    rbm = make(mode="eager")
    fit(rbm, steps_per_epoch=1)
    rbm.layer.dense.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        fit(rbm)


def bad(change):
    """PARTS with the fifth batch changed: in the second execution of three updates."""
    return [*PARTS[:4], change(PARTS[4].copy())]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (bad(lambda v: np.where(v == v[0], np.nan, v)), r"holds .*NaN.* outside \[0, 1\]"),
        (bad(lambda v: np.where(v == v[0], np.inf, v)), r"holds .*infinity"),
        (bad(lambda v: v + 0.5), r"holds .*values outside \[0, 1\]"),
        (bad(lambda v: -v), r"holds .*values outside \[0, 1\]"),
        (bad(lambda v: v[:0]), r"holds no case"),
        (bad(lambda v: v[:, :5]), r"3 to 5, could not be read: .*\[2,5\].*\[\?,6\]"),
    ],
    ids=["nan", "inf", "above", "below", "empty", "width"],
)
def test_a_later_bad_batch_restores_the_state_before_its_execution(parts, message):
    rbm = ready(True)
    fit(rbm, slices(), steps_per_epoch=3)
    expected = state(rbm)
    rbm = ready(True)
    with pytest.raises(ValueError, match=f"(?s)of x.*{message}.*before update 3 has been restored"):
        fit(rbm, dataset(parts))
    assert_same_but_epochs(state(rbm), expected)
    fit(rbm)  # And it can go on.
    assert int(rbm.updates) == 8


def assert_same_but_epochs(interrupted, whole):
    """The first broke off within the epoch that the second finished there."""
    assert [int(values.pop(1)) for values in (interrupted, whole)] == [0, 1]
    assert_same(interrupted, whole)


def test_a_generator_that_fails_restores_too():
    def broken():
        yield from PARTS[:4]
        raise RuntimeError("the disk is gone")

    rbm = ready(True)
    fit(rbm, slices(), steps_per_epoch=3)
    expected = state(rbm)
    rbm = ready(True)
    data = tf.data.Dataset.from_generator(broken, output_signature=tf.TensorSpec((None, VISIBLE)))
    with pytest.raises(Exception, match="the disk is gone"):
        fit(rbm, data)
    assert_same_but_epochs(state(rbm), expected)


@pytest.mark.parametrize("steps", [None, 3])
def test_a_generator_that_can_be_used_only_once_is_told(steps):
    def once():
        parts = iter(PARTS)
        return tf.data.Dataset.from_generator(
            lambda: parts, output_signature=tf.TensorSpec((None, VISIBLE))
        )

    with pytest.raises(ValueError, match="x ran out of data in epoch 2, .* must begin anew"):
        fit(ready(), once(), epochs=2, steps_per_epoch=steps)
    with pytest.raises(ValueError, match="The validation data ran out. .* must begin anew"):
        fit(ready(), epochs=2, validation_data=once())


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_weights_that_become_infinite_raise_and_the_last_good_ones_are_restored(mode):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 3, np.inf, staircase=True)
    rbm = make(persistent=True, chains=3, optimizer=keras.optimizers.SGD(rate), mode=mode)
    start = state(rbm)
    fit(rbm, shuffle=False, steps_per_epoch=3)
    expected = state(rbm)
    put(rbm, start)
    message = "at one of the updates 3 to 4. The state before update 3 .*learning rate"
    with pytest.raises(FloatingPointError, match=message):
        fit(rbm, shuffle=False)
    assert_same_but_epochs(state(rbm), expected)
    assert np.isfinite(np.array(rbm.layer.W.value)).all()


# sample ---------------------------------------------------------------------------------------


def numpy_sample(model, v, steps, seed, clamp=False, done=0):
    """Means and samples of Gibbs chains after each step's noise of (seed, step)."""
    start = v
    for step in range(done, done + steps):
        shape = (len(v), VISIBLE + HIDDEN)
        u = np.array(noise.uniforms(shape, seed, step, noise.Stream.SAMPLE))
        mean = model.mean_v(u[:, VISIBLE:] < model.mean_h(v))
        v = np.where(clamp, start, u[:, :VISIBLE] < mean)
    return np.where(clamp, start, mean), v


@pytest.fixture(scope="module")
def sampled():
    """A PCD RBM whose chains have moved."""
    rbm = make(persistent=True, chains=5, optimizer=keras.optimizers.SGD(0.5), mode="eager")
    fit(rbm, epochs=2)
    return rbm


MASK = np.arange(VISIBLE) < 2
MASKS = np.random.default_rng(2).random((4, VISIBLE)) < 0.5


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 5),
        ({"start": "persistent", "chains": 2, "seed": 3}, 2),
        ({"start": "noise"}, 1),
        ({"start": "noise", "chains": 4}, 4),
        ({"start": X[:4]}, 4),
        ({"start": X[:4].tolist(), "chains": 4, "clamp": MASK}, 4),
        ({"start": X[:4], "clamp": MASKS}, 4),
        ({"start": X[:4], "clamp": MASK.tolist(), "seed": 0}, 4),
    ],
)
def test_sample_equals_numpy(sampled, replica, arguments, count):
    model, seed = replica(sampled).model, arguments.get("seed", SEED)
    start, clamp = arguments.get("start", "persistent"), arguments.get("clamp", False)
    u = np.array(noise.uniforms((count, VISIBLE), seed, stream=noise.Stream.START))
    if isinstance(start, str) and start == "persistent":
        start = u < model.mean_v(np.array(sampled.chain.value)[:count])
    elif isinstance(start, str):
        start = u < 0.5
    before = state(sampled)
    found = sampled.sample(steps=7, **arguments)
    mean, v = numpy_sample(model, np.asarray(start, "float64"), 7, seed, clamp)
    np.testing.assert_allclose(found.mean, mean, 1e-5)
    np.testing.assert_allclose(found.sample, v, 1e-6)
    assert found.steps == 7
    assert_same(before, state(sampled))  # Drawing trains nothing and moves no chain.


def test_sample_goes_on_from_samples(sampled):
    whole = sampled.sample(steps=9, start=X[:4], clamp=MASK)
    first = sampled.sample(steps=4, start=X[:4], clamp=MASK)
    assert_same(whole, sampled.sample(steps=5, start=first, clamp=MASK))


def test_sample_of_cd_starts_from_noise():
    rbm = make()
    assert_same(rbm.sample(chains=3, steps=2), rbm.sample(chains=3, steps=2, start="noise"))


@pytest.mark.parametrize("clamped", [False, True])
def test_samples_have_the_enumerated_distribution(reference, clamped):
    """Within 4 standard errors of each state's frequency, chains being independent."""
    model, chains = reference.random(4, 3, seed=5), 20_000
    mask = np.array([True, False, True, False]) & clamped
    start = np.broadcast_to([1.0, 0.0, 0.0, 1.0], (chains, 4))
    rbm = dbn.RBM(model.layer(), seed=1)
    rbm.build((None, 4))
    found = rbm.sample(steps=40, start=start, clamp=mask if clamped else None).sample
    share = np.bincount((np.array(found) @ [8, 4, 2, 1]).astype(int), minlength=16) / chains
    allowed = (model.states(4) == start[0])[:, mask].all(1)
    p = model.p_v() * allowed / model.p_v()[allowed].sum()
    assert np.all(np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / chains))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer >= 1; got 0"),
        ({"seed": -1}, "`seed` must be an integer >= 0; got -1"),
        ({"chains": 0}, "`chains` must be an integer >= 1; got 0"),
        ({"chains": 6}, "`chains` must be at most 5, the number of persistent chains; got 6"),
        ({"start": "data"}, "`start` must be an array, Samples, 'noise', or .*; got 'data'"),
        ({"start": X[:, :5]}, "`start` must have width 6"),
        ({"start": X + 1}, r"`start` must lie in \[0, 1\]"),
        ({"start": X[:4], "chains": 3}, "`chains` is 3, but `start` has 4 chains"),
        ({"clamp": MASK}, "`clamp` needs `start=` with the values of the clamped units"),
        ({"start": X[:4], "clamp": MASK.astype(float)}, r"`clamp` must be a boolean mask"),
        ({"start": X[:4], "clamp": MASK[:5]}, r"`clamp` must be .* shape \(6,\) or \(4, 6\)"),
        (
            {"start": sampling.Samples(tf.zeros((2, 5)), tf.zeros((2, 5)), 1)},
            "`start` must have width 6",
        ),
    ],
)
def test_sample_refuses(sampled, arguments, message):
    with pytest.raises(ValueError, match=message):
        sampled.sample(**arguments)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_categorical_group_is_clamped_whole_or_not_at_all(mixed):
    group = dbn.layers.Categorical(3)
    units = dbn.layers.Mixed([("bernoulli", 2), (group, 6)]) if mixed else group
    rbm, start = dbn.RBM(dbn.RBMLayer(4, visible=units), seed=0), np.eye(3)[[[0, 2]] * 50]
    start = start.reshape(50, 6)
    mask = np.arange(6) < 3
    if mixed:
        start, mask = np.insert(start, [0, 0], 1, axis=1), np.insert(mask, [0, 0], [True, False])
    rbm.build((None, len(mask)))
    found = np.array(rbm.sample(start=start, steps=3, clamp=mask).sample)
    np.testing.assert_array_equal(found[:, mask], start[:, mask])
    assert np.all(found[:, -3:].sum(1) == 1) and len(np.unique(found[:, -3:], axis=0)) == 3
    mask[-1] = True
    for parting in (mask, np.tile(mask, (50, 1))):
        with pytest.raises(ValueError, match="`clamp` must hold all units of a categorical group"):
            rbm.sample(start=start, clamp=parting)


def test_sample_refuses_what_is_not_there():
    with pytest.raises(ValueError, match="not built: `fit` it, or call `build"):
        dbn.RBM(HIDDEN).sample()
    with pytest.raises(
        ValueError, match=r"\(with persistent=True\) 'persistent'; got 'persistent'"
    ):
        make().sample(start="persistent")


@pytest.mark.parametrize(
    ("arguments", "products"),
    [
        # Up, down and up again, and two for the gradient: the metric adds none.
        ({}, 5),
        ({"gradient": dbn.gradients.Centered()}, 5),
        # 3 Gibbs steps; data and end of the chain, less the last step's own; gradient; metric.
        ({"persistent": True, "chains": 7, "k": 3}, 6 + 1 + 2 + 1),
    ],
    ids=["cd", "centered", "pcd"],
)
def test_a_compiled_update_makes_no_product_twice(arguments, products):
    rbm = dbn.RBM(6, seed=0, **arguments)
    rbm.compile(keras.optimizers.SGD(0.1))
    rbm.build((None, 9))
    rbm.optimizer.build(rbm.trainable_variables)
    v = tf.zeros((8, 9))
    compiled = rbm._run_update.experimental_get_compiler_ir(
        *rbm.prepare(v, tf.constant(0, tf.int64))
    )(stage="optimized_hlo")
    # Products of two matrices: those with a vector are cheap.
    found = re.findall(r"f32\[\d+,\d+\](?:{[\d,]+})? dot\(", compiled)
    assert len(found) == products


def test_binarize_draws_each_level_as_the_probability_of_a_one():
    grey = np.tile(np.array([0.0, 0.1, 0.5, 0.9, 1.0], "float32"), (20000, 1))
    rbm = dbn.RBM(2, binarize=True, seed=3)
    bits = rbm.states(grey, 0).numpy()
    assert set(np.unique(bits)) == {0.0, 1.0}
    error = np.sqrt(grey[0] * (1 - grey[0]) / len(grey))
    assert np.all(np.abs(bits.mean(0) - grey[0]) <= 4.5 * error)
    assert np.array_equal(bits, rbm.states(grey, 0))
    assert not np.array_equal(bits, rbm.states(grey, 1))
    assert dbn.RBM(2).states(grey, 0) is grey


def test_binarize_trains_and_measures_on_the_drawn_bits(tmp_path):
    grey = np.random.default_rng(0).random((12, 5)).astype("float32")
    streams = noise.Stream.BINARIZE, noise.Stream.BINARIZE_TEST
    models = []
    for binarize in (True, False):
        keras.utils.set_random_seed(0)
        rbm = dbn.RBM(4, seed=3, binarize=binarize)
        rbm.compile(keras.optimizers.SGD(0.1))
        models.append(rbm)
    drawing, plain = models
    for number in range(3):
        bits, held_out = (
            np.array(drawing.states(grey, n, s)) for n, s in zip((number, 0), streams, strict=True)
        )
        common = {"batch_size": 12, "shuffle": False, "verbose": 0}
        one = drawing.fit(grey, validation_data=grey, **common).history
        other = plain.fit(bits, validation_data=held_out, **common).history
        assert one == other
        for a, b in zip(drawing.weights, plain.weights, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    drawing.save(tmp_path / "rbm.keras")
    assert keras.saving.load_model(tmp_path / "rbm.keras").binarize


def test_binarize_compares_free_energies_of_drawn_bits():
    grey = np.random.default_rng(1).random((6, 5)).astype("float32")
    rbm = dbn.RBM(4, seed=3, binarize=True)
    rbm.compile(keras.optimizers.SGD(0.1), metrics=["free_energy_gap"])
    history = rbm.fit(grey, validation_data=grey, verbose=0).history
    stream = noise.Stream.BINARIZE_GAP
    train, valid = (rbm.layer.free_energy(rbm.states(grey, i, stream)) for i in (0, 1))
    gap = float(np.mean(valid) - np.mean(train))
    assert history["free_energy_gap"] == [pytest.approx(gap, rel=1e-5)]


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_binarize_refuses_what_is_no_probability(bad):
    x = np.full((4, 3), 0.5, "float32")
    x[1, 2] = bad
    rbm = dbn.RBM(2, binarize=True)
    rbm.compile(steps_per_execution=2)
    with pytest.raises(ValueError, match="`x`"):
        rbm.fit(x, verbose=0)
    stream = tf.data.Dataset.from_tensor_slices(x[::-1].copy()).batch(2)
    with pytest.raises(ValueError, match="A batch of x, at one of the updates 0 to"):
        rbm.fit(stream, verbose=0)


# Mixed precision ------------------------------------------------------------------------------


@pytest.fixture
def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_mixed_precision_learns_the_same_model(bfloat16, reference, tmp_path):
    """Teacher and student, all states enumerated; what is kept has 32 bits."""
    teacher = reference.random(VISIBLE, HIDDEN, seed=5, scale=1.5)
    drawn = np.random.default_rng(1).choice(2**VISIBLE, 2000, p=teacher.p_v())
    x = reference.states(VISIBLE)[drawn].astype("float32")
    rbm = make(persistent=True, chains=50, gradient=dbn.gradients.Centered(), mode="xla")
    assert {w.dtype for w in rbm.layer.weights} == {"float32"}
    assert rbm.chain.dtype == "float32" and rbm(x[:2]).dtype == "bfloat16"
    before = dbn.likelihood.log_likelihood(rbm, x, dbn.likelihood.exact_log_partition(rbm)).mean
    rbm.fit(x, batch_size=50, epochs=15, verbose=0)
    rounded = reference.of(rbm.layer)
    # What is measured is the model of the rounded weights, to the error of the products.
    log_p = np.mean(-rounded.free_energy(x)) - rounded.log_partition()
    found = dbn.likelihood.log_likelihood(rbm, x, dbn.likelihood.exact_log_partition(rbm))
    assert found.mean == pytest.approx(log_p, abs=0.02)
    best = np.mean(-teacher.free_energy(x)) - teacher.log_partition()
    assert found.mean > best - 0.1 > before
    by_ais = dbn.likelihood.annealed_importance_sampling(rbm, chains=500, temperatures=300)
    exact = dbn.likelihood.exact_log_partition(rbm).value
    assert abs(by_ais.value - exact) < 4 * by_ais.standard_error + 0.02

    rbm.save(tmp_path / "rbm.keras")
    keras.config.set_dtype_policy("float32")  # The file knows its own.
    loaded = dbn.load_model(tmp_path / "rbm.keras")
    for model in (rbm, loaded):
        model.fit(x[:200], batch_size=50, verbose=0)
    assert_same(state(rbm), state(loaded))


def test_mixed_precision_of_a_stack(bfloat16):
    stack = dbn.DBN([5, 3], seed=0)
    stack.pretrain(X, epochs=2, batch_size=5, verbose=0)
    model = stack.classifier(2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    y = np.arange(len(X)) % 2
    W = stack.rbms[0].layer.W
    before = np.array(W)
    model.fit(X, y, batch_size=11, epochs=2, verbose=0)
    assert np.any(before != np.array(W)) and W.dtype == "float32"
    narrow = np.array(tf.cast(model(X), tf.float32))
    h = X
    for rbm in stack.rbms:
        h = 1 / (1 + np.exp(-(h @ np.array(rbm.layer.W) + np.array(rbm.layer.hbias))))
    wide = np.array(keras.ops.softmax(h @ np.array(model.layers[-1].kernel)))
    np.testing.assert_allclose(narrow, wide, atol=0.02)
