"""Units of several types side by side."""

import math
import numbers

import keras
import tensorflow as tf

from dbn.layers import units as unit_types
from dbn.layers.base import Units

__all__ = ["Mixed"]


@keras.saving.register_keras_serializable(package="dbn")
class Mixed(Units):
    """Visible units of several types, side by side, for cases whose columns are of several kinds.

    Measurements beside categories, for instance, or the units of a layer beside one group for the
    label, as the top RBM of Hinton, Osindero & Teh (2006) has them. Given the hidden units all
    columns are independent, so each type does its own columns.

    Args:
        parts: A list of pairs (unit type, number of columns), in the order of the columns; a type
            by name or a `Units`.

    Attributes:
        parts: The pairs, the types as `Units`.

    Raises:
        ValueError: If a part is no such pair, or its type cannot have so many columns or cannot be
            visible, or (when the layer is built) there are not as many units as these.

    Example:

    >>> units = Mixed([("bernoulli", 2), ("categorical", 3)])
    >>> print(units.mean(tf.zeros((1, 5))).numpy().round(2))
    [[0.5  0.5  0.33 0.33 0.33]]
    >>> layer = dbn.RBMLayer(4, visible=units)
    """

    name = "mixed"
    activation = None

    def __init__(self, parts):
        if not isinstance(parts, (list, tuple)) or not parts:
            raise ValueError(
                "`parts` must be a list of pairs (unit type, number of columns), such as "
                f'[("bernoulli", 500), ("categorical", 10)]; got {parts!r}.'
            )
        self.parts = []
        for part in parts:
            if not isinstance(part, (list, tuple)) or len(part) != 2:
                raise ValueError(
                    f"Each of `parts` must be a pair (unit type, number of columns); got {part!r}."
                )
            kind, width = unit_types.get(part[0]), part[1]
            whole = isinstance(width, numbers.Integral) and not isinstance(width, bool)
            if not whole or width < 1:
                raise ValueError(
                    f"The number of columns of {kind.name!r} units in `parts` must be an integer "
                    f">= 1; got {width!r}."
                )
            refusal = kind.refusal("visible")
            if isinstance(kind, Mixed):
                refusal = "its parts can stand here themselves"
            if refusal:
                raise ValueError(f"`parts` cannot hold {kind.name!r} units: {refusal}.")
            kind.uniforms(int(width))  # Categorical ones refuse what does not make whole groups.
            self.parts.append((kind, int(width)))

    @property
    def kinds(self):
        """The unit types, in the order of their columns."""
        return [kind for kind, _ in self.parts]

    @property
    def widths(self):
        """How many columns each type has, in the same order."""
        return [width for _, width in self.parts]

    def refusal(self, side):
        return "a Dense layer has one activation for all its units" * (side == "hidden")

    def build(self, layer, units):
        if units != sum(self.widths):
            raise ValueError(
                f"`Mixed` units of {' + '.join(map(str, self.widths))} = {sum(self.widths)} "
                f"columns cannot be {units} units."
            )
        for kind, width in self.parts:
            kind.build(layer, width)

    def split(self, x):
        return tf.split(x, self.widths, axis=-1)

    def _each(self, x):
        """Returns the pairs of a type and its columns of `x`."""
        return zip(self.kinds, self.split(x), strict=True)

    @property
    def low(self):
        """Smallest valid value of any column."""
        return min(kind.low for kind in self.kinds)

    @property
    def high(self):
        """Largest valid value of any column."""
        return max(kind.high for kind in self.kinds)

    @property
    def between(self):
        """Which valid values samples never have, in words; None if there are none."""
        found = [kind.between for kind in self.kinds if kind.between]
        return " or ".join(dict.fromkeys(found)) or None

    def uniforms(self, units):
        return sum(self._uniforms())

    def _uniforms(self):
        return [kind.uniforms(width) for kind, width in self.parts]

    def mean(self, pre_activation):
        return tf.concat([kind.mean(a) for kind, a in self._each(pre_activation)], axis=-1)

    def sample(self, pre_activation, uniforms):
        numbers_of_each = tf.split(uniforms, self._uniforms(), axis=-1)
        parts = zip(self._each(pre_activation), numbers_of_each, strict=True)
        return tf.concat([kind.sample(a, u) for (kind, a), u in parts], axis=-1)

    def energy(self, x):
        return tf.add_n([kind.energy(part) for kind, part in self._each(x)])

    def cumulant(self, pre_activation):
        return tf.add_n([kind.cumulant(a) for kind, a in self._each(pre_activation)])

    def bias_from_mean(self, mean):
        return tf.concat([kind.bias_from_mean(part) for kind, part in self._each(mean)], axis=-1)

    def _counts(self):
        return [kind.count(width) for kind, width in self.parts]

    def count(self, units):
        counts = self._counts()
        # An integer too large for a float times infinity is an error.
        return math.inf if math.inf in counts else math.prod(counts)

    def states(self, which, units):
        found = []
        for (kind, width), count in zip(self.parts, self._counts(), strict=True):
            found.append(kind.states(which % count, width))
            which = which // count
        return tf.concat(found, axis=-1)

    def valid(self, x):
        return tf.reduce_all([kind.valid(part) for kind, part in self._each(x)])

    def possible(self, x):
        return tf.reduce_all([kind.possible(part) for kind, part in self._each(x)])

    def _named(self):
        """Returns the pairs of a type and its columns in words."""
        first = 0
        for kind, width in self.parts:
            yield (
                kind,
                f"columns {first} to {first + width - 1}" if width > 1 else f"column {first}",
            )
            first += width

    @property
    def invalid(self):
        return "; or ".join(f"in {where} {kind.invalid}" for kind, where in self._named())

    def fault(self, x):
        if x.shape[-1] != sum(self.widths):
            return f"must have {sum(self.widths)} columns; got {x.shape[-1]}."
        for (kind, where), part in zip(self._named(), self.split(x), strict=True):
            fault = kind.fault(part)
            if fault:
                return f"({where}) {fault}"
        return None

    def sound(self):
        return tf.reduce_all([kind.sound() for kind in self.kinds])

    def unsoundness(self):
        return next(
            f"In {where}: {kind.unsoundness()}"
            for kind, where in self._named()
            if not bool(kind.sound())
        )

    def get_config(self):
        serialise = keras.saving.serialize_keras_object
        return {"parts": [[serialise(kind), width] for kind, width in self.parts]}

    @classmethod
    def from_config(cls, config):
        parts = config["parts"]
        return cls([(keras.saving.deserialize_keras_object(kind), n) for kind, n in parts])
