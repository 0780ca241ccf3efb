"""LiteRT (TensorFlow Lite): ``.tflite`` for Android and everything else that runs XNNPACK.

Facts measured with litert-torch 0.10.0 and ai-edge-litert 2.3.0 that shape this file:

* int8 is converted from the graph with *unfolded* weights. Those of transposed convolutions stay float in the file if
  the graph quantises them; given as plain floats they become int8 like the others (:func:`_on_grid`).
* int8 files come out with int8 input and output. :func:`_finish` puts QUANTIZE and DEQUANTIZE at the edges, so that the
  interface is float32 like everywhere; XNNPACK takes these two as well and the whole graph stays one delegate.
* fp16 stores half-precision weights behind DEQUANTIZE and declares ``fp16accfp16``: XNNPACK then computes in half
  precision where the CPU has it (ARMv8.2), and in float32 with the same rounded weights where it has not, as on x86.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export import SUFFIXES
from export.target import (
    METADATA_KEY,
    Node,
    Runner,
    audit_report,
    check_request,
    example_input,
    existing,
    parse_metadata,
    quiet,
    readable,
    stamp,
)
from zoo.errors import ZooError
from zoo.files import replacing

TARGET = "litert"
SUFFIX = SUFFIXES[TARGET]
_KIND = "LiteRT model"

# XNNPACK's delegate reads this entry (its README, "Floating-Point (IEEE FP16) Operators"): operators and sums in half
# precision. Not yet seen at work: this needs an ARMv8.2 CPU.
_REDUCED_PRECISION = ("reduced_precision_support", "fp16accfp16")

_DTYPES = {"FLOAT32": "fp32", "FLOAT16": "fp16", "INT8": "int8", "INT32": "int32"}
# Position of the activations and of the weights among an operator's inputs; all inputs are activations elsewhere.
_CONVS = {"CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "TRANSPOSE_CONV": (2, 1)}
_ATEN_CONVS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv_transpose2d.input)
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")


def write(net: Any, *, precision: str, tile: int, metadata: dict[str, str], path: Path) -> None:
    """Convert a network and save it as a ``.tflite`` with float32 input ``input`` and output ``output``, both NCHW.

    The two transposes to and from the runtime's NHWC are part of the file, so that all targets take the same array.

    Args:
        net: an eval module for fp32 and fp16; for int8 an object with ``graph(fold)``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        tile: height and width of the packed input, static.
        metadata: text to text; saved as JSON in the model metadata entry ``zoo_metadata``.
        path: ``*.tflite``, replaced if it exists.

    Raises:
        ZooError: a request that :func:`export.target.check_request` refuses.
    """
    path = Path(path)
    check_request(net, precision, tile, path, SUFFIX)
    entries = {METADATA_KEY: json.dumps(stamp(metadata, TARGET, precision, tile))}
    example = example_input(tile, metadata)
    with quiet():
        if precision == "int8":
            buffer = _convert(_on_grid(copy.deepcopy(net.graph(fold=False))), example, int8=True)
        else:
            buffer = _convert(net, example, int8=False)
        if precision == "fp16":
            buffer = _halve_weights(buffer)
            entries.update([_REDUCED_PRECISION])
        buffer = _finish(buffer, entries)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer)


def _on_grid(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Replace the float weights by what they are after quantisation, so that any rounding finds the same int8.

    On the raw ones the converter rounds near-ties its own way: one weight off by 1 in a net of 11 convolutions changed
    0.3 % of the outputs. Transposed convolutions lose the quantize/dequantize pair as well. The converter then chooses
    their scales, max/127 per output channel: the graph's, provided that the largest int8 weight of each is +-127.

    Raises:
        ZooError: a transposed convolution where it is not.
    """
    for node in graph.graph.nodes:
        if node.target not in _ATEN_CONVS or node.args[1].op != "call_function":
            continue
        weight = node.args[1]
        name = f"_on_grid_{node.name}"
        graph.register_buffer(name, _evaluate(graph, weight).contiguous())
        with graph.graph.inserting_before(weight.args[0]):
            snapped = graph.graph.get_attr(name)
        if node.target is torch.ops.aten.conv_transpose2d.input:
            if not bool((_evaluate(graph, weight.args[0]).abs().amax((0, 2, 3)) == 127).all()):
                raise ZooError(
                    f"LiteRT needs the weight scales of {node.name} taken from its final weights, per channel"
                )
            node.update_arg(1, snapped)
        else:
            weight.args[0].update_arg(0, snapped)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _evaluate(graph: torch.fx.GraphModule, value: Any) -> Any:
    """A node that depends on constants only."""
    if not isinstance(value, torch.fx.Node):
        return value
    if value.op == "get_attr":
        owner, _, name = str(value.target).rpartition(".")
        return getattr(graph.get_submodule(owner), name).detach()
    return value.target(*[_evaluate(graph, a) for a in value.args], **value.kwargs)  # type: ignore[operator]


