"""Negative phases: where the samples of the model come from whose free energy an update raises.

One object each; `RBM(layer, negative=...)` takes any of them, and `RBM(layer, k, persistent,
chains)` is short for `CD(k)` and `PCD(k, chains)`. Every one leaves the distribution of the RBM (of
the RBM with its fast weights, for `FastPCD`) invariant, but for `CD` that ends in means.

An update asks for noise (`draw`), hands it in with the chains' states (`end`), and gives back what
is to be kept (`keep`). So the chains can be shared out among replicas in between: noise and states
have an axis of their own for them.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from dbn import annealing, checks, noise, sampling
from dbn.parts import Part

__all__ = ["CD", "PCD", "End", "FastPCD", "NegativePhase", "ParallelTempering"]


class End(NamedTuple):
    """Where the chains of an update end.

    Attributes:
        v: Visible states that stand for the model, `(chains, visible)`.
        chain: Hidden states to go on from in the next update, a tensor; None where it begins anew.
        counts: Tensors to be summed over replicas, a tuple.
    """

    v: tf.Tensor
    chain: tf.Tensor | None = None
    counts: tuple = ()


class NegativePhase(Part):
    """Base class of the negative phases.

    Args:
        k: Number of Gibbs steps an update, an integer >= 1.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Attributes:
        k: The same.
        chains: Number of persistent chains, None where there are none.
        chain: Hidden states of the persistent chains, a weight, or None.
        chain_axis: Which of its axes is that of the chains; of the noise it is the next one.
        learns: Whether `learn` wants the gradients.
    """

    argument = "negative"
    chains = None
    chain = None
    chain_axis = 0
    learns = False

    def __init__(self, k=1, **kwargs):
        super().__init__(**kwargs)
        self.k = checks.integer(k, "k")

    def build(self, shape):
        """Creates the state, for weights of the shape `(visible, hidden)`: none here."""

    def hidden_states(self):
        """Returns the hidden states of the persistent chains, `(chains, hidden)`, or None."""
        return None

    def draw(self, layer, cases, seed, number):
        """Draws the uniform numbers of update `number`.

        Args:
            layer: The `RBMLayer`.
            cases: How many cases the update has, an integer or scalar tensor.
            seed: Integer.
            number: Integer or scalar tensor.

        Returns:
            A tuple of tensors; the first is of shape `(k, chains, uniforms a step)`.
        """
        chains = cases if self.chains is None else self.chains
        return (sampling.gibbs_noise(layer, chains, self.k, seed, number),)

    def end(self, layer, v, uniforms, chain):
        """Runs the chains for one update.

        Args:
            layer: The `RBMLayer`.
            v: Data of the update, `(cases, visible)`.
            uniforms: What `draw` returned.
            chain: Hidden states of the persistent chains, or None.

        Returns:
            `End`.
        """
        raise NotImplementedError

    def keep(self, chain, counts):
        """Keeps what `end` returned."""
        if chain is not None:
            self.chain.assign(chain)

    def learn(self, W, hbias, vbias):
        """Is told the gradients that the optimizer gets, where `learns`."""
        raise NotImplementedError

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "k": self.k}


@keras.saving.register_keras_serializable(package="dbn")
class CD(NegativePhase):
    """Contrastive divergence, CD-k: chains start at the data of each update (Hinton 2002).

    Args:
        k: Number of Gibbs steps an update, an integer >= 1.
        reconstruction: `"sample"`, or `"mean"` to end the chains in the means of the visible units
            given the last hidden sample, not in samples: less noise, above all of Gaussian units,
            at the price of some bias (Hinton 2010, section 3.2). The distribution of the RBM is
            then no longer left invariant.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> rbm = dbn.RBM(dbn.RBMLayer(8, visible="gaussian"), negative=CD(1, reconstruction="mean"))
    >>> rbm.compile(keras.optimizers.SGD(0.01))
    >>> history = rbm.fit(np.random.default_rng(0).normal(size=(100, 9)), verbose=0)
    """

    def __init__(self, k=1, reconstruction="sample", **kwargs):
        super().__init__(k, **kwargs)
        if reconstruction not in ("sample", "mean"):
            raise ValueError(
                f'`reconstruction` must be "sample" or "mean"; got {reconstruction!r}.'
            )
        self.reconstruction = reconstruction

    def end(self, layer, v, uniforms, chain=None):
        u = uniforms[0]
        if self.reconstruction == "sample":
            return End(sampling.gibbs_vhv(layer, v, u, self.k))
        if self.k > 1:
            v = sampling.gibbs_vhv(layer, v, u[:-1], self.k - 1)
        _, _, _, _, mean, _ = layer.gibbs_vhv(v, u[-1])
        return End(mean)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "reconstruction": self.reconstruction}


@keras.saving.register_keras_serializable(package="dbn")
class PCD(NegativePhase):
    """Persistent contrastive divergence, PCD-k: chains go on from update to update (Tieleman 2008).

    Args:
        k: Number of Gibbs steps an update, an integer >= 1.
        chains: Number of chains, an integer >= 1, independent of the batch size.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Attributes:
        chain: `(chains, hidden)`, zeros at first as in the tutorial.
    """

    def __init__(self, k=1, chains=100, **kwargs):
        super().__init__(k, **kwargs)
        self.chains = checks.integer(chains, "chains")

    def build(self, shape):
        """Creates the chains."""
        self.chain = self.add_weight(
            name="chain",
            shape=(self.chains, shape[1]),
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    def hidden_states(self):
        return self.chain.value

    def end(self, layer, v, uniforms, chain):
        return End(*sampling.gibbs_hvh(layer, chain, uniforms[0], self.k))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "chains": self.chains}


@keras.saving.register_keras_serializable(package="dbn")
class FastPCD(PCD):
    """PCD whose chains see fast weights on top of the model's (Tieleman & Hinton 2009).

    The fast weights learn from the same gradients, at a rate of their own, and decay toward zero
    in every update; they drive the chains away from where these have just been, so that the chains
    mix although the model's own learning rate is small.

    Args:
        k: Number of Gibbs steps an update, an integer >= 1.
        chains: Number of chains, an integer >= 1.
        rate: Learning rate of the fast weights, > 0.
        decay: What is left of the fast weights after an update, in [0, 1); 19/20 in the paper.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Attributes:
        fast: The fast weights on top of W, hbias and vbias.

    Raises:
        ValueError: If an argument is out of its range.
    """

    learns = True

    def __init__(self, k=1, chains=100, rate=0.01, decay=0.95, **kwargs):
        super().__init__(k, chains, **kwargs)
        self.rate = _number(rate, "rate", lambda x: 0 < x < np.inf, "a number > 0")
        self.decay = _number(decay, "decay", lambda x: 0 <= x < 1, "a number in [0, 1)")

    def build(self, shape):
        """Creates the chains and the fast weights."""
        super().build(shape)
        self.fast = [
            self.add_weight(
                name=f"fast_{name}",
                shape=size,
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )
            for name, size in (("W", shape), ("hbias", shape[1:]), ("vbias", shape[:1]))
        ]

    def end(self, layer, v, uniforms, chain):
        parameters = (layer.W, layer.hbias, layer.vbias)
        W, hbias, vbias = (
            tf.cast(slow, fast.dtype) + fast.value
            for slow, fast in zip(parameters, self.fast, strict=True)
        )

        def step(state, uniforms):
            u_v, u_h = tf.split(uniforms, layer.uniforms_per_step, axis=-1)
            h = tf.cast(state[-1], W.dtype)
            v = layer.visible.sample(tf.matmul(h, W, transpose_b=True) + vbias, u_v)
            return v, layer.hidden.sample(tf.matmul(v, W) + hbias, u_h)

        return End(*sampling.repeat(step, (chain,), uniforms[0], self.k))

    def learn(self, W, hbias, vbias):
        gradients = [tf.cast(gradient, self.fast[0].dtype) for gradient in (W, hbias, vbias)]
        # Those of an overflow, which an optimizer that scales the loss skips, teach nothing.
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        for fast, gradient in zip(self.fast, gradients, strict=True):
            step = tf.where(finite, self.rate * gradient, 0)
            fast.assign(self.decay * fast.value - step)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "decay": self.decay}


@keras.saving.register_keras_serializable(package="dbn")
class ParallelTempering(NegativePhase):
    """Parallel tempering: chains at several temperatures exchange states (Desjardins et al. 2010).

    At inverse temperature beta a chain samples

        log p(v, h; beta) = v . base + beta (v . (vbias - base) + h . (hbias + v W)) + const,

    the path of `dbn.likelihood.annealed_importance_sampling`, energies of the unit types left as
    they are. After each Gibbs step neighbours, even and odd pairs in turn, exchange their states
    with the probability that leaves the joint distribution invariant. The chains at beta = 1 stand
    for the model. An update costs as much as PCD with `chains` times `temperatures` chains.

    Args:
        k: Number of Gibbs steps, each with an exchange, an update; an integer >= 1.
        chains: Number of chains at each temperature, an integer >= 1.
        temperatures: How many inverse temperatures, from 0 to 1, an integer >= 2; or an array of
            them that rises from 0 to 1.
        base_rates: Means of the visible units at beta = 0, `(visible,)`, usually those of the data;
            the default is a bias of zero.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Attributes:
        chain: Hidden states, `(temperatures, chains, hidden)`, that of beta = 1 last.
        swap_rates: Share of exchanges that were accepted, `(temperatures - 1,)`, for neighbours
            from beta = 0 on; a weight, a moving average over some hundred updates. Where one is
            near 0, put temperatures closer together there.

    Raises:
        ValueError: If an argument is out of its range, or (when the RBM is built) a unit type has
            no density.

    Example:

    >>> keras.utils.set_random_seed(0)
    >>> negative = dbn.negative.ParallelTempering(k=1, chains=10, temperatures=5)
    >>> rbm = dbn.RBM(4, negative=negative)
    >>> rbm.compile(keras.optimizers.SGD(0.1))
    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> history = rbm.fit(x, verbose=0)
    >>> bool(np.all(negative.swap_rates > 0.5))
    True
    """

    chain_axis = 1

    def __init__(self, k=1, chains=20, temperatures=10, base_rates=None, **kwargs):
        super().__init__(k, **kwargs)
        self.chains = checks.integer(chains, "chains")
        self.betas = annealing.inverse_temperatures(temperatures).astype("float32")
        if base_rates is not None:
            base_rates = np.asarray(base_rates, np.float32)
            if base_rates.ndim != 1 or not np.all(np.isfinite(base_rates)):
                raise ValueError(
                    "`base_rates` must be finite and have shape (visible,); got shape "
                    f"{base_rates.shape}."
                )
        self.base_rates = base_rates

    def serve(self, rbm):
        layer = checks.density(rbm.layer)
        width = layer.W.shape[0]
        if self.base_rates is not None:
            if len(self.base_rates) != width:
                raise ValueError(
                    f"`base_rates` must have shape ({width},); got {self.base_rates.shape}."
                )
            checks.cases(self.base_rates[None], layer.visible, "base_rates")
        super().serve(rbm)

    def build(self, shape):
        """Creates the chains and the statistics of their exchanges."""
        count = len(self.betas)
        weights = {
            "chain": (count, self.chains, shape[1]),
            "swap_rates": (count - 1,),
            "exchanges": (count - 1,),
        }
        self.chain, self.swap_rates, self._exchanges = (
            self.add_weight(
                name=name,
                shape=size,
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )
            for name, size in weights.items()
        )

    def hidden_states(self):
        return self.chain.value[-1]

    def draw(self, layer, cases, seed, number):
        count = len(self.betas)
        gibbs = sampling.gibbs_noise(layer, count * self.chains, self.k, seed, number)
        gibbs = tf.reshape(gibbs, (self.k, count, self.chains, gibbs.shape[-1]))
        shape = (self.k, count - 1, self.chains)
        u = noise.uniforms(shape, seed, number, noise.Stream.SWAP)
        step = tf.cast(number, tf.int64) * self.k + tf.range(self.k, dtype=tf.int64)
        turn = (step[:, None] + tf.range(count - 1, dtype=tf.int64)) % 2 == 0
        # Never below a probability: no exchange.
        return gibbs, tf.where(turn[:, :, None], u, 2.0)

    def end(self, layer, v, uniforms, chain):
        count, chains, _ = chain.shape
        width = layer.W.shape[0]
        dtype = layer.variable_dtype
        betas = tf.constant(self.betas, dtype)
        each = tf.repeat(betas, chains)[:, None]
        base = tf.zeros(width, dtype)
        if self.base_rates is not None:
            base = layer.visible.bias_from_mean(tf.constant(self.base_rates, dtype))

        def step(state, uniforms):
            gibbs, u = uniforms
            gibbs = tf.reshape(gibbs, (count * chains, gibbs.shape[-1]))
            u_v, u_h = tf.split(gibbs, layer.uniforms_per_step, axis=-1)
            v = layer.visible.sample(each * layer.propdown(state[1])[0] + (1 - each) * base, u_v)
            a, _ = layer.propup(v)
            h = layer.hidden.sample(each * a, u_h)
            tempered = tf.linalg.matvec(v, tf.cast(layer.vbias, dtype) - base)
            tempered += tf.reduce_sum(h * a, axis=-1)
            order, probability = _exchange(betas, tf.reshape(tempered, (count, chains)), u)
            total = state[2] + tf.where(u < 1, probability, 0)
            return tf.gather(v, order[-chains:]), tf.gather(h, order), total

        h = tf.reshape(chain, (count * chains, layer.units))
        start = tf.zeros((chains, width), dtype), tf.cast(h, dtype)
        start = *start, tf.zeros((count - 1, chains), tf.float32)
        end, h, total = sampling.repeat(step, start, uniforms, self.k)
        tried = tf.reduce_sum(tf.cast(uniforms[1] < 1, tf.float32), axis=(0, 2))
        counts = tf.reduce_sum(total, axis=1), tried
        return End(end, tf.reshape(h, chain.shape), counts)

    def keep(self, chain, counts):
        super().keep(chain, counts)
        total, tried = counts
        mean = total / tf.maximum(tried, 1)
        rate = tf.maximum(0.01, 1 / (self._exchanges.value + 1)) * tf.cast(tried > 0, tf.float32)
        self.swap_rates.assign_add(rate * (mean - self.swap_rates.value))
        self._exchanges.assign_add(tf.cast(tried > 0, tf.float32))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "chains": self.chains,
            "temperatures": [float(beta) for beta in self.betas],
            "base_rates": None if self.base_rates is None else self.base_rates.tolist(),
        }


def _exchange(betas, tempered, u):
    """Draws which neighbours exchange their states.

    Args:
        betas: Inverse temperatures, `(temperatures,)`.
        tempered: The part of log p that beta multiplies, `(temperatures, chains)`.
        u: Uniform numbers, `(temperatures - 1, chains)`, above 1 where it is not a pair's turn; no
            two neighbouring pairs may have theirs.

    Returns:
        The row `temperature * chains + chain` from which each gets its state, a vector of integers,
        and the probability of each exchange, `(temperatures - 1, chains)`.
    """
    count, chains = tempered.shape
    log_ratio = (betas[1:] - betas[:-1])[:, None] * (tempered[:-1] - tempered[1:])
    probability = tf.exp(tf.cast(tf.minimum(log_ratio, 0), u.dtype))
    accepted = tf.cast(u < probability, tf.int32)
    shift = tf.pad(accepted, ((0, 1), (0, 0))) - tf.pad(accepted, ((1, 0), (0, 0)))
    rows = tf.reshape(tf.range(count * chains), (count, chains)) + shift * chains
    return tf.reshape(rows, (-1,)), probability


def _number(value, name, good, needed):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not good(value):
        raise ValueError(f"`{name}` must be {needed}; got {value!r}.")
    return float(value)
