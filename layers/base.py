"""Units: what the unit types have in common.

Given the other side, the units `x` of a side of an RBM are independent, with density

    p(x | a) = exp(x . a - energy(x) - cumulant(a)),

where `a` is the pre-activation (bias included), `energy(x)` the part of the energy that holds
neither weights nor biases, and `cumulant(a)` the log of the normaliser. A unit type is one class
that knows these terms; everything else (free energy, Gibbs steps, training, likelihoods) is
written once, in terms of them.
"""

import math

import tensorflow as tf

__all__ = ["Units"]


class Units:
    """Base class of the unit types.

    A new type overrides every method and attribute below that raises or has no value, and is listed
    in `TYPES`.

    Attributes:
        name: The name by which `RBMLayer(visible=..., hidden=...)` knows the type.
        activation: Name of the Keras activation that maps pre-activation to mean; the shared Dense
            must have it where the type is used for hidden units.
        low: Smallest valid value of a unit.
        high: Largest valid value of a unit. For data, which may be means, not only for samples.
        two_valued: Whether samples have no other values than these two.
        between: Which valid values samples never have, in words; None if there are none.
        exact: Whether `sample` draws from the density whose normaliser `cumulant` is.
    """

    name: str
    activation: str
    low: float
    high: float
    two_valued = False
    between = None
    exact = True

    def refusal(self, side):
        """Returns why the type cannot be the `"visible"` or `"hidden"` side; empty if it can."""
        return ""

    def build(self, layer, units):
        """Makes ready for `units` units of a layer, on which a type that learns has its weights.

        Raises:
            ValueError: If the type cannot have so many units.
        """

    @property
    def kinds(self):
        """The types that stand side by side in this one, a list: itself, unless it is `Mixed`."""
        return [self]

    def split(self, x):
        """Returns the columns of `x` of each of `kinds`, a list."""
        return [x]

    def uniforms(self, units):
        """Returns how many uniform numbers a sample of `units` units takes, an integer."""
        return units

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
        return tf.zeros(tf.shape(x)[:-1], x.dtype)

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

    def count(self, units):
        """Returns how many states `units` units have, an integer; infinite if real-valued."""
        return math.inf

    def states(self, which, units):
        """Returns the states of these numbers from 0 to `count(units) - 1`, float64."""
        raise NotImplementedError(f"The states of {self.name} units cannot be enumerated.")

    def valid(self, x):
        """Returns whether all of x can be data of these units, a scalar boolean tensor."""
        return tf.reduce_all(tf.math.is_finite(x) & (x >= self.low) & (x <= self.high))

    def possible(self, x):
        """Returns whether all of x, which is valid, can be samples, a scalar boolean tensor."""
        return tf.constant(True)

    def whole(self, mask):
        """Returns whether a mask `(cases, units)` parts none of those that are drawn together."""
        return True

    @property
    def invalid(self):
        """What makes `valid` False, in words."""
        if math.isinf(self.low) and math.isinf(self.high):
            return "NaN or infinity"
        return f"NaN, infinity or values outside [{self.low:g}, {self.high:g}]"

    def fault(self, x):
        """Returns what keeps a tensor from being data of these units, in words, or None."""
        # The extremes tell all: NaN wherever there is a NaN.
        low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            return "holds NaN or infinity; all its values must be finite."
        if low < self.low or high > self.high:
            return (
                f"must lie in [{self.low:g}, {self.high:g}] for {self.name} units; got values from "
                f"{low:g} to {high:g}."
            )
        return None

    def sound(self):
        """Returns whether what the type has learnt can be used, a scalar boolean tensor."""
        return tf.constant(True)

    def unsoundness(self):
        """Returns what is wrong where `sound` is not, in words."""
        raise NotImplementedError

    def get_config(self):
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Returns a unit type made from what `get_config` returned."""
        return cls(**config)
