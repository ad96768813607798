"""What benchmarks write: a JSON file, whole or not at all."""

import json
import os


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
