import keras
import numpy as np
import pytest
from PIL import Image

import dbn
from dbn import images
from dbn.callbacks import LogLikelihood, SaveChains, SaveFilters, SaveReconstructions, Schedule

pytestmark = pytest.mark.usefixtures("without_xla")

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 2, (20, 6)).astype("float32")
SHAPE = (2, 3)


def make_rbm(**arguments):
    """A small RBM with large weights, so that no two pictures of it are alike."""
    rbm = dbn.RBM(dbn.RBMLayer(5, kernel_initializer="random_normal"), seed=1, **arguments)
    rbm.compile(optimizer=keras.optimizers.SGD(0.5), run_eagerly=True)
    rbm.build((None, X.shape[1]))
    rbm.layer.W.assign(np.random.default_rng(1).normal(size=rbm.layer.W.shape))
    return rbm


def fit(rbm, *callbacks, epochs=1):
    rbm.fit(X, batch_size=10, epochs=epochs, verbose=0, callbacks=callbacks)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def pixels(path):
    return np.asarray(Image.open(path))


def test_filters_are_the_weights_of_their_epoch(tmp_path):
    rbm, weights = make_rbm(), []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(np.array(rbm.layer.W.value))
    )
    fit(rbm, SaveFilters(tmp_path / "new" / "folder", SHAPE), keep, epochs=3)
    folder = tmp_path / "new" / "folder"
    assert names(folder) == [f"filters_at_epoch_{i}.png" for i in range(3)]
    for i, W in enumerate(weights):
        picture = pixels(folder / f"filters_at_epoch_{i}.png")
        np.testing.assert_array_equal(picture, images.filters(W, SHAPE))
    assert np.any(weights[0] != weights[2])


def test_filters_fill_the_grid_that_was_asked_for(tmp_path):
    fit(make_rbm(), SaveFilters(tmp_path, SHAPE, tile_shape=(1, 2)))
    assert pixels(tmp_path / "filters_at_epoch_0.png").shape == (2, 2 * 3 + 1)


def test_colour(tmp_path):
    rbm = make_rbm()
    fit(rbm, SaveFilters(tmp_path, (1, 2, 3)))
    expected = images.filters(rbm.layer.W, (1, 2, 3))
    np.testing.assert_array_equal(pixels(tmp_path / "filters_at_epoch_0.png"), expected)


def test_every_counts_epochs_over_all_calls_of_fit(tmp_path):
    rbm = make_rbm()
    callbacks = SaveFilters(tmp_path, SHAPE), SaveFilters(tmp_path / "rare", SHAPE, every=2)
    fit(rbm, *callbacks, epochs=3)
    fit(rbm, *callbacks, epochs=2)
    assert names(tmp_path / "rare") == [f"filters_at_epoch_{i}.png" for i in (1, 3)]
    assert len(list(tmp_path.glob("*.png"))) == 5


@pytest.mark.parametrize(
    ("arguments", "persistent", "shape"),
    [
        ({}, True, (2, 20 * 4 - 1)),
        ({}, False, (2, 20 * 4 - 1)),
        ({"chains": 3, "steps": 4}, True, (2, 3 * 4 - 1)),
        ({"chains": 3, "steps": 4, "start": "noise"}, True, (2, 3 * 4 - 1)),
        ({"start": X[:7], "steps": 2}, False, (2, 7 * 4 - 1)),
    ],
)
def test_chains_are_the_means_of_sample(arguments, persistent, shape, tmp_path):
    rbm = make_rbm(persistent=persistent)
    fit(rbm, SaveChains(tmp_path, SHAPE, **arguments), epochs=2)
    assert names(tmp_path) == ["chains_at_epoch_0.png", "chains_at_epoch_1.png"]
    default = {} if "start" in arguments else {"chains": 20}
    mean = rbm.sample(**(default | {"steps": 1} | arguments)).mean
    picture = pixels(tmp_path / "chains_at_epoch_1.png")
    assert picture.shape == shape
    np.testing.assert_array_equal(picture, images.chains(mean[None], SHAPE))


