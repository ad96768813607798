"""What pretraining is for: 60,000 images, and labels of 100, 1,000, 10,000 or all of them.

    python recipes/few_labels_mnist.py --no-pretraining    # the same networks from random weights
    python recipes/few_labels_mnist.py --beside runs/few_labels_mnist-no-pretraining
    python recipes/few_labels_mnist.py --preset smoke      # seconds; its figures mean nothing

1. Greedy layer-wise pretraining of a stack on all training images, without labels, its hidden units
   kept sparse. The arm without pretraining starts from the very weights that this started from.
2. The way to fine-tune (rates of Adam for the head and for the layers below it, dropout) is
   chosen by cross-validation over the first draw of 1,000 labels, from the same list of ways in
   both arms, and kept for all numbers of labels. Only those 1,000 labels are looked at.
3. For each number of labels, draws of equally many images a class, each fine-tuned from a copy of
   the stack and read on the test set once: mean and standard deviation over the draws. Of all
   60,000 there is one draw; its fits differ by their seed.

Writes, under runs/few_labels_mnist: stack.keras (the pretrained stack), accuracy.png and
metrics.json, with every figure that is printed. Killed at whatever moment, it goes on by the same
command; a fit that was broken off begins anew.

Published, accuracy in %, a deep Boltzmann machine with fine-tuning / the same network from random
weights: 100 labels 83.79 / 76.24; 1,000 93.65 / 88.71; 10,000 97.27 / 94.73; 60,000 98.73 / 98.20.
Measured, the default preset: 86.12 / 75.53, 95.18 / 89.31, 97.89 / 97.06 and 98.83 / 98.74; an arm
took 70 minutes on one CPU core with half the updates for 60,000 labels, of which a fit takes 19
now. The numbers of updates were chosen on validation images: with 10,000 labels 6,000 had 97.5 %,
12,000 had 97.7; with 50,000, from this stack, in a program in PyTorch that is no part of this
repository, three seeds each, 24,000 had 98.69 %, 48,000 had 98.87.
"""

import dataclasses
import itertools
import json
import time
from pathlib import Path

import runs

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from sklearn.model_selection import StratifiedKFold

import classifiers
import dbn

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

