"""Unit types with real values."""

import math

import keras
import tensorflow as tf

from dbn.layers.base import Units

__all__ = ["Gaussian", "NoisyReLU", "ScaledGaussian"]

# Of standardised data: a standard deviation of 1 % of the column's.
_LEAST_VARIANCE = 1e-4


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

    def mean(self, pre_activation):
        return tf.identity(pre_activation)

    def sample(self, pre_activation, uniforms):
        return pre_activation + tf.cast(_normal(uniforms), pre_activation.dtype)

    def energy(self, x):
        return tf.reduce_sum(tf.square(x), axis=-1) / 2

    def cumulant(self, pre_activation):
        log_normaliser = (tf.square(pre_activation) + math.log(2 * math.pi)) / 2
        return tf.reduce_sum(log_normaliser, axis=-1)

    def bias_from_mean(self, mean):
        return tf.identity(mean)


@keras.saving.register_keras_serializable(package="dbn")
class ScaledGaussian(Gaussian):
    """Real-valued visible units, each with a variance of its own, which is learnt.

    p(x | a) is normal with mean s a and variance s: the energy is x^2 / (2 s), so that W and the
    biases stay those of `RBMLayer`'s energy, and of the shared Dense. What is learnt is the log of
    s - floor, which keeps s positive (Cho, Ilin & Raiko 2011); in their parameters W and vbias are
    s times these. Variances start at 1: standardise the data.

    Args:
        floor: What no variance falls below, >= 0. With 0, a variance that falls below 1e-4 (that of
            a column which is almost constant, say) ends `fit` with the last good weights.

    Attributes:
        variance: The variances s, `(visible,)`, once the layer is built.

    Raises:
        ValueError: If `floor` is out of its range.

    Example:

    >>> layer = dbn.RBMLayer(3, visible=ScaledGaussian(floor=0.01))
    >>> layer.build((None, 2))
    >>> print(np.round(layer.visible.variance, 6))
    [1. 1.]
    """

    name = "scaled_gaussian"

    def __init__(self, floor=0.0):
        if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 <= floor < 1:
            raise ValueError(f"`floor` must be a number in [0, 1); got {floor!r}.")
        self.floor = float(floor)
        self.log_variance = None

    def build(self, layer, units):
        if self.log_variance is not None:
            raise ValueError(
                "These units serve an RBMLayer already: give each its own `ScaledGaussian`."
            )
        start = keras.initializers.Constant(math.log(1 - self.floor))
        self.log_variance = layer.add_weight(name="log_variance", shape=(units,), initializer=start)

    def refusal(self, side):
        return "the variance of a hidden unit is but a scale of its weights" * (side == "hidden")

    @property
    def variance(self):
        return self.floor + tf.exp(tf.convert_to_tensor(self.log_variance))

    def _variance(self, like):
        return tf.cast(self.variance, like.dtype)

    def mean(self, pre_activation):
        return self._variance(pre_activation) * pre_activation

    def sample(self, pre_activation, uniforms):
        variance = self._variance(pre_activation)
        normal = tf.cast(_normal(uniforms), pre_activation.dtype)
        return variance * pre_activation + tf.sqrt(variance) * normal

    def energy(self, x):
        return tf.reduce_sum(tf.square(x) / self._variance(x), axis=-1) / 2

    def cumulant(self, pre_activation):
        variance = self._variance(pre_activation)
        log_normaliser = variance * tf.square(pre_activation) + tf.math.log(2 * math.pi * variance)
        return tf.reduce_sum(log_normaliser, axis=-1) / 2

    def bias_from_mean(self, mean):
        return mean / self._variance(mean)

    def sound(self):
        return tf.reduce_all(self.variance > _LEAST_VARIANCE)

    def unsoundness(self):
        at = int(tf.argmin(self.variance))
        return (
            f"The variance of visible unit {at} fell to {float(self.variance[at]):.2g}: is its "
            "column constant, or a sum of others? Leave it out, add noise to the data, or give "
            f"`ScaledGaussian(floor=...)` above {_LEAST_VARIANCE:g}."
        )

    def get_config(self):
        return {"floor": self.floor}


@keras.saving.register_keras_serializable(package="dbn")
class NoisyReLU(Units):
    """Noisy rectified linear hidden units: max(0, a + sqrt(sigmoid(a)) n), n standard normal.

    Nair & Hinton (2010): an approximation of infinitely many binary units that share weights, with
    biases shifted by -1/2, -3/2, ... The mean is taken to be max(0, a), as the shared Dense has it,
    and the cumulant to be max(0, a)^2 / 2, whose derivative that is: free energies are those of the
    best hidden state, min_h E(v, h) with the energy h^2 / 2. So there is no normalised density, and
    what needs one (log-likelihoods, tempering) refuses these units.

    Example:

    >>> print(NoisyReLU().mean(tf.constant([-1.0, 2.0])).numpy())
    [0. 2.]
    """

    name = "relu"
    activation = "relu"
    low = 0.0
    high = math.inf
    exact = False

    def refusal(self, side):
        return "data have no use for an approximate way to be sampled" * (side == "visible")

    def mean(self, pre_activation):
        return tf.nn.relu(pre_activation)

    def sample(self, pre_activation, uniforms):
        a = tf.cast(pre_activation, uniforms.dtype)
        noisy = a + tf.sqrt(tf.sigmoid(a)) * _normal(uniforms)
        return tf.cast(tf.nn.relu(noisy), pre_activation.dtype)

    def energy(self, x):
        return tf.reduce_sum(tf.square(x), axis=-1) / 2

    def cumulant(self, pre_activation):
        return tf.reduce_sum(tf.square(tf.nn.relu(pre_activation)), axis=-1) / 2

    def bias_from_mean(self, mean):
        return tf.identity(mean)


def _normal(uniforms):
    """Returns standard normal numbers by the inverse of their distribution function."""
    # 2 u - 1 is exact for uniforms of 24 bits, so both tails are as long.
    return math.sqrt(2) * tf.math.erfinv(2 * uniforms - 1)
