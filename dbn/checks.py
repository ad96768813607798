"""Checks at the door: bad input gets an error that names it before anything is trained."""

import operator
import warnings

import numpy as np
import tensorflow as tf

from dbn.layers import Gaussian, RBMLayer

__all__ = [
    "built_layer",
    "cases",
    "density",
    "integer",
    "labels",
    "states",
    "targets",
    "warn_of_scale",
]

_FEWEST_FOR_MOMENTS = 50


def integer(value, name, least=1):
    """Returns `value` as an int.

    Raises:
        ValueError: If it is not an integer of at least `least`, or needs more than 64 bits.
    """
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(value)
    except (TypeError, AttributeError):  # The second is TensorFlow's, for a tensor of floats.
        found = least - 1
    if not least <= found < 2**63:
        most = " and < 2**63" if found > least else ""
        raise ValueError(f"`{name}` must be an integer >= {least}{most}; got {value!r}.")
    return found


def cases(x, units, name="x", width=None):
    """Checks data cases whole, and returns them as a tensor.

    Args:
        x: Array-like of shape `(cases, width)`.
        units: The `Units` whose valid range they must lie in.
        name: Name of the argument, for the message.
        width: Expected width, or None for any.

    Returns:
        float32 tensor of shape `(cases, width)`.

    Raises:
        ValueError: If the rank, width, dtype or number of cases is wrong, or a value is not finite
            or out of range.
    """
    if not isinstance(x, tf.Tensor):
        given = x
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise ValueError(f"`{name}` is not an array of shape (cases, width): {error}") from None
        if x.dtype.kind not in "fiub":
            raise ValueError(
                f"`{name}` must hold numbers; got dtype {x.dtype}, of {type(given).__name__!r}."
                + " Its `toarray()` does." * hasattr(given, "toarray")
            )
        _refuse_masked(given, name)
        with np.errstate(over="ignore"):  # What is too large for 32 bits is found infinite below.
            x = tf.convert_to_tensor(x if x.dtype == np.float32 else x.astype(np.float32))
    if x.shape.rank != 2:
        raise ValueError(f"`{name}` must have shape (cases, width); got shape {tuple(x.shape)}.")
    if 0 in x.shape:
        raise ValueError(f"`{name}` is empty: its shape is {tuple(x.shape)}.")
    if width is not None and x.shape[1] != width:
        raise ValueError(f"`{name}` must have width {width}; got shape {tuple(x.shape)}.")
    if not (x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool):
        raise ValueError(f"`{name}` must hold numbers; got dtype {x.dtype.name}.")
    x = tf.cast(x, tf.float32)
    fault = units.fault(x)
    if fault:
        raise ValueError(f"`{name}` {fault}")
    return x


def _refuse_masked(x, name):
    if np.ma.is_masked(x):
        raise ValueError(f"`{name}` has masked values: what is missing cannot be learnt from.")


def labels(y, classes, count=None, name="y"):
    """Checks class labels whole, and returns them as a tensor.

    Args:
        y: Array-like of integers `(cases,)`, from 0 to `classes` - 1.
        classes: Number of classes.
        count: How many there must be, or None for any number.
        name: Name of the argument, for the message.

    Returns:
        int64 tensor of shape `(cases,)`.

    Raises:
        ValueError: If the rank, dtype or number of labels is wrong, or one is no class.
    """
    _refuse_masked(y, name)
    y = np.asarray(y)
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise ValueError(
            f"`{name}` must hold integers, the class of each case, in shape (cases,); got "
            f"{y.dtype} of shape {y.shape}."
        )
    if count is not None and len(y) != count:
        raise ValueError(f"`{name}` must have a label for each of {count} cases; got {len(y)}.")
    bad = np.flatnonzero((y < 0) | (y >= classes))
    if len(bad):
        raise ValueError(
            f"`{name}` must lie in 0 to {classes - 1}, for {classes} classes; got {y[bad[0]]} for "
            f"case {bad[0]}."
        )
    return tf.constant(y, tf.int64)


def states(x, units, name="x", width=None):
    """Checks cases as `cases` does, and warns if they are no states that the units can be in.

    Warns:
        RuntimeWarning: If x holds valid values that samples never have, such as grey levels.
    """
    x = cases(x, units, name, width)
    if not bool(units.possible(x)):
        warnings.warn(
            f"`{name}` holds {units.between}, which {units.name} units never have: the figure is "
            "not the log of a probability. Binarise them, or draw them, and say how.",
            RuntimeWarning,
            stacklevel=3,
        )
    return x


