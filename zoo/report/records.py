"""Evidence as files: found, checked against the schema of its kind, and told apart by machine.

A schema (``schemas/KIND.json``, JSON Schema 2020-12) says what a record must hold; it may hold more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

SCHEMAS = Path(__file__).with_name("schemas")
_TIMES = ("latency", "profile", "instructions")
NO_MACHINE = "machine not recorded"
_COMMON = "_common.json"


@dataclass(frozen=True)
class Record:
    """One evidence file.

    Attributes:
        path: where it lies.
        source: the path as it is shown, from the folder that holds the evidence, e.g. ``evidence/latency/x.json``.
        body: its content.
    """

    path: Path
    source: str
    body: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.body[key]

    def get(self, key: str, default: Any = None) -> Any:
        """A field, or ``default``."""
        return self.body.get(key, default)

    @property
    def kind(self) -> str:
        """What was measured."""
        return self.body["kind"]

    @property
    def machine(self) -> str:
        """What it was measured on: see :func:`machine`."""
        return machine(self.body)


def kinds() -> list[str]:
    """The kinds of evidence that there are schemas for, sorted."""
    return sorted(p.stem for p in SCHEMAS.glob("[!_]*.json"))


def machine(body: dict[str, Any]) -> str:
    """Name of the machine of a record: the phone's, else the CPU's; threads, load and clocks are no part of it."""
    about, phone = body.get("machine") or {}, body.get("device")
    if isinstance(phone, dict):
        return " ".join(str(phone[key]) for key in ("manufacturer", "model") if phone.get(key)) or NO_MACHINE
    name = str(about.get("cpu") or about.get("processor") or NO_MACHINE)
    return f"{name}, emulated" if about.get("emulator") else name


def by_machine(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records of each machine, the one with most of them first: numbers of different ones never share a column."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.machine, []).append(record)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def read_records(evidence: Path) -> list[Record]:
    """All evidence below a folder, by path; hidden files are left out.

    Raises:
        ZooError: no such folder, or a file that is no JSON object with a known kind.
    """
    if not evidence.is_dir():
        raise ZooError(f"{evidence}: no such folder; give the folder of the records with --evidence")
    found = []
    for path in sorted(evidence.rglob("*.json")):
        if path.name.startswith("."):  # half-written by another process
            continue
        source = (Path(evidence.name) / path.relative_to(evidence)).as_posix()
        try:
            body = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ZooError(f"{source}: cannot be read as JSON ({error}); make it again with its command") from error
        if not isinstance(body, dict):
            raise ZooError(f"{source}: holds no JSON object; make it again with its command")
        if body.get("kind") not in kinds():
            raise ZooError(f"{source}: unknown kind {body.get('kind')!r}; kinds are {', '.join(kinds())}")
        found.append(Record(path, source, body))
    return found


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    """The records of one kind."""
    return [r for r in records if r.kind == kind]


def problems(record: Record) -> list[str]:
    """What the schema of its kind finds wrong with a record, one line each: file, field, problem."""
    lines = []
    for error in sorted(_validator(record.kind).iter_errors(record.body), key=lambda e: [str(p) for p in e.path]):
        field = ".".join(str(part) for part in error.path) or "record"
        lines.append(f"{record.source}: {field}: {_short(error)}")
    return lines


def _short(error: Any) -> str:
    """The message of a failed check, without the value where it is long."""
    text = str(error.message)
    return text if len(text) <= 200 else f"does not hold to '{error.validator}: {error.validator_value}'"


@cache
def _validator(kind: str) -> Any:
    try:
        from jsonschema import Draft202012Validator
        from referencing import Registry, Resource
    except ImportError as error:
        raise ZooError("checking evidence needs jsonschema: pip install 'raw-zoo[report]'") from error
    common = Resource.from_contents(json.loads((SCHEMAS / _COMMON).read_text()))
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    return Draft202012Validator(schema, registry=Registry().with_resource(_COMMON, common))


def not_repeatable(records: Iterable[Record]) -> list[str]:
    """Records whose command names a path of one computer, one line each: commands are to run from any clone's root."""
    lines = []
    for record in records:
        paths = re.findall(r"(?:^|(?<=[ ='\"]))/[^ '\"]*", str(record["command"]))
        if paths:
            lines.append(
                f"{record.source}: command: {paths[0]} is a path of one computer; repeat it with a relative path"
            )
    return lines


def not_shipped(records: Iterable[Record]) -> list[str]:
    """Records of models that ship weights which were made with others, one line each.

    Times hold for any weights of the same layers: the digests that a card lists under ``earlier`` do for those.
    Stepping stones (``int8-ptq``, ``int8-qat`` of ``zoo evaluate --quantized``) run weights that never ship.
    """
    from zoo import weights

    lines = []
    for record in records:
        card = weights.card(str(record.get("model") or record.get("name")))
        digest = record.get("weights_sha256")
        if card is None or digest is None or str(record.get("precision")) in ("int8-ptq", "int8-qat"):
            continue
        known = set(card["sha256"].values())
        if record.kind in _TIMES:
            known.update(*card.get("earlier", {}).values())
        if digest not in known:
            lines.append(
                f"{record.source}: was measured with weights {digest[:12]}, which no longer ship; repeat its command"
            )
    return lines
