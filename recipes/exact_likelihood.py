"""RBMs so small that their log-likelihood is exact: how good is the training, nothing estimated?

    python recipes/exact_likelihood.py                              # all three tasks
    python recipes/exact_likelihood.py --tasks bars-and-stripes

Each is trained by parallel tempering with the centered gradient, a learning rate that falls
linearly to zero and averaged weights, then measured by enumeration of its hidden units:

    bars-and-stripes   4x4 pixels, 30 pictures, 16 hidden units; at best -ln 30 = -3.401
    stochastic         MNIST, stochastically binarised, 20 hidden units; published: -150.1 (PCD)
    threshold          MNIST, 1 above 0.5, 16 hidden units; published: -142.56 (centered, PyDeep)

The figures are nats a picture; those of different binarisations do not compare. MNIST is learnt
from its 60,000 training pictures and measured on the 10,000 of the test set. Writes, under
runs/exact_likelihood_{data_set}: metrics.json, and each RBM as TASK.keras.
"""

import time
from dataclasses import dataclass

import runs

import keras
import numpy as np

import dbn


@dataclass(frozen=True)
class Task:
    """An RBM and how it is trained."""

    hidden: int
    updates: int
    learning_rate: float
    chains: int
    batch_size: int = 100

    def train(self, x, checkpoint, binarize):
        """Returns the trained RBM."""
        rbm = dbn.RBM(
            dbn.RBMLayer(self.hidden, kernel_initializer=keras.initializers.RandomNormal(0, 0.1)),
            negative=dbn.negative.ParallelTempering(
                chains=self.chains, base_rates=np.mean(x, axis=0)
            ),
            gradient=dbn.gradients.Centered(),
            binarize=binarize,
        )
        rbm.build((None, x.shape[1]))
        rbm.layer.set_vbias_from_data(x)
        epochs = -(-self.updates * self.batch_size // len(x))
        rate = runs.falling(self.learning_rate, epochs, len(x), self.batch_size)
        optimizer = keras.optimizers.SGD(rate, use_ema=True, ema_momentum=0.99)
        rbm.compile(optimizer, metrics=[])
        rbm.fit(x, batch_size=self.batch_size, epochs=epochs, verbose=0, checkpoint=checkpoint)
        return rbm


TASKS = {
    "bars-and-stripes": Task(16, updates=30000, learning_rate=0.2, chains=60, batch_size=300),
    "stochastic": Task(20, updates=18000, learning_rate=0.1, chains=20),
    "threshold": Task(16, updates=18000, learning_rate=0.1, chains=20),
}


def bars_and_stripes(size):
    """Returns the pictures whose rows are all of one colour, and those whose columns are."""
    lines = (np.arange(2**size)[:, None] >> np.arange(size)) % 2
    bars = np.repeat(lines[:, :, None], size, axis=2)
    both = np.concatenate([bars, bars.swapaxes(1, 2)]).reshape(-1, size * size)
    return np.unique(both, axis=0).astype("float32")


def load(task, data_set):
    """Returns the pictures to learn from and those to measure, the latter binary."""
    if task == "bars-and-stripes":
        pictures = bars_and_stripes(4)
        return np.tile(pictures, (1000, 1)), pictures
    binary = dbn.data.load(data_set, binarize=task)
    # Where bits are drawn, every update draws them anew, from the grey levels.
    learnt = dbn.data.load(data_set) if task == "stochastic" else binary
    return np.concatenate([learnt.train.x, learnt.valid.x]), binary.test.x


def main():
    """Runs the recipe."""
    parser = runs.make_parser(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    runs.add_arguments(parser, "runs/exact_likelihood_{data_set}")
    args = parser.parse_args()
    _, info = runs.load_data(args)
    folder = runs.start(args.run_dir, args)
    metrics = runs.Metrics(data_set=info.name, seed=args.seed)
    for task in args.tasks:
        x, measured = load(task, info.name)
        keras.utils.set_random_seed(args.seed)
        started = time.perf_counter()
        checkpoint = folder / runs.CHECKPOINTS / f"{task}.checkpoint"
        rbm = TASKS[task].train(x, checkpoint, binarize=task == "stochastic")
        seconds = time.perf_counter() - started
        log_partition = dbn.likelihood.exact_log_partition(rbm)
        found = dbn.likelihood.log_likelihood(rbm, measured, log_partition)
        metrics[task] = runs.Metrics(hidden=rbm.layer.units)
        metrics[task].tell(
            f"{task}: {{log_likelihood:.3f}} nats a picture, exactly, after "
            f"{{training_seconds:.0f}} s of training",
            log_likelihood=found.mean,
            training_seconds=seconds,
        )
        rbm.save(folder / f"{task}.keras")
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
