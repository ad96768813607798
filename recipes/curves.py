"""The course of a training, as recipes draw it."""

import runs  # noqa: F401  # Says what to type where the others are missing.

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot


def draw(curves, path):
    """Draws figures over the epochs, each in a panel of its own.

    Args:
        curves: Dict from what a figure is called, with its unit, to its values, one an epoch.
        path: Path of the picture.
    """
    figure, axes = pyplot.subplots(
        1, len(curves), figsize=(5 * len(curves), 3.6), squeeze=False, layout="constrained"
    )
    for axis, (label, values) in zip(axes[0], curves.items(), strict=True):
        axis.plot(np.arange(1, len(values) + 1), values)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
