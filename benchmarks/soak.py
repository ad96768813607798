"""Kills trainings at random moments, and compares their ends with those of runs never killed.

    python benchmarks/soak.py                    # 100 kills; about half an hour on 2 cores
    python benchmarks/soak.py --overhead         # what checkpoints cost; 4 minutes

Each training runs in a process of its own, which SIGKILL ends at a moment drawn uniformly from the
time that the training takes once it has begun; then it is started again, until it comes to its end:

    rbm           `RBM.fit`, PCD, momentum and averaged weights, from an array
    stream        the same from a `tf.data.Dataset`
    dbn           `DBN.pretrain`, two layers
    fine-tuning   `dbn.checkpoints.fit` of a classifier with dropout, Adam and early stopping

The table counts kills, ends, ends with the same bits (weights, chains, counters, the optimizer's
state and every logged figure), and kills after which a checkpoint could not be read.

The overhead is that of checkpoints every 1,000 updates on 784-500, PCD-15, batch 20: medians of the
ratios of single rounds, in which both ways take turns, and of the share of the time that was spent
in writing, which a busy machine disturbs less. Leave it alone meanwhile.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import dbn
import results


class Tell(keras.callbacks.Callback):
    """Writes a byte to a pipe when the first updates have been made."""

    def __init__(self, pipe):
        super().__init__()
        self._pipe = iter([pipe])

    def on_train_batch_end(self, batch, logs=None):
        """Tells, once."""
        for pipe in self._pipe:
            os.write(pipe, b".")


def data():
    """Returns cases with something to learn in them, and their classes."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 10, 2000)
    x = draw.random((2000, 64)) < draw.random((10, 64))[y]
    return x.astype("float32"), y


def rbm(folder, callbacks, stream=False):
    """Trains an RBM; returns its models and its histories."""
    x, _ = data()
    model = dbn.RBM(32, k=2, persistent=True, chains=20)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.5, use_ema=True))
    batches = {"x": tf.data.Dataset.from_tensor_slices(x).batch(20)} if stream else {"x": x}
    history = model.fit(
        **batches,
        batch_size=None if stream else 20,
        epochs=60,
        validation_data=x[:200],
        verbose=0,
        callbacks=callbacks,
        checkpoint=dbn.checkpoints.Checkpoint(folder / "rbm.checkpoint", every=250),
    )
    return [model], [history]


def streamed(folder, callbacks):
    """Trains an RBM from a Dataset."""
    return rbm(folder, callbacks, stream=True)


def stack(folder, callbacks):
    """Pretrains a stack; returns its RBMs and its histories."""
    model = dbn.DBN([dbn.RBM(32, persistent=True, chains=20), 16])
    kept = dbn.checkpoints.Checkpoint(folder, every=250)
    histories = model.pretrain(
        data()[0], epochs=40, batch_size=20, verbose=0, callbacks=callbacks, checkpoint=kept
    )
    return model.rbms, histories


def fine_tuning(folder, callbacks):
    """Trains a classifier; returns it and its history."""
    x, y = data()
    layers = [keras.layers.Dense(32, "sigmoid"), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, "softmax")])
    model.compile(
        keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", steps_per_execution=20
    )
    best = keras.callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True)
    path, valid = folder / "classifier.checkpoint", (x[:200], y[:200])
    history = dbn.checkpoints.fit(
        model, x[200:], y[200:], checkpoint=path, batch_size=20, epochs=40, verbose=0,
        validation_data=valid, callbacks=[best, *callbacks],
    )  # fmt: skip
    return [model], [history]


TRAININGS = {"rbm": rbm, "stream": streamed, "dbn": stack, "fine-tuning": fine_tuning}


def start(name, folder):
    """Starts a training in a process of its own; returns its id and the pipe on which it tells."""
    told, tell = os.pipe()
    child = os.fork()  # TensorFlow has been imported by then, but has not run.
    if child:
        os.close(tell)
        return child, told
    status = 1
    try:
        keras.utils.set_random_seed(1)
        models, histories = TRAININGS[name](folder, [Tell(tell)])
        arrays = [v.value.numpy() for m in models for v in [*m.variables, *m.optimizer.variables]]
        np.savez(folder / "part.npz", *arrays, logs=json.dumps([h.history for h in histories]))
        os.replace(folder / "part.npz", folder / "end.npz")
        status = 0
    except BaseException:  # Python would not come to print it.
        traceback.print_exc()
    finally:
        os._exit(status)


def end(folder):
    """Returns what a training wrote at its end, arrays by name."""
    with np.load(folder / "end.npz") as file:
        return dict(file)


def reference(name, folder):
    """Runs a training that is not killed; returns its end, and the seconds it took once begun."""
    folder.mkdir()
    child, told = start(name, folder)
    os.read(told, 1)
    begun = time.perf_counter()
    _, status = os.waitpid(child, 0)
    os.close(told)
    if status:
        sys.exit(f"{name} failed")
    return end(folder), time.perf_counter() - begun


