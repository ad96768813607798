"""Markov kernels as pure functions of (layer, state, noise), and the states they carry.

Noise is handed in, never drawn inside a kernel: an update draws all its uniform numbers at once
(`gibbs_noise`), long chains draw theirs step by step from (seed, step).
"""

from typing import NamedTuple

import tensorflow as tf

from dbn import checks
from dbn import noise as noise_module

__all__ = [
    "Samples",
    "StackSamples",
    "bring_down",
    "chain",
    "descend",
    "gibbs_hvh",
    "gibbs_noise",
    "gibbs_vhv",
    "noise_states",
    "repeat",
    "sample",
]

# Unrolled, 15 steps compile in about 3 s and run some 10 % faster than a loop; a loop compiles in
# constant time.
_UNROLLED_STEPS = 32


class Samples(NamedTuple):
    """Visible states of Gibbs chains.

    Attributes:
        mean: Means of the visible units given the last hidden sample, `(chains, visible)`: what
            one draws.
        sample: Samples of the visible units, `(chains, visible)`: what a chain goes on from.
        steps: How many steps the chains have made, an integer: chains that go on use the noise
            of the steps that follow.
    """

    mean: tf.Tensor
    sample: tf.Tensor
    steps: int


class StackSamples(NamedTuple):
    """What Gibbs chains in the top RBM of a stack become at its bottom.

    Attributes:
        mean: Means of the visible units of the bottom layer given the samples of the layer above,
            `(chains, visible)`: what one draws.
        sample: Samples of them, `(chains, visible)`.
        top: The chains, the `Samples` of the top RBM: what goes on, and, in a stack with labels,
            where those are.
    """

    mean: tf.Tensor
    sample: tf.Tensor
    top: Samples


def gibbs_noise(layer, chains, k, seed, step):
    """Draws the uniform numbers of one update: k Gibbs steps of all chains.

    Args:
        layer: An `RBMLayer`.
        chains: Number of chains, integer or scalar tensor.
        k: Number of Gibbs steps.
        seed: Integer.
        step: Integer or scalar tensor: number of the update.

    Returns:
        float32 tensor of shape `(k, chains, uniforms of visible + of hidden units)`.
    """
    return noise_module.uniforms((k, chains, sum(layer.uniforms_per_step)), seed, step)


def _check_noise(layer, states, noise, k):
    k = checks.integer(k, "k")
    # Noise for one chain would pass unnoticed otherwise: it would serve all of them.
    needed = (k, states.shape[0], sum(layer.uniforms_per_step))
    if not tf.TensorShape(noise.shape).is_compatible_with(needed):
        raise ValueError(
            f"`noise` must have shape {needed}, (k, chains, uniforms a step); got "
            f"{tuple(noise.shape)}."
        )


def repeat(step, state, noise, k):
    """Applies `state = step(state, noise[i])` k times.

    Args:
        step: Function of a state, a tensor or a tuple of them, and of the numbers of one step.
        state: The first state.
        noise: Tensor, or tuple of tensors, of length k.
        k: Number of steps, an integer >= 1.

    Returns:
        The last state.
    """

    def at(i):
        return tf.nest.map_structure(lambda part: part[i], noise)

    if k <= _UNROLLED_STEPS:
        for i in range(k):
            state = step(state, at(i))
        return state
    _, state = tf.while_loop(
        lambda i, _: i < k,
        lambda i, state: (i + 1, step(state, at(i))),
        # One step outside the loop gives the state its full structure.
        (tf.constant(1), step(state, at(0))),
    )
    return state


def gibbs_hvh(layer, h, noise, k):
    """Makes k Gibbs steps from hidden states.

    Args:
        layer: An `RBMLayer`.
        h: Hidden states, `(chains, hidden)`.
        noise: Uniform numbers, `(k, chains, sum(layer.uniforms_per_step))`.
        k: Number of steps, an integer >= 1.

    Returns:
        The visible and the hidden states after k steps.

    Raises:
        ValueError: If k < 1, or the noise is not for k steps of that many chains.
    """
    _check_noise(layer, h, noise, k)

    def step(state, uniforms):
        _, _, v, _, _, h = layer.gibbs_hvh(state[-1], uniforms)
        return v, h

    return repeat(step, (h,), noise, k)


def gibbs_vhv(layer, v, noise, k):
    """Makes k Gibbs steps from visible states.

    Args:
        layer: An `RBMLayer`.
        v: Visible states, `(chains, visible)`.
        noise: Uniform numbers, `(k, chains, sum(layer.uniforms_per_step))`.
        k: Number of steps, an integer >= 1.

    Returns:
        The visible states after k steps.

    Raises:
        ValueError: If k < 1, or the noise is not for k steps of that many chains.
    """
    _check_noise(layer, v, noise, k)
    return repeat(lambda v, uniforms: layer.gibbs_vhv(v, uniforms)[-1], v, noise, k)


