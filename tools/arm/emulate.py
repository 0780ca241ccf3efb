"""One artefact on an emulated ARM CPU, or natively with the same runner: what the ARM tests and the counter share."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import describe, load_source, target_module
from export.target import last_words
from tools.arm.provision import TARGETS, Arm
from zoo.errors import ZooError
from zoo.models.registry import get_spec, halves

# Seconds until a run counts as hung; utnet-m at its full tile takes 25 for four inferences as Cortex-A53 on one busy core.
_TIMEOUT = 1800


@dataclass(frozen=True)
class Run:
    """What a runner did.

    Attributes:
        output: float32 values in the model's order, flat.
        report: its JSON line: ``runtime``, ``load_ms``, ``first_ms``, ``ms`` (meaningless where emulated).
        counts: int64 ``[1 + warmup + runs, 5]``: instructions of each inference by class, in the order of the plugin; None
            without counting.
    """

    output: NDArray[np.float32]
    report: dict[str, Any]
    counts: NDArray[np.int64] | None


def write_artifact(name: str, target: str, precision: str, tile: int, folder: Path) -> Path:
    """A model's file as ``zoo export`` writes it, at any tile: without the export's gates a tile need not exceed the halo.

    Args:
        name: a registered denoiser with weights.
        tile: packed pixels, a multiple of the model's tile multiple. Emulation takes seconds per megapixel: keep it small.
        folder: where to put ``NAME-TARGET-PRECISION-TILE.SUFFIX``.

    Raises:
        ZooError: no such model, target or precision, a compressor, or a tile that the model cannot take.
    """
    if target not in TARGETS:
        raise ZooError(f"{target} does not run on emulated ARM Linux; choose from {', '.join(TARGETS)}")
    spec = get_spec(name)
    if halves(name) != ("",):
        raise ZooError(f"{name} is a compressor; ARM checks take denoisers")
    if tile < 1 or tile % spec.tile_multiple:
        raise ZooError(f"{name} takes tiles of a multiple of {spec.tile_multiple} packed pixels, not {tile}")
    module = target_module(target)
    source, digest = load_source(name, precision)
    path = folder / f"{name}-{target}-{precision}-{tile}.{module.SUFFIX}"
    module.write(source, precision=precision, tile=tile, metadata=describe(spec, digest, precision, target), path=path)
    return path


def run(
    arm: Arm,
    artifact: Path,
    x: NDArray[np.float32],
    *,
    cpu: str | None = None,
    warmup: int = 0,
    runs: int = 1,
    threads: int = 1,
    count: bool = False,
) -> Run:
    """Run an artefact with its runner.

    Args:
        artifact: a ``.pte`` or ``.tflite`` file.
        x: float32 input, as the model takes it.
        cpu: one of :data:`tools.arm.provision.CPUS`; None runs the x86 build natively.
        count: count instructions of each inference (emulated only, one thread).

    Raises:
        ZooError: the runner failed or hangs; its own line, or the signal that ended it.
    """
    target = {".pte": "executorch", ".tflite": "litert"}[artifact.suffix]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, result, counts = folder / "in.bin", folder / "out.bin", folder / "counts"
        source.write_bytes(np.ascontiguousarray(x, np.float32).tobytes())
        prefix = [] if cpu is None else arm.qemu(cpu, counts if count else None)
        runner = arm.runner(target, "x86_64" if cpu is None else "aarch64")
        command = [*prefix, str(runner), str(artifact), "--input", str(source), "--output", str(result)]
        command += ["--warmup", str(warmup), "--runs", str(runs), "--threads", str(threads)]
        where = f"{artifact.name} on {cpu or 'this machine'}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise ZooError(f"{where}: no answer within {_TIMEOUT} s; take a smaller tile or fewer runs") from error
        if done.returncode:
            raise ZooError(f"{where}: {last_words(done)}")
        rows = _marks(counts.read_text()) if count else None
        return Run(np.fromfile(result, np.float32), json.loads(done.stdout), rows)


def _marks(log: str) -> NDArray[np.int64]:
    """Instructions of each inference from the plugin's lines, which come in pairs: before and after."""
    lines = [line.split()[1:] for line in log.splitlines() if line.startswith("zoo-count ")]
    if not lines or len(lines) % 2:
        raise ZooError("the instruction counter did not report; was the runner built with another plugin?")
    marks = np.array(lines, dtype=np.int64)
    return marks[1::2] - marks[::2]
