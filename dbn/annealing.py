"""Annealed importance sampling, upwards and downwards: estimates of log Z and of log p(v).

Both runs lead through the same distributions, from independent visible units at beta = 0 to the RBM
at beta = 1 (Salakhutdinov & Murray 2008, section 4.1):

    log f(v; beta) = v . (base + beta (vbias - base)) - visible.energy(v)
                     + hidden.cumulant(beta (hbias + v W))

At beta = 0 all units are independent, so log Z is known there. A Gibbs step at beta, reversible
with respect to f(.; beta), leads from one to the next.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dbn import checks, noise

__all__ = [
    "LogPartition",
    "annealed_importance_sampling",
    "check_arguments",
    "inverse_temperatures",
    "raise_log_likelihood",
    "reverse_annealed_importance_sampling",
]

_FEWEST_EFFECTIVE = 30
_95_PERCENT = 1.959964
_CHAINS_AT_ONCE = 512


class LogPartition(NamedTuple):
    """The log partition function log Z of an RBM, in nats.

    Attributes:
        value: log Z, or its estimate.
        standard_error: Standard error of `value`: the relative one of the estimate of Z; 0 if
            exact.
        low: Lower end of a 95 % interval.
        high: Upper end of it.
        effective_sample_size: (sum w)^2 / sum w^2 of the importance weights w: how many equal
            weights would tell as much. Infinite if exact.
    """

    value: float
    standard_error: float
    low: float
    high: float
    effective_sample_size: float

    @classmethod
    def exact(cls, value):
        """Returns a log Z that is known."""
        return cls(float(value), 0.0, float(value), float(value), math.inf)

    @classmethod
    def from_log_weights(cls, log_weights, sign=1):
        """Returns the estimate from importance weights, a float64 array in nats.

        Args:
            log_weights: Logs of unbiased estimates of Z, or of 1 / Z.
            sign: 1 if they are of Z, -1 if of 1 / Z.
        """
        top = np.max(log_weights)
        weights = np.exp(log_weights - top)
        count, mean = len(weights), np.mean(weights)
        value = sign * (top + np.log(mean))
        error = np.std(weights, ddof=1) / (np.sqrt(count) * mean) if count > 1 else math.inf
        size = np.sum(weights) ** 2 / np.sum(weights**2)
        half = _95_PERCENT * error
        return cls(
            float(value), float(error), float(value - half), float(value + half), float(size)
        )


def inverse_temperatures(temperatures, schedule="linear"):
    """Makes the inverse temperatures beta of an annealing run.

    Args:
        temperatures: How many, both ends included, an integer >= 2; or an array of them, which
            must rise from 0 to 1.
        schedule: `"linear"`; `"sigmoid"`, denser at both ends (Grosse, Maddison & Salakhutdinov
            2013); or `"piecewise"`, denser toward 1: 500 / 4000 / 10000 of each 14500 up to 0.5,
            0.9 and 1 (Salakhutdinov & Murray 2008).

    Returns:
        float64 array, 0 first and 1 last.

    Raises:
        ValueError: For fewer than 2 temperatures, an unknown schedule, or an array that does not
            rise from 0 to 1.

    Example:

    >>> [float(beta) for beta in inverse_temperatures(5)]
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if np.ndim(temperatures) == 1:
        betas = np.asarray(temperatures, np.float64)
        if len(betas) < 2 or (betas[0], betas[-1]) != (0, 1) or not np.all(np.diff(betas) > 0):
            raise ValueError(
                f"An array as `temperatures` must rise from 0 to 1; got {temperatures!r}."
            )
        return betas
    along = np.linspace(0.0, 1.0, checks.integer(temperatures, "temperatures", least=2))
    if schedule == "linear":
        return along
    if schedule == "sigmoid":
        betas = 1 / (1 + np.exp(-4.0 * (2 * along - 1)))
        return (betas - betas[0]) / (betas[-1] - betas[0])
    if schedule == "piecewise":
        return np.interp(along * 14500, [0, 500, 4500, 14500], [0, 0.5, 0.9, 1])
    raise ValueError(
        f"Unknown `schedule` {schedule!r}; known: 'linear', 'sigmoid', 'piecewise', or an array of "
        "inverse temperatures as `temperatures`."
    )


