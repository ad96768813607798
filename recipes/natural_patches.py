"""What an RBM finds in photographs: Gabor-like filters, as the Deep Learning Tutorials say.

    python recipes/natural_patches.py                # scikit-learn's two photographs; minutes

Patches of 14x14 pixels, drawn at random from the grey levels, each with its mean taken away and
divided by its standard deviation, then whitened (ZCA, by scikit-learn's PCA). The RBM has Gaussian
visible units of variance 1 and Bernoulli hidden ones, and is trained by CD-1 with a sparsity target.

How many filters are Gabor-like is counted by two figures of each, neither of them fitted:

    localised   a window of a quarter of the patch's area holds at least 70 % of the squared weights
                (noise over the whole patch: about 30 %)
    oriented    at least 60 % of the power spectrum lies within 22.5 degrees of one axis (noise: 25 %)

Writes, under runs/natural_patches: rbm.keras, filters.png, patches.png (whitened patches above
their reconstructions) and metrics.json.
"""

import argparse
from dataclasses import dataclass

import runs

import keras
import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA

import dbn

SIZE = 14
LOCALISED, ORIENTED = 0.7, 0.6


@dataclass(frozen=True)
class Preset:
    """How the RBM is trained."""

    patches: int
    epochs: int
    hidden: int = 256
    batch_size: int = 100
    learning_rate: float = 0.02
    target: float = 0.02
    cost: float = 3.0


PRESETS = {
    "default": Preset(patches=100_000, epochs=20),
    "smoke": Preset(patches=1000, epochs=1, hidden=20),
}


def draw_patches(count):
    """Returns patches of the photographs, `(count, SIZE * SIZE)`, of mean 0 and variance 1 each."""
    photographs = np.stack(load_sample_images().images).mean(axis=3) / 255
    random = np.random.default_rng(0)
    height, width = np.array(photographs.shape[1:]) - SIZE + 1
    windows = np.lib.stride_tricks.sliding_window_view(photographs, (SIZE, SIZE), axis=(1, 2))
    at = random.integers(0, [len(photographs), height, width], (count, 3)).T
    x = windows[tuple(at)].reshape(count, -1)
    x -= x.mean(axis=1, keepdims=True)
    # A patch of one colour, almost, stays small.
    return x / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)


def whiten(x):
    """Returns patches without correlation of pixels: directions of little variance are left out."""
    pca = PCA(n_components=0.99, whiten=True).fit(x)
    white = pca.transform(x) @ pca.components_
    return (white / white.std()).astype("float32")


def localised(filters):
    """Returns, for each filter, the share of its squared weights in the best window."""
    squares = np.square(filters)
    window = SIZE // 2
    # Means over the windows around every pixel that lie within the patch.
    inside = slice(window // 2, window // 2 + SIZE - window + 1)
    means = uniform_filter(squares, (1, window, window))[:, inside, inside]
    return means.max((1, 2)) * window**2 / squares.sum((1, 2))


def oriented(filters):
    """Returns, for each filter, the share of its power spectrum around the best axis."""
    padded = 4 * SIZE
    power = np.abs(np.fft.fft2(filters, (padded, padded))) ** 2
    frequency = np.fft.fftfreq(padded)
    y, x = np.meshgrid(frequency, frequency, indexing="ij")
    power[:, np.hypot(x, y) > 0.5] = 0  # Only there are all angles equally many.
    power[:, 0, 0] = 0
    angle = np.degrees(np.arctan2(y, x))
    shares = []
    for axis in range(0, 180, 5):
        away = np.abs((angle - axis + 90) % 180 - 90)
        shares.append(power[:, away <= 22.5].sum(1))
    return np.max(shares, axis=0) / power.sum((1, 2))


def main():
    """Runs the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="default", help="how long to train")
    runs.add_run_arguments(parser, "runs/natural_patches")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    folder = runs.start(args.run_dir)
    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(preset=args.preset, seed=args.seed, hidden=preset.hidden)
    x = whiten(draw_patches(preset.patches))
    rbm = dbn.RBM(
        dbn.RBMLayer(
            preset.hidden,
            visible="gaussian",
            kernel_initializer=keras.initializers.RandomNormal(0, 0.05),
        ),
        sparsity=dbn.penalties.Sparsity(preset.target, preset.cost),
    )
    updates = preset.epochs * -(-len(x) // preset.batch_size)
    rate = keras.optimizers.schedules.PolynomialDecay(preset.learning_rate, updates, 0.0)
    rbm.compile(keras.optimizers.SGD(rate, momentum=0.9))
    watch = dbn.callbacks.Diagnostics(x[:1000])
    history = rbm.fit(
        x, batch_size=preset.batch_size, epochs=preset.epochs, callbacks=[watch], verbose=2
    ).history
    rbm.save(folder / "rbm.keras")
    filters = rbm.layer.W.numpy().T.reshape(-1, SIZE, SIZE)
    local, orient = localised(filters), oriented(filters)
    both = (local >= LOCALISED) & (orient >= ORIENTED)
    metrics.tell(
        "Of {hidden} filters {gabor_share:.0%} are localised and oriented; median share in the "
        "window {localised:.2f}, around the axis {oriented:.2f}; mean activity {activity:.3f}",
        hidden=preset.hidden,
        gabor_share=float(both.mean()),
        localised=float(np.median(local)),
        oriented=float(np.median(orient)),
        activity=float(rbm.layer(x[:5000]).numpy().mean()),
    )
    metrics["reconstruction"] = history["reconstruction_cross_entropy"]
    pictures = dbn.images.filters(rbm.layer.W.numpy(), (SIZE, SIZE))
    dbn.images.save(folder / "filters.png", pictures)
    _, hidden = rbm.layer.propup(x[:20])
    _, back = rbm.layer.propdown(hidden)
    rows = [
        dbn.images.chains(np.clip(part / 6 + 0.5, 0, 1)[None], (SIZE, SIZE))
        for part in (x[:20], back.numpy())
    ]
    dbn.images.save(folder / "patches.png", np.concatenate(rows))
    runs.finish(folder, metrics)


if __name__ == "__main__":
    main()
