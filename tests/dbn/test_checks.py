import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from dbn import checks
from dbn.layers import Bernoulli

GOOD = np.array([[0.0, 0.25, 1.0], [1, 1, 0]])


def good(shape=(2, 3), value=0.5):
    return np.full(shape, value, "float32")


def spoilt(value, shape=(2, 3)):
    x = good(shape)
    x[-1, -2] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (good(3), r"`data` must have shape \(cases, width\); got shape \(3,\)"),
        (good((2, 3, 1)), r"must have shape \(cases, width\); got shape \(2, 3, 1\)"),
        (0.5, r"must have shape \(cases, width\); got shape \(\)"),
        ([], r"must have shape \(cases, width\); got shape \(0,\)"),
        (good((2, 4)), r"`data` must have width 3; got shape \(2, 4\)"),
        (good((3, 2)), r"`data` must have width 3; got shape \(3, 2\)"),
        (good((0, 3)), r"`data` is empty: its shape is \(0, 3\)"),
        (good((2, 0)), r"`data` is empty: its shape is \(2, 0\)"),
        (spoilt(np.nan), "`data` holds NaN or infinity; all its values must be finite"),
        (spoilt(np.inf), "`data` holds NaN or infinity"),
        (spoilt(-np.inf), "`data` holds NaN or infinity"),
        (tf.constant(spoilt(np.nan)), "`data` holds NaN or infinity"),
        (spoilt(1.001), r"`data` must lie in \[0, 1\] for bernoulli units; got.*0.5 to 1.001"),
        (spoilt(-0.5), r"`data` must lie in \[0, 1\] for bernoulli units; got.*-0.5 to 0.5"),
        (np.full((2, 3), "a"), "`data` must hold numbers; got dtype <U1"),
        (tf.constant([["a"] * 3] * 2), "`data` must hold numbers; got dtype string"),
        (GOOD.astype(object), "`data` must hold numbers; got dtype object"),
        (GOOD.astype(complex), "`data` must hold numbers; got dtype complex128"),
        (tf.constant(GOOD, tf.complex64), "`data` must hold numbers; got dtype complex64"),
        (GOOD.astype("datetime64[s]"), "`data` must hold numbers; got dtype datetime64"),
        (None, "`data` must hold numbers; got dtype object, of 'NoneType'"),
        (scipy.sparse.eye(3).tocsr(), "got dtype object, of 'csr_.*'. Its `toarray.*` does"),
        (np.ma.masked_less(GOOD, 0.3), "`data` has masked values"),
        ([[0, 1, 0], [1, 0]], r"`data` is not an array of shape \(cases, width\)"),
        (tf.ragged.constant([[0, 1, 0], [1, 0]]), "`data`"),
        ((GOOD, GOOD[:1]), r"`data` is not an array of shape \(cases, width\)"),
    ],
    ids=lambda x: None if isinstance(x, (np.ndarray, tf.Tensor)) else str(x)[:40],
)
def test_bad_cases(x, message):
    with pytest.raises(ValueError, match=message):
        checks.cases(x, Bernoulli(), "data", 3)


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (spoilt(255), True),
        (np.array([[0, 128, 255]], "uint8"), True),
        (tf.constant([[0, 128, 255]]), True),
        (spoilt(256), False),
        (spoilt(-1), False),
    ],
)
def test_grey_levels_get_a_hint(x, hint):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]") as error:
        checks.cases(x, Bernoulli())
    assert str(error.value).startswith("`x` ")
    assert str(error.value).endswith("Divide grey levels 0-255 by 255.") == hint


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5, -0.5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (200, 784), (5000, 100)])
def test_one_bad_value_is_found_wherever_it_is(value, shape):
    for place in ((0, 0), (-1, -1), (shape[0] // 2, shape[1] // 2)):
        x = good(shape)
        x[place] = value
        with pytest.raises(ValueError, match="NaN or infinity|must lie in"):
            checks.cases(x, Bernoulli())
        assert not Bernoulli().valid(tf.constant(x))


@pytest.mark.parametrize(
    "x",
    [
        GOOD,
        GOOD.astype("float16"),
        GOOD.round().astype("uint8"),
        GOOD.round().astype("int64"),
        GOOD.astype(bool),
        GOOD.tolist(),
        GOOD.round().astype(int).tolist(),
        tuple(map(tuple, GOOD.tolist())),
        list(GOOD),
        tf.constant(GOOD),
        tf.constant(GOOD, tf.bfloat16),
        tf.constant(GOOD.round(), tf.uint8),
        tf.constant(GOOD.astype(bool)),
        tf.Variable(GOOD),
        np.asfortranarray(GOOD),
        GOOD[:, ::-1],
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}",
)
def test_good_cases(x):
    checked = checks.cases(x, Bernoulli(), width=3)
    assert isinstance(checked, tf.Tensor) and checked.dtype == tf.float32
    expected = np.asarray(x.numpy() if hasattr(x, "numpy") else x).astype("float64")
    assert np.array_equal(checked, expected)
    assert Bernoulli().valid(checked)


def test_any_width():
    assert checks.cases(good((2, 7)), Bernoulli()).shape == (2, 7)


def test_the_array_is_left_alone():
    x = GOOD.copy()
    checks.cases(x, Bernoulli())
    assert np.array_equal(x, GOOD) and x.dtype == np.float64


@pytest.mark.parametrize("value", [1, np.int32(7), np.uint8(3), np.array(2), tf.constant(5)])
def test_good_integers(value):
    found = checks.integer(value, "k")
    assert type(found) is int and found == int(value)


@pytest.mark.parametrize(
    "value",
    [0, -1, np.int64(0), 1.0, np.float32(2), "3", None, True, np.True_, [1], np.array([1, 2])]
    + [np.array(3.5), tf.constant(3.5), tf.constant(True)],
    ids=repr,
)
def test_bad_integers(value):
    with pytest.raises(ValueError, match="`k` must be an integer >= 1; got ") as error:
        checks.integer(value, "k")
    assert repr(value) in str(error.value)


def test_least_integer():
    assert checks.integer(0, "seed", least=0) == 0
    with pytest.raises(ValueError, match="`seed` must be an integer >= 0; got -1"):
        checks.integer(-1, "seed", least=0)
    assert checks.integer(2**63 - 1, "seed", least=0) == 2**63 - 1
    with pytest.raises(ValueError, match=r"`seed` must be an integer >= 0 and < 2\*\*63; got 9"):
        checks.integer(2**63, "seed", least=0)
