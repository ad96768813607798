"""Where the cases of `fit` and `evaluate` come from: an array, a Dataset or shards, looked at.

`of` makes a `Source` of what the user gave; `Trainer` asks it for batches and knows no kinds.
"""

import tensorflow as tf

from dbn import batches, checks
from dbn.checkpoint_files import digest, first_batch_digest
from dbn.shards import Shards

__all__ = ["Source", "of"]

_BATCH_SIZE = 32
_TEST_BATCH_SIZE = 500


def of(x, units, width=None, name="x"):
    """Makes a `Source` of data, after a look at them: an array whole, others at their beginning.

    Args:
        x: Array `(cases, width)`, batched `tf.data.Dataset`, or `Shards`.
        units: The `Units` whose valid range the values must lie in.
        width: Expected width, or None for any.
        name: Name of the argument, for messages.

    Returns:
        A `Source`.

    Raises:
        ValueError: If x is none of these, or what is seen is of another width or out of range.
    """
    kinds = {tf.data.Dataset: _Stream, Shards: _Sharded}
    kind = next((kind for given, kind in kinds.items() if isinstance(x, given)), _Array)
    return kind(x, units, width, name)


class Source:
    """Cases, and how they come in batches.

    Args:
        data: The array as a tensor, the Dataset or the shards.
        seen: The cases that were looked at, all or the first, `(cases, width)`.
        seen_name: What to call those, for messages.
        array: The cases, float32 `(cases, width)`, where all are in memory; otherwise None.

    Attributes:
        data: As given.
        seen: As given.
        seen_name: As given.
        width: Width of the cases.
        array: As given, or an empty one of this width.
    """

    def __init__(self, data, seen, seen_name, array=None):
        self.data, self.seen, self.seen_name = data, seen, seen_name
        self.width = seen.shape[1]
        self.array = tf.zeros((0, self.width)) if array is None else array

    def hold_out(self, share):
        """Takes the last `share` of the cases away, and returns them, an array."""
        raise ValueError(
            "`validation_split` is for arrays; give `validation_data` beside a Dataset or shards."
        )

    def train(self, batch_size, shuffle, seed, epoch, steps):
        """Makes the batches to learn from.

        Args:
            batch_size: Cases a batch, or None.
            shuffle: Whether the order is drawn from (seed, epoch), where it can be chosen.
            seed: Integer.
            epoch: `tf.Variable` that is read whenever an iteration begins.
            steps: Updates an epoch, or None for all.

        Returns:
            `tf.data.Dataset` of cases, or of the numbers of those of `array`; and the steps of an
            epoch where it does not end after them by itself, otherwise None.
        """
        raise NotImplementedError

    def test(self, batch_size, size_name):
        """Makes the batches to measure on, a `tf.data.Dataset` of cases in their order."""
        raise NotImplementedError

    def first(self, count):
        """Returns the first `count` cases, or all if there are fewer."""
        raise NotImplementedError

    def digest(self):
        """Returns texts that tell these data from others."""
        raise NotImplementedError


class _Array(Source):
    def __init__(self, x, units, width, name):
        x = checks.cases(x, units, name, width)
        super().__init__(x, x, name, array=x)

    def hold_out(self, share):
        if not 0 < share < 1:
            raise ValueError(f"`validation_split` must be between 0 and 1; got {share!r}.")
        count = int(len(self.array) * (1 - share))
        if count in (0, len(self.array)):
            raise ValueError(
                f"`validation_split={share}` of {len(self.array)} cases leaves an empty part."
            )
        held_out = self.array[count:]
        self.data = self.array = self.seen = self.array[:count]
        return held_out

    def train(self, batch_size, shuffle, seed, epoch, steps):
        batch_size = _size(batch_size, _BATCH_SIZE)
        rows = batches.rows(len(self.array), batch_size, shuffle, seed, epoch)
        return batches.take(rows, steps, "steps_per_epoch"), None

    def test(self, batch_size, size_name):
        return batches.slices(self.array, _size(batch_size, _TEST_BATCH_SIZE, size_name))

    def first(self, count):
        return self.array[:count]

    def digest(self):
        return digest(self.array)


class _Stream(Source):
    def __init__(self, x, units, width, name):
        self._batches, first = batches.stream(x, units, width, name)
        super().__init__(x, first, f"the first batch of {name}")
        self._name = name

    def train(self, batch_size, shuffle, seed, epoch, steps):
        self._refuse_size(batch_size, "batch_size")
        if steps is None:
            return batches.take(self._batches, None, "steps_per_epoch"), None
        return self._batches.repeat(), checks.integer(steps, "steps_per_epoch")

    def test(self, batch_size, size_name):
        self._refuse_size(batch_size, size_name)
        return self._batches

    def _refuse_size(self, batch_size, size_name):
        if batch_size is not None:
            raise ValueError(
                f"`{size_name}` is for arrays and shards; {self._name} is a Dataset: batch it "
                "itself."
            )

    def first(self, count):
        return batches.first_cases(self._batches, count)

    def digest(self):
        return first_batch_digest(self._batches)


class _Sharded(Source):
    def __init__(self, x, units, width, name):
        self._shards, seen_name = x, f"the first cases of {name}"
        seen = checks.cases(x.first(_TEST_BATCH_SIZE), units, seen_name, width)
        super().__init__(x, seen, seen_name)

    def train(self, batch_size, shuffle, seed, epoch, steps):
        found = self._shards.batches(_size(batch_size, _BATCH_SIZE), shuffle, seed, epoch)
        return batches.take(found, steps, "steps_per_epoch"), None

    def test(self, batch_size, size_name):
        return self._shards.batches(_size(batch_size, _TEST_BATCH_SIZE, size_name), shuffle=False)

    def first(self, count):
        return self._shards.first(count)

    def digest(self):
        return self._shards.digest()


def _size(given, default, name="batch_size"):
    return checks.integer(default if given is None else given, name)
