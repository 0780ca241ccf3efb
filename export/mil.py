"""A small interpreter for Core ML's ML programs: what a saved ``.mlpackage`` computes, on any machine.

Core ML runs on Apple's systems only, and coremltools evaluates no convolution elsewhere. This walks the program that
was saved, operator by operator, in torch. Arithmetic is float32; the result of every fp16 operator is rounded to fp16.
That checks the file's meaning (weights, scales, order of operators), not the Neural Engine: how it accumulates, and
whether it takes an int8 path, is not modelled.

Semantics follow the operator reference of coremltools (``coremltools.converters.mil.mil.ops.defs``, iOS17 and iOS18).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export.target import quiet, undisturbed
from zoo.errors import ZooError

Inputs = dict[str, Any]


def import_coremltools() -> Any:
    """``coremltools``, which takes seconds to import and meanwhile swallows what Ctrl-C raises (``except: pass``)."""
    with undisturbed():
        return importlib.import_module("coremltools")


def load(path: Path) -> Any:
    """The program saved in a package, as coremltools' pymil ``Program``.

    Raises:
        ZooError: not a readable ML program.
    """
    with quiet():
        coremltools = import_coremltools()
        from coremltools.converters.mil.frontend.milproto.load import load as parse

        try:
            model = coremltools.models.MLModel(str(path), skip_model_load=True)
            spec = model.get_spec()
            return parse(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
        except Exception as error:  # coremltools raises bare Exceptions, protobuf's own and ValueErrors here
            raise ZooError(f"{path} is not a readable Core ML program: {error}") from error


def type_name(var: Any) -> str:
    """Element type of a pymil variable in MIL's words: ``fp16``, ``fp32``, ``int8``, ..."""
    from coremltools.converters.mil.mil import types

    return types.builtin_to_string(var.dtype)


class Interpreter:
    """A loaded program with one input and one output.

    Constants and compressed weights are expanded once, here; a call runs the rest.

    Args:
        program: from :func:`load`.

    Raises:
        ZooError: an operator that is not implemented, by name.
    """

    def __init__(self, program: Any) -> None:
        main = program.functions["main"]
        (self._input,) = main.inputs.values()
        (self._output,) = main.outputs
        self._constants: dict[Any, Any] = {}
        self._steps = []
        for op in main.operations:
            if op.op_type == "const":
                self._constants[op.outputs[0]] = _constant(op.outputs[0].val)
            elif op.op_type not in _OPERATORS:
                raise ZooError(f"the MIL interpreter does not know the operator {op.op_type!r}")
            elif op.op_type.startswith("constexpr_"):
                _run(op, self._constants)
            else:
                self._steps.append(op)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the program.

        Args:
            x: float32 of the input's shape.

        Returns:
            float32 of the output's shape.
        """
        values = {**self._constants, self._input: x}
        for op in self._steps:
            _run(op, values)
        return values[self._output].float()


def _run(op: Any, values: dict[Any, Any]) -> None:
    """Evaluate one operator into ``values``."""

    def value(var: Any) -> Any:
        if isinstance(var, list | tuple):
            return [value(v) for v in var]
        return values[var] if var in values else _constant(var.val)

    given = {name: value(var) for name, var in op.inputs.items() if var is not None}
    (output,) = op.outputs
    result = _OPERATORS[op.op_type](given)
    # fp16 lives in float32 here: half the types to write operators for, and the rounding is all that matters.
    values[output] = result.half().float() if type_name(output) == "fp16" else result


def _constant(value: Any) -> Any:
    """A constant as the operators want it: tensors (fp16 widened), plain numbers, strings, bools."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(np.array(value))
        return tensor.float() if tensor.dtype == torch.float16 else tensor
    return value.item() if isinstance(value, np.generic) else value


def _ints(value: Any) -> list[int]:
    return [int(v) for v in value]


def _padding(given: Inputs) -> list[int]:
    """Top, bottom, left, right of a ``valid`` or ``custom`` window."""
    if given["pad_type"] == "valid":
        return [0, 0, 0, 0]
    if given["pad_type"] == "custom":
        return _ints(given["pad"])
    raise ZooError(f"the MIL interpreter does not know the padding {given['pad_type']!r}")


def _pad(x: Tensor, padding: list[int], fill: float = 0.0) -> Tensor:
    top, bottom, left, right = padding
    return F.pad(x, (left, right, top, bottom), value=fill)


def _conv(given: Inputs) -> Tensor:
    x = _pad(given["x"], _padding(given))
    strides, dilations = _ints(given["strides"]), _ints(given["dilations"])
    return F.conv2d(x, given["weight"], given.get("bias"), strides, 0, dilations, int(given["groups"]))


def _conv_transpose(given: Inputs) -> Tensor:
    """Weight ``[C_in, C_out / groups, kH, kW]``; padding crops the full result."""
    strides, dilations = _ints(given["strides"]), _ints(given["dilations"])
    groups = int(given["groups"])
    y = F.conv_transpose2d(given["x"], given["weight"], given.get("bias"), strides, 0, 0, groups, dilations)
    top, bottom, left, right = _padding(given)
    height, width = y.shape[2] - top - bottom, y.shape[3] - left - right
    if given.get("output_shape") is not None and _ints(given["output_shape"])[2:] != [height, width]:
        raise ZooError("the MIL interpreter does not know conv_transpose with output padding")
    return y[:, :, top : top + height, left : left + width]


