"""Executions: several steps between two returns to Python.

Returning to Python after each step costs more than many a step itself; never returning keeps Ctrl-C
and callbacks waiting. So steps are run in executions of about a fifth of a second.
"""

import time

import tensorflow as tf

__all__ = ["Snapshot", "find_steps", "loop", "skip"]

_SECONDS = 0.2


def loop(step, iterator, steps, prepare=lambda element, number: element):
    """Runs `step` on the elements of an iterator, in Python or inside a `tf.function`.

    Inside a `tf.function`, the next element is read and prepared while the step before it runs: on
    two cores that hides most of the reading and of the drawing of random numbers.

    Args:
        step: Function of what `prepare` returns; returns a boolean tensor.
        iterator: Iterator of a `tf.data.Dataset`.
        steps: Scalar int64 tensor >= 1: how many elements to use, at most; the loop ends with them.
        prepare: Function of an element and its number in this loop, an int64 tensor; returns the
            tensors that `step` needs. It must not read what `step` writes.

    Returns:
        How many elements were used, an int64 tensor, and whether all steps returned True.
    """

    def run(first):
        def body(done, good, _, inputs):
            done += 1
            more, following = tf.cond(
                done < steps, lambda: fetch(done, inputs), lambda: (False, inputs)
            )
            return done, good & step(inputs), more, following

        done, good, _, _ = tf.while_loop(
            lambda done, good, more, inputs: more,
            body,
            (tf.constant(0, tf.int64), tf.constant(True), True, first),
        )
        return done, good

    def fetch(number, otherwise):
        element = iterator.get_next_as_optional()
        return tf.cond(
            element.has_value(),
            lambda: (True, prepare(element.get_value(), number)),
            lambda: (False, otherwise),
        )

    first = iterator.get_next_as_optional()
    zero = tf.constant(0, tf.int64)
    return tf.cond(
        first.has_value(),
        lambda: run(prepare(first.get_value(), zero)),
        lambda: (zero, tf.constant(True)),
    )


@tf.function(reduce_retracing=True)
def skip(iterator, count):
    """Passes over elements of an iterator, which it reads all the same.

    Args:
        iterator: Iterator of a `tf.data.Dataset`.
        count: Scalar int64 tensor: how many, at most; fewer where it ends.
    """
    for _ in tf.range(count):
        iterator.get_next_as_optional()


class Snapshot:
    """The values of variables at one time, to go back to.

    Args:
        variables: Keras variables.

    Attributes:
        values: A list of pairs, a variable and its value, a tensor.
    """

    def __init__(self, variables):
        # Reading does not copy; the next assignment does.
        self.values = [(variable, variable.value.read_value()) for variable in variables]

    def restore(self):
        """Gives the variables their values back."""
        for variable, value in self.values:
            variable.value.assign(value)


def find_steps(run, agreed=lambda seconds: seconds):
    """Measures how many steps fit into one execution.

    Args:
        run: Function of a number of steps that runs so many. Its first call may compile.
        agreed: Function of what one machine measured that gives what all go by.

    Returns:
        Number of steps that take about 0.2 s, at least 1.
    """
    run(1)
    steps, seconds = 1, 0.0
    while seconds < 0.05:
        steps *= 2
        start = time.perf_counter()
        run(steps)
        seconds = agreed(time.perf_counter() - start)
    return max(1, int(_SECONDS / seconds * steps))