RUN_DIR = "runs/few_labels_{data_set}"
PUBLISHED = {
    True: {100: 0.8379, 1000: 0.9365, 10000: 0.9727, 60000: 0.9873},
    False: {100: 0.7624, 1000: 0.8871, 10000: 0.9473, 60000: 0.9820},
}


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to fine-tune: what is chosen by cross-validation."""

    rate: float  # Of Adam, for the head; falls linearly to zero.
    below: float  # That of the layers below it, likewise.
    dropout: float  # Share of hidden units; of the inputs two fifths of it.


@dataclasses.dataclass(frozen=True)
class Preset:
    """Networks, and how they are pretrained, chosen and fine-tuned."""

    layers: tuple[int, ...] = (1000, 1000, 1000)
    pretraining_epochs: int = 15
    pretraining_rate: float = 0.1
    activity: float = 0.1  # Of the hidden units, the target of pretraining.
    sparsity_cost: float = 0.3
    batch_size: int = 100
    # Updates of the fine-tuning and draws, by the number of labels.
    updates: dict = dataclasses.field(
        default_factory=lambda: {100: 1000, 1000: 2000, 10000: 12000, 60000: 48000}
    )
    draws: dict = dataclasses.field(default_factory=lambda: {100: 10, 1000: 10, 10000: 3, 60000: 2})
    chosen_with: int = 1000
    folds: int = 3
    ways: tuple[Way, ...] = tuple(
        itertools.starmap(Way, itertools.product((1e-2,), (1e-4, 3e-4, 1e-3, 3e-3), (0.0, 0.5)))
    )


PRESETS = {
    "default": Preset(),
    "smoke": Preset(
        layers=(30, 20),
        pretraining_epochs=3,
        sparsity_cost=0.01,
        batch_size=10,
        updates={20: 50, 100: 50},
        draws={20: 3, 100: 2},
        chosen_with=100,
        folds=2,
        ways=(Way(1e-2, 1e-2, 0.0), Way(1e-2, 1e-3, 0.5)),
    ),
}


def parse_arguments():
    """Returns the options."""
    parser = runs.make_parser(__doc__, PRESETS, "--no-pretraining")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FOLDER",
        help="a finished run of the other arm, to be drawn into the same picture",
    )
    runs.add_arguments(parser, RUN_DIR)
    return runs.parse(parser, RUN_DIR)


def draw(y, count, seed):
    """Draws which cases have labels: equally many of each class, or all cases.

    Args:
        y: Labels, `(cases,)`.
        count: How many to draw.
        seed: Integer >= 0.

    Returns:
        Indices, `(count,)`. With the same seed, fewer are some of those of more, class by class.

    Raises:
        ValueError: If the classes cannot have equal shares, or a class has too few cases.
    """
    if count == len(y):
        return np.arange(count)
    classes = np.unique(y)
    each, rest = divmod(count, len(classes))
    fewest = min(np.sum(y == label) for label in classes)
    if rest or not 1 <= each <= fewest:
        raise ValueError(
            f"{count} labels cannot be drawn as equally many of {len(classes)} classes, of which "
            f"the smallest has {fewest}."
        )
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(y == label))[:each] for label in classes])


def fine_tune(stack, x, y, classes, way, updates, batch_size, seed):
    """Returns a classifier, trained on these cases from a copy of the stack."""
    keras.utils.set_random_seed(seed)  # Masks of dropout.
    model = stack.classifier(
        classes, share=False, dropout=way.dropout, input_dropout=0.4 * way.dropout
    )
    dbn.fine_tuning.check(model, x, y)

    def falling(rate):
        return keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.0)

    body = [layer for layer in model.layers[:-1] if layer.weights]
    optimizer = dbn.fine_tuning.by_layer(
        model,
        keras.optimizers.Adam(falling(way.rate)),
        {layer: falling(way.below) for layer in body},
    )
    # XLA would take as long to compile as most of these fits take, and draws the masks of dropout
    # slowly on a CPU.
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        steps_per_execution=min(50, updates),
        jit_compile=False,
    )
    cases = tf.data.Dataset.range(len(x)).shuffle(len(x), seed).repeat().batch(batch_size)
    x, y = tf.constant(x), tf.constant(y)
    # There is nothing to tune, and a fit may wait for tf.data's tuner at its end.
    batches = dbn.batches.untuned(cases.map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows))))
    model.fit(batches, steps_per_epoch=updates, shuffle=False, verbose=0)
    return model


def accuracy(model, x, y):
    """Returns the share of cases that are classified rightly."""
    parts = np.array_split(x, -(-len(x) // 1000))  # Keras' `predict` compiles first, every model.
    found = np.concatenate([np.argmax(model(part, training=False), axis=1) for part in parts])
    return float(np.mean(found == y))


def cross_validate(stack, x, y, classes, way, preset, seed):
    """Returns the accuracy of a way to fine-tune on each fold of labelled cases, by the others."""
    folds = StratifiedKFold(preset.folds, shuffle=True, random_state=seed)
    updates = preset.updates[preset.chosen_with]
    return [
        accuracy(
            fine_tune(stack, x[fit], y[fit], classes, way, updates, preset.batch_size, seed),
            x[held_out],
            y[held_out],
        )
        for fit, held_out in folds.split(x, y)
    ]


def choose(stack, x, y, classes, preset, seed, folder, metrics):
    """Returns the way to fine-tune that is best by cross-validation over these labels."""
    started, found = time.perf_counter(), []
    for number, way in enumerate(preset.ways):
        folds = runs.remembered(
            folder,
            f"way_{number}",
            lambda way=way: cross_validate(stack, x, y, classes, way, preset, seed),
        )
        found.append(float(np.mean(folds)))
        print(f"{way}: {found[-1]:.2%}", flush=True)
    best = preset.ways[int(np.argmax(found))]
    metrics["ways"] = [
        {**dataclasses.asdict(way), "accuracy": value}
        for way, value in zip(preset.ways, found, strict=True)
    ]
    metrics.tell(
        "Chosen by {folds}-fold cross-validation over {chosen_with} labels in "
        "{choosing_seconds:.0f} s: {chosen}, {chosen_accuracy:.2%}",
        folds=preset.folds,
        chosen_with=len(y),
        choosing_seconds=time.perf_counter() - started,
        chosen=dataclasses.asdict(best),
        chosen_accuracy=max(found),
    )
    return best


def measure(stack, x, y, test, classes, way, preset, seed, folder, metrics):
    """Fine-tunes and tests for each number of labels and each draw; returns mean and spread."""
    found = {}
    for count, updates in preset.updates.items():

        def try_one(number, count=count, updates=updates):
            rows = draw(y, count, [seed, number])
            model = fine_tune(
                stack, x[rows], y[rows], classes, way, updates, preset.batch_size, number
            )
            return accuracy(model, test.x, test.y)

        draws = range(preset.draws[count])
        values = [
            runs.remembered(folder, f"{count}_{number}", lambda number=number: try_one(number))
            for number in draws
        ]
        found[count] = float(np.mean(values)), float(np.std(values, ddof=1))
        metrics.tell(
            f"{count} labels: test accuracy {{accuracy_{count}:.2%}}, standard deviation "
            f"{{deviation_{count}:.2%}} over {len(values)} draws",
            **{f"accuracy_{count}": found[count][0], f"deviation_{count}": found[count][1]},
        )
        metrics[f"accuracies_{count}"] = values
    return found


def plot(arms, published, path):
    """Draws the test error by the number of labels, each arm and what is published for it.

    Args:
        arms: Dict from whether there was pretraining to a dict from the number of labels to mean
            and standard deviation of the accuracy.
        published: Likewise, to accuracies alone.
        path: Path of the picture.
    """
    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for (pretraining, found), colour in zip(arms.items(), ("C0", "C1"), strict=False):
        name = "pretrained" if pretraining else "from random weights"
        errors = [100 * (1 - mean) for mean, _ in found.values()]
        spread = [100 * deviation for _, deviation in found.values()]
        style = {"color": colour, "marker": "o", "capsize": 3}
        axis.errorbar(list(found), errors, spread, label=name, **style)
        if others := published.get(pretraining):
            errors = [100 * (1 - value) for value in others.values()]
            axis.plot(list(others), errors, "x", color=colour, label=f"{name}, published")
    axis.set(xscale="log", yscale="log", xlabel="labels", ylabel="test error, %")
    counts = list(next(iter(arms.values())))
    axis.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        which(ticker.FormatStrFormatter("%g"))
    axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def read(folder, pretraining, data_set, preset):
    """Returns mean and spread by the number of labels, of a finished run of the other arm."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        if metrics["pretraining"] is pretraining:
            runs.refuse(f"--beside {folder} is a run of the same arm: name one of the other.")
        for name, expected in (("data_set", data_set), ("preset", preset)):
            if metrics[name] != expected:
                runs.refuse(
                    f"--beside {folder} cannot be compared: its {name} is {metrics[name]}, not "
                    f"{expected}."
                )
        return {
            count: (metrics[f"accuracy_{count}"], metrics[f"deviation_{count}"])
            for count in metrics["labels"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        runs.refuse(f"--beside {folder} is no finished run of this recipe ({error}).")


def main():
    """Runs the recipe."""
    args = parse_arguments()
    preset, pretraining = PRESETS[args.preset], not args.no_pretraining
    data, info = runs.load_data(args)
    beside = read(args.beside, pretraining, info.name, args.preset) if args.beside else None
    (x, y), test, _ = runs.divided(data, validation=False)
    try:
        rows = {count: draw(y, count, [args.seed, 0]) for count in preset.updates}
    except ValueError as error:
        runs.refuse(f"--data-set {info.name}: {error}")
    folder = runs.start(args.run_dir, args)

    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(
        data_set=info.name,
        preset=args.preset,
        pretraining=pretraining,
        seed=args.seed,
        layers=[x.shape[1], *preset.layers, info.num_classes],
        labels=list(preset.updates),
    )
    sparsity = {"target": preset.activity, "cost": preset.sparsity_cost}
    stack = classifiers.make_stack(x, preset.layers, sparsity)
    metrics["initial_norms"] = [float(tf.norm(rbm.layer.W)) for rbm in stack.rbms]
    if pretraining:
        epochs, batch_size = preset.pretraining_epochs, preset.batch_size
        rate = runs.falling(preset.pretraining_rate, epochs, len(x), batch_size)
        classifiers.pretrain(
            stack,
            x,
            folder,
            metrics,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=keras.optimizers.SGD(rate, momentum=0.5),
        )
        stack.save(folder / "stack.keras")
    few = rows[preset.chosen_with]
    way = choose(stack, x[few], y[few], info.num_classes, preset, args.seed, folder, metrics)
    found = measure(stack, x, y, test, info.num_classes, way, preset, args.seed, folder, metrics)
    arms = {pretraining: found, **({not pretraining: beside} if beside else {})}
    plot(arms, PUBLISHED if info.name == "mnist" else {}, folder / "accuracy.png")
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
