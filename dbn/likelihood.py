"""How good a model is: log Z, log-likelihoods and cheaper figures, in nats."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dbn import checks, noise
from dbn.annealing import (
    LogPartition,
    annealed_importance_sampling,
    check_arguments,
    raise_log_likelihood,
    reverse_annealed_importance_sampling,
)

__all__ = [
    "LogLikelihood",
    "LogPartition",
    "annealed_importance_sampling",
    "estimate_log_partition",
    "exact_log_partition",
    "free_energy_gap",
    "has_bits",
    "log_likelihood",
    "pseudo_log_likelihood",
    "raise_log_likelihood",
    "reconstruction_cross_entropy",
    "reverse_annealed_importance_sampling",
    "variational_lower_bound",
]

_MOST_ENUMERATED = 25
_QUICKLY_ENUMERATED = 20
_STATES_AT_ONCE = 4096
_CASES_AT_ONCE = 1000


class LogLikelihood(NamedTuple):
    """Mean log-likelihood of cases, in nats per case.

    Attributes:
        mean: Mean of log p(v) over the cases.
        low: Lower end of the 95 % interval that the uncertainty of log Z leaves.
        high: Upper end of it.
        standard_error: Standard error of the mean over the cases: how far other cases of the same
            origin would have another mean, were log Z known.
        log_partition: The `LogPartition` that was used.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    log_partition: LogPartition


def exact_log_partition(rbm):
    """Computes log Z by enumeration of the side with fewer units, in float64.

    Args:
        rbm: An `RBMLayer`, or an `RBM`, built, with at most 2^25 states of one side: 25 Bernoulli
            or spin units, or 12 variables of 4 values. The time grows with the states; 2^20
            (20 Bernoulli units) beside 784 units take some seconds on 2 cores.

    Returns:
        `LogPartition`, with an error of 0, in nats.

    Raises:
        ValueError: If the layer is too large, or not built.

    Example:

    >>> layer = dbn.RBMLayer(3, kernel_initializer="zeros")
    >>> layer.build((None, 4))
    >>> print(round(exact_log_partition(layer).value / np.log(2), 6))
    7.0
    """
    layer = checks.density(rbm)
    # Weights rounded as under a mixed policy the layer rounds them before it multiplies.
    W = tf.cast(tf.cast(layer.W, layer.compute_dtype), tf.float64)
    vbias, hbias = (tf.cast(x, tf.float64) for x in (layer.vbias, layer.hbias))
    sides = [(layer.hidden, hbias, layer.visible, vbias, tf.transpose(W))]
    sides.append((layer.visible, vbias, layer.hidden, hbias, W))
    smallest = min(sides, key=lambda side: side[0].count(len(side[1])))
    if smallest[0].count(len(smallest[1])) > 2**_MOST_ENUMERATED:
        raise ValueError(
            f"The RBM is too large to enumerate: it has {len(vbias)} {layer.visible.name} visible "
            f"and {len(hbias)} {layer.hidden.name} hidden units, and one side must have at most "
            f"2^{_MOST_ENUMERATED} states, as {_MOST_ENUMERATED} Bernoulli units have. Use "
            "`annealed_importance_sampling`."
        )
    return LogPartition.exact(_enumerate(*smallest))


@tf.function
def _enumerate(units, bias, others, others_bias, W):
    """Returns the log of the sum of exp(-F(x)) over all states x of a side, F the free energy."""
    count = tf.constant(units.count(len(bias)), tf.int64)

    def body(at, total):
        x = units.states(tf.range(at, tf.minimum(at + _STATES_AT_ONCE, count)), len(bias))
        logs = tf.linalg.matvec(x, bias) - units.energy(x)
        logs += others.cumulant(tf.matmul(x, W) + others_bias)
        block = tf.reduce_logsumexp(logs)
        return at + _STATES_AT_ONCE, tf.reduce_logsumexp(tf.stack([total, block]))

    start = tf.constant(0, tf.int64), tf.constant(-np.inf, tf.float64)
    return tf.while_loop(lambda at, _: at < count, body, start)[1]


def estimate_log_partition(rbm, base_rates=None, **annealing):
    """Computes log Z exactly where a side has at most 2^20 states, otherwise estimates it.

    Args:
        rbm: An `RBMLayer`, or an `RBM`, built.
        base_rates: Means of the visible units for `annealed_importance_sampling`.
        **annealing: Its other arguments.

    Returns:
        `LogPartition`, in nats.

    Raises:
        ValueError: As `annealed_importance_sampling` does.
    """
    layer, *_ = check_arguments(rbm, base_rates, **annealing)
    sides = ((layer.visible, layer.W.shape[0]), (layer.hidden, layer.units))
    if min(units.count(n) for units, n in sides) <= 2**_QUICKLY_ENUMERATED:
        return exact_log_partition(layer)
    return annealed_importance_sampling(layer, base_rates, **annealing)


