"""What README shows of the Python interface runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from zoo.data.scene import synthetic_raw
from zoo.raw import write_dng

README = Path(__file__).parents[2] / "README.md"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = synthetic_raw(64, 96)
    write_dng(
        tmp_path / "IMG_0001.dng", raw.mosaic, cfa=raw.cfa, black=raw.black, white=raw.white, wb=raw.wb,
        xyz_to_cam=raw.xyz_to_cam, iso=800, noise=raw.noise,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    # Core ML's converter takes longer and has tests of its own; the call is the same.
    names: dict[str, object] = {}
    exec(block.replace('target="coreml"', 'target="onnx"'), names)
    assert np.asarray(names["rgb"]).shape == (64, 96, 3)
    assert (tmp_path / getattr(names["result"], "path")).exists()  # noqa: B009
