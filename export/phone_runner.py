"""The program that runs an artefact on a phone, and what has to lie beside it.

A runner is called ``RUNNER MODEL --input IN.bin --output OUT.bin --warmup W --runs N --threads T [--seconds S]``: raw float32
in and out, one JSON line on stdout (``runtime``, ``load_ms``, ``first_ms``, ``ms``), an error as one line on stderr with exit
code 2 (``export/runner``). Android has no glibc, so a runner built for Linux brings its own: the loader and its libraries are
pushed with it, and the loader is started instead of the runner. A runner built with the NDK needs neither.
"""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass
from pathlib import Path

from export import digest_of
from zoo.errors import ZooError

NAME = "runner"
LOADER = "ld-linux-aarch64.so.1"
# Where tools/arm/provision.py puts runners, seen from the top of a checkout.
DEFAULT_FOLDER = Path("build/arm/bin/aarch64")
# What a C++ program of Debian's cross compiler needs of a system, and where its package (libstdc++6-arm64-cross) puts it.
_SYSTEM = (
    LOADER,
    "libc.so.6",
    "libm.so.6",
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
)
_CROSS_LIBRARIES = Path("/usr/aarch64-linux-gnu/lib")
# e_machine of ELF (System V ABI, chapter 4) -> Android's name of the instruction set.
_MACHINES = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a"}
_ELF = b"\x7fELF"


@dataclass(frozen=True)
class Bundle:
    """What is pushed to run a model.

    Attributes:
        program: the runner.
        files: all that is pushed, the runner included.
        abi: Android's name of its instruction set; None for a script.
    """

    program: Path
    files: tuple[Path, ...]
    abi: str | None

    @property
    def sha256(self) -> str:
        """Of the runner itself."""
        return digest_of(self.program)

    @property
    def libraries(self) -> dict[str, str]:
        """sha256 of all else that is pushed with it, by name."""
        return {f.name: digest_of(f) for f in sorted(self.files) if f != self.program}

    @property
    def command(self) -> str:
        """How the phone's shell starts it, from the folder that it was pushed to."""
        program = shlex.quote(f"./{self.program.name}")
        if any(f.name == LOADER for f in self.files):
            return f"./{LOADER} --library-path . {program}"
        # The NDK's libc++_shared.so and a runtime's own libraries, where there are any.
        return f"env LD_LIBRARY_PATH=. {program}"

    def check(self, abis: tuple[str, ...]) -> None:
        """Refuse a phone that cannot run it.

        Args:
            abis: what the phone says of itself (``ro.product.cpu.abilist``).

        Raises:
            ZooError: none of them is the runner's.
        """
        if self.abi is not None and self.abi not in abis:
            offered = ", ".join(abis) or "nothing known"
            raise ZooError(
                f"{self.program} is for {self.abi}, the phone runs {offered}; give a fitting one with --runner"
            )


def find_runner(path: Path | None, target: str) -> Bundle:
    """The runner of a target, ready to push.

    Args:
        path: a program, or a folder with ``runner`` (or ``zoo-runner-TARGET``) and the libraries it needs; None for the one
            that ``python -m tools.arm.provision`` builds. glibc is added to a program that needs it, from the folder or
            from Debian's cross compiler.
        target: ``executorch`` or ``litert``.

    Raises:
        ZooError: nothing there, or a glibc program without a glibc to go with it.
    """
    if path is None:
        path = DEFAULT_FOLDER / target
        if not path.exists():
            raise ZooError(
                f"there is no runner for {target} at {path}; build one with `python -m tools.arm.provision`, "
                "or give one built with the NDK with --runner PATH"
            )
    if not path.exists():
        raise ZooError(f"{path}: no such runner")
    if path.is_dir():
        program = next((path / n for n in (NAME, f"zoo-runner-{target}") if (path / n).is_file()), None)
        if program is None:
            raise ZooError(f"{path}: no program named {NAME} or zoo-runner-{target} in this folder")
        files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
    else:
        program, files = path, [path]
    head = program.read_bytes()[:4096]
    abi = _abi(program, head)
    if b"/lib/ld-linux" in head and not any(f.name == LOADER for f in files):
        if abi != "arm64-v8a" or not (_CROSS_LIBRARIES / LOADER).exists():
            raise ZooError(
                f"{program} is a glibc program, which Android cannot start: give a folder with it, {LOADER} and its libraries"
            )
        names = {f.name for f in files}
        files += [_CROSS_LIBRARIES / n for n in _SYSTEM if n not in names and (_CROSS_LIBRARIES / n).exists()]
    return Bundle(program, tuple(files), abi)


def _abi(program: Path, head: bytes) -> str | None:
    if head[:4] != _ELF:
        return None
    # Byte 5 says which end comes first; all of Android's are little-endian.
    machine = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
    if machine not in _MACHINES:
        raise ZooError(f"{program} is for a machine (ELF number {machine}) that no phone has")
    return _MACHINES[machine]
