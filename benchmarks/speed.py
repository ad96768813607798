"""Speed of an RBM's training beside PyTorch, scikit-learn and the bound of its matrix products.

    python benchmarks/speed.py                         all cases, MNIST; some minutes on 2 cores
    python benchmarks/speed.py --cases cd1 --rounds 9

Needs `pip install -e ".[benchmark]"`; a peer that is missing is reported as not installed.

One update is: gather a shuffled batch, run the chain, take the gradient of the free-energy
difference, apply SGD, and log one metric (the cycling-bit pseudo-log-likelihood for PCD, the cross
entropy of the reconstruction for CD). The contenders

    ours              the public `fit`, as a user writes it; time of a whole call, checks included
    pytorch           the step that a user would write, on CUDA where there is one
    pytorch-compiled  the same update as one graph of `torch.compile`, which needs a C++ compiler;
                      on CUDA in its mode "reduce-overhead", which replays CUDA graphs
    scikit-learn      BernoulliRBM: PCD-1 without a metric or shuffling, so in case cd1 only, which
                      has the same number of products
    bound             the same matrix products, compiled as ours are, without sampling: what no
                      sampler written in TensorFlow can go below

take turns in every round, since a machine may drift by a factor of two within minutes: believe the
ratios, medians of the ratios of single rounds, rather than the milliseconds. The first run of each
(compilation) is shown apart. float32 and the same number of threads throughout.

"of peak" is the utilisation: the FLOPs of the matrix products that an update cannot do without,
times updates a second, over the FLOPs a second of bare products of large square matrices, which
TensorFlow makes in every round, too.

Leave the machine alone meanwhile. PyTorch's threads wait for each other after every operation, so
where another program takes one of two cores it looks twenty times slower than it is. The column
"others" tells the largest share of the machine that other programs took in a round: a ratio counts
only where it is a few per cent at most.

On a GPU: the same command, after `pip install -e ".[gpu,benchmark]"`, with a PyTorch for CUDA. The
first line printed names what TensorFlow and PyTorch run on, and whether products of float32 are
made in TF32, TensorFlow's default on GPUs that have it; PyTorch is told to do the same. The data
stay on the device. An epoch takes a fraction of a second there, so a round is several: let it be
long beside what a call of `fit` costs at its beginning, `--seconds 6`.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

with contextlib.suppress(ImportError):
    # Before TensorFlow, after which loading it crashes: each brings an LLVM of its own.
    import triton  # noqa: F401

import keras
import psutil
import tensorflow as tf

import dbn
import results

LEARNING_RATE = 0.1
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
RATIOS = (
    ("ours", "bound"),
    ("pytorch", "ours"),
    ("pytorch-compiled", "ours"),
    ("scikit-learn", "ours"),
)
# Of the bare products: how large, and how many a round; some tenths of a second.
SQUARES = {"CPU": (1024, 10), "GPU": (8192, 20)}


class Case(NamedTuple):
    """What is trained; persistent chains are as many as the batch has examples."""

    hidden: int
    batch: int
    k: int
    persistent: bool

    @property
    def metric(self):
        """Name of the metric that an update logs."""
        return "pseudo_log_likelihood" if self.persistent else "reconstruction_cross_entropy"

    def flops(self, visible):
        """Returns the FLOPs of the matrix products that an update cannot do without.

        Each is of a batch, or of as many chains, with the weights: one up for the data, from which
        the chain of CD starts, too; one down and one up in each step of the chain, the last of
        which serves the free energy of its end; one for each half of the gradient; and one for the
        free energies of the pseudo-log-likelihood, whose flipped bit shifts what goes up by a row
        of W.
        """
        products = 1 + 2 * self.k + 2 + self.persistent
        return products * 2 * visible * self.hidden * self.batch


CASES = {
    "pcd15": Case(hidden=500, batch=20, k=15, persistent=True),
    "cd1": Case(hidden=1000, batch=128, k=1, persistent=False),
    "cd1-small": Case(hidden=1000, batch=10, k=1, persistent=False),
}


# Each contender takes a case and the data and returns run(updates, epochs), which makes so many
# epochs of that many updates, waits for the last one, and returns the mean of the metric in the
# last epoch, None where there is none.


def ours(case, x):
    """This project, through the public `fit`."""
    keras.utils.set_random_seed(0)
    layer = dbn.RBMLayer(case.hidden)
    rbm = dbn.RBM(layer, k=case.k, persistent=case.persistent, chains=case.batch)
    rbm.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE))

    def run(updates, epochs):
        rows = x[: updates * case.batch]
        history = rbm.fit(rows, batch_size=case.batch, epochs=epochs, verbose=0)
        return float(history.history[case.metric][-1])

    return run


def pytorch(case, x):
    """The plain step, with autograd and an optimizer of PyTorch."""
    import rbm_in_pytorch as peer

    return peer.training(peer.plain, case, x, LEARNING_RATE, THREADS, tf32())


def pytorch_compiled(case, x):
    """The whole update as one graph of `torch.compile`."""
    import rbm_in_pytorch as peer

    return peer.training(peer.compiled, case, x, LEARNING_RATE, THREADS, tf32())


def scikit_learn(case, x):
    """BernoulliRBM; it makes a new set of weights in every `fit`."""
    from sklearn.neural_network import BernoulliRBM
    from threadpoolctl import threadpool_limits

    def run(updates, epochs):
        rbm = BernoulliRBM(
            case.hidden, learning_rate=LEARNING_RATE, batch_size=case.batch, n_iter=epochs
        )
        with threadpool_limits(THREADS):
            rbm.fit(x[: updates * case.batch])

    return run


def bound(case, x):
    """The matrix products alone: chain, gradient, metric and the update of the parameters."""
    visible, batch = x.shape[1], case.batch
    data = tf.constant(x)
    W = tf.Variable(tf.random.uniform((visible, case.hidden), -0.2, 0.2))
    hbias = tf.Variable(tf.zeros(case.hidden))
    vbias = tf.Variable(tf.zeros(visible))
    chain = tf.Variable(tf.random.uniform((batch, case.hidden)))

    # Clipping is all that is left of the sampler. It is free (fused into the addition of the bias),
    # keeps the numbers in the range of samples, and forbids XLA to merge the products.
    def up(v):
        return tf.clip_by_value(v @ W + hbias, 0.0, 1.0)

    def down(h):
        return tf.clip_by_value(tf.matmul(h, W, transpose_b=True) + vbias, 0.0, 1.0)

    @tf.function(jit_compile=True)
    def update(v):
        h_data = up(v)
        h = chain if case.persistent else h_data
        for _ in range(case.k):
            v_model = down(h)
            h = up(v_model)
        if case.persistent:
            chain.assign(h)
            # One product: a flipped bit shifts the pre-activation of the others by a row of W.
            metric = tf.reduce_mean(up(tf.round(v)))
        else:
            metric = tf.reduce_mean(v_model)  # its pre-activation is at hand
        # Both halves of the gradient in one product, which is faster than two.
        gradient = tf.matmul(
            tf.concat([v, -v_model], 0), tf.concat([h_data, h], 0), transpose_a=True
        )
        rate = LEARNING_RATE / batch
        W.assign_add(rate * gradient)
        hbias.assign_add(rate * tf.reduce_sum(h_data - h, 0))
        vbias.assign_add(rate * tf.reduce_sum(v - v_model, 0))
        return metric

    @tf.function(autograph=True)
    def loop(updates):
        order = tf.random.shuffle(tf.range(updates * batch))
        total = 0.0
        for i in tf.range(updates):
            rows = tf.gather(data, order[i * batch : (i + 1) * batch])
            total += update(tf.ensure_shape(rows, (batch, visible)))
        return total

    def run(updates, epochs):
        for _ in range(epochs):
            loop(tf.constant(updates)).numpy()

    return run


CONTENDERS = {
    "ours": ours,
    "pytorch": pytorch,
    "pytorch-compiled": pytorch_compiled,
    "scikit-learn": scikit_learn,
    "bound": bound,
}


def on_gpu():
    """Whether TensorFlow has a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def tf32():
    """Whether TensorFlow makes products of float32 in TF32, if its GPU can."""
    return on_gpu() and tf.config.experimental.tensor_float_32_execution_enabled()


