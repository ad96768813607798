"""Every unit type through training, saving and stacking; what each one is: tests/layers."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import RBMLayer
from dbn.layers import Binomial, Categorical, Mixed, ScaledGaussian

NORMAL = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
MIXED = Mixed([("spin", 1), ("scaled_gaussian", 1), (Categorical([2, 3]), 5)])
CODES = Categorical([2, 3]).one_hot(np.random.default_rng(0).integers(0, [2, 3], (60, 2)))


@pytest.mark.parametrize(
    "types",
    [
        ("bernoulli", "gaussian"),
        ("binomial", "categorical"),
        ("groups", "spin"),
        ("labelled", "bernoulli"),
        ("scaled", "bernoulli"),
    ],
    ids="-".join,
)
def test_a_student_reaches_its_teacher(types, joint):
    """Trained on draws of an enumerated RBM, another gives them a likelihood as high as its own."""
    teacher = joint(*types, seed=5)
    x = teacher.draw(20_000, seed=1)[0].astype("float32")
    states, counts = np.unique(x, axis=0, return_counts=True)
    free = np.average(teacher.free_energy(states), weights=counts)
    of_teacher = -free - teacher.log_partition
    keras.utils.set_random_seed(0)
    kinds = map(joint.units, types)
    small = keras.initializers.RandomNormal(0, 0.1)
    layer = RBMLayer(teacher.h.shape[1], *kinds, kernel_initializer=small)
    negative = dbn.negative.PCD(k=5, chains=500)
    rbm = dbn.RBM(layer, negative=negative, gradient=dbn.gradients.Centered())
    rate = keras.optimizers.schedules.PolynomialDecay(0.03, 800, 0.0)
    rbm.compile(keras.optimizers.Adam(rate), metrics=[])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`x` is not standardised")
        rbm.fit(x, batch_size=250, epochs=10, verbose=0)
    found = dbn.likelihood.log_likelihood(rbm, x)
    # Fitted to these very draws, it may be better by some parameters / (2 * 20,000).
    assert of_teacher - 0.01 < found.mean < of_teacher + 0.002


@pytest.mark.usefixtures("without_xla")
@pytest.mark.parametrize(
    ("visible", "hidden", "x"),
    [
        ("gaussian", "relu", NORMAL),
        (ScaledGaussian(0.05), "bernoulli", NORMAL),
        (Categorical([2, 3]), "gaussian", CODES),
        (Binomial(5), "spin", np.random.default_rng(1).integers(0, 6, (60, 3))),
        (MIXED, "bernoulli", np.concatenate([np.sign(NORMAL[:, :1]), NORMAL[:, 1:2], CODES], 1)),
    ],
    ids=["gaussian-relu", "scaled-bernoulli", "groups-gaussian", "binomial-spin", "mixed"],
)
def test_saved_training_goes_on_bit_for_bit(visible, hidden, x, tmp_path):
    keras.utils.set_random_seed(1)
    rbm = dbn.RBM(RBMLayer(3, visible, hidden), persistent=True, k=2, chains=7)
    rbm.compile(keras.optimizers.SGD(0.01, momentum=0.5))
    rbm.fit(x, batch_size=20, verbose=0)
    rbm.save(tmp_path / "rbm.keras")
    loaded = keras.saving.load_model(tmp_path / "rbm.keras")
    assert loaded.layer.visible.get_config() == rbm.layer.visible.get_config()
    for model in (rbm, loaded):
        model.fit(x, batch_size=20, epochs=2, verbose=0)
    for one, other in zip(rbm.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert np.all(np.isfinite(rbm.sample(steps=3).sample))


def test_a_learnt_variance_moves_as_by_hand():
    """One CD update by SGD: the gradient of v^2 / (2 s) for log s, data minus chains."""
    layer = RBMLayer(3, visible="scaled_gaussian")
    rbm = dbn.RBM(layer, seed=4)
    rbm.compile(keras.optimizers.SGD(0.5))
    rbm.build((None, 4))
    variance = np.array([0.5, 1.0, 1.5, 2.0])
    layer.visible.log_variance.assign(np.log(variance))
    v = NORMAL[:20]
    noise = dbn.sampling.gibbs_noise(layer, len(v), 1, seed=4, step=0)
    end = np.float64(dbn.sampling.gibbs_vhv(layer, v, noise, 1))
    gradient = -(np.mean(np.float64(v) ** 2, 0) - np.mean(end**2, 0)) / (2 * variance)
    rbm.fit(v, batch_size=20, shuffle=False, verbose=0)
    expected = np.log(variance) - 0.5 * gradient
    np.testing.assert_allclose(layer.visible.log_variance, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("without_xla")
def test_a_variance_that_collapses_stops_training_with_the_last_good_weights():
    x = np.random.default_rng(2).normal(size=(500, 3)).astype("float32")
    x[:, 1] = 0
    rbm = dbn.RBM(RBMLayer(2, visible="scaled_gaussian"), seed=0)
    rbm.compile(keras.optimizers.SGD(0.1), steps_per_execution=5)
    with pytest.raises(FloatingPointError, match=r"variance of visible unit 1 fell to .*floor="):
        rbm.fit(x, batch_size=10, epochs=50, verbose=0)
    assert bool(rbm.layer.visible.sound()) and int(rbm.updates.value) > 0
    assert int(rbm.updates.value) % 5 == 0
    kept = dbn.RBM(RBMLayer(2, visible=ScaledGaussian(floor=0.01)), seed=0)
    kept.compile(keras.optimizers.SGD(0.1))
    kept.fit(x, batch_size=10, epochs=5, verbose=0)
    assert 0.01 <= float(kept.layer.visible.variance[1]) < 0.02


@pytest.mark.usefixtures("without_xla")
def test_data_that_are_not_standardised_are_warned_of():
    rbm = dbn.RBM(RBMLayer(2, visible="gaussian"))
    rbm.compile(keras.optimizers.SGD(1e-6))
    x = NORMAL * [1, 2, 3, 4] + [0, 5, 0, 0]
    low, high = x.var(0).min(), x.var(0).max()
    message = f"means from .* to {x.mean(0).max():.3g} and variances from {low:.3g} to {high:.3g}"
    with pytest.warns(RuntimeWarning, match=f"`x` is not standardised.*{message}"):
        rbm.fit(x, verbose=0)
    beside = dbn.RBM(RBMLayer(2, visible=Mixed([("bernoulli", 1), ("gaussian", 4)])))
    beside.compile(keras.optimizers.SGD(1e-6), run_eagerly=True)
    with pytest.warns(RuntimeWarning, match=f"`x` is not standardised.*{message}"):
        beside.fit(np.concatenate([np.ones((60, 1)), x], 1), verbose=0)
    stream = tf.data.Dataset.from_tensor_slices(x).batch(60)
    with pytest.warns(RuntimeWarning, match="`the first batch of x` is not standardised"):
        rbm.fit(stream, verbose=0)


ONE_HOT = Categorical(2).one_hot([[0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (2 * ONE_HOT, r"`x` must lie in \[0, 1\] for categorical units"),
        (ONE_HOT[:, [0, 2, 1, 3]], "`x` must be one-hot, .*; in case 1, group 0 sums to 0"),
        (np.nan * ONE_HOT, "`x` holds NaN"),
        (ONE_HOT[:, :3], r"`x` has width 3. Categorical units of sizes 2 do not make 3 units"),
        (tf.data.Dataset.from_tensors(ONE_HOT / 2), "first batch of x.* group 0 sums to 0.5"),
        (
            tf.data.Dataset.from_tensor_slices([ONE_HOT, ONE_HOT / 2]),
            "A batch of x, .* holds no case, or NaN, .* or groups that do not sum to 1",
        ),
    ],
)
def test_data_that_are_not_one_hot_are_refused(x, message):
    rbm = dbn.RBM(RBMLayer(2, visible=Categorical(2)))
    rbm.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        rbm.fit(x, verbose=0)


def test_measuring_soft_categories_is_warned_of():
    layer = RBMLayer(2, visible=Categorical(2))
    layer.build((None, 4))
    with pytest.warns(RuntimeWarning, match="values between 0 and 1, which categorical units neve"):
        dbn.likelihood.log_likelihood(layer, np.full((1, 4), 0.5))


@pytest.mark.usefixtures("without_xla")
def test_stacks_of_every_hidden_type(x=NORMAL):
    """A relu layer, a sigmoid one and a linear code, which the classifier's Dense layers keep."""
    stack = dbn.DBN(
        [
            RBMLayer(6, "gaussian", "relu"),
            RBMLayer(5, "gaussian", "bernoulli"),
            RBMLayer(2, "bernoulli", "gaussian"),
        ]
    )
    stack.pretrain(x, batch_size=20, optimizer=keras.optimizers.SGD(0.001), verbose=0)
    mean = np.float64(x)
    by_hand = (lambda a: np.maximum(a, 0), lambda a: 1 / (1 + np.exp(-a)), lambda a: a)
    for rbm, activation in zip(stack.rbms, by_hand, strict=True):
        W, hbias = (np.float64(w) for w in (rbm.layer.W, rbm.layer.hbias))
        mean = activation(mean @ W + hbias)
    np.testing.assert_allclose(stack(x), mean, rtol=1e-4, atol=1e-5)
    model = stack.classifier(3)
    names = [layer.activation.__name__ for layer in model.layers]
    assert names == ["relu", "sigmoid", "linear", "softmax"]
    code = keras.Sequential(model.layers[:3])
    np.testing.assert_allclose(code(x), mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("below", "above"), [("gaussian", "bernoulli"), ("relu", "bernoulli"), ("spin", "bernoulli")]
)
def test_a_stack_whose_layers_do_not_fit_is_refused(below, above):
    layers = [RBMLayer(3, "bernoulli", below), RBMLayer(2, above)]
    with pytest.raises(ValueError, match=f"Layer 2 has {above} visible units, .* {below} means"):
        dbn.DBN(layers)
