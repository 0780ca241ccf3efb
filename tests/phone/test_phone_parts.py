"""What a phone answers, taken apart; runners, cores and the curve of a long run. No phone and no adb needed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_phone import BATTERY, PROPS, THERMAL

from export import phone_runner
from export.phone import FOLDER, _mask, _run, _sustained
from export.phone_runner import find_runner
from export.phone_state import parse_state
from zoo.errors import ZooError

GETPROP = "".join(f"[{key}]: [{value}]\n" for key, value in PROPS.items())


def answer(**sections: str) -> str:
    return "".join(f"@@{name}\n{body}" for name, body in ({"props": GETPROP} | sections).items())


def test_state_of_a_phone_that_tells_all() -> None:
    text = answer(
        battery=BATTERY,
        thermal=THERMAL,
        zones="cpu-1-0 45200\nskin 99000\nsoc 38\n",
        clocks="0 1132800 2265600 2265600 walt\n7 3302400 2000000 3302400 walt\n",
    )
    state = parse_state(text)
    assert state.device["model"] == "Fake One" and state.device["soc"] == "QTI SM8650"
    assert state.abis == ("arm64-v8a", "armeabi-v7a", "armeabi")
    # The HAL's value wins over a zone of the same name; a zone may be in whole degrees.
    assert state.thermal == {
        "status": "none",
        "temperatures_c": {"skin": 31.2, "cpu-0": 41.0, "cpu-1-0": 45.2, "soc": 38.0},
    }
    assert state.doubts() == ["1 cores are held below their full clock"]


def test_state_of_a_phone_that_hides_most() -> None:
    state = parse_state(answer(battery="Permission Denial\n", thermal="", zones=" \n", clocks="0    \n"))
    assert (state.battery, state.thermal, state.clocks) == ({}, {"temperatures_c": {}}, [])
    assert state.doubts() == []


def test_a_hot_phone_is_a_doubt() -> None:
    state = parse_state(answer(thermal=THERMAL.replace("Status: 0", "Status: 3")))
    assert state.doubts() == ["thermal status severe"]


def test_an_old_phone_names_its_soc_elsewhere() -> None:
    old = "[ro.build.version.release]: [9]\n[ro.board.platform]: [msmnile]\n[ro.product.cpu.abi]: [arm64-v8a]\n"
    state = parse_state(answer(props=old))
    assert state.device["soc"] == "msmnile" and state.abis == ("arm64-v8a",)


def test_something_else_than_android() -> None:
    with pytest.raises(ZooError, match="no Android phone"):
        parse_state("sh: getprop: not found")


@pytest.mark.parametrize(
    ("cpus", "mask"), [("", ""), ("7", "taskset 80 "), ("4-7", "taskset f0 "), ("0,2-3", "taskset d ")]
)
def test_cores(cpus: str, mask: str) -> None:
    assert _mask(cpus) == mask


@pytest.mark.parametrize("cpus", ["big", "7-4", "1,", "-1"])
def test_no_cores(cpus: str) -> None:
    with pytest.raises(ZooError, match="is no list of cores"):
        _mask(cpus)


def test_throttling_shows_in_a_sustained_run() -> None:
    """Ten minutes; after five the phone takes twice as long."""
    times = [10.0] * 30_000 + [20.0] * 15_000
    found = _sustained(times)
    assert found["seconds"] == 600 and found["curve_s"] == 10
    assert found["throttling_ratio"] == 2.0
    assert found["curve_ms"][:30] == [10.0] * 30 and found["curve_ms"][-29:] == [20.0] * 29


def test_a_run_longer_than_a_stretch_leaves_gaps() -> None:
    found = _sustained([1000.0, 1000.0])
    assert [v for v in found["curve_ms"] if v is not None] == [1000.0, 1000.0]
    assert found["throttling_ratio"] is None  # nothing ended in the first tenth


def elf(machine: int, words: bytes = b"") -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + machine.to_bytes(2, "little") + bytes(44) + words


@pytest.mark.parametrize(("machine", "abi"), [(183, "arm64-v8a"), (62, "x86_64"), (40, "armeabi-v7a"), (3, "x86")])
def test_a_programs_instruction_set(tmp_path: Path, machine: int, abi: str) -> None:
    file = tmp_path / "mine"
    file.write_bytes(elf(machine, b"/system/bin/linker64\0"))
    bundle = find_runner(file, "litert")
    assert bundle.abi == abi and bundle.files == (file,)
    assert bundle.command == "env LD_LIBRARY_PATH=. ./mine"
    bundle.check((abi, "other"))
    with pytest.raises(ZooError, match="give a fitting one with --runner"):
        bundle.check(("other",))


def test_names_go_through_both_shells_as_they_are(tmp_path: Path) -> None:
    class Phone:
        def shell(self, command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                ["sh", "-c", command.replace(FOLDER, str(tmp_path))], capture_output=True, check=False
            )

    program, name = tmp_path / "my runner", "it's $HOME; exit 3 #.pte"
    program.write_text(
        '#!/bin/sh\necho "{\\"runtime\\": \\"$1\\", \\"load_ms\\": 1, \\"first_ms\\": 1, \\"ms\\": [1]}"\n'
    )
    bundle = find_runner(program, "executorch")
    assert _run(Phone(), bundle, name, "", 1, 0, 1, 0.0)["runtime"] == name  # type: ignore[arg-type]


def test_a_program_of_no_phone(tmp_path: Path) -> None:
    file = tmp_path / "runner"
    file.write_bytes(elf(243))
    with pytest.raises(ZooError, match="that no phone has"):
        find_runner(file, "litert")


def test_glibc_travels_with_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries, folder = tmp_path / "lib", tmp_path / "bundle"
    libraries.mkdir()
    folder.mkdir()
    (folder / "zoo-runner-litert").write_bytes(elf(183, b"/lib/ld-linux-aarch64.so.1\0"))
    (folder / "libLiteRt.so").write_bytes(b"library")
    monkeypatch.setattr(phone_runner, "_CROSS_LIBRARIES", libraries)
    with pytest.raises(ZooError, match="is a glibc program"):
        find_runner(folder, "litert")
    for name in ("ld-linux-aarch64.so.1", "libc.so.6"):
        (libraries / name).write_bytes(np.random.default_rng(0).bytes(8))
    bundle = find_runner(folder, "litert")
    assert bundle.command == "./ld-linux-aarch64.so.1 --library-path . ./zoo-runner-litert"
    assert set(bundle.libraries) == {"libLiteRt.so", "ld-linux-aarch64.so.1", "libc.so.6"}


@pytest.mark.parametrize(("name", "words"), [("nothing", "no such runner"), (".", "no program named runner")])
def test_no_runner(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        find_runner(tmp_path / name, "litert")


def test_the_projects_own_runner_has_to_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError, match=r"build one with `python -m tools\.arm\.provision`"):
        find_runner(None, "litert")
