"""What the codec's tests share: the toys of tools/conformance.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_toys() -> ModuleType:
    """tools/conformance.py as a module; tools is no package."""
    spec = importlib.util.spec_from_file_location("conformance", ROOT / "tools" / "conformance.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    return load_toys()


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The committed conformance vectors."""
    return Path(__file__).parent / "vectors"
