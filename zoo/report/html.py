"""Blocks as one HTML file that needs nothing else: style, script, drawings and pictures are in it.

Its content security policy lets it load nothing, so what is missing would be seen.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from zoo.report.charts import PALETTE
from zoo.report.document import Block, Chain, Chart, Comparison, Section, Table, Text

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_NUMBER = re.compile(r"[+\-−<≥~]?\d")
_LONG = 34  # characters: a cell with more may be broken into lines


def page(title: str, lead: str, figures: Sequence[tuple[str, str, str]], sections: Sequence[Section], foot: str) -> str:
    """The whole file.

    Args:
        title, lead: at its head.
        figures: number, unit, what it is.
        sections: in order; the contents list follows from them.
        foot: last paragraph.
    """
    style = _variables() + (_HERE / "page.css").read_text()
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a> ' for s in sections)
    strip = "".join(
        f"<div><dd>{escape(number)}<small>{escape(unit)}</small></dd><dt>{escape(what)}</dt></div>"
        for number, unit, what in figures
    )
    body = "".join(_section(s) for s in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{_inline(lead)}</p>\n'
        f'<dl class="figures">{strip}</dl>\n<nav aria-label="contents">{links}</nav>\n</header>\n'
        f'<main>\n{body}</main>\n<footer><p class="small">{_inline(foot)}</p></footer>\n'
        f"<script>\n{(_HERE / 'page.js').read_text()}</script>\n</body>\n</html>\n"
    )


def _variables() -> str:
    light, dark = (";".join(f"--{k}:{v}" for k, v in PALETTE[scheme].items()) for scheme in ("light", "dark"))
    return f":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"


def _section(section: Section) -> str:
    """Charts and pictures that follow each other stand side by side where there is room."""
    parts = [f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n']
    for paired, group in groupby(section.blocks, key=lambda b: isinstance(b, Chart | Comparison)):
        inner = "".join(_block(b) for b in group)
        parts.append(f'<div class="pair">{inner}</div>\n' if paired else inner)
    return "".join(parts) + "</section>\n"


def _block(block: Block) -> str:
    match block:
        case Text():
            return f"<p>{_inline(block.text)}</p>\n"
        case Table():
            return _table(block) + _sources(block.sources())
        case Chart():
            data = f"<details><summary>numbers and records</summary>{_table(block.data)}{_list(block.data.sources())}</details>"
            return f"<figure><h3>{escape(block.title)}</h3>{block.svg}{data}</figure>\n"
        case Comparison():
            return _comparison(block)
        case Chain():
            rows = "".join(f"<dt>{escape(k)}</dt><dd>{_inline(v)}</dd>" for k, v in block.links)
            files = f"<dt>records</dt><dd>{', '.join(f'<code>{escape(s)}</code>' for s in block.sources)}</dd>"
            return f'<details class="chain"><summary>{_inline(block.title)}</summary><dl>{rows}{files}</dl></details>\n'


def _table(table: Table) -> str:
    rows = table.shown()
    columns = list(zip(*(r.cells for r in rows), strict=True))
    numeric = [all(c == "-" or (_NUMBER.match(c) and len(c) <= _LONG) for c in column) for column in columns]
    numeric[0] = False

    def cell(tag: str, text: str, number: bool) -> str:
        names = " ".join(n for n, on in (("n", number), ("long", tag == "td" and len(text) > _LONG)) if on)
        return f"<{tag}{f' class={chr(34)}{names}{chr(34)}' if names else ''}>{_inline(text)}</{tag}>"

    head = "".join(cell("th", text, n) for text, n in zip(table.head, numeric, strict=True))
    lines = []
    for row in rows:
        quiet = ' class="quiet"' if row.quiet else ""
        tip = f' title="{escape(", ".join(row.sources))}"' if row.sources else ""
        cells = "".join(cell("td", text, n) for text, n in zip(row.cells, numeric, strict=True))
        lines.append(f"<tr{quiet}{tip}>{cells}</tr>")
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    notes = "".join(f'<p class="small">{_inline(n)}</p>' for n in table.notes)
    kind = ' class="remark"' if table.remark else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'{title}<div class="scroll" tabindex="0"><table{kind}>{body}</table></div>{notes}\n'


def _comparison(block: Comparison) -> str:
    before, after = (f"data:image/webp;base64,{base64.b64encode(p).decode()}" for p in (block.before, block.after))
    width, height = block.size
    sides = f'width="{width}" height="{height}"'
    title, (left, right) = escape(block.title), map(escape, block.labels)
    return (
        f'<figure><div class="frame" style="--x:50%"><img src="{after}" {sides} alt="{title}: {right}">'
        f'<img class="before" src="{before}" {sides} alt="{title}: {left}"><b>{left}</b><b>{right}</b>'
        f'<input type="range" min="0" max="100" step="0.1" value="50" aria-label="{left} against {right}"></div>'
        f"<figcaption>{title}<br>{_files([block.source])}</figcaption></figure>\n"
    )


def _sources(sources: Sequence[str]) -> str:
    if not sources:
        return ""
    if len(sources) <= 2:
        return f'<p class="small">records: {_files(sources)}</p>\n'
    return f"<details><summary>records</summary>{_list(sources)}</details>\n"


def _list(sources: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li><code>{escape(s)}</code></li>" for s in sources) + "</ul>"


def _files(sources: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(s)}</code>" for s in sources)


def _inline(text: str) -> str:
    """Escaped text, with Markdown's ``**`` and backquotes as tags."""
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text).replace("\\*", "*")
