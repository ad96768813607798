"""Checkpoints: a training that is killed at any moment goes on, and ends with the same bits.

A checkpoint is one file. A new one is written beside it and takes its place once it is whole and on
the disk, so there is a good one at any moment. It holds arrays and text alone: to read one executes
nothing, and one that is damaged, or of another training, is refused.
"""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from dbn import batches, checks, distribution, fine_tuning, replicas
from dbn.checkpoint_files import START_OVER, digest, first_batch_digest, read, write
from dbn.plain import difference, from_plain, memory, plain, recall, settings_of

__all__ = [
    "Checkpoint",
    "Progress",
    "digest",
    "fit",
    "first_batch_digest",
    "read",
    "with_history",
    "write",
]


class Checkpoint:
    """Where a training keeps what it needs to go on, and how often.

    Args:
        path: The file, made when training begins; for `DBN.pretrain`, the folder of one a layer.
        every: Updates from one checkpoint to the next, an integer >= 1. They are written between
            two executions (a fifth of a second), and once more in the end.

    Raises:
        ValueError: If `path` is no path, or every < 1.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> def train():
    ...     rbm = dbn.RBM(4, seed=0)
    ...     rbm.compile(keras.optimizers.SGD(0.1))
    ...     kept = Checkpoint("runs/rbm.checkpoint", every=500)
    ...     return rbm, rbm.fit(x, epochs=3, verbose=0, checkpoint=kept).history
    >>> first, history = train()
    >>> again, same = train()  # Nothing is left to do: what the first one learnt is read.
    >>> bool(tf.reduce_all(first.layer.W == again.layer.W)), history == same
    (True, True)
    """

    def __init__(self, path, every=1000):
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"`checkpoint` must be a path or a `Checkpoint`; got {path!r}.")
        self.path = Path(path)
        self.every = checks.integer(every, "every")

    @classmethod
    def of(cls, given):
        """Returns what is given if it is a `Checkpoint`, and one at that path otherwise."""
        return given if isinstance(given, cls) else cls(given)

    def of_layer(self, number):
        """Returns that of one layer of a stack, counted from 1: a file in the folder `path`."""
        return Checkpoint(self.path / f"rbm_{number}.checkpoint", self.every)


