import argparse
import fcntl
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

import dbn

RECIPES = Path(__file__).parents[2] / "recipes"
_spec = importlib.util.spec_from_file_location("runs", RECIPES / "runs.py")
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parse(*arguments, **kwargs):
    parser = argparse.ArgumentParser()
    runs.add_arguments(parser, "runs/some_{data_set}", **kwargs)
    return parser.parse_args(arguments)


def refused(capsys, function, *arguments):
    """The message with which a function exits with code 2."""
    with pytest.raises(SystemExit) as exit:
        function(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("", "runs/some"),
        ("--seed 3", "runs/some-seed3"),
        ("--preset fast --no-pretraining --seed 2", "runs/some-fast-no-pretraining-seed2"),
        ("--validation", "runs/some-validation"),
        ("--preset fast --run-dir mine", "mine"),
    ],
)
def test_a_run_of_another_kind_has_a_folder_of_its_own(words, folder, monkeypatch):
    presets = {"default": None, "fast": None}
    parser = runs.make_parser("", presets, "--no-pretraining", "--validation")
    runs.add_arguments(parser, "runs/some")
    monkeypatch.setattr("sys.argv", ["recipe.py", *words.split()])
    assert runs.parse(parser, "runs/some").run_dir == Path(folder)


def test_a_recipe_lets_others_use_the_gpus_too(monkeypatch):
    told = []
    gpu = runs.tf.config.experimental
    monkeypatch.setattr(runs.signal, "signal", lambda *_: None)
    monkeypatch.setattr(runs.tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", "1"])
    monkeypatch.setattr(gpu, "set_memory_growth", lambda *arguments: told.append(arguments))
    runs.run(lambda: told.append("main"))
    assert told == [("GPU:0", True), ("1", True), "main"]


def test_a_falling_rate_is_zero_after_the_last_update():
    rate = runs.falling(0.4, epochs=3, cases=101, batch_size=50)  # 9 updates.
    assert [float(rate(update)) for update in (0, 9)] == [pytest.approx(0.4), 0.0]
    assert float(rate(3)) == pytest.approx(0.4 * 2 / 3)


# The run folder


@pytest.mark.parametrize("name", ["", "new", "some/new"])
def test_start_takes_a_new_or_an_empty_folder(name, tmp_path, capsys):
    folder = runs.start(str(tmp_path / name), parse())
    assert folder == tmp_path / name
    assert folder.is_dir()
    assert capsys.readouterr().out == ""


def test_start_refuses_a_file_and_leaves_it_as_it_is(tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    said = refused(capsys, runs.start, tmp_path / "file", parse())
    assert "file cannot be a run folder" in said
    assert (tmp_path / "file").read_text() == "a file"


def test_start_takes_a_folder_in_which_it_was_killed(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.start(tmp_path, parse())
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    runs.finish(runs.start(tmp_path, parse()), runs.Metrics(cost=[1.5]))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_start_refuses_a_finished_run_and_leaves_it_as_it_is(tmp_path, capsys):
    runs.finish(runs.start(tmp_path, parse()), runs.Metrics(cost=[1.5]))
    before = contents(tmp_path)
    assert "holds a finished run" in refused(capsys, runs.start, tmp_path, parse())
    assert contents(tmp_path) == before


def test_start_goes_on_with_an_unfinished_run_of_the_same_options(tmp_path, capsys):
    args = parse("--seed", "3", "--data-set", "digits")
    kept = runs.start(tmp_path, args) / runs.CHECKPOINTS / "rbm.checkpoint"
    kept.parent.mkdir()
    kept.write_text("hours of work")
    capsys.readouterr()
    runs.start(tmp_path, args)
    assert capsys.readouterr().out == f"{tmp_path} holds an unfinished run: going on with it.\n"
    assert kept.read_text() == "hours of work"


def test_what_an_unfinished_run_has_computed_is_remembered_until_it_is_finished(tmp_path):
    folder, calls = runs.start(tmp_path, parse()), []

    def compute():
        calls.append(None)
        return [np.float32(0.5), 1 / 3]

    assert runs.remembered(folder, "one", compute) == runs.remembered(folder, "one", compute)
    assert runs.remembered(folder, "one", compute) == [0.5, 1 / 3] and len(calls) == 1
    runs.remembered(folder, "other", compute)
    assert len(calls) == 2
    runs.finish(folder, runs.Metrics(cost=1.0))
    assert not (folder / runs.CHECKPOINTS).exists()


def test_start_refuses_an_unfinished_run_of_other_options_and_leaves_it_as_it_is(tmp_path, capsys):
    (runs.start(tmp_path, parse()) / "rbm.checkpoint").write_text("hours of work")
    before = contents(tmp_path)
    other = parse("--seed", "4")
    said = refused(capsys, runs.start, tmp_path, other)
    assert "'seed': 0" in said and "'seed': 4" in said and "--restart" in said
    assert contents(tmp_path) == before
    for damaged in ("", "[]", "no JSON"):
        (tmp_path / "unfinished").write_text(damaged)
        assert "--restart" in refused(capsys, runs.start, tmp_path, other)
    assert (tmp_path / "rbm.checkpoint").read_text() == "hours of work"


def test_restart_starts_over_whatever_the_options(tmp_path, capsys):
    (runs.start(tmp_path, parse()) / "rbm.checkpoint").write_text("hours of work")
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "weights").write_text("of the broken run")
    args = parse("--seed", "4", "--restart")
    runs.start(tmp_path, args)
    assert "starting it over" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished"]
    args.restart = False
    runs.start(tmp_path, args)
    runs.finish(tmp_path, runs.Metrics())
    assert json.loads((tmp_path / "metrics.json").read_text())["tries"] == 2
    args.restart = True
    assert "holds a finished run" in refused(capsys, runs.start, tmp_path, args)


def test_start_refuses_a_folder_that_another_process_writes(tmp_path, capsys):
    lock = os.open(tmp_path, os.O_RDONLY)  # Another file, which is as good as another process.
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "written by another process" in refused(capsys, runs.start, tmp_path, parse())
    os.close(lock)
    assert runs.start(tmp_path, parse()) == tmp_path


def test_start_refuses_files_of_others_and_leaves_them_as_they_are(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "holds files that are no run's" in refused(capsys, runs.start, tmp_path, parse())
    assert list(contents(tmp_path).values()) == [b"years of work"]


@pytest.mark.parametrize("name", ["file", "file/folder"])
def test_start_refuses_what_can_be_no_folder(name, tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    assert "cannot be a run folder" in refused(capsys, runs.start, tmp_path / name, parse())
    assert (tmp_path / "file").read_text() == "a file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_start_refuses_a_folder_that_cannot_be_written(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(capsys, runs.start, tmp_path / "new", parse())


# Figures


def test_what_is_told_is_kept(capsys):
    metrics = runs.Metrics(seed=3)
    metrics.tell("Error {error:.2%} of {images}", error=0.0134, images=100)
    for epoch in range(2):
        metrics.tell_next(f"Epoch {epoch}: {{cost:.1f}}", cost=-1.5 * epoch)
    assert capsys.readouterr().out == "Error 1.34% of 100\nEpoch 0: -0.0\nEpoch 1: -1.5\n"
    assert metrics == {"seed": 3, "error": 0.0134, "images": 100, "cost": [0.0, -1.5]}


def test_finish_writes_the_figures_and_the_machine(tmp_path, capsys):
    folder = runs.start(tmp_path, parse())
    (folder / runs.CHECKPOINTS).mkdir()
    (folder / runs.CHECKPOINTS / "rbm.checkpoint").write_text("of use until here")
    figures = {"cost": [np.float32(-1.5)], "error": np.float64(0.25), "by_layer": {"0": 1}}
    runs.finish(folder, runs.Metrics(figures, images=np.int64(7), shape=np.array([8, 8])))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    text = (tmp_path / "metrics.json").read_text()
    metrics = json.loads(text)
    assert list(metrics) == sorted(metrics) and "tries" not in metrics
    assert metrics["cost"] == [-1.5]
    assert (metrics["error"], metrics["images"], metrics["shape"]) == (0.25, 7, [8, 8])
    assert metrics["machine"]["dbn"] == dbn.__version__
    assert metrics["machine"]["cpus"] >= 1
    assert metrics["total_seconds"] > 0
    assert 0.05 < metrics["peak_memory_gib"] < 100
    assert str(tmp_path) not in text
    assert f"{metrics['peak_memory_gib']:.2f} GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value",
    [np.nan, np.inf, [1.0, -np.inf], {"a": [np.nan]}, np.float32("nan"), np.array([0, np.nan])],
)
def test_finish_refuses_figures_that_are_not_finite(value, tmp_path):
    folder = runs.start(tmp_path, parse())
    with pytest.raises(ValueError, match="'cost' must be finite"):
        runs.finish(folder, runs.Metrics(cost=value))
    assert not (tmp_path / "metrics.json").exists()


def test_metrics_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(_):
        raise OSError("No space left on device")

    folder = runs.start(tmp_path, parse())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        runs.finish(folder, runs.Metrics(cost=1.0))
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.undo()
    runs.finish(runs.start(tmp_path, parse()), runs.Metrics(cost=1.0))


# Options and data


def test_default_options():
    args = parse()
    assert (args.data_set, args.run_dir, args.seed) == (None, Path("runs/some_{data_set}"), 0)


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "", str(2**32)])
def test_a_seed_is_an_integer_that_keras_takes(seed, capsys):
    assert "integer from 0 to 2**32 - 1" in refused(capsys, parse, "--seed", seed)


def test_a_named_data_set_is_taken_in_silence(capsys):
    args = parse("--data-set", "digits")
    data, info = runs.load_data(args)
    assert info.name == "digits" == args.data_set
    assert data.train.x.shape[1] == 64
    assert args.run_dir == Path("runs/some_digits")
    assert capsys.readouterr().out == ""


def test_an_unnamed_data_set_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(dbn.data, "default_name", lambda: ("digits", "Digits, because."))
    args = parse()
    assert runs.load_data(args)[1].name == "digits"
    assert args.run_dir == Path("runs/some_digits")
    assert capsys.readouterr().out == "Digits, because.\n"


@pytest.mark.parametrize("error", [FileNotFoundError, ValueError])
def test_a_data_set_that_was_named_is_never_replaced(error, monkeypatch, capsys):
    def fail(name):
        raise error(f"{name} cannot be had")

    monkeypatch.setattr(dbn.data, "load", fail)
    args = parse("--data-set", "mnist")
    assert "mnist cannot be had" in refused(capsys, runs.load_data, args)


# What must be installed


def test_another_keras_backend_is_refused_by_dbns_own_message(tmp_path, run_recipe):
    done = run_recipe("rbm_mnist.py", "--help", cwd=tmp_path, KERAS_BACKEND="jax")
    assert done.returncode != 0
    assert "KERAS_BACKEND=tensorflow" in done.stderr
    assert "pip install" not in done.stderr
