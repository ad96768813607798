"""Pretrains a deep belief network, fine-tunes it as a classifier, and exports it.

    python recipes/dbn_mnist.py                       # runs/dbn_mnist
    python recipes/dbn_mnist.py --no-pretraining      # the same network from the same random start
    python recipes/dbn_mnist.py --preset tutorial     # the Theano Deep Learning Tutorial's DBN.py

1. Greedy layer-wise pretraining of the stack on the training images, without labels.
2. Fine-tuning of the shared Dense layers with a softmax on top, by Keras' `fit` inside
   `dbn.checkpoints.fit`. The weights of the epoch with the best validation accuracy are kept; the
   test set is read once, at the end.
3. Export as a SavedModel, which a new process that imports TensorFlow alone loads; its predictions
   on the whole test set are compared with the model's own.

What a run leaves in its folder: `saved_model/`, `stack.keras` (the pretrained stack),
`filters.png` (100 filters of the first layer after pretraining), `reconstructions.png` (test images
above what is left of them after a way up the stack and down again), `errors.png` (misclassified
test images) and `metrics.json` with every figure that was printed.

Killed at whatever moment, it goes on by the same command, and ends with the same bits; what it has
done is in `checkpoints/` meanwhile.

Expected (MNIST, 50,000 training images, 2 CPU cores; see the README for the measured figures):

    default      784-1000-1000-10, CD-1, 15 epochs a layer, then 12 epochs of Adam; test error
                 1.24 % (mean of seeds 1, 2, 3), 3 minutes
    tutorial     784-1000-1000-1000-10, CD-1, 100 epochs a layer, the tutorial's patience; test
                 error 1.41 % (one run), about two hours; the tutorial printed 1.34 % after 716
                 minutes
    smoke        a check that everything works, in seconds; its figures mean nothing
"""

import time
from dataclasses import dataclass

import runs

import keras
import numpy as np

import classifiers
import dbn

RUN_DIR = "runs/dbn_{data_set}"


