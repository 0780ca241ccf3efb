"""Evaluating a method: pictures in, evidence out; goes on where an earlier run stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from zoo.evaluation.bed import Method, Picture, score_picture
from zoo.evaluation.records import ImageScore, QualityRecord, sha256

# How often evidence is written while it grows: an interrupt costs at most this, and one picture.
_SAVE_EVERY = 10.0  # seconds

Progress = Callable[[], object]


def evaluate(
    method: Method,
    record: QualityRecord,
    pictures: Sequence[Picture],
    folder: Path,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
) -> QualityRecord:
    """Score a method on pictures and write the evidence.

    Args:
        method: what is measured.
        record: what it is called and with which versions; its ``images`` are filled in.
        pictures: of the bed.
        folder: where evidence lies. Scores of the same method, weights, settings and picture found there are kept.
        fresh: measure these pictures again.
        progress: called after each picture.

    Returns:
        ``record``, with the pictures asked for and those that were there.

    Raises:
        ZooError: a picture that cannot be scored, or evidence that cannot be read or written.
    """
    path = record.path(folder)
    before = QualityRecord.load(path) if path.exists() else None
    if before is not None and before.same_method(record):
        renewed = {image_key(p) for p in pictures} if fresh else set()
        record.images = {key: image for key, image in before.images.items() if key not in renewed}
    written, added = time.monotonic(), False
    try:
        for picture in pictures:
            key, digest = image_key(picture), sha256(picture.path)
            known = record.images.get(key)
            if known is None or known.sha256 != digest:
                record.images[key] = ImageScore.of(picture, digest, score_picture(method, picture, record.level))
                added = True
                if time.monotonic() - written > _SAVE_EVERY:
                    _save(record, folder)
                    written = time.monotonic()
            if progress is not None:
                progress()
    finally:
        if added:
            _save(record, folder)
    return record if added or before is None else before


def image_key(picture: Picture) -> str:
    """What a picture's scores are filed under: ``set/name``."""
    return f"{picture.set}/{picture.name}"


def _save(record: QualityRecord, folder: Path) -> None:
    record.date = datetime.now(UTC).isoformat(timespec="seconds")
    record.save(folder)
