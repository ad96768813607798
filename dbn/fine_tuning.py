"""Fine-tuning: learning rates by layer, adversarial training, and a look at the targets before."""

import math
import numbers
import re

import keras
import numpy as np
import tensorflow as tf

from dbn import checks
from dbn.layers import Gaussian

__all__ = ["Adversarial", "by_layer", "check", "classes"]


def by_layer(model, optimizer, rates):
    """Gives layers of a model learning rates of their own, by Keras' `MultiOptimizer`.

    Each layer named is trained by a copy of the optimizer that has its rate, the other layers by
    the optimizer as it is. What is returned is made of Keras' own classes alone, so a compiled
    model is saved and loaded as ever. `global_clipnorm` clips the layers of each copy by
    themselves.

    A schedule that is 0 at first keeps a layer frozen meanwhile, to the last bit, while moments are
    gathered: gradual unfreezing. Its steps are updates.

    Args:
        model: A built Keras model, such as `stack.classifier(10)`.
        optimizer: A Keras optimizer, with the rate of all layers that are not named.
        rates: Dict from layer, or its name, to learning rate: a number >= 0 or a
            `keras.optimizers.schedules.LearningRateSchedule`. A layer may hold others, such as the
            encoder of an autoencoder.

    Returns:
        A `keras.optimizers.MultiOptimizer`, for the model's `compile`. Its `optimizers` are those
        of the layers named, in their order, then the one of the others.

    Raises:
        ValueError: If an argument is none of these, a layer has nothing to train, or two layers
            are named that share variables or a name.

    Example:

    >>> x, y = np.random.default_rng(0).random((100, 9)), np.arange(100) % 3
    >>> stack = dbn.DBN([8, 4])
    >>> histories = stack.pretrain(x, batch_size=10, verbose=0)
    >>> model = stack.classifier(3)
    >>> adam = keras.optimizers.Adam(1e-2)
    >>> later = keras.optimizers.schedules.PiecewiseConstantDecay([9], [0.0, 1e-3])
    >>> optimizer = by_layer(model, adam, {model.layers[0]: later, model.layers[1]: 1e-3})
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    >>> history = model.fit(x, y, batch_size=10, verbose=0)  # 10 updates, of the others.
    >>> bool(tf.reduce_all(model.layers[0].kernel == stack.rbms[0].layer.W))
    True
    """
    kinds = keras.optimizers.MultiOptimizer, keras.optimizers.LossScaleOptimizer
    if not isinstance(optimizer, keras.optimizers.Optimizer) or isinstance(optimizer, kinds):
        raise ValueError(
            f"`optimizer` must be one Keras optimizer, such as `Adam(1e-3)`; got {optimizer!r}."
        )
    if not isinstance(rates, dict) or not rates:
        raise ValueError(f"`rates` must be a dict from layer to learning rate; got {rates!r}.")
    parts, chosen = keras.optimizers.OptimizerMap(_copy(optimizer)), {}
    own = {id(variable) for variable in model.trainable_variables}
    for layer, rate in rates.items():
        layer = model.get_layer(layer) if isinstance(layer, str) else layer
        variables = getattr(layer, "trainable_variables", [])
        if not variables or not own.issuperset(map(id, variables)):
            raise ValueError(
                f"{layer!r} in `rates` is no layer of the model, or has nothing to train."
            )
        if chosen.keys() & set(map(id, variables)):
            raise ValueError(f"Layer {layer.name!r} is named twice in `rates`.")
        # By the names of layers, which a saved model keeps, while the paths before them change.
        names = {variable.path.split("/")[-2] for variable in variables}
        pattern = f"(.*/)?({'|'.join(map(re.escape, sorted(names)))})/[^/]+"
        parts[pattern] = _copy(optimizer, _rate(rate, layer.name))
        chosen |= {id(variable): parts[pattern] for variable in variables}
    for variable in model.trainable_variables:
        if parts(variable) is not chosen.get(id(variable), parts.default_optimizer):
            raise ValueError(
                f"`rates` cannot tell {variable.path!r} apart: layers must have names of their own."
            )
    return keras.optimizers.MultiOptimizer(parts)


