import numpy as np
import pytest
import tensorflow as tf

from dbn import batches, noise
from dbn.layers import Bernoulli

X = np.random.default_rng(0).random((7, 3), dtype=np.float32)


def dataset(x=X, size=3):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def listed(data):
    return [np.array(part).tolist() for part in data]


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_rows_are_the_permutation_of_seed_and_epoch_cut_into_batches(size):
    epoch = tf.Variable(0, dtype=tf.int64)
    rows = batches.rows(7, size, shuffle=True, seed=5, epoch=epoch)
    for number in (0, 1, 9):
        epoch.assign(number)
        order = noise.permutation(7, 5, number).numpy().tolist()
        assert sorted(order) == list(range(7))
        assert listed(rows) == [order[at : at + size] for at in range(0, 7, size)]
    assert len(rows) == -(-7 // size)


def test_gathered_are_the_cases_of_rows():
    epoch = tf.Variable(0, dtype=tf.int64)
    arrays = (tf.constant(X), {"class": tf.range(7)})
    for number in (0, 3):
        epoch.assign(number)
        rows = listed(batches.rows(7, 3, shuffle=True, seed=5, epoch=epoch))
        data = list(batches.gathered(arrays, 3, shuffle=True, seed=5, epoch=epoch))
        assert [np.array(y["class"]).tolist() for _, y in data] == rows
        for (x, _), row in zip(data, rows, strict=True):
            np.testing.assert_array_equal(x, X[row])


def test_slices_are_the_cases_in_order_the_last_batch_shorter():
    assert listed(batches.slices(X, 3)) == [X[:3].tolist(), X[3:6].tolist(), X[6:].tolist()]


def test_nothing_is_tuned_where_an_array_is_read():
    """The end of an iteration would wait for the tuner's thread, two seconds now and then."""
    rows = batches.rows(7, 3, shuffle=True, seed=5, epoch=tf.Variable(0, dtype=tf.int64))
    gathered = batches.gathered(tf.constant(X), 3, True, 5, tf.Variable(0, dtype=tf.int64))
    for data in (rows, batches.slices(X, 3), gathered):
        assert data.options().autotune.enabled is False


def test_rows_without_shuffling_are_in_order_whatever_the_epoch():
    rows = batches.rows(7, 3, shuffle=False, seed=5, epoch=tf.Variable(4, dtype=tf.int64))
    assert listed(rows) == [[0, 1, 2], [3, 4, 5], [6]]
    assert rows.element_spec == tf.TensorSpec((None,), tf.int64)


@pytest.mark.parametrize(
    "data",
    [
        dataset(),
        dataset(X.astype("float64")),
        tf.data.Dataset.zip((dataset(), dataset(np.arange(7)))),
        tf.data.Dataset.zip((dataset(),)),
        tf.data.Dataset.from_generator(
            lambda: (X[at : at + 3] for at in (0, 3, 6)), output_signature=tf.TensorSpec(None)
        ),
    ],
    ids=["float32", "float64", "pairs", "1-tuples", "generator of unknown shape"],
)
def test_stream_gives_the_batches_of_x_as_float32(data):
    stream, first = batches.stream(data, Bernoulli())
    assert stream.element_spec == tf.TensorSpec((None, 3), tf.float32)
    np.testing.assert_array_equal(np.concatenate(list(stream)), X)
    np.testing.assert_array_equal(first, X[:3])
    assert stream.cardinality() == data.cardinality()


def test_stream_takes_whole_numbers_as_they_are():
    bits = (X > 0.5).astype("uint8")
    stream, _ = batches.stream(dataset(bits), Bernoulli())
    np.testing.assert_array_equal(np.concatenate(list(stream)), bits)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tf.data.Dataset.from_tensor_slices(X), r"`valid` must be .*batches.*\.batch\("),
        (dataset({"a": X}), "`valid` must be a Dataset of batches"),
        (tf.data.Dataset.zip(((dataset(), dataset()), dataset())), "`valid` must be a Dataset of"),
        (tf.data.Dataset.zip((dataset(),) * 3), "`valid`.* unweighted; got tuples of 3"),
        (dataset(X[:, None]), "`valid` must be a Dataset of batches"),
        (dataset().map(tf.RaggedTensor.from_tensor), "`valid` must be a Dataset of batches"),
        (dataset(X[:0]), "`valid` is empty: the Dataset has no batch"),
        (dataset().map(lambda v: v[:0]), "first batch of valid` is empty"),
        (dataset(255 * X), r"first batch of valid` must lie in \[0, 1\].*255"),
        (dataset(X - 1), r"first batch of valid` must lie in \[0, 1\] for bernoulli units; got"),
        (dataset(np.where(X > 0.5, np.nan, X)), "first batch of valid` holds NaN"),
        (dataset().map(tf.strings.as_string), "first batch of valid` must hold numbers"),
        (dataset(X[:, :2]), r"first batch of valid` must have width 3; got shape \(3, 2\)"),
    ],
)
def test_stream_refuses_other_structures_and_a_bad_first_batch(data, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        batches.stream(data, Bernoulli(), 3, "valid")


def test_stream_stops_at_a_later_batch_of_another_width():
    parts = [X, X[:, :2]]
    data = tf.data.Dataset.from_generator(lambda: parts, output_signature=tf.TensorSpec(None))
    stream = iter(batches.stream(data, Bernoulli())[0])
    np.testing.assert_array_equal(next(stream), X)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[7,2\].*\[\?,3\]"):
        next(stream)


def test_take():
    data = tf.data.Dataset.range(5)
    assert listed(batches.take(data, 2, "steps")) == [0, 1]
    assert listed(batches.take(data, 5, "steps")) == listed(batches.take(data, None, "steps"))
    assert listed(batches.take(data.repeat(), 7, "steps")) == [0, 1, 2, 3, 4, 0, 1]
    unknown = data.filter(lambda i: i > 1)
    assert listed(batches.take(unknown, 9, "steps")) == [2, 3, 4]


@pytest.mark.parametrize(
    ("steps", "endless", "message"),
    [
        (6, False, "`steps` must be at most 5, .*; got 6"),
        (0, False, "`steps` must be an integer >= 1; got 0"),
        (2.5, True, "`steps` must be an integer >= 1; got 2.5"),
        (None, True, r"infinite \(`repeat\(\)`\): give `steps`"),
    ],
)
def test_take_refuses(steps, endless, message):
    data = tf.data.Dataset.range(5)
    with pytest.raises(ValueError, match=message):
        batches.take(data.repeat() if endless else data, steps, "steps")


def test_numbered_counts_from_0_at_each_iteration():
    numbered = batches.numbered(dataset())
    for _ in range(2):
        assert [(int(i), len(v)) for i, v in numbered] == [(0, 3), (1, 3), (2, 1)]


@pytest.mark.parametrize("count", [1, 3, 5, 7, 100])
def test_first_cases(count):
    np.testing.assert_array_equal(batches.first_cases(dataset(), count), X[:count])


def test_first_cases_reads_no_further_than_it_must():
    np.testing.assert_array_equal(batches.first_cases(dataset().repeat(), 10), np.r_[X, X[:3]])


def test_reason_is_what_a_function_of_the_users_raised():
    def generate():
        yield X
        raise KeyError("no such day")

    data = tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec((7, 3)))
    with pytest.raises(tf.errors.OpError) as caught:
        list(data)
    assert batches.reason(caught.value) == "'no such day'"
    data = tf.data.Dataset.from_generator(lambda: [X], output_signature=tf.TensorSpec(None))
    with pytest.raises(tf.errors.OpError) as caught:
        list(data.map(lambda v: tf.ensure_shape(v, (None, 2))))
    assert batches.reason(caught.value) == caught.value.message
