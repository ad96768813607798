"""Unit types with finitely many values."""

import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from dbn.layers.base import Units

__all__ = ["Bernoulli", "Binomial", "Categorical", "Spin"]

# What the values of a categorical group may miss 1 by: probabilities in float32, or rounded.
_SUM_TOLERANCE = 1e-3


class _TwoValued(Units):
    """Units with the two values `low` and `high`."""

    two_valued = True

    def count(self, units):
        return 2**units

    def states(self, which, units):
        on = tf.cast(_digits(which, [2] * units), tf.float64)
        return self.low + (self.high - self.low) * on

    def possible(self, x):
        return tf.reduce_all((x == self.low) | (x == self.high))


@keras.saving.register_keras_serializable(package="dbn")
class Bernoulli(_TwoValued):
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
    between = "values between 0 and 1"

    def fault(self, x):
        found = super().fault(x)
        if found and self.low <= float(tf.reduce_min(x)) <= float(tf.reduce_max(x)) <= 255:
            found += " Divide grey levels 0-255 by 255."
        return found

    def mean(self, pre_activation):
        return tf.sigmoid(pre_activation)

    def sample(self, pre_activation, uniforms):
        # Taken in the precision of the uniforms: rounded to a narrower float, probabilities near 1
        # would be sampled with a bias.
        mean = self.mean(tf.cast(pre_activation, uniforms.dtype))
        return tf.cast(uniforms < mean, pre_activation.dtype)

    def cumulant(self, pre_activation):
        # log(1 + exp(a)) overflows from a = 89 in float32; softplus does not.
        return tf.reduce_sum(tf.nn.softplus(pre_activation), axis=-1)

    def bias_from_mean(self, mean):
        # A pixel that is always 0 (or 1) would have an infinite bias.
        mean = tf.clip_by_value(mean, 0.001, 0.999)
        return tf.math.log(mean) - tf.math.log1p(-mean)


@keras.saving.register_keras_serializable(package="dbn")
class Spin(_TwoValued):
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
    between = "values between -1 and 1"

    def mean(self, pre_activation):
        return tf.tanh(pre_activation)

    def sample(self, pre_activation, uniforms):
        up = uniforms < tf.sigmoid(2 * tf.cast(pre_activation, uniforms.dtype))
        return 2 * tf.cast(up, pre_activation.dtype) - 1

    def cumulant(self, pre_activation):
        # log(exp(a) + exp(-a)), which overflows as it stands.
        return tf.reduce_sum(tf.nn.softplus(2 * pre_activation) - pre_activation, axis=-1)

    def bias_from_mean(self, mean):
        return tf.atanh(tf.clip_by_value(mean, -0.998, 0.998))


