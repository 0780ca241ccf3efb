"""ExecuTorch: ``.pte`` for Android and iOS, lowered to XNNPACK.

Facts measured with executorch 1.4.1 that shape this file:

* XNNPACK takes the whole int8 graph as one delegate: the float32 edges are its own ``Convert`` nodes.
* "100 % delegated" does not mean int8 (LeakyReLU, PixelShuffle and others run in float inside the delegate), so
  :func:`audit` reads the XNNPACK graph out of the saved file and looks at the type of every value.
* ``fp16`` computes in half precision inside the delegate, but XNNPACK's static weights are serialised as float32: the
  file is as large as the fp32 one. The two casts at the edges are portable kernels outside the delegate.
"""

from __future__ import annotations

import json
import re
import tempfile
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
    readable,
    stamp,
)
from zoo.files import replacing

TARGET = "executorch"
SUFFIX = SUFFIXES[TARGET]
_KIND = "ExecuTorch program"

# XNNPACK's names of the types, in ours. Weights are quantised per channel ("qc"), activations per tensor.
_DTYPES = {"fp32": "fp32", "fp16": "fp16", "qint8": "int8", "qcint8": "int8", "qint32": "int32", "qcint32": "int32"}
_CONVS = ("Conv2d", "DepthwiseConv2d", "ConvTranspose2d")


def write(net: Any, *, precision: str, tile: int, metadata: dict[str, str], path: Path) -> None:
    """Lower a network to XNNPACK and save it as a ``.pte`` with float32 input and output.

    Args:
        net: an eval module for fp32 and fp16; for int8 an object with ``graph(fold)``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        tile: height and width of the packed input, static.
        metadata: text to text; saved as JSON in the constant method ``zoo_metadata``.
        path: ``*.pte``, replaced if it exists.

    Raises:
        ZooError: a request that :func:`export.target.check_request` refuses.
    """
    path = Path(path)
    check_request(net, precision, tile, path, SUFFIX)
    constants = {METADATA_KEY: json.dumps(stamp(metadata, TARGET, precision, tile))}
    module = net.graph(fold=True) if precision == "int8" else Half(net) if precision == "fp16" else net
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

        program = to_edge_transform_and_lower(
            torch.export.export(module, (example_input(tile, metadata),)),
            partitioner=[XnnpackPartitioner()],
            # The verifier does not know the quantized_decomposed operators that the partitioner is about to take.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods=constants,
        ).to_executorch(
            # The input stays in the caller's memory. Planned, it would be copied first, and its place reused: running
            # the fp16 program again on the same input then read the output's bytes (off by 1.9 on a toy).
            ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False))
        )
    with replacing(path) as temporary:
        temporary.write_bytes(program.buffer)


def read_metadata(path: Path | str) -> dict[str, str]:
    """What :func:`write` embedded.

    Raises:
        ZooError: no such file, or not one of ours.
    """
    path = existing(path, SUFFIX)
    program = _load(path)
    with quiet(), readable(path, _KIND):
        known = METADATA_KEY in program.method_names
        text = program.load_method(METADATA_KEY).execute(())[0] if known else None
    return parse_metadata(text, path)


def runner(path: Path | str, threads: int = 1) -> Runner:
    """The saved file, loaded in this process.

    Args:
        path: ``*.pte``.
        threads: size of XNNPACK's thread pool. The pool belongs to the process: the last runner made decides for all.

    Raises:
        ZooError: no such file, damaged, or not one of ours.
    """
    return _ExecuTorchRunner(existing(path, SUFFIX), threads)


class _ExecuTorchRunner(Runner):
    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(read_metadata(path))
        with quiet():
            from executorch.extension.pybindings import portable_lib

            portable_lib._unsafe_reset_threadpool(threads)  # a method keeps the pool that it was loaded with
            # The method points into its program: without this reference it runs on freed memory.
            self._program = _load(path)
            with readable(path, _KIND):
                self._method = self._program.load_method("forward")._method

    def _feed(self, x: NDArray[np.float32]) -> None:
        # The method reads this memory at every run, so it has to live on.
        self._input = torch.from_numpy(x)
        self._method.set_inputs([self._input])

    def invoke(self) -> None:
        self._method.execute()

    def _fetch(self) -> NDArray[np.float32]:
        return self._method.get_outputs(clone_outputs=True)[0].numpy()


