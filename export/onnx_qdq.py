"""The QDQ graph of an int8 ``.onnx``, rewritten so that onnxruntime computes all of it in integers.

See :mod:`export.onnx` for why. Every rewriting keeps the integers: results change in no bit but where a float32 sum beside a tie
did not round as the integers do.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def integers(model: Any) -> Any:
    """Unsigned activations, int32 biases, and 2x2 stride-2 transposed convolutions as 1x1 ones with depth-to-space.

    Args:
        model: ``onnx.ModelProto`` of a converted PT2E graph with folded weights: per-tensor int8 activations and per-channel
            int8 weights behind DequantizeLinear, biases that are multiples of their accumulator's step.

    Returns:
        A new model; constants of the old one that nothing reads any more are gone.
    """
    return _Rewriter(model).run()


class _Rewriter:
    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import helper, numpy_helper

        self._model, self._helper, self._numpy, self._checker = model, helper, numpy_helper, onnx.checker
        graph = model.graph
        self._values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self._producer = {o: n for n in graph.node for o in n.output}
        self._users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._nodes: list[Any] = []
        self._renamed: dict[str, str] = {}

    def run(self) -> Any:
        # Weights first: they have no predecessors, and nodes must stand after what they read.
        for node in self._model.graph.node:
            if node.op_type in ("Conv", "ConvTranspose"):
                self._convolution(node)
            elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._conversion(node)
            else:
                self._nodes.append(node)
        graph = self._model.graph
        read = {name for node in self._nodes for name in node.input}
        del graph.node[:]
        graph.node.extend(self._nodes)
        del graph.initializer[:]
        graph.initializer.extend(self._numpy.from_array(v, k) for k, v in self._values.items() if k in read)
        self._checker.check_model(self._model)
        return self._model

    def _constant(self, name: str, value: np.ndarray) -> str:
        self._values[name] = value
        return name

    def _conversion(self, node: Any) -> None:
        """A quantisation or dequantisation of an activation with unsigned integers and constants of its own."""
        scale, zero = self._values[node.input[1]], self._values[node.input[2]]
        if zero.ndim:  # weights are written with their convolution
            return
        name = node.output[0]
        constants = [
            self._constant(f"{name}.scale", scale),
            self._constant(f"{name}.zero", np.array(int(zero) + 128, np.uint8)),
        ]
        self._nodes.append(self._helper.make_node(node.op_type, [node.input[0], *constants], [name], name))
        if node.op_type == "QuantizeLinear" and name in self._renamed:
            # The convolution before it gave four times the channels: sort them into pixels, as integers.
            self._nodes[-1].output[0] = self._renamed[name]
            self._nodes.append(
                self._helper.make_node(
                    "DepthToSpace", [self._renamed[name]], [name], f"{name}.pixels", blocksize=2, mode="CRD"
                )
            )

    def _convolution(self, node: Any) -> None:
        source = self._producer[node.input[1]]
        weight, scale = self._values[source.input[0]], self._values[source.input[1]]
        step = np.float32(self._values[self._producer[node.input[0]].input[1]]) * scale.astype(np.float32)
        bias = None
        if len(node.input) > 2:
            bias = np.rint(self._values[node.input[2]].astype(np.float64) / step.astype(np.float64)).astype(np.int32)
        attributes = {a.name: self._helper.get_attribute_value(a) for a in node.attribute}
        kind, repeat = node.op_type, 1
        if kind == "ConvTranspose" and self._is_subpixel(node, attributes, weight):
            # [in, out, y, x] -> [out * 4, in, 1, 1]: channel 4 * c + 2 * y + x is pixel (y, x) of channel c.
            weight = weight.transpose(1, 2, 3, 0).reshape(-1, weight.shape[0], 1, 1)
            kind, repeat, attributes = "Conv", 4, {"kernel_shape": [1, 1]}
            tail = self._quantiser(node)
            self._renamed[tail.output[0]] = f"{tail.output[0]}.packed"
        axis = 1 if kind == "ConvTranspose" else 0
        inputs = [node.input[0], self._weight(node.name, weight, np.repeat(scale, repeat), axis)]
        if bias is not None:
            inputs.append(self._bias(node.name, np.repeat(bias, repeat), np.repeat(step, repeat)))
        self._nodes.append(self._helper.make_node(kind, inputs, list(node.output), node.name, **attributes))

    def _is_subpixel(self, node: Any, attributes: dict[str, Any], weight: np.ndarray) -> bool:
        """Whether a transposed convolution's outputs do not overlap: 2x2, stride 2, no padding, one group."""
        plain = weight.shape[2:] == (2, 2) and list(attributes.get("strides", [])) == [2, 2]
        still = not any(attributes.get("pads", [])) and not any(attributes.get("output_padding", []))
        alone = attributes.get("group", 1) == 1 and list(attributes.get("dilations", [1, 1])) == [1, 1]
        return plain and still and alone and self._quantiser(node) is not None

    def _quantiser(self, node: Any) -> Any:
        """The QuantizeLinear that alone reads a node, behind a ReLU if there is one; None if there is no such."""
        users = self._users.get(node.output[0], [])
        if len(users) == 1 and users[0].op_type == "Relu":
            users = self._users.get(users[0].output[0], [])
        return users[0] if len(users) == 1 and users[0].op_type == "QuantizeLinear" else None

    def _weight(self, layer: str, weight: np.ndarray, scale: np.ndarray, axis: int) -> str:
        name = f"{layer}.weight"
        constants = [
            self._constant(f"{name}.int8", np.ascontiguousarray(weight)),
            self._constant(f"{name}.scale", scale.astype(np.float32)),
            self._constant(f"{name}.zero", np.zeros(len(scale), np.int8)),
        ]
        self._nodes.append(self._helper.make_node("DequantizeLinear", constants, [f"{name}.real"], name, axis=axis))
        return f"{name}.real"

    def _bias(self, layer: str, bias: np.ndarray, step: np.ndarray) -> str:
        name = f"{layer}.bias"
        constants = [
            self._constant(f"{name}.int32", bias),
            self._constant(f"{name}.step", step.astype(np.float32)),
            self._constant(f"{name}.zero", np.zeros(len(bias), np.int32)),
        ]
        self._nodes.append(self._helper.make_node("DequantizeLinear", constants, [f"{name}.real"], name, axis=0))
        return f"{name}.real"
