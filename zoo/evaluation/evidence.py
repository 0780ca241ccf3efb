"""Evidence: what a method did at one noise level, picture by picture, as a JSON file that grows.

Pictures that are measured later join those that are there, as long as method, weights, settings and benchmark are the
same; otherwise the file starts anew. So an interrupted evaluation goes on where it stopped, and a second run costs
nothing. What is known of a picture is up to the subclass.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.files import alone, replacing

# How often evidence is written while it grows: an interrupt costs at most this, and one picture.
_SAVE_EVERY = 10.0  # seconds


@dataclass
class Evidence(abc.ABC):
    """What one method did at one level.

    Attributes:
        KIND, SCHEMA: of the file; a file of another is refused, one of an older schema is written anew.
        DERIVED: keys of :meth:`derived`.
        name: of the method; part of the file's name.
        target, precision: runtime.
        level, shot, read: noise level, and its S and O in raw units; None where they are each picture's own.
        weights_sha256: of the file that was run; None without weights.
        settings: parameters of the method.
        cost: of a model: ``params``, their number, and ``gmac_per_mp``, 1e9 multiply-accumulates per sensor megapixel.
        licence: of the method.
        images: what was measured, by ``set/name``; each with the ``sha256`` of its file.
        command: the last command that added to the record.
        versions: of this project, Python and the libraries that matter.
        machine: ``cpu`` model and ``threads``.
        date: of the last addition, ISO 8601, UTC.
        benchmark, bed_version: the benchmark that was used; numbers of different versions do not compare.
    """

    KIND: ClassVar[str]
    SCHEMA: ClassVar[int]
    DERIVED: ClassVar[tuple[str, ...]]

    name: str
    target: str
    precision: str
    level: str
    shot: float | None
    read: float | None
    weights_sha256: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    licence: str = ""
    images: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    benchmark: str = bed.BENCHMARK
    bed_version: int = bed.VERSION

    @abc.abstractmethod
    def derived(self) -> dict[str, Any]:
        """Keys of the file that follow from the pictures."""

    @abc.abstractmethod
    def read_image(self, entry: Any) -> Any:
        """One of :attr:`images` from what a file holds; ValueError, KeyError or TypeError where it is damaged."""

    def check(self) -> None:
        """ValueError where fields have wrong types; subclasses add their own."""
        texts = (self.name, self.target, self.precision, self.level, self.command, self.date, self.benchmark)
        if not all(isinstance(t, str) for t in texts) or not isinstance(self.weights_sha256, str | None):
            raise ValueError("a field that should be text is not")
        if not all(isinstance(d, dict) for d in (self.settings, self.cost, self.versions, self.machine)):
            raise ValueError("settings, cost, versions and machine are tables")

    def same_method(self, other: Evidence) -> bool:
        """Whether pictures of the two may stand in one record."""
        keys = ("benchmark", "bed_version", "name", "target", "precision", "level", "weights_sha256", "settings")
        return all(getattr(self, k) == getattr(other, k) for k in keys)

    def join(self, other: Self, leave: set[str]) -> None:
        """Take in what another record of the same method holds, but the pictures to leave; subclasses add their own."""
        self.images |= {key: image for key, image in other.images.items() if key not in leave}

    def to_json(self) -> dict[str, Any]:
        """The evidence file's contents."""
        body = dataclasses.asdict(self)
        images = body.pop("images")
        head = {"kind": self.KIND, "schema": self.SCHEMA}
        return {**head, **body, **self.derived(), "images": dict(sorted(images.items()))}

    def path(self, folder: Path) -> Path:
        """Where :meth:`save` puts it."""
        return folder / f"{self.benchmark}-{self.name}-{self.target}-{self.precision}-{self.level}.json"

    def save(self, folder: Path) -> Path:
        """Write the evidence file, or leave the old one; returns its path.

        Raises:
            ZooError: the folder cannot be written to.
        """
        path = self.path(folder)
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        with replacing(path, "choose another --output-dir", parents=True) as temporary:
            temporary.write_text(text)
        return path

    @classmethod
    def load_current(cls, path: Path) -> Self | None:
        """:meth:`load`, or None where there is no file, or one of an older schema, which is to be written anew."""
        if not path.exists():
            return None
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(path.read_text())
            if isinstance(content, dict) and content.get("kind") == cls.KIND:
                schema = content.get("schema")
                if schema in range(cls.SCHEMA):
                    return None
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check an evidence file.

        Raises:
            ZooError: missing, damaged, of another kind or schema, or its summary is not that of its pictures.
        """
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise ZooError(f"{path}: no such evidence; `zoo evaluate` writes it") from error
        except (OSError, ValueError) as error:
            raise ZooError(f"{path}: cannot be read as JSON ({error}); delete it and evaluate again") from error
        if not isinstance(content, dict) or (content.get("kind"), content.get("schema")) != (cls.KIND, cls.SCHEMA):
            raise ZooError(f"{path}: is no {cls.KIND} evidence of schema {cls.SCHEMA}; delete it and evaluate again")
        try:
            aside = {"kind", "schema", "images", *cls.DERIVED}
            record = cls(**{k: v for k, v in content.items() if k not in aside})
            record.check()
            record.images = {key: record.read_image(entry) for key, entry in content["images"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ZooError(f"{path}: damaged {cls.KIND} evidence ({problem}); delete it and evaluate again") from error
        if record.to_json() != content:
            raise ZooError(f"{path}: its summary is not that of its pictures; delete it and evaluate again")
        return record


def keep_others(record: Evidence, folder: Path) -> None:
    """Refuse to replace evidence of other weights, as a second run of one's own would that is measured into the same folder.

    Raises:
        ZooError: there is such evidence.
    """
    path = record.path(folder)
    before = type(record).load_current(path)
    if before is not None and before.weights_sha256 != record.weights_sha256:
        raise ZooError(
            f"{path}: is of other weights of {record.name}; give another --output-dir, or --fresh to replace it"
        )


def one_digest(
    contents: Iterable[Mapping[str, Any]], digest: Callable[[Mapping[str, Any]], object]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Contents of a method's evidence files that are of one digest of its weights, and the rest, which no row mixes in.

    It is the digest that most levels were measured with; of equals the newest.
    """
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for content in contents:
        groups.setdefault(digest(content), []).append(content)
    ranked = sorted(groups.values(), key=lambda g: (len({c["level"] for c in g}), max(c.get("date", "") for c in g)))
    return (ranked[-1] if ranked else []), [c for group in ranked[:-1] for c in group]


