"""``zoo benchmark --device adb`` with Debian's adb against a stand-in for a phone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_phone import BATTERY, AdbServer, FakePhone, connected

from export.phone import FOLDER, benchmark_phone
from zoo.cli.main import main


def benchmark(artifact: Path, runner: Path, *options: str) -> list[str]:
    return ["benchmark", str(artifact), "--device", "adb", "--runner", str(runner), *options]


def complaint(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a failed command ends with."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def left_on(phone: FakePhone) -> list[str]:
    return [file.name for file in phone.temp.iterdir()]


def test_warm_run_is_measured_recorded_and_cleaned_up(
    phone: FakePhone,
    artifact: Path,
    runner: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = benchmark(artifact, runner, "--num-runs", "6", "--threads", "4", "--cpus", "0", "--json")
    arguments[3] = f"adb:{phone.serial}"
    arguments += ["--record", str(tmp_path / "evidence")]
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    assert main(arguments) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["ms"] == {"median": 3.0, "p10": 2.0, "p90": 4.0, "min": 2.0}
    assert (record["load_ms"], record["first_ms"], record["num_runs"]) == (7.5, 9.5, 6)
    assert record["ms_per_megapixel"] == pytest.approx(3.0 / (64 * 64 / 1e6), rel=1e-3)
    assert record["runner"]["runtime"] == "known 4"
    assert set(record["runner"]["libraries"]) == {"known_input", "known_output"}
    assert record["output"]["equal"] and record["output"]["differing"] == 0
    assert record["device"]["soc"] == "QTI SM8650"
    assert record["before"]["battery"] == {"level": 81, "temperature_c": 28.7, "powered": True}
    assert record["before"]["thermal"]["temperatures_c"] == {"skin": 31.2, "cpu-0": 41.0, "battery": 28.7}
    assert record["after"]["clocks"][1]["max_khz"] == 3302400
    assert record["doubts"] == []
    assert any("exec taskset 1 " in command for command in phone.commands)
    assert left_on(phone) == []
    (file,) = (tmp_path / "evidence").iterdir()
    assert file.name == "example-fake-one-utnet-n-executorch-int8-32-t4-warm.json"
    evidence = json.loads(file.read_text())
    assert evidence["kind"] == "phone"
    # A serial number identifies somebody's phone.
    assert phone.serial not in file.read_text() and "--device adb " in evidence["command"]


def test_cold_mode_starts_a_process_for_each_inference(phone: FakePhone, artifact: Path, runner: Path) -> None:
    record = benchmark_phone(artifact, mode="cold", runner=runner)
    assert record["ms"]["median"] == 9.5 and record["num_runs"] == 5 and record["warmup_runs"] == 0
    assert sum("exec" in command for command in phone.commands) == 5


def test_sustained_mode_tells_how_it_went_on(phone: FakePhone, artifact: Path, runner: Path) -> None:
    record = benchmark_phone(artifact, mode="sustained", seconds=0.5, runner=runner)
    assert record["num_runs"] > 20
    assert record["sustained"]["throttling_ratio"] == pytest.approx(1.0, abs=0.5)
    assert len(record["sustained"]["curve_ms"]) == 60


def test_a_low_battery_is_a_doubt(phone: FakePhone, artifact: Path, runner: Path) -> None:
    phone.set_battery(BATTERY.replace("81", "12"))
    record = benchmark_phone(artifact, num_runs=1, runner=runner)
    assert record["doubts"] == ["battery at 12 % (below 50 % many phones slow down)"]


def test_what_an_interrupted_run_left_is_removed(phone: FakePhone, artifact: Path, runner: Path) -> None:
    old = phone.temp / "raw-zoo"
    old.mkdir()
    (old / "old").write_text("")
    benchmark_phone(artifact, num_runs=1, runner=runner)
    assert left_on(phone) == []


def test_no_adb(
    artifact: Path,
    runner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "adb is not installed" in complaint(capsys, benchmark(artifact, runner))


def test_no_phone(adb: AdbServer, artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "adb sees no phone" in complaint(capsys, benchmark(artifact, runner))


def test_several_phones_need_a_serial(
    phone: FakePhone,
    adb: AdbServer,
    artifact: Path,
    runner: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with connected(adb, FakePhone(tmp_path / "second")) as second:
        line = complaint(capsys, benchmark(artifact, runner))
        assert "several phones" in line and phone.serial in line and second.serial in line
        assert benchmark_phone(artifact, serial=second.serial, num_runs=1, runner=runner)["output"]["equal"]
        assert phone.commands == []


def test_unknown_serial(phone: FakePhone, artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = benchmark(artifact, runner)
    arguments[3] = "adb:nowhere"
    assert f"adb sees no phone nowhere; it sees: {phone.serial}" in complaint(capsys, arguments)


def test_another_kind_of_device(artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = benchmark(artifact, runner)
    arguments[3] = "ssh:phone"
    assert "unknown device 'ssh:phone'" in complaint(capsys, arguments)


def test_unauthorised(
    adb: AdbServer, artifact: Path, runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phone = FakePhone(tmp_path / "phone")
    phone.authorised = False
    with connected(adb, phone):
        assert "unauthorised; unlock it and allow USB debugging" in complaint(capsys, benchmark(artifact, runner))


def test_offline(phone: FakePhone, artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phone.close()
    line = complaint(capsys, benchmark(artifact, runner))
    assert "is offline" in line or "adb sees no phone" in line  # adb forgets a phone after a while


def test_full_disk(phone: FakePhone, artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phone.free_bytes = 20_000
    assert "is full" in complaint(capsys, benchmark(artifact, runner))
    assert left_on(phone) == []


def test_killed_by_the_phone(
    phone: FakePhone, artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.kill_on = "exec "
    assert "killed runner in the middle" in complaint(capsys, benchmark(artifact, runner))
    assert left_on(phone) == []


def test_cable_pulled_in_the_middle(
    phone: FakePhone, artifact: Path, runner: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    phone.vanish_on = "exec "
    line = complaint(capsys, benchmark(artifact, runner, "--record", str(tmp_path / "evidence")))
    assert "went away" in line
    assert not (tmp_path / "evidence").exists()


def test_interrupted_by_the_user(
    phone: FakePhone, artifact: Path, runner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export import phone as module

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run", interrupt)
    assert main(benchmark(artifact, runner)) == 130
    assert left_on(phone) == []


@pytest.mark.parametrize("abi", ["armeabi-v7a,armeabi", "x86_64"])
def test_wrong_abi(
    adb: AdbServer, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], abi: str
) -> None:
    program = tmp_path / "runner"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(100))
    with connected(adb, FakePhone(tmp_path / "phone", abi=abi)) as phone:
        line = complaint(capsys, benchmark(artifact, program))
        assert "is for arm64-v8a, the phone runs " + abi.split(",")[0] in line
        assert left_on(phone) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo cannot load >&2; exit 2", "failed on the phone with exit code 2: cannot load"),
        ("exit 0", "did not report as a runner does"),
        ("echo hello", "did not report as a runner does"),
        ("""echo '{"runtime": "x", "load_ms": 1, "first_ms": 1, "ms": []}'""", "did not report as a runner does"),
    ],
)
def test_a_runner_that_fails(
    phone: FakePhone, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, words: str
) -> None:
    program = tmp_path / "runner"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert words in complaint(capsys, benchmark(artifact, program))
    assert left_on(phone) == []


def test_int8_that_differs_is_no_measurement(
    phone: FakePhone, artifact: Path, runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(runner, wrong)
    values = np.frombuffer((wrong / "known_output").read_bytes(), "<f4").copy()
    values[5] += 1
    (wrong / "known_output").write_bytes(values.tobytes())
    line = complaint(capsys, benchmark(artifact, wrong, "--record", str(tmp_path / "evidence")))
    assert "int8 outputs differ" in line
    assert not (tmp_path / "evidence").exists()
    (wrong / "known_output").write_bytes(values[:-1].tobytes())
    assert "values instead of" in complaint(capsys, benchmark(artifact, wrong))


@pytest.mark.arm
@pytest.mark.slow
@pytest.mark.parametrize("target", ["executorch", "litert"])
def test_arm_program_under_emulation(phone: FakePhone, tmp_path: Path, target: str) -> None:
    """The runner that a phone gets, with its own loader and libraries, executed as a Cortex-A76."""
    from export import export
    from tools.arm.provision import CACHE, TARGETS, Arm

    arm = Arm(CACHE)
    if shutil.which("qemu-aarch64") is None or not all(arm.runner(t).exists() for t in TARGETS):
        pytest.skip("no aarch64 runners or qemu-user; `python -m tools.arm.provision` brings both")
    phone.qemu = arm.qemu("cortex-a76")
    artifact = export("utnet-n", target=target, tile=128, output_dir=tmp_path).path
    record = benchmark_phone(artifact, warmup_runs=0, num_runs=2, runner=arm.folder(target))
    assert record["output"]["equal"] and record["runner"]["abi"] == "arm64-v8a"
    assert "ld-linux-aarch64.so.1" in record["runner"]["libraries"]
    assert any(f"cd {FOLDER}" in c and "./ld-linux-aarch64.so.1 --library-path ." in c for c in phone.commands)
    assert left_on(phone) == []
