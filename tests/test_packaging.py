import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHERE = """
import json, dbn, dbn.layers
print(json.dumps({
    "dbn": dbn.__file__,
    "layers": dbn.layers.__file__,
    "same": dbn.RBMLayer is dbn.layers.RBMLayer,
    "version": dbn.__version__,
}))
"""


def python(*arguments, cwd, **environment):
    """Runs this interpreter elsewhere, without the path that pytest was started with."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=inherited | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def notebook_folder(tmp_path):
    """A folder where a user works, who happens to have a layers.py of their own."""
    (tmp_path / "layers.py").write_text(
        'raise AssertionError("the foreign layers.py was imported")'
    )
    return tmp_path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Built from a copy: setuptools leaves build/ and *.egg-info/ beside what it builds, and would
    # take up what an earlier build left there.
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("dbn", "layers"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True
        )
    target = tmp_path_factory.mktemp("wheel")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    done = python("-m", "pip", "wheel", *offline, "--wheel-dir", target, source, cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = target.glob("*.whl")
    return path


def test_wheel_holds_both_packages_and_nothing_else_at_the_top(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dbn"}
    assert {"dbn/py.typed", "dbn/layers/__init__.py", "dbn/layers/py.typed"} <= names
    assert any(name.endswith("LICENSE") for name in names)


def test_wheel_holds_every_module(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"dbn/{path.name}" for path in ROOT.glob("dbn/*.py")}
    modules |= {f"dbn/layers/{path.name}" for path in ROOT.glob("layers/*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_wheel_beside_a_foreign_layers_module(wheel, tmp_path_factory, notebook_folder):
    target = tmp_path_factory.mktemp("target")
    zipfile.ZipFile(wheel).extractall(target)
    done = python("-c", WHERE, cwd=notebook_folder, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["dbn"]) == target / "dbn/__init__.py"
    assert Path(found["layers"]) == target / "dbn/layers/__init__.py"
    assert found["same"]
    assert wheel.name.startswith(f"dbn-{found['version']}-")


def installed_editable():
    # All of them: the build leaves a dbn.egg-info in the repository, which hides the installed one.
    found = importlib.metadata.distributions(name="dbn")
    urls = [distribution.read_text("direct_url.json") or "{}" for distribution in found]
    return any(json.loads(url).get("dir_info", {}).get("editable") for url in urls)


@pytest.mark.skipif(not installed_editable(), reason="dbn is not installed with pip install -e .")
@pytest.mark.parametrize("folder", ["notebook", "repository"])
def test_editable_install_beside_a_foreign_layers_module(folder, notebook_folder):
    cwd = notebook_folder if folder == "notebook" else ROOT
    done = python("-c", WHERE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["dbn"]) == ROOT / "dbn/__init__.py"
    assert Path(found["layers"]) == ROOT / "layers/__init__.py"
    assert found["same"]


# Installed or not: Keras' own error for a missing one ("No module named 'jax'") is no way out.
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_keras_backend_is_refused_with_the_way_out(backend, tmp_path):
    done = python("-c", "import dbn", cwd=tmp_path, PYTHONPATH=str(ROOT), KERAS_BACKEND=backend)
    assert done.returncode != 0
    _, error, message = done.stderr.rpartition("ImportError")
    assert error
    assert backend in message
    assert "KERAS_BACKEND=tensorflow" in message


@pytest.mark.parametrize("recipe", sorted(path.name for path in ROOT.glob("recipes/*.py")))
def test_recipe_before_installation_says_what_to_type(recipe, tmp_path):
    # -S leaves site-packages out: an interpreter where nothing has been installed.
    done = python("-S", ROOT / "recipes" / recipe, cwd=tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "make run" in output or "pip install" in output
    assert "Traceback" not in output
