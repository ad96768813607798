"""Deep belief networks from restricted Boltzmann machines, as ordinary Keras models."""

_BACKEND_NEEDED = (
    "dbn runs on Keras' TensorFlow backend, but Keras is set to {!r}. Set the environment variable "
    'KERAS_BACKEND=tensorflow before Keras is imported, or change "backend" in ~/.keras/keras.json.'
)

try:
    import keras
except ImportError as error:
    # Keras imports its backend, which need not be installed if it is another than TensorFlow.
    if error.name in ("jax", "torch"):
        raise ImportError(_BACKEND_NEEDED.format(error.name)) from error
    raise

if keras.backend.backend() != "tensorflow":
    raise ImportError(_BACKEND_NEEDED.format(keras.backend.backend()))

from dbn import (
    callbacks,
    checkpoints,
    data,
    distribution,
    fine_tuning,
    gradients,
    images,
    likelihood,
    negative,
    noise,
    penalties,
    sampling,
    shards,
)
from dbn.generative import GenerativeDBN
from dbn.layers import RBMLayer
from dbn.saving import load_model
from dbn.stack import DBN
from dbn.training import RBM, contrastive_divergence

__version__ = "0.1.0"

__all__ = [
    "DBN",
    "GenerativeDBN",
    "RBM",
    "RBMLayer",
    "callbacks",
    "checkpoints",
    "contrastive_divergence",
    "data",
    "distribution",
    "fine_tuning",
    "gradients",
    "images",
    "likelihood",
    "load_model",
    "negative",
    "noise",
    "penalties",
    "sampling",
    "shards",
]
