"""`zoo quantize`: what a stop leaves, what is refused, and whose configuration float weights bring."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from quantize.codec import post_training_halves
from quantize.qat import QAT_DEFAULTS
from zoo import weights
from zoo.cli import main
from zoo.cli.quantize import _config
from zoo.data.pool import ImagePool
from zoo.errors import ZooError
from zoo.models.registry import create_model
from zoo.training.config import TrainConfig
from zoo.training.trainer import CHECKPOINT, Trainer, read_checkpoint


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that quantises in seconds."""
    for name in ("CALIBRATION_BATCHES", "EQUALISING_BATCHES"):
        monkeypatch.setattr(f"quantize.qat.{name}", 1)
    monkeypatch.setattr("quantize.calibrate._search_by_output", lambda *_: None)
    monkeypatch.setitem(QAT_DEFAULTS, "batch", 1)
    monkeypatch.setitem(QAT_DEFAULTS, "patch", 64)
    values = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(values).save(tmp_path / "pictures" / "0.png")
    options = {"--data": tmp_path / "pictures", "--output-dir": tmp_path / "run", "--steps": 3}
    return ["quantize", "utnet-n", "--json", *(str(word) for pair in options.items() for word in pair)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_a_checkpoint_and_nothing_that_looks_complete(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, number: int, code: int
) -> None:
    step = Trainer._train_step

    def stopped(self: Trainer) -> float:
        loss = step(self)
        signal.raise_signal(number)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopped)
        assert main(small) == code
    out, err = capsys.readouterr()
    assert {k: json.loads(out)[k] for k in ("step", "steps")} == {"step": 1, "steps": 3}
    assert err.strip().endswith("stopped at step 1 of 3; run it again to go on")
    assert not list((tmp_path / "run").glob("*-qat.safetensors"))
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["step"] == 1
    assert main([*small, "--time-budget", "0"]) == 0  # a clean end, which is told too
    out, err = capsys.readouterr()
    assert json.loads(out)["training"]["steps"] == 1
    assert err.strip().endswith("stopped at step 1 of 3; run it again to go on")


def test_no_steps_are_refused(small: list[str], capsys: Any) -> None:
    assert main([*small, "--steps", "0"]) == 2
    assert "zoo quantize: steps is 0; it can be 1" in capsys.readouterr().err


class Taken(Exception):
    """Latents have been found fit."""


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts to quantise a bayer-codec-s whose latents are so many times what its decoder's range holds."""
    monkeypatch.setattr("quantize.codec.CALIBRATION_BATCHES", 1)

    def passed(*_: object) -> None:
        raise Taken

    monkeypatch.setattr("quantize.codec.prepare", passed)

    def run(factor: float, channel: slice) -> None:
        torch.manual_seed(0)
        model: Any = create_model("bayer-codec-s")
        with torch.no_grad():
            model.encoder.transform.weight.zero_()
            model.encoder.transform.bias.zero_()
            model.encoder.transform.bias[channel] = factor
        pool = ImagePool([torch.full((80, 80, 3), 9000, dtype=torch.uint16)], "")
        config = TrainConfig(model="bayer-codec-s", batch=1, patch=64)
        post_training_halves("bayer-codec-s", model, pool, config)

    return run


@pytest.mark.parametrize("channel", [slice(100, 101), slice(50, 60)])
def test_latents_beyond_the_agreed_range_are_refused(latents: Any, channel: slice) -> None:
    with pytest.raises(ZooError, match=r"of one channel 100%.* `zoo publish RUN` scales them"):
        latents(1.1, channel)
    with pytest.raises(Taken):
        latents(0.99, channel)


def test_patches_are_drawn_as_for_the_weights_that_are_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"training": {"config": {"textured": 0.25, "denoiser": "utnet-m", "denoised": 0.3}}}
    monkeypatch.setattr(weights, "card", lambda *_: card)
    file = tmp_path / "w.safetensors"

    def drawn(file: Path | None) -> tuple[float, str, float]:
        config = _config(argparse.Namespace(name="bayer-codec-s", data=Path("x"), weights=file, steps=None))
        return config.textured, config.denoiser, config.denoised

    assert drawn(None) == (0.25, "utnet-m", 0.3)
    save_file({"a": torch.zeros(1)}, file)
    assert drawn(file) == (0.0, "", 0.5)
    save_file({"a": torch.zeros(1)}, file, {"run": json.dumps({"config": {"textured": 0.5}})})
    assert drawn(file) == (0.5, "", 0.5)


def test_a_demosaicer_is_quantised_on_what_it_was_trained_on() -> None:
    config = _config(argparse.Namespace(name="utnet-demosaic", data=Path("x"), weights=None, steps=None))
    assert (config.noise.clean, config.displayed, config.textured) == (1.0, 0.5, 0.5)
    config = _config(argparse.Namespace(name="utnet-l", data=Path("x"), weights=None, steps=None))
    assert (config.noise.clean, config.displayed, config.textured) == (0.12, 0.0, 0.0)