def targets(y, num_classes, name="y", fewest=1):
    """Checks whole what a classifier is to learn.

    Args:
        y: Labels from 0 to num_classes - 1, `(cases,)` or `(cases, 1)`, whole numbers; or the
            probabilities of the classes, such as one-hot labels, `(cases, num_classes)`.
        num_classes: Number of classes, at least 2.
        name: Name of the argument, for the message.
        fewest: How many cases there must be.

    Raises:
        ValueError: If the type, shape or range is wrong, or there are fewer cases.
    """
    _refuse_masked(y, name)
    y = np.asarray(y)
    if y.dtype.kind not in "fiub":
        raise ValueError(
            f"`{name}` must hold numbers; got dtype {y.dtype}. scikit-learn's `LabelEncoder` "
            "numbers names of classes."
        )
    whole = y.shape[1:] in ((), (1,)) and y.ndim > 0
    if not (whole or y.shape[1:] == (num_classes,)):
        raise ValueError(
            f"`{name}` must be labels of shape (cases,), or probabilities of shape (cases, "
            f"{num_classes}); got shape {y.shape}."
        )
    if len(y) < fewest:
        raise ValueError(f"`{name}` has {len(y)} cases, fewer than the {fewest} that are needed.")
    if whole and not np.all((y >= 0) & (y < num_classes) & (y == np.floor(y))):
        raise ValueError(
            f"`{name}` must be labels from 0 to {num_classes - 1}, whole numbers; got values from "
            f"{y.min()} to {y.max()}."
        )
    if not whole and not (np.all(y >= 0) and np.allclose(y.sum(1), 1, atol=1e-3)):
        raise ValueError(
            f"`{name}` of shape (cases, {num_classes}) must be one-hot labels or probabilities: "
            "not negative, each row of sum 1."
        )


def warn_of_scale(x, units, name="x"):
    """Warns if real-valued cases are far from standardised, which Gaussian units ask for.

    Args:
        x: Checked cases, `(cases, width)`.
        units: The `Units` that are to learn them.
        name: Name of the argument, for the message.

    Warns:
        RuntimeWarning: For Gaussian units, also as a part of `Mixed` ones, if the mean of a column
            is further than 1 from 0, or the mean variance of the columns is not between 1/4 and 4.
            Not of fewer than 50 cases.
    """
    if len(x) < _FEWEST_FOR_MOMENTS:
        return
    for kind, part in zip(units.kinds, units.split(x), strict=True):
        if not isinstance(kind, Gaussian):
            continue
        mean, variance = (moment.numpy() for moment in tf.nn.moments(part, axes=[0]))
        if np.abs(mean).max() > 1 or not 0.25 <= variance.mean() <= 4:
            warnings.warn(
                f"`{name}` is not standardised: its columns have means from {mean.min():.3g} to "
                f"{mean.max():.3g} and variances from {variance.min():.3g} to "
                f"{variance.max():.3g}, {variance.mean():.3g} on average. Gaussian units begin at "
                "variance 1: standardise the data, by `keras.layers.Normalization` or "
                "scikit-learn's `StandardScaler`.",
                RuntimeWarning,
                stacklevel=3,
            )


def built_layer(rbm):
    """Returns the built `RBMLayer` that is given, or that of the `RBM` that is given.

    Raises:
        ValueError: If it is neither, not built, or holds NaN or infinity.
    """
    layer = getattr(rbm, "layer", rbm)
    if not isinstance(layer, RBMLayer):
        raise ValueError(f"`rbm` must be an RBM or an RBMLayer; got {rbm!r}.")
    if not layer.built:
        raise ValueError("The RBM is not built: `fit` it, or call `build((None, visible))`.")
    for name in ("W", "hbias", "vbias"):
        if not bool(tf.reduce_all(tf.math.is_finite(getattr(layer, name)))):
            raise ValueError(f"The RBM's {name} holds NaN or infinity.")
    return layer


def density(rbm):
    """Returns the layer as `built_layer` does, of an RBM that has a normalised density.

    Raises:
        ValueError: As `built_layer` does; if a unit type is sampled by an approximation.
    """
    layer = built_layer(rbm)
    for units in (layer.visible, layer.hidden):
        if not units.exact:
            raise ValueError(
                f"Log-likelihoods need a density, and {units.name!r} units have none: they are "
                "sampled by an approximation."
            )
    return layer
