"""Where benchmarks write, looked at before they measure."""

import argparse
import importlib
import json
from pathlib import Path

import pytest


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("results")


def test_a_file_is_written_whole_in_a_new_folder(results, tmp_path, capsys):
    path = results.file(str(tmp_path / "new" / "found.json"))
    assert path.parent.is_dir() and not any(path.parent.iterdir())
    results.write({"ratio": 1.5}, path)
    assert json.loads(path.read_text()) == {"ratio": 1.5}
    assert [other.name for other in path.parent.iterdir()] == ["found.json"]
    assert capsys.readouterr().out == f"Written to {path}\n"


def test_what_cannot_be_written_is_refused(results, tmp_path):
    (tmp_path / "file").write_text("mine")
    for name, message in (("", "is a folder: name a file"), ("file/a.json", "cannot be written")):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            results.file(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"
