"""Settings, and what callbacks remember, as plain values that JSON can hold, and back."""

import contextlib
import json
import re

import keras
import numpy as np
import tensorflow as tf

__all__ = ["difference", "from_plain", "memory", "plain", "recall", "settings_of"]

_VARIABLES = tf.Variable, keras.Variable


def settings_of(model):
    """Returns the configs of a compiled Keras model and of its training, a dict."""
    training = dict(model.get_compile_config())
    training.pop("steps_per_execution", None)  # Results do not depend on it.
    try:
        return {"model": model.get_config(), "training": training}
    except NotImplementedError:  # A user's own class; its variables tell.
        return {"training": training}


def plain(settings):
    """Returns settings as JSON gives them back, without the numbers that Keras puts after names."""

    def other(value):
        return value.tolist() if hasattr(value, "tolist") else type(value).__name__

    def without_numbers(value):
        if isinstance(value, dict):
            found = {}
            for name, part in value.items():
                name = without_numbers(name)
                while name in found:  # `dense` and `dense_1` are two.
                    name += "'"
                found[name] = without_numbers(part)
            return found
        if isinstance(value, list):
            return [without_numbers(part) for part in value]
        return re.sub(r"_\d+(?![^\W_])", "", value) if isinstance(value, str) else value

    return without_numbers(json.loads(json.dumps(settings, default=other)))


def difference(there, here, name=""):
    """Returns where two settings differ first, in words, or None."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(key, there.get(key), here.get(key)) for key in {**there, **here}]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(number, a, b) for number, (a, b) in enumerate(zip(there, here, strict=True))]
    elif there == here:
        return None
    else:
        return f"`{name}` is {there!r} there and {here!r} here"
    found = (difference(a, b, f"{name}.{key}".lstrip(".")) for key, a, b in pairs)
    return next(filter(None, found), None)


def memory(callback):
    """Returns those attributes of a callback that can be kept: plain values and their arrays."""
    found = {}
    for name, value in vars(callback).items():
        arrays = []
        with contextlib.suppress(TypeError):
            found[name] = (_to_plain(value, arrays), arrays)
    return found


def _to_plain(value, arrays):
    """Returns a copy that JSON can hold, and appends the arrays in it to a list."""
    if isinstance(value, _VARIABLES):
        value = np.array(value)
    if tf.is_tensor(value) and value.shape.rank == 0:
        value = value.numpy()
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"number": [value.dtype.name, value.item()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_to_plain(part, arrays) for part in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _to_plain(part, arrays) for key, part in value.items()}}
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        return {"pairs": [[key, _to_plain(part, arrays)] for key, part in value.items()]}
    raise TypeError


def recall(callback, name, value):
    """Gives an attribute of a callback a value that was kept, in what the attribute is now."""
    now = getattr(callback, name, None)
    if isinstance(now, _VARIABLES):
        now.assign(value)
    elif isinstance(now, dict) and type(now) is not dict:
        now.clear()
        now.update(value)
    else:
        setattr(callback, name, value)


def from_plain(value, arrays):
    """Returns what `_to_plain` made this of."""
    if not isinstance(value, dict):
        return value
    ((kind, value),) = value.items()
    if kind == "number":
        return np.dtype(value[0]).type(value[1])
    if kind == "array":
        return arrays[value]
    if kind == "dict":
        return {key: from_plain(part, arrays) for key, part in value.items()}
    if kind == "pairs":
        return {key: from_plain(part, arrays) for key, part in value}
    return {"list": list, "tuple": tuple}[kind](from_plain(part, arrays) for part in value)