@keras.saving.register_keras_serializable(package="dbn")
class Categorical(Units):
    """Groups of units of which one is 1 and the others are 0: p(x_i = 1 | a) = softmax(a)_i.

    Also known as softmax or Potts units. A categorical variable with q values is a group of q
    units, next to each other; data are one-hot, or probabilities that sum to 1 in each group. As
    hidden units they are one group, whose mean is a softmax layer: the RBM is then a mixture model.

    Args:
        sizes: How many values the variables have: an integer for all of them, or a list with one a
            group; None for a single group of all units.

    Raises:
        ValueError: If a size is no integer >= 2, or (when the layer is built) there are not as many
            units as the groups have.

    Example:

    >>> units = Categorical(3)
    >>> x = units.one_hot([[0, 2]])
    >>> print(x)
    [[1. 0. 0. 0. 0. 1.]]
    >>> print(units.codes(x))
    [[0 2]]
    """

    name = "categorical"
    activation = "softmax"
    low = 0.0
    high = 1.0
    between = "values between 0 and 1"

    def __init__(self, sizes=None):
        given = [] if sizes is None else np.ravel(sizes)
        good = all(np.issubdtype(type(size), np.integer) and size >= 2 for size in given)
        if not good or np.ndim(sizes) > 1 or (sizes is not None and not len(given)):
            raise ValueError(
                f"`sizes` must be an integer >= 2, or a list of such, one a group; got {sizes!r}."
            )
        self.sizes = sizes if sizes is None or np.ndim(sizes) else int(sizes)
        if np.ndim(sizes):
            self.sizes = [int(size) for size in sizes]

    def refusal(self, side):
        several = side == "hidden" and self.sizes is not None
        return "a softmax layer is one group of all its units: give no sizes" * several

    def build(self, layer, units):
        self.groups(units)

    def groups(self, units):
        """Returns the sizes of the groups of so many units, a list.

        Raises:
            ValueError: If these groups do not have so many units.
        """
        if isinstance(self.sizes, list):
            found = self.sizes
        else:
            size = units if self.sizes is None else self.sizes
            found = [size] * (units // size)
        if sum(found) != units:
            raise ValueError(
                f"Categorical units of sizes {self.sizes} do not make {units} units: data must be "
                "one-hot, a column for each value of each variable. "
                "`Categorical(sizes).one_hot(codes)` makes them of integers."
            )
        return found

    def one_hot(self, codes):
        """Returns one-hot data of integers.

        Args:
            codes: Integers `(cases, groups)`, from 0 on, each below its group's size.

        Returns:
            float32 array `(cases, units)`.

        Raises:
            ValueError: If there is another number of groups than there are sizes, or a code is no
                integer or outside its group's size.
        """
        codes = np.asarray(codes)
        if self.sizes is None or codes.ndim != 2 or codes.dtype.kind not in "iu":
            raise ValueError(
                "`codes` must be integers of shape (cases, groups), for units of given sizes; got "
                f"{codes.dtype} of shape {codes.shape}, sizes {self.sizes}."
            )
        sizes = self.sizes if isinstance(self.sizes, list) else [self.sizes] * codes.shape[1]
        if codes.shape[1] != len(sizes):
            raise ValueError(
                f"`codes` must have {len(sizes)} columns, one a group; got {codes.shape[1]}."
            )
        bad = np.argwhere((codes < 0) | (codes >= sizes))
        if len(bad):
            case, group = bad[0]
            raise ValueError(
                f"`codes` holds {codes[case, group]} for group {group}, in case {case}: its values "
                f"must be from 0 to {sizes[group] - 1}."
            )
        found = np.zeros((len(codes), sum(sizes)), np.float32)
        first = np.cumsum([0, *sizes[:-1]], dtype=np.int32)  # 32 bits: as large as what is made.
        np.put_along_axis(found, codes.astype(np.int32) + first, 1, axis=1)
        return found

    def codes(self, x):
        """Returns the likeliest value of each group, int64 `(cases, groups)`, for units `x`."""
        x = tf.convert_to_tensor(x)
        return tf.argmax(self._split(x, -1.0), axis=-1).numpy()

    def _split(self, x, filling):
        """Returns units `(cases, units)` as `(cases, groups, largest size)`, filled up."""
        sizes = self.groups(x.shape[-1])
        most = max(sizes)
        if min(sizes) < most:
            # Where a group is smaller, the column that is appended.
            at = np.full((len(sizes), most), sum(sizes))
            at[np.arange(most) < np.array(sizes)[:, None]] = np.arange(sum(sizes))
            x = tf.gather(tf.pad(x, ((0, 0), (0, 1)), constant_values=filling), at, axis=-1)
        return tf.reshape(x, (-1, len(sizes), most))

    def _join(self, x, units):
        """Undoes `_split`."""
        sizes = self.groups(units)
        x = tf.reshape(x, (-1, len(sizes) * max(sizes)))
        if min(sizes) < max(sizes):
            inside = np.arange(max(sizes)) < np.array(sizes)[:, None]
            x = tf.gather(x, np.flatnonzero(inside), axis=-1)
        return tf.ensure_shape(x, (None, units))

    def uniforms(self, units):
        return len(self.groups(units))

    def mean(self, pre_activation):
        grouped = tf.nn.softmax(self._split(pre_activation, -math.inf))
        return self._join(grouped, pre_activation.shape[-1])

    def sample(self, pre_activation, uniforms):
        # In the precision of the uniforms, as for Bernoulli units.
        a = self._split(tf.cast(pre_activation, uniforms.dtype), -math.inf)
        weights = tf.exp(a - tf.reduce_max(a, axis=-1, keepdims=True))
        upto = tf.cumsum(weights, axis=-1)
        # Its rounding keeps u * total below the total, so the last value is never passed.
        reached = upto[..., :-1] <= uniforms[..., None] * upto[..., -1:]
        code = tf.reduce_sum(tf.cast(reached, tf.int32), axis=-1)
        one = tf.one_hot(code, a.shape[-1], dtype=pre_activation.dtype)
        return self._join(one, pre_activation.shape[-1])

    def cumulant(self, pre_activation):
        grouped = self._split(pre_activation, -math.inf)
        return tf.reduce_sum(tf.reduce_logsumexp(grouped, axis=-1), axis=-1)

    def bias_from_mean(self, mean):
        return tf.math.log(tf.maximum(mean, 0.001))

    def count(self, units):
        return math.prod(self.groups(units))

    def states(self, which, units):
        sizes = self.groups(units)
        codes = _digits(which, sizes)
        values = np.concatenate([np.arange(size) for size in sizes])
        chosen = tf.repeat(codes, sizes, axis=1) == tf.constant(values, codes.dtype)
        return tf.cast(chosen, tf.float64)

    def valid(self, x):
        return super().valid(x) & tf.reduce_all(tf.abs(self._sums(x) - 1) < _SUM_TOLERANCE)

    @property
    def invalid(self):
        return f"{super().invalid}, or groups that do not sum to 1"

    def possible(self, x):
        return tf.reduce_all((x == 0) | (x == 1))

    def fault(self, x):
        try:
            self.groups(x.shape[-1])
        except ValueError as error:
            return f"has width {x.shape[-1]}. {error}"
        found = super().fault(x)
        if found:
            return found
        sums = self._sums(x).numpy()
        case, group = np.unravel_index(np.argmax(np.abs(sums - 1)), sums.shape)
        if abs(sums[case, group] - 1) < _SUM_TOLERANCE:
            return None
        return (
            f"must be one-hot, or sum to 1, in each group; in case {case}, group {group} sums to "
            f"{sums[case, group]:g}."
        )

    def whole(self, mask):
        held = self._sums(tf.cast(mask, tf.float32))
        return bool(tf.reduce_all((held == 0) | (held == self.groups(mask.shape[-1]))))

    def _sums(self, x):
        return tf.reduce_sum(self._split(x, 0.0), axis=-1)

    def get_config(self):
        return {"sizes": self.sizes}


@keras.saving.register_keras_serializable(package="dbn")
class Binomial(Units):
    """Visible counts from 0 to n, of n draws each: p(x | a) is binomial with p = sigmoid(a).

    n binary units that share their weights (Teh & Hinton 2001), for counts with a known maximum:
    ratings, votes, grey levels. Data may be any numbers in [0, n], taken as means.

    Args:
        trials: n, an integer from 1 to 255.

    Raises:
        ValueError: If `trials` is out of its range.

    Example:

    >>> print(Binomial(10).mean(tf.constant([0.0])).numpy())
    [5.]
    """

    name = "binomial"
    activation = None
    low = 0.0
    between = "values between whole numbers"

    def __init__(self, trials):
        whole = isinstance(trials, numbers.Integral) and not isinstance(trials, bool)
        if not whole or not 1 <= trials <= 255:
            raise ValueError(f"`trials` must be an integer from 1 to 255; got {trials!r}.")
        self.trials = int(trials)

    def refusal(self, side):
        return "their mean, n sigmoid(a), is no activation of a Dense layer" * (side == "hidden")

    @property
    def high(self):
        """The number of trials."""
        return float(self.trials)

    def mean(self, pre_activation):
        return self.trials * tf.sigmoid(pre_activation)

    def sample(self, pre_activation, uniforms):
        a = tf.cast(pre_activation, uniforms.dtype)
        # From the nearer end: near 1 what is summed up would not come, rounded, beyond the number.
        above = uniforms > 0.5
        a, uniforms = tf.where(above, -a, a), tf.where(above, 1 - uniforms, uniforms)
        log_none = -self.trials * tf.nn.softplus(a)
        choices = tf.constant(_log_choices(self.trials), a.dtype)

        def body(x, upto, count):
            upto += tf.exp(choices[x] + tf.cast(x, a.dtype) * a + log_none)
            return x + 1, upto, count + tf.cast(upto <= uniforms, a.dtype)

        start = tf.constant(0), tf.zeros_like(a), tf.zeros_like(a)
        _, _, count = tf.while_loop(lambda x, *_: x < self.trials, body, start)
        return tf.cast(tf.where(above, self.trials - count, count), pre_activation.dtype)

    def energy(self, x):
        # Minus the log of the number of ways to have x of n.
        n = tf.cast(self.trials, x.dtype)
        return tf.reduce_sum(
            tf.math.lgamma(x + 1) + tf.math.lgamma(n - x + 1) - tf.math.lgamma(n + 1), axis=-1
        )

    def cumulant(self, pre_activation):
        return self.trials * tf.reduce_sum(tf.nn.softplus(pre_activation), axis=-1)

    def bias_from_mean(self, mean):
        return Bernoulli().bias_from_mean(mean / self.trials)

    def count(self, units):
        return (self.trials + 1) ** units

    def states(self, which, units):
        return tf.cast(_digits(which, [self.trials + 1] * units), tf.float64)

    def possible(self, x):
        return tf.reduce_all(x == tf.round(x))

    def get_config(self):
        return {"trials": self.trials}


def _digits(which, sizes):
    """Returns the digits of numbers, lowest first, in a number system with these bases."""
    places = np.cumprod([1, *sizes[:-1]], dtype=np.int64)
    return which[:, None] // places % np.array(sizes, np.int64)


def _log_choices(n):
    """Returns log(n choose x) for x from 0 to n, a float64 array."""
    return np.array([math.log(math.comb(n, x)) for x in range(n + 1)])