def bare_products(size, count):
    """Returns a function that makes products of square matrices, and returns FLOPs a second."""
    a = tf.random.normal((size, size), stddev=size**-0.5)  # keeps the products of this order

    @tf.function(autograph=True)
    def products():
        b = a
        for _ in tf.range(count):
            b = a @ b
        return b[0, 0]

    def run():
        start = time.perf_counter()
        products().numpy()
        return 2 * size**3 * count / (time.perf_counter() - start)

    return run


class Timing(NamedTuple):
    """What one run gave."""

    milliseconds: float  # per update
    metric: float | None
    others: float  # share of the machine that other processes took


def timed(run, updates, epochs=1):
    """Returns the `Timing` of one run."""

    def others():
        times = psutil.cpu_times()
        return times.user + times.system + times.nice - time.process_time()

    start, before = time.perf_counter(), others()
    metric = run(updates, epochs)
    seconds, taken = time.perf_counter() - start, others() - before
    share = min(1.0, max(0.0, taken / (seconds * os.cpu_count())))
    return Timing(1e3 * seconds / (updates * epochs), metric, share)


def measure(name, x, rounds, seconds):
    """Runs all contenders of a case in turn, as many updates as the bound makes in `seconds`.

    Returns a dict that JSON can hold; a contender that is not installed is None in it.
    """
    case = CASES[name]
    runs, contenders = {}, {}
    for contender, make in CONTENDERS.items():
        if contender == "scikit-learn" and name != "cd1":
            continue
        try:
            runs[contender] = make(case, x)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "sklearn"):
                raise
            contenders[contender] = None

    runs["bound"](1, 1)  # compiles
    most = len(x) // case.batch
    wanted = 1e3 * seconds / timed(runs["bound"], min(50, most)).milliseconds
    updates = max(1, min(most, round(wanted)))
    epochs = max(1, round(wanted / updates))
    peak = bare_products(*SQUARES["GPU" if on_gpu() else "CPU"])
    peak()  # compiles

    first_runs = {contender: timed(run, updates, epochs) for contender, run in runs.items()}
    timings, peaks = {contender: [] for contender in runs}, []
    order = list(runs)
    for _ in range(rounds):
        peaks.append(peak())
        for contender in order:
            timings[contender].append(timed(runs[contender], updates, epochs))
        order = order[1:] + order[:1]  # so that nobody always follows the same neighbour
    flops = case.flops(x.shape[1])
    for contender, taken in timings.items():
        rounds_ms = [timing.milliseconds for timing in taken]
        uses = (1e3 * flops / (ms * peak) for ms, peak in zip(rounds_ms, peaks, strict=True))
        contenders[contender] = {
            "rounds_ms": rounds_ms,
            "updates_per_second": 1e3 / statistics.median(rounds_ms),
            "utilisation": statistics.median(uses),
            "others": max(timing.others for timing in taken),
            "first_run_seconds": first_runs[contender].milliseconds * updates * epochs / 1e3,
            "metric": taken[-1].metric,
        }

    ratios = {}
    for slow, fast in RATIOS:
        if slow in runs:
            pairs = zip(contenders[slow]["rounds_ms"], contenders[fast]["rounds_ms"], strict=True)
            ratios[f"{slow} / {fast}"] = statistics.median(a / b for a, b in pairs)
    shape = {**case._asdict(), "visible": x.shape[1], "metric": case.metric, "flops": flops}
    made = {"updates": updates, "epochs": epochs, "peaks": peaks}
    return {**shape, **made, "contenders": contenders, "ratios": ratios}


