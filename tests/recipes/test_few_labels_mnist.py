"""The recipe of few labels, both arms end to end on the embedded digits."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import dbn

RECIPES = Path(__file__).parents[2] / "recipes"
SMOKE = ("few_labels_mnist.py", "--preset", "smoke", "--data-set", "digits")


@pytest.fixture(scope="module")
def recipe():
    """The recipe as a module."""
    sys.path.insert(0, str(RECIPES))
    try:
        spec = importlib.util.spec_from_file_location("few_labels", RECIPES / "few_labels_mnist.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # Its dataclasses look themselves up.
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(RECIPES))
    return module


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run_recipe):
    """The folder of a finished run without pretraining, which is faster, and what it printed."""
    cwd = tmp_path_factory.mktemp("few_labels")
    done = run_recipe(*SMOKE, "--no-pretraining", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/few_labels_digits-smoke-no-pretraining", done.stdout


@pytest.fixture(scope="module")
def pretrained(smoke, run_recipe):
    """The folder of a finished run of the other arm."""
    cwd = smoke[0].parents[1]
    done = run_recipe(*SMOKE, "--beside", smoke[0], cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/few_labels_digits-smoke"


def test_draws_are_balanced_nested_and_of_their_seed(recipe):
    y = np.random.default_rng(0).integers(0, 10, 500)
    few, more = recipe.draw(y, 20, [0, 3]), recipe.draw(y, 50, [0, 3])
    np.testing.assert_array_equal(np.bincount(y[few]), 2)
    np.testing.assert_array_equal(np.bincount(y[more]), 5)
    assert set(few) < set(more) and len(set(more)) == 50
    assert set(few) != set(recipe.draw(y, 20, [0, 4]))
    np.testing.assert_array_equal(recipe.draw(y, 500, [0, 0]), np.arange(500))


@pytest.mark.parametrize("count", [0, 15, 490])
def test_draws_that_cannot_be_are_refused(recipe, count):
    y = np.repeat(np.arange(10), [50, 30, *[53] * 7, 49])
    with pytest.raises(ValueError, match=f"^{count} labels cannot be drawn .* smallest has 30"):
        recipe.draw(y, count, 0)


def test_figures_are_mean_and_spread_over_the_draws(smoke):
    folder, printed = smoke
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pretraining"] is False
    for count, draws in ((20, 3), (100, 2)):
        values = metrics[f"accuracies_{count}"]
        # Shares of 300 test images.
        np.testing.assert_allclose(300 * np.array(values), np.rint(300 * np.array(values)))
        assert len(values) == draws and 0 < min(values) <= max(values) < 1
        mean = sum(values) / draws
        deviation = (sum((value - mean) ** 2 for value in values) / (draws - 1)) ** 0.5
        np.testing.assert_allclose(metrics[f"accuracy_{count}"], mean, rtol=1e-6)
        np.testing.assert_allclose(metrics[f"deviation_{count}"], deviation, atol=1e-9)
    assert f"20 labels: test accuracy {metrics['accuracy_20']:.2%}" in printed
    best = max(metrics["ways"], key=lambda way: way["accuracy"])
    assert metrics["chosen"] == {k: v for k, v in best.items() if k != "accuracy"}
    assert (folder / "accuracy.png").exists() and not (folder / "stack.keras").exists()


@pytest.mark.slow
def test_both_arms_start_from_equal_weights_and_search_equally(smoke, pretrained):
    plain, other = (
        json.loads((folder / "metrics.json").read_text()) for folder in (smoke[0], pretrained)
    )
    assert (plain["pretraining"], other["pretraining"]) == (False, True)
    assert plain["initial_norms"] == other["initial_norms"]
    tried = [
        [{k: v for k, v in way.items() if k != "accuracy"} for way in run["ways"]]
        for run in (plain, other)
    ]
    assert tried[0] == tried[1] and len(tried[0]) == 2
    # The pretrained one went on from there, and classifies better.
    stack = dbn.load_model(pretrained / "stack.keras")
    norms = [np.linalg.norm(rbm.layer.W) for rbm in stack.rbms]
    assert np.all(np.abs(np.array(norms) - other["initial_norms"]) > 0.01)
    assert other["accuracy_100"] > plain["accuracy_100"] + 0.1


@pytest.mark.slow
def test_what_cannot_be_is_refused(smoke, run_recipe, tmp_path):
    done = run_recipe(*SMOKE, "--no-pretraining", "--beside", smoke[0], cwd=tmp_path)
    assert done.returncode == 2 and "is a run of the same arm" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    metrics = json.loads((smoke[0] / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps({**metrics, "preset": "default"}))
    done = run_recipe(*SMOKE, "--beside", other, cwd=tmp_path)
    assert done.returncode == 2 and "its preset is default, not smoke" in done.stderr
    done = run_recipe(*SMOKE, "--beside", tmp_path, cwd=tmp_path)
    assert done.returncode == 2 and "no finished run of this recipe" in done.stderr
    done = run_recipe("few_labels_mnist.py", "--data-set", "digits", cwd=tmp_path)
    assert done.returncode == 2 and "10000 labels cannot be drawn" in done.stderr
    assert not (tmp_path / "runs").exists()
