"""Learns short codes of MNIST: the deep autoencoder of Hinton & Salakhutdinov (2006).

    python recipes/autoencoder_mnist.py                       # runs/autoencoder_mnist
    python recipes/autoencoder_mnist.py --no-pretraining      # from the same random start
    python recipes/autoencoder_mnist.py --validation          # to choose: no test image is read

1. Greedy layer-wise pretraining of a stack 784-1000-500-250-30 by CD-1 on the 60,000 training
   images, without labels; the 30 code units are Gaussian, so the code is linear. A second top layer
   of 2 units is pretrained on the same three layers.
2. Both stacks are unrolled, the decoder starting from the transposed weights, and fine-tuned on the
   cross entropy of the pixels by Adam, whose rate falls linearly to zero.
3. Squared error, summed over the pixels and averaged over the test images, beside that of
   scikit-learn's PCA with as many components. Labels are read for the colours of a picture alone.

What a run leaves in its folder: `stack.keras` (the pretrained stack), `autoencoder.keras` (plain
Keras, with the layers `encoder` and `decoder`), `reconstructions.png` (test images; below them what
is left of them after 30 numbers; the same by PCA), `codes.png` (the two-dimensional codes of test
images, beside the first two principal components), `course.png` (the squared error on the training
images over the epochs) and `metrics.json`, with every figure printed.

Killed at whatever moment, it goes on by the same command, and ends with the same bits.

Published (Hinton & Salakhutdinov 2006), squared error per test image: 3.00; PCA 13.87. Measured,
seeds 0 to 2: 2.75, 2.78 and 2.76, PCA 13.87, and 11.49, 11.48 and 10.90 from the random start; 30
and 21 minutes on one CPU core beside other work. Rates and epochs are a first guess that did: with
50,000 training images the validation images had 3.02.
"""

import time
from dataclasses import dataclass

import runs

import keras
import matplotlib
import numpy as np
from sklearn.decomposition import PCA

import curves
import dbn

matplotlib.use("Agg")
from matplotlib import pyplot

RUN_DIR = "runs/autoencoder_{data_set}"


@dataclass(frozen=True)
class Preset:
    """A network and how it is trained; rates fall linearly to zero."""

    layers: tuple[int, ...] = (1000, 500, 250)
    code: int = 30
    batch_size: int = 128
    pretraining_epochs: int = 15
    pretraining_rate: float = 0.1
    code_rate: float = 0.005  # Of the RBM with Gaussian hidden units.
    epochs: int = 80
    flat_epochs: int = 20  # Of the autoencoder with two code units.
    rate: float = 1e-3
    rate_from_scratch: float = 1e-3
    images: int | None = None  # Training images to use; None for all.

    def falling(self, rate, epochs, cases):
        """Returns a schedule from a rate to zero, over so many epochs of so many cases."""
        return runs.falling(rate, epochs, cases, self.batch_size)


PRESETS = {
    "default": Preset(),
    "smoke": Preset(
        layers=(30, 20),
        code=5,
        batch_size=50,
        pretraining_epochs=2,
        epochs=3,
        flat_epochs=2,
        images=500,
    ),
}


def parse_arguments():
    """Returns the options."""
    parser = runs.make_parser(__doc__, PRESETS, "--no-pretraining", "--validation")
    runs.add_arguments(parser, RUN_DIR)
    return runs.parse(parser, RUN_DIR)


def make_stacks(x, preset):
    """Returns the stack with the long code, and the one with a code of 2 on the same layers."""

    def layer(units, hidden="bernoulli"):
        return dbn.RBMLayer(units, hidden=hidden, kernel_initializer="glorot_uniform")

    body = [dbn.RBM(layer(units)) for units in preset.layers]
    stacks = [dbn.DBN([*body, layer(code, "gaussian")]) for code in (preset.code, 2)]
    for stack in stacks:
        stack.build((None, x.shape[1]))
    body[0].layer.set_vbias_from_data(x)
    return stacks


def pretrain(stacks, x, preset, folder, metrics):
    """Pretrains the layers, those that both stacks have once."""
    start, count, epochs = time.perf_counter(), len(preset.layers), preset.pretraining_epochs
    rates = [*[preset.pretraining_rate] * count, preset.code_rate]
    optimizers = [
        keras.optimizers.SGD(preset.falling(rate, epochs, len(x)), momentum=0.5) for rate in rates
    ]
    costs = []
    for stack, body in zip(stacks, (epochs, 0), strict=True):
        histories = stack.pretrain(
            x,
            epochs=[*[body] * count, epochs],
            batch_size=preset.batch_size,
            optimizer=optimizers,
            checkpoint=folder / runs.CHECKPOINTS / f"code_{stack.rbms[-1].layer.units}",
        )
        costs += [h.history["reconstruction_cross_entropy"][-1] for h in histories if h]
        if stack is stacks[0]:
            stack.save(folder / "stack.keras")  # The other gives their layers another optimizer.
    metrics.tell(
        "Pretrained in {pretraining_seconds:.0f} s; reconstruction cross entropy of each layer: "
        "{reconstruction_cross_entropy} nats a case",
        pretraining_seconds=time.perf_counter() - start,
        reconstruction_cross_entropy=[round(cost, 3) for cost in costs],
    )