@dataclass(frozen=True)
class Training:
    """How an RBM or the classifier is trained; the rate falls linearly to a fiftieth if `decay`."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float | None = 0.0  # Of SGD; None for Adam.
    decay: bool = True
    label_smoothing: float = 0.0
    tutorial_patience: bool = False

    def optimizer(self, cases):
        """Returns the optimizer of a training on so many cases."""
        rate = self.learning_rate
        if self.decay:
            updates = self.epochs * -(-cases // self.batch_size)
            rate = keras.optimizers.schedules.PolynomialDecay(rate, updates, rate / 50)
        if self.momentum is None:
            return keras.optimizers.Adam(rate)
        return keras.optimizers.SGD(rate, momentum=self.momentum)


@dataclass(frozen=True)
class Preset:
    """A network and how it is trained; `from_scratch` is the fine-tuning without pretraining."""

    layers: tuple[int, ...]
    pretraining: Training
    fine_tuning: Training
    from_scratch: Training
    kernel_initializer: str | None = None  # Of every layer, in both arms; None for the tutorial's.
    vbias_from_data: bool = False
    cases: int | None = None  # Training cases to use; None for all.


TUTORIAL = Training(1000, 10, 0.1, decay=False, tutorial_patience=True)
SMOKE = Training(2, 50, 0.1, momentum=0.9)
PRESETS = {
    # Chosen on the validation images, with seed 1; the learning rate of the fine-tuning for each
    # arm on its own. From the tutorial's wide start a third of the first layer's units die at this
    # rate of pretraining, and their filters stay noise; from Keras' own start none does, and the
    # arm without pretraining does equally well from both.
    "default": Preset(
        layers=(1000, 1000),
        pretraining=Training(15, 100, 0.1, momentum=0.5),
        fine_tuning=Training(12, 100, 1.5e-3, momentum=None, label_smoothing=0.1),
        from_scratch=Training(12, 100, 3e-3, momentum=None, label_smoothing=0.1),
        kernel_initializer="glorot_uniform",
        vbias_from_data=True,
    ),
    "tutorial": Preset(
        layers=(1000, 1000, 1000),
        pretraining=Training(100, 10, 0.01, decay=False),
        fine_tuning=TUTORIAL,
        from_scratch=TUTORIAL,
    ),
    "smoke": Preset(
        layers=(30, 20), pretraining=SMOKE, fine_tuning=SMOKE, from_scratch=SMOKE, cases=500
    ),
}


class TutorialPatience(keras.callbacks.Callback):
    """Stops as the tutorial's DBN.py does, which looks once an epoch.

    Training goes on for at least 4 epochs; an error below 0.995 times the best one extends it to
    twice the epochs made so far.
    """

    def on_train_begin(self, logs=None):
        """Starts counting."""
        self._patience, self._best = 4, np.inf

    def on_epoch_end(self, epoch, logs=None):
        """Extends the patience, or stops."""
        error, done = 1 - logs["val_accuracy"], epoch + 1
        if error < 0.995 * self._best:
            self._patience = max(self._patience, 2 * done)
        self._best = min(self._best, error)
        self.model.stop_training = done >= self._patience


def parse_arguments():
    """Returns the options."""
    parser = runs.make_parser(__doc__, PRESETS, "--no-pretraining")
    runs.add_arguments(parser, RUN_DIR)
    return runs.parse(parser, RUN_DIR)


def fine_tune(model, train, valid, how, seed, folder, metrics):
    """Trains the classifier, and leaves it with the weights of its best epoch."""
    start = time.perf_counter()
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=how.epochs, restore_best_weights=True
    )
    model.compile(
        how.optimizer(len(train.x)),
        keras.losses.CategoricalCrossentropy(label_smoothing=how.label_smoothing),
        metrics=["accuracy"],
        steps_per_execution=50,
        jit_compile=True,
    )
    classes = model.output_shape[-1]
    history = dbn.checkpoints.fit(
        model,
        train.x,
        keras.utils.to_categorical(train.y, classes),
        checkpoint=folder / runs.CHECKPOINTS / "classifier.checkpoint",
        batch_size=how.batch_size,
        seed=seed,
        epochs=how.epochs,
        validation_data=(valid.x, keras.utils.to_categorical(valid.y, classes)),
        callbacks=[best, *[TutorialPatience()] * how.tutorial_patience],
    )
    accuracy = history.history["val_accuracy"]
    metrics.tell(
        "Fine-tuned in {fine_tuning_seconds:.0f} s, {fine_tuning_epochs} epochs; best validation "
        "error {validation_error:.2%} at epoch {best_epoch}",
        fine_tuning_seconds=time.perf_counter() - start,
        fine_tuning_epochs=len(accuracy),
        validation_error=1 - max(accuracy),
        best_epoch=int(np.argmax(accuracy)) + 1,
    )
    metrics["validation_errors"] = [1 - value for value in accuracy]


def draw(stack, x, img_shape, folder):
    """Draws filters of the first layer, and what comes back from the top of the stack."""
    W = stack.rbms[0].layer.W.numpy()[:, :100]
    dbn.images.save(folder / "filters.png", dbn.images.filters(W, img_shape))
    v = stack(x)
    for rbm in reversed(stack.rbms):
        _, v = rbm.layer.propdown(v)
    dbn.images.save(
        folder / "reconstructions.png", dbn.images.reconstructions(x, v.numpy(), img_shape)
    )


def main():
    """Runs the recipe."""
    args = parse_arguments()
    data, info = runs.load_data(args)
    folder = runs.start(args.run_dir, args)
    preset = PRESETS[args.preset]
    train, valid, test = data
    if preset.cases is not None:
        train = dbn.data.Split(train.x[: preset.cases], train.y[: preset.cases])

    keras.utils.set_random_seed(args.seed)
    metrics = runs.Metrics(
        data_set=info.name,
        preset=args.preset,
        pretraining=not args.no_pretraining,
        seed=args.seed,
        layers=[train.x.shape[1], *preset.layers, info.num_classes],
    )
    stack = dbn.DBN(
        [
            dbn.RBMLayer(units, kernel_initializer=preset.kernel_initializer)
            for units in preset.layers
        ]
    )
    stack.build((None, train.x.shape[1]))
    if preset.vbias_from_data:
        stack.rbms[0].layer.set_vbias_from_data(train.x)
    if not args.no_pretraining:
        how = preset.pretraining
        classifiers.pretrain(
            stack,
            train.x,
            folder,
            metrics,
            epochs=how.epochs,
            batch_size=how.batch_size,
            optimizer=how.optimizer(len(train.x)),
        )
        stack.save(folder / "stack.keras")
    draw(stack, test.x[:20], info.img_shape, folder)

    model = stack.classifier(info.num_classes)
    how = preset.from_scratch if args.no_pretraining else preset.fine_tuning
    fine_tune(model, train, valid, how, args.seed, folder, metrics)
    probabilities = model.predict(test.x, batch_size=1000, verbose=0)
    classifiers.test(probabilities.argmax(1), test, info.img_shape, folder, metrics)
    classifiers.export(model, test.x, probabilities, folder, metrics)
    runs.finish(folder, metrics)


if __name__ == "__main__":
    runs.run(main)
