"""Cost of annealed importance sampling beside a Gibbs step and the bare matrix products.

    python benchmarks/annealing.py               # 500 chains, 784-500; one minute on 2 cores

The contenders take turns in every round; a machine may drift by a factor of two within minutes, so
believe the ratios, medians of the ratios of single rounds, rather than the milliseconds:

    bound   both products of a temperature, compiled, nothing sampled
    gibbs   one plain Gibbs step
    ais     `dbn.likelihood.annealed_importance_sampling`, the whole call, checks included

Leave the machine alone meanwhile.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import dbn
import results

# Each contender takes the layer and the numbers of chains and temperatures, and returns run().


def bound(layer, chains, temperatures):
    """The matrix products alone; clipping keeps XLA from merging them."""
    visible, _ = layer.W.shape
    start, W = tf.random.uniform((chains, visible)), layer.W.value

    @tf.function(jit_compile=True)
    def step(v):
        h = tf.clip_by_value(v @ W, 0.0, 1.0)
        return tf.clip_by_value(tf.matmul(h, W, transpose_b=True), 0.0, 1.0)

    @tf.function(autograph=True)
    def loop(v):
        for _ in tf.range(temperatures):
            v = step(v)
        return v

    return lambda: loop(start).numpy()


def gibbs(layer, chains, temperatures):
    """Plain Gibbs chains, through the public `RBM.sample`."""
    rbm = dbn.RBM(layer)
    rbm.build((None, layer.W.shape[0]))
    return lambda: rbm.sample(chains=chains, steps=temperatures)


def ais(layer, chains, temperatures):
    """Annealed importance sampling."""
    base_rates = np.full(layer.W.shape[0], 0.13)
    sample = dbn.likelihood.annealed_importance_sampling
    return lambda: sample(layer, base_rates, chains=chains, temperatures=temperatures)


CONTENDERS = {"bound": bound, "gibbs": gibbs, "ais": ais}


def measure(layer, chains, temperatures, rounds):
    """Returns the milliseconds a temperature of each round, by contender."""
    made = {name: make(layer, chains, temperatures) for name, make in CONTENDERS.items()}
    for run in made.values():
        run()  # compiles
    taken = {name: [] for name in made}
    for _ in range(rounds):
        for name, run in made.items():
            start = time.perf_counter()
            run()
            taken[name].append(1e3 * (time.perf_counter() - start) / temperatures)
    return taken


def main():
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visible", type=int, default=784, help="units (%(default)s)")
    parser.add_argument("--hidden", type=int, default=500, help="units (%(default)s)")
    parser.add_argument("--chains", type=int, default=500, help="(%(default)s)")
    parser.add_argument("--temperatures", type=int, default=500, help="a call (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--out", type=results.file, default="runs/benchmarks/annealing.json")
    args = parser.parse_args()
    if min(args.visible, args.hidden, args.chains, args.rounds) < 1 or args.temperatures < 2:
        parser.error("all numbers must be at least 1, --temperatures at least 2")

    keras.utils.set_random_seed(0)
    layer = dbn.RBMLayer(args.hidden)
    layer.build((None, args.visible))
    rounds = measure(layer, args.chains, args.temperatures, args.rounds)
    ratios = {
        f"{name} / bound": statistics.median(map(np.divide, rounds[name], rounds["bound"]))
        for name in ("gibbs", "ais")
    }
    print(f"{args.visible}-{args.hidden}, {args.chains} chains, {args.temperatures} temperatures")
    for name, taken in rounds.items():
        print(f"  {name:15}{statistics.median(taken):8.3f} ms a temperature")
    for name, ratio in ratios.items():
        print(f"  {name:15}{ratio:8.2f}")
    results.write({"rounds_ms": rounds, "ratios": ratios}, args.out)


if __name__ == "__main__":
    main()