def fit(
    model,
    x,
    y=None,
    *,
    checkpoint,
    batch_size=None,
    epochs=1,
    shuffle=True,
    seed=0,
    callbacks=None,
    **kwargs,
):
    """Trains any Keras model as `model.fit` does, and goes on from a checkpoint if there is one.

    Killed at any moment and called again by the same script, it ends with the same weights, to the
    last bit, as if it had never been killed. The checkpoint is written after each epoch; an epoch
    that was broken off begins anew. Keras' own order of the data is no function of a seed and the
    epoch, so here it is.

    Args:
        model: A `keras.Model`, built and compiled. Its optimizer's state and its seed generators
            are kept, too.
        x: Array of cases, or a dict, list or tuple of such arrays; or a batched `tf.data.Dataset`
            of what `model.fit` takes, which is read in its own order, the same in every epoch.
        y: Targets, likewise; None for a Dataset.
        checkpoint: Path of the file.
        batch_size: Cases an update, 32 by default; None for a Dataset.
        epochs: Epochs in all, over all tries.
        shuffle: Whether to visit the cases of an array in an order drawn from (seed, epoch).
        seed: Integer >= 0.
        callbacks: A Keras callback or a list of them. What they remember from epoch to epoch
            (numbers, texts, lists and dicts of those, variables, and arrays that they have
            replaced, such as the best weights of `EarlyStopping`) is kept, too.
        **kwargs: Other arguments of `model.fit`, such as `validation_data` and `verbose`.

    Returns:
        Keras' `History`, whole: with the epochs of earlier tries. Callbacks are not called again
        for those.

    Raises:
        ValueError: If the model is not built or compiled, an argument has no place here, y holds no
            numbers, the arrays y or of `validation_data` are no labels for the softmax layer at the
            end of a `keras.Sequential`, the replicas of a distribution strategy cannot have equal
            shares, or the checkpoint is damaged or of another training: another model, other
            settings or data.
        OSError: If the checkpoint cannot be read or written; an earlier one is left whole.

    Example:

    >>> x, y = np.eye(4, dtype="float32"), np.arange(4) % 2
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> history = fit(model, x, y, checkpoint="runs/model.checkpoint", epochs=3, verbose=0)
    >>> len(history.history["loss"])
    3
    """
    for name in ("initial_epoch", "sample_weight", "steps_per_epoch", "validation_split"):
        value = kwargs.pop(name, None)
        if value is not None and np.any(value):
            raise ValueError(f"`{name}` has no place in `dbn.checkpoints.fit`.")
    if isinstance(checkpoint, Checkpoint):
        raise ValueError("`checkpoint` must be a path: it is written after each epoch here.")
    if not (model.built and model.compiled):
        raise ValueError(
            "The model must be compiled, and built: give it a `keras.Input`, or call it once."
        )
    epochs = checks.integer(epochs, "epochs")
    # Read by tf.data, which runs on the CPU.
    with tf.device("CPU"):
        epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    settings = {"shuffle": shuffle, "seed": checks.integer(seed, "seed", least=0)}
    settings["class_weight"] = kwargs.get("class_weight")
    if isinstance(x, tf.data.Dataset):
        if y is not None or batch_size is not None:
            raise ValueError("`y` and `batch_size` are for arrays: batch the Dataset x itself.")
        if int(x.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise ValueError("`x` is an infinite Dataset, an epoch of which would never end.")
        data, settings["x"] = x, first_batch_digest(x)
    else:
        batch_size = checks.integer(32 if batch_size is None else batch_size, "batch_size")
        num_classes = fine_tuning.classes(model)
        if num_classes is None:
            _check_numbers(y)
        else:
            checks.targets(y, num_classes, fewest=num_classes)
            if isinstance(kwargs.get("validation_data"), (tuple, list)):
                checks.targets(kwargs["validation_data"][1], num_classes, "validation_data")
        # A list would become one tensor to tf.data.
        arrays = keras.tree.lists_to_tuples(x if y is None else (x, y))
        arrays = tf.nest.map_structure(_as_tensor, arrays)
        lengths = {len(array) for array in tf.nest.flatten(arrays)}
        if len(lengths) != 1:
            raise ValueError(f"x and y must have equally many cases; got {sorted(lengths)}.")
        if not all(lengths):
            raise ValueError("x and y are empty.")
        distribution.check_shares(lengths.pop(), batch_size, model.distribute_strategy)
        data = batches.gathered(arrays, batch_size, shuffle, seed, epoch)
        settings |= {"x and y": digest(arrays), "batch_size": batch_size}
        if not isinstance(kwargs.get("validation_data"), (tf.data.Dataset, type(None))):
            kwargs.setdefault("validation_batch_size", batch_size)  # As in Keras.
    strategy = model.distribute_strategy
    if not model.optimizer.built:
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    # With gradient accumulation, its `iterations` is no variable.
    counting = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    counter = next(v for v in counting.variables if v.name == "iteration")
    callbacks = with_history(callbacks)
    progress = Progress(
        Checkpoint(checkpoint, every=1), model, variables, counter, settings, callbacks, epochs
    )
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda number, _: epoch.assign(number))
    with progress.guarded(), distribution.fitting(model):
        return model.fit(
            replicas.shared_out(data),
            epochs=epochs,
            initial_epoch=progress.done,
            callbacks=[begin, *callbacks, progress],
            shuffle=False,
            **kwargs,
        )


class _Place(NamedTuple):
    """Where a training can be taken up."""

    updates: int  # That had been made there, by the counter.
    done: int  # Epochs that were made and are not made again.
    made: int | None  # Updates that were made in the epoch after those; None between two epochs.
    stopped: bool  # Whether a callback stopped the training.
    values: list  # Of the variables.
    memories: list  # What each callback remembers.


