"""What targets do to operators: the table that ``zoo doctor`` reads.

One :class:`Rule` per kind of operator of the exported graph, with one :class:`Effect` per target and precision where it is not
taken as it should be. Nothing here is believed: a test runs every network of the operator matrix past this table and compares
with what the matrix measured (consequence and operator names), cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import fx

from export.rule_conditions import (
    UNSCALED,
    Program,
    beside_float,
    channels_of_a_layer,
    computed_weight,
    grouped_transpose,
    on_activations,
    output_padding,
    pads_with,
    scalar,
    two_activations_or_square,
)

# Worst first. "numerics": converts, but computes something else than is meant. "note": costs time only.
SEVERITY = ("fails", "splits", "float", "numerics", "note")


@dataclass(frozen=True)
class Effect:
    """What a target makes of an operator.

    Attributes:
        consequence: one of :data:`SEVERITY`.
        shows: names in the file of what is not as asked for, as an audit lists them; at least one of them appears.
        reason, rewrite: instead of the rule's own, where the target differs.
    """

    consequence: str
    shows: tuple[str, ...] = ()
    reason: str = ""
    rewrite: str = ""


@dataclass(frozen=True)
class Rule:
    """One kind of operator.

    Attributes:
        ops: its names in the exported graph, without ``aten.`` and overload.
        cell: row of the operator matrix that backs it.
        reason: why a target does not take it, where the effect does not say.
        rewrite: what to write instead.
        effects: by ``"target precision"``; ``"target float"`` stands for fp16 and fp32.
        when: further condition on the node; None for none.
    """

    ops: tuple[str, ...]
    cell: str
    reason: str
    rewrite: str
    effects: Mapping[str, Effect] = field(default_factory=dict)
    when: Callable[[fx.Node, Program], bool] | None = None


def effect_of(rule: Rule, target: str, precision: str) -> Effect | None:
    """The effect on a target at a precision; None where all is well."""
    exact = rule.effects.get(f"{target} {precision}")
    return exact or (rule.effects.get(f"{target} float") if precision != "int8" else None)


_FLOAT_INSIDE = "there is no int8 form of it: it computes in float between a dequantise and a quantise"
_OUTSIDE = "the delegate does not take it: it runs as the runtime's own kernel and cuts the delegate in two"
_UPCAST = "of fp16 it is computed in fp32: the casts around it stay outside and cut the delegate"
_RELU = "ReLU (ReLU6 where a bound is wanted)"


def _float(*shows: str) -> Effect:
    return Effect("float", shows)


def _splits(*shows: str) -> Effect:
    # ExecuTorch turns the layout at a cut: where a float operator is beside it, as a float transpose.
    return Effect("splits", (*shows, "StaticTranspose"), _OUTSIDE)


def _everywhere(consequence: str, reason: str) -> dict[str, Effect]:
    return {f"{t} int8": Effect(consequence, (), reason) for t in ("coreml", "executorch", "litert", "onnx")}


_CONVS = ("conv2d", "conv_transpose2d")

RULES: tuple[Rule, ...] = (
    Rule(
        ("leaky_relu",), "leaky_relu", _FLOAT_INSIDE, _RELU,
        {"executorch int8": _float("LeakyReLU"), "coreml int8": _float("leaky_relu")},
    ),
    Rule(
        ("prelu",), "prelu", _FLOAT_INSIDE, _RELU,
        {
            "executorch int8": _float("PReLU"),
            "coreml int8": _float("prelu", "leaky_relu"),
            "litert int8": Effect("float", ("MUL", "RELU", "SUB"), "it is taken apart into five operators, in float"),
        },
    ),
    Rule(
        _CONVS, "gdn", "its weight is computed, not stored (GDN's squares and clamps)",
        "freeze it: write what is computed into an nn.Conv2d(1x1) before quantising or exporting",
        {
            **_everywhere("fails", "its weight is computed, and quantisation wants stored ones"),
            "executorch float": _splits("convolution"),
        },
        computed_weight,
    ),
    Rule(
        ("sqrt",), "gdn_frozen", _FLOAT_INSIDE, "ReLU in place of GDN; or keep this part in a float file of its own",
        {
            "executorch int8": _float("SquareRoot"),
            "litert int8": _float("SQRT"),
            "coreml int8": _float("sqrt"),
        },
        on_activations,
    ),
    Rule(
        ("div",), "gdn_frozen", _FLOAT_INSIDE, "ReLU in place of GDN; a division by a constant belongs into the weights",
        {
            "executorch int8": _float("Div"),
            "litert int8": _float("DIV", "MUL"),
            "coreml int8": _float("real_div", "mul"),
        },
        on_activations,
    ),
    Rule(
        ("mul", "square"), "mul", "Core ML multiplies in fp16 between the integers", "an addition or a 1x1 convolution",
        {"coreml int8": _float("mul")},
        two_activations_or_square,
    ),
    Rule(
        ("mul",), "scalar_mul", "a constant factor", "fold the factor into the weights and bias of the layer in front",
        {
            "coreml int8": Effect(
                "numerics", ("mul",),
                "coremltools stores the constant as int8 127 at zero point -128, which overflows: it becomes another number",
            ),
            "onnx int8": Effect("fails", (), "the file is written, but onnxruntime refuses its quantised constant"),
        },
        scalar,
    ),
    Rule(
        ("conv_transpose2d",), "tconv_output_padding", "a transposed convolution with output padding",
        "kernel 2, stride 2 (or kernel 4, stride 2, padding 1), which needs no output padding",
        {
            "litert int8": Effect("fails", (), "the converter cannot legalise output padding"),
            "litert float": Effect("fails", (), "the converter cannot legalise output padding"),
            "coreml int8": Effect("float", ("conv_transpose", "crop"), "a crop behind it keeps it from its integer form"),
        },
        output_padding,
    ),
    Rule(
        ("conv_transpose2d",), "tconv_grouped", "a grouped transposed convolution",
        "groups=1; or a grouped convolution behind a transposed one",
        _everywhere("fails", "per-channel scales of a grouped transposed convolution do not fit its channels"),
        grouped_transpose,
    ),
    Rule(
        ("pixel_shuffle", "pixel_unshuffle"), "pixel_shuffle", _FLOAT_INSIDE,
        "leave it out of the graph (the contract's tensors are packed); inside, a k2 s2 (transposed) convolution",
        {
            "executorch int8": _float("StaticReshape", "StaticTranspose"),
            "coreml int8": _float("pixel_shuffle", "pixel_unshuffle"),
        },
    ),
    Rule(
        ("pixel_unshuffle",), "pixel_unshuffle", "ONNX has no form of it that is quantised: it is taken apart, in float",
        "a k2 s2 convolution, or leave it out of the graph",
        {"onnx int8": _float("Reshape", "Transpose")},
    ),
    Rule(
        ("upsample_nearest2d",), "resize_nearest", _FLOAT_INSIDE, "ConvTranspose2d(k=2, s=2)",
        {
            "executorch int8": _splits("upsample_nearest2d"),
            "executorch float": _splits("upsample_nearest2d"),
            "litert int8": _splits("RESIZE_NEAREST_NEIGHBOR"),
            "litert float": _splits("RESIZE_NEAREST_NEIGHBOR"),
            "coreml int8": _float("upsample_nearest_neighbor"),
        },
    ),
    Rule(
        ("upsample_bilinear2d",), "resize_bilinear", _FLOAT_INSIDE, "ConvTranspose2d(k=2, s=2)",
        {
            "executorch int8": _float("StaticResizeBilinear2D"),
            "coreml int8": _float("upsample_bilinear"),
            "litert int8": Effect("numerics", (), "its int8 form rounds the weights of the interpolation"),
        },
    ),
    Rule(
        ("avg_pool2d",), "avg_pool", _FLOAT_INSIDE, "Conv2d(k=2, s=2), or max pool",
        {
            "executorch int8": _splits("avg_pool2d"),
            "executorch float": _splits("avg_pool2d"),
            "litert int8": _splits("AVERAGE_POOL_2D"),
            "coreml int8": _float("avg_pool"),
        },
    ),
    Rule(
        ("slice",), "channel_slice", _FLOAT_INSIDE, "two convolutions in place of one whose channels are cut apart",
        {
            "executorch int8": Effect(
                "fails", ("StaticSlice",), "the file is written, but XNNPACK refuses to load it (static slice of int8 channels)"
            ),
            "coreml int8": _float("slice_by_index"),
        },
        channels_of_a_layer,
    ),
    Rule(
        ("pad",), "pad_reflect", "reflection is index arithmetic", "pad with zeros in the convolution; mirror the tile outside",
        {
            "executorch int8": _splits("abs", "arange", "index", "sub"),
            "executorch float": _splits("abs", "arange", "index", "sub"),
            "litert int8": _splits("MIRROR_PAD"),
            "litert float": _splits("MIRROR_PAD"),
            "coreml int8": _float("pad"),
        },
        pads_with("reflect"),
    ),
    Rule(
        ("pad",), "pad_replicate", "replication is index arithmetic",
        "pad with zeros in the convolution; mirror the tile outside",
        {
            "executorch int8": _splits("clamp", "arange", "index"),
            "executorch float": _splits("clamp", "arange", "index"),
            "litert int8": _splits("MIRROR_PAD"),
            "litert float": _splits("MIRROR_PAD"),
            "coreml int8": _float("pad"),
        },
        pads_with("replicate"),
    ),
    Rule(
        ("pad",), "pad_zero", _FLOAT_INSIDE, "padding=1 in the convolution itself",
        {"executorch int8": _float("StaticConstantPad"), "coreml int8": _float("pad")},
        pads_with("constant"),
    ),
    Rule(
        ("hardtanh", "relu6"), "relu6", _FLOAT_INSIDE, "ReLU, which fuses into the convolution in front",
        {"coreml int8": _float("clip")},
    ),
    Rule(
        ("silu",), "silu", _FLOAT_INSIDE, _RELU,
        {
            "executorch int8": _float("Sigmoid", "Multiply"),
            "executorch fp16": Effect("splits", ("Sigmoid", "Multiply"), _UPCAST),
            "litert int8": _float("LOGISTIC", "MUL"),
            "coreml int8": _float("silu"),
            "onnx int8": _float("Sigmoid", "Mul"),
        },
    ),
    Rule(
        ("hardswish",), "hardswish", _FLOAT_INSIDE, _RELU,
        {
            "executorch int8": _float("Hardswish"),
            "litert int8": _splits("HARD_SWISH"),
            "coreml int8": _float("sigmoid_hard", "thresholded_relu", "mul"),
        },
    ),
    Rule(
        ("gelu",), "gelu", _FLOAT_INSIDE, _RELU,
        {
            "executorch int8": _float("Gelu"),
            "executorch fp16": _splits("gelu"),
            "litert int8": _splits("GELU"),
            "coreml int8": _float("gelu"),
        },
    ),
    Rule(
        ("sigmoid",), "sigmoid", _FLOAT_INSIDE, f"{_RELU}, or a clamp",
        {"executorch int8": _float("Sigmoid"), "coreml int8": _float("sigmoid")},
    ),
    Rule(
        ("layer_norm",), "layer_norm", _FLOAT_INSIDE, "no norm: the compact models train without; or a batch norm, which folds",
        {
            "executorch int8": _splits("native_layer_norm"),
            "executorch float": _splits("native_layer_norm"),
            "litert int8": _float("ADD", "MEAN", "MUL", "RESHAPE", "RSQRT", "SQUARED_DIFFERENCE", "SUB"),
            "coreml int8": _float("layer_norm"),
        },
    ),
    Rule(
        ("permute", "transpose"), "layer_norm", _FLOAT_INSIDE, "layers that work on the channels where they are",
        {"coreml int8": _float("transpose", "matmul")},
        on_activations,
    ),
    Rule(
        ("adaptive_avg_pool2d", "mean"), "channel_gate", "Core ML takes the mean in fp16 between the integers",
        "nothing on the other targets; without the gate the network sees its tile only, and tiles agree",
        {"coreml int8": _float("reduce_mean")},
    ),
    Rule(
        ("matmul", "bmm"), "softmax_attention", _FLOAT_INSIDE, "convolutions",
        {
            "executorch int8": _splits("expand_copy"),
            "executorch float": _splits("expand_copy"),
            "litert int8": _splits("FULLY_CONNECTED"),
            "litert float": _splits("FULLY_CONNECTED"),
            "coreml int8": _float("matmul"),
        },
    ),
    Rule(
        ("softmax",), "softmax_attention", _FLOAT_INSIDE, "convolutions",
        {
            "executorch int8": _float("Softmax", "BatchMatrixMultiply"),
            "litert int8": _float("SOFTMAX"),
            "coreml int8": _float("softmax"),
        },
    ),
    Rule(
        ("flatten", "view", "view_as", "reshape"), "softmax_attention", _FLOAT_INSIDE, "layers that keep the four dimensions",
        {"executorch int8": _float("StaticReshape"), "coreml int8": _float("reshape")},
        on_activations,
    ),
    *(
        Rule(
            (name,), "gdn_frozen", "it has no scale of its own and neither has its neighbour: both compute in float",
            "a convolution between the two, or ReLU",
            {"onnx int8": _float(*shows)},
            beside_float,
        )
        for name, shows in UNSCALED.items()
        if name not in ("pixel_unshuffle", "silu")  # which compute in float wherever they stand
    ),
)  # fmt: skip
