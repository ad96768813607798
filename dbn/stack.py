"""DBN: a stack of RBMs and its greedy pretraining."""

import warnings

import keras
import tensorflow as tf

from dbn import checks, networks, sampling, sources
from dbn.activations import Cache, activations
from dbn.checkpoints import Checkpoint
from dbn.layers import RBMLayer
from dbn.training import RBM

__all__ = ["DBN"]


@keras.saving.register_keras_serializable(package="dbn")
class DBN(keras.Model):
    """A deep belief network: a stack of RBMs, each on the mean activations of the one below.

    `stack(x)` gives the means of the top layer, `(cases, units of the top layer)`. The stack is
    trained layer by layer with `pretrain` (Hinton, Osindero & Teh 2006; Bengio et al. 2007); what
    it has learnt is handed over by `classifier`, `regressor` and `autoencoder`, plain Keras models
    on the same Dense layers.

    Args:
        layers: A list, bottom first, of `RBM`s, `RBMLayer`s (short for `RBM(layer)`) and integers
            n (short for `RBM(RBMLayer(n))`). RBMs of another stack may be given: they are shared,
            so `DBN([*stack.rbms, 500])` puts a layer on a pretrained stack.
        seed: Integer that the initial weights, the noise and the data order of the layers given as
            integers come from; by default `keras.utils.set_random_seed` governs them.
        **kwargs: `name`, `dtype`, `trainable` of `keras.Model`.

    Attributes:
        rbms: The `RBM`s, bottom first.

    Raises:
        ValueError: If there is no layer, one of them is something else, or its visible units do
            not fit the hidden ones below.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> stack = dbn.DBN([8, 4])
    >>> histories = stack.pretrain(x, epochs=2, batch_size=10, verbose=0)
    >>> model = stack.classifier(num_classes=3)
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    """

    def __init__(self, layers, seed=None, **kwargs):
        if not isinstance(layers, (list, tuple)) or not layers:
            raise ValueError(f"`layers` must be a list with at least one layer; got {layers!r}.")
        if seed is not None:
            checks.integer(seed, "seed", least=0)
        dtype = kwargs.get("dtype")
        rbms = [_as_rbm(layer, seed, number, dtype) for number, layer in enumerate(layers)]
        if len({id(rbm.layer) for rbm in rbms}) < len(rbms):
            raise ValueError(
                "`layers` holds the same layer twice; each must be a layer of its own."
            )
        for number, (below, above) in enumerate(zip(rbms, rbms[1:], strict=False), start=2):
            hidden, visible = below.layer.hidden, above.layer.visible
            if hidden.low < visible.low or hidden.high > visible.high:
                fitting = "gaussian" if hidden.refusal("visible") else hidden.name
                raise ValueError(
                    f"Layer {number} has {visible.name} visible units, but the layer below gives "
                    f"{hidden.name} means, which leave their range: give "
                    f'`RBMLayer({above.layer.units}, visible="{fitting}")`.'
                )
        super().__init__(**kwargs)
        self.rbms = rbms
        if not self.trainable:  # Keras did not know the RBMs before.
            for rbm in rbms:
                rbm.trainable = False
        # Those of RBMs that two programs trained may have one name, which Keras' models refuse.
        names = set()
        for dense in (rbm.layer.dense for rbm in rbms):
            name, number = dense.name, 0
            while dense.name in names:
                number += 1
                dense.name = f"{name}_{number}"
            names.add(dense.name)

    def build(self, input_shape):
        """Builds every RBM, for `(cases, visible)` inputs."""
        for rbm in self.rbms:
            if not rbm.built:
                rbm.build(input_shape)
            elif rbm.layer.W.shape[0] != input_shape[-1]:
                raise ValueError(
                    f"Layer {rbm.name!r} takes {rbm.layer.W.shape[0]} inputs; it is given "
                    f"{input_shape[-1]}."
                )
            input_shape = rbm.compute_output_shape(input_shape)

    def call(self, v):
        """Returns the mean activations of the top layer, `(cases, hidden)`."""
        for rbm in self.rbms:
            v = rbm(v)
        return v

    def compute_output_shape(self, input_shape):
        """Returns `(cases, hidden)` of the top layer."""
        return (input_shape[0], self.rbms[-1].layer.units)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "trainable": self.trainable,
            "layers": [keras.saving.serialize_keras_object(rbm) for rbm in self.rbms],
        }

    @classmethod
    def from_config(cls, config):
        """Returns a stack made from what `get_config` returned."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        dtype = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**{**config, "layers": layers, "dtype": dtype})

    def fit(self, *args, **kwargs):
        """Raises: a stack is trained by `pretrain`, and its classifier by `fit`."""
        raise NotImplementedError(
            "A DBN has no single cost to fit. Train it layer by layer with `stack.pretrain(x)`, "
            "then fine-tune `model = stack.classifier(num_classes)` by `model.fit`."
        )

    def pretrain(
        self,
        x,
        epochs=1,
        batch_size=None,
        optimizer=None,
        callbacks=None,
        metrics=None,
        validation_data=None,
        shuffle=True,
        verbose="auto",
        checkpoint=None,
        cache=None,
    ):
        """Trains the RBMs one after the other, each on the mean activations of the one below.

        For arrays, the activations are computed once a layer; for a Dataset and for shards, batch
        by batch as they are needed, so nothing is held in memory. With `cache`, they are computed
        once a layer and kept on disk, whatever x is, and read from there as shards are.

        Args:
            x: Array `(cases, visible)`, batched `tf.data.Dataset` or `dbn.shards.Shards`, as for
                `RBM.fit`.
            epochs: Passes over the data; an integer, or a list with one a layer. 0 leaves a layer
                as it is (one that has been pretrained already).
            batch_size: Cases an update, or a list with one a layer.
            optimizer: Keras optimizer, by name or instance, or a list with one a layer. Each layer
                gets a new one made from its config. By default an RBM that was compiled keeps
                its optimizer; the others get SGD with learning rate 0.01. What else it was compiled
                with, it keeps.
            callbacks: Keras callbacks for every layer's `fit`, or a list of such lists, one a
                layer.
            metrics: As in `RBM.compile`; a list for all layers.
            validation_data: Held-out array, Dataset or shards, handed up the stack like `x`.
            shuffle: As in `RBM.fit`.
            verbose: 0 for silence, 1 for a progress bar a layer, 2 for a line an epoch; by default
                1.
            checkpoint: Path of a folder, or a `dbn.checkpoints.Checkpoint` of one, to keep each
                layer's training in and to go on from, as in `RBM.fit`: killed at any moment and
                called again by the same script, this ends with the same bits.
            cache: Path of a folder to keep activations in, `layer_1` and so on, those of
                `validation_data` in `validation_1`: as many float32 numbers as there are cases
                times hidden units. They stay there, and are used again where data and weights are
                the same; those of others are replaced. One training at a time may use a folder.
                A Dataset must give the same batches in every iteration; the layers above make
                theirs as large as its first one, in an order of their own if `shuffle`.

        Returns:
            A list with one `History` a layer; None for a layer of 0 epochs.

        Raises:
            ValueError: If a list has another length than there are layers, the cache would take the
                place of something else, or as `RBM.fit` does.
            OSError: As `RBM.fit` does, and if the cache cannot be written.
        """
        count = len(self.rbms)
        epochs = _per_layer(epochs, count, "epochs")
        batch_size = _per_layer(batch_size, count, "batch_size")
        optimizer = _per_layer(optimizer, count, "optimizer")
        callbacks = _callbacks_per_layer(callbacks, count)
        checkpoint = None if checkpoint is None else Checkpoint.of(checkpoint)
        for number in epochs:
            checks.integer(number, "epochs", least=0)
        visible = self.rbms[0].layer.visible
        data = {"layer": sources.of(x, visible)}
        if validation_data is not None:
            width = data["layer"].width
            data["validation"] = sources.of(validation_data, visible, width, "validation_data")
        if not self.built:
            with self.distribute_strategy.scope():
                self.build((None, data["layer"].width))
        # Layers from the last that is trained on need no activations of the ones below.
        last = max((i for i in range(count) if epochs[i]), default=0)
        if cache is not None:
            cache = Cache(cache, data, layers=last)
            if isinstance(x, tf.data.Dataset):
                # Its batches are as large higher up.
                size = len(data["layer"].seen)
                batch_size[1:] = [size if given is None else given for given in batch_size[1:]]
        data = {name: source.data for name, source in data.items()}
        histories = []
        for i, rbm in enumerate(self.rbms):
            if optimizer[i] is not None or metrics is not None or not rbm.compiled:
                settings = rbm.get_compile_config()
                if metrics is not None:
                    settings["metrics"] = metrics
                with rbm.distribute_strategy.scope():
                    if rbm.compiled and optimizer[i] is None:
                        settings["optimizer"] = rbm.optimizer
                    else:
                        settings["optimizer"] = _new_optimizer(optimizer[i] or "sgd")
                    rbm.compile(**settings)
            bar = []
            if epochs[i] and verbose in ("auto", 1):
                title = f"RBM {i + 1} of {count} ({rbm.layer.W.shape[0]}-{rbm.layer.units})"
                bar = [_LayerBar(title, epochs[i])]
            with warnings.catch_warnings():
                if i:  # The activations of a layer are not the user's to standardise.
                    warnings.filterwarnings("ignore", ".* is not standardised", RuntimeWarning)
                histories.append(
                    rbm.fit(
                        data["layer"],
                        batch_size=batch_size[i],
                        epochs=epochs[i],
                        callbacks=[*callbacks[i], *bar],
                        validation_data=data.get("validation"),
                        shuffle=shuffle,
                        verbose=2 if verbose == 2 else 0,
                        checkpoint=checkpoint and checkpoint.of_layer(i + 1),
                    )
                    if epochs[i]
                    else None
                )
            if i < last:
                for name, below in data.items():
                    data[name] = (
                        cache.keep(name, self.rbms[: i + 1], below)
                        if cache
                        else activations(rbm, below)
                    )
        return histories

    def sample(self, chains=None, steps=1, start=None, seed=None):
        """Draws from the model: Gibbs chains in the top RBM, then down the layers below.

        The deep belief net of Hinton, Osindero & Teh (2006): its joint density is that of the top
        RBM times, downwards, that of each layer's visible units given its hidden ones. On the way
        down each layer is sampled given the one above. With layers whose hidden type is another
        than the visible type above (relu beneath gaussian), what is handed down are the latter's.

        Args:
            chains: As in `RBM.sample`.
            steps: Gibbs steps in the top RBM, an integer >= 1.
            start: Where the chains start: cases `(chains, visible)` of the bottom layer, which go
                up by mean activations; what an earlier call returned, to go on with; or `"noise"`
                or `"persistent"`, as in `RBM.sample`, which also says what the default is.
            seed: Integer; by default that of the top RBM.

        Returns:
            `dbn.sampling.StackSamples`: `mean` to draw, `sample`, and `top`, the chains. Two calls
            of 500 steps equal one of 1,000 bit for bit.

        Raises:
            ValueError: If the stack is not built, or an argument is out of its range.

        Example:

        >>> stack = dbn.DBN([8, 4], seed=0)
        >>> stack.build((None, 9))
        >>> first = stack.sample(chains=2, steps=10)
        >>> tuple(stack.sample(steps=10, start=first).mean.shape)
        (2, 9)
        """
        if not self.built:
            raise ValueError("The DBN is not built: `pretrain` it, or call `build`.")
        *below, top = self.rbms
        if isinstance(start, sampling.StackSamples):
            start = start.top
        elif not (start is None or isinstance(start, (str, sampling.Samples))):
            first = self.rbms[0].layer
            start = checks.cases(start, first.visible, "start", first.W.shape[0])
            for rbm in below:
                start = rbm(start)
        seed = top.seed if seed is None else checks.integer(seed, "seed", least=0)
        found = top.sample(chains, steps, start, seed=seed)
        return sampling.bring_down([rbm.layer for rbm in below], found, seed)

    # The networks made from it, functions of a stack.
    classifier = networks.classifier
    regressor = networks.regressor
    autoencoder = networks.autoencoder


class _LayerBar(keras.callbacks.Callback):
    """One progress bar for all epochs of a layer."""

    def __init__(self, title, epochs):
        super().__init__()
        self._title, self._epochs = title, epochs

    def on_train_begin(self, logs=None):
        print(self._title)
        self._bar = keras.utils.Progbar(self._epochs, unit_name="epoch", stateful_metrics=())
        self._done = 0

    def on_epoch_end(self, epoch, logs=None):
        self._done += 1
        # Stateful: show an epoch's own figures, not their mean over epochs.
        self._bar.stateful_metrics = set(logs)
        self._bar.update(self._done, list(logs.items()), finalize=self._done == self._epochs)

    def on_train_end(self, logs=None):
        if self._done < self._epochs:
            print()


def _as_rbm(layer, seed, number, dtype):
    if isinstance(layer, RBM):
        return layer
    if isinstance(layer, RBMLayer):
        return RBM(layer)
    if seed is None or isinstance(layer, bool) or not hasattr(layer, "__index__"):
        return RBM(layer, dtype=dtype)
    initializer = keras.initializers.VarianceScaling(16.0, "fan_avg", "uniform", seed + number)
    layer = RBMLayer(layer, kernel_initializer=initializer, dtype=dtype)
    return RBM(layer, seed=seed + number, dtype=dtype)


def _per_layer(value, count, name):
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"`{name}` must be one value or a list with one for each of the {count} layers; got "
            f"{len(value)}."
        )
    return list(value)


def _callbacks_per_layer(callbacks, count):
    if callbacks is None:
        callbacks = []
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    if any(isinstance(part, (list, tuple)) for part in callbacks):
        return [list(part or ()) for part in _per_layer(callbacks, count, "callbacks")]
    return [list(callbacks)] * count


def _new_optimizer(optimizer):
    optimizer = keras.optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())
