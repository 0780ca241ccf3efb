"""Latency of artefacts on this machine: interleaved runs, medians with spread, memory in a fresh process."""

from __future__ import annotations

import gc
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from export import load_source, target_module
from export.target import Runner, contract_in
from export.verify import encode_centre
from zoo.errors import ZooError
from zoo.models.contract import IN_CHANNELS, OUT_CHANNELS
from zoo.models.contracts import Contract

# 128 channels: the widest plain 3x3 stack still gains nothing at 256 (974 against 989 GOPS, one thread).
_PEAK_WIDTH, _PEAK_LAYERS, _PEAK_TILE = 128, 4, 64


def benchmark(
    path: Path, *, threads: int = 1, warmup_runs: int = 5, num_runs: int = 30, compare: bool = True
) -> dict[str, Any]:
    """Time an artefact, and in the same run its fp32 twin and a large convolution.

    Runs take turns, so that a busy machine slows all of them alike; compare ratios, not milliseconds of different runs.

    Args:
        path: an artefact of ``zoo export`` for executorch or litert (Core ML needs macOS).
        threads: CPU threads of the runtime.
        warmup_runs: runs before the clock starts.
        num_runs: timed runs of each.
        compare: also time the fp32 twin of an int8 artefact and the peak convolution in int8 and fp32.

    Returns:
        ``ms`` (median, p10, p90, min), ``ms_per_megapixel`` (of sensor pixels in the whole tile, halo included),
        ``peak_rss_mb``; with ``compare`` on int8: ``speedup_over_fp32``, ``gops`` and ``share_of_int8_peak``.

    Raises:
        ZooError: Core ML away from macOS, or not an artefact of this zoo.
    """
    from export.verify import target_of

    if num_runs < 1 or warmup_runs < 0 or threads < 1:
        raise ZooError("threads and runs must be at least 1")
    target = target_of(path)
    module = target_module(target)
    metadata = module.read_metadata(path)
    if target == "coreml" and sys.platform != "darwin":
        raise ZooError(f"{path.name}: Core ML runs on macOS only; benchmark it there with the same command")
    tile = int(metadata["tile"])
    report: dict[str, Any] = {
        "artifact": path.name,
        "model": metadata.get("model"),
        "target": target,
        "precision": metadata["precision"],
        "tile": tile,
        "threads": threads,
        "warmup_runs": warmup_runs,
        "num_runs": num_runs,
        "machine": {"processor": _processor(), "platform": platform.platform()},
        "peak_rss_mb": _fresh_process_rss(path, threads),
    }
    int8 = metadata["precision"] == "int8"
    with tempfile.TemporaryDirectory() as folder:
        calls = {"own": _ready(module, path, threads)}
        if compare and int8:
            calls |= _rivals(module, metadata, threads, Path(folder))
        times = _interleaved(calls, warmup_runs, num_runs)
    own = times["own"]
    quantiles = statistics.quantiles(own, n=10) if len(own) > 1 else [own[0]] * 9
    report["ms"] = {
        k: round(v, 4)
        for k, v in zip(
            ("median", "p10", "p90", "min"), (statistics.median(own), quantiles[0], quantiles[8], min(own)), strict=True
        )
    }
    megapixels = _megapixels(metadata)
    report["ms_per_megapixel"] = round(statistics.median(own) / megapixels, 3)
    if compare and int8:
        from zoo.models.registry import get_spec

        # Ratios of minima: what the machine can do, least touched by what else runs on it.
        best = {name: min(t) for name, t in times.items()}
        spec = get_spec(metadata["model"])
        cost = spec.gmac_per_mp
        if spec.codec is not None:
            encoder = metadata["half"] == "encoder"
            cost = spec.codec.encoder_gmac_per_mp if encoder else spec.codec.decoder_gmac_per_mp
        gops = 2 * cost * megapixels / (best["own"] / 1e3)
        peak_work = (
            2 * (_PEAK_LAYERS * 9 * _PEAK_WIDTH**2 + (IN_CHANNELS + OUT_CHANNELS) * _PEAK_WIDTH) * _PEAK_TILE**2 / 1e9
        )
        peak = peak_work / (best["peak_int8"] / 1e3)
        report |= {
            "speedup_over_fp32": round(best["fp32"] / best["own"], 3),
            "gops": round(gops, 1),
            "peak_int8_gops": round(peak, 1),
            "peak_fp32_gops": round(peak_work / (best["peak_fp32"] / 1e3), 1),
            "share_of_int8_peak": round(gops / peak, 4),
            "fp32_ms": round(best["fp32"], 4),
        }
    return report


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


def _rivals(module: Any, metadata: dict[str, str], threads: int, folder: Path) -> dict[str, Callable[[], None]]:
    """The fp32 twin and the peak convolution, written for the same target."""
    from quantize import QuantizedModel
    from quantize.calibrate import calibrate
    from quantize.recipe import prepare

    tile = int(metadata["tile"])
    twin = folder / f"twin.{module.SUFFIX}"
    source, _ = load_source(metadata["model"], "fp32", metadata.get("half", ""))
    named = {key: metadata[key] for key in ("contract", "half", "latents", "stride") if key in metadata}
    module.write(source, precision="fp32", tile=tile, metadata=named, path=twin)
    torch.manual_seed(0)
    peak = PeakNet().eval()
    prepared = prepare(peak)
    calibrate(prepared, [torch.from_numpy(_scene_tile(_PEAK_TILE))])
    calls = {"fp32": _ready(module, twin, threads)}
    for precision, net in (("fp32", peak), ("int8", QuantizedModel("peak", "ptq", prepared))):
        path = folder / f"peak-{precision}.{module.SUFFIX}"
        module.write(net, precision=precision, tile=_PEAK_TILE, metadata={}, path=path)
        calls[f"peak_{precision}"] = _ready(module, path, threads)
    return calls


def _ready(module: Any, path: Path, threads: int) -> Callable[[], None]:
    runner = module.runner(path, threads=threads)
    runner(_input_of(runner))
    return runner.invoke


def _input_of(runner: Runner) -> np.ndarray:
    """A scene; latents of a decoder are drawn, since its time does not depend on them."""
    if runner.half == "decoder":
        return np.random.default_rng(0).normal(size=(1, *runner.shapes[0])).astype(np.float32)
    return _scene_tile(runner.tile, runner.contract)


def _megapixels(metadata: dict[str, str]) -> float:
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
        raise ZooError(f"{path.name}: does not run in a process of its own: {result.stderr.strip().splitlines()[-1]}")
    return float(result.stdout.split()[-1])


def _rss_of(path: Path, threads: int) -> float:
    from export.verify import target_of

    module = target_module(target_of(path))
    metadata = module.read_metadata(path)
    side = [int(metadata["tile"])] * 2
    if metadata.get("half") == "decoder":
        x = np.zeros((1, int(metadata["latents"]), *side), np.float32)
    else:
        x = _scene_tile(side[0], contract_in(metadata))
    before = _memory_mb("VmRSS")
    # Importing converters peaks higher than any of our networks: start the high-water mark again (Linux, proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    runner = module.runner(path, threads=threads)
    runner(x)
    return round(_memory_mb("VmHWM") - before, 1)


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