@keras.saving.register_keras_serializable(package="dbn")
class Adversarial(keras.Model):
    """Trains a network to be right beside each case, too: adversarial training.

    The loss is the mean of that of the case x and that of x + r, where r is the step of a given
    length up the gradient of the case's loss L (Goodfellow, Shlens & Szegedy 2015; with the
    Euclidean norm, as here, Miyato et al. 2016):

        r = radius * dL/dx / ||dL/dx||

    and is a constant to the gradient of the weights. Nothing is known of the inputs but their
    distances, so this is no augmentation. An update costs about twice one without.

    Calling it is calling the network, which shares the weights: train this, then go on with the
    network itself, an ordinary Keras model. What `fit` logs is of the cases as they are, except
    for `loss`, the mean of both, in training; in validation it is that of the cases. What the
    network keeps of its cases, such as the moving averages of batch normalisation, is of the cases
    as they are, too.

    Args:
        model: A built Keras model with one floating-point input, such as `stack.classifier(10)`:
            `(cases, visible)` for a stack's, or `(cases, ...)`.
        radius: Length of r, > 0, in units of the input and over all of a case: for images in
            [0, 1] the root of the summed squares over the pixels.
        **kwargs: `name`, `dtype`, `trainable` of `keras.Model`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    >>> x, y = np.random.default_rng(0).random((100, 9)).astype("float32"), np.arange(100) % 3
    >>> stack = dbn.DBN([8, 4])
    >>> histories = stack.pretrain(x, batch_size=10, verbose=0)
    >>> model = stack.classifier(3)
    >>> adversarial = Adversarial(model, radius=0.1)
    >>> adversarial.compile("adam", "sparse_categorical_crossentropy")
    >>> history = adversarial.fit(x, y, batch_size=10, verbose=0)
    >>> probabilities = model.predict(x, verbose=0)
    """

    def __init__(self, model, radius, **kwargs):
        if not (isinstance(model, keras.Model) and model.built):
            raise ValueError(f"`model` must be a built Keras model; got {model!r}.")
        inputs = getattr(model, "inputs", None) or []  # A subclass of Keras' own has none to see.
        if len(inputs) != 1:
            raise ValueError(f"`model` must be a network with one input; it has {len(inputs)}.")
        if not tf.as_dtype(inputs[0].dtype).is_floating:
            raise ValueError(
                f"`model` must have a floating-point input; it has one of {inputs[0].dtype}."
            )
        if isinstance(radius, bool) or not isinstance(radius, numbers.Real) or not radius > 0:
            raise ValueError(f"`radius` must be a number > 0; got {radius!r}.")
        if not math.isfinite(radius):
            raise ValueError(f"`radius` must be finite; got {radius!r}.")
        super().__init__(**kwargs)
        self.model, self.radius = model, float(radius)
        self.built = True

    def call(self, x, training=None):
        """Returns what the network makes of cases."""
        return self.model(x, training=training)

    def compute_output_shape(self, input_shape):
        """Returns that of the network."""
        return self.model.compute_output_shape(input_shape)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss, as Keras calls it; in training the mean of that here and beside."""

        def loss(x, y_pred):
            return super(Adversarial, self).compute_loss(x, y, y_pred, sample_weight, training)

        here = loss(x, y_pred)
        if not training:
            return here
        x = tf.cast(x, self.variable_dtype)
        # What a network keeps of its cases, such as moving averages, is to be that of the cases as
        # they are, on which it will be used: what these passes leave there is undone.
        kept = [(weight, tf.identity(weight.value)) for weight in self.model.non_trainable_weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            # Without dropout XLA sees that these are the products of `y_pred`.
            again = loss(x, self.model(x, training=True))
        beside = tf.stop_gradient(x + self.radius * _directions(tape.gradient(again, x)))
        there = loss(beside, self.model(beside, training=True))
        for weight, value in kept:
            weight.assign(value)
        return (here + there) / 2

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "trainable": self.trainable,
            "model": keras.saving.serialize_keras_object(self.model),
            "radius": self.radius,
        }

    @classmethod
    def from_config(cls, config):
        """Returns a model made from what `get_config` returned."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name]) for name in ("model", "dtype")
        }
        return cls(**{**config, **parts})


