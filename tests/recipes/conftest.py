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
