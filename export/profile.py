"""Per-operator time of an artefact, folded onto the layers of the network it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export import load_source, profilers, target_module, versions
from export.benchmark import check_counts, contents, digests, host, input_of, spread
from export.target import example_input, quiet
from export.verify import target_of
from quantize.integer import operator_name

SLOWEST = 5

# What a runtime calls an operator -> what the network calls it. Kinds are matched in the order in which they run.
_KINDS = (
    (re.compile(r"Deconvolution|ConvTranspose|TRANSPOSE_CONV"), "transposed convolution"),
    (re.compile(r"Conv"), "convolution"),
    (re.compile(r"Add\b|ADD\b|QLinearAdd"), "addition"),
    (re.compile(r"Concat", re.IGNORECASE), "concatenation"),
    (re.compile(r"MaxPool|Max Pooling", re.IGNORECASE), "maximum of 2x2"),
)
_NOT_KINDS = re.compile(r"Convert")  # XNNPACK's name for a conversion of types
_ATEN = {
    "conv2d": "convolution",
    "conv_transpose2d": "transposed convolution",
    "add": "addition",
    "cat": "concatenation",
    "max_pool2d": "maximum of 2x2",
}


@dataclass(frozen=True)
class Layer:
    """One operator of the network itself.

    Attributes:
        name: path of the module it belongs to; of a sum or a concatenation outside any, of the layer before it.
        kind: as :data:`_ATEN` has it.
        shape: of its output, ``[C, H, W]``.
        macs: multiply-accumulates, 0 for all but convolutions.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int


def profile(path: Path, *, threads: int = 1, warmup_runs: int = 5, num_runs: int = 50) -> dict[str, Any]:
    """Time every operator of an artefact.

    Shares are of the shortest times over the runs, operator by operator: what is least touched by other processes. On a busy core
    the median of a long operator is mostly theirs.

    Args:
        path: an artefact of ``zoo export`` for executorch, litert or onnx.
        threads: CPU threads of the runtime.
        warmup_runs: runs before the clock starts.
        num_runs: runs that are kept.

    Returns:
        ``operators``: one row each, in the order in which they run: ``operator`` (the runtime's name), ``layer``, ``shape`` of
        its output (``[C, H, W]``), ``us`` (median, p10, p90, min), ``share`` of the sum of minima and, of convolutions,
        ``gmac_per_second``; ``slowest``: the first five rows by share; ``sum_ms`` of minima, ``wall_ms`` (from outside, with
        the profiler on), and what it was measured on and with.

    Raises:
        ZooError: no artefact of this zoo, Core ML, or this system lacks what the runtime's profiler needs.
    """
    check_counts(threads, warmup_runs, num_runs)
    target = target_of(path)
    method = profilers.method_of(target, path)
    module = target_module(target)
    metadata = module.read_metadata(path)
    machine = host()
    runner = module.runner(path, threads=threads)
    trace = profilers.trace(target, path, input_of(runner), threads, warmup_runs, num_runs)
    shortest = [min(t.microseconds) for t in trace.operators]
    total = sum(shortest) or 1.0
    rows = []
    for timed, least, (name, shape, macs) in zip(trace.operators, shortest, _located(trace, metadata), strict=True):
        row: dict[str, Any] = {
            "operator": timed.operator,
            "layer": name,
            "shape": list(shape),
            "us": spread(timed.microseconds),
            "share": round(least / total, 4),
        }
        if macs and least:
            row["gmac_per_second"] = round(macs / least / 1e3, 1)
        rows.append(row)
    return {
        "artifact": path.name,
        **digests(path, metadata),
        **contents(metadata),
        "threads": threads,
        "warmup_runs": warmup_runs,
        "num_runs": num_runs,
        "method": method,
        "machine": machine,
        "versions": versions(target),
        "sum_ms": round(total / 1e3, 4),
        "wall_ms": {k: round(v / 1e3, 4) for k, v in spread(trace.wall_us).items()},
        "slowest": sorted(rows, key=lambda r: -r["share"])[:SLOWEST],
        "operators": rows,
    }


def layers(metadata: dict[str, str]) -> tuple[list[Layer], tuple[int, ...]]:
    """Operators of the float network that an artefact was made from, in the order in which they run, and the input's shape.

    Raises:
        ZooError: its weights are not there.
    """
    source, _ = load_source(metadata["model"], "fp32", metadata.get("half", ""))
    example = example_input(int(metadata["tile"]), metadata)
    with quiet():
        graph = torch.export.export(source, (example,)).graph
    found: list[Layer] = []
    last = ""
    for node in graph.nodes:
        kind = _ATEN.get(operator_name(node)) if node.op == "call_function" else None
        if kind is None:
            continue
        if "convolution" in kind:
            stack = list(node.meta["nn_module_stack"].values())
            last = stack[-1][0].removeprefix("L['self'].").rpartition("self.")[2] or last
        shape = tuple(int(s) for s in node.meta["val"].shape[1:])
        found.append(Layer(last, kind, shape, _macs(node)))
    return found, tuple(example.shape[1:])


def _macs(node: torch.fx.Node) -> int:
    """Multiply-accumulates of a convolution: outputs times taps, or inputs times taps of a transposed one."""
    if not str(node.target).startswith("aten.conv"):
        return 0
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, torch.fx.Node) and isinstance(weight, torch.fx.Node)
    positions = source if "transpose" in str(node.target) else node
    return int(positions.meta["val"].numel()) * int(weight.meta["val"][0].numel())


def _located(trace: profilers.Trace, metadata: dict[str, str]) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Layer, output shape and multiply-accumulates of each operator of a trace.

    By name where the file keeps the layers' names; else the n-th convolution that ran is the n-th of the network, provided that
    there are as many. What is not in the network (conversions, layouts, a ReLU that was not fused) goes with the layer before it.
    """
    known, entry = layers(metadata)
    named = {layer.name: layer for layer in known if "convolution" in layer.kind}
    queues = {kind: [layer for layer in known if layer.kind == kind] for kind in set(_ATEN.values())}
    ran = [_kind(t.operator) for t in trace.operators]
    whole = {kind for kind, queue in queues.items() if ran.count(kind) == len(queue)}
    name, shape = "input", entry
    for index, (timed, kind) in enumerate(zip(trace.operators, ran, strict=True)):
        layer = named.get(timed.node)
        if layer is None and kind in whole:
            layer = queues[kind].pop(0)
        elif kind is not None and "convolution" in kind and layer is None:
            yield "unknown", (), 0
            continue
        if layer is not None:
            name, shape = layer.name, layer.shape
            yield name, shape, layer.macs
        else:
            done = not any(k is not None for k in ran[index:])
            yield ("output" if done else name), shape, 0


def _kind(operator: str) -> str | None:
    if _NOT_KINDS.search(operator):
        return None
    return next((kind for pattern, kind in _KINDS if pattern.search(operator)), None)
