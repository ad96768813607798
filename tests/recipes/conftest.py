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
