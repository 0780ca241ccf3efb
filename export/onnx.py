"""ONNX: ``.onnx`` for desktop editors and servers, run here by onnxruntime.

Facts measured with onnx 1.23.2 and onnxruntime 1.31.1 on x86 that shape this file:

* int8 is written as QDQ with *unsigned* activations: the same integers, 128 higher. onnxruntime's x86 kernels want u8 x s8; with
  int8 activations five of eleven convolutions of a compact network ran in float (1.8 times the time), and asked to keep them
  int8, it took 33 times the time.
* onnxruntime has no integer ConvTranspose. One of 2x2 and stride 2, the only kind here, is a 1x1 convolution with four times the
  channels and a depth-to-space: written so, all convolutions are integer, with the bits of the integer reference.
* Additions it computes in float32 where XNNPACK uses fixed point, so sums next to a tie may round the other way (see
  :data:`export.verify.MAX_FLIPPED_ONNX`).
* Tensors of scales and zero points are not shared between nodes: onnxruntime's own rewriting fails on shared ones
  ("Attempt to replace the existing tensor").
* x86 CPUs before VNNI saturate sums of u8 x s8 pairs at 16 bits. There the runner asks for onnxruntime's precise kernels, which
  take twice the time; other programs have to set ``session.x64quantprecision`` to 1 themselves.
* fp16 holds half-precision weights and operators between two casts. onnxruntime computes it in half precision where its provider
  has such kernels (GPUs, ARMv8.2), and in float32 on x86.
"""

from __future__ import annotations

import json
import platform
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export import SUFFIXES
from export.target import (
    METADATA_KEY,
    Half,
    Node,
    Runner,
    audit_report,
    check_request,
    example_input,
    existing,
    parse_metadata,
    quiet,
    stamp,
)
from zoo.errors import ZooError
from zoo.files import replacing

TARGET = "onnx"
SUFFIX = SUFFIXES[TARGET]
OPSET = 20  # darktable's own packages use it; QDQ per channel needs 13

_CONVS = ("Conv", "ConvTranspose")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast")


