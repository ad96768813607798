"""DBN: the stack and greedy pretraining."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn

pytestmark = pytest.mark.usefixtures("without_xla")


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


def test_call_gives_the_means_of_the_top_layer(x):
    stack = dbn.DBN([7, 5], seed=0)
    expected = x
    stack.build((None, 12))
    for rbm in stack.rbms:
        rbm.layer.hbias.assign(np.random.default_rng(1).normal(size=rbm.layer.hbias.shape))
        expected = sigmoid(expected @ np.array(rbm.layer.W, "float64") + np.array(rbm.layer.hbias))
    np.testing.assert_allclose(stack(x), expected, rtol=1e-5)


def test_pretraining_is_fitting_each_rbm_on_the_means_of_the_one_below(x):
    stack = dbn.DBN([7, 5], seed=3)
    histories = stack.pretrain(x, epochs=[2, 3], batch_size=[10, 20], optimizer=sgd(), verbose=0)
    lower, upper = dbn.DBN([7, 5], seed=3).rbms
    for rbm in (lower, upper):
        rbm.compile(sgd())
    first = lower.fit(x, epochs=2, batch_size=10, verbose=0)
    second = upper.fit(lower(x), epochs=3, batch_size=20, verbose=0)
    alone = [np.array(w) for r in (lower, upper) for w in r.layer.weights]
    for a, b in zip(weights(stack), alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert histories[0].history == first.history
    for name, values in second.history.items():
        np.testing.assert_allclose(histories[1].history[name], values, rtol=1e-5)


def test_a_dataset_gives_what_an_array_gives(x):
    array, stream = dbn.DBN([7, 5], seed=3), dbn.DBN([7, 5], seed=3)
    array.pretrain(x, epochs=2, batch_size=10, shuffle=False, verbose=0)
    stream.pretrain(
        tf.data.Dataset.from_tensor_slices((x, np.zeros(50))).batch(10), epochs=2, verbose=0
    )
    for a, b in zip(weights(array), weights(stream), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_each_layer_gets_an_optimizer_of_its_own(x):
    stack, given = dbn.DBN([7, 5], seed=3), sgd()
    stack.pretrain(x, optimizer=given, verbose=0)
    lower, upper = (rbm.optimizer for rbm in stack.rbms)
    assert len({id(lower), id(upper), id(given)}) == 3
    assert lower.get_config() == upper.get_config() == given.get_config()
    assert not given.built


def test_a_new_optimizer_leaves_what_else_a_layer_was_compiled_with(x):
    stack = dbn.DBN([dbn.RBM(7, persistent=True), 5], seed=3)
    lower, upper = stack.rbms
    chosen = {"run_eagerly": True, "steps_per_execution": 2}
    lower.compile("adam", ["pseudo_log_likelihood", "reconstruction_cross_entropy"], **chosen)
    first, second = stack.pretrain(x, optimizer=keras.optimizers.SGD(0.1), verbose=0)
    assert set(first.history) == {"pseudo_log_likelihood", "reconstruction_cross_entropy"}
    assert set(second.history) == {"reconstruction_cross_entropy"}
    config = lower.get_compile_config()
    assert {name: config[name] for name in chosen} == chosen
    assert isinstance(lower.optimizer, keras.optimizers.SGD)
    assert not upper.run_eagerly
    kept = lower.optimizer
    (history, _) = stack.pretrain(x, metrics="reconstruction_cross_entropy", verbose=0)
    assert set(history.history) == {"reconstruction_cross_entropy"}
    assert lower.optimizer is kept and int(kept.iterations) == 2 * 2  # Updates of 32 and 18 cases.


def test_callbacks_for_all_layers_or_one_list_a_layer(x):
    seen = []

    def note(name):
        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append((name, epoch))
        )

    dbn.DBN([7, 5]).pretrain(x, epochs=[1, 2], callbacks=[note("all")], verbose=0)
    assert seen == [("all", 0), ("all", 0), ("all", 1)]
    seen.clear()
    dbn.DBN([7, 5]).pretrain(x, callbacks=[[note("low")], [note("high")]], verbose=0)
    assert seen == [("low", 0), ("high", 0)]


def test_validation_data_go_up_the_stack(x):
    stack = dbn.DBN([7, 5], seed=3)
    histories = stack.pretrain(x[:40], validation_data=x[40:], verbose=0)
    upper = stack.rbms[1]
    expected = upper.evaluate(stack.rbms[0](x[40:]), verbose=0, return_dict=True)
    np.testing.assert_allclose(
        histories[1].history["val_reconstruction_cross_entropy"],
        expected["reconstruction_cross_entropy"],
        rtol=1e-6,
    )


def test_one_progress_bar_a_layer(x, capsys):
    dbn.DBN([7, 5]).pretrain(x, epochs=2)
    shown = capsys.readouterr().out
    assert shown.count("RBM 1 of 2 (12-7)") == shown.count("RBM 2 of 2 (7-5)") == 1
    assert shown.count("2/2") == 2
    dbn.DBN([7, 5]).pretrain(x, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_layer_on_a_pretrained_stack(x):
    stack = dbn.DBN([7], seed=3)
    stack.pretrain(x, epochs=2, verbose=0)
    before = weights(stack)
    taller = dbn.DBN([*stack.rbms, 5], seed=3)
    histories = taller.pretrain(x, epochs=[0, 2], verbose=0)
    assert taller.rbms[0] is stack.rbms[0] and histories[0] is None
    assert_same(weights(taller)[: len(before)], before)
    straight = dbn.DBN([7, 5], seed=3)
    straight.pretrain(x, epochs=2, verbose=0)
    # The seed of a layer is that of its place.
    for a, b in zip(weights(straight)[len(before) :], weights(taller)[len(before) :], strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_loaded_and_trained_on_equals_uninterrupted(x, tmp_path):
    def made():
        stack = dbn.DBN([dbn.RBM(7, persistent=True, chains=6, seed=1), dbn.RBM(5, seed=2)])
        stack.build((None, 12))
        for number, rbm in enumerate(stack.rbms):
            rbm.layer.W.assign(np.random.default_rng(number).normal(size=rbm.layer.W.shape))
            rbm.compile(sgd())
        return stack

    straight, broken = made(), made()
    straight.pretrain(x, epochs=4, verbose=0)
    # Layer 2 sees the means of a layer 1 that is ready, so the break comes inside layer 2.
    broken.pretrain(x, epochs=[4, 1], verbose=0)
    broken.save(tmp_path / "stack.keras")
    broken = keras.saving.load_model(tmp_path / "stack.keras")
    broken.pretrain(x, epochs=[0, 3], verbose=0)
    assert_same(straight.get_weights(), broken.get_weights())
    assert broken.rbms[1].layer.W is broken.rbms[1].layer.dense.kernel


def test_the_seed_makes_the_weights_and_set_random_seed_governs(x):
    keras.utils.set_random_seed(5)
    first = dbn.DBN([7, 5])
    first.pretrain(x, verbose=0)
    keras.utils.set_random_seed(5)
    second = dbn.DBN([7, 5])
    second.pretrain(x, verbose=0)
    assert_same(weights(first), weights(second))
    third, fourth = dbn.DBN([7, 5], seed=1), dbn.DBN([7, 5], seed=1)
    for stack in (third, fourth):
        stack.pretrain(x, verbose=0)
    assert_same(weights(third), weights(fourth))
    assert np.abs(weights(first)[1] - weights(third)[1]).max() > 0.01


def test_the_configuration_is_plain_data():
    config = dbn.DBN([7, dbn.RBM(5, k=3, persistent=True, chains=4, seed=9)]).get_config()
    upper = dbn.DBN.from_config(json.loads(json.dumps(config))).rbms[1]
    assert (upper.k, upper.persistent, upper.chains, upper.seed) == (3, True, 4, 9)
    assert upper.layer.units == 5


def test_fit_names_what_to_use_instead(x):
    with pytest.raises(NotImplementedError, match=r"pretrain.*classifier"):
        dbn.DBN([7]).fit(x)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one layer"),
        (7, "must be a list"),
        ([0], "`units` must be an integer >= 1; got 0"),
        ([7, "x"], "`layer` must be an RBMLayer or a number"),
        ([2.5], "`layer` must be an RBMLayer or a number"),
        ([keras.layers.Dense(3)], "`layer` must be an RBMLayer or a number"),
    ],
)
def test_bad_layers(layers, message):
    with pytest.raises(ValueError, match=message):
        dbn.DBN(layers)


def test_a_layer_twice():
    layer = dbn.RBMLayer(5)
    with pytest.raises(ValueError, match="same layer twice"):
        dbn.DBN([layer, layer])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": [1, 2, 3]}, "`epochs` must be one value or a list with one for each of the 2"),
        ({"epochs": -1}, "`epochs` must be an integer >= 0; got -1"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1; got 0"),
        ({"batch_size": [5]}, "`batch_size` must be one value or a list"),
        ({"optimizer": ["sgd"]}, "`optimizer` must be one value or a list"),
        ({"callbacks": [[]]}, "`callbacks` must be one value or a list"),
        ({"metrics": ["accuracy"]}, "Unknown metric 'accuracy'"),
        ({"validation_data": np.zeros((3, 4))}, "`validation_data` must have width 12"),
        ({"x": np.full((3, 12), 255.0)}, "Divide grey levels 0-255 by 255"),
        ({"x": np.zeros((0, 12))}, "`x` is empty"),
        ({"x": np.full((3, 12), np.nan)}, "NaN"),
    ],
)
def test_bad_pretraining(x, arguments, message):
    stack = dbn.DBN([7, 5], seed=0)
    stack.build((None, 12))
    before = weights(stack)
    with pytest.raises(ValueError, match=message):
        stack.pretrain(**{"x": x, "verbose": 0, **arguments})
    assert_same(weights(stack), before)


def test_rbms_whose_dense_layers_have_one_name(x):
    """As those of RBMs that were trained by two programs."""
    made = [
        dbn.RBM(dbn.RBMLayer(dense=keras.layers.Dense(n, "sigmoid", name="dense"))) for n in (7, 5)
    ]
    stack = dbn.DBN(made)
    stack.build((None, 12))
    encoder = stack.autoencoder().get_layer("encoder")
    assert [layer.name for layer in encoder.layers] == ["dense", "dense_1"]
    np.testing.assert_array_equal(encoder(x), stack(x))


def test_data_of_another_width(x):
    stack = dbn.DBN([7, 5])
    stack.build((None, 12))
    with pytest.raises(ValueError, match="width 12"):
        stack.pretrain(x[:, :9], verbose=0)


def test_layers_that_do_not_fit_together():
    lower, upper = dbn.RBM(7), dbn.RBM(5)
    upper.build((None, 9))
    with pytest.raises(ValueError, match="takes 9 inputs; it is given 7"):
        dbn.DBN([lower, upper]).build((None, 12))


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_an_unreadable_file(x, tmp_path, damage):
    path = tmp_path / "stack.keras"
    stack = dbn.DBN([7])
    stack.build((None, 12))
    stack.save(path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "overwritten": b"\0" * len(content),
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ValueError, match=r"stack\.keras"):
        keras.saving.load_model(path)


def test_float64_layers_train_on_a_dataset(x):
    stack = dbn.DBN([dbn.RBMLayer(n, dtype="float64") for n in (7, 5)], dtype="float64")
    data = tf.data.Dataset.from_tensor_slices(x).batch(10)
    stack.pretrain(data, epochs=1, optimizer=sgd(), verbose=0)
    assert all(np.all(np.isfinite(w)) and w.dtype == np.float64 for w in weights(stack))


# Sampling -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(reference):
    """A stack of 4-3-3-2 units, and p(v) of its 16 visible states, by enumeration."""
    models = [
        reference.random(visible, hidden, seed, scale=1.5)
        for seed, (visible, hidden) in enumerate([(4, 3), (3, 3), (3, 2)])
    ]
    stack = dbn.DBN([model.layer() for model in models])
    stack.build((None, 4))
    first, second, top = models
    states = reference.states(3)

    def down(model):
        """p(v | h), `(states of h, states of v)`, as a product over units."""
        mean = model.mean_v(reference.states(len(model.hbias)))[:, None]
        return np.prod(np.where(reference.states(len(model.vbias)) == 1, mean, 1 - mean), -1)

    assert np.allclose(down(second), second.p_v_given_h()) and len(states) == 8
    return stack, top.p_v() @ down(second) @ down(first), top


def test_samples_have_the_enumerated_distribution(small, reference, assert_mean):
    stack, p, top = small
    found = stack.sample(chains=40_000, steps=40, start="noise", seed=1)
    number = np.asarray(found.sample) @ [8, 4, 2, 1]
    assert_mean(number[:, None] == np.arange(16), p)
    assert_mean(found.mean, p @ reference.states(4))
    products = np.asarray(found.sample)[:, :, None] * np.asarray(found.sample)[:, None]
    assert_mean(products, np.einsum("s,si,sj->ij", p, reference.states(4), reference.states(4)))
    assert_mean(np.asarray(found.top.sample) @ [4, 2, 1] == 5, top.p_v()[5])
    # Not the distribution of the bottom RBM, nor that of independent units.
    bottom = reference.of(stack.rbms[0].layer).p_v()
    assert np.abs(bottom - p).max() > 0.04


def test_sampling_goes_on_bit_for_bit_and_from_data(small):
    stack, *_ = small
    whole, half = (stack.sample(5, steps, "noise", seed=2) for steps in (20, 10))
    rest = stack.sample(steps=10, start=half, seed=2)
    for part in ("mean", "sample"):
        np.testing.assert_array_equal(getattr(rest, part), getattr(whole, part))
    assert rest.top.steps == 20
    x = np.array([[1, 0, 1, 1], [0, 0, 1, 0.5]], "float32")
    up = stack.rbms[1](stack.rbms[0](x))
    top = stack.rbms[2].sample(steps=3, start=up, seed=2)
    np.testing.assert_array_equal(stack.sample(steps=3, start=x, seed=2).top.sample, top.sample)
    # By hand: two layers down, each by its own part of the noise.
    u = np.array(dbn.noise.uniforms((2, 7), 2, 3, dbn.noise.Stream.DOWN))
    h = u[:, 4:] < stack.rbms[1].layer.propdown(top.sample)[1]
    mean = stack.rbms[0].layer.propdown(np.float32(h))[1]
    found = stack.sample(steps=3, start=top._replace(steps=0, sample=up), seed=2)
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.sample, u[:, :4] < mean)


def test_a_stack_of_one_is_its_rbm():
    stack = dbn.DBN([3], seed=0)
    stack.build((None, 4))
    found, own = stack.sample(3, 5), stack.rbms[0].sample(3, 5)
    np.testing.assert_array_equal(found.mean, own.mean)
    np.testing.assert_array_equal(found.sample, own.sample)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": np.ones((2, 3))}, "`start` must have width 4"),
        ({"start": 2 * np.ones((2, 4))}, r"`start` must lie in \[0, 1\]"),
        ({"start": "data"}, "`start` must be an array, Samples, 'noise'"),
        ({"chains": 0}, "`chains` must be an integer >= 1"),
        ({"steps": 0}, "`steps` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments_of_sample(arguments, message, small):
    with pytest.raises(ValueError, match=message):
        small[0].sample(**arguments)


def test_a_stack_that_is_not_built_has_no_samples():
    with pytest.raises(ValueError, match="The DBN is not built"):
        dbn.DBN([3]).sample()
