"""Replicas: one training on several devices, through TensorFlow's distribution strategies.

Each replica is given every batch whole, and takes a share of its cases and of the chains, and the
rows that belong to these of the noise of the whole update. So what a training learns does not
depend on how many replicas there are, but for the rounding of sums that are added in another order.
"""

from typing import NamedTuple

import tensorflow as tf

__all__ = [
    "Share",
    "check_multiple",
    "check_optimizer",
    "gathered",
    "mean_of_machines",
    "own",
    "shared_out",
    "summed",
]


class Share(NamedTuple):
    """What of a batch one replica has.

    Attributes:
        rows: Which cases of the whole batch, a vector; of no length if the batch was too short.
        cases: How many cases the whole batch has, a scalar.
    """

    rows: tf.Tensor
    cases: tf.Tensor

    @classmethod
    def own(cls, batch):
        """Returns this replica's share of a batch: equally many cases each, but the last ones."""
        context = tf.distribute.get_replica_context()
        cases = tf.shape(batch, tf.int64)[0]
        each = -(-cases // context.num_replicas_in_sync)
        first = tf.minimum(each * tf.cast(context.replica_id_in_sync_group, tf.int64), cases)
        return cls(tf.range(first, tf.minimum(first + each, cases)), cases)

    def of(self, batch):
        """Returns the cases of a batch that are of this share."""
        with tf.device("CPU"):  # Where batches are read: of theirs, a device is sent its share.
            return tf.gather(batch, self.rows)


def shared_out(batches):
    """Returns a Dataset of which each of several machines reads all, and takes its share."""
    policy = tf.data.Options()
    policy.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(policy)


def own(tensor, axis):
    """Returns this replica's part of a tensor, of equally large ones along an axis."""
    context = tf.distribute.get_replica_context()
    each = tensor.shape[axis] // context.num_replicas_in_sync
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * each
    return tf.gather(tensor, first + tf.range(each), axis=axis)


def summed(tensors):
    """Returns the sums over all replicas of a nest of tensors; call it on every replica."""
    flat = tf.nest.flatten(tensors)
    if not flat or not tf.distribute.has_strategy():
        return tensors
    sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
    return tf.nest.pack_sequence_as(tensors, sums)


def gathered(tensor, axis):
    """Returns the parts of all replicas, in their order along an axis; the opposite of `own`."""
    return tf.distribute.get_replica_context().all_gather(tensor, axis)


def check_multiple(number, replicas, name, why):
    """Checks that the replicas can have equal shares of something.

    Args:
        number: How many there are, of all replicas together.
        replicas: Number of replicas.
        name: Name of the argument, for the message.
        why: Why it must be a multiple, likewise.

    Raises:
        ValueError: If `replicas` does not divide `number`.
    """
    if number % replicas:
        raise ValueError(
            f"`{name}` is {number} for all {replicas} replicas together, and must be a multiple of "
            f"{replicas}: {why}"
        )


def check_optimizer(optimizer, strategy):
    """Checks that an optimizer was made for the devices of the model.

    Raises:
        ValueError: If it was made outside the scope of the model's strategy, or in that of one.
    """
    # Not `iterations`: with accumulated gradients it is no variable.
    first = optimizer.variables[0].value
    distributed = isinstance(first, tf.distribute.DistributedValues)
    if distributed != (strategy is not None):
        raise ValueError(
            f"`optimizer` was made {'in' if distributed else 'outside'} the scope of a "
            f"distribution strategy, and the model {'outside' if distributed else 'in'} it. Make "
            "both under the same `with strategy.scope():`."
        )


def mean_of_machines(strategy, number):
    """Returns the mean of what each machine calls it with, the same for all of them."""
    numbers = strategy.run(lambda: tf.constant(number, tf.float64))
    return float(strategy.reduce(tf.distribute.ReduceOp.MEAN, numbers, axis=None))
