"""Whatever is given: what cannot be right is refused before anything changes, the rest is done.

By hypothesis, some hundred cases here and as many as one likes by `--hypothesis-profile=soak`.
"""

import numbers
import warnings

import hypothesis.extra.numpy as arrays
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import dbn

pytestmark = pytest.mark.usefixtures("without_xla")

WIDTH, HIDDEN = 4, 3
RANGES = {"bernoulli": (0, 1), "spin": (-1, 1), "gaussian": (-np.inf, np.inf)}
DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int64", "bool", "complex64", "U2", "O"]
# Numbers that are meant to be integers >= 1, and others.
COUNTS = st.one_of(
    st.integers(1, 5), st.sampled_from([0, -1, True, 1.5, 2.0, None, "2", np.int32(3), 2**70])
)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 6), st.just(WIDTH)),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
)


@st.composite
def data(draw):
    """An array of any shape, dtype and values, most often one that could be a case."""
    dtype = draw(st.sampled_from(DTYPES + 4 * DTYPES[:1]))
    shape = draw(SHAPES)
    if dtype in ("O", "U2"):
        return np.full(shape, "1", dtype)
    if draw(st.booleans()):
        values = st.sampled_from([0, 1] if dtype in ("uint8", "bool") else [0, 1, -1])
        return draw(arrays.arrays(np.int8, shape, elements=values)).astype(dtype)
    return draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(np.dtype(dtype))))


def is_count(value):
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return integer and 1 <= value < 2**63


def are_cases(x, kind):
    """By NumPy in 64 bits; an infinity in 32 bits is none of the numbers that are learnt."""
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "fiub":
        return False
    low, high = RANGES[kind]
    x = x.astype("float64")
    with np.errstate(invalid="ignore"):
        return bool(np.all((x >= low) & (x <= high) & (np.abs(x) <= np.finfo("float32").max)))


@pytest.fixture(scope="module")
def rbms():
    """One RBM for each kind of visible units, trained eagerly: nothing is compiled."""
    keras.utils.set_random_seed(0)
    found = {kind: dbn.RBM(dbn.RBMLayer(HIDDEN, visible=kind), seed=1) for kind in RANGES}
    for rbm in found.values():
        rbm.build((None, WIDTH))
        rbm.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
        rbm.optimizer.build(rbm.trainable_variables)
    return found


def refused(function):
    """Whether it is refused by a ValueError with something to read; anything else is a failure."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is not standardised", RuntimeWarning)
            warnings.filterwarnings("ignore", ".* never have", RuntimeWarning)
            function()
    except ValueError as error:
        assert len(str(error)) > 20
        return True
    except FloatingPointError:  # Gaussian cases of 1e30 may well diverge; it is told.
        return False
    return False


@given(kind=st.sampled_from(list(RANGES)), x=data(), batch_size=COUNTS, epochs=st.one_of(COUNTS))
def test_fit(rbms, kind, x, batch_size, epochs):
    rbm = rbms[kind]
    before = [np.array(w) for w in rbm.weights]
    good = are_cases(x, kind) and x.shape[1] == WIDTH
    good = good and (batch_size is None or is_count(batch_size)) and is_count(epochs)
    if good and epochs > 5:
        return
    start = int(rbm.updates.numpy())
    assert good != refused(lambda: rbm.fit(x, batch_size=batch_size, epochs=epochs, verbose=0))
    after = [np.array(w) for w in rbm.weights]
    if good:
        made = int(rbm.updates.numpy()) - start
        assert made <= epochs * -(-len(x) // (batch_size or 32))
        assert all(np.all(np.isfinite(w)) for w in after)
    else:
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


@given(kind=st.sampled_from(list(RANGES)), x=data(), steps=COUNTS, chains=COUNTS)
def test_sample(rbms, kind, x, steps, chains):
    rbm = rbms[kind]
    good = are_cases(x, kind) and x.shape[1] == WIDTH and is_count(steps)
    good = good and (chains is None or (is_count(chains) and chains == len(x)))
    if good and steps > 5:
        return
    found = []
    assert good != refused(lambda: found.append(rbm.sample(chains, steps, start=x)))
    if good and np.max(np.abs(x)) < 1e6:
        low, high = RANGES[kind]
        assert found[0].sample.shape == x.shape
        assert np.all((found[0].sample >= low) & (found[0].sample <= high))


@given(kind=st.sampled_from(list(RANGES)), x=data())
def test_log_likelihood(rbms, kind, x):
    rbm = rbms[kind]
    good = are_cases(x, kind) and x.shape[1] == WIDTH
    found = []
    assert good != refused(lambda: found.append(dbn.likelihood.log_likelihood(rbm, x)))
    if good and np.max(np.abs(x)) < 1e6:
        assert np.isfinite(found[0].mean)


@given(k=COUNTS, chains=COUNTS, persistent=st.booleans(), units=COUNTS)
def test_constructors(k, chains, persistent, units):
    good = all(map(is_count, (k, chains, units)))
    if good and units > 5:
        return
    made = []
    assert good != refused(lambda: made.append(dbn.RBM(dbn.RBMLayer(units), k, persistent, chains)))
    if good:
        assert made[0].k == k and made[0].layer.units == units
        assert made[0].chains == (chains if persistent else None)


@given(k=st.integers(1, 3), chains=st.integers(1, 4), shape=st.tuples(*[st.integers(1, 8)] * 3))
def test_noise_of_gibbs_steps(rbms, k, chains, shape):
    """Noise of another shape would pass unnoticed: it can often be broadcast."""
    layer, v = rbms["bernoulli"].layer, tf.zeros((chains, WIDTH))
    good = shape == (k, chains, WIDTH + HIDDEN)
    u = dbn.noise.uniforms(shape, seed=1)
    assert good != refused(lambda: dbn.sampling.gibbs_vhv(layer, v, u, k))
    assert not refused(
        lambda: dbn.sampling.gibbs_vhv(
            layer, v, dbn.sampling.gibbs_noise(layer, chains, k, 1, 2), k
        )
    )


@given(chains=COUNTS, temperatures=COUNTS)
def test_annealing(rbms, chains, temperatures):
    layer = rbms["bernoulli"].layer
    good = is_count(chains) and is_count(temperatures) and temperatures >= 2
    if good and max(chains, temperatures) > 5:
        return
    found = []

    def anneal():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The effective sample size", RuntimeWarning)
            found.append(
                dbn.likelihood.annealed_importance_sampling(
                    layer, chains=chains, temperatures=temperatures
                )
            )

    assert good != refused(anneal)
    if good:
        assert isinstance(found[0].value, numbers.Real) and np.isfinite(found[0].value)
