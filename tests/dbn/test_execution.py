import keras
import numpy as np
import pytest
import tensorflow as tf

from dbn import execution

MODES = {
    "eager": lambda f: f,
    "graph": tf.function,
    "xla": lambda f: tf.function(f, jit_compile=True),
}


@pytest.mark.parametrize("mode", MODES)
def test_snapshot_is_not_changed_by_updates_and_restores_the_bits(mode):
    start = np.random.default_rng(0).normal(size=(300, 400)).astype("float32")
    matrix = keras.Variable(start)
    counter = keras.Variable(5, dtype="int64", trainable=False)

    def update(x):
        matrix.assign_sub(0.5 * matrix.value * x)
        matrix.assign(matrix.value + 1.0)
        counter.assign_add(1)

    update = MODES[mode](update)
    for times in (1, 3):  # The second time over values that compiled code has written.
        before = [np.array(matrix.value), int(counter.value)]
        snapshot = execution.Snapshot([matrix, counter])
        for _ in range(times):
            update(tf.constant(0.3))
        assert np.abs(np.array(matrix.value) - before[0]).min() > 0
        assert int(counter.value) == before[1] + times
        snapshot.restore()
        np.testing.assert_array_equal(np.array(matrix.value), before[0])
        assert int(counter.value) == before[1]
        # What was restored is a copy again: the snapshot can be gone back to twice.
        update(tf.constant(0.3))
        snapshot.restore()
        np.testing.assert_array_equal(np.array(matrix.value), before[0])
        update(tf.constant(0.3))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_loop_uses_as_many_elements_as_it_may_and_ends_with_them(mode):
    seen = tf.Variable(tf.zeros(7, tf.int64))

    def run(iterator, steps):
        def step(element):
            seen.assign(tf.concat([seen[1:], [element]], 0))
            return element != 4

        return execution.loop(step, iterator, steps)

    run = MODES[mode](run)
    iterator = iter(tf.data.Dataset.range(1, 8))
    found = [tuple(np.array(part) for part in run(iterator, tf.constant(3, tf.int64)))]
    assert list(seen.numpy()) == [0, 0, 0, 0, 1, 2, 3]  # And not one element more was taken.
    for steps in (3, 3, 3):
        found.append(tuple(np.array(part) for part in run(iterator, tf.constant(steps, tf.int64))))
    assert found == [(3, True), (3, False), (1, True), (0, True)]
    assert list(seen.numpy()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_loop_prepares_every_element_with_its_number_and_no_other(mode):
    used, prepared = tf.Variable(tf.zeros((0,), tf.int64), shape=[None]), []

    def run(iterator, steps):
        def prepare(element, number):
            tf.py_function(
                lambda *pair: prepared.append([int(i) for i in pair]), [element, number], []
            )
            return 10 * element, number

        def step(inputs):
            used.assign(tf.concat([used, [inputs[0] + inputs[1]]], 0))
            return tf.constant(True)

        return execution.loop(step, iterator, steps, prepare)

    run = MODES[mode](run)
    iterator = iter(tf.data.Dataset.range(1, 6))
    for steps, done in ((3, 3), (9, 2), (9, 0)):
        assert int(run(iterator, tf.constant(steps, tf.int64))[0]) == done
    assert list(used.numpy()) == [10, 21, 32, 40, 51]
    # What records them has no output that a step waits for, so two records may change places.
    assert sorted(prepared) == [[1, 0], [2, 1], [3, 2], [4, 0], [5, 1]]


def test_skip_passes_over_elements_and_ends_with_them():
    iterator = iter(tf.data.Dataset.range(7))
    for count, following in ((0, 0), (2, 3), (1, 5), (9, None)):
        execution.skip(iterator, tf.constant(count, tf.int64))
        assert next(iterator, None) == following


@pytest.mark.parametrize(
    ("seconds_a_step", "seconds_a_call", "expected"),
    [
        (0.001, 0.0, 200),
        (0.003, 0.0, 66),
        (1e-6, 0.0, 200_000),
        (0.15, 0.0, 1),
        (3.0, 0.0, 1),
        (0.001, 0.02, 123),  # 32 steps were measured, which took 0.032 + 0.02 s.
    ],
)
def test_find_steps_fills_a_fifth_of_a_second(
    monkeypatch, seconds_a_step, seconds_a_call, expected
):
    now, calls = 0.0, []

    def run(steps):
        nonlocal now
        now += seconds_a_step * steps + seconds_a_call + (0 if calls else 10.0)  # It compiles once.
        calls.append(steps)

    monkeypatch.setattr(execution.time, "perf_counter", lambda: now)
    assert execution.find_steps(run) == pytest.approx(expected, abs=1)
    assert sum(calls[1:]) * seconds_a_step <= max(0.2, 2 * seconds_a_step + 0.01)
