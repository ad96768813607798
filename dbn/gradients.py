"""Changes of the gradient of an RBM's cost, between contrastive divergence and the optimizer."""

import keras
import tensorflow as tf

from dbn.parts import Part

__all__ = ["Centered"]


@keras.saving.register_keras_serializable(package="dbn")
class Centered(Part):
    """The centered gradient: that of an RBM whose units have offsets taken away.

    With offsets m of the visible and l of the hidden units, and dW, db, dc the gradients for W,
    vbias and hbias, the centered ones are (Melchior, Fischer & Wiskott 2016, equations 10 to 12,
    in the parameters of the ordinary RBM)

        dW' = dW - db l^T - m dc^T        db' = db - dW' l        dc' = dc - dW'^T m

    so what the weights learn by SGD, with or without momentum, no longer depends on whether a pixel
    is stored as x or as 1 - x. The offsets are moving averages of the data and of the mean
    hidden activations that they give; at first, plain averages. It can be used with every
    optimizer and unit type. A model of this package, `RBM(layer, gradient=Centered())`, calls it.

    Args:
        rate: Weight of a new batch in the moving averages, in (0, 1].
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Attributes:
        visible_offset: `(visible,)`, a weight.
        hidden_offset: `(hidden,)`, a weight.

    Raises:
        ValueError: If `rate` is out of its range.

    Example:

    >>> rbm = dbn.RBM(8, persistent=True, gradient=dbn.gradients.Centered())
    >>> rbm.compile(keras.optimizers.SGD(0.1))
    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> history = rbm.fit(x, verbose=0)
    """

    argument = "gradient"

    def __init__(self, rate=0.01, **kwargs):
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"`rate` must be in (0, 1]; got {rate!r}.")
        super().__init__(**kwargs)
        self.rate = float(rate)

    def build(self, shape):
        """Creates the offsets, for weights of the shape `(visible, hidden)`."""
        self.visible_offset, self.hidden_offset = (
            self.add_weight(
                name=name,
                shape=(units,),
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )
            for name, units in zip(("visible_offset", "hidden_offset"), shape, strict=True)
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate}

    def update_offsets(self, v, h, number):
        """Moves the offsets toward the means of a batch.

        Args:
            v: Mean of its cases, `(visible,)`.
            h: Mean of the hidden means that they give, `(hidden,)`.
            number: How many batches came before, an integer tensor.
        """
        seen = tf.cast(number, self.visible_offset.dtype)
        rate = tf.maximum(tf.constant(self.rate, seen.dtype), 1 / (seen + 1))
        for offset, mean in ((self.visible_offset, v), (self.hidden_offset, h)):
            offset.assign(offset.value + rate * (tf.cast(mean, offset.dtype) - offset.value))

    def change(self, W, hbias, vbias):
        """Centers gradients.

        Args:
            W: Gradient for the weights, `(visible, hidden)`.
            hbias: Gradient for the hidden bias, `(hidden,)`.
            vbias: Gradient for the visible bias, `(visible,)`.

        Returns:
            The three centered gradients, in the same order.
        """
        m, n = (tf.cast(x.value, W.dtype) for x in (self.visible_offset, self.hidden_offset))
        W -= vbias[:, None] * n[None, :] + m[:, None] * hbias[None, :]
        return W, hbias - tf.linalg.matvec(W, m, transpose_a=True), vbias - tf.linalg.matvec(W, n)