def fine_tune(model, x, rate, epochs, preset, seed, path):
    """Trains an autoencoder; returns its squared error per training image at each epoch."""
    model.compile(
        keras.optimizers.Adam(preset.falling(rate, epochs, len(x))),
        "binary_crossentropy",
        metrics=["mse"],
        steps_per_execution=50,
        jit_compile=True,
    )
    history = dbn.checkpoints.fit(
        model,
        x,
        x,
        checkpoint=path,
        batch_size=preset.batch_size,
        seed=seed,
        epochs=epochs,
        verbose=2,
    )
    return [x.shape[1] * value for value in history.history["mse"]]


def squared_error(x, back):
    """Returns the squared error, summed over pixels, averaged over images."""
    return float(np.mean(np.sum(np.square(np.subtract(x, back, dtype="float64")), axis=1)))


def measure(model, code, x, held_out, name, metrics):
    """Tells the error of an autoencoder and that of PCA; returns both reconstructions and PCA."""
    pca = PCA(code, svd_solver="covariance_eigh").fit(x)
    back = model.predict(held_out, batch_size=1000, verbose=0)
    by_pca = pca.inverse_transform(pca.transform(held_out))
    metrics.tell(
        f"Code of {code}: squared error per image {{squared_error{name}:.3f}}; PCA "
        f"{{pca_squared_error{name}:.2f}}",
        **{
            f"squared_error{name}": squared_error(held_out, back),
            f"pca_squared_error{name}": squared_error(held_out, by_pca),
        },
    )
    return back, by_pca, pca


def draw_codes(codes, components, labels, path):
    """Draws two-dimensional codes and principal components, each digit in its colour."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for axis, points, title in zip(axes, (components, codes), ("PCA", "autoencoder"), strict=True):
        drawn = axis.scatter(*np.transpose(points), c=labels, cmap="tab10", s=3, linewidths=0)
        axis.set(title=title, xticks=[], yticks=[])
    figure.legend(*drawn.legend_elements(num=None), loc="outside right center")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main():
    """Runs the recipe."""
    args = parse_arguments()
    data, info = runs.load_data(args)
    folder = runs.start(args.run_dir, args)
    preset = PRESETS[args.preset]
    train, held_out, part = runs.divided(data, args.validation)
    x = train.x[: preset.images]

    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(
        data_set=info.name,
        preset=args.preset,
        pretraining=not args.no_pretraining,
        held_out=part,
        seed=args.seed,
        images=len(x),
        layers=[x.shape[1], *preset.layers, preset.code],
    )
    stacks = make_stacks(x, preset)
    if not args.no_pretraining:
        pretrain(stacks, x, preset, folder, metrics)
    # Copies: both are to start from the pretrained layers.
    models = [stack.autoencoder(share=False) for stack in stacks]
    rate = preset.rate_from_scratch if args.no_pretraining else preset.rate
    found = []
    for model, code, epochs, name in zip(
        models, (preset.code, 2), (preset.epochs, preset.flat_epochs), ("", "_2d"), strict=True
    ):
        start = time.perf_counter()
        path = folder / runs.CHECKPOINTS / f"autoencoder{name}.checkpoint"
        errors = fine_tune(model, x, rate, epochs, preset, args.seed, path)
        metrics[f"training_squared_errors{name}"] = errors
        metrics[f"fine_tuning_seconds{name}"] = time.perf_counter() - start
        found.append(measure(model, code, x, held_out.x, name, metrics))
    models[0].save(folder / "autoencoder.keras")
    course = {"squared error per training image": metrics["training_squared_errors"]}
    curves.draw(course, folder / "course.png")

    shown = held_out.x[:20]
    back, by_pca, _ = found[0]
    rows = [shown, back[:20], np.clip(by_pca[:20], 0, 1)]
    picture = dbn.images.chains(np.stack(rows), info.img_shape)
    dbn.images.save(folder / "reconstructions.png", picture)
    some, labels = held_out.x[:5000], held_out.y[:5000]
    codes = models[1].get_layer("encoder").predict(some, batch_size=1000, verbose=0)
    draw_codes(codes, found[1][2].transform(some), labels, folder / "codes.png")
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