def test_reconstructions_are_the_means_given_the_means(tmp_path):
    rbm = make_rbm()
    fit(rbm, SaveReconstructions(tmp_path, SHAPE, x=X[:4]))
    layer = rbm.layer
    W, hbias, vbias = (np.array(x.value, "float64") for x in (layer.W, layer.hbias, layer.vbias))
    hidden = 1 / (1 + np.exp(-(X[:4] @ W + hbias)))
    expected = images.reconstructions(X[:4], 1 / (1 + np.exp(-(hidden @ W.T + vbias))), SHAPE)
    picture = pixels(tmp_path / "reconstructions_at_epoch_0.png")
    # A value just below a grey level may be rounded to it.
    np.testing.assert_allclose(picture.astype(int), expected.astype(int), atol=1)


def test_drawing_changes_nothing(tmp_path):
    plain, drawn = (make_rbm(persistent=True, chains=20) for _ in range(2))
    fit(plain, epochs=2)
    callbacks = (
        SaveFilters(tmp_path, SHAPE),
        SaveChains(tmp_path, SHAPE, steps=3),
        SaveReconstructions(tmp_path, SHAPE, x=X),
    )
    fit(drawn, *callbacks, epochs=2)
    for a, b in zip(plain.get_weights(), drawn.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, None])
def test_every_must_be_a_positive_integer(every, tmp_path):
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        SaveFilters(tmp_path, SHAPE, every=every)


@pytest.mark.parametrize("img_shape", [6, (6,), (1, 1, 2, 3), (2.0, 3.0), (0, 6), None, "23"])
def test_img_shape_must_be_a_shape(img_shape, tmp_path):
    with pytest.raises(ValueError, match="img_shape"):
        SaveFilters(tmp_path, img_shape)


