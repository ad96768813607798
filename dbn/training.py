"""Contrastive divergence, and `RBM`: one layer trained by it through Keras' own `fit`."""

import contextlib
import random
import warnings

import keras
import numpy as np
import tensorflow as tf

from dbn import batches, checks, execution, likelihood, noise, sampling
from dbn.layers import RBMLayer

__all__ = ["RBM", "contrastive_divergence"]

_GAP_CASES = 5000
_TEST_BATCH_SIZE = 500


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
    k = checks.integer(k, "k")
    # Noise for one chain would pass unnoticed otherwise: it would serve all of them.
    needed = (k, (v if state is None else state).shape[0], sum(layer.uniforms_per_step))
    if not tf.TensorShape(noise.shape).is_compatible_with(needed):
        raise ValueError(
            f"`noise` must have shape {needed}, (k, chains, uniforms a step); got "
            f"{tuple(noise.shape)}."
        )
    if state is None:
        end = sampling.gibbs_vhv(layer, v, noise, k)
    else:
        end, state = sampling.gibbs_hvh(layer, state, noise, k)
        state = tf.stop_gradient(state)
    end = tf.stop_gradient(end)
    cost = tf.reduce_mean(layer.free_energy(v)) - tf.reduce_mean(layer.free_energy(end))
    return cost + sum(layer.losses), state


