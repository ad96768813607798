"""Data larger than memory: NumPy files that `fit`, `evaluate` and `pretrain` read piece by piece.

A shard is an `.npy` file of an array `(cases, width)`. Any will do; `write` makes them of arrays
that need not be in memory together. Only headers are read by NumPy's own reader, and nothing is
ever unpickled.
"""

import copy
import hashlib
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from dbn import batches, checks, noise, shard_files
from dbn.checkpoint_files import digest

__all__ = ["Shards", "write"]

_BLOCKS = 256  # In a pool: each is cases that stand together in a file.
_PIECES, _PIECE = 1000, 2**14  # What `Shards.digest` reads of the data; the second in bytes.
_LOOKED_AT = 500  # Cases whose values after `map` it takes the digest of.


class Shards:
    """Cases in NumPy files, of which a part is in memory at a time.

    With `shuffle`, an epoch visits each case once. The files are cut into blocks of consecutive
    cases, about 256 to a `buffer`. The blocks are taken in a random order, and as many as the
    buffer holds are shuffled together, case by case. So cases that stand far apart in the files
    meet in a batch, and sorted files do no harm; but it is no permutation of all cases alike:
    neighbours tend to be visited in the same part of an epoch. Data that fit the buffer whole are
    visited in the very order in which `fit` visits an array.

    Args:
        files: A folder, of which all `.npy` files are taken in the order of their names; or a list
            of paths of such files. Each holds an array `(cases, width)`, of the same width and
            dtype, in C order. Booleans, integers and floating-point numbers of up to 64 bits are
            read as float32.
        buffer: Bytes of the files that are shuffled together, an integer >= 1. Up to four times as
            much is held in memory, whatever the size of the data.

    Attributes:
        files: Paths of the files, a list.
        width: Width of the cases, after the functions of `map`.
        dtype: NumPy dtype in the files.
        buffer: As given.

    Raises:
        ValueError: If there is no file; or one is damaged, no `.npy` file, empty, of another
            width or dtype than the first, in Fortran order, or holds anything but numbers.

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("uint8")
    >>> data = dbn.shards.write("runs/bits", x, rows_per_shard=40)
    >>> len(data), data.width, data.dtype.name, [path.name for path in data.files]
    (100, 9, 'uint8', ['shard_000000.npy', 'shard_000001.npy', 'shard_000002.npy'])
    >>> rbm = dbn.RBM(4)
    >>> rbm.compile(keras.optimizers.SGD(0.1))
    >>> history = rbm.fit(data, batch_size=10, epochs=2, verbose=0)
    """

    def __init__(self, files, buffer=2**26):
        self.files = _files(files)
        self.buffer = checks.integer(buffer, "buffer")
        heads = [shard_files.head(path) for path in self.files]
        self.width, self.dtype = heads[0].width, heads[0].dtype
        for path, head in zip(self.files, heads, strict=True):
            if (head.width, head.dtype) != (self.width, self.dtype):
                raise ValueError(
                    f"All shards must have the same width and dtype; {self.files[0]} has "
                    f"{self.width} and {self.dtype.name}, {path} {head.width} and "
                    f"{head.dtype.name}."
                )
        self._offsets = [head.offset for head in heads]
        self._cases = np.array([head.cases for head in heads])
        self._case_bytes = self.width * self.dtype.itemsize
        # Read as bytes, so that one that is neither 0 nor 1 is found out of range.
        self._read_as = np.dtype("uint8") if self.dtype.kind == "b" else self.dtype
        self._per_block = max(1, self.buffer // _BLOCKS // self._case_bytes)
        self._per_pool = max(1, self.buffer // self._case_bytes)
        self._ends = np.cumsum(-(-self._cases // self._per_block))  # Of the blocks of each file.
        self._functions = ()

    def __len__(self):
        return int(self._cases.sum())

    def __repr__(self):
        return f"<Shards: {len(self.files)} files, {len(self)} cases of width {self.width}>"

    def map(self, function):
        """Returns these shards with a function between the files and those who read them.

        Args:
            function: TensorFlow function of a batch of float32 cases `(cases, width)`, to cases
                `(cases, another width)`; the same for the same cases, whatever batch they are in.

        Returns:
            `Shards`; nothing is computed before they are read.

        Raises:
            ValueError: If the function gives something else.

        Example:

        >>> pixels = np.random.default_rng(0).integers(0, 256, (100, 9)).astype("uint8")
        >>> data = dbn.shards.write("runs/pixels", pixels).map(lambda v: v / 255)
        >>> bool(tf.reduce_all(next(iter(data.batches(100, shuffle=False))) == pixels / 255.0))
        True
        """
        mapped = copy.copy(self)
        mapped._functions = (*self._functions, function)
        shape = getattr(mapped.batches(1).element_spec, "shape", tf.TensorShape(None))
        if shape.rank != 2 or shape[1] is None:
            raise ValueError(
                "`function` must give a tensor of shape (cases, width); it gives "
                f"{mapped.batches(1).element_spec}."
            )
        mapped.width = shape[1]
        return mapped

    def batches(self, batch_size=32, shuffle=True, seed=0, epoch=0):
        """Makes a Dataset of the batches of one epoch; `fit` calls this itself.

        Args:
            batch_size: Cases a batch, an integer >= 1; the last one may be shorter.
            shuffle: Whether the order is drawn from (seed, epoch); otherwise it is that of the
                files.
            seed: Integer.
            epoch: Integer, or a `tf.Variable` that is read whenever an iteration begins.

        Returns:
            `tf.data.Dataset` of float32 tensors `(cases of the batch, width)`. What cannot be read
            raises `tf.errors.InvalidArgumentError`.

        Raises:
            ValueError: If batch_size < 1.
        """
        batch_size = checks.integer(batch_size, "batch_size")
        shape = (None, self._case_bytes // self.dtype.itemsize)
        whole = len(self) <= self._per_pool

        def one_epoch(_):
            now = tf.cast(tf.convert_to_tensor(epoch), tf.int64)
            blocks = tf.range(self._ends[-1], dtype=tf.int64)
            if shuffle and not whole:
                blocks = noise.permutation(len(blocks), seed, now, noise.Stream.BLOCKS)

            def pool(number, blocks):
                count = tf.ensure_shape(tf.numpy_function(self._count, [blocks], tf.int64), ())
                if whole:
                    step, stream = now, noise.Stream.ORDER
                else:
                    step, stream = now * 2**28 + number, noise.Stream.POOL
                order = noise.permutation(count, seed, step, stream) if shuffle else tf.range(count)
                cases = tf.numpy_function(self._read_blocks, [blocks, order], self._read_as)
                return tf.ensure_shape(cases, shape)

            pool_of = blocks  # Each its own: nothing is to be shuffled.
            if shuffle:
                pool_of = tf.numpy_function(self._pool_of, [blocks], tf.int64)
            pools = tf.RaggedTensor.from_value_rowids(blocks, tf.ensure_shape(pool_of, (None,)))
            pools = tf.data.Dataset.from_tensor_slices(pools).enumerate().map(pool)
            return pools.prefetch(1)  # While one is used, the next is read.

        def values(v):
            v = tf.cast(v, tf.float32)
            for function in self._functions:
                v = tf.cast(function(v), tf.float32)
            return v

        found = tf.data.Dataset.from_tensors(0).flat_map(one_epoch).rebatch(batch_size).map(values)
        length = -(-len(self) // batch_size)
        found = found.apply(tf.data.experimental.assert_cardinality(length))
        return batches.untuned(found.prefetch(8))

    def first(self, count):
        """Returns the first `count` cases, or all if there are fewer, as a float32 tensor.

        Raises:
            ValueError: If count < 1, or a file has been lost since it was looked at.
        """
        try:
            return next(iter(self.batches(count, shuffle=False)))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(batches.reason(error)) from error

    def digest(self):
        """Returns a text that tells these data from others, in a list.

        It has the number of cases, their width and dtype, the buffer, which the order depends on,
        and a check sum of the size of each file and of some 16 MiB of cases, evenly spaced, of each
        file the first and the last. The names of the files do not count.
        """
        total = hashlib.sha256(repr(self._cases.tolist()).encode())
        rows = max(1, _PIECE // self._case_bytes)
        for file, cases in enumerate(self._cases):
            pieces = max(2, int(_PIECES * cases / len(self)))
            piece = np.empty((min(rows, cases), self._case_bytes), np.uint8)
            for start in np.unique(np.linspace(0, cases - len(piece), pieces).astype(int)):
                self._read(file, start, piece)
                total.update(piece)
        found = (
            f"({len(self)}, {self.width}) {self.dtype.name}, buffer {self.buffer}, sum "
            f"{total.hexdigest()[:16]}"
        )
        return [found, *(digest(self.first(_LOOKED_AT)) if self._functions else [])]

    def _place(self, blocks):
        """Returns the file of each block, the number of its first case there, and how many."""
        files = np.searchsorted(self._ends, blocks, side="right")
        starts = self._per_block * (blocks - np.append(0, self._ends)[files])
        return files, starts, np.minimum(self._per_block, self._cases[files] - starts)

    def _pool_of(self, blocks):
        """Returns the number of the pool of each block, if they are read in this order."""
        return (np.cumsum(self._place(blocks)[2]) - 1) // self._per_pool

    def _count(self, blocks):
        """Returns how many cases there are in blocks."""
        return self._place(blocks)[2].sum()

    def _read_blocks(self, blocks, order):
        """Returns the cases of the blocks of these numbers, put into an order, an array."""
        width, size = self._case_bytes // self._read_as.itemsize, len(order) * self._case_bytes
        # TensorFlow takes an array that begins at a multiple of 64 as it is, and copies others.
        memory = np.empty(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        cases = memory[start : start + size].view(self._read_as).reshape(len(order), width)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        block, at = np.empty((self._per_block, width), self._read_as), 0
        for file, start, count in zip(*self._place(blocks), strict=True):
            self._read(file, start, block[:count])
            cases[places[at : at + count]] = block[:count]
            at += count
        return cases

    def _read(self, file, start, out):
        """Reads the cases of a file from the one of number `start` on, into an array of them."""
        path = self.files[file]
        try:
            with open(path, "rb", buffering=0) as opened:
                opened.seek(self._offsets[file] + int(start) * self._case_bytes)
                read = opened.readinto(memoryview(out).cast("B"))
        except OSError as error:
            raise ValueError(f"{path} cannot be read any more: {error.strerror}") from error
        if read != out.nbytes:
            raise ValueError(f"{path} has been cut off since it was first looked at.")


def write(folder, arrays, rows_per_shard=None):
    """Writes cases as shards: the files `shard_000000.npy` and so on in a new folder.

    They are written into `{folder}.part`, synced, and appear under their name when all are: a
    folder of shards is whole.

    Args:
        folder: Path of the folder; there must be none, or an empty one.
        arrays: Array `(cases, width)`, or an iterable of such arrays of the same width and dtype,
            such as a generator or a batched `tf.data.Dataset`, of which one is held at a time.
        rows_per_shard: Cases a file, an integer >= 1; by default what makes 64 MiB.

    Returns:
        The `Shards`.

    Raises:
        ValueError: If the folder holds something, or the arrays are empty, have another rank, or
            differ in width or dtype.
        OSError: If they cannot be written.
    """
    return Shards(shard_files.write(folder, arrays, rows_per_shard))


def _files(given):
    """Returns the paths of the files that `Shards` was given."""
    if isinstance(given, (str, os.PathLike)):
        folder = Path(given)
        if not folder.is_dir():
            raise ValueError(f"`files` must be a folder or a list of files; {folder} is no folder.")
        found = sorted(folder.glob("*.npy"))
        if not found:
            raise ValueError(f"`files`: the folder {folder} holds no .npy file.")
        return found
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError(f"`files` must be a folder or a list of files; got {given!r}.")
    return [Path(path) for path in given]
