"""How many temperatures are enough? AIS and RAISE close in on the exact log-likelihood.

    python recipes/bracket.py --data-set digits       # the picture of docs/measuring.md; a minute

Trains an RBM with 20 hidden units, so small that log Z can be enumerated, by parallel tempering on
stochastically binarised pictures. Then measures 300 test pictures by annealed importance sampling,
which is too high on average, and by RAISE, which is too low, with ever more temperatures.

Writes, under runs/bracket_{data_set}: bracket.png and metrics.json, with every figure printed.
"""

import warnings

import runs

import keras
import matplotlib
import numpy as np

import dbn

matplotlib.use("Agg")
from matplotlib import pyplot

HIDDEN = 20
CASES = 300
TEMPERATURES = (3, 10, 30, 100, 300, 1000, 3000)


def train(x, epochs, checkpoint):
    """Trains the RBM."""
    rbm = dbn.RBM(
        HIDDEN,
        negative=dbn.negative.ParallelTempering(chains=20, base_rates=np.mean(x, axis=0)),
        gradient=dbn.gradients.Centered(),
        binarize=True,
    )
    rbm.build((None, x.shape[1]))
    rbm.layer.set_vbias_from_data(x)
    rbm.compile(keras.optimizers.SGD(runs.falling(0.1, epochs, len(x), batch_size=50)))
    rbm.fit(x, batch_size=50, epochs=epochs, verbose=0, checkpoint=checkpoint)
    return rbm


def measure(rbm, x, base_rates, metrics):
    """Measures the pictures exactly, and from both sides with each number of temperatures."""
    exact = dbn.likelihood.log_likelihood(rbm, x, dbn.likelihood.exact_log_partition(rbm))
    metrics.tell("Exact: {exact:.3f} nats per picture", exact=exact.mean)
    for temperatures in TEMPERATURES:
        with warnings.catch_warnings():
            # That few temperatures are not enough is what is shown.
            warnings.filterwarnings("ignore", "The effective sample size", RuntimeWarning)
            log_partition = dbn.likelihood.annealed_importance_sampling(
                rbm, base_rates, temperatures=temperatures
            )
        by_ais = dbn.likelihood.log_likelihood(rbm, x, log_partition)
        by_raise = dbn.likelihood.raise_log_likelihood(
            rbm, x, base_rates, temperatures=temperatures
        )
        metrics.tell_next(
            "{temperatures:5d} temperatures: {by_ais:.3f} ({low:.3f} to {high:.3f}) by AIS, "
            "{by_raise:.3f} by RAISE",
            temperatures=temperatures,
            by_ais=by_ais.mean,
            low=by_ais.low,
            high=by_ais.high,
            by_raise=float(np.mean(by_raise)),
        )


def draw(metrics, path):
    """Draws the bracket."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    at = metrics["temperatures"]
    axes.axhline(metrics["exact"], color="black", linewidth=1, label="exact")
    axes.fill_between(at, metrics["low"], metrics["high"], color="tab:blue", alpha=0.2)
    axes.plot(at, metrics["by_ais"], "o-", color="tab:blue", label="AIS, 95 % interval")
    axes.plot(at, metrics["by_raise"], "s-", color="tab:red", label="RAISE")
    axes.set(xscale="log", xlabel="temperatures", ylabel="log-likelihood, nats per picture")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main():
    """Runs the recipe."""
    parser = runs.make_parser(__doc__)
    parser.add_argument(
        "--epochs", type=int, default=100, help="of training (default: %(default)s)"
    )
    runs.add_arguments(parser, "runs/bracket_{data_set}")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"argument --epochs: must be at least 1; got {args.epochs}")
    data, info = runs.load_data(args)
    folder = runs.start(args.run_dir, args)
    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(
        data_set=info.name, binarization="stochastic", seed=args.seed, hidden=HIDDEN
    )
    x = data.train.x
    rbm = train(x, args.epochs, folder / runs.CHECKPOINTS / "rbm.checkpoint")
    drawn = dbn.data.load(info.name, binarize="stochastic", seed=0).test.x[:CASES]
    measure(rbm, drawn, np.mean(x, axis=0), metrics)
    draw(metrics, folder / "bracket.png")
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