@keras.saving.register_keras_serializable(package="dbn")
class RBM(keras.Model):
    """One `RBMLayer`, trained by contrastive divergence through Keras' `fit`.

    Args:
        layer: An `RBMLayer`, or an integer n, short for `RBMLayer(n)`.
        k: Number of Gibbs steps an update, an integer >= 1.
        persistent: False for CD-k, whose chains start at the data of each update; True for PCD-k,
            whose chains go on from update to update.
        chains: Number of persistent chains, an integer >= 1, independent of the batch size.
        seed: Integer that all random numbers and the data order come from. By default drawn when
            the model is made, so `keras.utils.set_random_seed` governs it.
        **kwargs: `name`, `dtype`, `trainable` of `keras.Model`.

    `model(v)` gives the mean hidden activations, `(cases, hidden)`.

    Attributes:
        layer: The `RBMLayer`.
        chain: Hidden states of the persistent chains, a weight of shape `(chains, hidden)`, zeros
            at first as in the tutorial; None for CD.
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

    def __init__(self, layer, k=1, persistent=False, chains=100, seed=None, **kwargs):
        if not isinstance(layer, RBMLayer):
            if isinstance(layer, keras.layers.Layer) or not hasattr(layer, "__index__"):
                raise ValueError(
                    f"`layer` must be an RBMLayer or a number of hidden units; got {layer!r}."
                )
            layer = RBMLayer(layer)
        super().__init__(**kwargs)
        self.layer = layer
        self.k = checks.integer(k, "k")
        self.persistent = bool(persistent)
        self.chains = checks.integer(chains, "chains")
        self.seed = checks.integer(_default_seed() if seed is None else seed, "seed", least=0)
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("pseudo_log_likelihood", "reconstruction_cross_entropy")
        }
        self._log_names = ()
        # The array that is being fitted, an argument of each execution; held only while `fit` runs.
        self._resident = None
        self._steps_left = self._eval_epoch_iterator = None

    # What a Keras model is ------------------------------------------------------------------------

    def build(self, input_shape):
        """Creates the layer's variables, the chains and the counters."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.chain = None
        if self.persistent:
            self.chain = self.add_weight(
                name="chain",
                shape=(self.chains, self.layer.units),
                initializer="zeros",
                trainable=False,
            )
        self.updates, self.epochs = (
            self.add_weight(
                name=name, shape=(), initializer="zeros", dtype="int64", trainable=False
            )
            for name in ("updates", "epochs")
        )

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
            "k": self.k,
            "persistent": self.persistent,
            "chains": self.chains,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        """Returns a model made from what `get_config` returned."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name]) for name in ("layer", "dtype")
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
                second for CD, as in the tutorial.
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
            metrics = [
                "pseudo_log_likelihood" if self.persistent else "reconstruction_cross_entropy"
            ]
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        known = (*self._means, "free_energy_gap")
        for name in metrics:
            if name not in known:
                raise ValueError(
                    f"Unknown metric {name!r} in `metrics`; known: {', '.join(known)}."
                )
        if steps_per_execution != "auto":
            steps_per_execution = checks.integer(steps_per_execution, "steps_per_execution")
        if jit_compile == "auto":
            # Keras' own choice leaves XLA off on a CPU, where an update gains a factor of two.
            jit_compile = not (run_eagerly or tf.distribute.has_strategy())
        super().compile(optimizer=optimizer, run_eagerly=run_eagerly, jit_compile=jit_compile)
        self._steps_per_execution = steps_per_execution
        self._log_names = tuple(metrics)
        self._run_draw = self._compiled(self._draw, self.jit_compile)
        self._run_update = self._compiled(self._update, self.jit_compile)

    def get_compile_config(self):
        """Returns the arguments of `compile`, serialised."""
        if not self.compiled:
            return {}
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "metrics": list(self._log_names),
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self._steps_per_execution,
            "jit_compile": self.jit_compile,
        }

    def compile_from_config(self, config):
        """Compiles with what `get_compile_config` returned, and builds the optimizer's state."""
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        self.compile(**{**config, "optimizer": optimizer})
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        """The running means that `fit` logs."""
        return [mean for name, mean in self._means.items() if name in self._log_names]

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains by contrastive divergence; the arguments are those of `keras.Model.fit`.

        The order of an array's cases comes from (seed, `epochs`), the noise of an update from
        (seed, `updates`), so two calls with `epochs=5` equal one with `epochs=10` bit for bit.

        Args:
            x: Array `(cases, visible)` with values in the range of the visible units, or a batched
                `tf.data.Dataset` of such arrays or of pairs (x, y), of which y is left alone. A
                Dataset is read in its own order and never held in memory; its beginning is read
                more than once.
            y: Must be None: an RBM learns from x alone.
            batch_size: Cases an update, 32 by default; None for a Dataset. A last batch that is
                shorter counts by its own size.
            epochs: As in Keras, an integer >= 1.
            verbose: As in Keras.
            callbacks: A Keras callback or a list of them. Batch callbacks are called once an
                execution.
            validation_split: Share of an array x to hold out, from its end.
            validation_data: Held-out array or Dataset, for the `val_` figures and
                `free_energy_gap`.
            shuffle: Whether to visit the cases of an array in a new random order each epoch.
            class_weight: Must be None.
            sample_weight: Must be None.
            initial_epoch: As in Keras: the number the first epoch is shown under.
            steps_per_epoch: Updates an epoch. For an array at most the number of its batches: each
                epoch makes the first so many of its order. A Dataset goes on from epoch to epoch
                where it was, and begins anew at its end.
            validation_steps: Batches of validation data to use, if fewer than all.
            validation_batch_size: Cases a validation batch, 500 by default; None for a Dataset.
            validation_freq: As in Keras.

        Returns:
            Keras' `History`; figures in nats per case.

        Raises:
            ValueError: For arguments that an RBM has no use for, data of the wrong shape or range,
                a frozen Dense layer, and batches of a Dataset out of range.
            FloatingPointError: If parameters stop being finite; those of the execution before are
                restored.
        """
        self._assert_compile_called("fit")
        _refuse(y=y, class_weight=class_weight, sample_weight=sample_weight)
        checks.integer(epochs, "epochs")
        checks.integer(initial_epoch, "initial_epoch", least=0)
        if not isinstance(validation_freq, list):
            validation_freq = checks.integer(validation_freq, "validation_freq")
        if not isinstance(shuffle, bool):
            raise ValueError(f"`shuffle` must be True or False; got {shuffle!r}.")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            raise ValueError("`callbacks` must be a list of callbacks, not a CallbackList.")
        if validation_split and validation_data is not None:
            raise ValueError("Give either `validation_split` or `validation_data`, not both.")
        # Read by tf.data, which runs on the CPU.
        with tf.device("CPU"):
            epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        if isinstance(x, tf.data.Dataset):
            if batch_size is not None or validation_split:
                raise ValueError(
                    "`batch_size` and `validation_split` are for arrays; batch the Dataset itself, "
                    "and give `validation_data`."
                )
            train, first = batches.stream(x, self.layer.visible, self._width())
            width, resident = first.shape[1], None
            if steps_per_epoch is None:
                train = batches.take(train, None, "steps_per_epoch")
            else:
                steps_per_epoch = checks.integer(steps_per_epoch, "steps_per_epoch")
                train = train.repeat()
        else:
            x = checks.cases(x, self.layer.visible, "x", self._width())
            if validation_split:
                x, validation_data = _split(x, validation_split)
            width, resident = x.shape[1], x
            batch_size = checks.integer(32 if batch_size is None else batch_size, "batch_size")
            train = batches.rows(len(x), batch_size, shuffle, self.seed, epoch)
            train = batches.take(train, steps_per_epoch, "steps_per_epoch")
            steps_per_epoch = None
        if validation_data is not None:
            valid = self._test_batches(
                validation_data, validation_batch_size, "validation_batch_size", "validation_data"
            )
            valid = batches.take(valid, validation_steps, "validation_steps")
            validation_data = batches.numbered(valid)
        elif not (validation_steps is validation_batch_size is None and validation_freq == 1):
            raise ValueError(
                "`validation_steps`, `validation_batch_size` and `validation_freq` need "
                "`validation_data` or `validation_split`."
            )
        elif "free_energy_gap" in self._log_names:
            raise ValueError("The metric `free_energy_gap` needs `validation_data`.")
        self._prepare(width)
        epoch.assign(self.epochs.value)
        bookkeeping = _Bookkeeping(epoch, steps_per_epoch)
        if "free_energy_gap" in self._log_names:
            bookkeeping.compare(
                batches.first_cases(train, _GAP_CASES) if resident is None else x[:_GAP_CASES],
                batches.first_cases(valid, _GAP_CASES),
            )
        # Streams have no resident array; an empty one keeps a single signature.
        self._resident = tf.zeros((0, width)) if resident is None else resident
        try:
            self.make_train_function()
            self.steps_per_execution = self._find_steps_per_execution(train, steps_per_epoch)
            with _end_of_data_expected():
                return super().fit(
                    train,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=[bookkeeping, *_as_list(callbacks)],
                    validation_data=validation_data,
                    shuffle=False,
                    initial_epoch=initial_epoch,
                    steps_per_epoch=steps_per_epoch,
                    validation_freq=validation_freq,
                )
        finally:
            self._resident = self._steps_left = self._eval_epoch_iterator = None
            self.steps_per_execution = 1

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """Computes the metrics on held-out cases, as `fit` does for `validation_data`.

        Args:
            x: Array `(cases, visible)` or Dataset, as in `fit`.
            y: Must be None.
            batch_size: Cases a batch of an array, 500 by default; None for a Dataset.
            verbose: As in Keras.
            sample_weight: Must be None.
            steps: Batches to use, if fewer than all.
            callbacks: As in Keras.
            return_dict: Whether to return a dict rather than a list.
            **kwargs: What Keras hands on from inside `fit`.

        Returns:
            The metrics, nats per case.

        Raises:
            ValueError: As `fit` does.
        """
        if not kwargs:  # Inside `fit`, the batches have been made already.
            self._assert_compile_called("evaluate")
            _refuse(y=y, sample_weight=sample_weight)
            valid = self._test_batches(x, batch_size, "batch_size", "x")
            x = batches.numbered(batches.take(valid, steps, "steps"))
            if not self.built:
                self.build((None, valid.element_spec.shape[1]))
        with _end_of_data_expected():
            return super().evaluate(
                x, verbose=verbose, callbacks=callbacks, return_dict=return_dict, **kwargs
            )

    def train_step(self, v):
        """Makes one update from a batch `(cases, visible)`; returns the metrics so far, a dict."""
        chains = self.chains if self.persistent else tf.shape(v)[0]
        # Drawn apart: compiled into the update, the numbers would be made anew at every use.
        self._run_update(v, self._run_draw(chains))
        return self.get_metrics_result()

    def test_step(self, data):
        """Adds a batch `(number, cases)` to the metrics; returns them so far, a dict.

        The noise is that of (seed, number): the same bits every epoch.
        """
        number, v = data
        width = v.shape[1]
        u = noise.uniforms(
            (tf.shape(v)[0], 1 + self.layer.uniforms_per_step[1]),
            self.seed,
            number,
            noise.Stream.TEST,
        )
        # u < 1, but its product with the width may round up to it.
        bit = tf.minimum(tf.cast(u[:, 0] * width, tf.int32), width - 1)
        self._update_metrics(v, bit, u[:, 1:])
        return self.get_metrics_result()

    def train_on_batch(self, *args, **kwargs):
        """Not supported: use `fit`, or `contrastive_divergence` in a loop of your own."""
        raise NotImplementedError(
            "An RBM has no `train_on_batch`: use `fit(x, steps_per_epoch=...)`, or "
            "`dbn.contrastive_divergence` in a `tf.GradientTape` loop."
        )

    def test_on_batch(self, *args, **kwargs):
        """Not supported: use `evaluate`."""
        raise NotImplementedError("An RBM has no `test_on_batch`: use `evaluate`.")

    # How training runs ----------------------------------------------------------------------------

    def _draw(self, chains):
        return sampling.gibbs_noise(self.layer, chains, self.k, self.seed, self.updates.value)

    def _update(self, v, uniforms):
        state = self.chain.value if self.persistent else None
        with tf.GradientTape() as tape:
            cost, state = contrastive_divergence(self.layer, v, state, uniforms, self.k)
            cost = self.optimizer.scale_loss(cost)
        gradients = tape.gradient(cost, self.trainable_variables)
        # At the weights before the update, as in the tutorial.
        bit = tf.cast(self.updates.value % v.shape[1], tf.int32)
        hidden = self.layer.uniforms_per_step[1]
        if not self.persistent:
            # The chain's own first step: XLA computes it once.
            self._update_metrics(v, bit, uniforms[0, :, -hidden:])
        elif "reconstruction_cross_entropy" in self._log_names:
            shape = (tf.shape(v)[0], hidden)
            stream = noise.Stream.METRIC
            u = noise.uniforms(shape, self.seed, self.updates.value, stream)
            self._update_metrics(v, bit, u)
        else:
            self._update_metrics(v, bit, None)
        self.optimizer.apply(gradients, self.trainable_variables)
        if self.persistent:
            self.chain.assign(state)
        self.updates.assign_add(1)

    def _update_metrics(self, v, bit, uniforms):
        for mean in self.metrics:
            if mean.name == "pseudo_log_likelihood":
                mean.update_state(likelihood.pseudo_log_likelihood(self.layer, v, bit))
            else:
                mean.update_state(likelihood.reconstruction_cross_entropy(self.layer, v, uniforms))

    def _compiled(self, function, jit_compile=None):
        """Returns the function as Keras' switches want it: eager, a graph, or XLA."""
        if self.run_eagerly:
            return function
        return tf.function(function, jit_compile=jit_compile, reduce_retracing=True)

    def make_train_function(self, force=False):
        """Makes the function that `fit` calls once an execution."""
        if self.train_function is not None and not force:
            return

        def updates(iterator, resident, steps):
            def step(element):
                if element.dtype == tf.int64:  # Row numbers of an array, which was checked whole.
                    self.train_step(tf.gather(resident, element))
                    return tf.constant(True)
                self.train_step(element)
                return _usable(element, self.layer.visible)

            done, valid = execution.loop(step, iterator, steps)
            finite = [tf.reduce_all(tf.math.is_finite(w.value)) for w in self.trainable_variables]
            return done, valid, tf.reduce_all(finite), self.get_metrics_result()

        self._run_updates = self._compiled(updates)

        def train_function(iterator):
            steps = self.steps_per_execution
            if self._steps_left is not None:
                steps = min(steps, self._steps_left)
                self._steps_left -= steps
            before = execution.Snapshot(self._state())
            try:
                done, valid, finite, logs = self._run_updates(
                    iterator, self._resident, tf.constant(steps, tf.int64)
                )
                if not (valid and finite):
                    raise self._bad_execution(int(done), bool(valid))
            except tf.errors.InvalidArgumentError as error:
                # A batch of another shape, or an error in the user's own generator.
                failed = int(self.updates.value)
                before.restore()
                raise ValueError(
                    f"The batch of x for update {failed} could not be read: {error.message} "
                    f"The state before update {int(self.updates.value)} has been restored."
                ) from error
            except BaseException:
                # Ctrl-C, too: run eagerly, an update may be half made.
                before.restore()
                raise
            if not done:
                raise StopIteration
            return logs

        self.train_function = train_function

    def make_test_function(self, force=False):
        """Makes the function that `evaluate` calls once an execution."""
        if self.test_function is not None and not force:
            return
        test_step = self._compiled(self.test_step, self.jit_compile)

        def tests(iterator, steps):
            def step(data):
                test_step(data)
                return _usable(data[1], self.layer.visible)

            done, valid = execution.loop(step, iterator, steps)
            return done, valid, self.get_metrics_result()

        tests = self._compiled(tests)

        def test_function(iterator):
            done, valid, logs = tests(iterator, tf.constant(self.steps_per_execution, tf.int64))
            if not done:
                raise StopIteration
            if not valid:
                raise ValueError(
                    f"A batch of the validation data {_not_usable(self.layer.visible)}."
                )
            return logs

        self.test_function = test_function

    def _bad_execution(self, done, valid):
        first = int(self.updates.value) - done
        where = f"one of the updates {first} to {first + done - 1}"
        kept = f"The state before update {first} has been restored."
        if not valid:
            return ValueError(
                f"A batch of x, at {where}, {_not_usable(self.layer.visible)}. {kept}"
            )
        return FloatingPointError(
            f"Weights or biases became NaN or infinite at {where}. {kept} A smaller learning rate, "
            "or `clipnorm=` in the optimizer, keeps them finite."
        )

    def _state(self):
        """Every variable that an execution changes."""
        variables = [*self.variables, *self.optimizer.variables]
        return list({id(variable): variable for variable in variables}.values())

    def _find_steps_per_execution(self, train, steps_per_epoch):
        if self._steps_per_execution != "auto":
            return self._steps_per_execution
        if self.run_eagerly:
            return 1
        before = execution.Snapshot(self._state())
        probe = iter(train.take(1).cache().repeat())

        def run(steps):
            # Without a look at the weights: these updates, all from one batch, may well diverge.
            self._run_updates(probe, self._resident, tf.constant(steps, tf.int64))

        try:
            steps = execution.find_steps(run)
        finally:
            before.restore()
        epoch = steps_per_epoch or int(train.cardinality())
        # Executions of equal length, so that the last one of an epoch is not a short one.
        return steps if epoch < 0 else -(-epoch // -(-epoch // steps))

    def _prepare(self, width):
        """Builds what is not built yet, for data of this width, and checks that it is trainable."""
        if not self.built:
            self.build((None, width))
        self.layer.check_dense()
        trainable = {id(variable) for variable in self.trainable_variables}
        if not {id(self.layer.W), id(self.layer.hbias)} <= trainable:
            # The outermost: what is set there, Keras hands on to what is inside.
            parts = {"rbm": self, "rbm.layer": self.layer, "rbm.layer.dense": self.layer.dense}
            frozen = [name for name, part in parts.items() if not part.trainable]
            raise ValueError(
                "The RBM's Dense layer is frozen (`trainable=False`), so W and hbias cannot be "
                f"trained. Set `{[*frozen, 'rbm.layer.dense'][0]}.trainable = True`."
            )
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def _width(self):
        """Number of visible units, or None while it is not known."""
        return self.layer.W.shape[0] if self.layer.dense.built else None

    def _test_batches(self, x, batch_size, size_name, name):
        visible = self.layer.visible
        if isinstance(x, tf.data.Dataset):
            if batch_size is not None:
                raise ValueError(
                    f"`{size_name}` is for arrays; {name} is a Dataset: batch it itself."
                )
            return batches.stream(x, visible, self._width(), name)[0]
        if isinstance(x, (tuple, list)) and x and np.ndim(x[0]) == 2:
            if any(part is not None for part in x[1:]):
                raise ValueError(f"`{name}` must be x alone: an RBM has no use for labels.")
            x = x[0]
        batch_size = checks.integer(
            _TEST_BATCH_SIZE if batch_size is None else batch_size, size_name
        )
        x = checks.cases(x, visible, name, self._width())
        return tf.data.Dataset.from_tensor_slices(x).batch(batch_size)

    # Sampling -------------------------------------------------------------------------------------

    def sample(self, chains=None, steps=1, start=None, clamp=None, seed=None):
        """Draws from the model by Gibbs chains.

        Args:
            chains: Number of chains; by default that of `start`, and 1 for `"noise"`.
            steps: Gibbs steps, an integer >= 1.
            start: Where the chains start: visible states `(chains, visible)`; the `Samples` that
                an earlier call returned, to go on with; `"noise"` for fair coins; `"persistent"`
                for the chains of PCD. The default is the last for PCD, `"noise"` for CD.
            clamp: Boolean mask, `(visible,)` or `(chains, visible)`, of units that keep the value
                they have in `start`: the others are sampled given them (inpainting).
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
                chains = self.chains if start == "persistent" else 1
            start = self._start(start, chains, seed)
        elif not isinstance(start, sampling.Samples):
            start = checks.cases(start, self.layer.visible, "start", self._width())
        shape = tuple((start.sample if isinstance(start, sampling.Samples) else start).shape)
        if shape[1:] != (self._width(),):
            raise ValueError(f"`start` must have width {self._width()}; got shape {shape}.")
        if chains not in (None, shape[0]):
            raise ValueError(f"`chains` is {chains}, but `start` has {shape[0]} chains.")
        if clamp is not None:
            clamp = np.asarray(clamp)
            if clamp.dtype != bool or clamp.shape not in (shape, shape[1:]):
                raise ValueError(
                    f"`clamp` must be a boolean mask of shape {shape[1:]} or {shape}; got "
                    f"{clamp.dtype} of shape {clamp.shape}."
                )
        return sampling.sample(self.layer, start, steps, seed, clamp)

    def _start(self, start, chains, seed):
        chains = checks.integer(chains, "chains")
        u = noise.uniforms((chains, self._width()), seed, stream=noise.Stream.START)
        if start == "noise":
            return tf.cast(u < 0.5, self.layer.variable_dtype)
        if start == "persistent" and self.persistent:
            if chains > self.chains:
                raise ValueError(
                    f"`chains` must be at most {self.chains}, the number of persistent chains; got "
                    f"{chains}."
                )
            return self.layer.sample_v_given_h(self.chain.value[:chains], u)[-1]
        raise ValueError(
            f"`start` must be an array, Samples, 'noise', or (with persistent=True) 'persistent'; "
            f"got {start!r}."
        )


class _Bookkeeping(keras.callbacks.Callback):
    """What `fit` does for an RBM where an epoch begins and ends, before any other callback.

    Args:
        epoch: `tf.Variable` that the data order reads.
        steps: Updates an epoch, if they are counted rather than given by the data.
    """

    def __init__(self, epoch, steps):
        super().__init__()
        self._epoch, self._steps, self._compared = epoch, steps, None

    def compare(self, train, valid):
        """Logs the free-energy gap between these cases, cut to equally many."""
        count = min(len(train), len(valid))
        self._compared = train[:count], valid[:count]

    def on_epoch_begin(self, epoch, logs=None):
        self.model._steps_left = self._steps
        self._first = int(self.model.updates.value)

    def on_epoch_end(self, epoch, logs=None):
        made, needed = int(self.model.updates.value) - self._first, self._steps or 1
        if made < needed and not self.model.stop_training:
            raise ValueError(
                f"x ran out of data in epoch {epoch + 1}, after {made} updates. A Dataset must "
                "begin anew whenever it is iterated over; one of a generator that can be used only "
                "once does not."
            )
        self.model.epochs.assign_add(1)
        self._epoch.assign(self.model.epochs.value)
        if self._compared is not None:
            gap = likelihood.free_energy_gap(self.model.layer, *self._compared)
            logs["free_energy_gap"] = float(gap)


def _default_seed():
    # As Keras draws its own: from Python's generator, which `set_random_seed` seeds.
    return random.randint(1, 10**9)


def _as_list(callbacks):
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


@contextlib.contextmanager
def _end_of_data_expected():
    """Silences Keras' warning: the end of a Dataset of unknown length is no interruption."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


def _refuse(**arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` must be None: an RBM learns from x alone, unweighted.")


def _usable(v, units):
    return checks.valid(v, units) & (tf.shape(v)[0] > 0)


def _not_usable(units):
    return f"holds no case, or NaN, infinity or values outside [{units.low:g}, {units.high:g}]"


def _split(x, share):
    if not 0 < share < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1; got {share!r}.")
    count = int(len(x) * (1 - share))
    if count in (0, len(x)):
        raise ValueError(f"`validation_split={share}` of {len(x)} cases leaves an empty part.")
    return x[:count], x[count:]