Record = TypeVar("Record", bound=Evidence)


class Growing(Generic[Record]):
    """An evidence file while pictures are added to it; a context that writes what is there when it ends.

    Attributes:
        record: with the pictures that were in the file, unless it is of another method, weights or settings.
        changed: whether there is something that the file does not hold.

    Several processes may add to one file: each takes in what the others wrote before it writes.
    """

    def __init__(self, record: Record, folder: Path, renewed: set[str] | None = None) -> None:
        """``record``: what the method is called and with which versions; ``renewed``: pictures to measure again."""
        self.record, self.folder, self.changed = record, folder, False
        # Pictures whose old values in the file do not count: those measured here, and those that are to be.
        self._ours = set(renewed or set())
        self.before = type(record).load_current(record.path(folder))
        if self.before is not None and self.before.same_method(record):
            record.images = {k: v for k, v in self.before.images.items() if k not in self._ours}
        else:
            self.before = None
        self._written = time.monotonic()

    def lacks(self, key: str, sha256: str) -> bool:
        """Whether a picture with that content is still to be measured."""
        known = self.record.images.get(key)
        return known is None or known.sha256 != sha256

    def add(self, key: str, image: Any) -> None:
        """Add a picture; writes the file now and then."""
        self.record.images[key] = image
        self._ours.add(key)
        self.changed = True
        if time.monotonic() - self._written > _SAVE_EVERY:
            self._save()

    def result(self) -> Record:
        """The record, with the date and command of the last addition."""
        return self.record if self.changed or self.before is None else self.before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.changed:
            self._save()

    def _save(self) -> None:
        with alone(self.folder):
            there = type(self.record).load_current(self.record.path(self.folder))
            if there is not None and there.same_method(self.record):
                self.record.join(there, self._ours)
            self.record.date = datetime.now(UTC).isoformat(timespec="seconds")
            self.record.save(self.folder)
        self._written = time.monotonic()
