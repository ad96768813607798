"""What benchmarks write: a JSON file, whole or not at all."""

import argparse
import json
import os
from pathlib import Path


def file(text):
    """Returns the path that `--out` names, if it can be written: before anything is measured."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _part(path).touch()
        _part(path).unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {error.strerror}") from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder: name a file")
    return path


def write(found, path):
    """Writes figures to a file, whose folders are made, and says so.

    Args:
        found: Nest of dicts, lists, numbers and strings.
        path: `pathlib.Path`; a file that is there is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _part(path).write_text(json.dumps(found, indent=2) + "\n")
    os.replace(_part(path), path)
    print(f"Written to {path}")


def _part(path):
    """Returns where a file is written, before it is whole and has its name."""
    return path.with_suffix(".part")
