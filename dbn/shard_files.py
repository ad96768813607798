"""The files that shards are: `.npy` files whose headers are checked, in folders that are whole."""

import contextlib
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dbn import checks
from dbn.checkpoint_files import sync

__all__ = ["ORIGIN", "Head", "head", "remove", "write"]

ORIGIN = "origin.json"
_NAME = "shard_{:06d}.npy"
_SHARD = 2**26  # Bytes.
_PART = ".part"


class Head(NamedTuple):
    """What an `.npy` file says of the array in it."""

    offset: int  # Of the first case in the file, in bytes.
    cases: int
    width: int
    dtype: np.dtype


def head(path):
    """Reads the header of an `.npy` file, and checks that what it announces is there.

    Args:
        path: Path of the file.

    Returns:
        A `Head`.

    Raises:
        ValueError: If it cannot be read, is no `.npy` file, or holds what a shard cannot.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # A flipped bit may make anything of a header.
        raise ValueError(f"{path} is damaged, or no .npy file: {error}") from error
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{path} must hold an array (cases, width); it has shape {shape}.")
    _refuse_dtype(dtype, path)
    if fortran:
        raise ValueError(
            f"{path} is in Fortran order, column by column, so cases cannot be read one by one: "
            "save `np.ascontiguousarray(x)`."
        )
    if size != offset + math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{path} is cut off, or damaged: it has {size} bytes, and its header announces "
            f"{offset + math.prod(shape) * dtype.itemsize}."
        )
    return Head(offset, *shape, dtype)


def write(folder, arrays, rows_per_shard=None, origin=None):
    """Writes shards as `dbn.shards.write` does.

    Args:
        folder: As there.
        arrays: As there.
        rows_per_shard: As there.
        origin: Text to write beside them as `origin.json`, or None.

    Returns:
        The `Path` of the folder.

    Raises:
        ValueError: As there.
        OSError: As there; what has been written is removed.
    """
    folder = Path(folder)
    if folder.suffix == _PART:
        raise ValueError(
            f"`folder` must not end in {_PART}, what is unfinished does; got {folder}."
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"`folder` must be new or empty: {folder} is there already, and nothing is overwritten."
        )
    if rows_per_shard is not None:
        rows_per_shard = checks.integer(rows_per_shard, "rows_per_shard")
    if isinstance(arrays, (np.ndarray, tf.Tensor)):
        arrays = [arrays]
    part = folder.with_name(folder.name + _PART)
    try:
        part.mkdir(parents=True, exist_ok=True)
        remove(part)  # What a write that was killed has left.
        part.mkdir()
        number = -1
        for number, shard in enumerate(_cut(arrays, rows_per_shard)):
            with _synced(part / _NAME.format(number)) as file:
                np.lib.format.write_array(file, shard, allow_pickle=False)
        if number < 0:
            raise ValueError("`arrays` is empty: there is no case to write.")
        if origin is not None:
            with _synced(part / ORIGIN) as file:
                file.write(origin.encode())
        sync(part)
        os.rename(part, folder)
        sync(folder.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(part)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"The shards {folder} could not be written: {error.strerror}"
            ) from error
        raise
    return folder


def remove(folder):
    """Removes a folder that `write` has written.

    Raises:
        OSError: If it holds anything else, which is left.
    """
    for path in folder.iterdir():
        if path.name == ORIGIN or re.fullmatch(r"shard_\d{6,}\.npy", path.name):
            path.unlink()
    folder.rmdir()


@contextlib.contextmanager
def _synced(path):
    """Opens a new file, of which all is on the disk when it is closed."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _cut(arrays, rows):
    """Cuts arrays, end to end, into pieces of so many cases; the last one may be shorter."""
    piece, filled = None, 0
    for array in arrays:
        array = np.asarray(array)
        if array.ndim != 2 or not array.shape[1]:
            raise ValueError(
                f"`arrays` must be of shape (cases, width); got one of shape {array.shape}."
            )
        if piece is None:
            _refuse_dtype(array.dtype, "`arrays`")
            rows = rows or max(1, _SHARD // (array.shape[1] * array.dtype.itemsize))
            piece = np.empty((rows, array.shape[1]), array.dtype)
        if (array.shape[1], array.dtype) != (piece.shape[1], piece.dtype):
            raise ValueError(
                f"`arrays` must have the same width and dtype; got {piece.shape[1]} and "
                f"{piece.dtype.name}, then {array.shape[1]} and {array.dtype.name}."
            )
        while len(array):
            taken = array[: rows - filled]
            piece[filled : filled + len(taken)] = taken
            filled, array = filled + len(taken), array[len(taken) :]
            if filled == rows:
                yield piece
                filled = 0
    if filled:
        yield piece[:filled]


def _refuse_dtype(dtype, name):
    if dtype.kind not in "fiub" or dtype.itemsize > 8 or not dtype.isnative:
        raise ValueError(
            f"{name} must hold numbers of at most 64 bits, in this machine's byte order; got dtype "
            f"{dtype.str!r}."
        )
