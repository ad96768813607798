"""How good can an RBM be? Log-likelihood of stochastically binarised MNIST, from both sides.

    python recipes/likelihood_mnist.py                    # 15 minutes of training
    python recipes/likelihood_mnist.py --preset hour
    python recipes/likelihood_mnist.py --preset large     # 1,000 hidden units
    python recipes/likelihood_mnist.py --validation       # to choose: no test image is read

500 hidden units, the centered gradient, PCD-2 with 256 chains, batches of 128, a learning rate that
falls linearly to zero, and the moving average of the weights, which is what is measured. Each
update sees the grey levels of the 60,000 training images binarised anew, each level the probability
of a 1; the images that are measured are binarised once, with seed 0.

The figure has two sides, on the same images: annealed importance sampling (AIS) tends to flatter a
model, RAISE to be too hard on it. Where they are more than a nat apart, believe neither. Published
with 500 hidden units: -86.34 by AIS (CD-25; Salakhutdinov & Murray 2008).

Training and measuring are timed apart. Writes, under runs/likelihood_mnist: rbm.keras, filters.png,
samples.png, and metrics.json, with every figure that is printed and the course of the training.
"""

import warnings
from dataclasses import dataclass
from datetime import datetime

import runs

import keras
import numpy as np

import both_sides
import dbn

RUN_DIR = "runs/likelihood_{data_set}"
ANCHOR = -86.34


@dataclass(frozen=True)
class Preset:
    """How an RBM is trained and measured."""

    epochs: int
    hidden: int = 500
    chains: int = 256
    k: int = 2
    batch_size: int = 128
    learning_rate: float = 0.3
    average: float = 0.999
    weight_decay: float = 0.0  # Half of it times the sum of squared weights is added to the cost.
    watched_every: int = 10
    temperatures: int = 12000
    raised: int = 500  # Cases for RAISE, and for AIS beside it.
    images: int | None = None

    def rbm(self, x):
        """Returns the RBM for these images, compiled."""
        decay = keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None
        rbm = dbn.RBM(
            dbn.RBMLayer(
                self.hidden,
                kernel_initializer=keras.initializers.RandomNormal(0, 0.01),
                kernel_regularizer=decay,
            ),
            k=self.k,
            persistent=True,
            chains=self.chains,
            gradient=dbn.gradients.Centered(),
            binarize=True,
        )
        rbm.build((None, x.shape[1]))
        rbm.layer.set_vbias_from_data(x)
        rate = runs.falling(self.learning_rate, self.epochs, len(x), self.batch_size)
        rbm.compile(keras.optimizers.SGD(rate, use_ema=True, ema_momentum=self.average))
        return rbm


PRESETS = {
    "default": Preset(epochs=180),
    "hour": Preset(epochs=600, weight_decay=5e-5, watched_every=40, temperatures=40000),
    "large": Preset(
        epochs=360, hidden=1000, weight_decay=7.5e-5, watched_every=40, temperatures=60000
    ),
    "smoke": Preset(
        epochs=2, hidden=20, chains=20, watched_every=1, temperatures=300, raised=20, images=500
    ),
}


class Watch(dbn.callbacks.LogLikelihood):
    """Tells the log-likelihood and the seconds of training so far, measuring left out.

    Attributes:
        seconds: Of training until each measurement, over all tries.
        course: What was measured, as many numbers.
        trained: Seconds of training so far; of an epoch that was broken off, those of the last try.
    """

    def __init__(self, x, base_rates, every):
        super().__init__(x, every, base_rates=base_rates, chains=100, temperatures=2000)
        self.seconds, self.course, self.trained = [], [], 0.0

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        super().on_train_begin(logs)
        # A checkpoint keeps numbers, which this is not: it belongs to one try.
        self._since = datetime.now()

    def on_epoch_end(self, epoch, logs=None):
        """Measures, every so many epochs."""
        self.trained += (datetime.now() - self._since).total_seconds()
        with warnings.catch_warnings():
            # These figures show the course of the training; the one that counts comes at its end.
            warnings.filterwarnings("ignore", "The effective sample size", RuntimeWarning)
            super().on_epoch_end(epoch, logs)
        if self.name in logs:
            self.seconds.append(self.trained)
            self.course.append(logs[self.name])
            print(
                f"Epoch {epoch + 1}, {self.trained:.0f} s of training: {logs[self.name]:.2f} nats "
                "by AIS, 100 chains",
                flush=True,
            )
        self._since = datetime.now()


def train(rbm, x, watch, preset, folder, metrics):
    """Trains the RBM; what is told is the time without the measurements between epochs."""
    rbm.fit(
        x,
        batch_size=preset.batch_size,
        epochs=preset.epochs,
        callbacks=[watch],
        verbose=0,
        checkpoint=folder / runs.CHECKPOINTS / "rbm.checkpoint",
    )
    metrics |= {"seconds": watch.seconds, "course": watch.course}
    metrics.tell("Trained in {training_seconds:.0f} s", training_seconds=watch.trained)
    course = zip(watch.seconds, watch.course, strict=True)
    passed = [at for at, value in course if value > ANCHOR]
    if passed and metrics["data_set"] == "mnist":
        metrics.tell(
            f"{ANCHOR} was passed after {{anchor_seconds:.0f}} s at the latest",
            anchor_seconds=passed[0],
        )


def draw(rbm, x, img_shape, folder):
    """Draws 100 filters, and 20 chains from images on, a row every 100 steps."""
    W = rbm.layer.W.numpy()[:, :100]
    dbn.images.save(folder / "filters.png", dbn.images.filters(W, img_shape))
    rows, samples = [], x
    for _ in range(10):
        samples = rbm.sample(steps=100, start=samples)
        rows.append(samples.mean)
    dbn.images.save(folder / "samples.png", dbn.images.chains(rows, img_shape))


def parse_arguments():
    """Returns the options."""
    parser = runs.make_parser(__doc__, PRESETS, "--validation")
    runs.add_arguments(parser, RUN_DIR)
    return runs.parse(parser, RUN_DIR)


def main():
    """Runs the recipe."""
    args = parse_arguments()
    data, info = runs.load_data(args)
    drawn = dbn.data.load(info.name, binarize="stochastic", seed=0)
    folder = runs.start(args.run_dir, args)
    preset = PRESETS[args.preset]
    learnt, _, part = runs.divided(data, args.validation)
    x = learnt.x[: preset.images]
    held_out = (drawn.valid if args.validation else drawn.test).x[: preset.images]
    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(
        data_set=info.name,
        binarization="stochastic",
        preset=args.preset,
        seed=args.seed,
        held_out=part,
        images=len(x),
        hidden=preset.hidden,
    )
    base_rates = np.mean(x, axis=0)
    rbm = preset.rbm(x)
    watch = Watch(held_out[:1000], base_rates, preset.watched_every)
    train(rbm, x, watch, preset, folder, metrics)
    rbm.save(folder / "rbm.keras")
    draw(rbm, held_out[:20], info.img_shape, folder)
    training = drawn.train.x[: len(held_out)]
    log_partition = both_sides.measure(
        rbm,
        held_out,
        base_rates,
        metrics,
        chains=500,
        temperatures=preset.temperatures,
        raised=preset.raised,
    )
    metrics.tell(
        "Training images, by AIS: {training_log_likelihood:.2f}",
        training_log_likelihood=dbn.likelihood.log_likelihood(rbm, training, log_partition).mean,
    )
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