def report(name, result):
    """Returns the table of one case."""
    chain = f"{'PCD' if result['persistent'] else 'CD'}-{result['k']}"
    peak = statistics.median(result["peaks"])
    lines = [
        f"{name}: {chain}, {result['visible']}-{result['hidden']}, batch {result['batch']}, "
        f"{result['updates'] * result['epochs']} updates a round",
        f"  {result['flops'] / 1e6:.4g} MFLOP an update; peak {peak / 1e12:.3g} TFLOP/s",
        f"  {'':26}{'ms/update':>10}{'min':>9}{'max':>9}{'updates/s':>11}{'of peak':>9}"
        f"{'first run, s':>14}{'others':>8}"
        f"  {result['metric']}",
    ]
    for contender, times in result["contenders"].items():
        if times is None:
            lines.append(f"  {contender:26} not installed")
            continue
        rounds, metric = times["rounds_ms"], times["metric"]
        lines.append(
            f"  {contender:26}{statistics.median(rounds):10.3f}{min(rounds):9.3f}{max(rounds):9.3f}"
            f"{times['updates_per_second']:11.1f}{times['utilisation']:9.1%}"
            f"{times['first_run_seconds']:14.2f}{times['others']:8.0%}"
            f"  {'-' if metric is None else f'{metric:.2f}'}"
        )
    lines += [f"  {ratio:26}{value:10.2f}" for ratio, value in result["ratios"].items()]
    return "\n".join(lines)


def machine():
    """Returns what the figures depend on."""
    versions = {"python": platform.python_version()}
    for package in ("tensorflow", "keras", "numpy", "torch", "scikit-learn"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    gpus = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    pytorch = None
    with contextlib.suppress(ModuleNotFoundError):
        import torch

        pytorch = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    return {
        "cpu": models[0] if models else platform.processor(),
        "gpus": [gpu.get("device_name", "unknown") for gpu in gpus],
        "tf32_allowed": tf32(),
        "pytorch_runs_on": pytorch,
        "threads": THREADS,
        "versions": versions,
    }


def main():
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the bound in a round (2)")
    parser.add_argument("--data-set", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--out", type=results.file, default="runs/benchmarks/speed.json")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds positive")

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # PyTorch needs a part of it
    x = dbn.data.load(arguments.data_set).train.x
    found = {"machine": machine(), "data_set": arguments.data_set, "cases": {}}
    print(json.dumps(found["machine"]))
    print(f"{arguments.data_set}: {len(x)} examples; {arguments.rounds} rounds", flush=True)
    for name in arguments.cases:
        found["cases"][name] = measure(name, x, arguments.rounds, arguments.seconds)
        print("\n" + report(name, found["cases"][name]), flush=True)

    results.write(found, arguments.out)


if __name__ == "__main__":
    main()
