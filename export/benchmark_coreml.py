"""Latency of a Core ML package on a Mac: one figure per set of compute units, and which unit each operator prefers.

**Unverified: it needs macOS, which was not at hand.** Its calls are those of coremltools 9.0 (``MLModel``, ``ComputeUnit``,
``MLComputePlan``, macOS 14.4 on); ``tests/phone/test_benchmark_coreml.py`` runs it against an object of their shape. An iPhone
needs Xcode: its Performance tab measures the same package, and its report is what Apple's own documentation quotes.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from export.benchmark import megapixels_of, spread
from export.mil import import_coremltools
from zoo.errors import ZooError

# ALL lets Core ML choose; CPU_AND_NE keeps the GPU out; CPU_ONLY computes fp16 models in float32 on some Macs.
COMPUTE_UNITS = ("ALL", "CPU_AND_NE", "CPU_ONLY", "CPU_AND_GPU")


def measure(
    path: Path, x: np.ndarray, metadata: dict[str, str], *, warmup_runs: int = 5, num_runs: int = 30
) -> dict[str, Any]:
    """Time a package with each set of compute units.

    Args:
        path: an ``.mlpackage`` of ``zoo export``.
        x: its input, float32.
        metadata: what it carries, :func:`export.coreml.read_metadata`.
        warmup_runs: predictions before the clock starts, of each.
        num_runs: timed predictions of each.

    Returns:
        ``compute_units``: by name, ``load_ms``, ``first_ms``, ``ms`` (median, p10, p90, min; of ``predict``, copies of input
        and output included), ``ms_per_megapixel``, ``max_abs`` (largest difference of its output from that of ``CPU_ONLY``).
        ``plan``: preferred device -> number of operators and share of the estimated cost; None where the system is too old.

    Raises:
        ZooError: away from macOS.
    """
    require_mac(path)
    ct = import_coremltools()

    rows: dict[str, dict[str, Any]] = {}
    outputs: dict[str, np.ndarray] = {}
    for units in COMPUTE_UNITS:
        begun = time.perf_counter()
        model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit[units])
        loaded = time.perf_counter()
        outputs[units] = np.asarray(model.predict({"input": x})["output"])
        first = time.perf_counter()
        times = []
        for turn in range(warmup_runs + num_runs):
            start = time.perf_counter()
            model.predict({"input": x})
            if turn >= warmup_runs:
                times.append((time.perf_counter() - start) * 1e3)
        summary = spread(times)
        rows[units] = {
            "load_ms": round((loaded - begun) * 1e3, 3),
            "first_ms": round((first - loaded) * 1e3, 3),
            "ms": summary,
            "ms_per_megapixel": round(summary["median"] / megapixels_of(metadata), 3),
        }
    for units in COMPUTE_UNITS:
        difference = outputs[units].astype(np.float64) - outputs["CPU_ONLY"]
        rows[units]["max_abs"] = float(np.abs(difference).max())
    return {"compute_units": rows, "plan": compute_plan(path)}


def compute_plan(path: Path) -> dict[str, dict[str, float]] | None:
    """Which device Core ML would run each operator of a package on, by device: ``operators`` and share of the ``cost``."""
    ct = import_coremltools()

    try:
        from coremltools.models.compute_plan import MLComputePlan

        compiled = ct.models.MLModel(str(path)).get_compiled_model_path()
        plan = MLComputePlan.load_from_path(path=compiled, compute_units=ct.ComputeUnit.ALL)
    except (ImportError, ValueError):  # coremltools 9.0 raises ValueError before macOS 14.4
        return None
    operators: Counter[str] = Counter()
    costs: dict[str, float] = {}
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:  # a constant
            continue
        device = type(usage.preferred_compute_device).__name__.removeprefix("ML").removesuffix("ComputeDevice")
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        operators[device] += 1
        costs[device] = costs.get(device, 0.0) + (cost.weight if cost is not None else 0.0)
    total = sum(costs.values()) or 1.0
    return {name: {"operators": operators[name], "cost": round(costs[name] / total, 4)} for name in operators}


def require_mac(path: Path) -> None:
    """Refuse to measure Core ML elsewhere.

    Raises:
        ZooError: this is no Mac.
    """
    if sys.platform != "darwin":
        raise ZooError(f"{path.name}: Core ML runs on macOS only; benchmark it there with the same command")