def annealed_importance_sampling(
    rbm, base_rates=None, chains=500, temperatures=3000, schedule="linear", seed=0
):
    """Estimates log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

    The estimate of Z is unbiased, so that of log Z is too low on average, and the log-likelihoods
    that follow from it are too high: see `raise_log_likelihood` for the other side.

    Args:
        rbm: An `RBMLayer`, or an `RBM`, built.
        base_rates: Means of the visible units, `(visible,)`, usually those of the training data:
            the independent units that the annealing starts from. The default is a bias of zero.
        chains: Number of chains, an integer >= 1.
        temperatures: Number of inverse temperatures, or an array of them: see
            `inverse_temperatures`.
        schedule: How they are spaced: see `inverse_temperatures`.
        seed: Integer that all random numbers come from.

    Returns:
        `LogPartition`, in nats.

    Raises:
        ValueError: If an argument is out of its range, or the layer is not built.

    Warns:
        RuntimeWarning: If the effective sample size is under 30: neither the value nor the interval
            can be trusted then. A large one does not show that every mode was found.

    Example:

    >>> layer = dbn.RBMLayer(3)
    >>> layer.build((None, 4))
    >>> found = annealed_importance_sampling(layer, chains=50, temperatures=100)
    >>> abs(found.value - dbn.likelihood.exact_log_partition(layer).value) < 0.5
    True
    """
    layer, base, chains, betas, seed = check_arguments(
        rbm, base_rates, chains, temperatures, schedule, seed
    )
    growth, stream = [], noise.Stream.ANNEAL
    for block, at in enumerate(range(0, chains, _CHAINS_AT_ONCE)):
        count, first = min(_CHAINS_AT_ONCE, chains - at), block * len(betas)
        shape = (count, layer.uniforms_per_step[0])
        u = noise.uniforms(shape, seed, first, stream)
        v = layer.visible.sample(tf.broadcast_to(base, (count, len(base))), u)
        first = tf.constant(first + 1, tf.int64)
        growth.append(_anneal(layer, v, count, base, betas, seed, first, stream).numpy())
    found = LogPartition.from_log_weights(_log_z0(layer, base) + np.concatenate(growth))
    _warn_of_few(found, chains)
    return found


def reverse_annealed_importance_sampling(
    rbm, samples, base_rates=None, temperatures=3000, schedule="linear", seed=0
):
    """Estimates log Z by annealing downwards from samples of the model.

    The estimate of 1 / Z is unbiased if the samples are exact (Grosse, Ghahramani & Adams 2015), so
    that of log Z is then too high on average and brackets it together with
    `annealed_importance_sampling`. From the ends of Markov chains it is an estimate, no bound.

    Args:
        rbm: An `RBMLayer`, or an `RBM`, built.
        samples: Visible states drawn from the model, `(chains, visible)`.
        base_rates: As for `annealed_importance_sampling`, and so are the others.
        temperatures: Number of inverse temperatures, or an array of them.
        schedule: How they are spaced.
        seed: Integer that all random numbers come from.

    Returns:
        `LogPartition`, in nats.

    Raises:
        ValueError: If an argument is out of its range, or the layer is not built.

    Warns:
        RuntimeWarning: If the effective sample size is under 30, or the samples are means.
    """
    layer, base, _, betas, seed = check_arguments(rbm, base_rates, 1, temperatures, schedule, seed)
    v = checks.states(samples, layer.visible, "samples", layer.W.shape[0])
    growth = _anneal_down(layer, v, base, betas, seed, noise.Stream.REVERSE)
    found = LogPartition.from_log_weights(-(_log_z0(layer, base) + growth), sign=-1)
    _warn_of_few(found, len(v))
    return found


def raise_log_likelihood(
    rbm, x, base_rates=None, chains=1, temperatures=3000, schedule="linear", seed=0
):
    """Estimates log p(v) of each case conservatively, by RAISE.

    Reverse AIS estimator (Burda, Grosse & Salakhutdinov 2015): annealing downwards from the cases
    themselves gives an unbiased estimate of the probability of each under the model that AIS with
    these temperatures is, so its log is a lower bound, in expectation, on the log-probability under
    that annealed model; averaged over cases of the RBM's own distribution, on that under the RBM
    too. A gap to the figure by `annealed_importance_sampling` shows that more temperatures are
    needed; agreement does not exclude a mode of the model that neither visits.

    Args:
        rbm: An `RBMLayer`, or an `RBM`, built.
        x: Cases `(cases, visible)`, values that the visible units can have: binarised, for
            Bernoulli units.
        base_rates: As for `annealed_importance_sampling`, and so are the others.
        chains: Number of chains for each case, over which the estimates of its probability are
            averaged, an integer >= 1.
        temperatures: Number of inverse temperatures, or an array of them.
        schedule: How they are spaced.
        seed: Integer that all random numbers come from.

    Returns:
        float64 array of shape `(cases,)`, in nats.

    Raises:
        ValueError: If an argument is out of its range, or the layer is not built.

    Warns:
        RuntimeWarning: If x holds grey levels: their figure is not the log of a probability.
    """
    layer, base, chains, betas, seed = check_arguments(
        rbm, base_rates, chains, temperatures, schedule, seed
    )
    x = checks.states(x, layer.visible, "x", layer.W.shape[0])
    growth = _anneal_down(layer, x, base, betas, seed, noise.Stream.RAISE, chains)
    inverse = np.logaddexp.reduce(-growth.reshape(-1, chains), axis=1) - np.log(chains)
    return inverse - layer.free_energy(x).numpy().astype(np.float64) - _log_z0(layer, base)


