import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="session")
def run_recipe():
    """Runs a recipe as a user does, in a process of its own."""

    def run(name, *arguments, cwd, **environment):
        return subprocess.run(
            [sys.executable, str(RECIPES / name), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def refused_recipe(tmp_path, monkeypatch, capsys):
    """Runs a recipe's `main` in this process, in a folder of its own; returns its complaint."""
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *arguments])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(name.removesuffix(".py")).main()
        assert end.value.code == 2 and not any(tmp_path.iterdir())
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def stop_recipe():
    """Starts a recipe, and sends it a signal when it has printed something."""

    def stop(number, printed, name, *arguments, cwd):
        process = subprocess.Popen(
            [sys.executable, str(RECIPES / name), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said = b""
        while printed.encode() not in said:
            part = process.stdout.read1()
            assert part, process.stderr.read().decode()
            said += part
        process.send_signal(number)
        out, error = process.communicate(timeout=300)
        return subprocess.CompletedProcess(
            process.args, process.returncode, (said + out).decode(), error.decode()
        )

    return stop


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """What a recipe trains with labels from, in each arm: all variables at that moment."""

    class Started(Exception):
        pass

    def of(recipe, arguments, pretraining, training):
        """Runs both arms of a recipe up to the function `training`, all but what pretraining does.

        Args:
            recipe: The recipe, a module.
            arguments: Its command line.
            pretraining: The function that pretrains: where it is, and its name.
            training: The name of the recipe's function that takes the model to train.

        Returns:
            The variables' values in the arm with pretraining, those in the other, and how often
            there was pretraining.
        """
        pretrained, started = [], []

        def train(model, *_):
            started.append([variable.numpy() for variable in model.variables])
            raise Started

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(*pretraining, lambda *_, **__: pretrained.append(True))
        monkeypatch.setattr(recipe, training, train)
        for more in ((), ("--no-pretraining",)):
            monkeypatch.setattr("sys.argv", [*arguments, *more])
            with pytest.raises(Started):
                recipe.main()
        return *started, len(pretrained)

    return of
