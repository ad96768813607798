"""What it costs to share an update out among two replicas of one machine.

    python benchmarks/replicas.py             # four minutes on 2 cores

Both ways make the same updates, of the same batch and as many chains, through the public `fit`:

    one    on one device, as without a strategy
    two    by `tf.distribute.MirroredStrategy` on two logical devices of the same CPU; sums are made
           on one of them

Timed is the second epoch of a `fit`, from the end of the first one to its own. What a `fit` costs
before its first update, where data are shared out and graphs traced, is shown apart: it does not
grow with the updates.

They take turns in every round; a machine may drift by a factor of two within minutes, so believe
the ratio, the median of those of single rounds. Two devices of one CPU have no more cores than one
of them, so the ratio is the overhead: 1 would be none. Leave the machine alone meanwhile.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import dbn

CASES = {
    "pcd15": {"hidden": 500, "batch": 20, "k": 15, "persistent": True, "chains": 20},
    "cd1": {"hidden": 1000, "batch": 128, "k": 1},
}


class Ends(keras.callbacks.Callback):
    """Notes when epochs end."""

    def on_train_begin(self, logs=None):
        self.at = []

    def on_epoch_end(self, epoch, logs=None):
        self.at.append(time.perf_counter())


def training(strategy, x, hidden, batch, **arguments):
    """Returns a function that trains; returns milliseconds: of an update, and of the beginning."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        rbm = dbn.RBM(hidden, seed=0, **arguments)
        rbm.compile(keras.optimizers.SGD(0.01))

    def run():
        ends, start = Ends(), time.perf_counter()
        rbm.fit(x, batch_size=batch, epochs=2, verbose=0, callbacks=[ends])
        first, second = np.diff([start, *ends.at])
        return 1e3 * second / (len(x) // batch), 1e3 * (first - second)

    return run


def measure(strategy, case, updates, rounds, visible=784):
    """Returns what the runs of each way returned, the first ones left out."""
    x = np.random.default_rng(0).random((updates * case["batch"], visible), dtype="float32")
    runs = {"one": training(None, x, **case), "two": training(strategy, x, **case)}
    for run in runs.values():
        run()  # compiles
    taken = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def main():
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--updates", type=int, default=500, help="an epoch (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/replicas.json"))
    args = parser.parse_args()
    if min(args.rounds, args.updates) < 1:
        parser.error("--rounds and --updates must be at least 1")

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    found = {}
    for name in args.cases:
        taken = measure(strategy, CASES[name], args.updates, args.rounds)
        rounds, beginnings = (
            {way: [pair[i] for pair in pairs] for way, pairs in taken.items()} for i in (0, 1)
        )
        ratio = statistics.median(b / a for a, b in zip(rounds["one"], rounds["two"], strict=True))
        found[name] = {"rounds_ms": rounds, "beginnings_ms": beginnings, "two / one": ratio}
        one, two = (statistics.median(rounds[way]) for way in taken)
        print(f"{name:8}{one:9.3f} ms on one{two:9.3f} ms on two{ratio:9.2f}", flush=True)
        one, two = (statistics.median(beginnings[way]) for way in taken)
        print(f"{'':8}{one:9.0f} ms on one{two:9.0f} ms on two, to begin with", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    part = args.out.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    os.replace(part, args.out)
    print(f"Written to {args.out}")


if __name__ == "__main__":
    main()
