"""Evaluating a method: pictures in, evidence out; goes on where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from zoo.evaluation import edge
from zoo.evaluation.benchmarks import get_benchmark
from zoo.evaluation.evidence import Growing
from zoo.evaluation.method import Method, Picture
from zoo.evaluation.records import ImageScore, QualityRecord, sha256

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
        pictures: of the record's benchmark.
        folder: where evidence lies. Scores of the same method, weights, settings and picture found there are kept;
            evidence of an older version of the bed is replaced.
        fresh: measure these pictures, and the slanted edge, again.
        progress: called after each picture.

    Returns:
        ``record``, with the pictures asked for and those that were there.

    Raises:
        ZooError: a picture that cannot be scored, or evidence that cannot be read or written.
    """
    benchmark = get_benchmark(record.benchmark)
    with Growing(record, folder, {image_key(p) for p in pictures} if fresh else set()) as growing:
        if growing.before is not None and not fresh:
            record.edge = growing.before.edge
        for picture in pictures:
            key, digest = image_key(picture), sha256(picture.path)
            if growing.lacks(key, digest):
                scores = benchmark.score(method, picture, record.level)
                growing.add(key, ImageScore.of(picture, digest, scores))
            if progress is not None:
                progress()
        if benchmark.edge and (fresh or not record.edge):  # a saved record may have taken the old one in
            record.edge, growing.changed = edge.measure(method, record.level), True
    return growing.result()


def image_key(picture: Picture) -> str:
    """What a picture's scores are filed under: ``set/name``."""
    return f"{picture.set}/{picture.name}"
