"""Unit types: the conditional distribution of one side of an RBM, given the other.

Given the other side, the units `x` of a side are independent, with density

    p(x | a) = exp(x . a - energy(x) - cumulant(a)),

where `a` is the pre-activation (bias included), `energy(x)` the part of the energy that holds
neither weights nor biases, and `cumulant(a)` the log of the normaliser. A unit type is one class
that knows these terms; everything else (free energy, Gibbs steps, training, likelihoods) is
written once, in terms of them.
"""

import math

import keras
import tensorflow as tf

__all__ = ["Bernoulli", "Gaussian", "Spin", "Units", "get"]


class Units:
    """Base class of the unit types.

    A new type overrides every method and attribute below, and is listed in `TYPES`.

    Attributes:
        name: The name by which `RBMLayer(visible=..., hidden=...)` knows the type.
        activation: Name of the Keras activation that maps pre-activation to mean; the shared Dense
            must have it where the type is used for hidden units.
        low: Smallest valid value of a unit.
        high: Largest valid value of a unit. For data, which may be means, not only for samples.
        two_valued: Whether samples have no other values than these two.
    """

    name: str
    activation: str
    low: float
    high: float
    two_valued = False

    def uniforms(self, units):
        """Returns how many uniform numbers a sample of `units` units takes, an integer."""
        raise NotImplementedError

    def mean(self, pre_activation):
        """Returns E[x | a], of the shape of `pre_activation`."""
        raise NotImplementedError

    def sample(self, pre_activation, uniforms):
        """Returns a draw from p(x | a) by the inverse of its cumulative distribution function.

        Args:
            pre_activation: Tensor of shape `(cases, units)`.
            uniforms: float32 tensor of shape `(cases, self.uniforms(units))`, inside (0, 1).

        Returns:
            Tensor of the shape and dtype of `pre_activation`.
        """
        raise NotImplementedError

    def energy(self, x):
        """Returns the energy of `x` without weights and biases, per case, shape `(cases,)`."""
        raise NotImplementedError

    def cumulant(self, pre_activation):
        """Returns the log of the normaliser of p(x | a), per case in nats, shape `(cases,)`."""
        raise NotImplementedError

    def log_prob(self, x, pre_activation):
        """Returns log p(x | a), per case in nats, shape `(cases,)`."""
        inner = tf.reduce_sum(x * pre_activation, axis=-1)
        return inner - self.energy(x) - self.cumulant(pre_activation)

    def bias_from_mean(self, mean):
        """Returns the bias at which units that see no other units have the mean `mean`."""
        raise NotImplementedError

    def get_config(self):
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Returns a unit type made from what `get_config` returned."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="dbn")
class Bernoulli(Units):
    """Binary units with values 0 and 1: p(x = 1 | a) = sigmoid(a).

    Data may be any numbers in [0, 1] (grey levels taken as probabilities, or the mean activations
    of the RBM below).

    Example:

    >>> float(Bernoulli().mean(tf.constant(0.0)))
    0.5
    """

    name = "bernoulli"
    activation = "sigmoid"
    low = 0.0
    high = 1.0
    two_valued = True

    def uniforms(self, units):
        return units

    def mean(self, pre_activation):
        return tf.sigmoid(pre_activation)

    def sample(self, pre_activation, uniforms):
        # Taken in the precision of the uniforms: rounded to a narrower float, probabilities near 1
        # would be sampled with a bias.
        mean = self.mean(tf.cast(pre_activation, uniforms.dtype))
        return tf.cast(uniforms < mean, pre_activation.dtype)

    def energy(self, x):
        return tf.zeros(tf.shape(x)[:-1], x.dtype)

    def cumulant(self, pre_activation):
        # log(1 + exp(a)) overflows from a = 89 in float32; softplus does not.
        return tf.reduce_sum(tf.nn.softplus(pre_activation), axis=-1)

    def bias_from_mean(self, mean):
        # A pixel that is always 0 (or 1) would have an infinite bias.
        mean = tf.clip_by_value(mean, 0.001, 0.999)
        return tf.math.log(mean) - tf.math.log1p(-mean)


@keras.saving.register_keras_serializable(package="dbn")
class Spin(Units):
    """Two-valued units, -1 and 1: p(x = 1 | a) = sigmoid(2 a), with the mean tanh(a).

    Data may be any numbers in [-1, 1], taken as means.

    Example:

    >>> print(round(float(Spin().mean(tf.constant(0.5))), 4))
    0.4621
    """

    name = "spin"
    activation = "tanh"
    low = -1.0
    high = 1.0
    two_valued = True

    def uniforms(self, units):
        return units

    def mean(self, pre_activation):
        return tf.tanh(pre_activation)

    def sample(self, pre_activation, uniforms):
        up = uniforms < tf.sigmoid(2 * tf.cast(pre_activation, uniforms.dtype))
        return 2 * tf.cast(up, pre_activation.dtype) - 1

    def energy(self, x):
        return tf.zeros(tf.shape(x)[:-1], x.dtype)

    def cumulant(self, pre_activation):
        # log(exp(a) + exp(-a)), which overflows as it stands.
        return tf.reduce_sum(tf.nn.softplus(2 * pre_activation) - pre_activation, axis=-1)

    def bias_from_mean(self, mean):
        return tf.atanh(tf.clip_by_value(mean, -0.998, 0.998))


@keras.saving.register_keras_serializable(package="dbn")
class Gaussian(Units):
    """Real-valued units of unit variance: p(x | a) is normal with mean a.

    As visible units, for data standardised to mean 0 and variance 1 in every column (Hinton 2010,
    section 13.2); as hidden units, for linear codes (Welling, Rosen-Zvi & Hinton 2005). The free
    energy holds x^2 / 2, the cumulant a^2 / 2 + log(2 pi) / 2, so log p(v) is a log-density.

    Example:

    >>> round(float(Gaussian().sample(tf.constant([[2.0]]), tf.constant([[0.5]]))[0, 0]), 6)
    2.0
    """

    name = "gaussian"
    activation = "linear"
    low = -math.inf
    high = math.inf

    def uniforms(self, units):
        return units

    def mean(self, pre_activation):
        return tf.identity(pre_activation)

    def sample(self, pre_activation, uniforms):
        # 2 u - 1 is exact for uniforms of 24 bits, so both tails are as long.
        deviation = math.sqrt(2) * tf.math.erfinv(2 * uniforms - 1)
        return pre_activation + tf.cast(deviation, pre_activation.dtype)

    def energy(self, x):
        return tf.reduce_sum(tf.square(x), axis=-1) / 2

    def cumulant(self, pre_activation):
        log_normaliser = (tf.square(pre_activation) + math.log(2 * math.pi)) / 2
        return tf.reduce_sum(log_normaliser, axis=-1)

    def bias_from_mean(self, mean):
        return tf.identity(mean)


TYPES = {units.name: units for units in (Bernoulli, Gaussian, Spin)}


def get(identifier):
    """Returns the unit type named or given.

    Args:
        identifier: Name of a type (`"bernoulli"`, `"gaussian"`, `"spin"`), or a `Units` instance.

    Returns:
        A `Units` instance.

    Raises:
        ValueError: If there is no unit type of that name.
    """
    if isinstance(identifier, Units):
        return identifier
    if isinstance(identifier, str) and identifier in TYPES:
        return TYPES[identifier]()
    raise ValueError(
        f"Unknown unit type {identifier!r}. Give one of {sorted(TYPES)} or an instance of "
        "`dbn.layers.Units`."
    )
