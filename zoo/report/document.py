"""What a report is made of, whatever it is written as: text, tables, charts, pictures, chains of facts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """Cells of a table, and the records that they come from.

    Attributes:
        cells: text; ``**x**`` is bold and ```x``` code, as in Markdown.
        sources: names of evidence files.
        quiet: whether the row is of less interest, e.g. dominated.
    """

    cells: Sequence[str]
    sources: Sequence[str] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """A table; without any row it is one row of "-".

    Attributes:
        notes: lines below it.
        title: above it.
        remark: whether the last column is text that may stand below the others where there is little room.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    title: str = ""
    remark: bool = False

    def shown(self) -> list[Row]:
        """The rows, or one that says that there are none."""
        return list(self.rows) or [Row(["-"] * len(self.head))]

    def sources(self) -> list[str]:
        """All files that the table comes from."""
        return merged(s for row in self.rows for s in row.sources)


@dataclass(frozen=True)
class Chart:
    """A drawing and the numbers in it: formats without pictures show the numbers."""

    title: str
    svg: str
    data: Table


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one thing, to be compared by a slider.

    Attributes:
        before, after: WebP files' contents, of one size.
        labels: what the two are.
        title: of the pair.
        size: width and height in pixels.
        source: the record of how they were made.
    """

    title: str
    before: bytes
    after: bytes
    labels: tuple[str, str]
    size: tuple[int, int]
    source: str


@dataclass(frozen=True)
class Chain:
    """Facts that follow from each other, each with what it is called."""

    title: str
    links: Sequence[tuple[str, str]]
    sources: Sequence[str] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph; ``**x**`` and ```x``` as in Markdown."""

    text: str


Block = Table | Chart | Comparison | Chain | Text


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Name for links to it."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def merged(sources: Iterable[str]) -> list[str]:
    """Names of files, those that differ in their last word only written as one with ``{a,b}``."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(sources)):
        groups.setdefault(name.rpartition("-")[0] or name, []).append(name)
    result = []
    for head, names in groups.items():
        tails = ",".join(n.removeprefix(f"{head}-").removesuffix(".json") for n in names)
        result.append(f"{head}-{{{tails}}}.json" if len(names) > 1 else names[0])
    return result
