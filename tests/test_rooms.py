"""Imports go one way, as docs/architecture.md says under "Rooms"."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom. Rooms of one floor may use each other.
FLOORS = (
    {"zoo", "zoo.errors", "zoo.files", "zoo.record", "zoo.ahead", "zoo.processor"},
    {"zoo.raw"},
    {"zoo.models", "zoo.codec", "zoo.data", "zoo.baselines", "zoo.weights"},
    {"zoo.evaluation", "zoo.training", "zoo.inference"},
    {"quantize"},
    {"export", "zoo.report"},
    {"zoo.cli", "zoo.__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    """``zoo.raw.dng`` -> ``zoo.raw``; names of a package's __init__ count as its own."""
    parts = module.split(".")
    return next((r for r in (".".join(parts[:n]) for n in (2, 1)) if r in FLOOR), "")


def imported(tree: ast.Module) -> list[str]:
    """What is imported where a module is loaded: not inside functions, not for types alone."""
    found, todo = [], list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Try):
            todo += node.body
    return found


def upward(path: Path) -> list[str]:
    """Imports of a file that go up."""
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    modules = imported(ast.parse(path.read_text()))
    return [f"{path.relative_to(ROOT)}: {m}" for m in modules if (room := room_of(m)) and FLOOR[room] > FLOOR[own]]


def test_imports_go_down() -> None:
    files = [p for top in ("zoo", "quantize", "export") for p in (ROOT / top).rglob("*.py")]
    assert len(files) > 100
    assert [line for path in sorted(files) for line in upward(path)] == []


def test_one_that_goes_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_rooms.ROOT", tmp_path)
    (tmp_path / "zoo" / "raw").mkdir(parents=True)
    (file := tmp_path / "zoo" / "raw" / "new.py").write_text(
        "try:\n    from zoo.models import registry\nfinally:\n    pass\n"
    )
    assert upward(file) == ["zoo/raw/new.py: zoo.models.registry"]
