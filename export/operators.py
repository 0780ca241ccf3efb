"""The micro-operator matrix: what each operator becomes on each target, by the project's own export code.

``python -m export.operators --record evidence/operators`` measures and writes one JSON record per target and precision, and
``docs/operators.md`` from them. It goes on where it stopped: cells of the same networks and versions are kept. ``--render``
writes the page only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export import TARGETS, mil_more, target_module, versions
from export.operator_nets import OPERATORS, network_sha256
from quantize.integer import operator_name
from zoo.errors import ZooError
from zoo.models.contracts import DEFAULT_CONTRACT, get_contract

KIND, SCHEMA = "operators", 1
EVIDENCE, PAGE = Path("evidence/operators"), Path("docs/operators.md")
PRECISIONS = ("int8", "fp16")
TILE = 64
# What quantize.integer computes.
_INTEGER = {"conv2d", "conv_transpose2d", "add", "cat", "relu"}
_COMMAND = "python -m export.operators --record"

Cell = dict[str, Any]


class Source:
    """One operator's network with what the targets are measured against.

    Attributes:
        network: float, eval.
        inputs: float32 ``[1, 12, TILE, TILE]``, the synthetic scene at four noise levels.
        expected: the network's outputs for them, float32.
        quantized: the network after post-training quantisation; None where that fails.
        failure: why it does.
        reference: ``integer``, or ``pt2e`` where the integer reference does not know the operator.
        quantized_expected: outputs of that reference.
    """

    def __init__(self, name: str) -> None:
        from export.verify import tiles_of

        self.network = OPERATORS[name].network()
        self.inputs = [x for _, x in tiles_of(TILE, get_contract(DEFAULT_CONTRACT))]
        self.expected = _run(self.network, self.inputs)
        self.quantized: Any = None
        self.failure = self.reference = ""
        self.quantized_expected: list[np.ndarray] = []
        try:
            self._quantize(name)
        except Exception as error:  # whatever torchao raises is what the matrix is to tell
            self.quantized, self.failure = None, f"quantisation: {one_line(error)}"

    def _quantize(self, name: str) -> None:
        from quantize import QuantizedModel
        from quantize.calibrate import calibrate
        from quantize.recipe import prepare

        prepared = prepare(self.network)
        calibrate(prepared, [torch.from_numpy(x) for x in self.inputs])
        self.quantized = QuantizedModel(name, "ptq", prepared)
        graph = self.quantized.graph(fold=True)
        self.quantized_expected, self.reference = _run(graph, self.inputs), "pt2e"
        if not _kinds(graph) <= _INTEGER:
            return
        # It raises all kinds on what else it does not know: groups, a tensor that stays float.
        with contextlib.suppress(Exception):
            integer = self.quantized.integer()
            self.quantized_expected, self.reference = [integer(x) for x in self.inputs], "integer"


def _kinds(graph: torch.fx.GraphModule) -> set[str]:
    """What a converted graph computes, beside conversions."""
    names = {operator_name(n) for n in graph.graph.nodes if n.op == "call_function"}
    return {n for n in names if "quantize" not in n and n != "quantized_decomposed"}


def measure(source: Source, target: str, precision: str) -> Cell:
    """Export one network, look into the file and run it.

    Args:
        source: of an operator.
        target: one of :data:`export.TARGETS`.
        precision: ``int8`` or ``fp16``.

    Returns:
        ``result``: ``fails`` (no file, or one that does not load), ``splits`` (an operator outside the delegate), ``float``
        (int8 was asked for, something computes in float; for fp16: in fp32), ``whole`` (all in the precision asked for);
        ``converted`` and ``ran``; ``failure``, one line; from the audit ``delegates``, ``not_delegated``, ``float_ops``,
        ``conv_int8``, ``conv_total``; ``snr_float_db`` against the float network, ``snr_reference_db`` against
        ``reference``, which is None where equal, and ``differing``, the share of outputs that are not equal to it.
    """
    mil_more.register()
    module = target_module(target)
    cell: Cell = {"result": "fails", "converted": False, "ran": False, "failure": None}
    if precision == "int8" and source.quantized is None:
        return cell | {"failure": source.failure}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"operator.{module.SUFFIX}"
        net = source.quantized if precision == "int8" else source.network
        try:
            module.write(net, precision=precision, tile=TILE, metadata={}, path=path)
            cell["converted"] = True
            audit = module.audit(path)
        except Exception as error:  # converters raise all kinds; the line goes into the record
            step = "load" if cell["converted"] else "conversion"
            return cell | {"failure": f"{step}: {one_line(error)}"}
        keys = ("delegates", "not_delegated", "float_ops", "conv_int8", "conv_total")
        cell |= {key: audit[key] for key in keys} | {"result": _result(audit, precision)}
        try:
            runner = module.runner(path)
            outputs = [runner(x) for x in source.inputs]
        except Exception as error:
            # An operator that our interpreter of Core ML's programs lacks is no fault of the file.
            unknown = isinstance(error, ZooError) and "interpreter does not know" in str(error)
            return cell | {"failure": f"load: {one_line(error)}"} | ({} if unknown else {"result": "fails"})
    cell |= {"ran": True, "snr_float_db": snr(outputs, source.expected)}
    if precision == "int8":
        pairs = list(zip(outputs, source.quantized_expected, strict=True))
        cell["reference"] = source.reference
        cell["snr_reference_db"] = snr(outputs, source.quantized_expected)
        cell["differing"] = float(np.mean([(a != b).mean() for a, b in pairs]))
    return cell


def _result(audit: dict[str, Any], precision: str) -> str:
    # More than one delegate: what stands between them may be nothing but casts.
    if [op for op in audit["not_delegated"] if "->" not in op] or (audit["delegates"] or 0) > 1:
        return "splits"
    return "float" if strangers(audit, precision) else "whole"


def strangers(audit: dict[str, Any], precision: str) -> list[str]:
    """Operators of a file that compute in another floating-point type than was asked for.

    Args:
        audit: or a cell of the matrix, which has the same keys, and ``target``.
        precision: ``int8``, ``fp16`` or ``fp32``.
    """
    # fp16 on LiteRT is stored that way and declared, see export.litert: its operators are fp32 in the file.
    if precision == "int8" or audit["target"] == "litert":
        return list(audit["float_ops"]) if precision == "int8" else []
    return [op for op in audit["float_ops"] if precision not in op]


@torch.no_grad()
def _run(net: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return [net(torch.from_numpy(x)).numpy() for x in inputs]


def snr(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float | None:
    """Signal-to-noise ratio over all tiles in dB, the mean of each output channel taken out of the signal; None: equal."""
    noise = sum(float(((a - b).astype(np.float64) ** 2).sum()) for a, b in zip(got, want, strict=True))
    together = np.concatenate([w.astype(np.float64) for w in want])
    signal = float(((together - together.mean((0, 2, 3), keepdims=True)) ** 2).sum())
    if noise == 0:
        return None
    return round(10 * float(np.log10(signal / noise)), 2) if np.isfinite(noise) and signal else float("-99")


def one_line(error: BaseException) -> str:
    """Type and first telling line of an exception, at most 160 characters, without paths of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if "error" in line.lower() or "fail" in line.lower()), lines[0] if lines else ""
    )
    words = [Path(w).name if w.startswith("/") else w for w in told.split()]
    return f"{type(error).__name__}: {' '.join(words)}"[:160]


