"""A program of its own: how many devices there are is settled when TensorFlow starts.

replicas_program.py FOLDER: trains on two logical devices and on one, and writes how far apart the
results are, and what bad input is told, as JSON.

replicas_program.py FOLDER PORT INDEX EPOCHS ALL: trains an RBM as machine INDEX of two, or alone if
that is -1; and, if ALL is 1, a stack and a classifier.
"""

import contextlib
import json
import os
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

GREY = np.random.default_rng(0).random((70, 9)).astype("float32")
BITS = (GREY > 0.5).astype("float32")
FOLDER = Path(sys.argv[1])


def layer(units=6, **arguments):
    initializer = keras.initializers.RandomNormal(0, 0.3, seed=1)
    return dbn.RBMLayer(units, kernel_initializer=initializer, **arguments)


def rbm_and_history(
    strategy, x, epochs=3, regularizer=None, checkpoint=None, jit_compile=False, **arguments
):
    """An RBM after some epochs; 70 cases in batches of 16 leave a short one of 6."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        # Made here: each training has its own.
        made = {name: make() if callable(make) else make for name, make in arguments.items()}
        rbm = dbn.RBM(layer(kernel_regularizer=regularizer), seed=3, **made)
        metrics = ["reconstruction_cross_entropy", "pseudo_log_likelihood"]
        optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
        rbm.compile(optimizer, metrics=metrics, jit_compile=jit_compile, steps_per_execution=3)
    history = rbm.fit(
        x,
        batch_size=16,
        epochs=epochs,
        validation_data=x[:30],
        verbose=0,
        checkpoint=checkpoint,
    )
    return rbm, history.history


def distance(one, other):
    """The largest difference of a weight."""
    pairs = zip(one.weights, other.weights, strict=True)
    return max(float(np.max(np.abs(a.numpy() - b.numpy()))) for a, b in pairs)


def stack_and_classifier(strategy, folder=None, epochs=2):
    """A stack that was pretrained, and its classifier after fine-tuning."""
    y = (GREY[:, 0] > GREY[:, 1]).astype("int32")
    with strategy.scope() if strategy else contextlib.nullcontext():
        stack = dbn.DBN([dbn.RBM(layer(), seed=1), dbn.RBM(layer(4), seed=2)])
    optimizer = keras.optimizers.SGD(0.1)
    pretrained = folder and folder / "stack"
    stack.pretrain(GREY, epochs, 16, optimizer, verbose=0, checkpoint=pretrained)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = stack.classifier(2)
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    kept = (folder or FOLDER) / ("classifier" if strategy else "classifier_alone")
    dbn.checkpoints.fit(
        model,
        GREY,
        y,
        batch_size=10,
        epochs=epochs,
        validation_data=(GREY[:20], y[:20]),
        verbose=0,
        checkpoint=kept,
    )
    return stack, model


def refusal(function):
    try:
        function()
    except ValueError as error:
        return str(error)
    return None


def on_two_devices():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One for all: the collective operations of a second one in a process would be mixed up.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainings = {
        "cd": {
            "x": GREY,
            "k": 2,
            "binarize": True,
            "sparsity": lambda: dbn.penalties.Sparsity(0.1, 0.5),
            "jit_compile": True,  # The others compile faster without.
        },
        "pcd": {
            "x": BITS[:65],  # A last batch of one case leaves one of the replicas none.
            "persistent": True,
            "chains": 10,
            "gradient": dbn.gradients.Centered,
            "regularizer": "l2",
        },
        "fast": {"x": BITS, "negative": lambda: dbn.negative.FastPCD(1, 10, rate=0.1)},
        "tempering": {"x": BITS, "negative": lambda: dbn.negative.ParallelTempering(2, 10, 4)},
    }
    found, learnt = {}, {}
    for name, arguments in trainings.items():
        one, history = rbm_and_history(None, **arguments)
        learnt[name] = one
        two, history_of_two = rbm_and_history(strategy, **arguments)
        apart = [np.subtract(history[key], history_of_two[key]) for key in history]
        found[name] = {
            "weights": distance(one, two),
            "history": float(np.max(np.abs(apart))),
            "learnt": float(np.max(np.abs(one.layer.hbias.numpy()))),  # It was zero.
        }
    one, alone = stack_and_classifier(None)
    two, together = stack_and_classifier(strategy)
    found["stack"] = {"weights": distance(one, two), "classifier": distance(alone, together)}

    kept, arguments = FOLDER / "moved.checkpoint", trainings["pcd"]
    rbm_and_history(strategy, **arguments, epochs=2, checkpoint=kept)
    moved, _ = rbm_and_history(None, **arguments, checkpoint=kept)
    found["moved"] = distance(moved, learnt["pcd"])

    def rbm(**more):
        with strategy.scope():
            return dbn.RBM(layer(), seed=3, **more)

    def compiled(**more):
        made = rbm(**more)
        made.compile("sgd")
        return made

    found["refusals"] = [
        refusal(lambda: rbm().compile(keras.optimizers.SGD(0.1))),
        refusal(lambda: compiled().fit(BITS, batch_size=15)),
        refusal(lambda: compiled().fit(BITS[:1], batch_size=2)),
        refusal(lambda: compiled(persistent=True, chains=5).fit(BITS, batch_size=16)),
        refusal(
            lambda: compiled().fit(tf.data.Dataset.from_tensor_slices(BITS).batch(15), verbose=0)
        ),
        refusal(
            lambda: dbn.checkpoints.fit(
                together, GREY[:69], np.arange(69) % 2, batch_size=10, checkpoint=FOLDER / "refused"
            )
        ),
    ]
    return found


def as_machine(port, index, epochs, everything):
    strategy = None
    if index >= 0:
        workers = [f"localhost:{port}", f"localhost:{port + 1}"]
        task = {"type": "worker", "index": index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        strategy = dbn.distribution.multi_worker()

    class Tell(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (FOLDER / f"going_{index}").write_text(str(epoch))

    with strategy.scope() if strategy else contextlib.nullcontext():
        rbm = dbn.RBM(layer(), seed=3, persistent=True, chains=10, binarize=True)
        rbm.compile(keras.optimizers.SGD(0.1), jit_compile=False, steps_per_execution=3)
    kept = dbn.checkpoints.Checkpoint(FOLDER / "rbm.checkpoint", every=7)
    rbm.fit(GREY, batch_size=16, epochs=epochs, verbose=0, callbacks=[Tell()], checkpoint=kept)
    parts = {"rbm": rbm}
    if everything:
        parts["stack"], parts["classifier"] = stack_and_classifier(strategy, FOLDER)
    weights = {f"{name}_{i}": w for name in parts for i, w in enumerate(parts[name].get_weights())}
    np.savez(FOLDER / f"weights_{index}.npz", **weights)


if __name__ == "__main__":
    # Imported where TensorFlow may start.
    import dbn

    warnings.filterwarnings("error", module="dbn")
    if len(sys.argv) == 2:
        (FOLDER / "found.json").write_text(json.dumps(on_two_devices()))
    else:
        as_machine(*map(int, sys.argv[2:]))
