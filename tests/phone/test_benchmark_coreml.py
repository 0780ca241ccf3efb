"""The Mac's benchmark, against an object of coremltools' shape: no Mac was at hand, so these say nothing of Core ML itself."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.benchmark_coreml import COMPUTE_UNITS, measure
from zoo.errors import ZooError

METADATA = {"tile": "8", "precision": "int8", "target": "coreml"}
X = np.zeros((1, 12, 8, 8), np.float32)


class ComputeUnit(enum.Enum):
    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


class Model:
    """As ``coremltools.models.MLModel``; the Neural Engine's output is off by a quarter."""

    calls = 0

    def __init__(self, path: str, compute_units: ComputeUnit = ComputeUnit.ALL) -> None:
        self.units = compute_units

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        type(self).calls += 1
        return {"output": inputs["input"] + (0.25 if self.units is ComputeUnit.CPU_AND_NE else 0)}

    def get_compiled_model_path(self) -> str:
        return "compiled"


class MLNeuralEngineComputeDevice:
    pass


class MLCPUComputeDevice:
    pass


class Plan:
    """As ``coremltools.models.compute_plan.MLComputePlan``: a constant, a convolution of 3 and a cast of 1."""

    usage = {  # noqa: RUF012
        "const": None,
        "conv": (SimpleNamespace(preferred_compute_device=MLNeuralEngineComputeDevice()), 3.0),
        "cast": (SimpleNamespace(preferred_compute_device=MLCPUComputeDevice()), 1.0),
    }
    block = SimpleNamespace(operations=list(usage))
    model_structure = SimpleNamespace(program=SimpleNamespace(functions={"main": SimpleNamespace(block=block)}))

    @classmethod
    def load_from_path(cls, path: str, compute_units: ComputeUnit) -> Plan:
        assert path == "compiled" and compute_units is ComputeUnit.ALL
        return cls()

    def get_compute_device_usage_for_mlprogram_operation(self, operation: str) -> Any:
        found = self.usage[operation]
        return found and found[0]

    def get_estimated_cost_for_mlprogram_operation(self, operation: str) -> Any:
        found = self.usage[operation]
        return found and SimpleNamespace(weight=found[1])


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the code sees on a Mac."""
    fake, models, plans = (
        ModuleType(n) for n in ("coremltools", "coremltools.models", "coremltools.models.compute_plan")
    )
    fake.ComputeUnit, fake.models = ComputeUnit, models  # type: ignore[attr-defined]
    models.MLModel, plans.MLComputePlan = Model, Plan  # type: ignore[attr-defined]
    for module in (fake, models, plans):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(Model, "calls", 0)
    return plans


def test_each_set_of_compute_units_is_timed(mac: ModuleType) -> None:
    found = measure(Path("a.mlpackage"), X, METADATA, warmup_runs=2, num_runs=5)
    assert set(found["compute_units"]) == set(COMPUTE_UNITS) == {u.name for u in ComputeUnit}
    assert Model.calls == 4 * (1 + 2 + 5)
    ms = found["compute_units"]["ALL"]["ms"]
    assert 0 < ms["min"] <= ms["p10"] <= ms["median"] <= ms["p90"]
    assert found["compute_units"]["CPU_AND_NE"]["max_abs"] == 0.25
    assert found["compute_units"]["CPU_AND_GPU"]["max_abs"] == 0


def test_the_plan_counts_operators_and_cost_by_device(mac: ModuleType) -> None:
    found = measure(Path("a.mlpackage"), X, METADATA, num_runs=1)
    assert found["plan"] == {"NeuralEngine": {"operators": 1, "cost": 0.75}, "CPU": {"operators": 1, "cost": 0.25}}


def test_an_old_system_has_no_plan(mac: ModuleType) -> None:
    del mac.MLComputePlan
    assert measure(Path("a.mlpackage"), X, METADATA, num_runs=1)["plan"] is None


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_elsewhere_it_says_so() -> None:
    with pytest.raises(ZooError, match=r"a\.mlpackage: Core ML runs on macOS only"):
        measure(Path("a.mlpackage"), X, METADATA)
