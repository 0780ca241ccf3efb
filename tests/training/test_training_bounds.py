"""Values of a configuration that no run can be made with are told in a line, which names the file."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from zoo.data.synth import NoiseRange
from zoo.errors import ZooError
from zoo.training.bounds import BOUNDS, NOISE_BOUNDS
from zoo.training.config import TrainConfig, load_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("validate_every: 0", "validate_every is 0; it can be 1 to 1e+09"),
        ("steps: 0", "steps is 0; it can be"),
        ("patch: 100", "patch is 100; utnet-n takes multiples of 16, e.g. 96"),
        ("patch: 63", "patch is 63; it must be even"),
        ("lr: 0", "lr is 0.0; it can be"),
        ("lr: -1e-3", "lr is -0.001; it can be"),
        ("lr: .nan", "lr is nan; it can be"),
        ("kernel_lr: .inf", "kernel_lr is inf; it can be 0 to 10"),
        ("lr: true", "'lr' must be float, not True"),
        ("steps: true", "'steps' must be int, not True"),
        (f"seed: {2**70}", f"seed is {2**70}; it can be"),
        (f"lr: {10**400}", "'lr' must be float"),
        ("ema: 2", "ema is 2.0; it is a share, 0 to 1"),
        ("grad_clip: -1", "grad_clip is -1.0; it can be 1e-12 or more"),
        ("margin: 32", "margin is 32, which leaves nothing of a patch of 128"),
        ("warmup: -1", "warmup is -1; it can be"),
        ("noise: {shot_min: 0}", "noise.shot_min is 0.0; it can be"),
        ("noise: {shot_min: 0.5}", "noise.shot_min is 0.5, above shot_max 0.03; swap them"),
        ("noise: {read_floor: [2e-6, 1e-7]}", "noise.read_floor is [2e-06, 1e-07]; the smaller one comes first"),
        ("noise: {read_per_iso2: [0, 1e-12]}", "noise.read_per_iso2 is 0.0; it can be"),
        ("noise: {clean: 2}", "noise.clean is 2.0; it is a share, 0 to 1"),
        ("noise: {clean: false}", "'clean' must be float, not False"),
    ],
)
def test_values_out_of_bounds_are_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"model: utnet-n\n{text}\n")
    with pytest.raises(ZooError, match=re.escape(message)) as raised:
        load_config(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_every_number_has_bounds() -> None:
    numbers = {f.name for f in dataclasses.fields(TrainConfig) if f.type in ("int", "float")}
    assert numbers == BOUNDS.keys()
    assert {f.name for f in dataclasses.fields(NoiseRange)} == NOISE_BOUNDS.keys()


def test_the_mosaics_period_binds_no_patch(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: xtrans-unet-16\npatch: 128\n")  # tiles of a photo are multiples of 48
    assert load_config(tmp_path / "c.yaml").patch == 128


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda f: f.stem)
def test_what_ships_is_within_them(file: Path) -> None:
    load_config(file)
