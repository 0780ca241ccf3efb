"""Between what the numbers of a training configuration may lie."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.data.synth import NoiseRange
    from zoo.training.config import TrainConfig

_SHARE = (0, 1)
_RATE = (1e-12, 10)
_WEIGHT = (0, 1e6)

# Both ends are allowed. Seeds are added to, and generators take 64 bits.
BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 10**9),
    "batch": (1, 65536),
    "patch": (2, 16384),
    "margin": (0, 4096),
    "lr": _RATE,
    "kernel_lr": (0, 10),
    "warmup": (0, 10**9),
    "weight_decay": (0, 10),
    "grad_clip": (1e-12, math.inf),
    "ema": _SHARE,
    "display_weight": _WEIGHT,
    "range_weight": _WEIGHT,
    "seed": (0, 2**62),
    "validate_every": (1, 10**9),
    "checkpoint_every": (0, math.inf),
    "textured": _SHARE,
    "displayed": _SHARE,
    "rounded": _SHARE,
    "teacher_weight": _WEIGHT,
    "denoised": _SHARE,
    "picture_steps": (0, 10**9),
    "ms_ssim_weight": _SHARE,
}
# What is drawn evenly in the logarithm is more than 0.
NOISE_BOUNDS: dict[str, tuple[float, float]] = {
    "shot_min": (1e-12, 1),
    "shot_max": (1e-12, 1),
    "read_per_iso2": (1e-40, 1),
    "read_floor": (0, 1),
    "shot_per_iso": (1e-12, 1),
    "clean": _SHARE,
    "row": (0, 10),
    "knowledge": (0, 5),
}


def check_bounds(config: TrainConfig) -> None:
    """Refuse numbers that no run can be made with.

    Raises:
        ZooError: one line, which names the field.
    """
    for name, bounds in BOUNDS.items():
        _check(name, getattr(config, name), bounds)
    check_noise(config.noise)
    if config.patch % 2:
        raise ZooError(f"patch is {config.patch}; it must be even")
    if config.ms_ssim_weight and config.patch < 176:
        raise ZooError(f"patch is {config.patch}; MS-SSIM wants at least 176")
    if config.patch // 2 <= 2 * config.margin:
        raise ZooError(f"margin is {config.margin}, which leaves nothing of a patch of {config.patch}; lower it")


def check_noise(noise: NoiseRange) -> None:
    """As :func:`check_bounds`, of the noise."""
    for name, bounds in NOISE_BOUNDS.items():
        value = getattr(noise, name)
        pair = value if isinstance(value, tuple) else (value,)
        for one in pair:
            _check(f"noise.{name}", one, bounds)
        if pair[0] > pair[-1]:
            raise ZooError(f"noise.{name} is [{pair[0]:g}, {pair[1]:g}]; the smaller one comes first")
    if noise.shot_min > noise.shot_max:
        raise ZooError(f"noise.shot_min is {noise.shot_min:g}, above shot_max {noise.shot_max:g}; swap them")


def check_patch(model: str, patch: int) -> None:
    """Refuse patches that a registered model's layers cannot halve as often as they do.

    Raises:
        ZooError: such a patch.
    """
    from zoo.models.contracts import contract_of
    from zoo.models.registry import get_spec, list_models

    if model not in list_models():  # what has been built by hand
        return
    multiple = get_spec(model).tile_multiple
    period = contract_of(None, model).period  # of the mosaic, which tiles of a photo keep to, but no patch has to
    sensor = 2 * multiple // math.gcd(multiple, period)
    if patch % sensor:
        nearest = max(sensor, round(patch / sensor) * sensor)
        raise ZooError(f"patch is {patch}; {model} takes multiples of {sensor}, e.g. {nearest}")


def _check(name: str, value: Any, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if low <= value <= high and not isinstance(value, bool):  # false of nan
        return
    if bounds == _SHARE:
        raise ZooError(f"{name} is {value}; it is a share, 0 to 1")
    raise ZooError(
        f"{name} is {value}; it can be " + (f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}")
    )
