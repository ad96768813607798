"""Keras callbacks for `RBM.fit`: what an RBM has learnt, epoch after epoch.

A picture bears the number of its epoch, counted from 0 over all calls of `fit` (the model's own
`epochs`), so that training that goes on does not draw over what it drew before. Looking changes
nothing: a model trained with these callbacks equals one trained without, bit for bit.
"""

import contextlib
import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dbn import checks, execution, images, likelihood
from dbn.annealing import check_arguments
from dbn.training import RBM

__all__ = [
    "Diagnostics",
    "LogLikelihood",
    "SaveChains",
    "SaveFilters",
    "SaveReconstructions",
    "Schedule",
]


class LogLikelihood(keras.callbacks.Callback):
    """Logs the mean log-likelihood of cases, in nats per case, after epochs.

    Adds to the logs of `fit` the keys `{name}`, `{name}_low` and `{name}_high` (the 95 % interval
    that the uncertainty of log Z leaves), `{name}_effective_sample_size` (of log Z, where it is
    estimated) and `{name}_seconds`, what that took. Between two such epochs the keys are missing.
    Where the optimizer averages the weights (`use_ema=True`), the averages, which `fit` leaves in
    the end, are measured.

    Args:
        x: Cases `(cases, visible)`; binary for Bernoulli units, always binarised the same way.
        every: Epochs from figure to figure, an integer >= 1.
        name: First part of the keys, such as `"val_log_likelihood"` for held-out cases.
        base_rates: As for `dbn.likelihood.estimate_log_partition`; the means of x by default.
        **annealing: Its other arguments: `chains`, `temperatures`, `schedule`, `seed`.

    Raises:
        ValueError: If an argument is out of its range, or (when training begins) x does not fit the
            RBM.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> rbm = dbn.RBM(4, persistent=True)
    >>> rbm.compile(keras.optimizers.SGD(0.1))
    >>> watch = dbn.callbacks.LogLikelihood(x, every=2)
    >>> len(rbm.fit(x, epochs=4, callbacks=[watch], verbose=0).history["log_likelihood"])
    2
    """

    def __init__(self, x, every=1, name="log_likelihood", base_rates=None, **annealing):
        super().__init__()
        self.x = x
        self.every = checks.integer(every, "every")
        self.name = name
        self.base_rates = base_rates
        self.annealing = annealing

    def on_train_begin(self, logs=None):
        layer = checks.built_layer(self.model)
        # A tensor from here on: an array would be copied into one after every epoch.
        self.x = checks.cases(self.x, layer.visible, "x", layer.W.shape[0])
        if self.base_rates is None:
            self.base_rates = tf.reduce_mean(self.x, axis=0)
        check_arguments(layer, self.base_rates, **self.annealing)

    def on_epoch_end(self, epoch, logs=None):
        if int(self.model.epochs) % self.every:
            return
        start = time.perf_counter()
        with _averaged(self.model):
            log_partition = likelihood.estimate_log_partition(
                self.model, self.base_rates, **self.annealing
            )
            found = likelihood.log_likelihood(self.model, self.x, log_partition)
        logs[self.name] = found.mean
        logs[f"{self.name}_low"], logs[f"{self.name}_high"] = found.low, found.high
        size = log_partition.effective_sample_size
        if math.isfinite(size):
            logs[f"{self.name}_effective_sample_size"] = size
        logs[f"{self.name}_seconds"] = time.perf_counter() - start


class Diagnostics(keras.callbacks.Callback):
    """Logs after each epoch what tells early that training goes wrong.

    `weight_norm`: Frobenius norm of W. `saturated_units`: share of hidden units whose mean over the
    cases is within 1 % of either end of their range (below 0.01 or above 0.99, for Bernoulli
    units; always 0, for noisy rectified ones; none, for Gaussian ones), so that they tell next to
    nothing apart. `swap_rate`, with `dbn.negative.ParallelTempering`: the lowest of its swap rates.

    Args:
        x: Cases `(cases, visible)`; some hundred do.

    Raises:
        ValueError: When training begins, if x does not fit the RBM.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> rbm = dbn.RBM(4)
    >>> rbm.compile(keras.optimizers.SGD(0.1))
    >>> history = rbm.fit(x, callbacks=[dbn.callbacks.Diagnostics(x)], verbose=0)
    >>> history.history["saturated_units"]
    [0.0]
    """

    def __init__(self, x):
        super().__init__()
        self.x = x

    def on_train_begin(self, logs=None):
        layer = checks.built_layer(self.model)
        self.x = checks.cases(self.x, layer.visible, "x", layer.W.shape[0])

    def on_epoch_end(self, epoch, logs=None):
        layer = self.model.layer
        mean = tf.reduce_mean(layer.propup(self.x)[1], axis=0)
        units = layer.hidden
        span = units.high - units.low
        margin = 0.01 * span if math.isfinite(span) else 0.0
        near = tf.minimum(mean - units.low, units.high - mean) <= margin
        saturated = tf.cast(near, tf.float32)
        logs["weight_norm"] = float(tf.norm(layer.W))
        logs["saturated_units"] = float(tf.reduce_mean(saturated))
        rates = getattr(self.model.negative, "swap_rates", None)
        if rates is not None:
            logs["swap_rate"] = float(tf.reduce_min(rates))


