"""The files that checkpoints are: written whole or not at all, checked when read, no pickle."""

import contextlib
import hashlib
import io
import json
import os
import re

import numpy as np
import tensorflow as tf

__all__ = ["START_OVER", "digest", "first_batch_digest", "read", "sync", "write"]

_FORMAT = 1
_HEAD = "dbn checkpoint, format {}, sha256 {}\n"  # The sum is that of what follows, an .npz file.
_SAMPLE = 2**24  # Bytes of the data that `digest` reads: some 10 ms.
START_OVER = "To start over, remove it or name another; nothing has been changed."


def read(path):
    """Reads a checkpoint.

    Args:
        path: `Path` of the file.

    Returns:
        Its facts, a dict, and its arrays, a dict of NumPy arrays; None if there is no such file.

    Raises:
        ValueError: If it is damaged, no checkpoint, or one of another format.
        OSError: If it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    head, _, body = content.partition(b"\n")
    found = re.fullmatch(_HEAD.format(r"(\d{1,9})", "([0-9a-f]{64})").strip().encode(), head)
    if found is None:
        raise ValueError(f"{path} is no checkpoint of dbn, or its beginning is lost. {START_OVER}")
    if int(found[1]) != _FORMAT:
        raise ValueError(
            f"{path} is a checkpoint of format {int(found[1])}; this version of dbn reads format "
            f"{_FORMAT}. {START_OVER}"
        )
    if hashlib.sha256(body).hexdigest().encode() != found[2]:
        raise ValueError(
            f"{path} is damaged: it was cut off or changed after it was written. {START_OVER}"
        )
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(arrays.pop("facts").tobytes()), arrays


def write(path, facts, arrays):
    """Writes a checkpoint, whole or not at all, in the place of the one before.

    Args:
        path: `Path` of the file. Its folder is made if there is none.
        facts: Dict of what JSON can hold.
        arrays: Dict of NumPy arrays, by names other than `facts`.

    Raises:
        OSError: If it cannot be written; what was there is left whole.
    """
    body = io.BytesIO()
    np.savez(body, **arrays, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))
    body = body.getbuffer()
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(_HEAD.format(_FORMAT, hashlib.sha256(body).hexdigest()).encode())
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(
            error.errno,
            f"The checkpoint {path} could not be written: {error.strerror}. The one before it, if "
            "any, is whole: the same command goes on from there",
        ) from error


def sync(folder):
    """Waits until the names of the files in a folder are on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def digest(arrays):
    """Returns shape, dtype and a check sum of each array of a nest, as a list of texts.

    The sum is that of some 16 MiB of cases, evenly spaced: other data are found out at no cost, one
    other value in large data may not be.
    """
    found = []
    for array in tf.nest.flatten(arrays):
        cases = array[:: 1 + tf.size(array).numpy() * array.dtype.size // _SAMPLE].numpy()
        content = repr(cases.tolist()).encode() if cases.dtype == object else cases.tobytes()
        total = hashlib.sha256(content).hexdigest()[:16]
        found.append(f"{tuple(array.shape)} {array.dtype.name}, sum {total}")
    return found


def first_batch_digest(dataset):
    """Returns the digest of the first batch of a Dataset, read twice.

    Raises:
        ValueError: If the two differ: what cannot be read again cannot be gone on with.
    """
    found, again = ([digest(batch) for batch in dataset.take(1)] for _ in range(2))
    if not found:
        raise ValueError("The Dataset is empty: it has no batch.")
    if found != again:
        raise ValueError(
            "A training with a checkpoint or a cache needs a Dataset that gives the same batches "
            "whenever it is iterated over: `shuffle(..., reshuffle_each_iteration=False)`."
        )
    return found[0]
