"""What the recipes share: options, the run folder, the data set, and figures told and kept.

A recipe imports this module before anything that must be installed: where `dbn` is missing, it
exits and says what to type.
"""

import argparse
import fcntl
import json
import operator
import os
import platform
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

_STARTED = time.perf_counter()  # Before TensorFlow is imported, which takes seconds.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes about its own build

try:
    import dbn
except ModuleNotFoundError as missing:  # Another Keras backend is an ImportError that says it all.
    sys.exit(
        f"{missing}: this recipe needs dbn, installed. Type, in {Path(__file__).parents[1]},\n\n"
        "    python3 -m venv .venv && .venv/bin/pip install -e .\n"
        f"    .venv/bin/python recipes/{Path(sys.argv[0]).name}\n\n"
        "or `make run`, which sets everything up and runs recipes/dbn_mnist.py."
    )

import keras
import numpy as np
import tensorflow as tf

CHECKPOINTS = "checkpoints"  # A folder for them in the run folder, until `finish`.
_METRICS = "metrics.json"
_UNFINISHED = "unfinished"  # A file with the options, from `start` to `finish`.
_FLAGS = {  # Those that several recipes have.
    "--no-pretraining": "train the same network from the same random initial weights",
    "--validation": "leave out 10,000 training images and measure on them, not on the test set",
}
_LOCKS = {}  # Open run folders, by path: locked as long as this process lives.


def run(main):
    """Runs a recipe. Ctrl-C and SIGTERM end it with exit code 130 and 143, and no traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for gpu in tf.config.list_physical_devices("GPU"):
        # Otherwise TensorFlow takes all of its memory, which others may be using, too.
        tf.config.experimental.set_memory_growth(gpu, True)
    main()


def make_parser(description, presets=None, *flags):
    """Makes a parser of the options that recipes share, but for those of `add_arguments`.

    Args:
        description: The recipe's docstring.
        presets: Dict whose keys `--preset` takes, the first by default; None for no such option.
        *flags: `"--no-pretraining"`, `"--validation"`.

    Returns:
        `argparse.ArgumentParser`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if presets:
        parser.add_argument(
            "--preset",
            choices=presets,
            default=next(iter(presets)),
            help="what to train, and how long (default: %(default)s)",
        )
    for flag in flags:
        parser.add_argument(flag, action="store_true", help=_FLAGS[flag])
    return parser


def add_arguments(parser, default_folder):
    """Adds the options of a recipe that takes a data set by name.

    Args:
        parser: `argparse.ArgumentParser`.
        default_folder: Default of `--run-dir`, relative to the current folder; `{data_set}` in it
            stands for the data set's name, once `load_data` has been called.
    """
    parser.add_argument(
        "--data-set",
        metavar="NAME",
        help="mnist, fashion_mnist or another set of pictures of TensorFlow Datasets, or digits, "
        "scikit-learn's of 8x8 pixels (default: mnist, or digits where mnist cannot be had)",
    )
    more_help = "; {data_set} stands for the set's name"
    add_run_arguments(parser, default_folder, more_help)


def add_run_arguments(parser, default_folder, more_help=""):
    """Adds the options that all recipes have: the run folder, the seed, and to start over.

    Args:
        parser: `argparse.ArgumentParser`.
        default_folder: Default of `--run-dir`, relative to the current folder.
        more_help: What the help of `--run-dir` is to say besides.
    """
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path(default_folder),
        metavar="FOLDER",
        help=f"where pictures and metrics.json go{more_help}; a folder that holds a finished run "
        "is refused, an unfinished one gone on with, by the same command (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="INTEGER",
        help="what all random numbers come from (default: %(default)s)",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start an unfinished run over, and lose what it has done",
    )


