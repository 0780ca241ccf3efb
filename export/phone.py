"""Latency of an artefact on an Android phone over adb: push, run, pull, compare, leave nothing behind.

The phone runs the file with a small program (:mod:`export.phone_runner`), on its CPU. Beside the times a record says what
would explain them (battery, thermal state, clocks before and after) and whether the phone computed what this machine does:
int8 has to be equal bit for bit, since XNNPACK's integer kernels agree on all CPUs (checked on Cortex-A53, A76 and x86).

Modes: ``warm`` is one process, warmed up, each of its runs timed; ``cold`` is the first inference of fresh processes (the
phone's file cache stays: emptying it takes root); ``sustained`` runs without a pause and tells how much slower the end is.

Unverified: no phone was at hand. All of it runs against a stand-in that speaks adb's protocol (``tests/phone``), with the
ARM runner under emulation; what a real phone refuses (a vendor's SELinux rules, say) is not known.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export import target_module
from export.benchmark import check_counts, contents, digests, input_of, megapixels_of, spread
from export.phone_adb import Adb
from export.phone_runner import NAME, Bundle, find_runner
from export.phone_state import PhoneState, read_state
from export.verify import target_of
from zoo.errors import ZooError

FOLDER = "/data/local/tmp/raw-zoo"
MODES = ("warm", "cold", "sustained")
COLD_PROCESSES = 5
SUSTAINED_SECONDS = 600.0
_BINS = 60  # of the curve of a sustained run: ten seconds each in ten minutes
_SIGKILL = 128 + 9


def benchmark_phone(
    path: Path,
    *,
    serial: str = "",
    mode: str = "warm",
    threads: int = 1,
    cpus: str = "",
    warmup_runs: int = 5,
    num_runs: int = 30,
    seconds: float = SUSTAINED_SECONDS,
    runner: Path | None = None,
) -> dict[str, Any]:
    """Time an artefact on a phone.

    Args:
        path: an artefact of ``zoo export`` for executorch or litert.
        serial: of the phone; empty for the only one that adb sees.
        mode: one of :data:`MODES`.
        threads: CPU threads of the runtime.
        cpus: cores to stay on, such as ``4-7`` or ``7``; empty leaves it to the phone.
        warmup_runs: runs before the clock starts (not in cold mode).
        num_runs: timed runs of warm mode.
        seconds: length of sustained mode.
        runner: program or folder, see :func:`export.phone_runner.find_runner`; None for the project's own.

    Returns:
        A record: ``device`` (no serial number), ``before`` and ``after`` (battery, thermal, clocks), ``doubts``, ``load_ms``,
        ``first_ms``, ``ms`` (median, p10, p90, min), ``ms_per_megapixel`` (sensor pixels of the whole tile), ``output``
        (compared with this machine's), and of a sustained run ``sustained``.

    Raises:
        ZooError: see :class:`export.phone_adb.Adb`; a runner that does not fit, fails or is killed; int8 outputs that differ.
            The phone is left as it was, if it can still be reached.
    """
    if mode not in MODES:
        raise ZooError(f"unknown mode '{mode}'; choose from {', '.join(MODES)}")
    check_counts(threads, warmup_runs, num_runs, seconds)
    target = target_of(path)
    if target == "coreml":
        raise ZooError(f"{path.name}: Core ML does not run on Android; export for executorch or litert")
    if target not in ("executorch", "litert"):
        raise ZooError(f"{path.name}: there is no phone runner for {target}; export for executorch or litert")
    mask = _mask(cpus)
    metadata = target_module(target).read_metadata(path)
    bundle = find_runner(runner, target)
    plan = _plan(mode, warmup_runs, num_runs, seconds)
    measured = _measure(path, Adb(serial), bundle, mask, threads, plan)
    before, after, said, output = measured.before, measured.after, measured.said, measured.output
    if metadata["precision"] == "int8" and not output["equal"]:
        raise ZooError(
            f"{path.name}: {output['differing']:.2%} of the phone's int8 outputs differ from this machine's, by up to "
            f"{output['max_abs']:.3g}; they must be equal, so its times mean nothing and were not kept"
        )
    times = [s["first_ms"] for s in said] if mode == "cold" else said[0]["ms"]
    record = {
        "artifact": path.name,
        **digests(path, metadata),
        **contents(metadata),
        "mode": mode,
        "threads": threads,
        "cpus": cpus or "any",
        "warmup_runs": 0 if mode == "cold" else warmup_runs,
        "num_runs": len(times),
        "machine": {"processor": before.device["soc"], "platform": f"Android {before.device['android']}"},
        "device": before.device,
        "runner": {
            "name": bundle.program.name,
            "runtime": said[0]["runtime"],
            "abi": bundle.abi,
            "sha256": bundle.sha256,
            "libraries": bundle.libraries,
        },
        "versions": json.loads(metadata.get("versions", "{}")) | {"raw-zoo": version("raw-zoo")},
        "before": before.moment(),
        "after": after.moment(),
        "doubts": before.doubts() + [f"{d} at the end" for d in after.doubts() if d not in before.doubts()],
        "load_ms": round(statistics.median(s["load_ms"] for s in said), 4),
        "first_ms": round(statistics.median(s["first_ms"] for s in said), 4),
        "ms": spread(times),
        "ms_per_megapixel": round(statistics.median(times) / megapixels_of(metadata), 3),
        "output": output,
    }
    return record | ({"sustained": _sustained(times)} if mode == "sustained" else {})


@dataclass(frozen=True)
class _Measured:
    """What a phone did.

    Attributes:
        before, after: its state.
        said: one row per process, see :func:`_run`.
        output: compared with this machine's, see :func:`_compared`.
    """

    before: PhoneState
    after: PhoneState
    said: list[dict[str, Any]]
    output: dict[str, Any]


def _measure(
    path: Path, phone: Adb, bundle: Bundle, mask: str, threads: int, plan: list[tuple[int, int, float]]
) -> _Measured:
    """Push a file and its runner, run each step of a plan, pull the output, leave nothing behind."""
    before = read_state(phone)
    bundle.check(before.abis)
    host = target_module(target_of(path)).runner(path)
    x = input_of(host)
    with tempfile.TemporaryDirectory() as scratch, _folder(phone):
        staged = Path(scratch) / "input.bin"
        staged.write_bytes(np.ascontiguousarray(x, "<f4").tobytes())
        phone.push([*bundle.files, path, staged], FOLDER)
        said = [_run(phone, bundle, path.name, mask, threads, *step) for step in plan]
        after = read_state(phone)
        phone.pull(f"{FOLDER}/output.bin", Path(scratch) / "output.bin")
        got = np.frombuffer((Path(scratch) / "output.bin").read_bytes(), "<f4")
    return _Measured(before, after, said, _compared(got, host(x)))


def _plan(mode: str, warmup: int, runs: int, seconds: float) -> list[tuple[int, int, float]]:
    """(warm-up runs, timed runs, seconds) of each process."""
    if mode == "cold":
        return [(0, 0, 0.0)] * COLD_PROCESSES
    return [(warmup, runs, 0.0)] if mode == "warm" else [(warmup, 1, seconds)]


@contextlib.contextmanager
def _folder(phone: Adb) -> Iterator[None]:
    """Our folder on the phone, empty at first and gone at the end, with whatever still runs in it.

    A leftover of an interrupted run (cable pulled in a sustained one) is ended and removed first.
    """
    clear = f"test -f {FOLDER}/pid && kill -9 $(cat {FOLDER}/pid) 2>/dev/null; rm -rf {FOLDER}"
    phone.shell(f"{clear}; mkdir -p {FOLDER}")
    try:
        yield
    except BaseException:
        # The first failure is the one to report; a phone that went away cannot be cleaned.
        with contextlib.suppress(ZooError):
            phone.shell(clear)
        raise
    phone.shell(clear)


def _run(
    phone: Adb, bundle: Bundle, model: str, mask: str, threads: int, warmup: int, runs: int, seconds: float
) -> dict[str, Any]:
    """One process on the phone; what its JSON line says."""
    options = f"--input input.bin --output output.bin --warmup {warmup} --runs {runs} --threads {threads}"
    options += f" --seconds {seconds:g}" if seconds else ""
    # A shell of its own, so that its number is the runner's and the one around it lives to tell how the runner ended.
    start = shlex.quote(f"echo $$ > pid && exec {mask}{bundle.command} {shlex.quote(model)} {options}")
    done = phone.shell(f"cd {FOLDER} && chmod 755 ./* && sh -c {start}", check=False, timeout=seconds + 600)
    words = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
    if done.returncode == _SIGKILL:
        raise ZooError(f"the phone killed {NAME} in the middle of {model}; close other apps (it was short of memory)")
    if done.returncode:
        raise ZooError(f"{bundle.program.name} failed on the phone with exit code {done.returncode}: {words}")
    try:
        said = json.loads(done.stdout.decode().strip().splitlines()[-1])
        times = [said["load_ms"], said["first_ms"], *said["ms"]]
        if not all(isinstance(t, float | int) and t >= 0 for t in times) or len(said["ms"]) < runs:
            raise ValueError("times are missing")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ZooError(
            f"{bundle.program.name} ran on the phone but did not report as a runner does ({error})"
        ) from error
    return {"runtime": str(said.get("runtime", "")), **said}


def _mask(cpus: str) -> str:
    """``taskset MASK`` in front of the command for a list of cores such as ``4-7`` or ``0,7``; empty for none."""
    if not cpus:
        return ""
    bits = 0
    try:
        for part in cpus.split(","):
            first, _, last = part.partition("-")
            for cpu in range(int(first), int(last or first) + 1):
                bits |= 1 << cpu
    except ValueError:
        bits = 0
    if not bits:
        raise ZooError(f"--cpus {cpus} is no list of cores such as 4-7 or 0,7")
    return f"taskset {bits:x} "


def _compared(got: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """The phone's output beside this machine's."""
    if got.size != expected.size:
        raise ZooError(
            f"the phone's output has {got.size} values instead of {expected.size}; the runner is not for this file"
        )
    error = np.abs(got.astype(np.float64) - expected.ravel())
    return {
        "reference": "the same file and input on this machine",
        "equal": bool((got == expected.ravel()).all()),
        "differing": float((error != 0).mean()),
        "max_abs": float(error.max()),
    }


def _sustained(times: list[float]) -> dict[str, Any]:
    """How the time per run went on: medians over equal stretches of wall time, and the last tenth against the first.

    The curve's ``ms`` has None where a stretch saw no run end.
    """
    ends = np.cumsum(times) / 1e3
    total = float(ends[-1])
    bins = np.minimum((ends / total * _BINS).astype(int), _BINS - 1)
    values = np.asarray(times)
    curve = [round(float(np.median(values[bins == b])), 4) if (bins == b).any() else None for b in range(_BINS)]
    tenth = max(1, _BINS // 10)
    first, last = values[bins < tenth], values[bins >= _BINS - tenth]
    ratio = float(np.median(last) / np.median(first)) if len(first) and len(last) else None
    return {
        "seconds": round(total, 1),
        "curve_s": round(total / _BINS, 2),
        "curve_ms": curve,
        # Above 1: the phone got slower by that factor as it warmed up.
        "throttling_ratio": None if ratio is None else round(ratio, 3),
    }
