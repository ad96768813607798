"""Trainings that are broken off anywhere and begun again end with the bits of one that was not."""

import collections
import errno
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
from dbn import checkpoints
from dbn.checkpoints import Checkpoint

pytestmark = pytest.mark.usefixtures("without_xla")

X = np.random.default_rng(0).random((22, 6), dtype=np.float32)
Y = np.random.default_rng(1).integers(0, 3, 22)
VALID = np.random.default_rng(2).random((9, 6), dtype=np.float32)
BOTH = ["pseudo_log_likelihood", "reconstruction_cross_entropy"]
HOOKS = [
    f"on_{what}_{when}"
    for what in ("train", "epoch", "train_batch", "test")
    for when in ("begin", "end")
]


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, so nothing more is written."""


class Kill(keras.callbacks.Callback):
    """Raises when Keras calls it for the so many-th time, whatever for."""

    def __init__(self, at, what=Killed):
        super().__init__()
        # An iterator: a number would be what this callback remembers.
        self.before, self.what = iter(range(at - 1)), what
        for hook in HOOKS:
            setattr(self, hook, self._count)

    def _count(self, *_, **__):
        if next(self.before, None) is None:
            raise self.what


def stream(parts=5, pairs=False):
    """A Dataset of a generator, whose length is unknown."""
    spec = tf.TensorSpec(None, tf.float32)
    return tf.data.Dataset.from_generator(
        lambda: (X[at : at + parts] for at in range(0, len(X), parts)), output_signature=spec
    )


@functools.cache
def in_shards():
    """The cases in files, of which a pool of 8 is shuffled at a time."""
    folder = Path(tempfile.mkdtemp()) / "shards"
    dbn.shards.write(folder, X, rows_per_shard=9)
    return dbn.shards.Shards(folder, buffer=8 * 24)


def optimizer():
    rate = keras.optimizers.schedules.PolynomialDecay(0.1, 20, 0.01)
    return keras.optimizers.SGD(rate, momentum=0.5, use_ema=True, ema_momentum=0.9)


RBMS = {
    "PCD": lambda: {"k": 2, "persistent": True, "chains": 3},
    "CD": lambda: {},
    "parts": lambda: {
        "negative": dbn.negative.FastPCD(1, 4),
        "gradient": dbn.gradients.Centered(),
        "sparsity": dbn.penalties.Sparsity(0.2),
        "binarize": True,
    },
    "tempering": lambda: {"negative": dbn.negative.ParallelTempering(1, 2, 3)},
}
DATA = {
    "array": lambda: {"x": X, "batch_size": 5},
    "shards": lambda: {"x": in_shards(), "batch_size": 5},
    "stream": lambda: {"x": stream()},
    "stream by steps": lambda: {"x": stream(), "steps_per_epoch": 7},
}


def make(kind="PCD", seed=7, **compile_arguments):
    keras.utils.set_random_seed(3)
    rbm = dbn.RBM(dbn.RBMLayer(4), seed=seed, **RBMS[kind]())
    rbm.build((None, 6))
    arguments = {"metrics": BOTH, "jit_compile": False, "steps_per_execution": 3}
    rbm.compile(**{"optimizer": optimizer(), **arguments, **compile_arguments})
    rbm.optimizer.build(rbm.trainable_variables)
    return rbm


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def state(model):
    return [np.array(variable.value) for variable in variables(model)]


@functools.cache
def _made(kind):
    rbm = make(kind)
    return rbm, state(rbm)


def ready(kind="PCD"):
    """An RBM as it is made."""
    return put(*_made(kind))


def fit(rbm, path=None, data="array", every=1, epochs=3, callbacks=(), **kwargs):
    """Returns the history of a `fit` that keeps its checkpoints at a path, if one is given."""
    return rbm.fit(
        **{**DATA[data](), "epochs": epochs, "verbose": 0, **kwargs},
        validation_data=VALID,
        callbacks=list(callbacks),
        checkpoint=path and Checkpoint(path, every=every),
    ).history


def put(model, values):
    """Goes back to what `state` returned: as in a new process, but compiled already."""
    for variable, value in zip(variables(model), values, strict=True):
        variable.assign(value)
    return model


def assert_same(left, right):
    """Bit for bit."""
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def facts(path):
    return checkpoints.read(path)[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "rbm.checkpoint"


# The same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "every", "places"),
    [
        ("array", 1, range(2, 19, 3)),
        ("array", 1000, (9, 16)),
        ("shards", 1, (7, 17)),
        ("stream", 4, (7, 17)),
        ("stream by steps", 1, (7, 13, 20)),
    ],
)
def test_killed_wherever_callbacks_are_called_it_ends_with_the_same_bits(
    data, every, places, tmp_path
):
    rbm = ready()
    history, expected = fit(rbm, data=data, epochs=2), state(rbm)
    for at in places:
        path = tmp_path / f"{at}.checkpoint"
        with pytest.raises(Killed):
            fit(ready(), path, data, every, 2, [Kill(at)])
        assert fit(ready(), path, data, every, 2) == history
        assert_same(state(rbm), expected)


@pytest.mark.parametrize("kind", RBMS)
def test_killed_again_and_again_it_gets_to_the_same_end(kind, path):
    rbm = ready(kind)
    history, expected = fit(rbm, epochs=4), state(rbm)
    tries, again = 0, None
    while again is None and tries < 40:
        tries += 1
        try:
            # Some get further than others; each at least to one more checkpoint.
            again = fit(ready(kind), path, epochs=4, callbacks=[Kill(9 + tries % 3)])
        except Killed:
            pass
    assert tries > 3
    assert again == history
    assert_same(state(rbm), expected)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("late", [False, True])
def test_killed_while_a_checkpoint_is_written(call, late, path, monkeypatch):
    rbm = ready()
    history, expected = fit(rbm, epochs=2), state(rbm)
    done, real = 0, getattr(os, call)

    def killed(*arguments):
        nonlocal done
        done += 1
        if late:
            real(*arguments)
        if done % 4 == 3:
            raise Killed
        if not late:
            real(*arguments)

    monkeypatch.setattr(os, call, killed)
    again = None
    while again is None:
        try:
            again = fit(ready(), path, epochs=2)
        except Killed:
            assert facts(path)["start"] == 0  # A good one, always.
    assert done > 4
    assert again == history
    assert_same(state(rbm), expected)


def test_the_executions_may_be_others_after_a_kill(path):
    def rbm(steps):
        return make(run_eagerly=True, steps_per_execution=steps)

    first = rbm(3)
    history, expected = fit(first), state(first)
    with pytest.raises(Killed):
        fit(rbm(3), path, callbacks=[Kill(15)])
    assert (facts(path)["done"], facts(path)["made"]) == (1, 3)
    last = rbm(2)
    assert fit(last, path) == history
    assert_same(state(last), expected)


def test_checkpoints_are_so_many_updates_apart(path, monkeypatch):
    written = []
    real = checkpoints.write

    def write(path, facts, arrays):
        written.append((facts["done"], facts["made"]))
        real(path, facts, arrays)

    monkeypatch.setattr(checkpoints, "write", write)
    rbm = ready()
    fit(rbm, path, every=4, epochs=4)
    # Executions of 3 and 2 updates: 0, 3, 5 | 8, 10 | 13, 15 | 18, 20.
    assert written == [(0, None), (1, None), (2, None), (3, None), (4, None)]
    written.clear()
    fit(ready(), path.with_name("other"), every=3, epochs=2)
    assert written == [(0, None), (0, 3), (1, 3), (2, None)]


def test_callbacks_go_on_from_what_they_remembered(tmp_path):
    def stopping():
        return keras.callbacks.EarlyStopping(
            "val_reconstruction_cross_entropy",
            mode="max",
            patience=2,
            restore_best_weights=True,
        )

    rbm = ready()
    history, expected = fit(rbm, epochs=9, callbacks=[stopping()]), state(rbm)
    epochs = len(history["pseudo_log_likelihood"])
    assert 3 <= epochs < 9
    for at in range(5, 8 * epochs, 9):
        path = tmp_path / f"{at}.checkpoint"
        with pytest.raises(Killed):
            fit(ready(), path, epochs=9, callbacks=[stopping(), Kill(at)])
        for _ in range(2):  # The second time, nothing is left to do.
            assert fit(ready(), path, epochs=9, callbacks=[stopping()]) == history
            assert_same(state(rbm), expected)
    assert facts(path)["stopped"]


def test_a_learning_rate_that_callbacks_change_epoch_by_epoch(path):
    def callbacks():
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 * rate)]

    rbm = make(optimizer=keras.optimizers.SGD(0.1))
    start = state(rbm)
    fit(rbm, callbacks=callbacks())
    expected = state(rbm)
    for at in (7, 8, 6):
        with pytest.raises(Killed):
            fit(put(rbm, start), path, callbacks=[*callbacks(), Kill(at)])
    fit(put(rbm, start), path, callbacks=callbacks())
    assert_same(state(rbm), expected)
    assert float(rbm.optimizer.learning_rate) == np.float32(0.0125)


def test_more_epochs_may_be_asked_for_later(path):
    rbm = ready()
    history, expected = fit(rbm, epochs=3), state(rbm)
    fit(ready(), path, epochs=1)
    assert fit(ready(), path, epochs=3) == history
    assert_same(state(rbm), expected)


def test_training_in_two_calls_with_a_checkpoint_each(tmp_path):
    rbm = ready()
    for _ in range(2):
        fit(rbm, epochs=2)
    expected = state(rbm)
    first, second = (tmp_path / name for name in ("first", "second"))
    fit(ready(), first, epochs=2)
    with pytest.raises(Killed):
        fit(rbm, second, epochs=2, callbacks=[Kill(9)])
    fit(ready(), first, epochs=2)
    fit(rbm, second, epochs=2)
    assert_same(state(rbm), expected)


# By hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "places"), [(KeyboardInterrupt, range(2, 26, 3)), (SystemExit, (8, 23))]
)
def test_stopped_by_hand_a_checkpoint_is_written_and_a_line_tells(what, places, tmp_path, capsys):
    rbm = ready()
    history, expected = fit(rbm), state(rbm)
    kept = set()
    for at in places:
        path = tmp_path / f"{at}.checkpoint"
        with pytest.raises(what):
            fit(ready(), path, every=1000, callbacks=[Kill(at, what)])
        said = capsys.readouterr().err
        assert f"kept in {path}: the same command goes on" in said
        assert said.strip().count("\n") == 0
        kept.add((facts(path)["done"], facts(path)["made"]))
        # In the same process as well: in a notebook, the cell is run again.
        assert fit(rbm if at % 2 else ready(), path, every=1000) == history
        assert_same(state(rbm), expected)
    assert len(places) == 2 or {(0, 3), (1, 3), (2, 0), (2, 3)} <= kept


def test_sigterm_is_handled_while_training_only_and_by_no_other_thread(path):
    seen = []

    def look(*_):
        seen.append(signal.getsignal(signal.SIGTERM))

    watch = keras.callbacks.LambdaCallback(on_epoch_end=look)
    before = signal.getsignal(signal.SIGTERM)
    fit(ready(), path, epochs=1, callbacks=[watch])
    assert seen.pop() not in (before, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(Killed):
        fit(ready(), path.with_name("killed"), callbacks=[Kill(5)])
    assert signal.getsignal(signal.SIGTERM) == before
    fit(ready(), epochs=1, callbacks=[watch])  # without a checkpoint
    arguments = {"path": path.with_name("thread"), "epochs": 1, "callbacks": [watch]}
    thread = threading.Thread(target=fit, args=(ready(),), kwargs=arguments)
    thread.start()
    thread.join()
    assert facts(path.with_name("thread"))["done"] == 1
    assert seen == [before, before]


def send(number):
    """A callback that sends this process a signal after the first epoch."""

    def kill(epoch, _):
        if epoch == 0:
            os.kill(os.getpid(), number)

    return keras.callbacks.LambdaCallback(on_epoch_end=kill)


def test_a_handler_of_somebody_else_decides(path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        fit(ready(), path, epochs=3, callbacks=[send(signal.SIGTERM)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert facts(path)["done"] == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_is_heard_later(path):
    class Dropping:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def drop(epoch, _):
        if epoch == 1:
            Dropping()

    dropping = keras.callbacks.LambdaCallback(on_epoch_end=drop)
    # A shell starts what is to run in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(ready(), path, callbacks=[dropping])
    finally:
        signal.signal(signal.SIGINT, before)
    assert facts(path)["done"] == 1


# DBN and plain models -------------------------------------------------------------------------


@functools.cache
def _stack():
    keras.utils.set_random_seed(5)
    stack = dbn.DBN([dbn.RBM(4, persistent=True, chains=3), 3])
    stack.build((None, 6))
    for rbm in stack.rbms:
        rbm.compile(keras.optimizers.SGD(0.1), jit_compile=False, steps_per_execution=2)
        rbm.optimizer.build(rbm.trainable_variables)
    return stack, [state(rbm) for rbm in stack.rbms]


def pretrain(path=None, callbacks=(), x=X, cache=None):
    """Pretrains a new stack; returns its histories and its state."""
    stack, start = _stack()
    for rbm, values in zip(stack.rbms, start, strict=True):
        put(rbm, values)
    histories = stack.pretrain(
        x,
        epochs=[2, 3],
        batch_size=5,
        verbose=0,
        callbacks=list(callbacks),
        checkpoint=path and Checkpoint(path, every=2),
        cache=cache,
    )
    return [history.history for history in histories], sum(map(state, stack.rbms), [])


def test_pretraining_killed_in_a_layer_and_between_two(tmp_path):
    histories, expected = pretrain()
    ends = {}
    # 18 calls in the first layer; the last, and the first of the second.
    for at in (15, 18, 19, 44):
        path = tmp_path / str(at)
        with pytest.raises(Killed):
            pretrain(path, [Kill(at)])
        ends[at] = sorted(file.name for file in path.iterdir())
        again, end = pretrain(path)
        assert again == histories
        assert_same(end, expected)
    assert ends[18] == ["rbm_1.checkpoint"]
    assert ends[19] == ends[44] == ["rbm_1.checkpoint", "rbm_2.checkpoint"]


@pytest.mark.parametrize("kept", [False, True], ids=["on the fly", "cache"])
def test_pretraining_from_shards_killed_in_a_layer_and_between_two(kept, tmp_path, monkeypatch):
    def run(name, callbacks=()):
        folder = tmp_path / name
        return pretrain(folder, callbacks, in_shards(), folder / "cache" if kept else None)

    histories, expected = run("whole")
    for at in (15, 19, 44):
        with pytest.raises(Killed):
            run(str(at), [Kill(at)])
        again, end = run(str(at))
        assert again == histories
        assert_same(end, expected)
    if kept:  # And while the activations are written.
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(
                dbn.shard_files, "remove", lambda folder: folder.rmdir()
            )  # What SIGKILL does.
            patch.setattr(os, "rename", Kill(1)._count)
            run("rename")
        assert [path.name for path in (tmp_path / "rename/cache").iterdir()] == ["layer_1.part"]
        again, end = run("rename")
        assert again == histories
        assert_same(end, expected)


def classifier():
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, "sigmoid"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=2,
    )
    return model


def fine_tune(model, path, callbacks=(), x=X, y=Y, **kwargs):
    best = keras.callbacks.EarlyStopping("val_loss", patience=50, restore_best_weights=True)
    return checkpoints.fit(
        model,
        x,
        y,
        checkpoint=path,
        **{"batch_size": 5 if y is not None else None, "epochs": 4, "seed": 11, **kwargs},
        validation_data=(VALID, Y[:9]),
        verbose=0,
        callbacks=[best, *callbacks],
    ).history


@pytest.mark.parametrize(
    ("data", "places"),
    [
        ({}, (4, 17, 21, 39)),
        ({"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(5), "y": None}, (19,)),
    ],
)
def test_a_plain_model_killed_anywhere_ends_with_the_same_bits(data, places, tmp_path):
    model = classifier()
    model.optimizer.build(model.trainable_variables)
    start = state(model)
    history, expected = fine_tune(model, tmp_path / "whole", **data), state(model)
    assert len(history["val_loss"]) == 4
    for at in places:
        path = tmp_path / f"{at}.checkpoint"
        with pytest.raises(Killed):
            fine_tune(put(model, start), path, [Kill(at)], **data)
        assert fine_tune(put(model, start), path, **data) == history
        assert_same(state(model), expected)


def test_without_a_checkpoint_before_it_is_keras_own_fit(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    expected, model = classifier(), classifier()
    history = expected.fit(data, epochs=3, verbose=0, shuffle=False).history
    found = checkpoints.fit(model, data, checkpoint=tmp_path / "file", epochs=3, verbose=0).history
    assert found == history
    assert_same(state(model), state(expected))


def test_a_plain_model_visits_all_cases_in_an_order_of_seed_and_epoch(tmp_path):
    seen = []

    class Spy(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            seen.append(np.array(y).tolist())
            self.optimizer.iterations.assign_add(1)
            return {"loss": tf.reduce_mean(x)}

    model = Spy()
    model(np.zeros((1, 6), "float32"))
    model.compile("sgd", "mse", run_eagerly=True)
    cases = np.arange(22)
    checkpoints.fit(
        model, X, cases, checkpoint=tmp_path / "spy", batch_size=5, epochs=2, seed=9, verbose=0
    )
    expected = []
    for epoch in range(2):
        order = np.array(dbn.noise.permutation(22, 9, epoch))
        expected += [order[at : at + 5].tolist() for at in range(0, 22, 5)]
    assert seen == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y[:21]}, r"equally many cases; got \[21, 22\]"),
        ({"y": None}, "`y` must hold numbers; got dtype object"),
        ({"sample_weight": np.ones(22)}, "`sample_weight` has no place"),
        ({"checkpoint": Checkpoint("file")}, "`checkpoint` must be a path: it is"),
        ({"steps_per_epoch": 3}, "`steps_per_epoch` has no place"),
        ({"validation_split": 0.1}, "`validation_split` has no place"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_a_plain_model_with_bad_arguments(change, message, tmp_path):
    arguments = {"x": X, "y": Y, "checkpoint": tmp_path / "file", **change}
    with pytest.raises(ValueError, match=message):
        checkpoints.fit(classifier(), **arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array(["a"] * 22), "`y` must hold numbers; got dtype <U1"),
        (np.array([None] * 22), "`y` must hold numbers; got dtype object"),
        ({"linear": np.array([b"1.5"] * 22)}, r"`y` must hold numbers; got dtype \|S3"),
        ([1.5] * 22, r"must be arrays of cases, or dicts.*; got 1.5 for an array"),
    ],
)
def test_targets_of_a_regressor_that_are_no_numbers_or_no_array(y, message, tmp_path):
    stack = dbn.DBN([4])
    stack.build((None, 6))
    model = stack.regressor()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=message):
        checkpoints.fit(model, X, y, checkpoint=tmp_path / "file")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda data: data.repeat(), "`x` is an infinite Dataset"),
        (lambda data: data.take(0), "The Dataset is empty"),
    ],
)
def test_a_dataset_without_an_epoch(parts, message, tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    with pytest.raises(ValueError, match=message):
        checkpoints.fit(classifier(), parts(data), checkpoint=tmp_path / "file")
    assert not any(tmp_path.iterdir())


def test_no_cases_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="x and y are empty"):
        checkpoints.fit(model, X[:0], X[:0, :1], checkpoint=tmp_path / "file")


def test_each_epoch_is_kept_where_gradients_are_accumulated(tmp_path):
    def fitted(path, callbacks=()):
        model = classifier()
        adam = keras.optimizers.Adam(0.05, gradient_accumulation_steps=2)
        model.compile(adam, "sparse_categorical_crossentropy")
        fine_tune(model, path, callbacks)
        return state(model)

    expected = fitted(tmp_path / "whole")
    with pytest.raises(Killed):
        fitted(tmp_path / "half", [Kill(19)])
    assert facts(tmp_path / "half")["done"] == 1
    assert_same(fitted(tmp_path / "half"), expected)


def test_a_list_of_arrays_is_what_a_tuple_is(tmp_path):
    def fitted(x):
        keras.utils.set_random_seed(3)
        inputs = [keras.Input((6,)), keras.Input((2,))]
        outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(inputs))
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        path = tmp_path / type(x).__name__
        checkpoints.fit(model, x, X[:, :1], checkpoint=path, verbose=0)
        return state(model)

    assert_same(fitted([X, X[:, :2]]), fitted((X, X[:, :2])))


def test_another_class_weight_is_another_training(tmp_path):
    fine_tune(classifier(), tmp_path / "file", epochs=1, class_weight={2: 100.0})
    fine_tune(classifier(), tmp_path / "file", epochs=2, class_weight={2: 100.0})
    with pytest.raises(ValueError, match="another training: `class_weight.* there and .* here"):
        fine_tune(classifier(), tmp_path / "file", epochs=3, class_weight={0: 100.0})


def test_rates_by_layer_are_known_again_whatever_keras_calls_the_layers(tmp_path):
    def fitted(rate, epochs):
        model = classifier()
        rates = {model.layers[0]: rate, model.layers[-1]: 0.2}
        optimizer = dbn.fine_tuning.by_layer(model, keras.optimizers.SGD(0.1), rates)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return fine_tune(model, tmp_path / "file", epochs=epochs)

    assert len(fitted(0.01, 1)["loss"]) == 1
    assert len(fitted(0.01, 2)["loss"]) == 2
    with pytest.raises(ValueError, match="another training: .*learning_rate"):
        fitted(0.02, 3)


def test_callbacks_remember_what_they_numbered(tmp_path):
    class Note(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = {}

        def on_epoch_end(self, epoch, logs=None):
            self.seen[epoch] = {"best": np.float32(epoch), "as": [str(epoch)]}

    fine_tune(classifier(), tmp_path / "file", [Note()], epochs=2)
    note = Note()
    fine_tune(classifier(), tmp_path / "file", [note], epochs=3)
    assert note.seen == {n: {"best": n, "as": [str(n)]} for n in range(3)}


def test_variables_and_dicts_of_callbacks_stay_the_objects_that_they_are(tmp_path):
    class Note(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.scale, self.sums = tf.Variable(1.0), keras.Variable([0.0, 1.0])
            self.seen = collections.defaultdict(list)

        def on_epoch_end(self, epoch, logs=None):
            self.scale.assign_add(0.5)
            self.sums.assign(self.sums + self.scale)
            self.seen[f"{epoch % 2}"].append(epoch)

    whole, resumed = Note(), Note()
    variables = resumed.scale, resumed.sums
    fine_tune(classifier(), tmp_path / "whole", [whole], epochs=3)
    fine_tune(classifier(), tmp_path / "file", [Note()], epochs=2)
    fine_tune(classifier(), tmp_path / "file", [resumed], epochs=3)
    assert (resumed.scale, resumed.sums) == variables
    assert float(resumed.scale) == float(whole.scale) == 2.5
    np.testing.assert_array_equal(resumed.sums, whole.sums)
    assert resumed.seen == whole.seen == {"0": [0, 2], "1": [1]}


@pytest.mark.parametrize("inputs", [[], [keras.Input((6,))]])
def test_a_plain_model_that_is_not_built_or_not_compiled(inputs, tmp_path):
    model = keras.Sequential([*inputs, keras.layers.Dense(3)])
    if not inputs:
        model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must be compiled, and built"):
        checkpoints.fit(model, X, X[:, :3], checkpoint=tmp_path / "file")


# Processes that are killed ---------------------------------------------------------------------

SCRIPT = """
import os
import keras, numpy as np
import dbn

