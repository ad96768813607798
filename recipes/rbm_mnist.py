"""The RBM of the Deep Learning Tutorials: PCD-15 on MNIST, its filters, and samples.

    python recipes/rbm_mnist.py                       # the tutorial's run
    python recipes/rbm_mnist.py --preset smoke        # seconds: does everything work?

Reproduces `test_rbm` of the tutorial's rbm.py: 500 hidden units, learning rate 0.1, batches of 20,
20 persistent chains, 15 Gibbs steps an update, 15 epochs over the 50,000 training images; the
filters after each epoch; then 20 chains from test images, drawn every 1,000 steps.

                                 here     tutorial
    cost after epoch 0        -91.01     -90.65       mean pseudo-log-likelihood of the epoch,
    cost after epoch 1        -80.42     -81.24       nats per image
    cost after epoch 14       -62.59     -62.76
    training                 3.5 min     122 min      here: 2 CPU cores, pictures included
    everything               3.7 min, at most 1.2 GiB of memory

Writes, under runs/rbm_mnist: filters_at_epoch_{i}.png, which look like strokes of a pen from some
epochs on; samples.png, a column a chain, which look like digits; and metrics.json, with every
figure that is printed. Killed, it goes on by the same command, and ends with the same bits.
"""

import time
from typing import NamedTuple

import runs

import keras

import dbn

CHAINS = 20
ROWS = 10


class Preset(NamedTuple):
    """How much of it all; the rest is the tutorial's."""

    images: int | None
    epochs: int
    steps: int


PRESETS = {
    "tutorial": Preset(images=None, epochs=15, steps=1000),
    "smoke": Preset(images=1000, epochs=2, steps=10),
}


def train(x, img_shape, epochs, folder, metrics):
    """Trains the tutorial's RBM, and draws its filters after each epoch."""
    rbm = dbn.RBM(dbn.RBMLayer(500), k=15, persistent=True, chains=CHAINS)
    rbm.compile(optimizer=keras.optimizers.SGD(0.1))

    def tell(epoch, logs):
        print(f"Training epoch {epoch}, cost is {logs['pseudo_log_likelihood']:f}", flush=True)

    history = rbm.fit(
        x,
        batch_size=20,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=tell),
            dbn.callbacks.SaveFilters(folder, img_shape),
        ],
        checkpoint=folder / runs.CHECKPOINTS / "rbm.checkpoint",
    )
    metrics["cost"] = history.history["pseudo_log_likelihood"]  # With the epochs of earlier tries.
    return rbm


def draw_samples(rbm, start, img_shape, steps, path):
    """Draws Gibbs chains from these pictures on: their means, a row every so many steps."""
    rows, samples = [], start
    for _ in range(ROWS):
        samples = rbm.sample(steps=steps, start=samples)
        rows.append(samples.mean)
    dbn.images.save(path, dbn.images.chains(rows, img_shape))


def main():
    """Runs the recipe as the command line says."""
    parser = runs.make_parser(__doc__, PRESETS)
    runs.add_arguments(parser, "runs/rbm_{data_set}")
    args = parser.parse_args()
    preset = PRESETS[args.preset]

    data, info = runs.load_data(args)
    folder = runs.start(args.run_dir, args)
    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(preset=args.preset, seed=args.seed)
    x = data.train.x[: preset.images]
    metrics.tell(
        "Data set {data_set}: {images} training images of {img_shape}",
        data_set=info.name,
        images=len(x),
        img_shape=info.img_shape,
    )

    started = time.perf_counter()
    rbm = train(x, info.img_shape, preset.epochs, folder, metrics)
    trained = time.perf_counter()
    metrics.tell("Training took {train_seconds:.1f} s", train_seconds=trained - started)
    start = data.test.x[:CHAINS]
    draw_samples(rbm, start, info.img_shape, preset.steps, folder / "samples.png")
    sample_seconds = time.perf_counter() - trained
    metrics.tell("Sampling took {sample_seconds:.1f} s", sample_seconds=sample_seconds)
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
