"""The client that an app team ports: the same picture as ours, of every phase, across tiles, from a file's own words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import export
from zoo.data.scene import synthetic_raw
from zoo.inference.restore import restore
from zoo.inference.runner import TileRunner, TorchRunner
from zoo.models.registry import create_model, get_spec
from zoo.raw import BAYER_PHASES, RawImage

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import client

NAME = "utnet-n"


def ours(raw: RawImage, runner: TileRunner) -> np.ndarray:
    return np.concatenate([band.rgb for band in restore(raw, runner, get_spec(NAME))], 1)


def theirs(raw: RawImage, network: Any, tile: int, margin: int) -> np.ndarray:
    known = raw.mosaic, raw.cfa, raw.black, raw.white, raw.wb, raw.noise.shot, raw.noise.read
    return client.restore(*known, network, tile, margin)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(a - b).mean()))


@pytest.mark.parametrize("cfa", BAYER_PHASES)
def test_client_makes_the_picture_that_we_make(cfa: str) -> None:
    model = create_model(NAME, pretrained=True)
    raw = synthetic_raw(330, 251, cfa=cfa, shot=5e-3, read=1.9e-4)
    want = ours(raw, TorchRunner(model, 1))

    def network(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(x)))

    assert psnr(theirs(raw, network, 128, 24), want) > 120
    assert psnr(theirs(raw, network, 128, 23), want) < 60  # the margin is no matter of taste


def test_client_tells_mistakes_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    np.save(tmp_path / "m.npy", np.zeros((64, 64), np.uint16))
    monkeypatch.setattr(sys, "argv", ["client.py", str(tmp_path / "no.tflite"), str(tmp_path / "m.npy"), "out.npy"])
    for opened, message in (
        (client.open_tflite, "no.tflite: No such file or directory"),
        (lambda file: (None, {"tile": "48", "margin": "24"}), "a tile of 48 leaves nothing within margins of 24"),
    ):
        monkeypatch.setattr(client, "open_tflite", opened)
        with pytest.raises(SystemExit) as end:
            client.main()
        error = capsys.readouterr().err
        assert (end.value.code, error.count("\n")) == (2, 1)
        assert message in error


def test_client_runs_a_file_by_what_it_says_of_itself(tmp_path: Path) -> None:
    made = export.export(NAME, target="litert", precision="int8", output_dir=tmp_path)
    network, metadata = client.open_tflite(str(made.path))
    assert metadata == export.target_module("litert").read_metadata(made.path)
    assert (metadata["halo"], metadata["tile_multiple"], metadata["margin"]) == ("23", "8", "24")
    raw = synthetic_raw(500, 460, cfa="GRBG", shot=5e-3, read=1.9e-4)
    got = theirs(raw, network, int(metadata["tile"]), int(metadata["margin"]))
    # Of int8 inputs a few in a million lie so near to the middle of two steps that NumPy and we round them apart.
    assert psnr(got, ours(raw, export.target_module("litert").runner(made.path))) > 60
