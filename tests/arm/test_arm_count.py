"""Instruction counts: repeatable, right where they can be known, and no more than the committed records say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.arm.count import (
    CLASSES,
    check_growth,
    count,
    growth,
    load_records,
    macs_per_megapixel,
    record_path,
)
from tools.arm.provision import CROSS, Arm
from zoo.errors import ZooError
from zoo.models.registry import get_spec

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "evidence" / "instructions"
RECORDS = sorted(EVIDENCE.glob("*.json"))

# A loop of 1000 turns whose instructions of each class are known by reading it.
KNOWN = """
    .arch armv8.6-a+i8mm+dotprod
    .global main
main:
    sub  sp, sp, #64
    mov  x1, sp
    mov  w0, #1000
    hint #0x7f
1:  sdot v0.4s, v1.16b, v2.16b
    udot v0.4s, v1.16b, v2.4b[1]
    fmla v3.4s, v4.4s, v5.4s
    fmls v3.4s, v4.4s, v5.s[2]
    fmla v3.2d, v4.2d, v5.2d
    smull v6.8h, v7.8b, v8.8b
    smlal2 v6.4s, v7.8h, v8.h[1]
    fmadd s9, s10, s11, s12
    fmul v3.4s, v4.4s, v5.4s
    ldr  q13, [x1]
    st1  {v13.16b}, [x1]
    ldp  x2, x3, [x1]
    mul  x4, x2, x3
    subs w0, w0, #1
    b.ne 1b
    hint #0x7f
    mov  w0, #0
    add  sp, sp, #64
    ret
"""
KNOWN_PER_TURN = {"dot": 2, "fmla": 3, "simd": 4, "simd_memory": 2, "scalar": 4}


@pytest.mark.arm
def test_plugin_counts_a_known_loop(arm: Arm, tmp_path: Path) -> None:
    source, program, log = tmp_path / "known.s", tmp_path / "known", tmp_path / "log"
    source.write_text(KNOWN)
    subprocess.run([CROSS, str(source), "-o", str(program)], check=True)
    subprocess.run([*arm.qemu("cortex-a76", log), str(program)], check=True)
    before, after = (list(map(int, line.split()[1:])) for line in log.read_text().splitlines())
    counted = dict(zip(CLASSES, (b - a for a, b in zip(before, after, strict=True)), strict=True))
    # The second mark itself is the one instruction more.
    assert counted == {name: 1000 * n + (name == "scalar") for name, n in KNOWN_PER_TURN.items()}


@pytest.mark.arm
@pytest.mark.slow
@pytest.mark.parametrize("target", ["executorch", "litert"])
def test_counts_repeat_and_dots_are_useful(arm: Arm, target: str, artifact: Callable[..., Path]) -> None:
    file = artifact("utnet-n", target, "int8", 64)
    first, second = count(arm, file, "cortex-a76"), count(arm, file, "cortex-a76")
    assert first["instructions"] == second["instructions"]
    # More than all of them useful would mean that some go uncounted; kernels of 16 output channels waste a part.
    assert 0.3 < first["useful_dot_share"] <= 1
    assert count(arm, file, "cortex-a53")["instructions"]["dot"] == 0
    # smmla does twice the work of sdot: the same network takes fewer of them.
    assert 0 < count(arm, file, "i8mm")["instructions"]["dot"] < first["instructions"]["dot"]


@pytest.mark.arm
@pytest.mark.slow
@pytest.mark.parametrize("file", RECORDS, ids=lambda f: f.stem)
def test_no_model_grew(arm: Arm, file: Path, artifact: Callable[..., Path]) -> None:
    """The gate: at most 2 % more instructions per megapixel than the committed record."""
    record = json.loads(file.read_text())
    fresh = artifact(record["model"], record["target"], record["precision"], record["tile"])
    check_growth(record, count(arm, fresh, record["machine"]["processor"]))


def _record(total: float) -> dict:
    return {
        "model": "utnet-n",
        "target": "litert",
        "precision": "int8",
        "tile": 64,
        "machine": {"processor": "cortex-a76"},
        "millions_per_megapixel": {"total": total},
    }


def test_gate_is_two_percent() -> None:
    check_growth(_record(100.0), _record(101.9))
    check_growth(_record(100.0), _record(50.0))
    with pytest.raises(ZooError, match=r"102\.1 million instructions per megapixel, 2\.1% more"):
        check_growth(_record(100.0), _record(102.1))


def test_records_of_other_things_do_not_compare() -> None:
    with pytest.raises(ZooError, match="tile"):
        growth(_record(1.0), _record(1.0) | {"tile": 128})
    with pytest.raises(ZooError, match="cortex-a53"):
        growth(_record(1.0) | {"machine": {"processor": "cortex-a53"}}, _record(1.0))


def test_records_are_whole() -> None:
    """Committed records: their name, their sums, their shares."""
    if not RECORDS:
        pytest.skip("no records are committed; python -m tools.arm.count --record evidence/instructions")
    for record, file in zip(load_records(EVIDENCE), RECORDS, strict=True):
        assert record_path(EVIDENCE, record) == file
        n = record["instructions"]
        assert n["total"] == sum(n[c] for c in CLASSES)
        assert record["inferences"][-1] == n["total"]
        assert record["millions_per_megapixel"]["total"] == pytest.approx(
            n["total"] / record["megapixels"] / 1e6, abs=1e-3
        )
        # Of the network as it is now: a changed architecture needs its records made again.
        total, dense = macs_per_megapixel(record["model"])
        recorded = record["gmac_per_megapixel"], record["dense_gmac_per_megapixel"]
        assert recorded == pytest.approx((total / 1e9, dense / 1e9), rel=1e-3), f"{file.name}: of another architecture"
        share = record["useful_dot_share"]
        assert (share is None) == (n["dot"] == 0)
        assert share is None or 0 < share <= 1
        assert "/work" not in record["command"] and "/tmp" not in record["command"]


def test_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "utnet-n-litert-int8-cortex-a76.json").write_text('{"kind": "latency"}')
    with pytest.raises(ZooError, match="is no record of instructions"):
        load_records(tmp_path)
    with pytest.raises(ZooError, match="holds no records"):
        load_records(tmp_path / "empty")


@pytest.mark.parametrize("name", ["utnet-n", "pmrid"])
def test_macs_agree_with_the_registry(name: str) -> None:
    total, dense = macs_per_megapixel(name)
    assert total / 1e9 == pytest.approx(get_spec(name).gmac_per_mp, rel=1e-6)
    assert 0 < dense <= total
    assert (dense < total) == (name == "pmrid")  # it has depthwise convolutions
