"""GenerativeDBN: a deep belief net of cases and labels, trained up and down."""

import keras
import numpy as np
import tensorflow as tf

from dbn import checks, noise, sampling
from dbn.checkpoints import Checkpoint
from dbn.layers import Mixed, RBMLayer
from dbn.negative import NegativePhase
from dbn.stack import DBN
from dbn.trainer import Trainer
from dbn.training import RBM, default_seed

__all__ = ["GenerativeDBN"]

_CASES_AT_ONCE = 1000


@keras.saving.register_keras_serializable(package="dbn")
class GenerativeDBN(Trainer):
    """A deep belief net that draws cases of a class, and classifies (Hinton, Osindero & Teh 2006).

    The top RBM has, beside the units of the layer below, one categorical group for the label. So
    the model is a joint density of cases and labels: with the label held, Gibbs chains in the top
    RBM and then the layers downwards draw cases of that class; and the free energies of the top RBM
    give log p(label | what came up the layers), exactly. `model(x)` gives these probabilities,
    `(cases, classes)`.

    `pretrain` trains the RBMs one after the other; `fit` trains all of it by the up-down algorithm,
    a contrastive wake-sleep (appendix B of the paper). For that each layer below the top has
    weights of two kinds: those of the way up (recognition), the kernel of the shared Dense, and
    those of the way down (`generative`), equal to them until `fit` begins. Biases are two anyway.

    Of the paper's pseudo-code two things differ. The top RBM's statistics hold the means of its
    hidden units where the paper has samples: the same on average, with less noise. And its chains
    sample the label where the paper's go on from its probabilities: so they are Gibbs chains, which
    leave the distribution of the RBM invariant.

    Args:
        layers: A list of at least two, bottom first, as `DBN` takes; the last is the top RBM. An
            integer n does; of an `RBMLayer` or `RBM` the visible type must be `Mixed`, the hidden
            type below beside one categorical group. The visible type of each other layer must be
            the hidden type below it, and no noisy rectified units.
        classes: Number of classes, an integer >= 2.
        negative: The `dbn.negative.NegativePhase` of the top RBM, if it is given as an integer:
            where its samples come from, in `pretrain` and in `fit`. The default is `CD(1)`.
        seed: Integer that the noise and the data order of `fit` come from, and the initial weights,
            noise and data order of layers given as integers; by default
            `keras.utils.set_random_seed` governs them.
        **kwargs: `name`, `dtype`, `trainable` of `keras.Model`.

    Attributes:
        below: The `DBN` of the layers below the top one.
        top: The top `RBM`.
        generative: The weights of the way down, one a layer of `below`, `(visible, hidden)`; their
            biases are the layers' `vbias`.
        updates: Number of updates that `fit` has made, a weight.
        epochs: Number of epochs that `fit` has finished, a weight.

    Raises:
        ValueError: If an argument is out of its range, or the unit types do not fit.

    Example:

    >>> random = np.random.default_rng(0)
    >>> x, y = random.integers(0, 2, (100, 9)).astype("float32"), random.integers(0, 3, 100)
    >>> model = dbn.GenerativeDBN([8, 8, 12], classes=3, seed=0)
    >>> histories = model.pretrain(x, y, epochs=2, batch_size=10, verbose=0)
    >>> model.compile(keras.optimizers.SGD(0.01))
    >>> history = model.fit(x, y, batch_size=10, verbose=0)
    >>> classes = model.predict(x, verbose=0).argmax(axis=1)
    >>> images = model.sample(label=[0, 1, 2], steps=100).mean
    """

    def __init__(self, layers, classes, negative=None, seed=None, **kwargs):
        classes = checks.integer(classes, "classes", least=2)
        if not isinstance(layers, (list, tuple)) or len(layers) < 2:
            raise ValueError(
                "`layers` must be a list of at least two, the last one for the top RBM; got "
                f"{layers!r}."
            )
        dtype = kwargs.get("dtype")
        below, top = DBN(layers[:-1], seed=seed, dtype=dtype), layers[-1]
        _check_types(below)
        beneath = below.rbms[-1].layer
        visible = Mixed([(beneath.hidden, beneath.units), ("categorical", classes)])
        if isinstance(top, (RBM, RBMLayer)):
            if negative is not None:
                raise ValueError("`negative` is for a top RBM given as an integer; it has its own.")
            top = top if isinstance(top, RBM) else RBM(top)
            if not _same(top.layer.visible, visible):
                raise ValueError(
                    f"The top RBM must have the visible units {_described(visible)}, those of the "
                    f"layer below beside the label; got {_described(top.layer.visible)}."
                )
        else:
            if not (negative is None or isinstance(negative, NegativePhase)):
                raise ValueError(
                    f"`negative` must be a `dbn.negative.NegativePhase`; got {negative!r}."
                )
            own = None if seed is None else seed + len(below.rbms)
            initializer = keras.initializers.RandomNormal(0.0, 0.01, own)
            layer = RBMLayer(top, visible=visible, kernel_initializer=initializer, dtype=dtype)
            top = RBM(layer, negative=negative, seed=own, dtype=dtype)
        super().__init__(**kwargs)
        self.below, self.top, self.classes = below, top, classes
        if not self.trainable:  # Keras did not know these before.
            below.trainable = top.trainable = False
        # Another than those of the RBMs, so that none of their random numbers comes twice.
        self.seed = len(layers) + (default_seed() if seed is None else seed)
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("reconstruction_cross_entropy", "error")
        }

    # What a Keras model is ------------------------------------------------------------------------

    def build(self, input_shape):
        """Builds the RBMs, for `(cases, visible)` inputs, the generative weights and counters."""
        if not self.below.built:
            self.below.build(input_shape)
        if not self.top.built:
            self.top.build((None, self.below.rbms[-1].layer.units + self.classes))
        self.generative = [
            self.add_weight(
                name=f"generative_{number}",
                shape=layer.W.shape,
                initializer="zeros",
                regularizer=layer.dense.kernel_regularizer,
            )
            for number, layer in enumerate(self._lower, start=1)
        ]
        self._tie(self._lower)
        self._add_counters()

    @property
    def _lower(self):
        return [rbm.layer for rbm in self.below.rbms]

    def _tie(self, layers):
        for layer, weights in zip(self._lower, self.generative, strict=True):
            if layer in layers:
                weights.assign(layer.W)

    def call(self, x):
        """Returns the probability of each class, `(cases, classes)`."""
        return tf.exp(self._log_probabilities(x))

    def compute_output_shape(self, input_shape):
        """Returns `(cases, classes)`."""
        return (input_shape[0], self.classes)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "trainable": self.trainable,
            "layers": [
                keras.saving.serialize_keras_object(rbm) for rbm in (*self.below.rbms, self.top)
            ],
            "classes": self.classes,
            "seed": self.seed - len(self.below.rbms) - 1,
        }

    @classmethod
    def from_config(cls, config):
        """Returns a model made from what `get_config` returned."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        dtype = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**{**config, "layers": layers, "dtype": dtype})

    # Training -------------------------------------------------------------------------------------

    def pretrain(
        self,
        x,
        y,
        epochs=1,
        batch_size=None,
        optimizer=None,
        callbacks=None,
        shuffle=True,
        verbose="auto",
        checkpoint=None,
    ):
        """Trains the RBMs one after the other, the top one on labels, too, as `DBN.pretrain` does.

        Args:
            x: Array `(cases, visible)`.
            y: Labels, integers `(cases,)` from 0 to classes - 1.
            epochs: As in `DBN.pretrain`, for all layers or a list with one a layer; and so are all
                that follow.
            batch_size: Cases an update.
            optimizer: Keras optimizer.
            callbacks: Keras callbacks.
            shuffle: As in `RBM.fit`.
            verbose: As in `DBN.pretrain`.
            checkpoint: Path of a folder, or a `dbn.checkpoints.Checkpoint` of one.

        Returns:
            A list with one `History` a layer; None for a layer of 0 epochs. The generative weights
            of the others are set equal to those of the way up.

        Raises:
            ValueError: For bad labels, fewer cases than classes, or as `DBN.pretrain` does.
            OSError: As `RBM.fit` does.
        """
        x, label = self._checked(x, y)
        self._check_enough(x)
        per_layer = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}
        below, top = {}, {}
        for name, value in per_layer.items():
            below[name], top[name] = self._divided(value, name)
        nested = isinstance(callbacks, (list, tuple)) and any(
            isinstance(part, (list, tuple)) for part in callbacks
        )
        if nested:
            below["callbacks"], top["callbacks"] = self._divided(callbacks, "callbacks")
        else:
            below["callbacks"] = top["callbacks"] = callbacks
        if checkpoint is not None:
            below["checkpoint"] = checkpoint = Checkpoint.of(checkpoint)
            top["checkpoint"] = Checkpoint(checkpoint.path / "top", checkpoint.every)
        for number in tf.nest.flatten([below["epochs"], top["epochs"]]):
            checks.integer(number, "epochs", least=0)
        histories = self.below.pretrain(x, **below, shuffle=shuffle, verbose=verbose)
        trained = zip(self._lower, histories, strict=True)
        self._tie([layer for layer, history in trained if history is not None])
        # A stack of one, which sees to optimizer and progress.
        h = self._up(x)
        joined = tf.concat([h, tf.cast(label, h.dtype)], axis=1)
        last = DBN([self.top]).pretrain(joined, **top, shuffle=shuffle, verbose=verbose)
        return [*histories, *last]

    def _divided(self, value, name):
        """Returns what an argument gives the layers below, and the top one."""
        if not isinstance(value, (list, tuple)):
            return value, value
        count = len(self.below.rbms) + 1
        if len(value) != count:
            raise ValueError(
                f"`{name}` must be one value or a list with one for each of the {count} layers; "
                f"got {len(value)}."
            )
        return list(value[:-1]), value[-1]

    def compile(
        self,
        optimizer="sgd",
        metrics=None,
        run_eagerly=False,
        steps_per_execution="auto",
        jit_compile="auto",
        loss=None,
    ):
        """Configures the up-down training; `pretrain` has optimizers of its own.

        Args:
            optimizer: Any Keras optimizer, by name or instance; one for all weights.
            metrics: Which figures `fit` logs, a list of `"reconstruction_cross_entropy"`, of each
                case given a sample of the layer above, in nats per case, the default; and
                `"error"`, the share of cases that `model(x)` puts in another class, which takes
                the free energy of each case with every label.
            run_eagerly: As in Keras.
            steps_per_execution: As in `RBM.compile`.
            jit_compile: As in `RBM.compile`.
            loss: Must be None.

        Raises:
            ValueError: For an unknown metric, a loss, or steps_per_execution < 1.
        """
        if loss is not None:
            raise ValueError(f"The up-down algorithm has no loss; got loss={loss!r}.")
        metrics = "reconstruction_cross_entropy" if metrics is None else metrics
        metrics = self._named(metrics, tuple(self._means))
        super().compile(optimizer, run_eagerly, steps_per_execution, jit_compile, False)
        self._log_names = tuple(metrics)
        self._compile_update()

    def _compile_update(self):
        self._run_prepare = self._compiled(self._prepared, bool(self.jit_compile))
        self._run_update = self._compiled(self._update, bool(self.jit_compile))

    @property
    def negative(self):
        """The `NegativePhase` of the top RBM."""
        return self.top.negative

    @property
    def k(self):
        """Number of Gibbs steps an update, which `dbn.callbacks.Schedule` may change."""
        return self.negative.k

    def fit(self, x=None, y=None, validation_data=None, **kwargs):
        """Trains all weights by the up-down algorithm.

        Each update goes up from the cases by samples, and the generative weights learn to bring
        back what was seen below (wake); the top RBM learns by contrastive divergence, or from its
        persistent chains; and from the end of its chains samples go down, and the recognition
        weights learn to bring back what they came from (sleep). Costs are means over cases, so the
        learning rate is that of the paper's updates for one case. A `gradient=` or `sparsity=` that
        the top RBM was given acts here, too.

        Args:
            x: Array `(cases, visible)`, or a batched `tf.data.Dataset` of pairs (x, y).
            y: Labels, integers `(cases,)` from 0 to classes - 1; None for a Dataset.
            validation_data: Held-out pair (x, y), or such a Dataset.
            **kwargs: Other arguments of `RBM.fit`: `batch_size`, `epochs`, `callbacks`,
                `checkpoint` and so on.

        Returns:
            Keras' `History`.

        Raises:
            ValueError: For bad labels, fewer cases than classes, or as `RBM.fit` does.
            OSError: As `RBM.fit` does.
            FloatingPointError: As `RBM.fit` does.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "A GenerativeDBN is trained on one device: leave the strategy's scope."
            )
        joined = self._joined(x, y, "x", "y")
        if not isinstance(joined, tf.data.Dataset):
            self._check_enough(joined)
        if validation_data is not None:
            pair = (validation_data, None)
            if not isinstance(validation_data, tf.data.Dataset):
                pair = _pair(validation_data)
            validation_data = self._joined(*pair, "validation_data[0]", "validation_data[1]")
        return super().fit(joined, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """Computes the metrics on held-out cases.

        Args:
            x: Array `(cases, visible)`, or a Dataset, as in `fit`.
            y: Labels, as in `fit`.
            **kwargs: Other arguments of `RBM.evaluate`.

        Returns:
            The metrics.

        Raises:
            ValueError: As `fit` does.
        """
        if "_use_cached_eval_dataset" not in kwargs:  # Inside `fit`, the batches have been made.
            x = self._joined(x, y, "x", "y")
        return super().evaluate(x, **kwargs)

    @property
    def case_units(self):
        """The unit type of a case beside its label."""
        layer = self._lower[0]
        units = layer.visible
        columns = units.parts if isinstance(units, Mixed) else [(units, layer.W.shape[0])]
        return Mixed([*columns, ("categorical", self.classes)])

    def _width(self):
        return self._lower[0].W.shape[0] + self.classes

    def _check_trainable(self):
        needed = list(self.generative)
        for layer in (*self._lower, self.top.layer):
            layer.check_dense()
            needed += [layer.W, layer.hbias]
        if {id(weights) for weights in needed} <= {id(v) for v in self.trainable_variables}:
            return
        # The outermost: what is set there, Keras hands on to what is inside.
        parts = {"model": self, "model.below": self.below}
        rbms = {f"model.below.rbms[{i}]": rbm for i, rbm in enumerate(self.below.rbms)}
        for name, rbm in {**rbms, "model.top": self.top}.items():
            layer = rbm.layer
            parts |= {name: rbm, f"{name}.layer": layer, f"{name}.layer.dense": layer.dense}
        frozen = [name for name, part in parts.items() if not part.trainable]
        raise ValueError(
            "Up-down trains all weights of a GenerativeDBN, and some are frozen "
            f"(`trainable=False`). Set `{[*frozen, 'model.generative'][0]}.trainable = True`."
        )

    def _checked(self, x, y, x_name="x", y_name="y"):
        """Returns checked cases and their labels, one-hot; builds the model if it is not built."""
        first = self._lower[0]
        width = first.W.shape[0] if first.dense.built else None
        if isinstance(x, tf.data.Dataset):
            raise ValueError(f"`{x_name}` must be an array here, not a Dataset.")
        x = checks.cases(x, first.visible, x_name, width)
        if y is None:
            raise ValueError(f"`{y_name}` must be the label of each case, integers; got None.")
        y = checks.labels(y, self.classes, len(x), y_name)
        if not self.built:
            self.build((None, x.shape[1]))
        return x, tf.one_hot(y, self.classes)

    def _joined(self, x, y, x_name, y_name):
        """Returns cases with their labels, one-hot, in more columns: an array or a Dataset."""
        if not isinstance(x, tf.data.Dataset):
            return tf.concat(self._checked(x, y, x_name, y_name), axis=1)
        spec = x.element_spec
        if y is not None or not (isinstance(spec, tuple) and len(spec) == 2):
            raise ValueError(
                f"A Dataset `{x_name}` must have pairs (x, y), and no `y` beside it; got {spec}."
            )
        first = next(iter(x.take(1)), None)
        if first is None:
            raise ValueError(f"`{x_name}` is empty: the Dataset has no batch.")
        self._checked(*first, f"the first batch of {x_name}", f"the first labels of {x_name}")

        def join(x, y):
            # A label that is no class becomes a group that does not sum to 1, which is refused.
            one_hot = tf.one_hot(tf.cast(y, tf.int64), self.classes)
            return tf.concat([tf.cast(x, tf.float32), one_hot], axis=1)

        return x.map(join)

    def _check_enough(self, x):
        if len(x) < self.classes:
            raise ValueError(
                f"`x` has {len(x)} cases, fewer than the {self.classes} classes: no model of every "
                "class can be learnt from them."
            )

    def _prepared(self, v, number):
        """Returns a batch and the uniform numbers of its update: wake, top RBM, sleep."""
        up, down = zip(*[layer.uniforms_per_step[::-1] for layer in self._lower], strict=True)
        cases = tf.shape(v)[0]
        chains = cases if self.top.chains is None else self.top.chains
        return (
            self._states(v, number),
            noise.uniforms((cases, sum(up)), self.seed, number, noise.Stream.WAKE),
            self.negative.draw(self.top.layer, cases, self.seed, number),
            noise.uniforms((chains, sum(down)), self.seed, number, noise.Stream.SLEEP),
        )

    def prepare(self, v, number, share=None):
        """Returns what update `number` needs of a batch: itself, and its uniform numbers."""
        return self._run_prepare(v, number)

    def update(self, v, wake, negative, sleep):
        """Makes one update of all weights and the metrics from a batch and its noise."""
        self._run_update(v, wake, negative, sleep)

    def test(self, v, number, share=None):
        """Adds a batch `(cases, visible)` to the metrics, by the noise of (seed, number)."""
        up = sum(layer.uniforms_per_step[1] for layer in self._lower)
        u = noise.uniforms((tf.shape(v)[0], up), self.seed, number, noise.Stream.TEST)
        v = self._states(v, number, noise.Stream.BINARIZE_TEST)
        x, label = self._parts_of(v)
        self._update_metrics(self._wake(x, u), label)

    def _states(self, v, number, stream=noise.Stream.BINARIZE):
        """Returns a batch as the bottom RBM learns from it: drawn, if it binarises."""
        first = self.below.rbms[0]
        if not first.binarize:
            return v
        x, label = self._parts_of(v)
        if stream == noise.Stream.BINARIZE:  # Its own training has used the numbers before these.
            number += first.updates.value
        return tf.concat([first.states(x, number, stream), label], axis=1)

    def _parts_of(self, v):
        v = tf.cast(v, self.top.layer.variable_dtype)
        return tf.split(v, [self._lower[0].W.shape[0], self.classes], axis=1)

    def _update(self, v, wake, negative, sleep):
        x, label = self._parts_of(v)
        layer = self.top.layer
        seen = self._wake(x, wake)
        top = tf.concat([seen[-1], label], axis=1)
        chain = None if self.top.chain is None else self.top.chain.value
        end, chain, counts = self.negative.end(layer, top, negative, chain)
        # The states at the end of the chains, and what they bring forth below; at the bottom the
        # means, as the cases are means where they are grey levels.
        asleep = end[:, : -self.classes]
        means, samples = sampling.descend(self._lower, asleep, sleep, self.generative)
        dreamt = [means[0], *samples[1:], asleep]
        self._update_metrics(seen, label)
        with tf.GradientTape() as tape:
            cost = self._generative_cost(seen) + self._recognition_cost(dreamt)
            cost += tf.reduce_mean(layer.free_energy(top))
            cost -= tf.reduce_mean(layer.free_energy(end))
            cost = self.optimizer.scale_loss(cost + sum(self.losses))
        variables = self.trainable_variables
        gradients = tape.gradient(cost, variables)
        means = ()
        if self.top.uses_means:
            means = tf.reduce_mean(top, axis=0), tf.reduce_mean(layer.propup(top)[1], axis=0)
        number = self.top.updates.value + self.updates.value
        gradients = self.top.changed(gradients, variables, means, number, self.optimizer)
        self.optimizer.apply(gradients, variables)
        self.negative.keep(chain, counts)
        self.updates.assign_add(1)

    def _wake(self, x, uniforms):
        """Returns the states of all layers below the top one, sampled from the bottom up."""
        states = [x]
        each = tf.split(uniforms, [layer.uniforms_per_step[1] for layer in self._lower], axis=1)
        for layer, u in zip(self._lower, each, strict=True):
            states.append(layer.sample_h_given_v(states[-1], u)[-1])
        return states

    def _generative_cost(self, states):
        """Returns -log p of each layer's states given those above, summed; the mean over cases."""
        parts = zip(self._lower, self.generative, states, states[1:], strict=False)
        return -sum(
            tf.reduce_mean(layer.visible.log_prob(lower, layer.propdown(upper, W)[0]))
            for layer, W, lower, upper in parts
        )

    def _recognition_cost(self, states):
        """Returns -log q of each layer's states given those below, summed; the mean over cases."""
        parts = zip(self._lower, states, states[1:], strict=False)
        return -sum(
            tf.reduce_mean(layer.hidden.log_prob(upper, layer.propup(lower)[0]))
            for layer, lower, upper in parts
        )

    def _update_metrics(self, states, label):
        for mean in self.metrics:
            if mean.name == "error":
                found = tf.argmax(self._log_probabilities(states[0]), axis=1)
                mean.update_state(tf.cast(found != tf.argmax(label, axis=1), tf.float32))
            else:
                layer = self._lower[0]
                pre_activation, _ = layer.propdown(states[1], self.generative[0])
                mean.update_state(-layer.visible.log_prob(states[0], pre_activation))

    # Classification -------------------------------------------------------------------------------

    def log_probabilities(self, x):
        """Computes log p(class | the case), for each class.

        The case goes up the layers by mean activations; from there the probabilities are those of
        the top RBM, exactly: a softmax of minus its free energies with each label in turn.

        Args:
            x: Array `(cases, visible)`.

        Returns:
            Tensor of shape `(cases, classes)`, in nats.

        Raises:
            ValueError: If the model is not built, or the cases have another width or range.
        """
        self._check_built()
        first = self._lower[0]
        x = checks.cases(x, first.visible, "x", first.W.shape[0])
        parts = [
            self._log_probabilities(x[at : at + _CASES_AT_ONCE])
            for at in range(0, len(x), _CASES_AT_ONCE)
        ]
        return tf.concat(parts, axis=0)

    def _up(self, x):
        for rbm in self.below.rbms:
            x = rbm(x)
        return tf.cast(x, self.top.layer.variable_dtype)

    def _log_probabilities(self, x):
        layer = self.top.layer
        h = self._up(x)
        # Of the free energy all but this is the same for every class.
        before, _ = layer.propup(
            tf.concat([h, tf.zeros((tf.shape(h)[0], self.classes), h.dtype)], 1)
        )
        weights = tf.cast(layer.W[-self.classes :], before.dtype)
        cumulants = [layer.hidden.cumulant(before + weights[c]) for c in range(self.classes)]
        bias = tf.cast(layer.vbias[-self.classes :], before.dtype)
        return tf.nn.log_softmax(tf.stack(cumulants, axis=1) + bias)

    def _check_built(self):
        if not self.built:
            raise ValueError("The GenerativeDBN is not built: `pretrain` it, or call `build`.")

    # Generation -----------------------------------------------------------------------------------

    def sample(self, label=None, chains=None, steps=1, start=None, seed=None):
        """Draws cases, of given classes or of any: Gibbs chains in the top RBM, then down.

        Args:
            label: The class that is held while the chains run: an integer for all chains, or one
                for each, integers `(chains,)`. None to draw labels with the cases: they are the
                last columns of `top.sample` in what is returned.
            chains: Number of chains; by default that of `label` or `start`, else 1.
            steps: Gibbs steps in the top RBM, an integer >= 1. The paper makes 1,000.
            start: Where the chains start: cases `(chains, visible)`, which go up by mean
                activations; what an earlier call returned, to go on with; `"noise"`, the default,
                for cases without bias (of bits, fair coins) that go up so, as in the paper. From
                coins in the layer below the top RBM, where the ways up and down never led, chains
                may end in what is no case.
            seed: Integer; by default the model's.

        Returns:
            `dbn.sampling.StackSamples`: `mean` to draw, `sample`, and `top`, the chains.

        Raises:
            ValueError: If the model is not built, or an argument is out of its range.
        """
        self._check_built()
        seed = self.seed if seed is None else checks.integer(seed, "seed", least=0)
        if label is not None:
            one = np.ndim(label) == 0
            label = checks.labels([label] if one else label, self.classes, name="label")
            if one and chains is not None:
                label = tf.repeat(label, checks.integer(chains, "chains"))
                one = False
        if isinstance(start, sampling.StackSamples):
            start = start.top
        else:
            if start is None or isinstance(start, str):
                if start not in (None, "noise"):
                    raise ValueError(f"`start` must be cases, samples or 'noise'; got {start!r}.")
                if chains is None:
                    chains = 1 if label is None else len(label)
                states = self._noise(checks.integer(chains, "chains"), seed)
            else:
                first = self._lower[0]
                states = self._risen(checks.cases(start, first.visible, "start", first.W.shape[0]))
            start = sampling.Samples(states, states, 0)
        clamp = None
        if label is not None:
            count = len(start.sample)
            if one:
                label = tf.repeat(label, count)
            if len(label) != count:
                raise ValueError(f"`label` is for {len(label)} chains, but there are {count}.")
            start = start._replace(sample=self._labelled(start.sample, label))
            clamp = self._label_columns()
        top = self.top.sample(chains, steps, start, clamp, seed)
        return sampling.bring_down(self._lower, top, seed, self.generative)

    def _risen(self, cases):
        """Returns visible states of the top RBM: cases that have gone up, beside all labels."""
        h = self._up(cases)
        # As likely as each other, until the first step draws one.
        labels = tf.fill((tf.shape(h)[0], self.classes), tf.cast(1 / self.classes, h.dtype))
        return tf.concat([h, labels], axis=1)

    def _noise(self, chains, seed):
        """Returns such states of cases without bias."""
        return self._risen(sampling.noise_states(self._lower[0], chains, seed))

    def _labelled(self, states, label):
        """Returns visible states of the top RBM with other labels."""
        one_hot = tf.one_hot(label, self.classes, dtype=states.dtype)
        return tf.concat([states[:, : -self.classes], one_hot], axis=1)

    def _label_columns(self):
        return np.arange(self.top.layer.W.shape[0]) >= self._lower[-1].units

    def export(self, filepath, verbose=True):
        """Writes a SavedModel that needs no code of this package, only TensorFlow.

        `tf.saved_model.load(filepath)` has two functions: `serve(x)`, the probabilities of the
        classes of float32 cases `(cases, visible)`; and `generate(labels, steps, seed)`, the `mean`
        of `sample` for int64 labels `(chains,)` and two int64 scalars.

        Args:
            filepath: Path of the folder.
            verbose: Whether to print what was written.

        Raises:
            ValueError: If the model is not built.
        """
        self._check_built()
        width = self._lower[0].W.shape[0]
        # A copy: the compiled training of this model and its RBMs would be saved, too.
        model = type(self).from_config(self.get_config())
        model.build((None, width))
        model.set_weights(self.get_weights())
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", model.call, [tf.TensorSpec((None, width), tf.float32, "x")])
        archive.add_endpoint(
            "generate",
            model._generate,
            [
                tf.TensorSpec((None,), tf.int64, "labels"),
                tf.TensorSpec((), tf.int64, "steps"),
                tf.TensorSpec((), tf.int64, "seed"),
            ],
        )
        archive.write_out(filepath, verbose=verbose)

    def _generate(self, labels, steps, seed):
        """Returns the `mean` of `sample`, from tensors alone."""
        layer = self.top.layer
        known = tf.debugging.Assert(
            tf.reduce_all((labels >= 0) & (labels < self.classes)),
            [f"labels must lie in 0 to {self.classes - 1}; got", labels],
        )
        some = tf.debugging.Assert(steps >= 1, ["steps must be >= 1; got", steps])
        with tf.control_dependencies([known, some]):
            start = self._noise(tf.shape(labels)[0], seed)
        start = self._labelled(start, labels)
        mask = tf.broadcast_to(self._label_columns(), tf.shape(start))
        mean, sample = sampling.chain(layer, start, mask, tf.constant(0, tf.int64), steps, seed)
        top = sampling.Samples(mean, sample, steps)
        return sampling.bring_down(self._lower, top, seed, self.generative).mean


def _check_types(stack):
    """Raises ValueError if the layers of a stack are not those of one density."""
    layers = [rbm.layer for rbm in stack.rbms]
    for number, layer in enumerate(layers, start=1):
        if not layer.hidden.exact:
            raise ValueError(
                f"Layer {number} has {layer.hidden.name!r} hidden units, which have no density."
            )
    for number, (lower, upper) in enumerate(zip(layers, layers[1:], strict=False), start=2):
        if not _same(lower.hidden, upper.visible):
            raise ValueError(
                f"Layer {number} has {upper.visible.name} visible units above "
                f"{lower.hidden.name} hidden ones; they are the same units, of one type."
            )


def _same(one, other):
    return type(one) is type(other) and one.get_config() == other.get_config()


def _described(units):
    if not isinstance(units, Mixed):
        return units.name
    return f"Mixed({[(kind.name, width) for kind, width in units.parts]})"


def _pair(data):
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            f"`validation_data` must be a pair (x, y) or a Dataset; got {type(data).__name__}."
        )
    return data
