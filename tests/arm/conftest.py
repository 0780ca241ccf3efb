"""ARM tests run with ``python -m pytest -m arm`` (``make test-arm``); elsewhere they are skipped, as they install packages."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # tools/ is no installed package

from tools.arm.emulate import write_artifact  # noqa: E402
from tools.arm.provision import Arm, provision  # noqa: E402


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked ``arm`` unless the marker was asked for: a plain test run downloads nothing."""
    if "arm" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="needs qemu-user and a cross compiler: make test-arm")
    for item in items:
        if item.get_closest_marker("arm") and Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def arm() -> Arm:
    """The provisioned cache in build/arm. What cannot be had fails the test: it was asked for."""
    return provision()


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str, int], Path]:
    """``artifact(name, target, precision, tile)``: the file, written once per session."""
    folder = tmp_path_factory.mktemp("arm")
    return functools.cache(functools.partial(write_artifact, folder=folder))
