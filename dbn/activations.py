"""Mean activations of a layer, for the one above: in memory, as they are read, or kept on disk."""

import hashlib
import json
import tempfile
from pathlib import Path

import tensorflow as tf

from dbn import batches, shard_files, sources
from dbn.shards import Shards

__all__ = ["Cache", "activations"]

_KIND = "mean activations, a cache of dbn.DBN.pretrain"


def activations(rbm, x):
    """Returns the mean hidden activations of data.

    Args:
        rbm: A built `RBM`.
        x: Tensor `(cases, visible)`, `tf.data.Dataset` or `Shards`, or None.

    Returns:
        The same kind: a Dataset and shards compute them batch by batch, whenever they are read,
        with the weights as they are now.
    """
    if isinstance(x, tf.data.Dataset):
        visible, width = rbm.layer.visible, rbm.layer.W.shape[0]
        return batches.stream(x, visible, width)[0].map(_means(rbm))
    if isinstance(x, Shards):
        return x.map(_means(rbm))
    # In one piece and in a graph, where every operation writes over what the one before it wrote:
    # `predict` would hold the activations twice.
    return x if x is None else tf.function(rbm)(x)


def _means(rbm):
    """Returns a function to the mean hidden activations by the present weights."""
    # Copies: tf.data runs on the CPU and cannot read variables that live on a GPU.
    with tf.device("CPU"):
        # In the precision that the Dense layer has where all are in memory.
        W, hbias = (tf.cast(w, rbm.layer.compute_dtype) for w in (rbm.layer.W, rbm.layer.hbias))

    def means(v):
        return rbm.layer.hidden.mean(tf.matmul(tf.cast(v, W.dtype), W) + hbias)

    return means


def _counted(source):
    """Returns how many cases a `Source` has, and a digest of them."""
    found = source.digest()
    if not isinstance(source.data, tf.data.Dataset):
        return len(source.data), found
    cases, total = 0, hashlib.sha256()
    for v in batches.take(source.test(None, "batch_size"), None, "steps_per_epoch"):
        cases += len(v)
        total.update(v.numpy().tobytes())
    return cases, [*found, f"{cases} cases, sum {total.hexdigest()[:16]}"]


class Cache:
    """A folder in which `DBN.pretrain` keeps the activations of each layer, as shards.

    Beside the shards is a text that tells the data and the weights that they were made of. They are
    used again if both are the same and all are there, and otherwise written anew. Arrays and shards
    are known by a check sum of a sample of their cases, Datasets by one of all.

    Args:
        folder: Path of the folder, made if there is none.
        data: Dict from names to what is to be kept for each layer: `Source`s of the lowest layer's
            data.
        layers: Number of layers whose activations will be kept.

    Raises:
        ValueError: If a folder that would be written is there already and is no cache.
        OSError: If nothing can be written.
    """

    def __init__(self, folder, data, layers):
        self._folder = Path(folder)
        self._cases, self._digests = {}, {}
        for name, source in data.items():
            self._cases[name], self._digests[name] = _counted(source)
        for number in range(1, layers + 1):
            for name in data:
                path = self._path(name, number)
                if path.exists() and self._origin(path).get("kind") != _KIND:
                    raise ValueError(
                        f"`cache`: {path} is there already, and was not written by `pretrain`. "
                        "Name another folder."
                    )
        # At once: what cannot be written says so before any training.
        self._folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self._folder).close()

    def keep(self, name, rbms, x):
        """Returns the activations of the uppermost of some RBMs, kept on disk.

        Args:
            name: Whose, one of `data`.
            rbms: The RBMs from the bottom to the one whose activations they are.
            x: The data of that one.

        Returns:
            `Shards`, in the order of x.

        Raises:
            OSError: If they cannot be written.
        """
        path = self._path(name, len(rbms))
        weights = hashlib.sha256()
        for rbm in rbms:
            weights.update(rbm.layer.hidden.name.encode())
            for weight in rbm.layer.get_weights():
                weights.update(f"{weight.shape} {weight.dtype}".encode() + weight.tobytes())
        origin = {"kind": _KIND, "data": self._digests[name], "weights": weights.hexdigest()}
        if path.exists():
            if self._origin(path) == origin:
                kept = Shards(path)
                if len(kept) == self._cases[name]:
                    return kept
            shard_files.remove(path)
        source = sources.of(x, rbms[-1].layer.visible, rbms[-1].layer.W.shape[0])
        means = activations(rbms[-1], source.test(None, "batch_size"))
        means = batches.take(means, None, "steps_per_epoch")
        return Shards(shard_files.write(path, means, origin=json.dumps(origin)))

    def _path(self, name, number):
        return self._folder / f"{name}_{number}"

    @staticmethod
    def _origin(path):
        """Returns what a folder tells of its origin, a dict."""
        try:
            found = json.loads((path / shard_files.ORIGIN).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
