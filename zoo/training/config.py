"""Training configuration: YAML in, checked dataclasses out."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data.synth import CFAS, NoiseRange
from zoo.errors import ZooError
from zoo.training.bounds import check_bounds, check_patch


@dataclass(frozen=True)
class TrainConfig:
    """What one training run is; every field may stand in the YAML file.

    Attributes:
        model: registered name.
        data: folder of clean pictures (sRGB files, and npz with RGBE bands).
        steps: optimiser steps of the whole run; the schedule ends there.
        batch: patches per step, and per process where several train together (torchrun).
        patch: side of a patch in sensor pixels; a multiple of twice the model's tile multiple.
        margin: packed pixels at a patch's border that the loss leaves out, since zero padding spoils them.
        lr: peak learning rate of AdamW; cosine to a thousandth of it after ``warmup`` steps.
        kernel_lr: peak learning rate of Muon, which trains the kernels of convolutions; 0 leaves them to AdamW.
        warmup: steps of linear warm-up.
        weight_decay: of AdamW; Muon's is fixed (``zoo.training.optim.KERNEL_DECAY``).
        grad_clip: largest gradient norm.
        ema: decay of the weight average that is validated and shipped.
        precision: ``bf16`` (autocast; fp32 on a CPU that would emulate it) or ``fp32``.
        display_weight: weight of the L1 loss after development beside the L1 in the VST domain.
        range_weight: weight of the penalty on activations beyond the model's ``range_limits``.
        seed: of weights and data.
        validate_every: steps between validations.
        checkpoint_every: seconds between checkpoints.
        noise: distribution of synthetic noise.
        cfa: ``bayer``, ``xtrans`` or ``both``; X-Trans only for models whose contract takes it.
        textured: share of the patches that are the most textured of four crops.
        displayed: share of the patches whose mosaic is of a picture's sRGB values, and whose error counts in those.
        rounded: share of the patches whose network input is rounded to an int8 file's steps. Of the shipped utnet-l, -s and -n
            half were; it took nothing off what int8 costs them (docs/training-log.md).
        init: weights to start from: a safetensors file, or a registered model's name for those that ship; empty for none.
        teacher: a registered model with shipped weights, or a file ``NAME.safetensors`` of one, whose estimate is a second
            target; empty for none.
        teacher_weight: weight of the distance to the teacher, beside 1 for the distance to the truth.
        denoiser: as ``teacher``; denoises mosaics before a Bayer codec sees them (`zoo compress --denoiser`); empty for none.
        denoised: share of the patches whose mosaics are denoised so.
        picture_steps: first steps of a Bayer codec, which train only the picture that its encoder transforms.
        ms_ssim_weight: share of 1 - MS-SSIM in a compressor's distortion, the rest squared error (docs/training-log.md compares).
        compile: compile a compressor's distortion (wants a C++ compiler on a CPU): 28 % less time per step of bayer-codec-m on a
            CPU core. The denoisers' loss gained nothing from it, and is not compiled.
    """

    model: str
    data: str = "../shared/data/train_rgb"
    steps: int = 100_000
    batch: int = 16
    patch: int = 128
    margin: int = 4
    lr: float = 1e-3
    kernel_lr: float = 3e-3
    warmup: int = 500
    weight_decay: float = 1e-4
    grad_clip: float = 1.0
    ema: float = 0.999
    precision: str = "bf16"
    display_weight: float = 0.5
    range_weight: float = 1.0
    seed: int = 0
    validate_every: int = 2000
    checkpoint_every: float = 120.0
    noise: NoiseRange = field(default_factory=NoiseRange)
    cfa: str = "bayer"
    textured: float = 0.0
    displayed: float = 0.0
    rounded: float = 0.0
    init: str = ""
    teacher: str = ""
    teacher_weight: float = 1.0
    denoiser: str = ""
    denoised: float = 0.5
    picture_steps: int = 0
    ms_ssim_weight: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "fp32"):
            raise ZooError(f"precision is '{self.precision}'; it can be bf16 or fp32")
        check_bounds(self)
        if self.cfa not in CFAS:
            raise ZooError(f"cfa is '{self.cfa}'; it can be {', '.join(CFAS)}")


def load_config(path: Path, **overrides: Any) -> TrainConfig:
    """Read a YAML file; ``overrides`` win over what it says (None: not given).

    Raises:
        ZooError: no such file, not readable, not YAML, an unknown key (the line lists the nearest), a value of the wrong type, or
            one out of bounds (:mod:`zoo.training.bounds`).
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError as error:
        raise ZooError(f"{path}: no such configuration file; the shipped ones are in configs/") from error
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror}); give a YAML file as in configs/") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ZooError(f"{path}: is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise ZooError(f"{path}: must hold 'key: value' lines")
    values |= {key: value for key, value in overrides.items() if value is not None}
    config: TrainConfig = parse(TrainConfig, values, str(path))
    with _named(str(path)):
        check_patch(config.model, config.patch)
    return config


def parse(kind: type, values: dict[str, Any], where: str) -> Any:
    """Build dataclass ``kind`` from plain values; unknown keys and wrong types are errors that explain."""
    hints = typing.get_type_hints(kind)
    known = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    arguments = {}
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"valid keys: {', '.join(known)}"
            raise ZooError(f"{where}: unknown key '{key}'; {hint}")
        arguments[key] = _convert(known[key], value, f"{where}: '{key}'")
    try:
        with _named(where):
            return kind(**arguments)
    except TypeError as error:
        raise ZooError(f"{where}: {str(error).split('__init__() ')[-1]}") from error


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors say which file they are about."""
    try:
        yield
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ZooError(f"{where} must hold 'key: value' lines")
        return parse(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(kinds):
            raise ZooError(f"{where} must be a list of {len(kinds)} values, not {value!r}")
        return tuple(_convert(kind, v, where) for kind, v in zip(kinds, value, strict=True))
    if isinstance(value, bool) and hint is not bool:  # a bool is an int to Python
        pass
    elif hint is float and isinstance(value, int | float | str):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except (ValueError, OverflowError):
            pass
    elif isinstance(value, hint):
        return value
    raise ZooError(f"{where} must be {hint.__name__}, not {value!r}")


def parse_duration(text: str) -> float:
    """``90s``, ``9m``, ``1.5h`` or plain seconds -> seconds.

    Raises:
        ZooError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ZooError(f"time budget '{text}' is not a duration; write 90s, 9m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
