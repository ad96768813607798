"""Measures `RBM.fit` from shards: its peak memory by the size of the data, and its speed.

    python benchmarks/streaming.py                       # 1 GiB and 4 GiB; some minutes on 2 cores
    python benchmarks/streaming.py --sizes 64 256        # smaller data, MiB
    python benchmarks/streaming.py --smoke               # everything small: does it run?

Memory: one whole epoch of 784-16, batch 500, float32 cases, each size in a process of its own,
whose greatest resident memory the kernel tells (`VmHWM`, Linux). The smaller data are the first
files of the largest, which need as much disk under `--folder` as they are large.

Speed: updates a second of CD-1, 784-1000, batch 128, one epoch a round, from shards and from the
same cases in memory. Both take turns in every round; a machine may drift by a factor of two within
minutes, so believe the ratio, the median of the ratios of single rounds. Leave the machine alone
meanwhile.
"""

import argparse
import concurrent.futures
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import dbn
import results

WIDTH = 784
SHARD = 16  # MiB a file.


def write(folder, size):
    """Writes random cases of so many MiB as shards; returns them."""
    rows = SHARD * 2**20 // (4 * WIDTH)
    x = np.random.default_rng(0).random((rows, WIDTH), dtype=np.float32)
    # The same cases in each file: writing is to take no longer than it must.
    return dbn.shards.write(folder, (x for _ in range(math.ceil(size / SHARD))), rows)


def peak(files, buffer):
    """Returns the greatest resident memory, in MiB, of a process that fits one epoch of files."""
    rbm = dbn.RBM(16)
    rbm.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    rbm.fit(dbn.shards.Shards(files, buffer), batch_size=500, verbose=0)
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_memory(folder, sizes, buffer):
    """Returns the peak of each size, MiB by MiB."""
    files = write(folder, max(sizes)).files
    spawn = multiprocessing.get_context("spawn")  # A new interpreter, whose memory is its own.
    peaks = {}
    for size in sizes:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
            part = files[: math.ceil(size / SHARD)]
            peaks[size] = process.submit(peak, part, buffer).result()
    return peaks


def measure_speed(folder, size, hidden, rounds, buffer):
    """Returns the updates a second of each round, by where the cases are."""
    data = dbn.shards.Shards(write(folder, size).files, buffer)
    contenders = {"memory": np.concatenate([np.load(path) for path in data.files]), "shards": data}
    rbms = {name: dbn.RBM(hidden, seed=0) for name in contenders}
    for rbm in rbms.values():
        # A number of steps, so that none is spent on finding one.
        rbm.compile(keras.optimizers.SGD(0.01), steps_per_execution=40)
    speeds = {name: [] for name in rbms}
    for _ in range(1 + rounds):
        for name, rbm in rbms.items():
            before, start = int(rbm.updates) if rbm.built else 0, time.perf_counter()
            rbm.fit(contenders[name], batch_size=128, verbose=0)
            speeds[name].append((int(rbm.updates) - before) / (time.perf_counter() - start))
    return {name: found[1:] for name, found in speeds.items()}  # The first round compiles.


def main():
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 4096], help="of data, MiB (%(default)s)"
    )
    parser.add_argument(
        "--speed-size", type=int, default=256, help="of data for the speed, MiB (%(default)s)"
    )
    parser.add_argument("--hidden", type=int, default=1000, help="units (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--buffer", type=int, default=64, help="of the shards, MiB (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for the data; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="all small: does it run?")
    parser.add_argument("--out", type=results.file, default="runs/benchmarks/streaming.json")
    args = parser.parse_args()
    if args.smoke:
        args.sizes, args.speed_size, args.hidden, args.rounds, args.buffer = [16, 32], 16, 8, 3, 4
    if min(*args.sizes, args.speed_size, args.hidden, args.rounds, args.buffer) < 1:
        parser.error("all numbers must be at least 1")

    buffer = args.buffer * 2**20
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        peaks = measure_memory(Path(folder) / "memory", args.sizes, buffer)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        speeds = measure_speed(
            Path(folder) / "speed", args.speed_size, args.hidden, args.rounds, buffer
        )
    rounds = map(np.divide, speeds["shards"], speeds["memory"])
    ratios = {
        "peak, largest / smallest data": peaks[max(peaks)] / peaks[min(peaks)],
        "speed, shards / memory": statistics.median(rounds),
    }
    for size, found in peaks.items():
        print(f"{size:8} MiB of data: peak {found:8.1f} MiB")
    for name, found in speeds.items():
        print(f"  {name:10}{statistics.median(found):8.1f} updates a second")
    for name, ratio in ratios.items():
        print(f"  {name:32}{ratio:6.3f}")
    found = {"peaks_mib": peaks, "updates_per_second": speeds, "ratios": ratios}
    results.write(found, args.out)


if __name__ == "__main__":
    main()