def readable(folder):
    """Returns whether every checkpoint in a folder can be read."""
    try:
        return all(dbn.checkpoints.read(path) for path in folder.glob("*.checkpoint"))
    except (OSError, ValueError) as error:
        print(error)
        return False


def soak(names, kills, seed, scratch):
    """Kills trainings, in turn; returns the counts by name."""
    draw = random.Random(seed)
    ends = {name: reference(name, scratch / f"{name}-reference") for name in names}
    counts = {name: dict.fromkeys(("kills", "ends", "same", "unreadable"), 0) for name in names}
    made = 0
    while made < kills or any((scratch / name).exists() for name in names):
        # When there have been enough, those that were killed last come to their end.
        left = names if made < kills else [name for name in names if (scratch / name).exists()]
        name = left[made % len(left)] if made < kills else left[0]
        folder, count, (expected, seconds) = scratch / name, counts[name], ends[name]
        folder.mkdir(exist_ok=True)
        child, told = start(name, folder)
        if made < kills:
            os.read(told, 1)  # Or nothing, where no update is left to be made.
            time.sleep(draw.uniform(0, seconds))
            if os.waitpid(child, os.WNOHANG)[0]:
                child = None
            else:
                os.kill(child, signal.SIGKILL)
        status = 0 if child is None else os.waitpid(child, 0)[1]
        os.close(told)
        killed = child is not None and os.WIFSIGNALED(status)
        made += killed
        count["kills"] += killed
        count["unreadable"] += not readable(folder)
        if (folder / "end.npz").exists():
            found = end(folder)
            count["ends"] += 1
            count["same"] += found.keys() == expected.keys() and all(
                found[key].tobytes() == expected[key].tobytes() for key in found
            )
            shutil.rmtree(folder)
        elif not killed:
            sys.exit(f"{name} failed")
        total = {key: sum(count[key] for count in counts.values()) for key in count}
        print(f"\r{total}", end="", flush=True)
    print()
    return counts


def overhead(rounds, updates, scratch):
    """Returns the seconds of fits with and without checkpoints, and of writing, by round."""
    x = (np.random.default_rng(0).random((20 * updates, 784)) < 0.2).astype("float32")
    model = dbn.RBM(500, k=15, persistent=True, chains=20)
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(x[:2000], batch_size=20, verbose=0)  # compiles
    pairs, write, writing = [], dbn.checkpoints.write, 0.0

    def timed(*arguments):
        nonlocal writing
        begun = time.perf_counter()
        write(*arguments)
        writing += time.perf_counter() - begun

    dbn.checkpoints.write = timed
    for number in range(rounds):
        pair, writing = {}, 0.0
        for way in ("without", "with")[:: 1 if number % 2 else -1]:
            path = scratch / f"{number}.checkpoint"
            kept = dbn.checkpoints.Checkpoint(path, every=1000) if way == "with" else None
            begun = time.perf_counter()
            model.fit(x, batch_size=20, verbose=0, checkpoint=kept)
            pair[way] = time.perf_counter() - begun
        pairs.append(pair | {"writing": writing})
        print(" ".join(f"{way} {seconds:.2f} s" for way, seconds in pairs[-1].items()), flush=True)
    return pairs


def main():
    """Soaks or measures as the command line asks, prints and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--overhead", action="store_true", help="measure that instead")
    parser.add_argument("--rounds", type=int, default=7, help="of it (%(default)s)")
    parser.add_argument("--updates", type=int, default=3000, help="a round (%(default)s)")
    parser.add_argument("--out", type=results.file, default="runs/benchmarks/soak.json")
    args = parser.parse_args()
    if min(args.kills, args.rounds, args.updates) < 1:
        parser.error("all numbers must be at least 1")

    with tempfile.TemporaryDirectory() as scratch:
        if args.overhead:
            found = {"rounds": overhead(args.rounds, args.updates, Path(scratch))}
            ratios = [pair["with"] / pair["without"] for pair in found["rounds"]]
            found["ratio"] = statistics.median(ratios)
            print(f"with / without: {found['ratio']:.4f}, from {min(ratios):.4f} to ", end="")
            print(f"{max(ratios):.4f}, {args.updates} updates a fit")
            shares = [pair["writing"] / pair["with"] for pair in found["rounds"]]
            found["writing"] = statistics.median(shares)
            print(f"share of writing: {found['writing']:.4f}")
        else:
            found = soak(args.trainings, args.kills, args.seed, Path(scratch))
            print(f"{'':12}{'kills':>8}{'ends':>8}{'same bits':>12}{'unreadable':>12}")
            for name, n in found.items():
                print(f"{name:12}{n['kills']:8}{n['ends']:8}{n['same']:12}{n['unreadable']:12}")
    results.write(found, args.out)


if __name__ == "__main__":
    main()
