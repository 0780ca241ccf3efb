"""Evidence holds to the schema of its kind; what breaks it is named by file and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.report import records
from zoo.report.records import (
    NO_MACHINE,
    Record,
    by_machine,
    kinds,
    machine,
    not_repeatable,
    not_shipped,
    problems,
    read_records,
)

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "evidence"
pytest.importorskip("jsonschema", reason="the schemas need jsonschema: pip install 'raw-zoo[report]'")


@pytest.mark.parametrize("record", read_records(EVIDENCE), ids=lambda r: r.source)
def test_evidence_holds_to_its_schema(record: Record) -> None:
    assert problems(record) == []


def test_every_command_runs_from_any_clone() -> None:
    assert not_repeatable(read_records(EVIDENCE)) == []


def test_evidence_is_of_the_weights_that_ship() -> None:
    assert not_shipped(read_records(EVIDENCE)) == []


def read(tmp_path: Path, body: object) -> Record:
    folder = tmp_path / "evidence" / "some"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.json").write_text(json.dumps(body))
    (record,) = read_records(tmp_path / "evidence")
    return record


def shipped(pattern: str) -> dict:
    return json.loads(next(EVIDENCE.glob(pattern)).read_text())


def test_file_and_field_of_a_mistake_are_named(tmp_path: Path) -> None:
    body = shipped("artifacts/*.json")
    del body["date"]
    body["parity"]["differing"] = 1.5
    body["sha256"] = "abc"
    found = problems(read(tmp_path, body))
    assert len(found) == 3 and all(line.startswith("evidence/some/x.json: ") for line in found)
    assert any("record: 'date' is a required property" in line for line in found)
    assert any("parity.differing: 1.5 is greater than the maximum of 1" in line for line in found)
    assert any("sha256: 'abc' does not match" in line for line in found)


@pytest.mark.parametrize(
    ("pattern", "field"),
    [
        ("quality/*.json", "images"),
        ("quality/*.json", "machine"),
        ("artifacts/*.json", "audit"),
        ("latency/*.json", "machine"),
        ("latency/*.json", "num_runs"),
        ("photos/*.json", "seconds"),
        ("crops/*.json", "crops"),
        ("operators/*.json", "cells"),
        ("sensitivity/*.json", "costs"),
    ],
)
def test_what_was_measured_may_not_be_missing(pattern: str, field: str, tmp_path: Path) -> None:
    if not any(EVIDENCE.glob(pattern)):
        pytest.skip(f"no records evidence/{pattern}")
    body = shipped(pattern)
    del body[field]
    assert problems(read(tmp_path, body)) == [f"evidence/some/x.json: record: '{field}' is a required property"]


@pytest.mark.parametrize("kind", ["instructions", "operators", "sensitivity", "profile", "phone"])
def test_new_kinds_need_command_and_date(kind: str, tmp_path: Path) -> None:
    found = problems(read(tmp_path, {"kind": kind}))
    assert {
        "evidence/some/x.json: record: 'command' is a required property",
        "evidence/some/x.json: record: 'date' is a required property",
    } <= set(found)


def test_more_than_the_schema_asks_for_is_welcome(tmp_path: Path) -> None:
    assert problems(read(tmp_path, shipped("latency/*.json") | {"governor": "performance"})) == []


def test_unknown_kind_lists_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(
        ZooError,
        match=r"evidence/some/x\.json: unknown kind 'speed'; kinds are artifact, compressed, crops, instructions",
    ):
        read(tmp_path, {"kind": "speed"})
    assert len(kinds()) == 13


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ZooError, match=r"x\.json"):
        read_records(tmp_path)


def test_half_written_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".x.json.17").write_text("{")
    (tmp_path / ".y.json").write_text("{")
    assert read_records(tmp_path) == []


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no such folder"):
        read_records(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("zoo benchmark utnet-m --record /tmp/lat", "/tmp/lat"),
        ("zoo evaluate x --data=/data/pictures", "/data/pictures"),
        ("zoo evaluate x --data '/data/my pictures'", "/data/my"),
        ("/usr/bin/zoo list", "/usr/bin/zoo"),
    ],
)
def test_paths_of_one_computer_are_named(command: str, path: str) -> None:
    (line,) = not_repeatable([Record(Path("x"), "evidence/x.json", {"command": command})])
    assert line == f"evidence/x.json: command: {path} is a path of one computer; repeat it with a relative path"


def test_relative_paths_are_repeatable() -> None:
    command = "zoo evaluate a/b --data ../shared/data --sets kodak,mcmaster"
    assert not_repeatable([Record(Path("x"), "x", {"command": command})]) == []


def test_records_of_other_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo import weights

    monkeypatch.setattr(weights, "card", lambda name: {"sha256": {"m.safetensors": "a" * 64}} if name == "m" else None)

    def one(**body) -> list[str]:
        return not_shipped([Record(Path("x"), "x", {"kind": "latency", **body})])

    assert one(model="m", weights_sha256="a" * 64) == []
    assert "bbbbbbbbbbbb, which no longer ship" in one(model="m", weights_sha256="b" * 64)[0]
    assert "bbbbbbbbbbbb" in one(name="m", precision="int8", weights_sha256="b" * 64)[0]
    assert one(name="m", precision="int8-ptq", weights_sha256="b" * 64) == []
    assert one(name="peer", weights_sha256="b" * 64) == [] == one(model="m", weights_sha256=None)


def test_times_hold_for_other_weights_of_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo import weights

    card = {"sha256": {"m.safetensors": "a" * 64}, "earlier": {"m.safetensors": ["b" * 64]}}
    monkeypatch.setattr(weights, "card", lambda name: card)

    def stale(kind: str, digest: str) -> bool:
        body = {"kind": kind, "model": "m", "weights_sha256": digest * 64}
        return bool(not_shipped([Record(Path("x"), "x", body)]))

    assert not any(stale(kind, "b") for kind in ("latency", "profile", "instructions"))
    assert all(stale(kind, "b") for kind in ("quality", "artifact", "sensitivity"))
    assert stale("latency", "c")


def test_machines_are_told_apart_whatever_the_kind_calls_them() -> None:
    assert (
        machine({"machine": {"cpu": "A", "threads": 1}})
        == machine({"machine": {"processor": "A", "platform": "B"}})
        == "A"
    )
    assert machine({"device": {"manufacturer": "Make", "model": "One"}}) == "Make One"
    assert machine({"machine": {"processor": "cortex-a53", "emulator": "qemu"}}) == "cortex-a53, emulated"
    assert machine({}) == NO_MACHINE
    bodies = [{"machine": {"cpu": c}} for c in "BAB"] + [{}]
    groups = by_machine(Record(Path("x"), str(i), b) for i, b in enumerate(bodies))
    assert [(name, [r.source for r in found]) for name, found in groups.items()] == [
        ("B", ["0", "2"]),  # most of them
        ("A", ["1"]),
        (NO_MACHINE, ["3"]),
    ]


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    records._validator.cache_clear()
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ZooError, match=r"raw-zoo\[report\]"):
        problems(Record(Path("x"), "x", {"kind": "photo"}))
