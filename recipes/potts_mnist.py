"""Categorical data: MNIST in 4 grey levels, an RBM of 784 Potts groups beside a mixture model.

    python recipes/potts_mnist.py
    python recipes/potts_mnist.py --data-set digits    # 64 groups

Each pixel is a group of 4 units, one-hot: its level is floor(4 * grey), at most 3. The RBM is
trained by PCD-2 with the centered gradient, a learning rate that falls linearly to zero, and the
moving average of the weights, which is what is measured. The mixture of 50 categorical
distributions is fitted by EM, its Laplace smoothing and its last iteration chosen on the validation
images. Both learn from the same 50,000 training images and are measured on the same test images.

The RBM's log-likelihood is measured from two sides: annealed importance sampling (AIS) tends to
flatter a model, RAISE to be too hard on it. That of the mixture is exact. Expected, in nats per
image:

    10,000 test images      RBM -156.1 by AIS (effective sample size 88 of 500), mixture -244.0
    the first 300 of them   RBM -160.1 by AIS, -162.6 by RAISE

About 530 s of CPU time on 2 cores, 2.3 GiB. With twice the learning rate and 40 epochs AIS reports
more, and its effective sample size falls to 1: believe it no longer.

Writes, under runs/potts_mnist: rbm.keras, mixture.npz, samples.png (20 chains from test images on,
a row every 100 steps; expected levels), filters.png (100 hidden units, weights summed over levels,
each times its level) and metrics.json.
"""

import time
from dataclasses import dataclass

import runs

import keras
import numpy as np
import tensorflow as tf

import both_sides
import dbn

RUN_DIR = "runs/potts_{data_set}"
LEVELS = 4


@dataclass(frozen=True)
class Preset:
    """How the two models are trained and measured."""

    epochs: int
    hidden: int = 300
    chains: int = 128
    k: int = 2
    batch_size: int = 128
    learning_rate: float = 0.1
    average: float = 0.999
    temperatures: int = 6000
    annealed: int = 500  # Chains of AIS.
    raised: int = 300  # Test images for RAISE, and for AIS beside it.
    components: int = 50
    smoothings: tuple = (0.01, 0.03, 0.1, 0.3)
    images: int | None = None

    def rbm(self, x):
        """Returns the RBM for these images, compiled."""
        rbm = dbn.RBM(
            dbn.RBMLayer(self.hidden, visible=dbn.layers.Categorical(LEVELS)),
            k=self.k,
            persistent=True,
            chains=self.chains,
            gradient=dbn.gradients.Centered(),
        )
        rbm.build((None, x.shape[1]))
        rbm.layer.set_vbias_from_data(x)
        rate = runs.falling(self.learning_rate, self.epochs, len(x), self.batch_size)
        optimizer = keras.optimizers.SGD(rate, use_ema=True, ema_momentum=self.average)
        rbm.compile(optimizer, metrics=["free_energy_gap"])
        return rbm


PRESETS = {
    "default": Preset(epochs=15),
    "smoke": Preset(
        epochs=2,
        hidden=10,
        chains=20,
        batch_size=20,
        temperatures=500,
        annealed=100,
        raised=20,
        components=5,
        images=500,
    ),
}


def one_hot(grey):
    """Returns grey levels in [0, 1] as groups of `LEVELS` units, a tensor `(images, units)`."""
    codes = np.minimum(np.floor(LEVELS * grey), LEVELS - 1).astype(np.uint8)
    return tf.convert_to_tensor(dbn.layers.Categorical(LEVELS).one_hot(codes))


class Mixture:
    """A mixture of categorical distributions: its parameters, and what EM needs of them.

    Args:
        weights: Probabilities of the components, `(components,)`.
        p: Probabilities of the units in each component, `(components, units)`.
    """

    def __init__(self, weights, p):
        self.weights, self.p = weights, p

    def log_joint(self, x):
        """Returns log p(component, x) of one-hot images, float64 `(images, components)`."""
        inner = tf.matmul(x, np.log(self.p).T.astype("float32")).numpy()
        return inner.astype("float64") + np.log(self.weights)

    def log_likelihood(self, x):
        """Returns log p(x) of one-hot images, in nats, float64 `(images,)`."""
        return np.logaddexp.reduce(self.log_joint(x), axis=1)

    def improved(self, x, smoothing):
        """Returns the mixture after an iteration of EM, `smoothing` added to each count."""
        log_joint = self.log_joint(x)
        posterior = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))
        images = posterior.sum(0)
        counts = tf.matmul(posterior.astype("float32"), x, transpose_a=True).numpy()
        p = (counts + smoothing) / (images + LEVELS * smoothing)[:, None]
        return Mixture((images + smoothing) / (images + smoothing).sum(), p)