class Schedule(keras.callbacks.Callback):
    """Changes the number of Gibbs steps or the momentum as training goes on.

    Both are constants of the compiled update, which is compiled anew (some seconds) where one
    changes; an execution keeps its number of updates, so it takes longer as k grows. For the
    learning rate there are Keras' own schedules.

    Args:
        k: Steps from an epoch on, a dict such as `{0: 1, 10: 5, 20: 25}` (Salakhutdinov & Murray
            2008 let k grow from 1 to 25). Epochs are those of the model's own count, from 0, over
            all calls of `fit`. Before the first of them nothing is changed.
        momentum: Momentum of the optimizer, likewise, such as `{0: 0.5, 5: 0.9}` (Hinton 2010,
            section 9).

    Raises:
        ValueError: If an argument is out of its range, or (when training begins) the optimizer has
            no momentum to change: one made with 0 keeps no velocities.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> rbm = dbn.RBM(4)
    >>> rbm.compile(keras.optimizers.SGD(0.1, momentum=0.5))
    >>> schedule = dbn.callbacks.Schedule(k={0: 1, 1: 3}, momentum={1: 0.9})
    >>> history = rbm.fit(x, epochs=2, callbacks=[schedule], verbose=0)
    >>> rbm.k, rbm.optimizer.momentum
    (3, 0.9)
    """

    def __init__(self, k=None, momentum=None):
        super().__init__()
        self.k, self.momentum = _by_epoch(k, "k"), _by_epoch(momentum, "momentum")
        for value in self.k.values():
            checks.integer(value, "k")
        for value in self.momentum.values():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
                raise ValueError(f"`momentum` must be in (0, 1); got {value!r}.")

    def on_train_begin(self, logs=None):
        if self.momentum and not getattr(_unscaled(self.model.optimizer), "momentum", 0):
            raise ValueError(
                "`momentum` needs an optimizer with momentum from the start, such as "
                f"SGD(0.1, momentum=0.5); got {self.model.optimizer.name!r} without."
            )

    def on_epoch_begin(self, epoch, logs=None):
        model, now = self.model, int(self.model.epochs)
        optimizer = _unscaled(model.optimizer)
        before = model.k, getattr(optimizer, "momentum", None)
        k, momentum = _at_epoch(self.k, now, before[0]), _at_epoch(self.momentum, now, before[1])
        if (k, momentum) == before:
            return
        model.negative.k = k
        if self.momentum:
            optimizer.momentum = momentum
        model.remake()


def _unscaled(optimizer):
    """Returns the optimizer in a `LossScaleOptimizer`, and any other as it is."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _by_epoch(values, name):
    """Checks a dict from epoch to value."""
    if values is None:
        return {}
    if not isinstance(values, dict) or not values:
        raise ValueError(f"`{name}` must be a dict from epoch to value; got {values!r}.")
    return {checks.integer(epoch, f"{name}: epoch", least=0): values[epoch] for epoch in values}


def _at_epoch(values, epoch, otherwise):
    """Returns the value of the last epoch in a dict that has been reached."""
    reached = [start for start in values if start <= epoch]
    return values[max(reached)] if reached else otherwise


@contextlib.contextmanager
def _averaged(model):
    """Puts the optimizer's moving averages, if it keeps any, in the place of the weights."""
    if not _unscaled(model.optimizer).use_ema:
        yield
        return
    # Not Keras' SwapEMAWeights: it swaps by adding and subtracting, which rounds.
    before = execution.Snapshot(model.trainable_variables)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        before.restore()


