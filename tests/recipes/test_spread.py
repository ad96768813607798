"""The recipe that tells mean and spread over seeds."""

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def spread(monkeypatch, capsys):
    """Runs the recipe; returns what it printed, its complaints and its exit code."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "recipes")
    recipe = importlib.import_module("spread")

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["spread.py", *map(str, arguments)])
        code = 0
        try:
            recipe.main()
        except SystemExit as end:
            code = end.code
        return *capsys.readouterr(), code

    return run


def write(folder, **figures):
    """Writes what a finished run leaves."""
    folder.mkdir(parents=True)
    made = {"recipe": "best_mnist", "preset": "default", **figures}
    (folder / "metrics.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def folders(tmp_path):
    """Three runs with pretraining, two without."""
    values = {True: (0.01, 0.02, 0.06), False: (0.05, 0.07)}
    return [
        write(tmp_path / f"{arm}{seed}", pretraining=arm, seed=seed, test_error=value)
        for arm, found in values.items()
        for seed, value in enumerate(found)
    ]


def test_means_deviations_and_their_difference(spread, folders, tmp_path):
    picture = tmp_path / "spread.png"
    printed, _, code = spread("test_error", *folders, "--picture", picture)
    # Deviations: sqrt((2² + 1² + 3²) / 2) % and sqrt(2 * 1²) %. Standard error of the difference:
    # sqrt(7 / 3 + 2 / 2) %.
    assert code == 0 and printed.splitlines() == [
        "pretrained: test_error 0.03, standard deviation 0.026 over 3 runs: 0.01 (seed 0), "
        "0.02 (seed 1), 0.06 (seed 2)",
        "from random weights: test_error 0.06, standard deviation 0.014 over 2 runs: "
        "0.05 (seed 0), 0.07 (seed 1)",
        "pretrained minus random: -0.03, standard error 0.018",
    ]
    assert len(Image.open(picture).convert("RGB").getcolors(100000)) > 3


def test_a_single_run_has_no_spread(spread, folders):
    printed, _, code = spread("test_error", folders[0], *folders[3:])
    assert code == 0 and printed.splitlines()[0] == (
        "pretrained: test_error 0.01, standard deviation nan over 1 run: 0.01 (seed 0)"
    )
    assert printed.splitlines()[2] == "pretrained minus random: -0.05, standard error nan"


@pytest.mark.parametrize(
    "figures, message",
    [
        ({"pretraining": True, "seed": 3}, "no finished run with a figure 'test_error'"),
        ({"pretraining": True, "seed": 3, "test_error": "low"}, "test_error is no number"),
        ({"pretraining": True, "seed": 1, "test_error": 0.1}, "a second run with seed 1"),
        (
            {"pretraining": True, "seed": 3, "test_error": 0.1, "preset": "smoke"},
            "its preset is smoke, not default",
        ),
        (
            {"pretraining": True, "seed": 3, "test_error": 0.1, "recipe": "dbn_mnist"},
            "its recipe is dbn_mnist, not best_mnist",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(spread, folders, tmp_path, figures, message):
    other = write(tmp_path / "other", **figures)
    printed, complaint, code = spread("test_error", *folders, other)
    assert code == 2 and message in complaint and not printed


def test_a_folder_without_a_run_is_refused(spread, tmp_path):
    _, complaint, code = spread("test_error", tmp_path)
    assert code == 2 and "no finished run" in complaint
