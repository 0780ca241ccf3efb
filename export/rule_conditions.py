"""Conditions on nodes of an exported graph, for the table of :mod:`export.rules`.

Each takes a node and its program and says whether a rule speaks of this node.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from quantize.integer import operator_name as name_of

Program = torch.export.ExportedProgram

# Operators that the recipe gives no scales, and their names in ONNX.
UNSCALED = {
    "avg_pool2d": ("AveragePool",),
    "div": ("Div",),
    "gelu": ("Gelu", "Erf", "Mul", "Div", "Add"),
    "flatten": ("Reshape",),
    "hardswish": ("HardSwish",),
    "layer_norm": ("LayerNormalization",),
    "leaky_relu": ("LeakyRelu",),
    "matmul": ("MatMul",),
    "pad": ("Pad",),
    "permute": ("Transpose",),
    "pixel_shuffle": ("DepthToSpace",),
    "pixel_unshuffle": ("SpaceToDepth", "Reshape", "Transpose"),
    "prelu": ("PRelu",),
    "sigmoid": ("Sigmoid",),
    "silu": ("Sigmoid", "Mul"),
    "softmax": ("Softmax",),
    "sqrt": ("Sqrt",),
    "transpose": ("Transpose", "MatMul"),
    "upsample_bilinear2d": ("Resize",),
    "upsample_nearest2d": ("Resize",),
    "view_as": ("Reshape",),
}


def _constants(program: Program) -> set[str]:
    """Names of the placeholders that hold parameters and buffers."""
    signature = program.graph_signature
    held = (*signature.inputs_to_parameters, *signature.inputs_to_buffers, *signature.inputs_to_lifted_tensor_constants)
    return set(held)


def _is_activation(value: object, program: Program) -> bool:
    """Whether a value depends on the network's input."""
    if not isinstance(value, fx.Node):
        return False
    if value.op == "placeholder":
        return value.name not in _constants(program)
    return any(_is_activation(a, program) for a in value.all_input_nodes)


def on_activations(node: fx.Node, program: Program) -> bool:
    """Whether the node depends on the network's input, and not on parameters only."""
    return _is_activation(node, program)


def grouped_transpose(node: fx.Node, program: Program) -> bool:
    """Of a transposed convolution: more than one group."""
    return bool(len(node.args) > 6 and node.args[6] != 1)


def output_padding(node: fx.Node, program: Program) -> bool:
    """Of a transposed convolution: any output padding."""
    return len(node.args) > 5 and any(node.args[5])  # type: ignore[arg-type]


def computed_weight(node: fx.Node, program: Program) -> bool:
    """Of a convolution: a weight that is no stored parameter."""
    weight = node.args[1]
    return isinstance(weight, fx.Node) and weight.op != "placeholder"


def pads_with(*modes: str) -> Callable[[fx.Node, Program], bool]:
    """A condition: the pad is of one of these modes."""
    return lambda node, program: (node.args[2] if len(node.args) > 2 else "constant") in modes


def scalar(node: fx.Node, program: Program) -> bool:
    """Whether one factor is a number or a constant tensor with one element."""
    for value in node.args[:2]:
        if not isinstance(value, fx.Node):
            return True
        if not _is_activation(value, program) and int(value.meta["val"].numel()) == 1:
            return True
    return False


def two_activations_or_square(node: fx.Node, program: Program) -> bool:
    """A square, or a product of two tensors that both depend on the input."""
    if name_of(node).startswith("square"):
        return _is_activation(node, program)
    return not scalar(node, program) and sum(_is_activation(a, program) for a in node.args[:2]) == 2


def beside_float(node: fx.Node, program: Program) -> bool:
    """Whether an operator without scales of its own stands beside another one: no int8 value lies between the two."""
    beside = [*node.all_input_nodes, *node.users]
    return _is_activation(node, program) and any(
        n.op == "call_function" and name_of(n) in UNSCALED and _is_activation(n, program) for n in beside
    )


def channels_of_a_layer(node: fx.Node, program: Program) -> bool:
    """A slice along the channels of something that is not the network's input."""
    source = node.args[0]
    return bool(len(node.args) > 1 and node.args[1] == 1 and isinstance(source, fx.Node) and source.op != "placeholder")