def _load(path: Path) -> Any:
    """The program in a file, with its memory. From bytes: a file that is replaced later leaves the program alone."""
    data = _read(path)
    with quiet():
        from executorch.runtime import Runtime, Verification

        runtime = Runtime.get()
        with readable(path, _KIND):
            return runtime.load_program(data, verification=Verification.Minimal)


def _read(path: Path) -> bytes:
    """The bytes of a file that starts like a program."""
    with readable(path, _KIND):
        data = path.read_bytes()
        if data[4:6] != b"ET":  # the flatbuffer's identifier, ET12 today
            raise ValueError("another format")
    return data


def audit(path: Path | str) -> dict[str, Any]:
    """Operators and types of the saved program, inside the delegates and outside.

    Returns:
        See :func:`export.target.audit_report`; operator names are XNNPACK's, or the kernel's where it is not delegated.

    Raises:
        ZooError: no such file, or damaged.
    """
    path = existing(path, SUFFIX)
    data = _read(path)
    with quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary

        with readable(path, _KIND):
            program = deserialize_pte_binary(data).program
            plan = next(p for p in program.execution_plan if p.name == "forward")
    nodes = []
    for delegate in plan.delegates:
        nodes += _delegated_nodes(bytes(program.backend_delegate_data[delegate.processed.index].data))
    for instruction in (i.instr_args for chain in plan.chains for i in chain.instructions):
        if hasattr(instruction, "op_index"):  # a call of a portable kernel
            types = [_scalar_type(plan.values[i].val) for i in instruction.args]
            known = [t for t in types if t]
            # Kernel arguments end with the out tensor; a cast is what turns one type into another.
            dtype = known[0] if len(set(known)) == 1 else f"{known[0]}->{known[-1]}"
            nodes.append(Node(plan.operators[instruction.op_index].name, dtype, delegated=False))
    return audit_report(TARGET, path, nodes, len(plan.delegates))


def _scalar_type(value: Any) -> str | None:
    """Our name of a tensor's element type, None for anything else."""
    names = {"FLOAT": "fp32", "HALF": "fp16", "CHAR": "int8"}
    return names.get(value.scalar_type.name, value.scalar_type.name) if hasattr(value, "scalar_type") else None


def _delegated_nodes(blob: bytes) -> list[Node]:
    """Nodes of one XNNPACK delegate, decoded with the schema and the ``flatc`` that executorch brings along."""
    nodes = []
    graph = _decode(blob)
    values = {}
    for value in (v["xvalue_union"] for v in graph["xvalues"]):
        tensor = value.get("tensor_value", value)  # a quantised value wraps the plain one
        dtype = tensor["datatype"].removeprefix("xnn_datatype_")
        values[tensor["id_out"]] = _DTYPES.get(dtype, dtype)
    for node in graph["xnodes"]:
        op, union = node["xnode_union_type"].removeprefix("XNN"), node["xnode_union"]
        # Activations are called input_id, input1_id, ...; unused slots of a concatenation hold an invalid id.
        types = [values[i] for key, i in union.items() if re.fullmatch(r"input\d?_id", key) and i in values]
        output = values[union["output_id"]]
        conv = op in _CONVS
        dtype = output if set(types) == {output} else f"{types[0]}->{output}"
        if conv and values[union["filter_id"]] != output:
            dtype += f",w={values[union['filter_id']]}"
        nodes.append(Node(op, dtype, conv))
    return nodes


def _decode(blob: bytes) -> dict[str, Any]:
    """The XNNPACK graph in a delegate's data, as JSON."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _get_schema_bytes
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(_get_schema_bytes())
        (folder / "graph.bin").write_bytes(blob[header.flatbuffer_offset :][: header.flatbuffer_size])
        _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--raw-binary"])
        text = (folder / "graph.json").read_text()
    # Open clamping ranges come out as bare inf, which is no JSON.
    return json.loads(re.sub(r": [+-]?inf\b", ": null", text))