@pytest.mark.parametrize("name", ["chains", "steps"])
def test_chains_and_steps_must_be_positive(name, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >= 1; got 0"):
        SaveChains(tmp_path, SHAPE, **{name: 0})


@pytest.mark.parametrize(
    ("callback", "arguments", "message"),
    [
        (SaveFilters, {"img_shape": (3, 3)}, "`img_shape` must have 6 values"),
        (SaveFilters, {"tile_shape": 5}, "tile_shape=5 must be 2 integers"),
        (SaveChains, {"start": X[:, :5]}, "`start` must have width 6"),
        (SaveChains, {"start": X, "chains": 3}, "`chains` is 3, but `start` has 20"),
        (SaveChains, {"start": "cold"}, "`start` must be"),
        (SaveChains, {"chains": 101}, "`chains` must be at most 100"),
        (SaveReconstructions, {"x": X[:, :5]}, "`x` must have width 6"),
        (SaveReconstructions, {"x": 255 * X}, r"`x` must lie in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(callback, arguments, message, tmp_path):
    rbm = make_rbm(persistent=True)
    callback = callback(tmp_path, **({"img_shape": SHAPE} | arguments))
    with pytest.raises(ValueError, match=message):
        fit(rbm, callback)
    assert int(rbm.updates) == 0
    assert names(tmp_path) == []


def test_other_models_are_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="SaveFilters is a callback of `RBM.fit`"):
        model.fit(X, X[:, :1], verbose=0, callbacks=[SaveFilters(tmp_path, SHAPE)])


# Log-likelihood


def test_log_likelihood_is_that_of_the_weights_of_its_epochs(reference):
    rbm, exact = make_rbm(), []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: exact.append(
            reference.of(rbm.layer).log_likelihood(X).mean()
        )
    )
    watch = LogLikelihood(X, every=2, name="val_log_likelihood")
    history = rbm.fit(X, batch_size=10, epochs=4, verbose=0, callbacks=[watch, keep]).history
    np.testing.assert_allclose(history["val_log_likelihood"], exact[1::2], rtol=1e-5)
    assert history["val_log_likelihood_low"] == history["val_log_likelihood_high"]
    assert min(history["val_log_likelihood_seconds"]) > 0
    assert exact[1] != exact[3]


def test_log_likelihood_of_a_larger_rbm_is_estimated_as_asked_for():
    x = np.random.default_rng(0).integers(0, 2, (50, 21)).astype("float32")
    rbm = dbn.RBM(22, seed=0)
    rbm.compile(keras.optimizers.SGD(0.01))
    watch = LogLikelihood(x, chains=60, temperatures=200, seed=7)
    history = rbm.fit(x, epochs=1, verbose=0, callbacks=[watch]).history
    log_z = dbn.likelihood.annealed_importance_sampling(rbm, x.mean(0), 60, 200, seed=7)
    expected = dbn.likelihood.log_likelihood(rbm, x, log_z)
    keys = ("log_likelihood", "log_likelihood_low", "log_likelihood_high")
    assert [history[key][0] for key in keys] == [expected.mean, expected.low, expected.high]


def test_watching_the_log_likelihood_changes_nothing():
    watched, alone = make_rbm(persistent=True), make_rbm(persistent=True)
    fit(watched, LogLikelihood(X), epochs=2)
    fit(alone, epochs=2)
    for a, b in zip(watched.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (X[:, :4], {}, "`x` must have width 6"),
        (2 * X, {}, "`x` must lie in"),
        (X, {"every": 0}, "`every` must be an integer >= 1"),
        (X, {"chains": 0}, "`chains` must be an integer >= 1"),
        (X, {"schedule": "cosine"}, "Unknown `schedule` 'cosine'"),
        (X, {"base_rates": np.full(4, 0.5)}, "`base_rates` must have width 6"),
    ],
)
def test_log_likelihood_refuses_before_training(x, arguments, message):
    rbm = make_rbm()
    with pytest.raises(ValueError, match=message):
        fit(rbm, LogLikelihood(x, **arguments))
    assert int(rbm.updates) == 0


def test_diagnostics_by_hand(reference):
    model = reference.random(4, 6, seed=1)
    model.W[:, 2:] = 0  # Their activations hang on the bias alone.
    model.hbias[2:] = [-5.0, 5.0, 4.0, 0.0]
    rbm = dbn.RBM(model.layer(), seed=0)
    rbm.compile(keras.optimizers.SGD(0.0))
    x = np.random.default_rng(0).integers(0, 2, (9, 4)).astype("float32")
    watch = dbn.callbacks.Diagnostics(x)
    history = rbm.fit(x, callbacks=[watch], verbose=0).history
    assert history["weight_norm"] == [pytest.approx(np.sqrt(np.sum(model.W**2)), rel=1e-5)]
    mean = model.mean_h(x).mean(0)
    share = np.mean((mean < 0.01) | (mean > 0.99))
    assert share >= 2 / 6 and history["saturated_units"] == [pytest.approx(share)]
    assert "swap_rate" not in history


@pytest.mark.parametrize(("hidden", "share"), [("relu", 0.4), ("gaussian", 0.0), ("spin", 0.6)])
def test_saturated_units_of_other_types(hidden, share):
    rbm = dbn.RBM(dbn.RBMLayer(5, hidden=hidden))
    rbm.compile(keras.optimizers.SGD(0.0), metrics=[])
    rbm.build((None, X.shape[1]))
    rbm.layer.W.assign(np.zeros(rbm.layer.W.shape))
    rbm.layer.hbias.assign([-9.0, -4, 0.1, 0.5, 9])  # tanh: -1, -0.999, 0.1, 0.46, 1
    history = rbm.fit(X, callbacks=[dbn.callbacks.Diagnostics(X)], verbose=0).history
    assert history["saturated_units"] == [pytest.approx(share)]


def test_diagnostics_tell_the_lowest_swap_rate():
    negative = dbn.negative.ParallelTempering(2, 10, 4)
    rbm = dbn.RBM(3, negative=negative, seed=0)
    rbm.compile(keras.optimizers.SGD(0.5))
    x = np.random.default_rng(0).integers(0, 2, (40, 4)).astype("float32")
    watch = dbn.callbacks.Diagnostics(x)
    history = rbm.fit(x, epochs=2, callbacks=[watch], verbose=0).history
    assert history["swap_rate"][-1] == pytest.approx(np.min(negative.swap_rates.numpy()))


@pytest.mark.parametrize("callback", ["log_likelihood", "diagnostics"])
def test_what_is_watched_must_fit_the_rbm(callback):
    x = np.zeros((5, 4), "float32")
    kinds = {
        "log_likelihood": dbn.callbacks.LogLikelihood,
        "diagnostics": dbn.callbacks.Diagnostics,
    }
    rbm = dbn.RBM(3)
    rbm.compile()
    with pytest.raises(ValueError, match="`x` must have width 4"):
        rbm.fit(x, callbacks=[kinds[callback](np.zeros((5, 3)))], verbose=0)


def test_log_likelihood_is_that_of_the_averages_where_the_optimizer_keeps_them():
    x = np.random.default_rng(0).integers(0, 2, (40, 4)).astype("float32")
    weights, histories = [], []
    for watched in (True, False):
        keras.utils.set_random_seed(0)
        rbm = dbn.RBM(3, seed=0)
        rbm.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9))
        callbacks = [dbn.callbacks.LogLikelihood(x)] if watched else []
        histories.append(rbm.fit(x, epochs=3, callbacks=callbacks, verbose=0).history)
        weights.append([w.numpy() for w in rbm.weights])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    # `fit` leaves the averages.
    final = dbn.likelihood.log_likelihood(rbm, x).mean
    assert histories[0]["log_likelihood"][-1] == pytest.approx(final, rel=1e-5)


