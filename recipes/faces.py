"""Grey-level faces: real-valued units, and how good a density they are beside Gaussians.

    python recipes/faces.py                          # Olivetti faces, fetched by scikit-learn
    python recipes/faces.py --faces frey_faces.npz   # `images`, (cases, height, width), 8 bits

The latter is any file that `np.savez("frey_faces.npz", images=...)` writes; the measured one has
the 1,965 Frey faces, uint8, (1965, 28, 20).

Grey levels are dequantised (a uniform number added to each, so that a density of them means
something), split at random (80, 10 and 10 %) and standardised pixel by pixel with scikit-learn.
The RBM has Gaussian visible units, each with a variance of its own that is learnt and never falls
below a floor, and is trained by PCD with the centered gradient.

Measured on the test faces, in nats per face of the standardised, dequantised grey levels: the RBM
by annealed importance sampling (AIS, too high on average) and by RAISE (too low); and, fitted to
the same faces by scikit-learn, a Gaussian with diagonal covariance, one with full covariance and
shrinkage (Ledoit & Wolf 2004), and a mixture of 50 diagonal Gaussians.

Writes, under runs/faces: rbm.keras, samples.png (Gibbs chains from noise, a row every 200 steps),
reconstructions.png (test faces above their reconstructions), filters.png, variance.png (bright
where the learnt variance of a pixel is large) and metrics.json.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import runs

import keras
import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

import dbn


@dataclass(frozen=True)
class Preset:
    """How the RBM is trained and measured."""

    epochs: int
    hidden: int = 500
    k: int = 5
    chains: int = 100
    batch_size: int = 50
    learning_rate: float = 1e-3
    floor: float = 0.05
    temperatures: int = 20000
    annealed: int = 300  # Chains of AIS.
    components: int = 50


PRESETS = {
    "default": Preset(epochs=400),
    "smoke": Preset(epochs=3, hidden=20, chains=20, temperatures=200, annealed=50, components=3),
}


def load(path, fewest):
    """Returns faces as integers from 0 to 255, `(cases, height, width)`; `fewest` at least."""
    if path is None:
        from sklearn.datasets import fetch_olivetti_faces

        try:
            images = fetch_olivetti_faces().images
        except OSError as error:
            runs.refuse(f"the Olivetti faces cannot be fetched ({error}): give --faces FILE.")
        # Averages of 2x2 pixels: 32x32.
        return np.rint(255 * images.reshape(-1, 32, 2, 32, 2).mean((2, 4)))
    try:
        with path.open("rb") as file:  # NumPy leaves one open that is damaged.
            images = np.load(file, allow_pickle=False)["images"]
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        runs.refuse(f"{path} is no .npz file with an array `images` ({error}).")
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape or len(images) < fewest:
        runs.refuse(
            f"`images` in {path} must be 8-bit, (cases, height, width), at least {fewest}; got "
            f"{images.dtype} of shape {images.shape}."
        )
    return images


def split(images):
    """Returns dequantised grey levels in (0, 1): training, validation and test faces."""
    random = np.random.default_rng(0)
    x = (images.reshape(len(images), -1) + random.uniform(size=(len(images), images[0].size))) / 256
    part = len(x) // 10
    order = random.permutation(len(x))
    return x[order[2 * part :]], x[order[part : 2 * part]], x[order[:part]]


def train(x, valid, preset, folder, metrics):
    """Returns the trained RBM."""
    units = dbn.layers.ScaledGaussian(floor=preset.floor)
    small = keras.initializers.RandomNormal(0, 0.01)
    rbm = dbn.RBM(
        dbn.RBMLayer(preset.hidden, visible=units, kernel_initializer=small),
        k=preset.k,
        persistent=True,
        chains=preset.chains,
        gradient=dbn.gradients.Centered(),
    )
    rate = runs.falling(preset.learning_rate, preset.epochs, len(x), preset.batch_size)
    rbm.compile(
        keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99), metrics=["free_energy_gap"]
    )
    rbm.build((None, x.shape[1]))
    rbm.layer.set_vbias_from_data(x)
    history = rbm.fit(
        x,
        batch_size=preset.batch_size,
        epochs=preset.epochs,
        validation_data=valid,
        verbose=0,
        checkpoint=folder / runs.CHECKPOINTS / "rbm.checkpoint",
    ).history
    variance = rbm.layer.visible.variance.numpy()
    metrics.tell(
        "Trained: free-energy gap {free_energy_gap:.1f} nats, variances {least_variance:.3f} to "
        "{largest_variance:.3f}, mean {mean_variance:.3f}",
        free_energy_gap=history["free_energy_gap"][-1],
        least_variance=float(variance.min()),
        largest_variance=float(variance.max()),
        mean_variance=float(variance.mean()),
    )
    return rbm


def measure(rbm, x, test, preset, metrics):
    """Measures the RBM, and scikit-learn's densities, on the test faces."""
    base_rates = np.mean(x, axis=0)
    how = {"temperatures": preset.temperatures, "schedule": "sigmoid"}
    log_partition = dbn.likelihood.annealed_importance_sampling(
        rbm, base_rates, chains=preset.annealed, **how
    )
    found = dbn.likelihood.log_likelihood(rbm, test, log_partition)
    raised = dbn.likelihood.raise_log_likelihood(rbm, test, base_rates, **how)
    metrics.tell(
        "RBM: {rbm:.1f} nats per face by AIS ({low:.1f} to {high:.1f}; standard error over faces "
        "{standard_error:.1f}; effective sample size {effective_sample_size:.0f}), {by_raise:.1f} "
        "by RAISE",
        rbm=found.mean,
        low=found.low,
        high=found.high,
        standard_error=found.standard_error,
        effective_sample_size=log_partition.effective_sample_size,
        by_raise=float(np.mean(raised)),
    )
    diagonal = GaussianMixture(1, covariance_type="diag").fit(x)
    full = LedoitWolf().fit(x)
    mixture = GaussianMixture(preset.components, covariance_type="diag", random_state=0).fit(x)
    metrics.tell(
        "Gaussians: diagonal {diagonal:.1f}, full with shrinkage {full:.1f}, mixture of "
        "{components} diagonal ones {mixture:.1f}",
        diagonal=diagonal.score(test),
        full=full.score(test),
        mixture=mixture.score(test),
        components=preset.components,
    )


