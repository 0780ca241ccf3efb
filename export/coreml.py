"""Core ML: ``.mlpackage`` (ML program, iOS 17 and macOS 14 on) for Apple's CPU, GPU and Neural Engine.

Facts measured with coremltools 9.0 that shape this file:

* int8 is W8A8 from the graph with *folded* weights (unfolded ones do not convert): ``constexpr_affine_dequantize`` for
  the weights, ``quantize``/``dequantize`` around every operator, which the device fuses. Needs
  ``run_decompositions({})`` and iOS 17.
* What is between the quantised values is computed in fp16 by default, for the Neural Engine: scales and biases are then
  stored in fp16, good for 53 to 56 dB against the integer reference. With ``compute_precision="fp32"`` the file says
  what the graph says, up to rare flips of one level; parity checks use that.
* On Linux a saved package cannot be predicted with. :func:`runner` then interprets it (:mod:`export.mil`): that checks
  what the file means, not what a Neural Engine makes of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export import SUFFIXES, mil
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
    staged,
    stamp,
)
from zoo.errors import ZooError

TARGET = "coreml"
SUFFIX = SUFFIXES[TARGET]
_DEBUG = "executorch_debug_handle_mapping.json"

_CONVS = ("conv", "conv_transpose")
# Operators that may compute on int8 if everything around them is quantised, and those that fuse into the one before.
_INTEGER_OPS = (*_CONVS, "add", "concat", "max_pool")
_FUSED_OPS = ("relu", "relu6", "clip")
_CONVERSIONS = ("quantize", "dequantize", "cast")


def write(
    net: Any, *, precision: str, tile: int, metadata: dict[str, str], path: Path, compute_precision: str | None = None
) -> None:
    """Convert a network and save it as an ``.mlpackage`` with float32 input ``input`` and output ``output``.

    Args:
        net: an eval module for fp32 and fp16; for int8 an object with ``graph(fold)``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        tile: height and width of the packed input, static.
        metadata: text to text; saved as JSON under ``zoo_metadata`` in the user-defined metadata.
        path: ``*.mlpackage``, replaced if it exists.
        compute_precision: of the operators between int8 values, ``fp16`` (the default) or ``fp32``; int8 only.

    Raises:
        ZooError: a request that :func:`export.target.check_request` refuses, or a compute precision that does not fit.
    """
    path = Path(path)
    check_request(net, precision, tile, path, SUFFIX)
    default, allowed = ("fp16", ("fp16", "fp32")) if precision == "int8" else (precision, (precision,))
    compute = compute_precision or default
    if compute not in allowed:
        raise ZooError(f"{precision} computes in {' or '.join(allowed)}, not in {compute}")
    stamped = stamp({**metadata, "compute_precision": compute}, TARGET, precision, tile)
    module = net.graph(fold=True) if precision == "int8" else net
    example = example_input(tile, metadata)
    with quiet():
        ct = mil.import_coremltools()
        model = ct.convert(
            # An empty table: coremltools wants ATen without training operators, but with its composites kept whole.
            torch.export.export(module, (example,)).run_decompositions({}),
            convert_to="mlprogram",
            inputs=[ct.TensorType(name="input", shape=tuple(example.shape), dtype=np.float32)],
            outputs=[ct.TensorType(name="output", dtype=np.float32)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16 if compute == "fp16" else ct.precision.FLOAT32,
            skip_model_load=True,
        )
        model.user_defined_metadata[METADATA_KEY] = json.dumps(stamped)
        with staged(path) as temporary:
            model.save(str(temporary))
            # 43 kB of utnet-m's 199 that no runtime reads, nor does the package's manifest name them.
            (temporary / _DEBUG).unlink(missing_ok=True)


def read_metadata(path: Path | str) -> dict[str, str]:
    """What :func:`write` embedded.

    Raises:
        ZooError: no such package, or not one of ours.
    """
    path = existing(path, SUFFIX)
    with quiet():
        coremltools = mil.import_coremltools()
        try:
            spec = coremltools.utils.load_spec(str(path))
        except Exception as error:  # coremltools raises bare Exceptions and protobuf's own here
            raise ZooError(f"{path} is not a readable Core ML package: {error}") from error
    return parse_metadata(spec.description.metadata.userDefined.get(METADATA_KEY), path)


def runner(path: Path | str, threads: int = 1) -> Runner:
    """The saved package: in Core ML on macOS, elsewhere in the MIL interpreter.

    Args:
        path: ``*.mlpackage``.
        threads: for the sake of the common interface; Core ML decides itself, the interpreter uses torch's.

    Raises:
        ZooError: no such package, not one of ours, or an operator that the interpreter does not know.
    """
    path = existing(path, SUFFIX)
    return _PredictRunner(path) if sys.platform == "darwin" else _InterpretedRunner(path)


class _InterpretedRunner(Runner):
    """A semantic check of the file; its time says nothing about a phone."""

    def __init__(self, path: Path) -> None:
        super().__init__(read_metadata(path))
        self._program = mil.Interpreter(mil.load(path))

    def _feed(self, x: NDArray[np.float32]) -> None:
        self._input = torch.from_numpy(x)

    def invoke(self) -> None:
        with torch.no_grad():
            self._result = self._program(self._input)

    def _fetch(self) -> NDArray[np.float32]:
        return self._result.numpy()


class _PredictRunner(Runner):
    """Core ML itself, on whatever unit it chooses."""

    def __init__(self, path: Path) -> None:
        super().__init__(read_metadata(path))
        with quiet():
            self._model = mil.import_coremltools().models.MLModel(str(path))

    def _feed(self, x: NDArray[np.float32]) -> None:
        self._input = {"input": x}

    def invoke(self) -> None:
        self._result = self._model.predict(self._input)["output"]

    def _fetch(self) -> NDArray[np.float32]:
        return self._result


def audit(path: Path | str) -> dict[str, Any]:
    """Operators and types of the saved program.

    An operator counts as int8 if it has an integer form and stands between quantised values: all it reads is
    dequantised right before, all it gives is quantised right after (a ReLU in between fuses). Which unit runs it, Core
    ML decides on the device: ``delegates`` and ``delegated_share`` are None.

    Returns:
        See :func:`export.target.audit_report`; weights and constants are no operators.

    Raises:
        ZooError: no such package, or not a readable program.
    """
    path = existing(path, SUFFIX)
    nodes = []
    for op in mil.load(path).functions["main"].operations:
        if op.op_type.startswith("const"):  # const and constexpr_*
            continue
        dtype = mil.type_name(op.outputs[0])
        if op.op_type in _CONVERSIONS:
            dtype = f"{mil.type_name(_activations(op)[0])}->{dtype}"
        elif _reads_quantised(op) and _gives_quantised(op):
            dtype = "int8"
        nodes.append(Node(op.op_type, dtype, op.op_type in _CONVS, delegated=None))
    return audit_report(TARGET, path, nodes, delegates=None)


def _activations(op: Any) -> list[Any]:
    """The variables that an operator computes on, without weights and attributes."""
    if op.op_type == "concat":
        return list(op.inputs["values"])
    return [op.inputs[name] for name in ("x", "y", "input") if name in op.inputs]


def _reads_quantised(op: Any) -> bool:
    """Whether all that an operator reads, weights included, was int8 just before."""
    producers = [var.op for var in _activations(op)]
    if None in producers:  # the program's own input
        return False
    if op.op_type in _FUSED_OPS:
        return producers[0].op_type in _INTEGER_OPS and _reads_quantised(producers[0])
    if op.op_type in _CONVS and not op.inputs["weight"].op.op_type.startswith("constexpr_"):
        return False
    return op.op_type in _INTEGER_OPS and all(p.op_type == "dequantize" for p in producers)


def _gives_quantised(op: Any) -> bool:
    """Whether an operator's result is quantised at once by all that read it."""
    readers = op.outputs[0].child_ops
    return bool(readers) and all(
        r.op_type == "quantize" or (r.op_type in _FUSED_OPS and _gives_quantised(r)) for r in readers
    )
