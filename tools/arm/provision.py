"""ARM without a phone: aarch64 runtimes, runners and qemu-user, fetched and built into a cache folder.

From Python::

    from tools.arm.provision import provision

    arm = provision()                                # minutes the first time, a moment afterwards
    arm.runner("litert")                             # Path of zoo-runner-litert for aarch64, its libraries beside it
    arm.runner("executorch", arch="x86_64")          # the same program for this machine
    arm.qemu("cortex-a53")                           # ["qemu-aarch64", "-L", SYSROOT, "-cpu", "cortex-a53", ...]
    arm.sysroot("cortex-a53")                        # what QEMU_LD_PREFIX would be
    subprocess.run([*arm.qemu("cortex-a76"), arm.runner("litert"), MODEL, "--input", ...])

and from a shell ``python -m tools.arm.provision``. The runner's folder is self-contained (RPATH ``$ORIGIN``), which is what
is pushed to a device. Nothing is emulated but user code: counts and numerics mean something, milliseconds do not.

Two traps are handled here:

* qemu 7.2 hands the host's x86 ``/proc/cpuinfo`` to the program; CPU detection fails on it and LiteRT ends in a segmentation
  fault. Each CPU's sysroot therefore holds an ARM one, with the part number of the same CPU: a part that promises more than
  ``-cpu`` executes ends in an illegal instruction.
* ``-cpu max`` of qemu 7.2 gives wrong int8 results through its emulation of SME (utnet-n: 768,900 of 786,432 outputs differ,
  with ``sme=off`` none).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from zoo.errors import ZooError

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "arm"
TARGETS = ("executorch", "litert")
ARCHS = ("aarch64", "x86_64")

# ExecuTorch's wheels have a C++ library from 1.5 on; those of 1.4, which we export with, only Python extensions that need
# libtorch. A runtime reads programs of older exporters, and the ARM tests hold its output against 1.4's on this machine.
EXECUTORCH_SDK = "1.5.1"
_LITERT_PACKAGE = "ai-edge-litert"

# Debian packages: qemu-user is the dynamic build, the static one has no TCG plugins. The cross compiler brings the aarch64
# C and C++ libraries, which are all that the runtimes need of a system.
PACKAGES = ("qemu-user", "g++-aarch64-linux-gnu", "g++")
QEMU, CROSS = "qemu-aarch64", "aarch64-linux-gnu-g++"
_CROSS_ROOT = Path("/usr/aarch64-linux-gnu")


@dataclass(frozen=True)
class Cpu:
    """A CPU to emulate.

    Attributes:
        model: what ``-cpu`` takes.
        part: "CPU part" of /proc/cpuinfo, which the runtimes choose kernels by.
        features: its "Features".
        dot_macs: multiply-accumulates of the widest int8 dot product instruction; 0 without any.
    """

    model: str
    part: str
    features: str
    dot_macs: int


_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CPUS = {
    "cortex-a53": Cpu("cortex-a53", "0xd03", _BASE, 0),  # ARMv8.0: smull, smlal
    "cortex-a76": Cpu("cortex-a76", "0xd0b", _V82, 16),  # ARMv8.2: sdot
    # ARMv8.6 and up: smmla. The part is a Cortex-A715; qemu 7.2 has no such model.
    "i8mm": Cpu("max,sme=off", "0xd4d", f"{_V82} i8mm bf16", 32),
}
_PROCESSORS = 4  # as many as a phone's big cluster; a runtime's thread pool starts with this many


@dataclass(frozen=True)
class Arm:
    """A provisioned cache folder; see the top of the file."""

    root: Path

    def sysroot(self, cpu: str = "cortex-a76") -> Path:
        """Folder that stands for ``/`` of a device with this CPU: libraries, /proc/cpuinfo, /sys/devices/system/cpu."""
        return self.root / "sysroot" / _known(cpu)

    def qemu(self, cpu: str = "cortex-a76", counts: Path | None = None) -> list[str]:
        """Command prefix that runs an aarch64 program as this CPU; with ``counts`` the plugin writes its lines there.

        Raises:
            ZooError: an unknown CPU.
        """
        prefix = [QEMU, "-L", str(self.sysroot(cpu)), "-cpu", CPUS[cpu].model]
        return prefix if counts is None else [*prefix, "-plugin", str(self.plugin), "-d", "plugin", "-D", str(counts)]

    def folder(self, target: str, arch: str = "aarch64") -> Path:
        """The runner and the shared libraries that it needs: all that has to be copied to a device."""
        return self.root / "bin" / arch / target

    def runner(self, target: str, arch: str = "aarch64") -> Path:
        """``zoo-runner-executorch`` or ``zoo-runner-litert`` for ``aarch64`` or ``x86_64``."""
        return self.folder(target, arch) / f"zoo-runner-{target}"

    @property
    def plugin(self) -> Path:
        """The instruction-counting TCG plugin."""
        return self.root / "count_plugin.so"


def provision(root: Path | str = CACHE, *, install: bool = True) -> Arm:
    """Fetch and build what is missing.

    Args:
        root: cache folder, made if need be; everything in it can be deleted.
        install: install Debian packages that are missing, where this process is root.

    Raises:
        ZooError: a package or wheel cannot be had, or something does not compile; one line that says what to do.
    """
    arm = Arm(Path(root).resolve())
    _require_packages(install)
    with _alone(arm.root):
        for cpu in CPUS:
            _write_sysroot(arm.sysroot(cpu), CPUS[cpu])
        for arch in ARCHS:
            _executorch(arm, arch)
            _litert(arm, arch)
        _build_plugin(arm)
    return arm


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time fills a cache folder; the others wait and find it filled."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("a")
    except OSError as error:
        raise ZooError(f"{root}: cannot be written to ({error.strerror}); give another --root") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _executorch(arm: Arm, arch: str) -> None:
    sdk = _wheel(arm, "executorch", EXECUTORCH_SDK, arch, ("executorch/lib/libexecutorch", "executorch/include/"))
    include, libraries = sdk / "executorch" / "include", sdk / "executorch" / "lib"
    # What EXECUTORCH_INCLUDE_DIRS and EXECUTORCH_COMPILE_DEFINITIONS of the wheel's CMake package say.
    flags = ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-isystem", str(include)]
    flags += ["-isystem", str(include / "executorch/runtime/core/portable_type/c10")]
    # Kernels and delegates register themselves when they are loaded; nothing refers to them by name.
    wanted = ("", "_backend_xnnpack", "_kernels_optimized", "_kernels_quantized", "_threadpool")
    _build_runner(arm, "executorch", arch, flags, [libraries / f"libexecutorch{name}.so" for name in wanted])


def _litert(arm: Arm, arch: str) -> None:
    wheel = _wheel(arm, _LITERT_PACKAGE, version(_LITERT_PACKAGE), arch, ("ai_edge_litert/libLiteRt.so",))
    _build_runner(arm, "litert", arch, [], [wheel / "ai_edge_litert" / "libLiteRt.so"])


def _known(cpu: str) -> str:
    if cpu not in CPUS:
        raise ZooError(f"unknown CPU {cpu!r}; choose from {', '.join(CPUS)}")
    return cpu


def _require_packages(install: bool) -> None:
    if all(shutil.which(tool) for tool in (QEMU, CROSS, "g++")):
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    if not (install and os.geteuid() == 0 and shutil.which("apt-get")):
        raise ZooError(f"ARM checks need {', '.join(PACKAGES)}; on Debian: sudo {' '.join(command)}")
    # Others may be installing at the same time: wait for dpkg's lock instead of failing on it.
    options = ["-o", "DPkg::Lock::Timeout=600"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in ([command[0], *options, "update"], [command[0], *options, *command[1:]]):
        done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
        if done.returncode and "install" in step:
            raise ZooError(f"{' '.join(command)} was refused: {_last_line(done.stderr)}")


def _write_sysroot(folder: Path, cpu: Cpu) -> None:
    part = f"Features\t: {cpu.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
    part += f"CPU part\t: {cpu.part}\nCPU revision\t: 0\n"
    cores = f"0-{_PROCESSORS - 1}\n"
    files = {"proc/cpuinfo": "\n".join(f"processor\t: {i}\nBogoMIPS\t: 50.00\n{part}" for i in range(_PROCESSORS))}
    files |= {f"sys/devices/system/cpu/{name}": cores for name in ("possible", "present", "online")}
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
    link = folder / "lib"
    if not link.is_symlink():
        link.symlink_to(_CROSS_ROOT / "lib")


def _wheel(arm: Arm, package: str, release: str, arch: str, wanted: tuple[str, ...]) -> Path:
    """Folder with the wanted members (by the start of their names) of a wheel, downloaded at its first use."""
    folder = arm.root / "wheels" / arch / f"{package}-{release}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        # Libraries are all we take: any Python's wheel would do.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", "3.11", "--dest", str(work)]
        command += [f"--platform=manylinux_{glibc}_{arch}" for glibc in ("2_28", "2_27", "2_17")]
        done = subprocess.run([*command, f"{package}=={release}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ZooError(f"{package} {release} for {arch} cannot be downloaded: {_last_line(done.stderr)}")
        unpacked = work / "unpacked"
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            members = [m for m in wheel.namelist() if m.startswith(wanted)]
            if not members:
                raise ZooError(f"{package} {release} for {arch} holds no {wanted[0]}; pin another release")
            wheel.extractall(unpacked, members)
        unpacked.replace(folder)
    return folder


def _build_runner(arm: Arm, target: str, arch: str, flags: list[str], libraries: list[Path]) -> None:
    folder, binary = arm.folder(target, arch), arm.runner(target, arch)
    sources = ROOT / "export" / "runner"
    command = [CROSS if arch == "aarch64" else "g++", "-std=c++17", "-O2", "-Wall", "-Wextra", *flags]
    command += [str(sources / f"{target}.cpp"), "-pthread", f"-L{folder}", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed"]
    command += [f"-l:{library.name}" for library in libraries]
    # Times say whether the sources changed, this text whether the release or the command did.
    stamp, text = arm.root / "built" / f"{arch}-{target}", "\n".join([*command, *map(str, libraries)])
    if (
        _newer(binary, [sources / f"{target}.cpp", sources / "runner.h"])
        and stamp.is_file()
        and stamp.read_text() == text
    ):
        return
    for parent in (folder, stamp.parent):
        parent.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        shutil.copy2(library, folder)
    _compile(command, binary)
    stamp.write_text(text)


def _build_plugin(arm: Arm) -> None:
    source = Path(__file__).with_name("count_plugin.c")
    if not _newer(arm.plugin, [source]):
        _compile(["g++", "-xc", "-std=c11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", str(source)], arm.plugin)


def _newer(product: Path, sources: list[Path]) -> bool:
    return product.exists() and all(product.stat().st_mtime >= s.stat().st_mtime for s in sources)


def _compile(command: list[str], product: Path) -> None:
    temporary = product.with_name(f".{product.name}.{os.getpid()}")
    done = subprocess.run([*command, "-o", str(temporary)], capture_output=True, text=True, check=False)
    if done.returncode:
        temporary.unlink(missing_ok=True)
        first = next((line for line in done.stderr.splitlines() if "error" in line), _last_line(done.stderr))
        raise ZooError(f"{product.name} cannot be compiled: {first}")
    temporary.replace(product)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def main() -> None:
    """``python -m tools.arm.provision``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=CACHE, help="cache folder (default: build/arm)")
    parser.add_argument("--no-install", action="store_true", help="never install Debian packages")
    args = parser.parse_args()
    try:
        arm = provision(args.root, install=not args.no_install)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    for target in TARGETS:
        print(f"{' '.join(arm.qemu())} {arm.runner(target)}")


if __name__ == "__main__":
    main()
