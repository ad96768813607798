"""Executions: several steps between two returns to Python.

Returning to Python after each step costs more than many a step itself; never returning keeps Ctrl-C
and callbacks waiting. So steps are run in executions of about a fifth of a second.
"""

import time

import tensorflow as tf

__all__ = ["Snapshot", "find_steps", "loop"]

_SECONDS = 0.2


def loop(step, iterator, steps):
    """Runs `step` on the elements of an iterator, in Python or inside a `tf.function`.

    Args:
        step: Function of an element that returns a boolean tensor.
        iterator: Iterator of a `tf.data.Dataset`.
        steps: Scalar int64 tensor: how many elements to use, at most; the loop ends with them.

    Returns:
        How many elements were used, an int64 tensor, and whether all steps returned True.
    """

    def body(done, good, _):
        element = iterator.get_next_as_optional()
        return tf.cond(
            element.has_value(),
            lambda: (done + 1, good & step(element.get_value()), True),
            lambda: (done, good, False),
        )

    done, good, _ = tf.while_loop(
        lambda done, good, more: more & (done < steps),
        body,
        (tf.constant(0, tf.int64), tf.constant(True), tf.constant(True)),
    )
    return done, good


class Snapshot:
    """The values of variables at one time, to go back to.

    Args:
        variables: Keras variables.
    """

    def __init__(self, variables):
        # Reading does not copy; the next assignment does.
        self._values = [(variable, variable.value.read_value()) for variable in variables]

    def restore(self):
        """Gives the variables their values back."""
        for variable, value in self._values:
            variable.value.assign(value)


def find_steps(run):
    """Measures how many steps fit into one execution.

    Args:
        run: Function of a number of steps that runs so many. Its first call may compile.

    Returns:
        Number of steps that take about 0.2 s, at least 1.
    """
    run(1)
    steps, seconds = 1, 0.0
    while seconds < 0.05:
        steps *= 2
        start = time.perf_counter()
        run(steps)
        seconds = time.perf_counter() - start
    return max(1, int(_SECONDS / seconds * steps))
