"""int8 files compute on ARM cores what they compute here, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export import target_module
from export.target import contract_in
from export.verify import tiles_of
from tools.arm.count import MODELS
from tools.arm.emulate import run
from tools.arm.provision import CPUS, TARGETS, Arm

pytestmark = [pytest.mark.arm, pytest.mark.slow]

# Packed pixels. Emulation costs 1 s (A76) to 3 s (A53) per sensor megapixel and GMAC; at 64 every layer still has an inner
# part as well as borders. Numbers do not depend on the tile: the kernels are chosen by channels and CPU.
TILE = 64


@pytest.fixture(scope="module", params=[(m, t) for m in MODELS for t in TARGETS], ids="-".join)
def case(request: pytest.FixtureRequest, artifact: Callable[..., Path]) -> tuple[Path, NDArray, NDArray]:
    """An artefact, an input (the noisiest scene) and what the Python runtime on this machine makes of it."""
    name, target = request.param
    path = artifact(name, target, "int8", TILE)
    module = target_module(target)
    *_, (_, x) = tiles_of(TILE, contract_in(module.read_metadata(path)))
    y = module.runner(path)(x)
    assert len(np.unique(y)) > 50  # a constant output would be equal everywhere
    return path, x, y


@pytest.mark.parametrize("cpu", sorted(CPUS))
def test_int8_equals_this_machine(arm: Arm, case: tuple[Path, NDArray, NDArray], cpu: str) -> None:
    path, x, y = case
    assert np.array_equal(run(arm, path, x, cpu=cpu).output.reshape(y.shape), y)


def test_runner_equals_python(arm: Arm, case: tuple[Path, NDArray, NDArray]) -> None:
    """The C++ runner, built for this machine: also that ExecuTorch's newer C++ library computes what the exporter's does."""
    path, x, y = case
    got = run(arm, path, x, warmup=2, runs=3)
    assert np.array_equal(got.output.reshape(y.shape), y)
    assert len(got.report["ms"]) == 3
    assert min(got.report["load_ms"], got.report["first_ms"], *got.report["ms"]) > 0


def test_two_threads_equal_one(arm: Arm, case: tuple[Path, NDArray, NDArray]) -> None:
    path, x, y = case
    assert np.array_equal(run(arm, path, x, cpu="cortex-a76", threads=2).output.reshape(y.shape), y)
