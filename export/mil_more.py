"""Operators of ML programs that no model of the zoo uses, for the interpreter of :mod:`export.mil`.

:func:`register` adds them. The operator matrix needs them to run what Core ML makes of other people's layers. Semantics follow
the operator reference of coremltools (``coremltools.converters.mil.mil.ops.defs``, iOS15 to iOS17).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from export import mil
from zoo.errors import ZooError

Inputs = dict[str, Any]


def register() -> None:
    """Make the interpreter know these operators; those that it knows already stay its own."""
    for name, function in _OPERATORS.items():
        mil._OPERATORS.setdefault(name, function)


def _ints(value: Any) -> list[int]:
    return [int(v) for v in value]


def _crop(given: Inputs) -> Tensor:
    """``[N, C, H, W]`` without the given rows and columns at each end."""
    x = given["x"]
    (top, bottom), (left, right) = _ints(given["crop_height"]), _ints(given["crop_width"])
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def _nearest(given: Inputs) -> Tensor:
    factors = [float(given["scale_factor_height"]), float(given["scale_factor_width"])]
    return F.interpolate(given["x"], scale_factor=factors, mode="nearest")


def _avg_pool(given: Inputs) -> Tensor:
    if given["pad_type"] != "valid" and any(_ints(given["pad"])):
        raise ZooError("the MIL interpreter does not know padded average pools")
    return F.avg_pool2d(given["x"], _ints(given["kernel_sizes"]), _ints(given["strides"]))


def _pad(given: Inputs) -> Tensor:
    """``pad`` lists start and end of the last axes, the outermost first; torch wants the innermost first."""
    pad = _ints(given["pad"])
    mode = str(given["mode"])
    while pad and len(pad) > 2 and pad[:2] == [0, 0]:
        pad = pad[2:]
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    flat = [v for pair in reversed(pairs) for v in pair]
    if mode == "constant":
        return F.pad(given["x"], flat, value=float(given["constant_val"]))
    return F.pad(given["x"], flat, mode=mode)


def _layer_norm(given: Inputs) -> Tensor:
    x, axes = given["x"], _ints(given["axes"])
    mean = x.mean(axes, keepdim=True)
    y = (x - mean) / torch.sqrt((x - mean).square().mean(axes, keepdim=True) + float(given["epsilon"]))
    shape = [x.shape[a] for a in axes]
    for name, join in (("gamma", torch.mul), ("beta", torch.add)):
        if given.get(name) is not None:
            value = given[name].reshape(shape)
            # The axes are the last ones wherever coremltools makes this operator of nn.LayerNorm.
            y = join(y, value)
    return y


def _matmul(given: Inputs) -> Tensor:
    x = given["x"].transpose(-1, -2) if given["transpose_x"] else given["x"]
    y = given["y"].transpose(-1, -2) if given["transpose_y"] else given["y"]
    return x @ y


def _reduce_mean(given: Inputs) -> Tensor:
    return given["x"].mean(_ints(given["axes"]), keepdim=bool(given["keep_dims"]))


def _gelu(given: Inputs) -> Tensor:
    return F.gelu(given["x"], approximate="none" if given["mode"] == "EXACT" else "tanh")


def _expand_dims(given: Inputs) -> Tensor:
    x = torch.as_tensor(given["x"])
    for axis in sorted(_ints(given["axes"])):
        x = x.unsqueeze(axis)
    return x


def _thresholded(given: Inputs) -> Tensor:
    x = given["x"]
    return torch.where(x >= given["alpha"], x, torch.zeros_like(x))


_OPERATORS: dict[str, Callable[[Inputs], Tensor]] = {
    "avg_pool": _avg_pool,
    "crop": _crop,
    "expand_dims": _expand_dims,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "pad": _pad,
    "real_div": lambda g: torch.as_tensor(g["x"]) / g["y"],
    "reduce_mean": _reduce_mean,
    "sigmoid_hard": lambda g: (g["x"] * g["alpha"] + g["beta"]).clamp(0, 1),
    "silu": lambda g: F.silu(g["x"]),
    "softmax": lambda g: torch.softmax(g["x"], int(g["axis"])),
    "sqrt": lambda g: torch.sqrt(g["x"]),
    "square": lambda g: g["x"] * g["x"],
    "thresholded_relu": _thresholded,
    "upsample_nearest_neighbor": _nearest,
}