def draw(rbm, test, scaler, img_shape, folder):
    """Draws samples, reconstructions, filters and the learnt variances."""

    def grey(v):
        return np.clip(scaler.inverse_transform(np.asarray(v)), 0, 1)

    rows, samples = [], "noise"
    for _ in range(5):
        samples = rbm.sample(chains=20, steps=200, start=samples)
        rows.append(grey(samples.mean))
    dbn.images.save(folder / "samples.png", dbn.images.chains(rows, img_shape))
    _, hidden = rbm.layer.propup(test[:20])
    _, back = rbm.layer.propdown(hidden)
    pictures = dbn.images.reconstructions(grey(test[:20]), grey(back), img_shape)
    dbn.images.save(folder / "reconstructions.png", pictures)
    W = rbm.layer.W.numpy()[:, :100]
    dbn.images.save(folder / "filters.png", dbn.images.filters(W, img_shape))
    variance = rbm.layer.visible.variance.numpy()
    picture = np.kron(variance.reshape(img_shape) / variance.max(), np.ones((8, 8)))
    dbn.images.save(folder / "variance.png", np.uint8(255 * picture))


def main():
    """Runs the recipe."""
    parser = runs.make_parser(__doc__, PRESETS)
    parser.add_argument("--faces", type=Path, metavar="FILE", help="a .npz file of other faces")
    runs.add_run_arguments(parser, "runs/faces")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    # A mixture needs as many cases to learn from as it has components: eight in ten.
    images = load(args.faces, fewest=max(20, -(-preset.components * 10 // 8)))
    folder = runs.start(args.run_dir, args)
    keras.utils.set_random_seed(args.seed)
    grey = split(images)
    scaler = StandardScaler().fit(grey[0])
    x, valid, test = (scaler.transform(part).astype("float32") for part in grey)
    metrics = runs.Metrics(
        preset=args.preset,
        seed=args.seed,
        cases=[len(x), len(valid), len(test)],
        pixels=x.shape[1],
        hidden=preset.hidden,
    )
    rbm = train(x, valid, preset, folder, metrics)
    rbm.save(folder / "rbm.keras")
    draw(rbm, test, scaler, images.shape[1:], folder)
    measure(rbm, x, test, preset, metrics)
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
