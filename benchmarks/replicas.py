"""What it costs to share an update out among two replicas of one machine.

    python benchmarks/replicas.py             # three minutes on 2 cores

Both ways make the same updates, of the same batch and as many chains, through the public `fit`:

    one    on one device, as without a strategy
    two    by `tf.distribute.MirroredStrategy` on two logical devices of the same CPU, each with
           half of the threads; sums are made on one of them

Timed is the second epoch of a `fit`, from the end of the first one to its own. What a `fit` costs
before its first update, where data are shared out and graphs traced, is shown apart: it does not
grow with the updates.

Each way has a process, and they take turns in every round; a machine may drift by a factor of two
within minutes, so believe the ratio, the median of those of single rounds. Two devices of one CPU
have no more cores than one of them, so the ratio is the overhead: 1 would be none. Leave the
machine alone meanwhile.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import dbn
import results

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


def two_devices():
    """Returns the strategy of two logical devices, each with half of the threads."""
    # Else each would run its products on all cores, and wait for the other.
    threads = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(max(1, threads // 2))
    tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def train(turns, way, case, updates, visible=784):
    """Trains whenever it is told to; sends milliseconds: of an update, and of the beginning."""
    strategy = two_devices() if way == "two" else None
    batch, case = case["batch"], {key: case[key] for key in case if key != "batch"}
    x = np.random.default_rng(0).random((updates * batch, visible), dtype="float32")
    with strategy.scope() if strategy else contextlib.nullcontext():
        rbm = dbn.RBM(case.pop("hidden"), seed=0, **case)
        rbm.compile(keras.optimizers.SGD(0.01))
    while turns.recv():
        ends, start = Ends(), time.perf_counter()
        rbm.fit(x, batch_size=batch, epochs=2, verbose=0, callbacks=[ends])
        first, second = np.diff([start, *ends.at])
        turns.send((1e3 * second / updates, 1e3 * (first - second)))


def measure(case, updates, rounds):
    """Returns what each way sent, the first turns, in which it compiles, left out."""
    context, turns, processes = multiprocessing.get_context("spawn"), {}, []
    for way in ("one", "two"):
        turns[way], other = context.Pipe()
        arguments = (other, way, case, updates)
        processes.append(context.Process(target=train, args=arguments, daemon=True))
        processes[-1].start()
        other.close()  # So that a process that fails ends this one, too.
    taken = {way: [] for way in turns}
    for _ in range(1 + rounds):
        for way, turn in turns.items():
            turn.send(True)
            taken[way].append(turn.recv())
    for turn, process in zip(turns.values(), processes, strict=True):
        turn.send(False)
        process.join()
    return {way: pairs[1:] for way, pairs in taken.items()}


def main():
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--updates", type=int, default=500, help="an epoch (%(default)s)")
    parser.add_argument("--out", type=results.file, default="runs/benchmarks/replicas.json")
    args = parser.parse_args()
    if min(args.rounds, args.updates) < 1:
        parser.error("--rounds and --updates must be at least 1")

    found = {}
    for name in args.cases:
        taken = measure(CASES[name], args.updates, args.rounds)
        rounds, beginnings = (
            {way: [pair[i] for pair in pairs] for way, pairs in taken.items()} for i in (0, 1)
        )
        ratio = statistics.median(b / a for a, b in zip(rounds["one"], rounds["two"], strict=True))
        found[name] = {"rounds_ms": rounds, "beginnings_ms": beginnings, "two / one": ratio}
        one, two = (statistics.median(rounds[way]) for way in taken)
        print(f"{name:8}{one:9.3f} ms on one{two:9.3f} ms on two{ratio:9.2f}", flush=True)
        one, two = (statistics.median(beginnings[way]) for way in taken)
        print(f"{'':8}{one:9.0f} ms on one{two:9.0f} ms on two, to begin with", flush=True)
    results.write(found, args.out)


if __name__ == "__main__":
    main()
