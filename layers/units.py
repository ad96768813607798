"""Unit types: the conditional distribution of one side of an RBM, given the other.

Given the other side, the units `x` of a side are independent, with density

    p(x | a) = exp(x . a - energy(x) - cumulant(a)),

where `a` is the pre-activation (bias included), `energy(x)` the part of the energy that holds
neither weights nor biases, and `cumulant(a)` the log of the normaliser. A unit type is one class
that knows these terms; everything else (free energy, Gibbs steps, training, likelihoods) is
written once, in terms of them.
"""

import keras
import tensorflow as tf

__all__ = ["Bernoulli", "Units", "get"]


class Units:
    """Base class of the unit types.

    A new type overrides every method and attribute below, and is listed in `TYPES`.

    Attributes:
        name: The name by which `RBMLayer(visible=..., hidden=...)` knows the type.
        activation: Name of the Keras activation that maps pre-activation to mean; the shared Dense
            must have it where the type is used for hidden units.
        low: Smallest valid value of a unit.
        high: Largest valid value of a unit. For data, which may be means, not only for samples.
    """

    name: str
    activation: str
    low: float
    high: float

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


TYPES = {"bernoulli": Bernoulli}


def get(identifier):
    """Returns the unit type named or given.

    Args:
        identifier: Name of a type (`"bernoulli"`), or a `Units` instance.

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
