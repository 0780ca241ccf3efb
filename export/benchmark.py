"""Latency of artefacts on this machine: interleaved runs, medians with spread, memory in a fresh process."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from export import digest_of, load_source, target_module, versions
from export.target import SHAPE_KEYS, Runner, contract_in, last_words, shapes_in
from export.verify import encode_centre, target_of
from zoo.errors import ZooError
from zoo.models.contracts import Contract
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS
from zoo.processor import processor_name

# 128 channels: the widest plain 3x3 stack still gains nothing at 256 (974 against 989 GOPS, one thread).
_PEAK_WIDTH, _PEAK_LAYERS, _PEAK_TILE = 128, 4, 64
_PEAK_MACS = _PEAK_LAYERS * 9 * _PEAK_WIDTH**2 + (IN_CHANNELS + OUT_CHANNELS) * _PEAK_WIDTH  # per pixel
_PEAK_GOP = 2 * _PEAK_MACS * _PEAK_TILE**2 / 1e9


def benchmark(path: Path, *, threads: int = 1, warmup_runs: int = 5, num_runs: int = 30) -> dict[str, Any]:
    """Time an artefact, and in the same run its fp32 twin, unless it is fp32, and a large convolution, also in int8 if it is.

    Runs take turns, so that a busy machine slows all of them alike; compare ratios, not milliseconds of different runs.

    Args:
        path: an artefact of ``zoo export`` (Core ML needs macOS).
        threads: CPU threads of the runtime.
        warmup_runs: runs before the clock starts.
        num_runs: timed runs of each.

    Returns:
        ``ms`` (median, p10, p90, min), ``ms_per_megapixel`` (of sensor pixels in the whole tile, halo included),
        ``peak_rss_mb``, ``sha256`` of the artefact, ``versions`` and ``machine`` (:func:`host`); of all but Core ML ``gops``,
        ``share_of_fp32_peak`` or, of int8, ``share_of_int8_peak``, and ``speedup_over_fp32`` of all but fp32.

    Raises:
        ZooError: Core ML away from macOS, or not an artefact of this zoo.
    """
    check_counts(threads, warmup_runs, num_runs)
    target = target_of(path)
    module = target_module(target)
    metadata = module.read_metadata(path)
    if target == "coreml":
        from export.benchmark_coreml import measure, require_mac

        require_mac(path)
    report: dict[str, Any] = {
        "artifact": path.name,
        "model": metadata.get("model"),
        **({"half": metadata["half"]} if "half" in metadata else {}),
        **contents(metadata),
        "threads": threads,
        "warmup_runs": warmup_runs,
        "num_runs": num_runs,
        **digests(path, metadata),
        "machine": host(),
        "versions": versions(target),
        "peak_rss_mb": _fresh_process_rss(path, threads),
    }
    if target == "coreml":
        x = input_of(module.runner(path))
        found = measure(path, x, metadata, warmup_runs=warmup_runs, num_runs=num_runs)
        chosen = found["compute_units"]["ALL"]
        return report | found | {key: chosen[key] for key in ("ms", "ms_per_megapixel")}
    calls = {"own": _ready(module, path, threads)}
    calls |= {name: _ready(module, rival, threads) for name, rival in _rivals(target, metadata).items()}
    times = _interleaved(calls, warmup_runs, num_runs)
    own = times["own"]
    report["ms"] = spread(own)
    megapixels = megapixels_of(metadata)
    report["ms_per_megapixel"] = round(statistics.median(own) / megapixels, 3)
    # Ratios of minima: what the machine can do, least touched by what else runs on it.
    best = {name: min(t) for name, t in times.items()}
    precision = "int8" if metadata["precision"] == "int8" else "fp32"
    gops = 2 * _gmac_per_megapixel(metadata) * megapixels / (best["own"] / 1e3)
    peaks = {name.removeprefix("peak_"): _PEAK_GOP / (ms / 1e3) for name, ms in best.items() if "peak" in name}
    report |= {"gops": round(gops, 1), f"share_of_{precision}_peak": round(gops / peaks[precision], 4)}
    report |= {f"peak_{name}_gops": round(peak, 1) for name, peak in peaks.items()}
    if "fp32" in best:
        report |= {"speedup_over_fp32": round(best["fp32"] / best["own"], 3), "fp32_ms": round(best["fp32"], 4)}
    return report


def check_counts(threads: int, warmup_runs: int, num_runs: int, seconds: float | None = None) -> None:
    """Refuse what cannot be timed; ``seconds`` where the length of a run is asked for.

    Raises:
        ZooError: less than one thread or run, or no time.
    """
    if min(threads, num_runs) < 1 or warmup_runs < 0 or (seconds is not None and seconds <= 0):
        what = "threads and runs" if seconds is None else "threads, runs and seconds"
        raise ZooError(f"{what} must be at least 1")


def contents(metadata: dict[str, str]) -> dict[str, Any]:
    """What a record says of the network in the file that was timed."""
    return {
        "model": metadata.get("model"),
        "target": metadata["target"],
        "precision": metadata["precision"],
        "tile": int(metadata["tile"]),
    }


def digests(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Which file was timed, of which weights."""
    return {"sha256": digest_of(path), "weights_sha256": metadata.get("weights_sha256")}


def spread(times: Sequence[float]) -> dict[str, float]:
    """``median``, ``p10``, ``p90`` and ``min`` of at least one time."""
    # "inclusive" stays within what was measured; the other method put p10 below the minimum of three runs.
    deciles = statistics.quantiles(times, n=10, method="inclusive") if len(times) > 1 else [times[0]] * 9
    values = {"median": statistics.median(times), "p10": deciles[0], "p90": deciles[8], "min": min(times)}
    return {name: round(value, 4) for name, value in values.items()}