def parse(parser, default_folder):
    """Parses the command line; a run of another kind than the default has a folder of its own.

    Args:
        parser: `argparse.ArgumentParser` with the options of `add_arguments`, and perhaps
            `--preset`, `--no-pretraining` and `--validation`.
        default_folder: As for `add_arguments`.

    Returns:
        The options.
    """
    args = parser.parse_args()
    if args.run_dir == Path(default_folder):
        preset = getattr(args, "preset", "default")
        kind = f"-{preset}" * (preset != "default")
        for flag in ("no_pretraining", "validation"):
            kind += f"-{flag.replace('_', '-')}" * getattr(args, flag, False)
        args.run_dir = Path(default_folder + kind + f"-seed{args.seed}" * (args.seed != 0))
    return args


def falling(rate, epochs, cases, batch_size):
    """Returns a learning rate that falls linearly to zero, over so many epochs of so many cases."""
    updates = epochs * -(-cases // batch_size)
    return keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.0)


def start(folder, options):
    """Makes a run folder. Exits with code 2, and nothing touched, where that would lose anything.

    A folder in which a run was started and not finished is gone on with if it was started with the
    same options. With `--restart` it is emptied: all that it holds is that run's, since only a new
    or an empty folder is taken.

    Args:
        folder: Path of the run folder.
        options: What `parse_args` returned.

    Returns:
        The `Path`.
    """
    folder = Path(folder)
    wanted = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
    }
    restart = wanted.pop("restart")
    wanted.pop("run_dir")
    started = {"options": json.loads(_json(wanted)), "tries": 1}
    unfinished = folder / _UNFINISHED
    try:
        if (folder / _METRICS).exists():
            refuse(f"{folder} holds a finished run: name another --run-dir, or remove it.")
        if not unfinished.exists() and folder.is_dir() and _others(folder):
            refuse(f"{folder} holds files that are no run's: name another --run-dir.")
        folder.mkdir(parents=True, exist_ok=True)
        _lock(folder)
        if unfinished.exists() and restart:
            print(f"{folder} holds an unfinished run: starting it over.", flush=True)
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != _UNFINISHED:
                    path.unlink()
        elif unfinished.exists():
            before = _read(unfinished)
            if before["options"] != started["options"]:
                refuse(
                    f"{folder} holds an unfinished run with the options {before['options']}, not "
                    f"{started['options']}: give those, --restart or another --run-dir."
                )
            started["tries"] += before["tries"]
            print(f"{folder} holds an unfinished run: going on with it.", flush=True)
        _write_whole(unfinished, _json(started))
    except OSError as error:
        refuse(f"{folder} cannot be a run folder ({error.strerror}): name another --run-dir.")
    return folder


def load_data(args):
    """Loads the data set that the options name; says in one line which one if they name none.

    Args:
        args: Options with `data_set`, which is set to the name of the one taken, and `run_dir`, in
            which `{data_set}` is replaced: the default folder of a run on digits must not be called
            MNIST.

    Returns:
        `dbn.data.DataSet` and `dbn.data.Info`. Exits with code 2 if the set cannot be had.
    """
    name = args.data_set
    try:
        if name is None:
            name, reason = dbn.data.default_name()
            print(reason, flush=True)
        args.data_set, args.run_dir = name, Path(str(args.run_dir).replace("{data_set}", name))
        return dbn.data.load(name), dbn.data.info(name)
    except (OSError, ValueError) as error:
        refuse(error)


def divided(data, validation):
    """Divides a data set to choose a preset, or to measure what was chosen.

    Args:
        data: A `dbn.data.DataSet`.
        validation: Whether the training images alone are learnt from, and the validation images
            measured on; else all that are not the test set's, and the test set.

    Returns:
        The `dbn.data.Split` to learn from, that to measure on, and what the latter is called.
    """
    if validation:
        return data.train, data.valid, "validation"
    both = zip(data.train, data.valid, strict=True)
    return dbn.data.Split(*(np.concatenate(arrays) for arrays in both)), data.test, "test"


def remembered(folder, name, compute):
    """Returns what a function computes, or what it did in an earlier try of an unfinished run.

    Args:
        folder: The run folder.
        name: Name of the figure, one for each thing computed in the run.
        compute: Function without arguments, of a number or a list of numbers.

    Returns:
        Its value, as JSON keeps it.
    """
    path = folder / CHECKPOINTS / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    path.parent.mkdir(exist_ok=True)
    _write_whole(path, _json(compute()))
    return remembered(folder, name, compute)