def _directions(slopes):
    """Returns each case's vector at length 1; a vector of zeros stays one."""
    axes = list(range(1, len(slopes.shape)))
    # Of cases that are sure, slopes may be so small that their squares would be 0.
    greatest = tf.reduce_max(tf.abs(slopes), axes, keepdims=True)
    slopes = tf.math.divide_no_nan(slopes, greatest)
    length = tf.sqrt(tf.reduce_sum(tf.square(slopes), axes, keepdims=True))
    return tf.math.divide_no_nan(slopes, length)


def classes(model):
    """Returns how many classes a model with a softmax layer at its end tells apart, or None."""
    model = _plain(model)
    last = model.layers[-1] if isinstance(model, keras.Sequential) and model.layers else None
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    return model.output_shape[1] if softmax and len(model.output_shape) == 2 else None


def check(model, x, y):
    """Checks whole what a network is to learn from, before any training.

    A plain Keras model trains on whatever it gets: a label of 10 among 10 classes gives weights
    that are NaN or wrong, and no error. `dbn.checkpoints.fit` looks at the labels of a classifier,
    too.

    Args:
        model: What `classifier`, `regressor` or `autoencoder` of a stack returned, an `Adversarial`
            of one, or another Keras model with inputs `(cases, width)` and outputs of rank 2.
        x: Array `(cases, width)` of finite numbers.
        y: For a softmax layer at the model's end, labels from 0 on, `(cases,)`, or probabilities of
            the classes, such as one-hot labels, `(cases, classes)`, at least as many cases as
            classes; for others, finite numbers `(cases, outputs)`, or `(cases,)` for one output.

    Raises:
        ValueError: If x or y is none of these, or they have not equally many cases.

    Example:

    >>> stack = dbn.DBN([8, 4])
    >>> stack.build((None, 9))
    >>> check(stack.classifier(3), np.zeros((4, 9)), [0, 1, 2, 3])
    Traceback (most recent call last):
        ...
    ValueError: `y` must be labels from 0 to 2, whole numbers; got values from 0 to 3.
    """
    model, real = _plain(model), Gaussian()
    num_classes = classes(model)
    checks.cases(x, real, "x", model.input_shape[-1])
    if num_classes is not None:
        checks.targets(y, num_classes, fewest=num_classes)
    else:
        column = np.ndim(y) == 1
        checks.cases(np.reshape(y, (-1, 1)) if column else y, real, "y", model.output_shape[-1])
    if len(x) != len(y):
        raise ValueError(f"`x` has {len(x)} cases, and `y` has {len(y)}.")


def _plain(model):
    """Returns the network that an `Adversarial` trains, and any other model as it is."""
    return model.model if isinstance(model, Adversarial) else model


def _copy(optimizer, rate=None):
    """Returns a new optimizer with the same settings, but for the learning rate, if it is given."""
    config = {key: value for key, value in optimizer.get_config().items() if key != "name"}
    return type(optimizer).from_config(
        config if rate is None else {**config, "learning_rate": rate}
    )


def _rate(value, name):
    """Returns a learning rate as Keras takes it."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise ValueError(
            f"The rate of layer {name!r} in `rates` must be a number >= 0 or a Keras schedule; got "
            f"{value!r}."
        )
    return float(value)
