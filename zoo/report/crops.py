"""Crops of real raws before and after the default model, for the report's sliders; :mod:`zoo.cli.crops` makes them."""

from __future__ import annotations

import io
from pathlib import Path

from zoo.errors import ZooError
from zoo.report.document import Comparison
from zoo.report.records import Record, of_kind, read_records


def comparisons(evidence: Path) -> list[Comparison]:
    """The crops of a folder of evidence.

    Raises:
        ZooError: a picture that a record names is missing or no picture.
    """
    return [
        _comparison(record, entry) for record in of_kind(read_records(evidence), "crops") for entry in record["crops"]
    ]


def _comparison(record: Record, entry: dict) -> Comparison:
    from PIL import Image

    try:
        before, after = ((record.path.parent / entry[side]).read_bytes() for side in ("before", "after"))
        size = Image.open(io.BytesIO(before)).size
    except OSError as error:
        raise ZooError(f"{record.source}: {error}; repeat its command to make the crops again") from error
    title = f"{entry['title']}; licence {entry['licence']}"
    return Comparison(title, before, after, (record["before"], record["after"]), size, record.source)
