"""What records call the processor."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from zoo import processor

_ZEN3 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC

processor\t: 1
cpu family\t: 26
"""


def test_x86_tells_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(_ZEN3)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert processor.processor_name() == "AMD EPYC (family 25)"


def test_zen_4_is_no_zen_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    for flags, name in (("sse avx2", "family 25"), ("sse avx2 avx512f avx512_vnni", "family 25 with AVX-512")):
        (tmp_path / "cpuinfo").write_text(_ZEN3.replace("model name", f"flags\t\t: {flags}\nmodel name", 1))
        assert processor.processor_name() == f"AMD EPYC ({name})"


def test_others_tell_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert processor.processor_name() == "arm64"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert processor.processor_name() == "arm64"
