"""The integer reference: the quantised network in exact integer arithmetic.

It defines what every runtime must compute: int8 tensors, int32 accumulators, and XNNPACK's requantisation. ExecuTorch and
LiteRT must equal it bit for bit. Rules (read off XNNPACK's qs8 / qc8w reference behaviour):

* convolution: ``acc = sum((x - zx) * w) + round(b / (sx * sw))``; output ``clamp(rint(f32(acc) * f32(sx * sw / so)) + zo)``,
  ties to even, ReLU as the lower clamp bound ``zo``;
* addition: both inputs are scaled by fixed-point multipliers of 20 bits below the larger scale ratio, summed, and shifted
  with rounding half up;
* input: ``clamp(rint(x * f32(1 / s)) + z)`` (the reciprocal, not a division: 0.12 % of outputs would differ).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx

# Products of 8-bit values in a float32 convolution are exact while the sum stays below 2^24: 518 taps of 255 * 127.
_EXACT_TAPS = 2**24 // (255 * 127)


@dataclass
class Quantized:
    """An int8 tensor (kept in int32) with its scale and zero point."""

    values: Tensor
    scale: float
    zero: int


@dataclass
class _Weight:
    values: Tensor
    scale: np.ndarray  # float32 [C_out]


@dataclass
class _Pending:
    """A float operation that waits for the scale of its output; ``relu`` if one follows it."""

    node: fx.Node
    relu: bool


class IntegerNetwork:
    """Runs a converted PT2E graph (folded weights) in integers.

    Args:
        graph: from ``QuantizedModel.graph(fold=True)``; convolutions, transposed convolutions, additions, concatenations
            and ReLU.

    Raises:
        NotImplementedError: another operation stands in the graph.
    """

    target = "integer"
    tile = None  # any size

    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph = graph
        self.precision = "int8"

    @property
    def input_scale(self) -> float:
        """The step that the input is rounded to."""
        (placeholder,) = (n for n in self._graph.graph.nodes if n.op == "placeholder")
        return float(next(iter(placeholder.users)).args[1])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 ``[N, C_in, h, w]`` -> float32 ``[N, C_out, H, W]``, the values that a runtime with float I/O returns."""
        result = self._run(torch.from_numpy(np.ascontiguousarray(x, np.float32)))
        return (result.values - result.zero).to(torch.float32).numpy() * np.float32(result.scale)

    @torch.no_grad()
    def _run(self, x: Tensor) -> Quantized:
        values: dict[fx.Node, Any] = {}
        for node in self._graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "get_attr":
                values[node] = attribute(self._graph, node)
            elif node.op == "output":
                result = node.args[0]
                result = values[result[0] if isinstance(result, tuple | list) else result]
                assert isinstance(result, Quantized)
                return result
            elif node.op == "call_function":
                values[node] = self._call(node, values)
        raise AssertionError("graph without output")

    def _call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        name = str(node.target)
        args: list[Any] = [values.get(a, a) if isinstance(a, fx.Node) else a for a in node.args]
        if "dequantize_per_tensor" in name:
            source = args[0]
            if isinstance(source, Quantized):
                return source
            return _Weight(source.to(torch.int32), np.array([args[1]], np.float32))  # a per-tensor weight
        if "dequantize_per_channel" in name:
            return _Weight(args[0].to(torch.int32), args[1].numpy().astype(np.float32))
        if "quantize_per_tensor" in name:
            return self._quantize(args[0], float(args[1]), int(args[2]), values)
        if operator_name(node) == "relu":
            return _Pending(args[0].node, relu=True)
        if any(kind in name for kind in ("conv2d", "conv_transpose2d", "add.Tensor", "cat.default")):
            return _Pending(node, relu=False)
        raise NotImplementedError(f"the integer reference knows no {name}")

    def _quantize(self, source: Any, scale: float, zero: int, values: dict[fx.Node, Any]) -> Quantized:
        if isinstance(source, Quantized):  # the same tensor again (a skip with two users)
            if (source.scale, source.zero) != (scale, zero):
                raise NotImplementedError("requantisation between two scales")
            return source
        if isinstance(source, Tensor):
            inverse = np.float32(1) / np.float32(scale)
            q = torch.clamp(torch.round(source * float(inverse)) + zero, -128, 127)
            return Quantized(q.to(torch.int32), scale, zero)
        node, low = source.node, zero if source.relu else -128
        name = str(node.target)
        if "add" in name:
            a, b = (values[n] for n in node.args[:2])
            return Quantized(fixed_point_add(a, b, scale, zero, low), scale, zero)
        if "cat" in name:
            parts = [values[n] for n in node.args[0]]
            if any((p.scale, p.zero) != (scale, zero) for p in parts):
                raise NotImplementedError("concatenation of different scales")
            joined = torch.cat([p.values for p in parts], node.args[1] if len(node.args) > 1 else 0)
            return Quantized(joined.clamp(min=low), scale, zero)
        arguments = [values.get(a, a) if isinstance(a, fx.Node) else a for a in node.args]
        x, weight, bias, *geometry = [*arguments, None][: max(3, len(arguments))]
        product = np.float32(x.scale) * weight.scale  # float32, as the runtimes compute it
        acc = _accumulate(x.values - x.zero, weight.values, geometry, transposed="transpose" in name)
        if bias is not None:
            acc += torch.round(bias.double() / torch.from_numpy(product).double()).to(torch.int32).view(1, -1, 1, 1)
        factor = torch.from_numpy(product / np.float32(scale)).view(1, -1, 1, 1)
        q = torch.round(acc.to(torch.float32) * factor).clamp(low - zero, 127 - zero) + zero
        return Quantized(q.to(torch.int32), scale, zero)


