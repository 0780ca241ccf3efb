"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", default=str(ROOT / ".." / "shared" / "data"), help="folder with real raws (not shipped)")


@pytest.fixture
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of real raws; the test is skipped where it is absent."""
    folder = Path(request.config.getoption("--data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real raws at {folder}; give the folder with --data DIR")
    return folder
