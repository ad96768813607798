"""What an RBM finds in photographs: Gabor-like filters, as the Deep Learning Tutorials say.

    python recipes/natural_patches.py                # on scikit-learn's two photographs

Patches of 14x14 pixels, drawn at random from the grey levels, those of almost one colour left out,
each with its mean taken away and divided by its standard deviation; then whitened (ZCA, by
scikit-learn's PCA, directions with the last 5 % of the variance left out). The RBM has Gaussian
visible units of variance 1, 256 Bernoulli hidden ones, and is trained by CD-1 with a sparsity
target.

A filter counts as Gabor-like if it is both

    localised   a window of a quarter of the patch's area holds at least 70 % of the squared weights
                (white noise: 33 %, rarely over 39 %; a Gabor filter of deviation 2: 96 %)
    oriented    at least 60 % of the power spectrum lies within 22.5 degrees of one axis
                (white noise: 32 %, rarely over 37 %; a single pixel: 25 %)

Expected: 85 % of the filters, and none before training; 71 s of CPU time on 2 cores.

Writes, under runs/natural_patches: rbm.keras, filters.png, patches.png (whitened patches above
their reconstructions) and metrics.json.
"""

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
PLAIN = 0.03  # Standard deviation below which a patch is of almost one colour; white is 1.


@dataclass(frozen=True)
class Preset:
    """How the RBM is trained."""

    epochs: int
    patches: int = 100_000
    hidden: int = 256
    batch_size: int = 100
    learning_rate: float = 0.02
    target: float = 0.02
    cost: float = 3.0


PRESETS = {
    "default": Preset(epochs=40),
    "smoke": Preset(epochs=1, patches=1000, hidden=20),
}


def draw_patches(count):
    """Returns patches of the photographs, `(count, SIZE * SIZE)`, of mean 0 and variance 1 each."""
    photographs = np.stack(load_sample_images().images).mean(axis=3, dtype="float32") / 255
    windows = np.lib.stride_tricks.sliding_window_view(photographs, (SIZE, SIZE), axis=(1, 2))
    # More than half are plain.
    at = np.random.default_rng(0).integers(0, windows.shape[:3], (3 * count, 3)).T
    x = windows[tuple(at)].reshape(-1, SIZE * SIZE)
    x = x[x.std(axis=1) > PLAIN][:count]
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


def whiten(x):
    """Returns patches whose pixels do not correlate, without the directions of least variance."""
    pca = PCA(n_components=0.95, whiten=True).fit(x)
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


def gabor_like(rbm):
    """Returns of each filter whether it is localised and oriented, and its two shares."""
    filters = rbm.layer.W.numpy().T.reshape(-1, SIZE, SIZE)
    local, orient = localised(filters), oriented(filters)
    return (local >= LOCALISED) & (orient >= ORIENTED), local, orient


def train(x, preset, folder, metrics):
    """Returns the trained RBM; tells how many filters were Gabor-like before and are after."""
    rbm = dbn.RBM(
        dbn.RBMLayer(
            preset.hidden,
            visible="gaussian",
            kernel_initializer=keras.initializers.RandomNormal(0, 0.05),
        ),
        sparsity=dbn.penalties.Sparsity(preset.target, preset.cost),
    )
    rbm.build((None, x.shape[1]))
    metrics["gabor_share_before"] = float(gabor_like(rbm)[0].mean())
    rate = runs.falling(preset.learning_rate, preset.epochs, len(x), preset.batch_size)
    rbm.compile(keras.optimizers.SGD(rate, momentum=0.9))
    history = rbm.fit(
        x,
        batch_size=preset.batch_size,
        epochs=preset.epochs,
        verbose=2,
        checkpoint=folder / runs.CHECKPOINTS / "rbm.checkpoint",
    ).history
    metrics["reconstruction_cross_entropy"] = history["reconstruction_cross_entropy"]
    both, local, orient = gabor_like(rbm)
    metrics.tell(
        "Of {hidden} filters {gabor_share:.0%} are localised and oriented ({localised_share:.0%} "
        "and {oriented_share:.0%}); median share in the window {localised:.2f}, around the axis "
        "{oriented:.2f}; mean activity {activity:.3f}",
        hidden=preset.hidden,
        gabor_share=float(both.mean()),
        localised_share=float(np.mean(local >= LOCALISED)),
        oriented_share=float(np.mean(orient >= ORIENTED)),
        localised=float(np.median(local)),
        oriented=float(np.median(orient)),
        activity=float(np.mean(rbm.layer(x[:5000]))),
    )
    return rbm


def draw(rbm, x, folder):
    """Draws all filters, and patches above their reconstructions."""
    pictures = dbn.images.filters(rbm.layer.W.numpy(), (SIZE, SIZE))
    dbn.images.save(folder / "filters.png", pictures)
    _, hidden = rbm.layer.propup(x)
    _, back = rbm.layer.propdown(hidden)
    # Three standard deviations either side of middle grey.
    grey = (np.clip(part / 6 + 0.5, 0, 1) for part in (x, back.numpy()))
    dbn.images.save(folder / "patches.png", dbn.images.reconstructions(*grey, (SIZE, SIZE)))


def main():
    """Runs the recipe."""
    parser = runs.make_parser(__doc__, PRESETS)
    runs.add_run_arguments(parser, "runs/natural_patches")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    folder = runs.start(args.run_dir, args)
    keras.utils.set_random_seed(args.seed)
    x = whiten(draw_patches(preset.patches))
    metrics = runs.Metrics(preset=args.preset, seed=args.seed, patches=len(x))
    rbm = train(x, preset, folder, metrics)
    rbm.save(folder / "rbm.keras")
    draw(rbm, x[:40], folder)
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
