"""(seed, step) to uniform numbers: the one place where random bits are drawn.

Every draw is a pure function of a seed, a stream (what the numbers are for) and a step, so a run
that stops and goes on uses the numbers that it would have used, and no two uses share any.
"""

import enum

import tensorflow as tf

__all__ = ["Stream", "permutation", "uniforms"]


class Stream(enum.IntEnum):
    """What random numbers are for; numbers of different streams are independent."""

    UPDATE = 0
    ORDER = 1
    TEST = 2
    SAMPLE = 3
    START = 4
    METRIC = 5
    ANNEAL = 6
    REVERSE = 7
    RAISE = 8
    RECOGNITION = 9
    BINARIZE = 10
    BINARIZE_TEST = 11
    BINARIZE_GAP = 12
    SWAP = 13
    BLOCKS = 14
    POOL = 15
    DOWN = 18
    WAKE = 19
    SLEEP = 20


def _key(seed, step, stream):
    """Returns the two integers that the generator is keyed with, an int64 tensor of shape (2,)."""
    step = tf.cast(step, tf.int64)
    return tf.stack([tf.cast(seed, tf.int64), step + (int(stream) << 48)])


def uniforms(shape, seed, step=0, stream=Stream.UPDATE):
    """Draws uniform numbers strictly inside (0, 1).

    The numbers are `((bits >> 9) + 0.5) * 2**-23` of 32 random bits each, so the smallest is
    2**-24 and the largest 1 - 2**-24: neither the logarithm of `u` nor that of `1 - u` is
    infinite, and a unit of probability 0 is never on. The bits, hence the numbers, are the same
    with and without XLA.

    Args:
        shape: Shape of the result, a tuple.
        seed: Integer, or scalar integer tensor.
        step: Integer or scalar integer tensor in [0, 2**48): which draw of the stream.
        stream: A `Stream`: what the numbers are for.

    Returns:
        float32 tensor of shape `shape`.

    Example:

    >>> bool(tf.reduce_all(uniforms((3,), seed=1) == uniforms((3,), seed=1)))
    True
    """
    # Philox makes four numbers at a time: XLA's code for rows of another length than a multiple of
    # that is four times slower on a CPU.
    width = shape[-1:]  # Nothing, of a scalar.
    whole = (*shape[:-1], *(-(-n // 4) * 4 for n in width))
    # One Philox draw of integers: XLA's default generator is some thirty times slower on a CPU,
    # and its floats differ from those that TensorFlow makes of the same bits.
    bits = tf.random.stateless_uniform(
        whole, _key(seed, step, stream), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )[(..., *map(slice, width))]
    # Through int32: conversion from unsigned is slow on a CPU, and 23 bits have no sign.
    bits = tf.bitcast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    return (tf.cast(bits, tf.float32) + 0.5) * 2.0**-23


def permutation(count, seed, step=0, stream=Stream.ORDER):
    """Draws a permutation of `range(count)`.

    Args:
        count: Integer: how many.
        seed: Integer, or scalar integer tensor.
        step: Integer or scalar integer tensor: which permutation of the stream (an epoch).
        stream: A `Stream`: what the permutation is for.

    Returns:
        int64 tensor of shape `(count,)`.
    """
    order = tf.range(count, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(order, _key(seed, step, stream))