class PeakNet(nn.Module):
    """Four 3x3 convolutions of 128 channels between 1x1 ones: what the runtime's int8 kernels do at their best."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(IN_CHANNELS, _PEAK_WIDTH, 1)
        self.body = nn.ModuleList(nn.Conv2d(_PEAK_WIDTH, _PEAK_WIDTH, 3, padding=1) for _ in range(_PEAK_LAYERS))
        self.last = nn.Conv2d(_PEAK_WIDTH, OUT_CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        for conv in self.body:
            x = F.relu(conv(x))
        return self.last(x)


def _gmac_per_megapixel(metadata: dict[str, str]) -> float:
    """Multiply-accumulates per sensor megapixel of what a file holds, in 1e9."""
    from zoo.models.registry import get_spec

    spec = get_spec(metadata["model"])
    if spec.codec is None:
        return spec.gmac_per_mp
    return spec.codec.encoder_gmac_per_mp if metadata["half"] == "encoder" else spec.codec.decoder_gmac_per_mp


def _rivals(target: str, metadata: dict[str, str]) -> dict[str, Path]:
    """The fp32 twin and the peak convolutions, written for the same target; once per process."""
    rivals = {"peak_fp32": _peak(target, "fp32")}
    if metadata["precision"] == "int8":
        rivals["peak_int8"] = _peak(target, "int8")
    if metadata["precision"] != "fp32":
        named = {key: metadata[key] for key in ("model", *SHAPE_KEYS) if key in metadata}
        rivals["fp32"] = _twin(target, int(metadata["tile"]), **named)
    return rivals


@cache
def _workshop() -> tempfile.TemporaryDirectory:
    """Holds what is written for comparison; goes with the process."""
    return tempfile.TemporaryDirectory(prefix="zoo-benchmark-")


@cache
def _twin(target: str, tile: int, **metadata: str) -> Path:
    module = target_module(target)
    half = metadata.get("half", "")
    path = Path(_workshop().name) / f"twin-{metadata['model']}-{half}-{tile}.{module.SUFFIX}"
    source, _ = load_source(metadata["model"], "fp32", half)
    module.write(source, precision="fp32", tile=tile, metadata=metadata, path=path)
    return path


@cache
def _peak(target: str, precision: str) -> Path:
    from quantize import QuantizedModel
    from quantize.calibrate import calibrate
    from quantize.recipe import prepare

    module = target_module(target)
    path = Path(_workshop().name) / f"peak-{precision}.{module.SUFFIX}"
    torch.manual_seed(0)
    net: Any = PeakNet().eval()
    if precision == "int8":
        prepared = prepare(net)
        calibrate(prepared, [torch.from_numpy(_scene_tile(_PEAK_TILE))])
        net = QuantizedModel("peak", "ptq", prepared)
    module.write(net, precision=precision, tile=_PEAK_TILE, metadata={}, path=path)
    return path


def _ready(module: Any, path: Path, threads: int) -> Callable[[], None]:
    runner = module.runner(path, threads=threads)
    runner(input_of(runner))
    return runner.invoke


def input_of(runner: Runner) -> np.ndarray:
    """A scene; latents of a decoder are drawn, since its time does not depend on them."""
    if runner.half == "decoder":
        return np.random.default_rng(0).normal(size=(1, *runner.shapes[0])).astype(np.float32)
    return _scene_tile(runner.tile, runner.contract)


def megapixels_of(metadata: dict[str, str]) -> float:
    """Sensor pixels of a whole tile, halo included."""
    pitch = int(metadata["stride"]) if metadata.get("half") == "decoder" else 2
    return (int(metadata["tile"]) * pitch) ** 2 / 1e6


def _scene_tile(tile: int, contract: Contract | None = None) -> np.ndarray:
    from zoo.data.scene import synthetic_raw

    return encode_centre(synthetic_raw(2 * tile, 2 * tile), tile, contract)


def _interleaved(calls: dict[str, Callable[[], None]], warmup: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each call, one after the other within each round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for turn in range(warmup + runs):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if turn >= warmup:
                times[name].append((time.perf_counter() - begun) * 1e3)
    return times


def _fresh_process_rss(path: Path, threads: int) -> float | None:
    """Peak resident memory that loading and running the file adds to a process of its own, MB; None away from Linux."""
    if sys.platform != "linux":
        return None
    code = (
        "import sys; from pathlib import Path; from export.benchmark import _rss_of; "
        "print(_rss_of(Path(sys.argv[1]), int(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(path), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ZooError(f"{path.name}: does not run in a process of its own: {last_words(result)}")
    return float(result.stdout.split()[-1])


def _rss_of(path: Path, threads: int) -> float:
    module = target_module(target_of(path))
    metadata = module.read_metadata(path)
    side = int(metadata["tile"])
    if metadata.get("half") == "decoder":
        x = np.zeros((1, *shapes_in(metadata, side)[0]), np.float32)
    else:
        x = _scene_tile(side, contract_in(metadata))
    before = _memory_mb("VmRSS")
    # Importing converters peaks higher than any of our networks: start the high-water mark again (Linux, proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    runner = module.runner(path, threads=threads)
    runner(x)
    return round(_memory_mb("VmHWM") - before, 1)


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def host() -> dict[str, Any]:
    """What a time on this machine depends on: ``processor``, ``platform``, ``cores`` that this process may use, ``governor`` of
    their clock (None where the system does not say, as in most virtual machines) and ``load_average`` of 1, 5 and 15 minutes."""
    governors = Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
    found = sorted({file.read_text().strip() for file in governors})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor_name(),
        "platform": platform.platform(),
        "cores": cores,
        "governor": ", ".join(found) or None,
        "load_average": load,
    }