def read_records(folder: Path = EVIDENCE) -> dict[tuple[str, str], dict[str, Any]]:
    """The records of a folder by (target, precision).

    Raises:
        ZooError: a damaged one, or there are none.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            if record["kind"] != KIND or record["schema"] != SCHEMA:
                raise ValueError("another kind or schema")
            found[record["target"], record["precision"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise ZooError(
                f"{path}: is no record of operators ({error}); delete it, `{_COMMAND}` makes it anew"
            ) from error
    if not found:
        raise ZooError(f"{folder}: no records of operators; `{_COMMAND} {folder}` makes them")
    return found


def record(folder: Path, targets: Sequence[str], names: Sequence[str], *, fresh: bool = False) -> None:
    """Measure what is missing and write it after every operator.

    Args:
        folder: of the records.
        targets: some of :data:`export.TARGETS`.
        names: some of :data:`export.operator_nets.OPERATORS`.
        fresh: measure all of these again.

    Raises:
        ZooError: a target whose libraries are missing, or a folder that cannot be written to.
    """
    from rich.console import Console
    from rich.progress import Progress

    from zoo.evaluation.records import machine
    from zoo.record import write_record

    torch.set_num_threads(1)
    records = {(t, p): _start(folder, t, p, fresh) for t in targets for p in PRECISIONS}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("operators", total=len(names))
        for name in names:
            progress.update(task, description=f"{name:22s}")
            digest = network_sha256(OPERATORS[name].network(), TILE)
            missing = [k for k, rec in records.items() if rec["cells"].get(name, {}).get("network_sha256") != digest]
            begun = time.process_time()
            source = Source(name) if missing else None
            prepared = (time.process_time() - begun) / max(1, len(missing))
            for target, precision in missing:
                assert source is not None
                begun = time.process_time()
                # What a converter says before it fails; the cell has its last word.
                with contextlib.redirect_stderr(io.StringIO()):
                    cell = measure(source, target, precision)
                rec = records[target, precision]
                cell["network_sha256"] = digest
                cell["cpu_seconds"] = round(time.process_time() - begun + prepared, 2)
                # In the order of the catalogue, whatever was measured first.
                cells = {**rec["cells"], name: cell}
                rec["cells"] = {n: cells[n] for n in OPERATORS if n in cells}
                rec["cpu_seconds"] = round(sum(c["cpu_seconds"] for c in rec["cells"].values()), 1)
                rec["machine"] = machine(1)
                about = {"command": f"{_COMMAND} {folder}"}
                write_record(folder / f"{target}-{precision}.json", KIND, {**rec, **about})
            progress.advance(task)


def _start(folder: Path, target: str, precision: str, fresh: bool) -> dict[str, Any]:
    """The record to add to: what is there if it is of the same networks and versions, else an empty one."""
    new = {
        "schema": SCHEMA,
        "target": target,
        "precision": precision,
        "tile": TILE,
        "versions": versions(target, "torchao"),  # what a cell depends on beside its network
        "cells": {},
    }
    path = folder / f"{target}-{precision}.json"
    if fresh or not path.exists():
        return new
    old = read_records(folder).get((target, precision), {})
    if all(old.get(key) == new[key] for key in ("versions", "tile")):
        new["cells"] = old["cells"]
    return new


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after a mistake that one line on stderr explains."""
    import sys

    from export.operators_page import render

    parser = argparse.ArgumentParser(prog="python -m export.operators", description=__doc__)
    parser.add_argument("--record", type=Path, metavar="DIR", help=f"measure, and write records here ({EVIDENCE})")
    parser.add_argument("--render", action="store_true", help=f"write {PAGE} from the records only")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    parser.add_argument("--operator", action="append", choices=sorted(OPERATORS), metavar="NAME", help="default: all")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    args = parser.parse_args(argv)
    if not args.record and not args.render:
        parser.error("give --record DIR or --render")
    try:
        if args.record:
            targets = args.target or TARGETS
            for target in targets:
                target_module(target)
            record(args.record, targets, args.operator or list(OPERATORS), fresh=args.fresh)
        text = render(read_records(args.record or EVIDENCE))
        if args.render or args.record == EVIDENCE:
            PAGE.write_text(text)
    except ZooError as error:
        print("error:", error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