def check_arguments(rbm, base_rates=None, chains=500, temperatures=3000, schedule="linear", seed=0):
    """Checks the arguments of `annealed_importance_sampling`, and raises as it does.

    Returns:
        The layer, the base biases, the number of chains, the inverse temperatures and the seed.
    """
    layer = checks.density(rbm)
    betas = inverse_temperatures(temperatures, schedule)
    if base_rates is None:
        base = tf.zeros(layer.W.shape[0], layer.variable_dtype)
    else:
        rates = np.asarray(base_rates, np.float32)
        if rates.ndim != 1:
            raise ValueError(
                f"`base_rates` must have shape (visible,), one mean a unit; got {rates.shape}."
            )
        rates = checks.cases(rates[None], layer.visible, "base_rates", layer.W.shape[0])[0]
        base = layer.visible.bias_from_mean(tf.cast(rates, layer.variable_dtype))
    seed = tf.constant(checks.integer(seed, "seed", least=0), tf.int64)
    chains = checks.integer(chains, "chains")
    return layer, base, chains, tf.constant(betas, layer.variable_dtype), seed


def _log_z0(layer, base):
    """Returns log Z at beta = 0."""
    zeros = tf.zeros((1, layer.units), tf.float64)
    log_z0 = layer.visible.cumulant(tf.cast(base, tf.float64)[None]) + layer.hidden.cumulant(zeros)
    return float(log_z0[0])


def _warn_of_few(found, chains):
    if found.effective_sample_size < _FEWEST_EFFECTIVE:
        more = "chains" if chains < _FEWEST_EFFECTIVE else "temperatures"
        warnings.warn(
            f"The effective sample size of the estimate of log Z is "
            f"{found.effective_sample_size:.1f} of {chains} chains, under {_FEWEST_EFFECTIVE}: "
            f"neither the value nor its interval can be trusted. Give more {more}.",
            RuntimeWarning,
            stacklevel=3,
        )


def _anneal_down(layer, v, base, betas, seed, stream, chains=1):
    """Anneals states down to beta = 0, so many chains from each, some at a time.

    Returns:
        float64 array `(states * chains,)`.
    """
    found, total = [], len(v) * chains
    for block, at in enumerate(range(0, total, _CHAINS_AT_ONCE)):
        first = tf.constant(block * len(betas), tf.int64)
        part = tf.gather(v, tf.range(at, min(at + _CHAINS_AT_ONCE, total)) // chains)
        growth = _anneal(layer, part, len(part), base, betas, seed, first, stream)
        found.append(growth.numpy())
    return np.concatenate(found)


@tf.function(reduce_retracing=True)
def _anneal(layer, v, states, base, betas, seed, first, stream):
    """Leads states along the inverse temperatures; returns sum_k log f(v; b_k) - log f(v; b_k-1).

    Upwards, v is taken before the Gibbs step at b_k; downwards, after it.
    """
    v = tf.ensure_shape(tf.cast(v, layer.variable_dtype), (states, layer.W.shape[0]))
    steps = tf.shape(betas)[0] - 1
    shape = (states, sum(layer.uniforms_per_step))
    down = stream != noise.Stream.ANNEAL

    def draw(k):
        return _draw(shape, seed, first + tf.cast(k, tf.int64), stream)

    def body(k, v, a, growth, uniforms):
        # The noise of the next step does not wait for this one.
        following = draw(k + 1)
        upper = steps - k if down else k + 1
        v, a, step = _step(layer, v, a, base, betas[upper - 1], betas[upper], uniforms, down)
        return k + 1, v, a, growth + tf.cast(step, tf.float64), following

    growth = tf.zeros(states, tf.float64)
    _, _, _, growth, _ = tf.while_loop(
        lambda k, *_: k < steps, body, (tf.constant(0), v, layer.propup(v)[0], growth, draw(0))
    )
    return growth


@tf.function(jit_compile=True)
def _draw(shape, seed, step, stream):
    return noise.uniforms(shape, seed, step, stream)


@tf.function(jit_compile=True)
def _step(layer, v, a, base, lower, upper, uniforms, down):
    """Makes a Gibbs step at `upper`; returns v, its pre-activations, and the growth of log f."""
    u_v, u_h = tf.split(uniforms, layer.uniforms_per_step, axis=-1)

    def growth(v, a):
        linear = tf.linalg.matvec(v, tf.cast(layer.vbias, v.dtype) - base)
        hidden = layer.hidden.cumulant(upper * a) - layer.hidden.cumulant(lower * a)
        return (upper - lower) * linear + hidden

    def gibbs(v, a):
        h = layer.hidden.sample(upper * a, u_h)
        v = layer.visible.sample(upper * layer.propdown(h)[0] + (1 - upper) * base, u_v)
        return v, layer.propup(v)[0]

    if down:
        v, a = gibbs(v, a)
        return v, a, growth(v, a)
    step = growth(v, a)
    return *gibbs(v, a), step