def fit_mixture(x, valid, components, smoothing):
    """Returns the mixture with which EM has the best validation images, and how good they are."""
    drawn = tf.gather(x, np.random.default_rng(0).choice(len(x), components, replace=False))
    # Halfway between an image each and the mean of all.
    p = (drawn + np.mean(x, axis=0) + 0.01) / (2 + 0.01 * LEVELS)
    now, best = Mixture(np.full(components, 1 / components), p.numpy()), (-np.inf, None)
    while True:
        now = now.improved(x, smoothing)
        found = np.mean(now.log_likelihood(valid))
        if found < best[0] + 0.01:
            return best
        best = found, now


def train(rbm, x, valid, preset, folder, metrics):
    """Trains the RBM."""
    started = time.perf_counter()
    history = rbm.fit(
        x,
        batch_size=preset.batch_size,
        epochs=preset.epochs,
        validation_data=valid,
        verbose=0,
        checkpoint=folder / runs.CHECKPOINTS / "rbm.checkpoint",
    ).history
    metrics.tell(
        "RBM of {hidden} hidden units trained in {training_seconds:.0f} s; free-energy gap "
        "{free_energy_gap:.2f} nats",
        hidden=preset.hidden,
        training_seconds=time.perf_counter() - started,
        free_energy_gap=history["free_energy_gap"][-1],
    )


def compare(x, valid, test, preset, metrics):
    """Fits the mixture, and measures it on the same images; returns it."""
    started = time.perf_counter()
    fitted = {
        smoothing: fit_mixture(x, valid, preset.components, smoothing)
        for smoothing in preset.smoothings
    }
    smoothing = max(fitted, key=lambda key: fitted[key][0])
    valid_log_likelihood, mixture = fitted[smoothing]
    logs = mixture.log_likelihood(test)
    metrics.tell(
        "Mixture of {components}, smoothing {smoothing} of {smoothings}: {mixture:.2f} nats per "
        "image (validation {mixture_validation:.2f}); fitted in {mixture_seconds:.0f} s",
        components=preset.components,
        smoothing=smoothing,
        smoothings=list(preset.smoothings),
        mixture=float(np.mean(logs)),
        mixture_validation=float(valid_log_likelihood),
        mixture_seconds=time.perf_counter() - started,
    )
    metrics.tell(
        "The RBM is {better:.2f} nats per image better by AIS; on the first {raise_cases}, "
        "{better_by_raise:.2f} by RAISE",
        better=metrics["log_likelihood"] - float(np.mean(logs)),
        raise_cases=metrics["raise_cases"],
        better_by_raise=metrics["raise_log_likelihood"] - float(np.mean(logs[: preset.raised])),
    )
    return mixture


def levels(v):
    """Returns the expected level of each group, in [0, 1], of units' means `(cases, units)`."""
    v = np.reshape(v, (len(v), -1, LEVELS))
    # Sums of probabilities in float32 may pass 1.
    return np.clip(v @ np.arange(LEVELS) / (LEVELS - 1), 0, 1)


def draw(rbm, x, img_shape, folder):
    """Draws 100 filters, and 20 chains from images on, a row every 100 steps."""
    W = rbm.layer.W.numpy()[:, :100].reshape(-1, LEVELS, min(100, rbm.layer.units))
    rise = np.tensordot(np.arange(LEVELS) - (LEVELS - 1) / 2, W, (0, 1))
    dbn.images.save(folder / "filters.png", dbn.images.filters(rise, img_shape))
    rows, samples = [levels(x)], x
    for _ in range(10):
        samples = rbm.sample(steps=100, start=samples)
        rows.append(levels(samples.mean))
    dbn.images.save(folder / "samples.png", dbn.images.chains(rows, img_shape))


def parse_arguments():
    """Returns the options."""
    parser = runs.make_parser(__doc__, PRESETS)
    runs.add_arguments(parser, RUN_DIR)
    return runs.parse(parser, RUN_DIR)


def main():
    """Runs the recipe."""
    args = parse_arguments()
    data, info = runs.load_data(args)
    folder = runs.start(args.run_dir, args)
    preset = PRESETS[args.preset]
    keras.utils.set_random_seed(args.seed)
    x, valid, test = (one_hot(part.x[: preset.images]) for part in data)
    del data
    metrics = runs.Metrics(
        data_set=info.name,
        preset=args.preset,
        seed=args.seed,
        images=[len(x), len(valid), len(test)],
        levels=LEVELS,
    )
    base_rates = tf.reduce_mean(x, axis=0).numpy()
    rbm = preset.rbm(x)
    train(rbm, x, valid, preset, folder, metrics)
    rbm.save(folder / "rbm.keras")
    draw(rbm, test[:20], info.img_shape, folder)
    both_sides.measure(
        rbm,
        test,
        base_rates,
        metrics,
        chains=preset.annealed,
        temperatures=preset.temperatures,
        raised=preset.raised,
    )
    mixture = compare(x, valid, test, preset, metrics)
    np.savez(folder / "mixture.npz", weights=mixture.weights, p=mixture.p)
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
