"""Arrays and Datasets to the batches that `RBM.fit` reads."""

import re

import tensorflow as tf

from dbn import checks, noise

__all__ = [
    "first_cases",
    "gathered",
    "numbered",
    "reason",
    "rows",
    "slices",
    "stream",
    "take",
    "untuned",
]


def rows(count, batch_size, shuffle, seed, epoch):
    """Makes a Dataset of the row numbers of each batch, for an array that is gathered from.

    Args:
        count: Number of cases in the array.
        batch_size: Cases a batch; the last one is shorter if `count` is no multiple of it.
        shuffle: Whether the order is a permutation drawn from (seed, epoch).
        seed: Integer.
        epoch: `tf.Variable`, read whenever an iteration begins.

    Returns:
        `tf.data.Dataset` of int64 tensors `(cases of the batch,)`.
    """
    whole = count // batch_size

    def one_epoch(_):
        order = noise.permutation(count, seed, epoch) if shuffle else tf.range(count, dtype="int64")
        full = tf.reshape(order[: whole * batch_size], (whole, batch_size))
        batches = tf.data.Dataset.from_tensor_slices(tf.ensure_shape(full, (None, None)))
        return batches.concatenate(tf.data.Dataset.from_tensors(order[whole * batch_size :]))

    batches = tf.data.Dataset.from_tensors(0).flat_map(one_epoch)
    length = whole + (count % batch_size > 0)
    batches = batches.take(length).apply(tf.data.experimental.assert_cardinality(length))
    return untuned(batches.prefetch(64))


def gathered(arrays, batch_size, shuffle, seed, epoch):
    """Makes a Dataset of the batches of a nest of tensors, in the order of `rows`.

    Args:
        arrays: Tensors of equally many cases, nested as the batches are to be.
        batch_size: As for `rows`.
        shuffle: As for `rows`.
        seed: As for `rows`.
        epoch: As for `rows`.

    Returns:
        `tf.data.Dataset` of nests of tensors `(cases of the batch, ...)`.
    """

    def gather(numbers):
        return tf.nest.map_structure(lambda array: tf.gather(array, numbers), arrays)

    count = len(tf.nest.flatten(arrays)[0])
    return untuned(rows(count, batch_size, shuffle, seed, epoch).map(gather).prefetch(8))


def slices(x, batch_size):
    """Makes a Dataset of the batches of an array in its order, `(cases of the batch, width)`."""
    return untuned(tf.data.Dataset.from_tensor_slices(x).batch(batch_size))


def untuned(batches):
    """Returns a Dataset without tf.data's tuner, for one that has nothing to tune.

    The end of an iteration now and then waits two seconds for the tuner's thread.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def stream(dataset, units, width=None, name="x"):
    """Makes a Dataset of float batches of a user's Dataset, and checks its first batch.

    Args:
        dataset: `tf.data.Dataset` of batches `(cases, width)`, or of pairs that begin with one.
        units: The `Units` whose valid range the values must lie in.
        width: Expected width, or None for any.
        name: Name of the argument, for messages.

    Returns:
        `tf.data.Dataset` of float32 tensors `(cases, width)`, and its first batch.

    Raises:
        ValueError: If the elements have another structure or rank, there are none, or the first is
            out of range.
    """
    spec = dataset.element_spec
    if isinstance(spec, tuple) and len(spec) > 2:
        raise ValueError(
            f"`{name}` must be a Dataset of x or (x, y): an RBM learns from x alone, unweighted; "
            f"got tuples of {len(spec)}."
        )
    if isinstance(spec, tuple) and spec:
        dataset, spec = dataset.map(lambda *parts: parts[0]), spec[0]
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank not in (2, None):
        raise ValueError(
            f"`{name}` must be a Dataset of batches (cases, width), or of pairs that begin with "
            f"one; got elements {dataset.element_spec}. Call `.batch(...)` on a Dataset of cases."
        )
    first = next(iter(dataset.take(1)), None)
    if first is None:
        raise ValueError(f"`{name}` is empty: the Dataset has no batch.")
    first = checks.cases(first, units, f"the first batch of {name}", width)
    width = first.shape[1]

    def to_float(v):
        return tf.ensure_shape(tf.cast(v, tf.float32), (None, width))

    return dataset.map(to_float).prefetch(tf.data.AUTOTUNE), first


def take(batches, steps, name):
    """Makes a Dataset of the first `steps` batches, all if None.

    Args:
        batches: `tf.data.Dataset`.
        steps: Integer >= 1, or None.
        name: Name of the argument that `steps` was given as, for messages.

    Returns:
        `tf.data.Dataset`.

    Raises:
        ValueError: If there are fewer batches, or no end of them and `steps` is None.
    """
    available = int(batches.cardinality())
    if steps is None:
        if available == tf.data.INFINITE_CARDINALITY:
            raise ValueError(f"The Dataset is infinite (`repeat()`): give `{name}`.")
        return batches
    steps = checks.integer(steps, name)
    if 0 <= available < steps:
        raise ValueError(
            f"`{name}` must be at most {available}, the number of batches that there are; got "
            f"{steps}."
        )
    return batches.take(steps)


def numbered(batches):
    """Returns a Dataset of (number of the batch, batch): fixed noise for each batch of a test."""
    return tf.data.Dataset.zip((tf.data.Dataset.counter(), batches))


def first_cases(batches, count):
    """Returns the first `count` cases of a Dataset of batches, or all if there are fewer."""
    taken, found = [], 0
    for v in batches:
        taken.append(v[: count - found])
        found += len(taken[-1])
        if found == count:
            break
    return tf.concat(taken, axis=0)


def reason(error):
    """Returns why a batch could not be read, without TensorFlow's account of where.

    Args:
        error: `tf.errors.OpError` of an iteration.

    Returns:
        What was raised in a Python function that the Dataset called, if anything; otherwise the
        whole message.
    """
    found = re.search(r"\b[A-Z]\w*(?:Error|Exception): (.+)", error.message)
    return found[1] if found else error.message