def chain(layer, start, mask, first, last, seed):
    """Runs Gibbs chains over the visible units, as `sample` does, in graphs for any number of them.

    Args:
        layer: An `RBMLayer`.
        start: Visible states, `(chains, visible)`.
        mask: Boolean tensor of that shape: True units keep the value that they have in `start`.
        first: Number of the first step, a scalar int64 tensor.
        last: Number of the step after the last, likewise.
        seed: Seed, likewise.

    Returns:
        The means and the samples of the visible units in the end, each `(chains, visible)`.
    """

    def step(i, _, v):
        uniforms = noise_module.uniforms(
            (tf.shape(v)[0], sum(layer.uniforms_per_step)), seed, i, noise_module.Stream.SAMPLE
        )
        _, _, _, _, mean, v = layer.gibbs_vhv(v, uniforms)
        return i + 1, tf.where(mask, start, mean), tf.where(mask, start, v)

    _, mean, v = tf.while_loop(lambda i, *_: i < last, step, (first, start, start))
    return mean, v


@tf.function(reduce_retracing=True)
def _sample(layer, start, chains, mask, first, last, seed):
    start = tf.ensure_shape(start, (chains, layer.W.shape[0]))

    def body(i, _, v, uniforms):
        # The noise of the next step does not wait for this one.
        following = _draw(layer, chains, seed, i + 1)
        return i + 1, *_step(layer, v, uniforms, start, mask), following

    _, mean, v, _ = tf.while_loop(
        lambda i, *_: i < last, body, (first, start, start, _draw(layer, chains, seed, first))
    )
    return mean, v


@tf.function(jit_compile=True)
def _draw(layer, chains, seed, step):
    shape = (chains, sum(layer.uniforms_per_step))
    return noise_module.uniforms(shape, seed, step, noise_module.Stream.SAMPLE)


@tf.function(jit_compile=True)
def _step(layer, v, uniforms, start, mask):
    _, _, _, _, mean, v = layer.gibbs_vhv(v, uniforms)
    return tf.where(mask, start, mean), tf.where(mask, start, v)


def noise_states(layer, chains, seed):
    """Draws states of visible units without bias, `(chains, visible)`: of bits, fair coins.

    Args:
        layer: An `RBMLayer`.
        chains: Number of chains, integer or scalar tensor.
        seed: Integer, or scalar integer tensor.

    Returns:
        Visible states, `(chains, visible)`.
    """
    shape = (chains, layer.uniforms_per_step[0])
    u = noise_module.uniforms(shape, seed, stream=noise_module.Stream.START)
    return layer.visible.sample(tf.zeros((chains, layer.W.shape[0]), layer.variable_dtype), u)


def sample(layer, start, steps, seed, clamp=None):
    """Runs Gibbs chains over the visible units.

    With `clamp`, the chains sample the free units given the clamped ones: each step draws h given
    all of v, then the free part of v given h, which leaves p(v_free, h | v_clamped) invariant.

    Args:
        layer: An `RBMLayer`.
        start: Visible states to start from, `(chains, visible)`, or the `Samples` to go on with.
        steps: Number of Gibbs steps, an integer >= 1.
        seed: Integer. Step t of the chains uses the noise of (seed, t).
        clamp: Optional boolean mask, `(visible,)` or `(chains, visible)`: True units keep their
            value.

    Returns:
        `Samples`.
    """
    steps = checks.integer(steps, "steps")
    done = 0
    if isinstance(start, Samples):
        start, done = start.sample, start.steps
    start = tf.cast(start, layer.variable_dtype)
    mask = tf.broadcast_to(False if clamp is None else tf.convert_to_tensor(clamp), start.shape)
    count = tf.constant([done, done + steps, seed], tf.int64)
    mean, v = _sample(layer, start, len(start), mask, count[0], count[1], count[2])
    return Samples(mean, v, done + steps)


def descend(layers, start, uniforms, weights=None):
    """Goes down a stack, each layer sampled given the one above.

    Args:
        layers: The `RBMLayer`s of the stack below its top RBM, bottom first.
        start: Hidden states of the last of them, `(chains, hidden)`.
        uniforms: Uniform numbers, `(chains, sum(layer.uniforms_per_step[0] for layer in layers))`:
            those of the bottom layer first.
        weights: One matrix a layer to go down by, where those are not the layers' own.

    Returns:
        The means and the samples of the visible units of each layer, two lists, bottom first.
    """
    each = tf.split(uniforms, [layer.uniforms_per_step[0] for layer in layers], axis=-1)
    weights = [None] * len(layers) if weights is None else weights
    means, samples = [], []
    for layer, u, W in reversed([*zip(layers, each, weights, strict=True)]):
        _, mean, start = layer.sample_v_given_h(start, u, W)
        means.insert(0, mean)
        samples.insert(0, start)
    return means, samples


def bring_down(layers, top, seed, weights=None):
    """Returns what chains in the top RBM of a stack become at its bottom.

    Args:
        layers: The `RBMLayer`s of the stack below its top RBM, bottom first; there may be none.
        top: The chains, `Samples`. Visible units of the top RBM beside those of the layer below,
            for labels, come after them.
        seed: Integer. Chains that have made t steps go down by the noise of (seed, t).
        weights: As for `descend`.

    Returns:
        `StackSamples`.
    """
    if not layers:
        return StackSamples(top.mean, top.sample, top)
    needed = sum(layer.uniforms_per_step[0] for layer in layers)
    shape = tf.shape(top.sample)[0], needed
    uniforms = noise_module.uniforms(shape, seed, top.steps, noise_module.Stream.DOWN)
    means, samples = descend(layers, top.sample[:, : layers[-1].units], uniforms, weights)
    return StackSamples(means[0], samples[0], top)
