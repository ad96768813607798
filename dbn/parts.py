"""What an RBM's training is put together from: objects with a state, each serving one RBM."""

import weakref

import keras

__all__ = ["Part"]


class Part(keras.layers.Layer):
    """Base class of what `RBM` takes as `gradient=` and `negative=`.

    A Keras layer, so that its state is saved with the model; a subclass creates it in
    `build(shape)`, for weights of the shape `(visible, hidden)`.
    """

    argument: str

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._served = None

    def serve(self, rbm):
        """Creates the state for an RBM that is being built.

        Raises:
            ValueError: If this object serves another RBM already, or has served one that is no
                more: their states would mix.
        """
        served = self._served and self._served()
        if self._served is not None and served is not rbm:
            whom = "an RBM that is gone" if served is None else repr(served.name)
            raise ValueError(
                f"`{self.argument}` serves {whom} already: give each RBM a `{type(self).__name__}` "
                "of its own."
            )
        self._served = weakref.ref(rbm)
        if not self.built:
            self.build(tuple(rbm.layer.W.shape))
