"""Speed of an update with other unit types, beside Bernoulli ones of the same size.

    python benchmarks/units.py                   # CD-1, 784-1000, batch 128; a minute on 2 cores
    python benchmarks/units.py --hidden 500 --batch 20 --k 15 --persistent

All types take turns in every round, through the public `fit`; a machine may drift by a factor of
two within minutes, so believe the ratios, medians of the ratios of single rounds. The data are
standard normal numbers, or bits of them for Bernoulli visible units.

Leave the machine alone meanwhile.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import dbn
import results

# Names of the visible and the hidden units.
TYPES = (
    ("bernoulli", "bernoulli"),
    ("gaussian", "bernoulli"),
    ("scaled_gaussian", "bernoulli"),
    ("bernoulli", "relu"),
    ("gaussian", "relu"),
    ("spin", "spin"),
)


def contender(types, x, arguments):
    """Returns run(), which makes one epoch of updates."""
    if types[0] == "bernoulli":
        x = (x > 0).astype("float32")
    elif types[0] == "spin":
        x = np.sign(x)
    keras.utils.set_random_seed(0)
    small = keras.initializers.RandomNormal(0, 0.01)
    rbm = dbn.RBM(
        dbn.RBMLayer(arguments.hidden, *types, kernel_initializer=small),
        k=arguments.k,
        persistent=arguments.persistent,
        chains=arguments.batch,
    )
    rbm.compile(keras.optimizers.SGD(1e-3), metrics=["reconstruction_cross_entropy"])
    return lambda: rbm.fit(x, batch_size=arguments.batch, verbose=0)


def measure(arguments):
    """Returns the milliseconds an update of each round, by types."""
    x = np.random.default_rng(0).normal(size=(arguments.updates * arguments.batch, 784))
    runs = {"-".join(types): contender(types, np.float32(x), arguments) for types in TYPES}
    for run in runs.values():
        run()  # compiles
    taken = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(1e3 * (time.perf_counter() - start) / arguments.updates)
    return taken


def main():
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=1000, help="units (%(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="and chains (%(default)s)")
    parser.add_argument("--k", type=int, default=1, help="Gibbs steps (%(default)s)")
    parser.add_argument("--persistent", action="store_true", help="PCD")
    parser.add_argument("--updates", type=int, default=200, help="a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--out", type=results.file, default="runs/benchmarks/units.json")
    arguments = parser.parse_args()
    names = ("hidden", "batch", "k", "updates", "rounds")
    if min(getattr(arguments, name) for name in names) < 1:
        parser.error("all numbers must be at least 1")

    rounds = measure(arguments)
    first = rounds["bernoulli-bernoulli"]
    ratios = {
        name: statistics.median(map(np.divide, taken, first)) for name, taken in rounds.items()
    }
    kind = "PCD" if arguments.persistent else "CD"
    print(f"{kind}-{arguments.k}, 784-{arguments.hidden}, batch {arguments.batch}")
    for name, taken in rounds.items():
        milliseconds = statistics.median(taken)
        print(f"  {name:28}{milliseconds:8.3f} ms an update{ratios[name]:8.2f}")
    results.write({"rounds_ms": rounds, "ratios": ratios}, arguments.out)


if __name__ == "__main__":
    main()
