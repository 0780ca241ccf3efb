"""Evidence of one measurement as a JSON file; what an evaluation gathers picture by picture is in zoo.evaluation.evidence."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from pathlib import Path

from zoo.files import replacing


def write_record(path: Path, kind: str, record: dict) -> None:
    """Evidence of one measurement: the record with its kind, the command and the date, as JSON.

    Raises:
        ZooError: the folder cannot be written to.
    """
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    about = {"kind": kind, "command": f"{_program()} {shlex.join(sys.argv[1:])}".strip(), "date": date}
    with replacing(path, "give another --record", parents=True) as temporary:
        temporary.write_text(json.dumps(about | record, indent=1) + "\n")


def _program() -> str:
    """What was typed before the arguments: ``zoo``, ``python -m MODULE`` or ``python tools/photos.py``."""
    # Of `python -m` argv holds the file's whole path, which is of this computer and need not run as a file.
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and not spec.name.endswith("__main__"):
        return f"python -m {spec.name}"
    program = Path(sys.argv[0])
    return f"python {program}" if program.suffix == ".py" and program.name != "__main__.py" else "zoo"


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MiB."""
    import resource

    # Linux counts in KiB, macOS in bytes.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)
