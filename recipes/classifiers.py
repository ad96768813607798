"""What recipes that end in a classifier share: a stack, its pretraining, the test, the export."""

import subprocess
import sys
import tempfile
import time

import runs

import numpy as np

import dbn

# Runs in a process of its own: no Keras model, no class of dbn, only TensorFlow.
_PREDICT = """
import sys
import numpy as np, tensorflow as tf
model, x, out = sys.argv[1:]
model = tf.saved_model.load(model)
parts = [model.serve(part).numpy() for part in np.array_split(np.load(x), 10)]
np.save(out, np.concatenate(parts))
assert "dbn" not in sys.modules
"""


def make_stack(x, layers, sparsity=None):
    """Returns a stack for these images, with random initial weights.

    From the tutorial's wide start a third of the first layer's units would die at the rates that
    the recipes pretrain with, and their filters stay noise; from Keras' own start none does.

    Args:
        x: Cases, `(cases, visible)`, whose means the visible biases start from.
        layers: Numbers of hidden units, from the bottom up.
        sparsity: Arguments of `dbn.penalties.Sparsity` for every layer, a dict; None for none.
    """
    stack = dbn.DBN(
        [
            dbn.RBM(
                dbn.RBMLayer(units, kernel_initializer="glorot_uniform"),
                sparsity=dbn.penalties.Sparsity(**sparsity) if sparsity else None,
            )
            for units in layers
        ]
    )
    stack.build((None, x.shape[1]))
    stack.rbms[0].layer.set_vbias_from_data(x)
    return stack


def pretrain(stack, x, folder, metrics: runs.Metrics, **training):
    """Pretrains a stack layer by layer, and tells how well.

    Args:
        stack: The `dbn.DBN`.
        x: Cases, `(cases, visible)`.
        folder: The run folder.
        metrics: The figures of the run.
        **training: Further arguments of `stack.pretrain`: epochs, batch size, optimizer.
    """
    start = time.perf_counter()
    histories = stack.pretrain(x, checkpoint=folder / runs.CHECKPOINTS, **training)
    costs = [h.history["reconstruction_cross_entropy"][-1] for h in histories]
    metrics.tell(
        "Pretrained in {pretraining_seconds:.0f} s; reconstruction cross entropy of each layer: "
        "{reconstruction_cross_entropy} nats a case",
        pretraining_seconds=time.perf_counter() - start,
        reconstruction_cross_entropy=[round(cost, 3) for cost in costs],
    )


def test(found, split, img_shape, folder, metrics: runs.Metrics, part="test"):
    """Tells the error on held-out cases, and draws up to 200 that are wrong, in `errors.png`.

    Args:
        found: The class that each case is given, `(cases,)`.
        split: The cases and their classes, a `dbn.data.Split`.
        img_shape: Of a picture.
        folder: The run folder.
        metrics: The figures of the run.
        part: What the split is called: figures are `{part}_error`, `{part}_wrong` and
            `{part}_cases`.
    """
    wrong = found != split.y
    metrics.tell(
        f"{part.capitalize()} error {{{part}_error:.2%}} ({{{part}_wrong}} of {{{part}_cases}})",
        **{
            f"{part}_error": float(np.mean(wrong)),
            f"{part}_wrong": int(np.sum(wrong)),
            f"{part}_cases": len(wrong),
        },
    )
    pictures = split.x[wrong][:200]
    if len(pictures):
        rows = np.zeros((-(-len(pictures) // 20) * 20, pictures.shape[1]))
        rows[: len(pictures)] = pictures
        rows = rows.reshape(-1, 20, pictures.shape[1])
        dbn.images.save(folder / "errors.png", dbn.images.chains(rows, img_shape))


def export(model, x, probabilities, folder, metrics: runs.Metrics):
    """Exports a classifier, and compares what a process without Keras models makes of cases.

    Args:
        model: The Keras model, which goes to `saved_model/`.
        x: Cases, `(cases, visible)`.
        probabilities: What the model makes of them, `(cases, classes)`.
        folder: The run folder.
        metrics: The figures of the run.
    """
    model.export(folder / "saved_model", verbose=False)
    with tempfile.TemporaryDirectory() as scratch:
        np.save(f"{scratch}/x.npy", x)
        command = [sys.executable, "-c", _PREDICT, str(folder / "saved_model")]
        subprocess.run([*command, f"{scratch}/x.npy", f"{scratch}/out.npy"], check=True)
        exported = np.load(f"{scratch}/out.npy")
    metrics.tell(
        "SavedModel in a process with TensorFlow alone: largest difference of a probability "
        "{export_difference:.1e}, {export_other_class} predictions differ",
        export_difference=float(np.max(np.abs(exported - probabilities))),
        export_other_class=int(np.sum(exported.argmax(1) != probabilities.argmax(1))),
    )