class _SavePictures(keras.callbacks.Callback):
    """Draws the model after epochs, into `{stem}_at_epoch_{i}.png`.

    A subclass names its `stem` and draws.
    """

    stem: str

    def __init__(self, folder, img_shape, every=1):
        super().__init__()
        self.folder = Path(folder)
        self.img_shape = tuple(checks.integer(n, "img_shape") for n in np.atleast_1d(img_shape))
        if len(self.img_shape) not in (2, 3):
            raise ValueError(
                "`img_shape` must be (height, width) or (height, width, channels); got "
                f"{img_shape!r}."
            )
        self.every = checks.integer(every, "every")

    def picture(self):
        """Returns the picture of the model as it is, a uint8 array."""
        raise NotImplementedError

    def _greys(self, values):
        """Returns visible values as grey levels, by `to_grey` where there is one."""
        if self.to_grey is not None:
            return self.to_grey(np.asarray(values))
        units = self.model.layer.visible
        if not np.isfinite(units.high):
            raise ValueError(
                f"`to_grey` is needed for {units.name} visible units: a function that makes grey "
                "levels in [0, 1] of their values."
            )
        return (values - units.low) / (units.high - units.low)

    def on_train_begin(self, logs=None):
        if not isinstance(self.model, RBM):
            raise ValueError(
                f"{type(self).__name__} is a callback of `RBM.fit`; got {self.model!r}."
            )
        visible = self.model.layer.W.shape[0]
        if math.prod(self.img_shape) != visible:
            raise ValueError(
                f"`img_shape` must have {visible} values, one a visible unit; got {self.img_shape}."
            )
        self.picture()  # What does not fit raises here, before an epoch has been spent.
        self.folder.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        epochs = int(self.model.epochs)
        if epochs % self.every == 0:
            images.save(self.folder / f"{self.stem}_at_epoch_{epochs - 1}.png", self.picture())


class SaveFilters(_SavePictures):
    """Draws the weights of the hidden units after each epoch, `filters_at_epoch_{i}.png`.

    Args:
        folder: Where the pictures go; made if there is none.
        img_shape: The shape of a visible picture, (height, width), or with channels.
        every: Epochs from picture to picture, an integer >= 1.
        tile_shape: (rows, columns) of the grid; a near square for all hidden units by default.

    Raises:
        ValueError: If an argument is out of its range, or (when training begins) `img_shape` does
            not fit the RBM.

    Example:

    >>> rbm = dbn.RBM(8)
    >>> rbm.compile(optimizer=keras.optimizers.SGD(0.1))
    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> save = dbn.callbacks.SaveFilters("runs/example", img_shape=(3, 3))
    >>> history = rbm.fit(x, callbacks=[save], verbose=0)
    """

    stem = "filters"

    def __init__(self, folder, img_shape, every=1, tile_shape=None):
        super().__init__(folder, img_shape, every)
        self.tile_shape = tile_shape

    def picture(self):
        return images.filters(self.model.layer.W, self.img_shape, self.tile_shape)


class SaveChains(_SavePictures):
    """Draws a row of Gibbs chains after each epoch, `chains_at_epoch_{i}.png`.

    They are drawn as `rbm.sample` returns them: means, 0 black and 1 white. The chains start anew
    each epoch, so the persistent chains themselves are left as they are.

    Args:
        folder: Where the pictures go; made if there is none.
        img_shape: The shape of a visible picture, (height, width), or with channels.
        chains: Number of chains; 20 by default, or those of an array `start`.
        steps: Gibbs steps from the start to what is drawn, an integer >= 1.
        start: As for `rbm.sample`: visible states `(chains, visible)`, `"noise"` or `"persistent"`;
            the default is the last for PCD, `"noise"` for CD.
        every: Epochs from picture to picture, an integer >= 1.
        to_grey: For real-valued data: function that makes grey levels in [0, 1] of an array of
            visible values, such as `lambda v: np.clip(v * deviation + mean, 0, 1)`.

    Raises:
        ValueError: If an argument is out of its range, or (when training begins) does not fit the
            RBM.
    """

    stem = "chains"

    def __init__(self, folder, img_shape, chains=None, steps=1, start=None, every=1, to_grey=None):
        super().__init__(folder, img_shape, every)
        self.to_grey = to_grey
        if chains is None and (start is None or isinstance(start, str)):
            chains = 20
        self.chains = chains if chains is None else checks.integer(chains, "chains")
        self.steps = checks.integer(steps, "steps")
        self.start = start

    def picture(self):
        samples = self.model.sample(self.chains, self.steps, self.start)
        return images.chains(self._greys(samples.mean)[None], self.img_shape)


class SaveReconstructions(_SavePictures):
    """Draws pictures above what the RBM makes of them, `reconstructions_at_epoch_{i}.png`.

    A reconstruction is the mean of the visible units given the mean of the hidden ones.

    Args:
        folder: Where the pictures go; made if there is none.
        img_shape: The shape of a visible picture, (height, width), or with channels.
        x: Pictures, `(pictures, visible)`, values in the range of the visible units.
        every: Epochs from picture to picture, an integer >= 1.
        to_grey: As for `SaveChains`.

    Raises:
        ValueError: If an argument is out of its range, or (when training begins) does not fit the
            RBM.
    """

    stem = "reconstructions"

    def __init__(self, folder, img_shape, x, every=1, to_grey=None):
        super().__init__(folder, img_shape, every)
        self.to_grey = to_grey
        self.x = x

    def picture(self):
        layer = self.model.layer
        x = checks.cases(self.x, layer.visible, "x", layer.W.shape[0])
        _, hidden = layer.propup(x)
        _, reconstructed = layer.propdown(hidden)
        return images.reconstructions(self._greys(x), self._greys(reconstructed), self.img_shape)