class Metrics(dict):
    """The figures of a run by name. What is told is kept, and told from what is kept."""

    def tell(self, text, /, **figures):
        """Prints a line, and keeps its figures.

        Args:
            text: Format string with the names of the figures.
            **figures: Each one's value, under its name.

        Example:
            >>> metrics = Metrics()
            >>> metrics.tell("Test error {test_error:.2%}", test_error=0.0134)
            Test error 1.34%
        """
        self.update(figures)
        print(text.format(**figures), flush=True)

    def tell_next(self, text, /, **figures):
        """Does the same where there is a figure an epoch: adds it to a list under its name."""
        for name, value in figures.items():
            self.setdefault(name, []).append(value)
        print(text.format(**figures), flush=True)


def finish(folder, metrics):
    """Writes `metrics.json`, which is what makes a run finished; checkpoints are removed.

    Args:
        folder: The run folder.
        metrics: `Metrics`, nested if need be. The recipe's name, total time, peak memory and facts
            of the machine are added, and the number of tries where there were several: times are
            those of the last.

    Raises:
        ValueError: If a figure is not finite.
    """
    metrics["recipe"] = Path(sys.argv[0]).stem
    metrics["machine"] = machine()
    tries = _read(folder / _UNFINISHED)["tries"]
    if tries > 1:
        metrics.tell("Finished in try {tries}, which alone the times are of", tries=tries)
    metrics.tell(
        "{total_seconds:.0f} s in all, {peak_memory_gib:.2f} GiB of memory at most",
        total_seconds=time.perf_counter() - _STARTED,
        peak_memory_gib=peak_memory(),
    )
    for name, value in metrics.items():
        try:
            _json(value)
        except ValueError as error:
            raise ValueError(f"{name!r} must be finite to be kept; got {value}.") from error
    _write_whole(folder / _METRICS, _json(metrics))
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / _UNFINISHED).unlink(missing_ok=True)
    print(f"Everything is in {folder}", flush=True)


def machine():
    """Returns what the figures were measured on: versions, cores and GPUs."""
    # A container's share, where the system can tell.
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "dbn": dbn.__version__,
        "cpus": len(cpus),
        "gpus": [gpu.get("device_name", "unknown") for gpu in details],
    }


def peak_memory():
    """Returns the most memory that this process has held so far, in GiB."""
    try:
        # Linux' getrusage also counts what the process that started this one held.
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(peak[1]) / 2**20
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)


def refuse(reason):
    """Says on standard error why a run cannot be, and exits with code 2."""
    print(f"{Path(sys.argv[0]).name}: {reason}", file=sys.stderr)
    sys.exit(2)


def _others(folder):
    """Returns the files in a folder, but for what a kill leaves of one that is being written."""
    return [path for path in folder.iterdir() if path != _part(folder / _UNFINISHED)]


def _lock(folder):
    """Exits if another process is at work in a folder; otherwise none can be while this one is."""
    path = folder.resolve()
    if path in _LOCKS:
        return
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        refuse(f"{folder} is being written by another process: wait, or name another --run-dir.")
    except OSError:  # Some network file systems have no locks.
        pass
    _LOCKS[path] = file


def _read(unfinished):
    """Returns what `start` wrote of a run, as far as it can be read."""
    try:
        return {"options": None, "tries": 1, **json.loads(unfinished.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        return {"options": None, "tries": 1}


def _part(path):
    """Returns where a file is written, before it is whole and has its name."""
    return path.with_name(f".{path.name}")


def _write_whole(path, text):
    part = _part(path)
    with part.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _seed(text):
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**32 - 1; got {text!r}")
    return int(text)


def _json(value):
    # tolist: NumPy's numbers and arrays.
    plain = operator.methodcaller("tolist")
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=plain)
