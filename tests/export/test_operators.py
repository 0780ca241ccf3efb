"""The operator matrix: its records, its page, and the doctor's table held against every cell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export import TARGETS, operators
from export.doctor import operators as findings_of
from export.doctor import trace
from export.operator_nets import OPERATORS, network_sha256
from export.operators import EVIDENCE, PAGE, PRECISIONS, Source, measure, one_line, read_records, record, snr, strangers
from export.operators_page import render
from export.rules import RULES, SEVERITY
from zoo.errors import ZooError
from zoo.models.contracts.bayer_vst import IN_CHANNELS

ROOT = Path(__file__).resolve().parents[2]
RECORDS = read_records(ROOT / EVIDENCE)
# Below the best target of the same operator and precision by this much: it computes something else.
NUMERICS_DB = 1.0


def test_every_target_and_precision_has_a_record() -> None:
    assert set(RECORDS) == {(t, p) for t in TARGETS for p in PRECISIONS}


@pytest.mark.parametrize("key", sorted(RECORDS), ids="-".join)
def test_records_are_whole(key: tuple[str, str]) -> None:
    rec = RECORDS[key]
    assert list(rec["cells"]) == list(OPERATORS)
    assert rec["command"].startswith("python -m export.operators --record ")
    assert {"date", "versions", "machine", "tile"} <= rec.keys()
    for name, cell in rec["cells"].items():
        assert cell["result"] in ("whole", "float", "splits", "fails"), name
        assert cell["ran"] or cell["failure"], name
        assert cell["result"] == "fails" or cell["converted"], name


def test_cells_are_of_the_networks_here() -> None:
    for name, operator in OPERATORS.items():
        digest = network_sha256(operator.network(), operators.TILE)
        for key, rec in RECORDS.items():
            assert rec["cells"][name]["network_sha256"] == digest, (key, name)


def test_page_is_not_stale() -> None:
    text = (ROOT / PAGE).read_text()
    assert text == render(RECORDS), "docs/operators.md is stale; run python -m export.operators --render"


@pytest.mark.parametrize("name", OPERATORS)
def test_networks_keep_the_contract(name: str) -> None:
    x = torch.rand(1, IN_CHANNELS, 32, 32)
    network = OPERATORS[name].network()
    with torch.no_grad():
        assert network(x).shape == x.shape
        assert torch.equal(network(x), OPERATORS[name].network()(x))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_doctor_says_what_the_matrix_measured(name: str) -> None:
    """Consequence and operator names, for every target and precision."""
    program = trace(OPERATORS[name].network(), IN_CHANNELS, operators.TILE)
    for (target, precision), rec in RECORDS.items():
        cell = rec["cells"][name]
        found = list(findings_of(program, target, precision))
        where = f"{name} on {target} {precision}"
        worst = min((f.consequence for f in found), key=SEVERITY.index, default="whole")
        if worst == "numerics":
            best = max(r["cells"][name].get("snr_float_db") or 0 for (_, p), r in RECORDS.items() if p == precision)
            assert cell["snr_float_db"] < best - NUMERICS_DB, where
        else:
            assert worst == cell["result"], f"{where}: {cell['failure'] or cell['not_delegated']}"
        if cell["result"] != "fails":
            _agree(found, cell | {"target": target}, precision, where)


def _agree(found: list, cell: dict, precision: str, where: str) -> None:
    """Every name in the file is claimed by a finding, and every finding shows in the file."""
    bad = [op for op in cell["not_delegated"] if "->" not in op]
    bad += strangers(cell, precision)
    names = {op.rsplit(":", 1)[0].removeprefix("aten::") for op in bad}
    claimed = {s for f in found for s in f.shows}
    assert names <= claimed, f"{where}: nobody foresaw {names - claimed}"
    for finding in found:
        assert not finding.shows or names & set(finding.shows), f"{where}: {finding.operator} does not show"


def test_every_rule_has_its_row() -> None:
    assert {rule.cell for rule in RULES} <= set(OPERATORS)
    for rule in RULES:
        assert rule.effects, rule.cell
        assert all(e.consequence in SEVERITY for e in rule.effects.values())
        assert {key.split()[0] for key in rule.effects} <= set(TARGETS)


def test_one_operator_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, once: then nothing is left to measure."""
    record(tmp_path, ["executorch"], ["leaky_relu"])
    (cell,) = read_records(tmp_path)["executorch", "int8"]["cells"].values()
    assert cell["result"] == "float"
    assert cell["float_ops"] == ["LeakyReLU:fp32"]
    assert 20 < cell["snr_float_db"] < 60
    assert cell["differing"] < 0.01
    half = read_records(tmp_path)["executorch", "fp16"]["cells"]["leaky_relu"]
    assert half["result"] == "whole"
    assert half["snr_float_db"] > 50
    monkeypatch.setattr(operators, "measure", None)
    record(tmp_path, ["executorch"], ["leaky_relu"])
    monkeypatch.undo()
    committed = RECORDS["executorch", "int8"]["cells"]["leaky_relu"]
    assert cell["snr_float_db"] == pytest.approx(committed["snr_float_db"], abs=0.5)


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    source = Source("tconv_grouped")
    cell = measure(source, "executorch", "int8")
    assert cell["result"] == "fails"
    assert cell["failure"].startswith("quantisation: ")
    assert "\n" not in cell["failure"]
    assert one_line(ValueError("first\n  an error: /usr/lib/x.py broke\n")) == "ValueError: an error: x.py broke"


def test_snr() -> None:
    want = [np.array([[[[1.0, -1.0]]]])]
    assert snr([want[0] + 0.1], want) == pytest.approx(20, abs=0.01)
    assert snr(want, want) is None
    assert snr([want[0] * np.nan], want) == -99


@pytest.mark.parametrize("text", ["{", '{"kind": "quality", "schema": 1}', "[]"])
def test_damaged_records_are_explained(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ZooError, match="is no record of operators"):
        read_records(tmp_path)


def test_no_records_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZooError, match="no records of operators"):
        read_records(tmp_path)
    with pytest.raises(SystemExit):
        operators.main([])
    assert "--record" in capsys.readouterr().err


def test_records_hold_no_paths_of_this_machine() -> None:
    for path in (ROOT / EVIDENCE).glob("*.json"):
        text = json.dumps(json.loads(path.read_text()))
        assert "/work" not in text
        assert "/tmp" not in text
