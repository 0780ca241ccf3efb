"""Blocks as Markdown; tables between markers in a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from zoo.errors import ZooError
from zoo.report.document import Block, Chain, Chart, Comparison, Section, Table, Text

_SECTION = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def table(block: Table) -> str:
    """A table in the manner of GitHub, with its notes."""
    lines = [block.head, ["---"] * len(block.head), *(row.cells for row in block.shown())]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if block.title:
        text = f"**{block.title}**\n\n{text}"
    return text + ("\n\n" + "  \n".join(note.replace("*", "\\*") for note in block.notes) if block.notes else "")


def fill(text: str, make: Callable[[str], str], name: str) -> str:
    """``text`` with what stands between ``<!-- table:NAME -->`` and ``<!-- /table -->`` made anew.

    Args:
        make: from a table's name to its Markdown; KeyError where there is none.
        name: of the file, for errors.

    Raises:
        ZooError: a marker names a table that does not exist.
    """

    def one(match: re.Match[str]) -> str:
        try:
            return match[1] + make(match[2]) + "\n" + match[3]
        except KeyError as error:
            raise ZooError(f"{name}: no table '{match[2]}'; {error.args[0]}") from error

    return _SECTION.sub(one, text)


def document(title: str, lead: str, sections: Iterable[Section]) -> str:
    """A whole file: heading, first paragraph, sections; sources in small print."""
    parts = [f"# {title}", lead]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text():
            return block.text
        case Table():
            return table(block) + _sources(block.sources())
        case Chart():
            return f"**{block.title}**\n\n{table(block.data)}{_sources(block.data.sources())}"
        case Comparison():
            sides = f"{block.labels[0]} against {block.labels[1]}, {block.size[0]} x {block.size[1]} pixels"
            return f"* {block.title}: {sides} (pictures: the HTML report){_sources([block.source])}"
        case Chain():
            links = "\n".join(f"{i}. {name}: {fact}" for i, (name, fact) in enumerate(block.links, 1))
            return f"**{block.title}**\n\n{links}{_sources(block.sources)}"


def _sources(sources: Sequence[str]) -> str:
    return "\n\n<sub>records: " + ", ".join(f"`{s}`" for s in sources) + "</sub>" if sources else ""