def operator_name(node: fx.Node) -> str:
    """What a node computes, without overload and whether in place: ``relu`` for ``aten.relu_.default``."""
    return str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")


def attribute(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """The parameter or buffer that a ``get_attr`` node reads."""
    value: Any = reduce(getattr, str(node.target).split("."), graph)
    return value.detach()


def _accumulate(x: Tensor, weight: Tensor, geometry: list[Any], *, transposed: bool) -> Tensor:
    """Exact int32 accumulator of a (transposed) convolution, through float32 convolutions of few enough taps."""
    convolve = F.conv_transpose2d if transposed else F.conv2d
    groups = 1 if transposed or len(geometry) < 4 else geometry[3]
    if groups > 1:
        if weight[0].numel() > _EXACT_TAPS:
            raise NotImplementedError(f"{weight[0].numel()} products per output in {groups} groups")
        return F.conv2d(x.float(), weight.float(), None, *geometry).to(torch.int32)
    taps = int(weight[0, 0].numel())
    step = max(1, _EXACT_TAPS // taps)
    axis = 0 if transposed else 1  # of input channels in the weight
    parts = []
    for start in range(0, x.shape[1], step):
        part = weight.narrow(axis, start, min(step, x.shape[1] - start)).float()
        parts.append(convolve(x[:, start : start + step].float(), part, None, *geometry).to(torch.int32))
    return reduce(operator.add, parts)


def fixed_point_add(a: Quantized, b: Quantized, scale: float, zero: int, low: int) -> Tensor:
    """XNNPACK's qs8 vadd: fixed-point multipliers with 20 bits below the larger ratio."""
    ratios = [np.float32(np.float32(t.scale) / np.float32(scale)) for t in (a, b)]
    shift = 20 - int(np.frexp(max(ratios))[1] - 1)
    multipliers = [int(np.rint(np.ldexp(np.float64(r), shift))) for r in ratios]
    total = torch.full_like(a.values, 1 << (shift - 1), dtype=torch.int64)
    for t, m in zip((a, b), multipliers, strict=True):
        total += (t.values.to(torch.int64) - t.zero) * m
    return ((total >> shift) + zero).clamp(low, 127).to(torch.int32)
