"""The runners' command line, on this machine, and what provisioning and emulation refuse."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tools.arm import emulate
from tools.arm import provision as provisioning
from tools.arm.emulate import run, write_artifact
from tools.arm.provision import CPUS, TARGETS, Arm, provision
from zoo.errors import ZooError

SUFFIX = {"executorch": "pte", "litert": "tflite"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runner")
    return {target: write_artifact("utnet-n", target, "int8", 32, folder) for target in TARGETS}


def start(arm: Arm, target: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [arm.runner(target, "x86_64"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.arm
@pytest.mark.parametrize("target", TARGETS)
def test_seconds_extend_the_runs(arm: Arm, models: dict[str, Path], target: str, tmp_path: Path) -> None:
    np.zeros(12 * 32 * 32, np.float32).tofile(tmp_path / "in.bin")
    options = ["--input", "in.bin", "--output", "out.bin", "--warmup", "0", "--runs", "1"]
    short = start(arm, target, models[target], *options, cwd=tmp_path)
    long = start(arm, target, models[target], *options, "--seconds", "0.5", cwd=tmp_path)
    assert short.returncode == 0 and short.stdout.count(",") == 3  # one run
    assert long.returncode == 0 and long.stdout.count(",") > 5
    assert short.stderr == long.stderr == ""


@pytest.mark.arm
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--input": "missing.bin"}, "missing.bin: cannot be read"),
        ({"--input": "odd.bin"}, "odd.bin: holds 5 bytes"),
        ({"--input": "short.bin"}, "the input has 7 values, the model takes 12288"),
        ({"--output": "nowhere/out.bin"}, "nowhere/out.bin: cannot be written"),
        ({"--runs": "many"}, "--runs takes a number"),
        ({"--threads": "0"}, "--threads takes a number of at least 1"),
        ({"--speed": "1"}, "unknown option --speed"),
        ({"model": "missing.model"}, "missing.model: cannot be read"),
        ({"model": "odd.bin"}, "odd.bin: no "),
    ],
)
def test_mistakes_get_one_line(
    arm: Arm, models: dict[str, Path], target: str, change: dict[str, str], message: str, tmp_path: Path
) -> None:
    np.zeros(12 * 32 * 32, np.float32).tofile(tmp_path / "in.bin")
    np.zeros(7, np.float32).tofile(tmp_path / "short.bin")
    (tmp_path / "odd.bin").write_bytes(b"12345")
    options = {"model": str(models[target]), "--input": "in.bin", "--output": "out.bin", "--runs": "1"} | change
    model = options.pop("model")
    done = start(arm, target, model, *[word for pair in options.items() for word in pair], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"zoo-runner-{target}: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.arm
@pytest.mark.parametrize("target", TARGETS)
def test_folder_is_all_that_a_device_needs(arm: Arm, models: dict[str, Path], target: str, tmp_path: Path) -> None:
    """The folder, copied elsewhere, still runs: libraries are found beside the runner."""
    copied = shutil.copytree(arm.folder(target), tmp_path / "device")
    np.zeros(12 * 32 * 32, np.float32).tofile(tmp_path / "in.bin")
    command = [*arm.qemu("cortex-a53"), copied / f"zoo-runner-{target}", models[target], "--input", "in.bin"]
    done = subprocess.run(
        [*map(str, command), "--output", "out.bin", "--runs", "1", "--warmup", "0"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0
    assert (tmp_path / "out.bin").stat().st_size == 12 * 32 * 32 * 4


@pytest.mark.arm
def test_provisioning_again_changes_nothing(arm: Arm) -> None:
    files = {f: f.stat().st_mtime_ns for f in arm.root.rglob("*") if f.is_file()}
    assert provision(arm.root) == arm
    assert {f: f.stat().st_mtime_ns for f in arm.root.rglob("*") if f.is_file()} == files


@pytest.mark.arm
def test_cpuinfo_matches_the_cpu(arm: Arm) -> None:
    """The first trap: what the program reads is this file, not the host's."""
    for cpu, spec in CPUS.items():
        program = [*arm.qemu(cpu), arm.runner("litert")]
        assert str(arm.sysroot(cpu)) in map(str, program)
        text = (arm.sysroot(cpu) / "proc/cpuinfo").read_text()
        assert text.count(f"CPU part\t: {spec.part}\n") == text.count("processor\t:") == 4
    assert "sme=off" in arm.qemu("i8mm")[4]  # the second trap


def test_refused_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioning, "_require_packages", lambda install: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ZooError, match=r"^executorch \S+ for aarch64 cannot be downloaded: ERROR: .+$"):
        provision(tmp_path / "cache")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ZooError, match=r"on Debian: sudo apt-get install .*qemu-user"):
        provision(tmp_path / "cache", install=False)


@pytest.mark.parametrize("works", [True, False])
def test_root_installs_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    """With an apt-get that writes down what it was asked for, and one that is offline."""
    script = tmp_path / "apt-get"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\necho "E: no network" >&2\nexit {0 if works else 100}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(provisioning.os, "geteuid", lambda: 0)
    if works:
        provisioning._require_packages(True)
    else:
        with pytest.raises(ZooError, match=r"^apt-get install .* was refused: E: no network$"):
            provisioning._require_packages(True)
    update, install = (tmp_path / "log").read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith(" ".join(provisioning.PACKAGES))


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="unknown CPU 'cortex-m4'"):
        Arm(tmp_path).qemu("cortex-m4")
    with pytest.raises(ZooError, match="does not run on emulated ARM"):
        write_artifact("utnet-n", "coreml", "int8", 64, tmp_path)
    with pytest.raises(ZooError, match="multiple of"):
        write_artifact("utnet-n", "litert", "int8", 63, tmp_path)
    with pytest.raises(ZooError, match="compressor"):
        write_artifact("bayer-codec-s", "litert", "int8", 64, tmp_path)


def test_a_runner_that_hangs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "runner"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(Arm, "runner", lambda self, target, arch: program)
    monkeypatch.setattr(emulate, "_TIMEOUT", 0.1)
    with pytest.raises(ZooError, match=r"^x\.tflite on this machine: no answer within 0\.1 s"):
        run(Arm(tmp_path), tmp_path / "x.tflite", np.zeros(3, np.float32))


@pytest.mark.arm
def test_a_failing_runner_is_reported(arm: Arm, models: dict[str, Path]) -> None:
    with pytest.raises(ZooError, match=r"on cortex-a53: .*the input has 3 values"):
        run(arm, models["litert"], np.zeros(3, np.float32), cpu="cortex-a53")