def log_likelihood(rbm, x, log_partition=None):
    """Computes the mean log-likelihood of cases, -F(v) - log Z.

    Args:
        rbm: An `RBMLayer`, or an `RBM`, built.
        x: Cases `(cases, visible)`, values that the visible units can have: binarised, for
            Bernoulli units. The figure depends on how grey levels were binarised.
        log_partition: A `LogPartition`, of this RBM as it is now. The default is that of
            `estimate_log_partition` from the means of x.

    Returns:
        `LogLikelihood`, in nats per case.

    Raises:
        ValueError: If x has another width or range, or the layer is not built.

    Warns:
        RuntimeWarning: If x holds grey levels: their figure is not the log of a probability.

    Example:

    >>> layer = dbn.RBMLayer(3, kernel_initializer="zeros")
    >>> layer.build((None, 4))
    >>> print(round(log_likelihood(layer, np.ones((2, 4))).mean / np.log(2), 5))
    -4.0
    """
    layer = checks.density(rbm)
    x = checks.states(x, layer.visible, "x", layer.W.shape[0])
    if log_partition is None:
        log_partition = estimate_log_partition(layer, tf.reduce_mean(x, axis=0))
    parts = range(0, len(x), _CASES_AT_ONCE)
    free = np.concatenate([layer.free_energy(x[at : at + _CASES_AT_ONCE]) for at in parts])
    return _mean_log_likelihood(-free.astype(np.float64), log_partition)


def _mean_log_likelihood(logs, log_partition):
    """Returns the `LogLikelihood` of cases with these log-likelihoods plus log Z, float64."""
    mean, count = np.mean(logs), len(logs)
    error = np.std(logs, ddof=1) / np.sqrt(count) if count > 1 else np.inf
    return LogLikelihood(
        float(mean - log_partition.value),
        float(mean - log_partition.high),
        float(mean - log_partition.low),
        float(error),
        log_partition,
    )


def variational_lower_bound(stack, x, log_partition=None, samples=10, seed=0):
    """Bounds the mean log-likelihood of cases under a DBN from below.

    With Q the product of the layers' upward conditionals (Salakhutdinov & Murray 2008, section 5),

        log p(v) >= E_Q[sum_l log p(h_l-1 | h_l) + H(Q(h_l | h_l-1)) - F_top(h)] - log Z_top,

    the sum over all layers but the top one, h_0 = v and h the visible units of the top RBM. The
    expectation is taken over samples; for a stack of one RBM it is log p(v) itself.

    Args:
        stack: A pretrained `DBN`.
        x: Cases `(cases, visible)`; binary for Bernoulli units.
        log_partition: A `LogPartition` of the top RBM. The default is that of
            `estimate_log_partition` from the means of what x gives there.
        samples: Samples of Q for each case, an integer >= 1.
        seed: Integer that they come from.

    Returns:
        `LogLikelihood` of the bound, in nats per case; its interval is that of log Z. Where
        annealed importance sampling underestimates log Z, the figure is too high, and no bound.

    Raises:
        ValueError: If a layer has not been pretrained, or x has another width or range.

    Warns:
        RuntimeWarning: If x holds grey levels: their figure is not the log of a probability.
    """
    if not hasattr(stack, "rbms"):
        raise ValueError(f"`stack` must be a DBN; got {stack!r}.")
    for number, rbm in enumerate(stack.rbms):
        if not rbm.built or not int(rbm.epochs):
            raise ValueError(
                f"Layer {number + 1} of the stack has not been pretrained: `pretrain`."
            )
    layers = [checks.density(rbm) for rbm in stack.rbms]
    x = checks.states(x, layers[0].visible, "x", layers[0].W.shape[0])
    samples, seed = checks.integer(samples, "samples"), checks.integer(seed, "seed", least=0)
    if log_partition is None:
        means = x
        for layer in layers[:-1]:
            means = layer.propup(means)[1]
        log_partition = estimate_log_partition(layers[-1], tf.reduce_mean(means, axis=0))
    bounds = np.zeros(len(x))
    for block, at in enumerate(range(0, len(x), _CASES_AT_ONCE)):
        part = slice(at, at + _CASES_AT_ONCE)
        for number in range(samples):
            step = block * samples + number
            bounds[part] += _bound_by_sample(layers, x[part], seed, step).numpy() / samples
    return _mean_log_likelihood(bounds, log_partition)


def _bound_by_sample(layers, v, seed, step):
    """Returns the variational bound of each case plus log Z of the top, by one sample of Q."""
    total = tf.zeros(len(v), layers[0].variable_dtype)
    for number, layer in enumerate(layers[:-1]):
        draw = step * len(layers) + number
        shape = (len(v), layer.uniforms_per_step[1])
        u = noise.uniforms(shape, seed, draw, noise.Stream.RECOGNITION)
        pre_activation, _, h = layer.sample_h_given_v(v, u)
        total -= layer.hidden.log_prob(h, pre_activation)
        v = tf.cast(v, layer.variable_dtype)
        total += layer.visible.log_prob(v, layer.propdown(h)[0])
        v = h
    return total - layers[-1].free_energy(v)