def _convert(module: torch.nn.Module, example: torch.Tensor, int8: bool) -> bytes:
    """The converter's own ``.tflite``."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    config = None
    if int8:
        # This quantizer annotates nothing any more; naming one is what makes the converter keep int8 as int8.
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        config = QuantConfig(pt2e_quantizer=quantizer)
    try:
        return litert_torch.convert(module, (example,), quant_config=config).model_content()
    except ValueError as error:
        line = next((part for part in str(error).splitlines() if "error:" in part), str(error))
        raise ZooError(
            f"LiteRT's converter cannot convert the network: {line.partition('error: ')[2][:100] or line[:100]}; `zoo doctor` "
            "with the model's name names the operators, and what helps"
        ) from error


def _halve_weights(buffer: bytes) -> bytes:
    """The same model with float16 weights behind DEQUANTIZE; biases stay float32."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    recipe.add_weight_only_config(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        granularity=qtyping.QuantGranularity.TENSORWISE,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    job = quantizer.Quantizer(buffer)
    job.load_quantization_recipe(recipe.get_quantization_recipe())
    return bytes(job.quantize().quantized_model)


def _finish(buffer: bytes, metadata: dict[str, str]) -> bytes:
    """Float32 edges named ``input`` and ``output``, and the metadata entries."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(buffer, 0)
    graph = model.subgraphs[0]
    operators = schema.BuiltinOperator
    for constant in model.buffers:
        if constant.offset:  # ai-edge-quantizer keeps the weights of larger models behind the flatbuffer
            constant.data = np.frombuffer(buffer, np.uint8, constant.size, constant.offset)
            constant.offset = constant.size = 0

    def float_edge(index: int, name: bytes) -> int:
        """A float32 tensor with the shape of an int8 one."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, graph.tensors[index].shape, schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def operator(code: int, version: int, source: int, destination: int) -> Any:
        """A conversion from one tensor into another."""
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = version
        model.operatorCodes.append(entry)
        result = schema.OperatorT()
        result.opcodeIndex, result.inputs, result.outputs = len(model.operatorCodes) - 1, [source], [destination]
        return result

    source, destination = int(graph.inputs[0]), int(graph.outputs[0])
    if graph.tensors[source].type == schema.TensorType.INT8:
        edge = float_edge(source, b"input")
        graph.operators.insert(0, operator(operators.QUANTIZE, 1, edge, source))
        source = edge
    if graph.tensors[destination].type == schema.TensorType.INT8:
        edge = float_edge(destination, b"output")
        graph.operators.append(operator(operators.DEQUANTIZE, 2, destination, edge))
        destination = edge
    graph.inputs, graph.outputs = [source], [destination]
    graph.tensors[source].name, graph.tensors[destination].name = b"input", b"output"
    for signature in model.signatureDefs:
        (given,), (returned,) = signature.inputs, signature.outputs
        given.name, given.tensorIndex = b"input", source
        returned.name, returned.tensorIndex = b"output", destination

    for key, text in metadata.items():
        data = schema.BufferT()
        data.data = np.frombuffer(text.encode(), np.uint8)
        model.buffers.append(data)
        record = schema.MetadataT()
        record.name, record.buffer = key.encode(), len(model.buffers) - 1
        model.metadata.append(record)

    builder = flatbuffers.Builder(len(buffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read_metadata(path: Path | str) -> dict[str, str]:
    """What :func:`write` embedded.

    Raises:
        ZooError: no such file, or not one of ours.
    """
    path = existing(path, SUFFIX)
    model = _model(path)
    with readable(path, _KIND):
        entries = {entry.name.decode(): entry.buffer for entry in model.metadata or []}
        text = bytes(model.buffers[entries[METADATA_KEY]].data) if METADATA_KEY in entries else None
    return parse_metadata(text, path)


def _model(path: Path) -> Any:
    """The file as objects."""
    from ai_edge_litert import schema_py_generated as schema

    with readable(path, _KIND):
        data = path.read_bytes()
        if data[4:8] != b"TFL3":
            raise ValueError("another format")
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        if not model.subgraphs:
            raise ValueError("no network")
    return model


def runner(path: Path | str, threads: int = 1) -> Runner:
    """The saved file in the interpreter, with XNNPACK.

    Args:
        path: ``*.tflite``.
        threads: number of threads, this runner's own.

    Raises:
        ZooError: no such file, damaged, or not one of ours.
    """
    return _LiteRTRunner(existing(path, SUFFIX), threads)


class _LiteRTRunner(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(read_metadata(path))
        self._interpreter = _interpreter(path, threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def _feed(self, x: NDArray[np.float32]) -> None:
        self._interpreter.set_tensor(self._input, x)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def _fetch(self) -> NDArray[np.float32]:
        return self._interpreter.get_tensor(self._output)


def _interpreter(path: Path, threads: int) -> Any:
    """An interpreter with its tensors allocated; XNNPACK is its default delegate."""
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        with readable(path, _KIND):
            interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
            interpreter.allocate_tensors()
    return interpreter


def audit(path: Path | str) -> dict[str, Any]:
    """Operators and types of the saved file, and which of them XNNPACK takes on this machine.

    Returns:
        See :func:`export.target.audit_report`. The DEQUANTIZE of constant fp16 weights counts as a conversion; XNNPACK
        does it once, at load.

    Raises:
        ZooError: no such file, or damaged.
    """
    path = existing(path, SUFFIX)
    model = _model(path)
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    types = {v: _DTYPES.get(k, k) for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
    graph = model.subgraphs[0]
    delegated, delegates = _delegated_operators(path, graph)
    nodes = []
    for index, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        op = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        given = [types[graph.tensors[i].type] if i >= 0 else None for i in operator.inputs]
        dtype = types[graph.tensors[operator.outputs[0]].type]
        source, weight = _CONVS.get(op, (0, None))
        if op in _CONVERSIONS or given[source] != dtype:
            dtype = f"{given[source]}->{dtype}"
        elif weight is not None and given[weight] != dtype:
            dtype += f",w={given[weight]}"
        nodes.append(Node(op, dtype, op in _CONVS, index in delegated))
    return audit_report(TARGET, path, nodes, delegates)


def _delegated_operators(path: Path, graph: Any) -> tuple[set[int], int]:
    """Indices of the operators that XNNPACK runs, and the number of its partitions.

    The interpreter lists the delegates next to the operators that they replace, without saying which: they are the ones
    between a delegate's inputs and its outputs.
    """
    details = _interpreter(path, 1)._get_ops_details()
    delegates = [d for d in details if d["op_name"] == "DELEGATE"]
    producer = {int(o): i for i, operator in enumerate(graph.operators) for o in operator.outputs}
    found: set[int] = set()
    for delegate in delegates:
        boundary = {int(i) for i in delegate["inputs"]}
        open_tensors = [int(o) for o in delegate["outputs"]]
        while open_tensors:
            tensor = open_tensors.pop()
            if tensor in producer and tensor not in boundary and producer[tensor] not in found:
                found.add(producer[tensor])
                open_tensors += [int(i) for i in graph.operators[producer[tensor]].inputs]
    return found, len(delegates)
