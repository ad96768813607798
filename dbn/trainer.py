"""Trainer: Keras' `fit` and `evaluate` for a model that learns from x alone.

What is here: the arguments of `fit`, the way from arrays and Datasets to executions, and back to
the last good state when one fails. What an update is, the subclass knows.
"""

import contextlib
import warnings
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from dbn import (
    batches,
    checkpoints,
    checks,
    distribution,
    execution,
    likelihood,
    noise,
    replicas,
    sources,
)

__all__ = ["Trainer"]

_GAP_CASES = 5000
with tf.Graph().as_default():  # In the scope of no strategy.
    _UNSHARED = tf.distribute.get_strategy()
_BEGINS_ANEW = (
    "A Dataset must begin anew whenever it is iterated over; one of a generator that can be used "
    "only once does not."
)


class Trainer(keras.Model):
    """A Keras model that `fit` trains without labels; what is not overridden serves one `RBMLayer`.

    A subclass has the attributes `layer` (that `RBMLayer`), `seed`, and, once built, the weights
    `updates` and `epochs` (counters, of which an update advances the first); it defines
    `prepare(v, number, share=None)`, which gives what the update of that number needs of a batch,
    or of a replica's share of one, `update(*prepared)`, `test(v, number, share=None)`,
    `states(v, number, stream)`, what it learns from in place of the cases given, `compile(...)`
    with the arguments of `get_compile_config`, and `_compile_update()`, which makes the compiled
    functions that the first two call.

    Made in the scope of a `tf.distribute` strategy, it trains on all devices of that; what it
    learns is the same but for rounding.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The figures that can be logged, `keras.metrics.Mean` by name, and the names of those that
        # are.
        self._means, self._log_names = {}, ()
        self._log_gap = False
        # The array that is being fitted, an argument of each execution; held only while `fit` runs.
        self._resident = None
        self._steps_left = self._eval_epoch_iterator = self._progress = None
        # Batches that earlier tries of this `fit` have used: of epochs before, and of this one.
        self._behind = self._made = 0
        self._tested = 0
        self._is_running = False
        self._strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # It is built already; Keras' own cannot read the batches of several machines (keras#20585).
        pass

    def compile(self, optimizer, run_eagerly, steps_per_execution, jit_compile, log_gap):
        """Configures training; see `RBM.compile`.

        Args:
            optimizer: As in Keras.
            run_eagerly: As in Keras.
            steps_per_execution: As in Keras, or `"auto"`: what fits into 0.2 s.
            jit_compile: As in Keras, or `"auto"`: XLA wherever it can be.
            log_gap: Whether to log the free-energy gap after each epoch.

        Raises:
            ValueError: If steps_per_execution < 1.
        """
        if steps_per_execution != "auto":
            steps_per_execution = checks.integer(steps_per_execution, "steps_per_execution")
        if jit_compile == "auto":
            # Keras' own choice leaves XLA off on a CPU, where an update gains a factor of two.
            jit_compile = not run_eagerly
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        replicas.check_optimizer(optimizer, self._strategy)
        super().compile(optimizer=optimizer, run_eagerly=run_eagerly, jit_compile=jit_compile)
        self._steps_per_execution = steps_per_execution
        self._log_gap = log_gap

    def _add_counters(self):
        """Creates the weights `updates` and `epochs`."""
        self.updates, self.epochs = (
            self.add_weight(
                name=name,
                shape=(),
                initializer="zeros",
                dtype="int64",
                trainable=False,
                aggregation="only_first_replica",
            )
            for name in ("updates", "epochs")
        )

    @property
    def distribute_strategy(self):
        """The `tf.distribute` strategy that the model was made under, as in Keras."""
        # Keras' loops share batches out by it. Their iterators wait up to two seconds at the end of
        # every epoch (for tf.data's tuner), and the replicas take their shares themselves.
        return _UNSHARED if self._is_running else super().distribute_strategy

    @contextlib.contextmanager
    def _running(self):
        """While in it, Keras' loops read batches whole; what their ends say is made clear."""
        before, self._is_running = self._is_running, True  # `fit` calls `evaluate`.
        try:
            with distribution.lost_machines(self._strategy), _end_of_data_expected():
                yield
        finally:
            self._is_running = before

    @staticmethod
    def _named(metrics, known):
        """Returns the names of the metrics that `compile` was given, a list, all of them known."""
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in metrics:
            if name not in known:
                raise ValueError(
                    f"Unknown metric {name!r} in `metrics`; known: {', '.join(known)}."
                )
        return metrics

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
        """The running means that `fit` logs, in the order in which `compile` was given them."""
        names = dict.fromkeys(self._log_names)
        return [self._means[name] for name in names if name in self._means]

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
        checkpoint=None,
    ):
        """Trains by contrastive divergence; the arguments are those of `keras.Model.fit`.

        The order of an array's cases comes from (seed, `epochs`), the noise of an update from
        (seed, `updates`), so two calls with `epochs=5` equal one with `epochs=10` bit for bit; but
        for an optimizer that averages the weights, whose averages each call leaves as the weights.

        With `checkpoint`, a training that was killed, at whatever moment, goes on where the last
        checkpoint was written, and ends with the same bits as if it had never been killed. Ctrl-C
        and SIGTERM (exit code 143) write one at once. The same script does both: `epochs` is their
        number over all tries, and a call whose epochs are all made returns what they gave.

        Args:
            x: Array `(cases, visible)` with values in the range of the visible units; or
                `dbn.shards.Shards`, or a batched `tf.data.Dataset` of such arrays or of pairs
                (x, y), of which y is left alone, neither of which is ever held in memory whole. A
                Dataset is read in its own order, and its beginning more than once.
            y: Must be None: an RBM learns from x alone.
            batch_size: Cases an update, 32 by default; None for a Dataset. A last batch that is
                shorter counts by its own size. Under a `tf.distribute` strategy, that of all
                replicas together, and a multiple of their number.
            epochs: As in Keras, an integer >= 1.
            verbose: As in Keras.
            callbacks: A Keras callback or a list of them. Batch callbacks are called once an
                execution.
            validation_split: Share of an array x to hold out, from its end.
            validation_data: Held-out array, Dataset or shards, for the `val_` figures and
                `free_energy_gap`.
            shuffle: Whether to visit the cases of an array in a new random order each epoch; what
                that means for shards, `dbn.shards.Shards` says. A Dataset has its own order.
            class_weight: Must be None.
            sample_weight: Must be None.
            initial_epoch: As in Keras: the number the first epoch is shown under.
            steps_per_epoch: Updates an epoch. For an array or shards at most the number of their
                batches: each epoch makes the first so many of its order. A Dataset goes on from
                epoch to epoch where it was, and begins anew at its end.
            validation_steps: Batches of validation data to use, if fewer than all.
            validation_batch_size: Cases a validation batch, 500 by default; None for a Dataset.
            validation_freq: As in Keras.
            checkpoint: Path of a file, or a `dbn.checkpoints.Checkpoint`, to keep the training in
                and to go on from. Needs a seed that is the same in every try, and of a Dataset the
                same batches in every iteration; those that were used already are read again.

        Returns:
            Keras' `History`; figures in nats per case. With `checkpoint` it holds the epochs of
            earlier tries, too. Callbacks are not called again for those, and go on from what they
            remembered (`EarlyStopping` its best weights).

        Raises:
            ValueError: For arguments that an RBM has no use for, data of the wrong shape or range,
                a frozen Dense layer, batches of a Dataset out of range, and a checkpoint that is
                damaged or of another training: another model, other settings or data.
            OSError: If the checkpoint cannot be read or written; an earlier one is left whole.
            FloatingPointError: If parameters stop being finite, or a learnt variance falls to
                nothing; those of the execution before are restored.
            RuntimeError: If another machine of a `MultiWorkerMirroredStrategy` is lost.
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
        source, train, held_out, steps_per_epoch = self._train_batches(
            x, batch_size, validation_split, shuffle, steps_per_epoch, epoch
        )
        if self._strategy is not None:
            self._check_shares(train, source.array, batch_size)
        valid = self._validation_batches(
            validation_data if held_out is None else held_out,
            validation_batch_size,
            validation_steps,
            validation_freq,
        )
        self._prepare(source.width)
        progress, guarded, callbacks = None, contextlib.nullcontext(), _as_list(callbacks)
        if checkpoint is not None:
            settings = {
                "batch_size": batch_size,
                "shuffle": shuffle,
                "initial_epoch": initial_epoch,
                "x": source.digest(),
                "steps_per_epoch": steps_per_epoch or int(train.cardinality()),
            }
            callbacks, left = checkpoints.with_history(callbacks), epochs - initial_epoch
            progress = checkpoints.Progress(
                checkpoint, self, self._state(), self.updates, settings, callbacks, left
            )
            guarded, callbacks = progress.guarded(), [*callbacks, progress]
            initial_epoch += progress.done
        epoch.assign(self.epochs.value.read_value())
        bookkeeping = _Bookkeeping(epoch, steps_per_epoch)
        if self._log_gap:
            compared = source.first(_GAP_CASES), batches.first_cases(valid, _GAP_CASES)
            stream = noise.Stream.BINARIZE_GAP
            bookkeeping.compare(*(self.states(v, i, stream) for i, v in enumerate(compared)))
        self._resident = source.array
        try:
            self.make_train_function()
            if progress is not None:
                self._progress, self._made = progress, progress.made
                self._behind = progress.done * (steps_per_epoch or 0)
            with guarded, self._running():
                if initial_epoch < epochs:
                    self.steps_per_execution = self._find_steps_per_execution(
                        train, steps_per_epoch
                    )
                return super().fit(
                    train,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=[bookkeeping, *callbacks],
                    validation_data=None if valid is None else batches.numbered(valid),
                    shuffle=False,
                    initial_epoch=initial_epoch,
                    steps_per_epoch=steps_per_epoch,
                    validation_freq=validation_freq,
                )
        finally:
            self._resident = self._steps_left = self._eval_epoch_iterator = self._progress = None
            self._behind = self._made = 0
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
            x: Array `(cases, visible)`, Dataset or shards, as in `fit`.
            y: Must be None.
            batch_size: Cases a batch, 500 by default; None for a Dataset.
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
                with self.distribute_strategy.scope():
                    self.build((None, valid.element_spec.shape[1]))
        self._tested = 0
        with self._running():
            figures = super().evaluate(
                x, verbose=verbose, callbacks=callbacks, return_dict=return_dict, **kwargs
            )
        if not self._tested:
            raise ValueError(f"The validation data ran out. {_BEGINS_ANEW}")
        return figures

    def train_on_batch(self, *args, **kwargs):
        """Not supported: use `fit`, or `contrastive_divergence` in a loop of your own."""
        raise NotImplementedError(
            "An RBM has no `train_on_batch`: use `fit(x, steps_per_epoch=...)`, or "
            "`dbn.contrastive_divergence` in a `tf.GradientTape` loop."
        )

    def test_on_batch(self, *args, **kwargs):
        """Not supported: use `evaluate`."""
        raise NotImplementedError("An RBM has no `test_on_batch`: use `evaluate`.")

    def _compiled(self, function, jit_compile=None):
        """Returns the function as Keras' switches want it: eager, a graph, or XLA."""
        if self.run_eagerly:
            return function
        return tf.function(function, jit_compile=jit_compile, reduce_retracing=True)

    def predict(self, *args, **kwargs):
        """Returns what the model makes of cases, as in Keras, also from a callback of `fit`."""
        before, self.steps_per_execution = self.steps_per_execution, 1
        try:
            return super().predict(*args, **kwargs)
        finally:
            self.steps_per_execution = before

    def train_step(self, v):
        """Makes one update from a batch `(cases, visible)`; returns the metrics so far, a dict.

        For a loop of one's own: `fit` calls `prepare` and `update` itself.
        """
        self.update(*self.prepare(v, self.updates.value))
        return self.get_metrics_result()

    def make_train_function(self, force=False):
        """Makes the function that `fit` calls once an execution."""
        if self.train_function is not None and not force:
            return

        def updates(iterator, resident, steps):
            first = self.updates.value.read_value()

            def prepare(element, number, share=None):
                rows = element.dtype == tf.int64
                v = tf.gather(resident, element) if rows else element
                # Rows are of an array that was checked whole.
                valid = tf.constant(True) if rows else _usable(v, self.case_units, share)
                return self.prepare(v, first + number, share), valid

            def step(inputs):
                prepared, valid = inputs
                self.update(*prepared)
                return valid

            def step_of_replica(element, number):
                share = replicas.Share.own(element)
                return step(prepare(share.of(element), number, share))

            done, valid = self._loop(step, prepare, step_of_replica, iterator, steps)
            finite = [tf.reduce_all(tf.math.is_finite(w.value)) for w in self.trainable_variables]
            good = tf.reduce_all([*finite, self.case_units.sound()])
            return done, valid, good, self.get_metrics_result()

        self._run_updates = self._compiled(updates)

        def train_function(iterator):
            steps = self.steps_per_execution
            if self._steps_left is not None:
                steps = min(steps, self._steps_left)
                self._steps_left -= steps
            made = self._pass_over(iterator, steps)
            if made == steps:
                return self.get_metrics_result()
            steps -= made
            before = execution.Snapshot(self._state())
            if self._progress is not None:
                self._progress.before_execution(before)
            try:
                done, valid, good, logs = self._run_updates(
                    iterator, self._resident, tf.constant(steps, tf.int64)
                )
                if not (valid and good):
                    raise self._bad_execution(int(done), bool(valid))
            except BaseException as error:
                # Ctrl-C, too: run eagerly, an update may be half made.
                before.restore()
                if isinstance(error, tf.errors.InvalidArgumentError) and not len(self._resident):
                    # A batch of another shape, or an error in the user's own generator.
                    # Which one is not known: it is read while the update before it runs.
                    first = int(self.updates.numpy())
                    raise ValueError(
                        f"A batch of x, for one of the updates {first} to {first + steps - 1}, "
                        f"could not be read: {batches.reason(error)} The state before update "
                        f"{first} has been restored."
                    ) from error
                raise
            if not (done or made):
                raise StopIteration
            return logs

        self.train_function = train_function

    def _loop(self, step, prepare, step_of_replica, iterator, steps):
        """Runs steps, as `execution.loop` does; on every replica, where there are several."""
        if self._strategy is None:
            return execution.loop(step, iterator, steps, prepare)

        def step_of_all(inputs):
            valid = self._strategy.run(
                lambda *inputs: tf.cast(step_of_replica(*inputs), tf.int32), inputs
            )
            everywhere = self._strategy.reduce(tf.distribute.ReduceOp.SUM, valid, axis=None)
            return everywhere == self._strategy.num_replicas_in_sync

        return execution.loop(
            step_of_all, iterator, steps, lambda element, number: (element, number)
        )

    def remake(self):
        """Compiles the update anew, after a change of what it holds as a constant, such as k."""
        self._compile_update()
        self.make_train_function(force=True)

    def make_test_function(self, force=False):
        """Makes the function that `evaluate` calls once an execution."""
        if self.test_function is not None and not force:
            return
        test = self._compiled(self.test, self.jit_compile)

        def tests(iterator, steps):
            def step(inputs):
                number, v = inputs
                test(v, number)
                return _usable(v, self.case_units)

            def step_of_replica(element, _):
                number, v = element
                share = replicas.Share.own(v)
                v = share.of(v)
                self.test(v, number, share)
                return _usable(v, self.case_units, share)

            done, valid = self._loop(
                step, lambda element, _: element, step_of_replica, iterator, steps
            )
            return done, valid, self.get_metrics_result()

        tests = self._compiled(tests)

        def test_function(iterator):
            done, valid, logs = tests(iterator, tf.constant(self.steps_per_execution, tf.int64))
            if not done:
                raise StopIteration
            self._tested += int(done)
            if not valid:
                raise ValueError(f"A batch of the validation data {_not_usable(self.case_units)}.")
            return logs

        self.test_function = test_function

    def _pass_over(self, iterator, steps):
        """Passes over batches that earlier tries used; returns how many of these steps they are."""
        while self._behind:  # In pieces: Ctrl-C acts between them.
            piece = min(self._behind, 1000)
            execution.skip(iterator, tf.constant(piece, tf.int64))
            self._behind -= piece
        made = min(self._made, steps)
        if made:
            execution.skip(iterator, tf.constant(made, tf.int64))
            self._made -= made
        return made

    def _bad_execution(self, done, valid):
        first = int(self.updates.numpy()) - done
        where = f"one of the updates {first} to {first + done - 1}"
        kept = f"The state before update {first} has been restored."
        if not valid:
            return ValueError(f"A batch of x, at {where}, {_not_usable(self.case_units)}. {kept}")
        if all(np.all(np.isfinite(weight)) for weight in self.trainable_variables):
            return FloatingPointError(f"{self.case_units.unsoundness()} Seen at {where}. {kept}")
        return FloatingPointError(
            f"Weights or biases became NaN or infinite at {where}. {kept} A smaller learning rate, "
            "or `clipnorm=` in the optimizer, keeps them finite."
        )

    def _state(self):
        """Every variable that an execution changes."""
        variables = [*self.variables, *self.metrics_variables, *self.optimizer.variables]
        return list({id(variable): variable for variable in variables}.values())

    def _check_shares(self, train, x, batch_size):
        """Checks that the replicas can have equal shares of the batches and of the chains."""
        count = self._strategy.num_replicas_in_sync
        if not len(x):  # Not in memory.
            batch_size, name = len(next(iter(train.take(1)))), "the size of a batch of x"
        else:
            batch_size, name = 32 if batch_size is None else batch_size, "batch_size"
            if len(x) < count:
                raise ValueError(f"`x` has {len(x)} cases, fewer than the {count} replicas.")
        each = "each has an equal share."
        replicas.check_multiple(batch_size, count, name, each)
        if self.chains is not None:
            each += " Counted are those of one temperature."
            replicas.check_multiple(self.chains, count, "chains", each)

    def _find_steps_per_execution(self, train, steps_per_epoch):
        if self._steps_per_execution != "auto":
            return self._steps_per_execution
        if self.run_eagerly:
            return 1
        before = execution.Snapshot(self._state())
        probe, agreed = iter(train.take(1).cache().repeat()), lambda seconds: seconds
        if self._strategy is not None:
            agreed = partial(replicas.mean_of_machines, self._strategy)

        def run(steps):
            # Without a look at the weights: these updates, all from one batch, may well diverge.
            self._run_updates(probe, self._resident, tf.constant(steps, tf.int64))

        try:
            steps = execution.find_steps(run, agreed)
        finally:
            before.restore()
        epoch = steps_per_epoch or int(train.cardinality())
        # Executions of equal length, so that the last one of an epoch is not a short one.
        return steps if epoch < 0 else -(-epoch // -(-epoch // steps))

    def _prepare(self, width):
        """Builds what is not built yet, for data of this width, and checks that it is trainable."""
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, width))
        self._check_trainable()
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _check_trainable(self):
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

    @property
    def case_units(self):
        """The unit type of the cases that `fit` is given."""
        return self.layer.visible

    def _width(self):
        """Number of visible units, or None while it is not known."""
        return self.layer.W.shape[0] if self.layer.dense.built else None

    def _train_batches(self, x, batch_size, validation_split, shuffle, steps_per_epoch, epoch):
        """Makes the batches of `fit`.

        Returns:
            The `Source` of the cases; its batches, of rows of an array or of cases; the part held
            out of it, or None; and the steps of an epoch where they are counted rather than given
            by the batches, or None.
        """
        source = sources.of(x, self.case_units, self._width())
        checks.warn_of_scale(source.seen, self.case_units, source.seen_name)
        held_out = source.hold_out(validation_split) if validation_split else None
        train, steps = source.train(batch_size, shuffle, self.seed, epoch, steps_per_epoch)
        return source, train, held_out, steps

    def _validation_batches(self, data, batch_size, steps, freq):
        """Makes the batches that `fit` validates on; None without `validation_data`."""
        if data is not None:
            valid = self._test_batches(data, batch_size, "validation_batch_size", "validation_data")
            return batches.take(valid, steps, "validation_steps")
        if not (steps is batch_size is None and freq == 1):
            raise ValueError(
                "`validation_steps`, `validation_batch_size` and `validation_freq` need "
                "`validation_data` or `validation_split`."
            )
        if self._log_gap:
            raise ValueError("The metric `free_energy_gap` needs `validation_data`.")
        return None

    def _test_batches(self, x, batch_size, size_name, name):
        if isinstance(x, (tuple, list)) and x and np.ndim(x[0]) == 2:
            if any(part is not None for part in x[1:]):
                raise ValueError(f"`{name}` must be x alone: an RBM has no use for labels.")
            x = x[0]
        source = sources.of(x, self.case_units, self._width(), name)
        return source.test(batch_size, size_name)


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
        # Again: a callback may have taken the training up from elsewhere (BackupAndRestore).
        self._epoch.assign(self.model.epochs.value)
        self.model._steps_left = self._steps
        self._first = int(self.model.updates.numpy()) - self.model._made

    def on_epoch_end(self, epoch, logs=None):
        made, needed = int(self.model.updates.numpy()) - self._first, self._steps or 1
        if made < needed and not self.model.stop_training:
            raise ValueError(
                f"x ran out of data in epoch {epoch + 1}, after {made} updates. {_BEGINS_ANEW}"
            )
        self.model.epochs.assign_add(1)
        self._epoch.assign(self.model.epochs.value)
        if self._compared is not None:
            gap = likelihood.free_energy_gap(self.model.layer, *self._compared)
            logs["free_energy_gap"] = float(gap)


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


def _usable(v, units, share=None):
    cases = tf.shape(v)[0] if share is None else share.cases
    return units.valid(v) & (cases > 0)


def _not_usable(units):
    return f"holds no case, or {units.invalid}"