class Progress(keras.callbacks.Callback):
    """Keeps how far one call of `fit` is in a checkpoint, and takes it up from there.

    Made before training, when it restores all variables; then the last of the callbacks.

    Args:
        checkpoint: `Checkpoint`, or the path of one.
        model: The Keras model.
        variables: Every variable that an update or a callback changes.
        counter: The one of them that counts the updates.
        settings: Dict of what else must be the same for the training to be the same.
        callbacks: The other callbacks, `History` among them.
        epochs: Epochs in all, over all tries.

    Attributes:
        done: Epochs that need not be made any more: all, if a callback stopped the training.
        made: Updates that were made in the epoch after those.

    Raises:
        ValueError: If the checkpoint is damaged, or of another training.
        OSError: If it cannot be read or written.
    """

    def __init__(self, checkpoint, model, variables, counter, settings, callbacks, epochs):
        super().__init__()
        checkpoint = Checkpoint.of(checkpoint)
        self._path, self._every = checkpoint.path, checkpoint.every
        self._variables = list({id(variable): variable for variable in variables}.values())
        self._counter, self._callbacks = counter, callbacks
        described = [f"{v.name} {tuple(v.shape)} {v.dtype}" for v in self._variables]
        self._writes = distribution.is_chief(model.distribute_strategy)
        self._settings = plain({**settings_of(model), **settings, "variables": described})
        self._place, self._start = None, int(counter.numpy())
        self._handlers, self._signal = {}, None
        found = read(self._path)
        if found is None:
            # At once: what cannot be written says so before any training.
            self._facts, self._arrays = {"done": 0, "made": None, "stopped": False}, {}
            self._write(_Place(self._start, **self._facts, values=self._values(), memories=[]))
            self._facts["memories"] = []
        else:
            self._facts, self._arrays = found
            self._refuse_another(epochs)
            self._start = self._facts["start"]
            self._restore()
            self._kept = int(counter.numpy())
        self._done = self._facts["done"]
        self.done = epochs if self._facts["stopped"] else self._done
        self.made = self._facts["made"] or 0

    def _refuse_another(self, epochs):
        facts = self._facts
        different = difference(facts["settings"], self._settings)
        if different:
            raise ValueError(
                f"{self._path} is the checkpoint of another training: {different}. {START_OVER}"
            )
        if facts["done"] > epochs:
            raise ValueError(
                f"{self._path} is the checkpoint of a training that has made {facts['done']} "
                f"epochs already, more than {epochs}. {START_OVER}"
            )
        # In the process of an earlier try, the model may have got anywhere beyond the start.
        finished = facts["stopped"] or facts["done"] == epochs
        if self._start < facts["start"] or (finished and self._start != facts["start"]):
            raise ValueError(
                f"{self._path} is the checkpoint of a {'finished ' * finished}training that a "
                f"model began after {facts['start']} updates; this one has made {self._start}. "
                f"{START_OVER}"
            )

    @contextlib.contextmanager
    def guarded(self):
        """While in it, a training that is stopped by Ctrl-C or SIGTERM leaves a checkpoint.

        SIGTERM, where it would end the process at once, raises SystemExit meanwhile.
        """
        try:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    handler = signal.getsignal(number)
                    if handler is signal.SIG_DFL or callable(handler):
                        self._handlers[number] = handler
                        signal.signal(number, self._signalled)
            yield
            self._listen()
        except (KeyboardInterrupt, SystemExit):
            if self._place is not None:
                self._write(self._place)
            told = f"\nStopped, and kept in {self._path}: the same command goes on from there."
            print(told, file=sys.stderr, flush=True)
            raise
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._place = None

    def _signalled(self, number, frame):
        # Python drops what is raised while an object is destroyed, which iterators are at the end
        # of every epoch. So it is remembered, and raised again where it is heard.
        self._signal = number
        handler = self._handlers[number]
        if handler is signal.SIG_DFL:
            sys.exit(128 + number)
        handler(number, frame)
        self._signal = None  # One that raises nothing wants to go on.

    def _listen(self):
        if self._signal is not None:
            self._signalled(self._signal, None)

    def before_execution(self, snapshot):
        """Takes notice of the state before some updates, from which they can be made again.

        Args:
            snapshot: `dbn.execution.Snapshot` of all the variables.
        """
        values = {id(variable): value for variable, value in snapshot.values}
        updates = int(values[id(self._counter)])
        values = [values[id(variable)] for variable in self._variables]
        made = updates - self._first
        self._place = _Place(updates, self._done, made, False, values, self._memories)

    def on_train_begin(self, logs=None):
        # What a callback remembers is what will not be as it is now.
        self._begun = [memory(callback) for callback in self._callbacks]
        memories = list(self._facts["memories"])
        for callback in self._callbacks:
            kept = next((m for m in memories if m["of"] == type(callback).__name__), None)
            if kept is not None:
                memories.remove(kept)
                for name, (value, arrays) in kept["attributes"].items():
                    arrays = [self._arrays[array] for array in arrays]
                    recall(callback, name, from_plain(value, arrays))

    def on_epoch_begin(self, epoch, logs=None):
        if self._facts["made"] is not None:
            # Again: Keras has reset the metrics, and callbacks have begun an epoch that had begun.
            self._restore()
        self._first = int(self._counter.numpy()) - self.made
        self._facts["made"], self.made, self._arrays = None, 0, {}
        self._memories = self._remembered()

    def on_train_batch_begin(self, batch, logs=None):
        self._listen()

    def on_test_batch_begin(self, batch, logs=None):
        self._listen()

    def on_train_batch_end(self, batch, logs=None):
        if self._place is not None and self._place.updates - self._kept >= self._every:
            self._write(self._place)

    def on_epoch_end(self, epoch, logs=None):
        self._listen()
        self._done += 1
        updates, stopped = int(self._counter.numpy()), bool(self.model.stop_training)
        self._place = _Place(updates, self._done, None, stopped, self._values(), self._remembered())
        last = stopped or epoch + 1 == self.params["epochs"]
        if last or updates - self._kept >= self._every:
            self._write(self._place)

    def _values(self):
        return [variable.value.read_value() for variable in self._variables]

    def _restore(self):
        for number, variable in enumerate(self._variables):
            value = self._arrays[f"variable_{number}"]
            if value.dtype.kind == "V":  # NumPy's files know the size of a bfloat16, not its name.
                value = value.view(variable.value.dtype.as_numpy_dtype)
            variable.assign(value)

    def _remembered(self):
        """Returns what each callback has that it did not have when training began."""
        memories = []
        for callback, begun in zip(self._callbacks, self._begun, strict=True):
            changed = {
                name: (value, arrays)
                for name, (value, arrays) in memory(callback).items()
                if name not in begun
                or value != begun[name][0]
                or any(a is not b for a, b in zip(arrays, begun[name][1], strict=True))
            }
            memories.append((type(callback).__name__, changed))
        return memories

    def _write(self, place):
        self._place, self._kept = None, place.updates
        if not self._writes:
            return
        arrays = {f"variable_{n}": np.asarray(value) for n, value in enumerate(place.values)}
        memories = []
        for name, attributes in place.memories:
            memories.append({"of": name, "attributes": {}})
            for attribute, (value, parts) in attributes.items():
                names = [f"memory_{len(arrays) + n}" for n in range(len(parts))]
                arrays |= dict(zip(names, parts, strict=True))
                memories[-1]["attributes"][attribute] = (value, names)
        facts = {
            "settings": self._settings,
            "start": self._start,
            "done": place.done,
            "made": place.made,
            "stopped": place.stopped,
            "memories": memories,
        }
        write(self._path, facts, arrays)


def with_history(callbacks):
    """Returns the `callbacks` that `fit` was given as a list, with a `History` among them."""
    callbacks = tf.nest.flatten([] if callbacks is None else callbacks)
    if any(isinstance(callback, keras.callbacks.History) for callback in callbacks):
        return callbacks
    return [*callbacks, keras.callbacks.History()]


def _check_numbers(y):
    """Raises ValueError if targets, or a dict, list or tuple of such, are names, say."""
    for array in [] if y is None else tf.nest.flatten(y):
        dtype = np.asarray(array).dtype
        if dtype.kind in "OSU":
            raise ValueError(f"`y` must hold numbers; got dtype {dtype}.")


def _as_tensor(array):
    array = np.asarray(array)
    if array.ndim == 0:
        raise ValueError(
            "x and y must be arrays of cases, or dicts, lists or tuples of such arrays; got "
            f"{array} for an array."
        )
    # As Keras does.
    return tf.convert_to_tensor(
        array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array
    )
