"""What benchmarks write: a JSON file, whole or not at all."""

import argparse
import json
import os
import tempfile
from pathlib import Path


def file(text):
    """Returns the path that `--out` names, if it can be written: before anything is measured."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
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
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    os.replace(part, path)
    print(f"Written to {path}")
