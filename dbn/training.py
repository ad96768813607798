"""Contrastive divergence, and `RBM`: one layer trained by it through Keras' own `fit`."""

import random

import keras
import numpy as np
import tensorflow as tf

from dbn import checks, likelihood, noise, replicas, sampling
from dbn.gradients import Centered
from dbn.layers import RBMLayer
from dbn.negative import CD, PCD, NegativePhase
from dbn.penalties import Sparsity
from dbn.trainer import Trainer

__all__ = ["RBM", "contrastive_divergence", "default_seed"]


def contrastive_divergence(layer, v, state, noise, k):
    """Computes the cost whose gradient is that of (persistent) contrastive divergence.

    The mean free energy of the data minus that of the end of the chains, plus the layer's
    regularization losses. The chains' end is a constant (`tf.stop_gradient`), so the gradient of
    the cost approximates that of the mean negative log-likelihood (Hinton 2002; Tieleman 2008). The
    value of the cost is no measure of progress.

    Args:
        layer: An `RBMLayer`.
        v: Data, `(cases, visible)`.
        state: Hidden states of the persistent chains, `(chains, hidden)`, for PCD-k; None for
            CD-k, whose chains start at the data.
        noise: Uniform numbers, `(k, chains, sum(layer.uniforms_per_step))`, as
            `dbn.sampling.gibbs_noise` draws them; for CD-k there is a chain for each case.
        k: Number of Gibbs steps, an integer >= 1.

    Returns:
        The cost, a scalar in nats per case, and the new state: `(chains, hidden)`, or None.

    Raises:
        ValueError: If k < 1, or the noise is not for k steps of that many chains.

    Example:

    >>> layer = dbn.RBMLayer(3)
    >>> layer.build((None, 4))
    >>> v = tf.ones((2, 4))
    >>> u = dbn.sampling.gibbs_noise(layer, chains=2, k=1, seed=0, step=0)
    >>> with tf.GradientTape() as tape:
    ...     cost, _ = contrastive_divergence(layer, v, None, u, k=1)
    >>> gradients = tape.gradient(cost, layer.trainable_variables)
    """
    if state is None:
        end = sampling.gibbs_vhv(layer, v, noise, k)
    else:
        end, state = sampling.gibbs_hvh(layer, state, noise, k)
        state = tf.stop_gradient(state)
    return _cost(layer, v, end), state


def _cost(layer, v, end, mean=tf.reduce_mean, end_mean=tf.reduce_mean):
    """Returns the cost of an update: free energy of the data minus that of the chains' end."""
    cost = mean(layer.free_energy(v)) - end_mean(layer.free_energy(tf.stop_gradient(end)))
    return cost + sum(layer.losses) / tf.distribute.get_strategy().num_replicas_in_sync


def _mean_over(count):
    """Returns a function of values of this replica's cases: their part of the mean over `count`."""
    # A share of no case has a count of 0, whatever the batch has.
    return lambda x: tf.reduce_sum(x, axis=0) / tf.cast(tf.maximum(count, 1), x.dtype)


