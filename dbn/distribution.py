"""Several machines: strategies looked at before they are made, and what Keras' `fit` needs of them.

One machine needs none of this: `tf.distribute.MirroredStrategy()` is enough for its devices.
"""

import contextlib
import json
import os

import tensorflow as tf

from dbn import replicas

__all__ = ["check_shares", "fitting", "is_chief", "lost_machines", "multi_worker"]


def multi_worker(cluster_resolver=None, communication_options=None):
    """Makes a `tf.distribute.MultiWorkerMirroredStrategy`, after a look at the cluster.

    Every machine runs the same script, which calls this before TensorFlow does anything else, makes
    and compiles its models under `with strategy.scope():`, and fits them as on one machine. Batch
    size and chains are those of all machines together. The files it writes must be on a disk that
    all machines share; the first machine writes them.

    Args:
        cluster_resolver: A `tf.distribute.cluster_resolver.ClusterResolver`, such as
            `SlurmClusterResolver()`; by default the environment variable `TF_CONFIG` tells, as
            TensorFlow's guide has it.
        communication_options: `tf.distribute.experimental.CommunicationOptions`.

    Returns:
        The strategy.

    Raises:
        ValueError: If `TF_CONFIG` is not set, is no JSON, has no cluster, lists an address twice,
            or names a task that the cluster does not have.

    Example:

    >>> os.environ["TF_CONFIG"] = json.dumps({  # doctest: +SKIP
    ...     "cluster": {"worker": ["localhost:12345", "localhost:23456"]},
    ...     "task": {"type": "worker", "index": 0},
    ... })
    >>> strategy = dbn.distribution.multi_worker()  # doctest: +SKIP
    >>> with strategy.scope():  # doctest: +SKIP
    ...     rbm = dbn.RBM(500, persistent=True, chains=100)
    ...     rbm.compile("sgd")
    >>> history = rbm.fit(x, batch_size=100, checkpoint="rbm.checkpoint")  # doctest: +SKIP
    """
    if cluster_resolver is None:
        _check_tf_config(os.environ.get("TF_CONFIG"))
        cluster_resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    else:
        _check_cluster(cluster_resolver.cluster_spec().as_dict(), "The cluster")
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver, communication_options)


def _check_tf_config(text):
    if not text:
        raise ValueError(
            "`TF_CONFIG` is not set: it must tell the cluster and the task of this machine. Or "
            "give `cluster_resolver`."
        )
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"`TF_CONFIG` is no JSON: {error}; got {text!r}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("cluster"), dict):
        raise ValueError(
            '`TF_CONFIG` must be an object with "cluster", which lists the addresses of each job, '
            f'and "task"; got {text!r}.'
        )
    _check_cluster(config["cluster"], "`TF_CONFIG`")
    task = config.get("task")
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    machines = config["cluster"].get(kind)
    if (
        not isinstance(machines, list)
        or not str(index).isdecimal()
        or not int(index) < len(machines)
    ):
        raise ValueError(
            f"`TF_CONFIG` gives this machine the task {task!r}, which is none of its cluster "
            f"{config['cluster']!r}."
        )


def _check_cluster(cluster, name):
    unknown = set(cluster) - {"chief", "worker"}
    if unknown or not all(cluster.values()) or not cluster:
        raise ValueError(
            f'{name} must list the addresses of jobs "worker" and perhaps "chief"; got {cluster!r}.'
        )
    addresses = [address for machines in cluster.values() for address in machines]
    twice = sorted({str(address) for address in addresses if addresses.count(address) > 1})
    if twice:
        raise ValueError(f"{name} names {twice[0]!r} twice; a machine has an address of its own.")


def is_chief(strategy):
    """Returns whether this is the machine that writes files: the first one, or the only one."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.cluster_spec():
        return True
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


@contextlib.contextmanager
def lost_machines(strategy):
    """While in it, the loss of another machine is told in words that say what to do.

    Args:
        strategy: The strategy of the model, or None.

    Raises:
        RuntimeError: If another machine has ended or cannot be reached.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        raise RuntimeError(
            "Another machine of the group has ended or cannot be reached, so this one has stopped, "
            "too. Start all of them again: with `checkpoint=`, they go on from the last one. "
            f"TensorFlow says: {error.message}"
        ) from error


def check_shares(cases, batch_size, strategy):
    """Checks that a plain Keras model can be fitted by replicas with equal shares of every batch.

    Keras takes the mean of the replicas' means: they must be of equally many cases.

    Raises:
        ValueError: If the number of replicas does not divide the batch size and that of the cases.
    """
    count = strategy.num_replicas_in_sync
    for name, number in (("batch_size", batch_size), ("the number of cases of x", cases)):
        why = "Keras takes the mean of the replicas' means."
        replicas.check_multiple(number, count, name, why)


@contextlib.contextmanager
def fitting(model):
    """While in it, `fit` and `evaluate` of a plain Keras model work with several machines, too.

    Keras' own fail there (keras#20585): they read a batch to build what is built, and cannot reduce
    the metrics, which are sums over all machines already.
    """
    strategy = model.distribute_strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        yield
        return

    def function(step):
        @tf.function(reduce_retracing=True)
        def one_step(iterator):
            strategy.run(step, args=(next(iterator),))
            return model.get_metrics_result()

        return one_step

    kept = model.train_function, model.test_function
    model.train_function, model.test_function = (
        function(model.train_step),
        function(model.test_step),
    )
    model._maybe_symbolic_build = lambda **_: None
    try:
        with lost_machines(strategy):
            yield
    finally:
        model.train_function, model.test_function = kept
        del model._maybe_symbolic_build
