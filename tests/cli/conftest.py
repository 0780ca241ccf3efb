"""A folder of made-up weights and photos for the CLI tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from zoo import weights
from zoo.cli import main
from zoo.models.registry import create_model
from zoo.raw import NoiseProfile, write_dng

MODEL = "utnet-n"
NOISE = NoiseProfile((1e-3,) * 3, (1e-6,) * 3, "given")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of MODEL that correct nothing, with their card, in place of the shipped ones."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(weights, "FOLDER", folder)
    torch.manual_seed(0)
    tensors = {k: v.contiguous() for k, v in create_model(MODEL).state_dict().items()}
    tensors |= {k: torch.zeros_like(v) for k, v in tensors.items() if k.startswith("head.")}
    file = folder / f"{MODEL}.safetensors"
    save_file(tensors, file)
    card = {
        "description": "for tests",
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
        "training": {"validation_psnr_db": {"low": 40.0, "high": 30.0}},
    }
    (folder / f"{MODEL}.yaml").write_text(yaml.safe_dump(card))
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """Writes a DNG of a grey gradient."""

    def write(name: str = "photo.dng", size: tuple[int, int] = (61, 90), cfa: str = "GRBG") -> Path:
        ramp = np.linspace(3000, 30000, size[1])[None].repeat(size[0], 0).astype(np.uint16)
        levels = {"black": 1000, "white": 60000, "wb": (1.0, 1.0, 1.0)}
        write_dng(tmp_path / name, ramp, cfa=cfa, **levels, xyz_to_cam=None, iso=200, noise=NOISE)
        return tmp_path / name

    return write


@pytest.fixture
def zoo(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the CLI in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run