@keras.saving.register_keras_serializable(package="dbn")
class RBM(Trainer):
    """One `RBMLayer`, trained by contrastive divergence through Keras' `fit`.

    Args:
        layer: An `RBMLayer`, or an integer n, short for `RBMLayer(n)`.
        k: Number of Gibbs steps an update, an integer >= 1.
        persistent: False for CD-k, whose chains start at the data of each update; True for PCD-k,
            whose chains go on from update to update.
        chains: Number of persistent chains, an integer >= 1, independent of the batch size.
        negative: In place of these three, a `dbn.negative.NegativePhase`: where the samples of the
            model come from.
        seed: Integer that all random numbers and the data order come from. By default drawn when
            the model is made, so `keras.utils.set_random_seed` governs it.
        gradient: What changes the gradient before the optimizer has it, a
            `dbn.gradients.Centered`; None for the plain gradient, as in the tutorial.
        sparsity: A `dbn.penalties.Sparsity`, which keeps hidden units mostly off; None for none.
        binarize: True to draw binary cases from grey levels, anew for each update, each value the
            probability of a 1 (Salakhutdinov & Murray 2008): what the model learns is then the
            distribution of stochastically binarised data. Held-out data are drawn once, the same
            bits every epoch. Needs Bernoulli visible units.
        **kwargs: `name`, `dtype`, `trainable` of `keras.Model`.

    `model(v)` gives the mean hidden activations, `(cases, hidden)`.

    Attributes:
        layer: The `RBMLayer`.
        negative: The `NegativePhase`.
        persistent: Whether it has persistent chains.
        chain: Their hidden states, a weight of shape `(chains, hidden)` for PCD, zeros at first as
            in the tutorial; None for CD.
        updates: Number of updates made so far, a weight.
        epochs: Number of epochs finished so far, a weight.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> rbm = dbn.RBM(dbn.RBMLayer(16), k=15, persistent=True, chains=20)
    >>> rbm.compile(optimizer=keras.optimizers.SGD(0.1))
    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> history = rbm.fit(x, batch_size=20, epochs=2, verbose=0)
    >>> list(history.history)
    ['pseudo_log_likelihood']
    """

    def __init__(
        self,
        layer,
        k=1,
        persistent=False,
        chains=100,
        seed=None,
        gradient=None,
        binarize=False,
        negative=None,
        sparsity=None,
        **kwargs,
    ):
        if not isinstance(layer, RBMLayer):
            if isinstance(layer, keras.layers.Layer) or not hasattr(layer, "__index__"):
                raise ValueError(
                    f"`layer` must be an RBMLayer or a number of hidden units; got {layer!r}."
                )
            layer = RBMLayer(layer, dtype=kwargs.get("dtype"))
        if not (gradient is None or isinstance(gradient, Centered)):
            raise ValueError(
                f"`gradient` must be None or a `dbn.gradients.Centered`; got {gradient!r}."
            )
        k, chains = checks.integer(k, "k"), checks.integer(chains, "chains")
        if negative is None:
            negative = PCD(k, chains) if persistent else CD(k)
        elif not isinstance(negative, NegativePhase):
            raise ValueError(
                f"`negative` must be a `dbn.negative.NegativePhase`; got {negative!r}."
            )
        elif (k, bool(persistent), chains) != (1, False, 100):
            raise ValueError(
                "Give either `negative` or `k`, `persistent` and `chains`, not both: a "
                f"`{type(negative).__name__}` has its own."
            )
        if not (sparsity is None or isinstance(sparsity, Sparsity)):
            raise ValueError(
                f"`sparsity` must be None or a `dbn.penalties.Sparsity`; got {sparsity!r}."
            )
        if sparsity and layer.hidden.name != "bernoulli":
            raise ValueError(f"`sparsity` needs Bernoulli hidden units; got {layer.hidden.name!r}.")
        if binarize and layer.visible.name != "bernoulli":
            raise ValueError(
                f"`binarize` needs Bernoulli visible units; got {layer.visible.name!r}."
            )
        super().__init__(**kwargs)
        self.layer = layer
        self.binarize = bool(binarize)
        self.gradient = gradient
        self.negative = negative
        self.sparsity = sparsity
        self.seed = checks.integer(default_seed() if seed is None else seed, "seed", least=0)
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("pseudo_log_likelihood", "reconstruction_cross_entropy")
        }

    # What a Keras model is ------------------------------------------------------------------------

    def build(self, input_shape):
        """Creates the layer's variables, the chains and the counters."""
        if not self.layer.built:
            self.layer.build(input_shape)
        for part in (self.gradient, self.negative, self.sparsity):
            if part is not None:
                part.serve(self)
        self._add_counters()

    @property
    def k(self):
        """Number of Gibbs steps an update."""
        return self.negative.k

    @property
    def persistent(self):
        """Whether there are persistent chains."""
        return self.negative.chains is not None

    @property
    def chains(self):
        """Number of persistent chains, None for CD."""
        return self.negative.chains

    @property
    def chain(self):
        """Hidden states of the persistent chains, a weight; None for CD."""
        return self.negative.chain

    def call(self, v):
        """Returns the mean hidden activations, `(cases, hidden)`."""
        return self.layer(v)

    def compute_output_shape(self, input_shape):
        """Returns `(cases, hidden)`."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "trainable": self.trainable,
            "layer": keras.saving.serialize_keras_object(self.layer),
            "negative": keras.saving.serialize_keras_object(self.negative),
            "sparsity": keras.saving.serialize_keras_object(self.sparsity),
            "seed": self.seed,
            "gradient": keras.saving.serialize_keras_object(self.gradient),
            "binarize": self.binarize,
        }

    @classmethod
    def from_config(cls, config):
        """Returns a model made from what `get_config` returned."""
        parts = {
            name: keras.saving.deserialize_keras_object(config.get(name))
            for name in ("layer", "dtype", "gradient", "negative", "sparsity")
        }
        return cls(**{**config, **parts})

    # Training -------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer="sgd",
        metrics=None,
        run_eagerly=False,
        steps_per_execution="auto",
        jit_compile="auto",
        loss=None,
    ):
        """Configures training.

        Args:
            optimizer: Any Keras optimizer, by name or instance.
            metrics: Which figures `fit` logs, all in nats per case; a list of
                `"pseudo_log_likelihood"` (training: as in the tutorial, the bit cycling with the
                updates; `val_`: one fixed random bit a case), `"reconstruction_cross_entropy"` and
                `"free_energy_gap"` (needs validation data). The default is the first for PCD, the
                second for CD, as in the tutorial, and where there are no bits to flip.
            run_eagerly: As in Keras.
            steps_per_execution: Updates between returns to Python, where callbacks and Ctrl-C act.
                The default is what fits into 0.2 s on this machine; results do not depend on it.
            jit_compile: As in Keras; by default the update is compiled with XLA.
            loss: Must be None: the cost is `contrastive_divergence`.

        Raises:
            ValueError: For an unknown metric, a loss, or steps_per_execution < 1.
        """
        if loss is not None:
            raise ValueError(
                f"An RBM's cost is `dbn.contrastive_divergence`, not a loss; got loss={loss!r}."
            )
        if metrics is None:
            bits = self.persistent and likelihood.has_bits(self.layer)
            metrics = ["pseudo_log_likelihood" if bits else "reconstruction_cross_entropy"]
        metrics = self._named(metrics, (*self._means, "free_energy_gap"))
        if "pseudo_log_likelihood" in metrics and not likelihood.has_bits(self.layer):
            raise ValueError(
                "The metric `pseudo_log_likelihood` needs Bernoulli or spin visible units, and no "
                f"'relu' hidden ones; got {self.layer.visible.name!r} and "
                f"{self.layer.hidden.name!r}."
            )
        super().compile(
            optimizer, run_eagerly, steps_per_execution, jit_compile, "free_energy_gap" in metrics
        )
        self._log_names = tuple(metrics)
        self._compile_update()

    def _compile_update(self):
        jit_compile = bool(self.jit_compile)
        self._run_prepare = self._compiled(self._prepare_batch, jit_compile)
        self._run_update = self._compiled(self._update, jit_compile)
        self._run_share = self._compiled(self._differentiate, jit_compile)

    def states(self, v, number, stream=noise.Stream.BINARIZE, share=None):
        """Returns what the model learns from a batch `(cases, visible)`: itself, or drawn bits."""
        if not self.binarize:
            return v
        u = self._draw((v.shape[1],), v, number, stream, share)
        return tf.cast(u < tf.cast(v, u.dtype), v.dtype)

    def _draw(self, shape, v, number, stream, share):
        """Draws uniform numbers `(cases, *shape)`: of the cases v, which may be a replica's share.

        Each case has the numbers that it would have if there were one replica.
        """
        if share is None:
            return noise.uniforms((tf.shape(v)[0], *shape), self.seed, number, stream)
        u = noise.uniforms((share.cases, *shape), self.seed, number, stream)
        return tf.gather(u, share.rows)

    def prepare(self, v, number, share=None):
        """Returns the states and the uniform numbers of update `number` from a batch."""
        # Compiled apart from the update, where XLA would make the numbers anew at every use. Of the
        # numbers of a whole batch it makes little more than the share's.
        prepared = self._run_prepare(v, number, share)
        return prepared if share is None else (*prepared, share)

    def update(self, v, uniforms, measured, share=None):
        """Makes one update of the parameters, chains and metrics from a batch and its noise."""
        if share is None:
            self._run_update(v, uniforms, measured)
            return
        chain = self.chain
        if chain is not None:
            chain = replicas.own(chain.value.read_value(), self.negative.chain_axis)
        gradients, means, chain, counts = self._run_share(v, uniforms, measured, chain, share.cases)
        if chain is not None:
            chain = replicas.gathered(chain, self.negative.chain_axis)
        means, counts = replicas.summed((means, counts))
        self._learn(gradients, means, chain, counts)

    def test(self, v, number, share=None):
        """Adds a batch `(cases, visible)`, or a replica's share of one, to the metrics.

        The noise is that of (seed, number): the same bits every epoch.
        """
        v = self.states(v, number, noise.Stream.BINARIZE_TEST, share)
        width = v.shape[1]
        shape = (1 + self.layer.uniforms_per_step[1],)
        u = self._draw(shape, v, number, noise.Stream.TEST, share)
        # u < 1, but its product with the width may round up to it.
        bit = tf.minimum(tf.cast(u[:, 0] * width, tf.int32), width - 1)
        self._update_metrics(v, bit, u[:, 1:])

    def _prepare_batch(self, v, number, share=None):
        cases = tf.shape(v)[0] if share is None else share.cases
        uniforms = self.negative.draw(self.layer, cases, self.seed, number)
        if share is not None:
            axis = self.negative.chain_axis + 1
            if self.chains is None:
                uniforms = tuple(tf.gather(u, share.rows, axis=axis) for u in uniforms)
            else:
                uniforms = tuple(replicas.own(u, axis) for u in uniforms)
        measured = ()
        if self.persistent and "reconstruction_cross_entropy" in self._log_names:
            shape = (self.layer.uniforms_per_step[1],)
            measured = self._draw(shape, v, number, noise.Stream.METRIC, share)
        return self.states(v, number, share=share), uniforms, measured

    def _update(self, v, uniforms, measured):
        chain = None if self.chain is None else self.chain.value
        self._learn(*self._differentiate(v, uniforms, measured, chain))

    def _differentiate(self, v, uniforms, measured, chain, cases=None):
        """Samples and differentiates: all of an update that replicas do apart.

        Args:
            v: The states to learn from, `(cases, visible)`; of a replica, its share of them.
            uniforms: What the negative phase drew.
            measured: Uniform numbers for the metrics, or nothing.
            chain: Hidden states of the persistent chains, or of the replica's share of them.
            cases: How many cases the whole batch has, for a share.

        Returns:
            The gradients, means over cases that they are changed by, and what the negative phase
            is to keep; of a share, summands of the whole.
        """
        mean = end_mean = lambda x: tf.reduce_mean(x, axis=0)
        if cases is not None:
            mean = _mean_over(cases)
            end_mean = mean if self.chains is None else _mean_over(self.chains)
        end = self.negative.end(self.layer, v, uniforms, chain)
        with tf.GradientTape() as tape:
            cost = self.optimizer.scale_loss(_cost(self.layer, v, end.v, mean, end_mean))
        gradients = tape.gradient(cost, self.trainable_variables)
        means = ()
        if self.uses_means:
            means = mean(v), mean(self.layer.propup(v)[1])
        # At the weights before the update, as in the tutorial.
        bit = tf.cast(self.updates.value % v.shape[1], tf.int32)
        if not self.persistent:
            # The chain's own first step. Split as the chain splits it, so that XLA sees the same
            # products and computes them once.
            _, measured = tf.split(uniforms[0][0], self.layer.uniforms_per_step, axis=-1)
        self._update_metrics(v, bit, measured)
        return gradients, means, end.chain, end.counts

    def _learn(self, gradients, means, chain, counts):
        """Makes the update of what `_differentiate` found, gradients still a replica's summands."""
        variables = self.trainable_variables
        gradients = self.changed(gradients, variables, means, self.updates.value, self.optimizer)
        self.optimizer.apply(gradients, variables)
        self.negative.keep(chain, counts)
        self.updates.assign_add(1)

    def changed(self, gradients, variables, means, number, optimizer):
        """Returns gradients as the optimizer gets them; the negative phase learns from them.

        Of use to a model that this RBM is a part of; `fit` calls it by itself.

        Args:
            gradients: A list of tensors; of a replica, its summands.
            variables: The variables that they are for, W, hbias and vbias of `layer` among them.
            means: Mean of the cases, `(visible,)`, and of the hidden means that they give,
                `(hidden,)`; needed if `uses_means`.
            number: How many updates came before, an integer tensor.
            optimizer: The optimizer, by whose `scale_loss` the gradients are scaled.

        Returns:
            The list, with other gradients for W, hbias and vbias.

        Raises:
            ValueError: If one of the three, needed by a part of the RBM, is not among `variables`.
        """
        if not (self.uses_means or self.negative.learns):
            return gradients
        places = {id(variable): i for i, variable in enumerate(variables)}
        parameters = (self.layer.W, self.layer.hbias, self.layer.vbias)
        if not all(id(parameter) in places for parameter in parameters):
            part = self.gradient or self.sparsity or self.negative
            raise ValueError(f"`{part.argument}` needs W, hbias and vbias to be trainable.")
        at = [places[id(parameter)] for parameter in parameters]
        W, hbias, vbias = (gradients[i] for i in at)
        if self.sparsity is not None:
            # Each replica adds its part of what is one for all of them.
            part = optimizer.scale_loss(1 / tf.distribute.get_strategy().num_replicas_in_sync)
            more = self.sparsity.gradient(*means)
            W += tf.cast(part * more[0], W.dtype)
            hbias += tf.cast(part * more[1], hbias.dtype)
        if self.gradient is not None:
            self.gradient.update_offsets(*means, number)
            W, hbias, vbias = self.gradient.change(W, hbias, vbias)
        if self.negative.learns:
            # As the optimizer will unscale them.
            scale = optimizer.scale_loss(1.0)
            summed = replicas.summed((W, hbias, vbias))
            self.negative.learn(*(gradient / tf.cast(scale, gradient.dtype) for gradient in summed))
        gradients = list(gradients)
        for i, gradient in zip(at, (W, hbias, vbias), strict=True):
            gradients[i] = gradient
        return gradients

    @property
    def uses_means(self):
        """Whether `changed` needs the means of a batch."""
        return self.gradient is not None or self.sparsity is not None

    def _update_metrics(self, v, bit, uniforms):
        for mean in self.metrics:
            if mean.name == "pseudo_log_likelihood":
                mean.update_state(likelihood.pseudo_log_likelihood(self.layer, v, bit))
            else:
                mean.update_state(likelihood.reconstruction_cross_entropy(self.layer, v, uniforms))

    # Sampling -------------------------------------------------------------------------------------

    def sample(self, chains=None, steps=1, start=None, clamp=None, seed=None):
        """Draws from the model by Gibbs chains.

        Args:
            chains: Number of chains; by default that of `start`, and 1 for `"noise"`.
            steps: Gibbs steps, an integer >= 1.
            start: Where the chains start: visible states `(chains, visible)`; the `Samples` that
                an earlier call returned, to go on with; `"noise"` for samples of units without
                bias (fair coins, for Bernoulli units); `"persistent"`
                for the chains of PCD. The default is the last for PCD, `"noise"` for CD.
            clamp: Boolean mask, `(visible,)` or `(chains, visible)`, of units that keep the value
                they have in `start`: the others are sampled given them (inpainting). Categorical
                groups are held whole.
            seed: Integer; by default the model's.

        Returns:
            `dbn.sampling.Samples`: `mean` to draw and `sample` to go on from, each
            `(chains, visible)`. Two calls of 500 steps equal one of 1,000 bit for bit.

        Raises:
            ValueError: If the model is not built, or an argument is out of its range.

        Example:

        >>> rbm = dbn.RBM(8, seed=0)
        >>> rbm.build((None, 16))
        >>> first = rbm.sample(chains=2, steps=10)
        >>> tuple(rbm.sample(steps=10, start=first).mean.shape)
        (2, 16)
        """
        if not self.built:
            raise ValueError("The RBM is not built: `fit` it, or call `build((None, visible))`.")
        steps = checks.integer(steps, "steps")
        seed = self.seed if seed is None else checks.integer(seed, "seed", least=0)
        if start is None:
            start = "persistent" if self.persistent else "noise"
        if isinstance(start, str):
            if clamp is not None:
                raise ValueError("`clamp` needs `start=` with the values of the clamped units.")
            if chains is None:
                chains = self.chains if start == "persistent" and self.persistent else 1
            start = self._start(start, chains, seed)
        elif not isinstance(start, sampling.Samples):
            start = checks.cases(start, self.layer.visible, "start", self._width())
        shape = tuple((start.sample if isinstance(start, sampling.Samples) else start).shape)
        if shape[1:] != (self._width(),):
            raise ValueError(f"`start` must have width {self._width()}; got shape {shape}.")
        if chains is not None and checks.integer(chains, "chains") != shape[0]:
            raise ValueError(f"`chains` is {chains}, but `start` has {shape[0]} chains.")
        if clamp is not None:
            clamp = np.asarray(clamp)
            if clamp.dtype != bool or clamp.shape not in (shape, shape[1:]):
                raise ValueError(
                    f"`clamp` must be a boolean mask of shape {shape[1:]} or {shape}; got "
                    f"{clamp.dtype} of shape {clamp.shape}."
                )
            visible = self.layer.visible
            held = visible.split(tf.constant(np.atleast_2d(clamp)))
            if not all(kind.whole(part) for kind, part in zip(visible.kinds, held, strict=True)):
                raise ValueError("`clamp` must hold all units of a categorical group, or none.")
        return sampling.sample(self.layer, start, steps, seed, clamp)

    def _start(self, start, chains, seed):
        chains = checks.integer(chains, "chains")
        if start == "noise":
            return sampling.noise_states(self.layer, chains, seed)
        if start == "persistent" and self.persistent:
            if chains > self.chains:
                raise ValueError(
                    f"`chains` must be at most {self.chains}, the number of persistent chains; got "
                    f"{chains}."
                )
            h = self.negative.hidden_states()[:chains]
            shape = (chains, self.layer.uniforms_per_step[0])
            u = noise.uniforms(shape, seed, stream=noise.Stream.START)
            return self.layer.sample_v_given_h(h, u)[-1]
        raise ValueError(
            f"`start` must be an array, Samples, 'noise', or (with persistent=True) 'persistent'; "
            f"got {start!r}."
        )


def default_seed():
    """Returns a seed drawn as Keras draws its own: `keras.utils.set_random_seed` governs it."""
    return random.randint(1, 10**9)
