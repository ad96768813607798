"""Does training on real-valued data stay finite? 100 epochs, ten seeds.

    python benchmarks/stability.py --faces frey_faces.npz      # some minutes on 2 cores

Trains `RBM(RBMLayer(hidden, visible=...))` with everything left at its default (CD-1, SGD with
learning rate 0.01, batches of 32; noisy rectified hidden units at 0.001) on standardised faces
(those of `recipes/faces.py`) and whitened patches (those of `recipes/natural_patches.py`). A run is
finite if `fit` came to its end, which it does not where a weight is NaN, infinite, or a learnt
variance has collapsed, and if no weight left [-100, 100].
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import faces
import keras
import natural_patches
import numpy as np
from sklearn.preprocessing import StandardScaler

import dbn

# Names of the visible and the hidden units, and the learning rate.
KINDS = (
    ("gaussian", "bernoulli", 0.01),
    ("scaled_gaussian", "bernoulli", 0.01),
    ("gaussian", "relu", 0.001),
    ("gaussian", "relu", 0.01),
)


def is_finite(x, kind, hidden, epochs, seed):
    """Trains one RBM; returns whether it stayed finite, and its largest weight."""
    keras.utils.set_random_seed(seed)
    *sides, rate = kind
    rbm = dbn.RBM(dbn.RBMLayer(hidden, *sides))
    rbm.compile(keras.optimizers.SGD(rate))
    try:
        rbm.fit(x, epochs=epochs, verbose=0)
    except FloatingPointError:
        return False, np.inf
    largest = max(float(np.max(np.abs(weight))) for weight in rbm.layer.trainable_variables)
    return largest < 100, largest


def main():
    """Trains and prints what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, help="as for recipes/faces.py")
    parser.add_argument("--patches", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--hidden", type=int, default=200, help="units (%(default)s)")
    parser.add_argument("--epochs", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="(%(default)s)")
    arguments = parser.parse_args()
    if min(arguments.patches, arguments.hidden, arguments.epochs, arguments.seeds) < 1:
        parser.error("all numbers must be at least 1")
    grey = faces.split(faces.load(arguments.faces))[0]
    data = {
        "faces": StandardScaler().fit_transform(grey).astype("float32"),
        "patches": natural_patches.whiten(natural_patches.draw_patches(arguments.patches)),
    }
    for name, x in data.items():
        for kind in KINDS:
            runs = [
                is_finite(x, kind, arguments.hidden, arguments.epochs, seed)
                for seed in range(arguments.seeds)
            ]
            good, largest = zip(*runs, strict=True)
            print(
                f"{name}, {x.shape[1]}-{arguments.hidden}, {'-'.join(kind[:2])}, rate {kind[2]}: "
                f"finite {sum(good)} of {len(good)}, largest weight {max(largest):.3g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