def write(net: Any, *, precision: str, tile: int, metadata: dict[str, str], path: Path) -> None:
    """Convert a network and save it as an ``.onnx`` with float32 input ``input`` and output ``output``, both NCHW.

    Args:
        net: an eval module for fp32 and fp16; for int8 an object with ``graph(fold)``.
        precision: ``fp32``, ``fp16`` or ``int8`` (QDQ).
        tile: height and width of the packed input, static.
        metadata: text to text; saved as JSON in the model's metadata property ``zoo_metadata``.
        path: ``*.onnx``, replaced if it exists.

    Raises:
        ZooError: a request that :func:`export.target.check_request` refuses.
    """
    path = Path(path)
    check_request(net, precision, tile, path, SUFFIX)
    stamped = json.dumps(stamp(metadata, TARGET, precision, tile))
    module = net.graph(fold=True) if precision == "int8" else Half(net) if precision == "fp16" else net
    model = convert(module, example_input(tile, metadata))
    if precision == "int8":
        from export.onnx_qdq import integers

        model = integers(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, stamped
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def convert(module: torch.nn.Module, example: torch.Tensor) -> Any:
    """An ``onnx.ModelProto`` of a module, traced with ``example``; nodes are named after the layers they come from."""
    import onnx

    with quiet():
        program = torch.onnx.export(
            module, (example,), dynamo=True, opset_version=OPSET, input_names=["input"], output_names=["output"]
        )
        assert program is not None
        model = program.model_proto
    for node in model.graph.node:
        # The exporter's notes name this machine's files, line by line.
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        if node.op_type in _CONVS and len(node.input) > 2:
            # Weights of int8 do not keep their parameter's name, and of equal biases the exporter keeps one.
            named = node.input[1] if node.input[1].endswith(".weight") else node.input[2]
            layer = named.rpartition(".")[0]
            node.name = layer.removeprefix("net.") or node.name
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    onnx.checker.check_model(model)
    return model


def read_metadata(path: Path | str) -> dict[str, str]:
    """What :func:`write` embedded.

    Raises:
        ZooError: no such file, or not one of ours.
    """
    path = existing(path, SUFFIX)
    properties = {entry.key: entry.value for entry in _model(path).metadata_props}
    return parse_metadata(properties.get(METADATA_KEY), path)


def _model(path: Path) -> Any:
    """The file as an ``onnx.ModelProto``."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(path.read_bytes())
    except DecodeError as error:
        raise ZooError(f"{path} is not a readable ONNX model") from error
    if not model.graph.node:
        raise ZooError(f"{path} is not a readable ONNX model")
    return model


def runner(path: Path | str, threads: int = 1) -> Runner:
    """The saved file in onnxruntime, on the CPU.

    Args:
        path: ``*.onnx``.
        threads: number of threads, this runner's own.

    Raises:
        ZooError: no such file, or not one of ours.
    """
    return _OnnxRunner(existing(path, SUFFIX), threads)


class _OnnxRunner(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(read_metadata(path))
        self._session = session(path, threads)

    def _feed(self, x: NDArray[np.float32]) -> None:
        import onnxruntime

        # Bound once: invoke() then copies nothing in or out.
        self._output = np.empty((1, *self.shapes[1]), np.float32)
        self._input = x
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("input", onnxruntime.OrtValue.ortvalue_from_numpy(self._input))
        bound = self._session.get_outputs()[0]
        if [1, *self.shapes[1]] == bound.shape:
            pointer = self._output.ctypes.data
            self._binding.bind_output("output", "cpu", 0, np.float32, self._output.shape, pointer)
        else:  # told apart by the caller, which names both shapes
            self._binding.bind_output("output")

    def invoke(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def _fetch(self) -> NDArray[np.float32]:
        return self._binding.copy_outputs_to_cpu()[0].copy()


def session(model: Path | bytes, threads: int, *, profile: Path | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        model: the file, or what is in it.
        threads: within an operator; operators run one after the other.
        profile: prefix of a trace to write, for :mod:`export.profile`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1" if _saturates() else "0")
    # A waiting thread that spins takes the core that another file of an interleaved benchmark, or the camera app, needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    with quiet():
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )


def layers_by_name(path: Path) -> dict[str, str]:
    """Names that onnxruntime may call a convolution by (its own, its output's, its ReLU's output's), and the layer each is."""
    graph = _model(path).graph
    relus = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _CONVS:
            output = node.output[0]
            found |= dict.fromkeys((node.name, output, relus.get(output, output)), node.name)
    return found


@cache
def _saturates() -> bool:
    """Whether this may be an x86 CPU without VNNI: yes where the system does not tell."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


def audit(path: Path | str) -> dict[str, Any]:
    """Operators of the saved file and the type that they compute in.

    A QDQ file says so in pairs: an operator between DequantizeLinear and QuantizeLinear is an integer one (ONNX 1.23,
    "Quantization"), with its ReLU. ONNX has no delegates; which provider runs what is decided where it is run.

    Returns:
        See :func:`export.target.audit_report`; ``delegated_share`` is None.

    Raises:
        ZooError: no such file.
    """
    path = existing(path, SUFFIX)
    model = _model(path)
    from onnx import TensorProto, shape_inference

    names = {
        TensorProto.FLOAT: "fp32",
        TensorProto.FLOAT16: "fp16",
        TensorProto.INT8: "int8",
        TensorProto.UINT8: "uint8",
    }
    inferred = shape_inference.infer_shapes(model).graph
    types = {i.name: i.data_type for i in inferred.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.output, *inferred.value_info)}
    producer = {o: n for n in inferred.node for o in n.output}
    users: dict[str, list[Any]] = {}
    for node in inferred.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def integer(node: Any) -> bool:
        """Whether all that comes in is dequantised and all that goes out is quantised; a ReLU behind it belongs to it."""
        given = [producer[i] for i in node.input if i in producer]
        if node.op_type == "Relu" and len(given) == 1 and given[0].op_type not in _CONVERSIONS:
            return integer(given[0])
        after = users.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "Relu":
            after = users.get(after[0].output[0], [])
        fed = bool(given) and all(g.op_type == "DequantizeLinear" for g in given)
        return fed and bool(after) and all(n.op_type == "QuantizeLinear" for n in after)

    def dtype_of(name: str) -> str:
        kind = names.get(types.get(name, 0), TensorProto.DataType.Name(types.get(name, 0)).lower())
        return "int8" if kind == "uint8" else kind

    nodes = []
    for node in inferred.node:
        dtype = dtype_of(node.output[0])
        if node.op_type in _CONVERSIONS:
            dtype = f"{dtype_of(node.input[0])}->{dtype}"
        elif dtype == "fp32" and integer(node):
            dtype = "int8"
        nodes.append(Node(node.op_type, dtype, node.op_type in _CONVS, None))
    return audit_report(TARGET, path, nodes, None)