def _max_pool(given: Inputs) -> Tensor:
    x = _pad(given["x"], _padding(given), float("-inf"))
    return F.max_pool2d(x, _ints(given["kernel_sizes"]), _ints(given["strides"]))


def _slice(given: Inputs) -> Tensor:
    """Masks say where a bound is open."""
    x = given["x"]
    rank = x.dim()
    steps = _ints(given["stride"]) if given.get("stride") is not None else [1] * rank
    lows, highs = _bounds(given, "begin", rank), _bounds(given, "end", rank)
    if min(steps) < 1 or (given.get("squeeze_mask") is not None and any(given["squeeze_mask"])):
        raise ZooError("the MIL interpreter does not know slices that reverse or drop an axis")
    return x[tuple(slice(*bounds) for bounds in zip(lows, highs, steps, strict=True))]


def _bounds(given: Inputs, name: str, rank: int) -> list[int | None]:
    mask = given.get(f"{name}_mask")
    opened = [False] * rank if mask is None else [bool(m) for m in mask]
    return [None if o else v for v, o in zip(_ints(given[name]), opened, strict=True)]


def _upsample_bilinear(given: Inputs) -> Tensor:
    if given["align_corners"] or not given.get("half_pixel_centers", True):
        raise ZooError("the MIL interpreter knows bilinear upsampling with half-pixel centres only")
    factors = [float(given["scale_factor_height"]), float(given["scale_factor_width"])]
    return F.interpolate(given["x"], scale_factor=factors, mode="bilinear", align_corners=False)


def _along(value: Any, like: Tensor, axis: Any) -> Tensor:
    """A scale or zero point, shaped to broadcast: one number, or one for each index along ``axis``."""
    value = torch.as_tensor(value).float()
    if value.dim() == 0:
        return value
    shape = [1] * like.dim()
    shape[int(axis)] = -1
    return value.reshape(shape)


def _quantize(given: Inputs) -> Tensor:
    x, axis = given["input"], given.get("axis")
    low, high, dtype = (-128, 127, torch.int8) if given["output_dtype"] == "int8" else (0, 255, torch.uint8)
    level = torch.round(x / _along(given["scale"], x, axis)) + _along(given.get("zero_point", 0), x, axis)
    return level.clamp(low, high).to(dtype)


def _dequantize(given: Inputs) -> Tensor:
    q, axis = given["input"], given.get("axis")
    return (q.float() - _along(given.get("zero_point", 0), q, axis)) * _along(given["scale"], q, axis)


def _constexpr_affine(given: Inputs) -> Tensor:
    return _dequantize({**given, "input": given["quantized_data"]})


def _constexpr_blockwise(given: Inputs) -> Tensor:
    """iOS18's weights: scale and offset have the data's rank, each of their entries serves a block of it."""

    def spread(t: Tensor) -> Tensor:
        for axis, (size, blocks) in enumerate(zip(data.shape, t.shape, strict=True)):
            t = t.repeat_interleave(size // blocks, axis)
        return t.float()

    data = given["data"]
    offset = given.get("offset")
    return (data.float() - (0 if offset is None else spread(offset))) * spread(given["scale"])


def _cast(given: Inputs) -> Tensor:
    name = given["dtype"]
    return given["x"].float() if name in ("fp16", "fp32") else given["x"].to(getattr(torch, name))


_OPERATORS: dict[str, Callable[[Inputs], Tensor]] = {
    "add": lambda g: torch.as_tensor(g["x"]) + g["y"],
    "cast": _cast,
    "clip": lambda g: g["x"].clamp(g["alpha"], g["beta"]),
    "concat": lambda g: torch.cat(g["values"], int(g["axis"])),
    "constexpr_affine_dequantize": _constexpr_affine,
    "constexpr_blockwise_shift_scale": _constexpr_blockwise,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "dequantize": _dequantize,
    "leaky_relu": lambda g: F.leaky_relu(g["x"], g["alpha"]),
    "max_pool": _max_pool,
    "mul": lambda g: torch.as_tensor(g["x"]) * g["y"],
    "pixel_shuffle": lambda g: F.pixel_shuffle(g["x"], int(g["upscale_factor"])),
    "pixel_unshuffle": lambda g: F.pixel_unshuffle(g["x"], int(g["downscale_factor"])),
    "prelu": lambda g: F.prelu(g["x"], g["alpha"]),
    "quantize": _quantize,
    "relu": lambda g: torch.relu(g["x"]),
    "relu6": lambda g: F.relu6(g["x"]),
    "reshape": lambda g: g["x"].reshape(_ints(g["shape"])),
    "sigmoid": lambda g: torch.sigmoid(g["x"]),
    "slice_by_index": _slice,
    "sub": lambda g: torch.as_tensor(g["x"]) - g["y"],
    "transpose": lambda g: g["x"].permute(_ints(g["perm"])),
    "upsample_bilinear": _upsample_bilinear,
}
