"""Model files: loading that says what is wrong with one."""

import zipfile
from pathlib import Path

import keras

__all__ = ["load_model"]


def load_model(path, compile=True):
    """Loads a `.keras` file as `keras.saving.load_model` does, after a look at it whole.

    Every part is checked against its check sum before anything is made of it, and code in the file
    (a Lambda layer with a Python lambda) is never executed.

    Args:
        path: Path of the file.
        compile: Whether to compile the model, too, and to restore its optimizer's state.

    Returns:
        The model: an `RBM`, a `DBN`, a classifier, or any other Keras model.

    Raises:
        ValueError: If the file is damaged, no `.keras` file, or holds code.
        OSError: If it cannot be read.

    Example:

    >>> rbm = dbn.RBM(4)
    >>> rbm.build((None, 9))
    >>> rbm.save("rbm.keras")
    >>> bool(tf.reduce_all(load_model("rbm.keras").layer.W == rbm.layer.W))
    True
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            names, damaged = set(file.namelist()), file.testzip()
    except OSError:
        raise
    except Exception as error:  # A flipped bit may ask for a password, or an unknown compression.
        raise ValueError(f"{path} is damaged, or no .keras file: {error}") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: its part {damaged} is not what was written.")
    if not {"config.json", "metadata.json", "model.weights.h5"} <= names:
        raise ValueError(f"{path} is no .keras file: it has the parts {', '.join(sorted(names))}.")
    if path.suffix != ".keras":  # By which Keras chooses what to read it as.
        raise ValueError(f"The name of a .keras file must end so; got {path}.")
    return keras.saving.load_model(path, compile=compile, safe_mode=True)