def has_bits(layer):
    """Returns whether an `RBMLayer` has a pseudo-likelihood: a density of bits to be flipped."""
    return layer.visible.two_valued and layer.hidden.exact


def pseudo_log_likelihood(layer, v, bit=None):
    """Computes the log pseudo-likelihood of each case, or estimates it from one of its bits.

    With x the rounded v and x' the same with bit i flipped, log p(x_i | x without x_i) is
    log sigmoid(F(x') - F(x)). Its sum over all bits is the log pseudo-likelihood (Besag 1975), at
    the cost of `visible` free energies. For one drawn bit, visible times it estimates that without
    bias, as in the tutorial (`get_pseudo_likelihood_cost`).

    Args:
        layer: An `RBMLayer` with Bernoulli or spin visible units.
        v: Tensor of shape `(cases, visible)`; rounded to the nearer of the two values.
        bit: Which bit to flip: an integer tensor, scalar (the same bit for all cases) or
            `(cases,)`, values in [0, visible). The default is each in turn: the exact figure.

    Returns:
        Tensor of shape `(cases,)`, nats per case, at most 0.

    Raises:
        ValueError: If the visible units are neither Bernoulli nor spin units, or the hidden ones
            are noisy rectified ones, which have no density.

    Example:

    >>> layer = dbn.RBMLayer(3, kernel_initializer="zeros")
    >>> layer.build((None, 4))
    >>> print(np.round(pseudo_log_likelihood(layer, np.ones((2, 4))) / np.log(2), 5))
    [-4. -4.]
    """
    units = layer.visible
    if not has_bits(layer):
        raise ValueError(
            "The pseudo-likelihood flips bits of a density: it needs Bernoulli or spin visible "
            f"units, and no 'relu' hidden ones; got {units.name!r} and {layer.hidden.name!r}."
        )
    upper = tf.cast(v, layer.variable_dtype) > (units.low + units.high) / 2
    x = units.low + (units.high - units.low) * tf.cast(upper, layer.variable_dtype)
    before = layer.propup(x)[0]
    cumulant = layer.hidden.cumulant(before)

    def log_conditional(bit):
        change = units.low + units.high - 2.0 * tf.gather(x, bit, axis=1, batch_dims=1)
        # A flipped bit changes the pre-activation by one row of W: no second product with W.
        after = before + change[:, None] * tf.gather(tf.cast(layer.W, x.dtype), bit)
        growth = layer.hidden.cumulant(after) - cumulant
        return -tf.nn.softplus(growth + change * tf.gather(tf.cast(layer.vbias, x.dtype), bit))

    def broadcast(bit):
        return tf.broadcast_to(bit, tf.shape(x)[:1])

    width = x.shape[1]
    if bit is not None:
        return float(width) * log_conditional(broadcast(bit))
    _, total = tf.while_loop(
        lambda bit, _: bit < width,
        lambda bit, total: (bit + 1, total + log_conditional(broadcast(bit))),
        (tf.constant(0), tf.zeros_like(cumulant)),
    )
    return total


def reconstruction_cross_entropy(layer, v, uniforms):
    """Computes the cross entropy between each case and its reconstruction by one Gibbs step.

    -log p(v | h) with h drawn from p(h | v): what the tutorial's `get_reconstruction_cost` monitors
    in CD-1, with the opposite sign. For Bernoulli units the sum over visible units of
    -v log p - (1 - v) log(1 - p), taken from pre-activations, so large weights stay finite.

    Args:
        layer: An `RBMLayer`.
        v: Tensor of shape `(cases, visible)`.
        uniforms: Uniform numbers of the hidden units, `(cases, layer.uniforms_per_step[1])`.

    Returns:
        Tensor of shape `(cases,)`, nats per case.
    """
    _, _, h = layer.sample_h_given_v(v, uniforms)
    pre_activation, _ = layer.propdown(h)
    return -layer.visible.log_prob(tf.cast(v, pre_activation.dtype), pre_activation)


def free_energy_gap(layer, train, valid):
    """Computes how much higher the mean free energy of held-out cases is than of training cases.

    log Z cancels, so this is mean log p(train) - mean log p(valid): near 0 without overfitting, and
    growing with it (Hinton 2010, section 6). Compare equally many cases, the same ones each time.

    Args:
        layer: An `RBMLayer`.
        train: Training cases, `(cases, visible)`.
        valid: Held-out cases, `(cases, visible)`.

    Returns:
        Scalar tensor, nats per case.
    """
    return tf.reduce_mean(layer.free_energy(valid)) - tf.reduce_mean(layer.free_energy(train))