def scheduled(momentum=0.5, **arguments):
    keras.utils.set_random_seed(2)
    rbm = dbn.RBM(5, seed=1, persistent=True, chains=7, **arguments)
    rbm.compile(keras.optimizers.SGD(0.2, momentum=momentum))
    return rbm


def assert_equal(one, other):
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_schedule_equals_training_in_stages(tmp_path):
    schedule = Schedule(k={0: 1, 2: 3, 3: 2}, momentum={1: 0.9})
    whole = scheduled()
    fit(whole, schedule, epochs=4)
    assert whole.k == 2 and whole.optimizer.momentum == 0.9
    stages = scheduled()
    for k, momentum, epochs in ((1, 0.5, 1), (1, 0.9, 1), (3, 0.9, 1), (2, 0.9, 1)):
        stages.negative.k, stages.optimizer.momentum = k, momentum
        stages.compile(stages.optimizer)
        fit(stages, epochs=epochs)
    assert_equal(whole, stages)
    parts = scheduled()
    fit(parts, schedule, epochs=1)
    parts.save(tmp_path / "rbm.keras")
    parts = keras.saving.load_model(tmp_path / "rbm.keras")
    fit(parts, schedule, epochs=3)
    assert_equal(whole, parts)


def test_a_schedule_that_changes_nothing_changes_nothing():
    plain, watched = scheduled(), scheduled()
    fit(plain, epochs=2)
    fit(watched, Schedule(k={0: 1}, momentum={5: 0.9}), epochs=2)
    assert_equal(plain, watched)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": {0: 0}}, "`k` must be an integer >= 1; got 0"),
        ({"k": {-1: 1}}, "`k: epoch` must be an integer >= 0; got -1"),
        ({"k": 3}, "`k` must be a dict from epoch to value; got 3"),
        ({"k": {}}, "`k` must be a dict"),
        ({"momentum": {0: 1.0}}, r"`momentum` must be in \(0, 1\); got 1.0"),
        ({"momentum": {0: "a"}}, r"`momentum` must be in \(0, 1\); got 'a'"),
    ],
)
def test_bad_schedules(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)


def test_an_optimizer_that_scales_the_loss_is_seen_through(reference):
    rbm, sgd = scheduled(), keras.optimizers.SGD(0.2, momentum=0.5, use_ema=True, ema_momentum=0.9)
    rbm.compile(keras.optimizers.LossScaleOptimizer(sgd), run_eagerly=True)
    watch, schedule = LogLikelihood(X), Schedule(momentum={0: 0.9})
    found = rbm.fit(X, batch_size=10, verbose=0, callbacks=[watch, schedule]).history
    assert sgd.momentum == 0.9
    # The averages, which `fit` leaves.
    exact = reference.of(rbm.layer).log_likelihood(X).mean()
    np.testing.assert_allclose(found["log_likelihood"], exact, rtol=1e-5)


def test_a_schedule_of_momentum_needs_velocities():
    with pytest.raises(ValueError, match="an optimizer with momentum from the start"):
        fit(scheduled(momentum=0.0), Schedule(momentum={0: 0.5}))
