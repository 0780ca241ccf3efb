"""The benchmarks that give numbers: what each finds, at which levels, and how it scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation import bed, demosaic, pairs
from zoo.evaluation.method import Method, Picture, Scores
from zoo.models.registry import nearest


@dataclass(frozen=True)
class Benchmark:
    """A way to measure methods.

    Attributes:
        name: as typed by users; evidence files begin with it.
        levels: noise level -> its S and O in raw units; None where they are each file's own.
        metrics: names of the numbers per picture. All but the shadow biases are better when higher.
        find: (folder, sets, limit of each set) -> what is to be scored.
        score: (method, picture, level) -> scores.
        edge: whether a record also holds the sharpness of a slanted edge, see :mod:`zoo.evaluation.edge`.
    """

    name: str
    levels: Mapping[str, tuple[float | None, float | None]]
    metrics: tuple[str, ...]
    find: Callable[[Path, Sequence[str], int | None], list[Picture]]
    score: Callable[[Method, Picture, str], Scores]
    edge: bool = False


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(bed.BENCHMARK, bed.LEVELS, bed.METRICS, bed.find_pictures, bed.score_picture, edge=True),
        Benchmark(demosaic.BENCHMARK, demosaic.LEVELS, demosaic.METRICS, bed.find_pictures, demosaic.score_picture),
        Benchmark(pairs.BENCHMARK, pairs.LEVELS, pairs.METRICS, pairs.find_pairs, pairs.score_picture),
    )
}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ZooError: unknown name.
    """
    if name not in BENCHMARKS:
        raise ZooError(f"unknown benchmark '{name}'{nearest(name, BENCHMARKS)}; choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
