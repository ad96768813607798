"""Mean and spread of a figure over finished runs of one recipe that differ in their seeds.

    python recipes/spread.py test_error runs/best_mnist runs/best_mnist-seed*
    python recipes/spread.py squared_error runs/autoencoder_mnist* --picture spread.png

Runs of different recipes, presets or data, or with `--validation` beside others, are refused.
Runs with pretraining and without are two groups, and their difference is told, too, with its
standard error; of a single run the spread is `nan`. Nothing is written but the picture.
"""

import json
import math
import statistics
from pathlib import Path

import runs

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ARMS = {True: "pretrained", False: "from random weights"}
# What all runs must agree in.
_SAME = ("recipe", "data_set", "preset", "layers", "images", "held_out")


def parse_arguments():
    """Returns the options."""
    parser = runs.make_parser(__doc__)
    parser.add_argument("figure", help="its name in the runs' metrics.json")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a finished run")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a PNG of all values")
    return parser.parse_args()


def read(figure, folders):
    """Reads a figure of several runs.

    Args:
        figure: Its name.
        folders: Paths of the run folders.

    Returns:
        A dict from whether there was pretraining to a dict from seed to value. Exits with code 2 if
        a folder holds no such run, or runs cannot be compared.
    """
    found, first = {}, None
    for folder in folders:
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            arm, seed, value = metrics["pretraining"], metrics["seed"], metrics[figure]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{figure} is no number")
        except (OSError, ValueError, KeyError, TypeError) as error:
            runs.refuse(f"{folder} is no finished run with a figure {figure!r} ({error}).")
        kind = {name: metrics.get(name) for name in _SAME}
        first = first or (folder, kind)
        for name, expected in first[1].items():
            if kind[name] != expected:
                runs.refuse(
                    f"{folder} cannot be compared with {first[0]}: its {name} is {kind[name]}, not "
                    f"{expected}."
                )
        if seed in found.setdefault(arm, {}):
            runs.refuse(f"{folder} is a second run with seed {seed}.")
        found[arm][seed] = value
    return found


def spread(values):
    """Returns the mean of values, and their standard deviation (n - 1), NaN of a single one."""
    values = list(values)
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def difference(one, other):
    """Returns by how much two groups of values differ in their means, and its standard error."""
    (mean, deviation), (other_mean, other_deviation) = spread(one), spread(other)
    return mean - other_mean, math.hypot(
        deviation / math.sqrt(len(one)), other_deviation / math.sqrt(len(other))
    )


def plot(figure, found, path):
    """Draws each run as a dot, a column a group, and the groups' means as bars."""
    picture, axis = pyplot.subplots(figsize=(4, 4), layout="constrained")
    arms = sorted(found, reverse=True)
    for place, arm in enumerate(arms):
        values = list(found[arm].values())
        axis.plot([place] * len(values), values, "o", color=f"C{place}")
        axis.hlines(spread(values)[0], place - 0.2, place + 0.2, color=f"C{place}")
    axis.set(xticks=range(len(arms)), xlim=(-0.5, len(arms) - 0.5), ylabel=figure)
    axis.set_xticklabels([ARMS[arm] for arm in arms])
    picture.savefig(path, dpi=120)
    pyplot.close(picture)


def main():
    """Runs the recipe."""
    args = parse_arguments()
    found = read(args.figure, args.folders)
    for arm in sorted(found, reverse=True):
        mean, deviation = spread(found[arm].values())
        each = ", ".join(f"{value:.6g} (seed {seed})" for seed, value in sorted(found[arm].items()))
        print(
            f"{ARMS[arm]}: {args.figure} {mean:.6g}, standard deviation {deviation:.2g} over "
            f"{len(found[arm])} run{'s' * (len(found[arm]) > 1)}: {each}"
        )
    if len(found) == 2:
        gain, error = difference(list(found[True].values()), list(found[False].values()))
        print(f"pretrained minus random: {gain:.6g}, standard error {error:.2g}")
    if args.picture:
        plot(args.figure, found, args.picture)


if __name__ == "__main__":
    main()
