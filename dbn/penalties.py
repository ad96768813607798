"""Penalties on top of an RBM's cost. Weight decay is Keras' own: `kernel_regularizer`."""

import keras
import numpy as np
import tensorflow as tf

from dbn.parts import Part

__all__ = ["Sparsity"]


@keras.saving.register_keras_serializable(package="dbn")
class Sparsity(Part):
    """Draws the mean activation of every hidden unit toward a target (Hinton 2010, section 11).

    The penalty is the cross entropy between the target p and the unit's activity q, a moving
    average of its mean over batches; its derivative with respect to the unit's pre-activation is
    taken as q - p in every case, so `cost * (q - p)` is added to the gradient there.

    Args:
        target: Activity to reach, in (0, 1); typically 0.01 to 0.1.
        cost: Weight of the penalty, >= 0, in nats per case.
        decay: Weight of the past in the moving average, in [0, 1).
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Attributes:
        activity: The moving average, `(hidden,)`, a weight; the target at first.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> rbm = dbn.RBM(8, sparsity=dbn.penalties.Sparsity(target=0.1, cost=0.1))
    >>> rbm.compile(keras.optimizers.SGD(0.1))
    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> history = rbm.fit(x, verbose=0)
    """

    argument = "sparsity"

    def __init__(self, target, cost=0.01, decay=0.95, **kwargs):
        for name, value, good, needed in (
            ("target", target, lambda x: 0 < x < 1, "in (0, 1)"),
            ("cost", cost, lambda x: 0 <= x < np.inf, "a number >= 0"),
            ("decay", decay, lambda x: 0 <= x < 1, "in [0, 1)"),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not good(value):
                raise ValueError(f"`{name}` must be {needed}; got {value!r}.")
        super().__init__(**kwargs)
        self.target, self.cost, self.decay = float(target), float(cost), float(decay)

    def build(self, shape):
        """Creates the moving average, for weights of the shape `(visible, hidden)`."""
        self.activity = self.add_weight(
            name="activity",
            shape=shape[1:],
            initializer=keras.initializers.Constant(self.target),
            trainable=False,
            aggregation="only_first_replica",
        )

    def gradient(self, v, h):
        """Moves the activity toward that of a batch, and returns the penalty's gradient.

        Args:
            v: Mean of the cases, `(visible,)`.
            h: Mean of the hidden means that they give, `(hidden,)`.

        Returns:
            The gradients for W and hbias; that for vbias is zero.
        """
        activity = self.decay * self.activity.value + (1 - self.decay) * tf.cast(
            h, self.activity.dtype
        )
        self.activity.assign(activity)
        excess = self.cost * tf.cast(activity - self.target, v.dtype)
        return v[:, None] * excess[None, :], excess

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "target": self.target,
            "cost": self.cost,
            "decay": self.decay,
        }