class Tell(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os.write(1, b".")

random = np.random.default_rng(0)
x = random.random((400, 12), dtype="float32")
keras.utils.set_random_seed(2)
stack = dbn.DBN([dbn.RBM(8, k=2, persistent=True, chains=5), 6])
for rbm in stack.rbms:
    # An execution an epoch. The tests of the recipes do it with XLA.
    rbm.compile(keras.optimizers.SGD(0.1), steps_per_execution=40, jit_compile=False)
stack.pretrain(
    x, epochs=12, batch_size=10, callbacks=[Tell()], verbose=0,
    checkpoint=dbn.checkpoints.Checkpoint(folder, every=100),
)
end = [np.array(v.value) for v in stack.variables]
"""


def stopped(folder, executions, signal):
    """Runs the script in a process of its own, and sends it a signal after so many executions.

    Returns its exit code, the layers it has a checkpoint of, and what it said.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", f"folder = {str(folder)!r}\n{SCRIPT}"],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert len(process.stdout.read(executions)) == executions
    process.send_signal(signal)
    _, said = process.communicate(timeout=60)
    names = {path.stem for path in folder.glob("*.checkpoint")}
    return process.returncode, sorted(names), said.decode()


def end(folder):
    """Runs the script in this process; returns the weights."""
    names = {"folder": folder}
    exec(SCRIPT, names)
    return names["end"]


def test_processes_stopped_in_a_layer_and_killed_in_the_next(tmp_path):
    code, layers, said = stopped(tmp_path, 4, signal.SIGTERM)
    assert (code, layers) == (143, ["rbm_1"])
    path = tmp_path / "rbm_1.checkpoint"
    assert said.strip().endswith(f"kept in {path}: the same command goes on from there.")
    assert "Traceback" not in said
    assert 40 * facts(path)["done"] + (facts(path)["made"] or 0) >= 3 * 40
    code, layers, _ = stopped(tmp_path, 16, signal.SIGKILL)
    assert (code, layers) == (-signal.SIGKILL, ["rbm_1", "rbm_2"])
    assert_same(end(tmp_path), end(tmp_path / "whole"))


# What is refused ------------------------------------------------------------------------------


@pytest.fixture
def written(path):
    """The path of a checkpoint in the middle of an epoch, and what is in the file."""
    with pytest.raises(Killed):
        fit(ready(), path, callbacks=[Kill(15)])
    assert facts(path)["made"] == 3
    return path, path.read_bytes()


def refused(path, content, message, error=ValueError, **kwargs):
    """Asserts that a file with this content is refused before any update, and left as it is."""
    path.write_bytes(content)
    rbm = ready()
    with pytest.raises(error, match=f"(?s){message}"):
        fit(rbm, path, callbacks=[Kill(1)], **kwargs)
    assert_same(state(rbm), _made("PCD")[1])
    assert path.read_bytes() == content


def test_a_truncated_checkpoint_is_refused(written):
    path, content = written
    for size in (0, 1, 60, 95, 99, 150, len(content) // 2, len(content) - 1):
        message = r"rbm.checkpoint is (damaged|no checkpoint of dbn).* To start over, remove it"
        refused(path, content[:size], message)
    refused(path, content + b"\0", "rbm.checkpoint is damaged")


def test_a_checkpoint_with_any_bit_flipped_is_refused(written):
    path, content = written
    random = np.random.default_rng(0)
    places = {*range(0, 110), *random.integers(0, len(content), 200)}
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="rbm.checkpoint is"):
            checkpoints.read(path)


@pytest.mark.parametrize(
    "content", [b"", b"years of work", b"PK\x03\x04" + bytes(100), bytes(1000), b"\x80\x04\x95"]
)
def test_a_foreign_file_is_refused_and_left_as_it_is(content, path):
    path.parent.mkdir()
    refused(path, content, "rbm.checkpoint is no checkpoint of dbn")


def test_a_pickle_inside_is_not_read(written, monkeypatch):
    path, _ = written
    harm = np.array([print], dtype=object)
    real = np.savez
    monkeypatch.setattr(np, "savez", lambda file, **arrays: real(file, harm=harm, **arrays))
    checkpoints.write(path, {}, {})
    refused(path, path.read_bytes(), "allow_pickle=False")


def test_another_format_is_refused(written):
    path, content = written
    refused(path, content.replace(b"format 1,", b"format 2,"), "of format 2; .* format 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: (make("CD"), {}), "model.negative.class_name` is 'PCD' there and 'CD' here"),
        (lambda: (make(seed=8), {}), "`model.seed` is 7 there and 8 here"),
        (lambda: (make(optimizer=keras.optimizers.SGD(0.2)), {}), "learning_rate.*0.2"),
        (lambda: (make(optimizer="adam"), {}), "'SGD' there and 'Adam' here"),
        (lambda: (make(metrics="reconstruction_cross_entropy"), {}), "`training.metrics"),
        (lambda: (make(jit_compile=True), {}), "`training.jit_compile` is False there and True"),
        (lambda: (ready(), {"batch_size": 4}), "`batch_size` is 5 there and 4 here"),
        (lambda: (ready(), {"shuffle": False}), "`shuffle` is True there and False here"),
        (lambda: (ready(), {"initial_epoch": 1}), "`initial_epoch`"),
        (lambda: (ready(), {"x": X[::-1]}), r"`x.0` is '\(22, 6\) float32, sum .*' there"),
        (lambda: (ready(), {"x": X[:20]}), r"\(20, 6\) float32"),
        (lambda: (ready(), {"steps_per_epoch": 3}), "`steps_per_epoch` is 5 there and 3 here"),
        (lambda: (ready(), {"epochs": 1}), "made 2 epochs already, more than 1"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change, message, written):
    path, content = written
    rbm, kwargs = change()
    before = state(rbm)
    if kwargs.get("epochs"):
        fit(ready(), path, epochs=2)
        content = path.read_bytes()
        rbm = ready()
    with pytest.raises(ValueError, match=f"(?s)rbm.checkpoint is the checkpoint of .*{message}"):
        fit(rbm, path, callbacks=[Kill(1)], **kwargs)
    assert_same(state(rbm), before)
    assert path.read_bytes() == content


def test_another_architecture_is_refused_by_name(written):
    path, _ = written
    keras.utils.set_random_seed(3)
    rbm = dbn.RBM(dbn.RBMLayer(5), seed=7, **RBMS["PCD"]())
    rbm.compile(optimizer(), metrics=BOTH, jit_compile=False, steps_per_execution=3)
    with pytest.raises(ValueError, match="units` is 4 there and 5 here"):
        fit(rbm, path)


def test_names_that_keras_numbers_are_no_difference(written):
    path, _ = written
    rbm = make()
    assert rbm.name != _made("PCD")[0].name
    fit(rbm, path)
    expected = state(rbm)
    fit(ready(), path)
    assert_same(state(rbm), expected)


def test_a_second_training_at_the_same_path_is_refused(path):
    rbm = ready()
    fit(rbm, path)
    before = state(rbm)
    with pytest.raises(ValueError, match="finished training .* after 0 updates; .* has made 15"):
        fit(rbm, path)
    assert_same(state(rbm), before)


def test_a_dataset_that_is_never_the_same_twice_is_refused(path):
    data = tf.data.Dataset.from_tensor_slices(X).shuffle(22).batch(5)
    with pytest.raises(ValueError, match="reshuffle_each_iteration=False"):
        ready().fit(data, verbose=0, checkpoint=path)
    assert not path.exists()


@pytest.mark.parametrize("given", [3, True, None, b"x"])
def test_what_is_no_path_is_refused(given):
    with pytest.raises(ValueError, match="must be a path or a `Checkpoint`"):
        Checkpoint(given)


@pytest.mark.parametrize("every", [0, -1, 1.5, "epoch"])
def test_every_is_a_number_of_updates(every):
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        Checkpoint("file", every)


# Files that cannot be written -----------------------------------------------------------------


def test_a_full_disk_is_told_and_the_checkpoint_before_is_whole(path, monkeypatch):
    rbm = ready()
    history, expected = fit(rbm), state(rbm)
    calls, real = 0, os.fsync

    def full(file):
        nonlocal calls
        calls += 1
        if calls > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(os, "fsync", full)
        fit(ready(), path)
    assert caught.value.errno == errno.ENOSPC
    assert f"The checkpoint {path} could not be written: No space left" in str(caught.value)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert facts(path)["done"] + (facts(path)["made"] or 0) > 0
    assert fit(ready(), path) == history
    assert_same(state(rbm), expected)


@pytest.mark.parametrize("name", ["file/rbm", "file/folder/rbm"])
def test_a_folder_that_cannot_be_is_told_before_any_update(name, tmp_path):
    (tmp_path / "file").write_text("a file")
    rbm = ready()
    with pytest.raises(OSError, match=f"{name}|{tmp_path}/file"):
        fit(rbm, tmp_path / name, callbacks=[Kill(1)])
    assert_same(state(rbm), _made("PCD")[1])
    assert (tmp_path / "file").read_text() == "a file"


def test_a_read_only_folder_is_told_before_any_update(path, monkeypatch):
    real, rbm = Path.open, ready()

    def read_only(self, mode="r", *arguments):  # root may write everywhere
        if "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(self, mode, *arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Read-only file system"):
        patch.setattr(Path, "open", read_only)
        fit(rbm, path, callbacks=[Kill(1)])
    assert_same(state(rbm), _made("PCD")[1])
