"""Instructions that an ARM core executes per inference, by class: a proxy of latency without noise, and a gate against growth.

``python -m tools.arm.count utnet-m --target litert --cpu cortex-a76 --record evidence/instructions`` exports the model at a small
tile, runs it under qemu-user with the plugin of ``count_plugin.c`` and prints millions of instructions per sensor megapixel.
Without names, targets or CPUs it takes all that the evidence covers. ``--check DIR`` compares with the records there instead.

Counts of an inference are the difference of the counter before and after it, on the one thread that works; the first runs
still allocate, so that the last one is taken, and it has to equal the one before to the instruction.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export import PRECISIONS, digest_of, target_module
from export.benchmark import input_of, megapixels_of
from tools.arm.emulate import run, write_artifact
from tools.arm.provision import CPUS, EXECUTORCH_SDK, QEMU, TARGETS, Arm, provision
from zoo.errors import ZooError
from zoo.models.analysis import count_macs
from zoo.models.contracts import contract_of
from zoo.models.registry import create_model, get_spec
from zoo.record import write_record

KIND, SCHEMA = "instructions", 1
CLASSES = ("dot", "fmla", "simd", "simd_memory", "scalar")  # in the order of the plugin
MODELS = ("utnet-n", "utnet-s", "utnet-m")
CPU_DEFAULTS = ("cortex-a53", "cortex-a76")
TILE = 64  # packed pixels
MAX_GROWTH = 0.02  # of the total, against the record; counts repeat exactly, so this is room for work, not for noise
_RUNS = 4


def count(arm: Arm, artifact: Path, cpu: str) -> dict[str, Any]:
    """Count one inference of an artefact.

    Args:
        artifact: of ``zoo export`` or :func:`tools.arm.emulate.write_artifact`, for ExecuTorch or LiteRT.
        cpu: one of :data:`tools.arm.provision.CPUS`.

    Returns:
        The record: what was run, ``instructions`` by class and ``total`` of one inference, ``millions_per_megapixel`` of the
        same (sensor pixels of the whole tile), ``gmac_per_megapixel`` and the part of it in dense convolutions,
        ``useful_dot_share``: multiply-accumulates of dense convolutions over those that the dot products executed could hold;
        None where there are none (no such instruction, or a float model). Depthwise convolutions do not use dot products.

    Raises:
        ZooError: it does not run, or its last two inferences differ.
    """
    module = target_module("executorch" if artifact.suffix == ".pte" else "litert")
    metadata = module.read_metadata(artifact)
    x = input_of(module.runner(artifact))
    counts = run(arm, artifact, x, cpu=cpu, runs=_RUNS, count=True).counts
    assert counts is not None
    if not (counts[-1] == counts[-2]).all():
        raise ZooError(f"{artifact.name} on {cpu}: counts do not repeat: {counts.sum(1).tolist()}")
    megapixels = megapixels_of(metadata)
    instructions = {name: int(n) for name, n in zip(CLASSES, counts[-1], strict=True)}
    instructions["total"] = sum(instructions.values())
    total_macs, dense_macs = macs_per_megapixel(metadata["model"])
    room = instructions["dot"] * CPUS[cpu].dot_macs
    runtime = f"executorch {EXECUTORCH_SDK}" if module.TARGET == "executorch" else _release("ai-edge-litert")
    return {
        "schema": SCHEMA,
        "artifact": artifact.name,
        "sha256": digest_of(artifact),
        "weights_sha256": metadata["weights_sha256"],
        "model": metadata["model"],
        "target": module.TARGET,
        "precision": metadata["precision"],
        "tile": int(metadata["tile"]),
        "threads": 1,
        "inputs": "synthetic scene",
        "machine": {"processor": cpu, "emulator": _emulator()},
        "versions": {"runtime": runtime} | json.loads(metadata["versions"]),
        "inferences": counts.sum(1).tolist(),
        "instructions": instructions,
        "megapixels": megapixels,
        "millions_per_megapixel": {name: round(n / megapixels / 1e6, 3) for name, n in instructions.items()},
        "gmac_per_megapixel": round(total_macs / 1e9, 4),
        "dense_gmac_per_megapixel": round(dense_macs / 1e9, 4),
        "useful_dot_share": round(dense_macs * megapixels / room, 4) if room else None,
    }


@torch.no_grad()
def macs_per_megapixel(name: str) -> tuple[float, float]:
    """Multiply-accumulates per sensor megapixel of a registered denoiser: all, and those of convolutions that are not grouped."""
    model = create_model(name)
    channels = contract_of(model).in_channels
    grouped = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal grouped
        weight = module.weight
        assert isinstance(weight, Tensor)
        grouped += output.numel() * weight[0].numel()

    side = max(64, get_spec(name).tile_multiple)
    probe = copy.deepcopy(model).to("meta")
    for module in probe.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.register_forward_hook(add)
    probe(torch.zeros(1, channels, side, side, device="meta"))
    # A packed pixel is four sensor pixels.
    total = count_macs(model, channels, side) * 0.25e6
    return total, total - grouped / side**2 * 0.25e6


def record_path(folder: Path, record: dict[str, Any]) -> Path:
    """``NAME-TARGET-PRECISION-CPU.json``."""
    parts = record["model"], record["target"], record["precision"], record["machine"]["processor"]
    return folder / f"{'-'.join(parts)}.json"


def growth(record: dict[str, Any], fresh: dict[str, Any]) -> float:
    """By how much ``fresh`` executes more instructions per megapixel than a record: 0.02 is 2 % more.

    Raises:
        ZooError: they are of different models, targets, precisions, CPUs or tiles, which do not compare.
    """
    for key in ("model", "target", "precision", "tile"):
        if record[key] != fresh[key]:
            raise ZooError(f"a record of {key} {record[key]} does not compare with {key} {fresh[key]}")
    if record["machine"]["processor"] != fresh["machine"]["processor"]:
        raise ZooError(f"a record of {record['machine']['processor']} is not of {fresh['machine']['processor']}")
    return fresh["millions_per_megapixel"]["total"] / record["millions_per_megapixel"]["total"] - 1


def check_growth(record: dict[str, Any], fresh: dict[str, Any]) -> None:
    """The gate.

    Raises:
        ZooError: more than :data:`MAX_GROWTH` above the record.
    """
    more = growth(record, fresh)
    if more > MAX_GROWTH:
        was, now = (r["millions_per_megapixel"]["total"] for r in (record, fresh))
        raise ZooError(
            f"{fresh['model']} on {fresh['target']}, {fresh['machine']['processor']}: {now:.1f} million instructions per "
            f"megapixel, {more:.1%} more than the record's {was:.1f} (gate: {MAX_GROWTH:.0%}); if that is meant, make the "
            f"record again with python -m tools.arm.count {fresh['model']} --record evidence/instructions"
        )


def load_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder.

    Raises:
        ZooError: there is none, or one is no record of this schema.
    """
    records = []
    for file in sorted(folder.glob("*.json")):
        try:
            record = json.loads(file.read_text())
        except ValueError:
            record = None
        if not isinstance(record, dict) or (record.get("kind"), record.get("schema")) != (KIND, SCHEMA):
            raise ZooError(f"{file}: is no record of instructions of schema {SCHEMA}; make it again with --record")
        records.append(record)
    if not records:
        raise ZooError(f"{folder}: holds no records; python -m tools.arm.count --record {folder} makes them")
    return records


def _release(package: str) -> str:
    return f"{package} {version(package)}"


def _emulator() -> str:
    words = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f"{words[0]} {words[2]}"  # "qemu-aarch64 version 7.2.22 (Debian ...)"


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m tools.arm.count``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m tools.arm.count", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models (default: {' '.join(MODELS)})")
    parser.add_argument("--target", action="append", choices=TARGETS, help="repeatable (default: both)")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8")
    parser.add_argument(
        "--cpu", action="append", choices=tuple(CPUS), help="repeatable (default: cortex-a53, cortex-a76)"
    )
    parser.add_argument("--tile", type=int, default=TILE, help=f"packed pixels (default: {TILE})")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write one record per model, target and CPU")
    parser.add_argument("--check", type=Path, metavar="DIR", help="fail where a model grew against its record")
    args = parser.parse_args(words)
    try:
        arm = provision()
        committed = {record_path(Path(), r): r for r in load_records(args.check)} if args.check else {}
        print(
            f"{'model':10} {'target':11} {'cpu':11} "
            + " ".join(f"{c:>11}" for c in (*CLASSES, "total"))
            + "  useful dots"
        )
        with tempfile.TemporaryDirectory() as folder:
            for name in args.names or MODELS:
                for target in args.target or TARGETS:
                    artifact = write_artifact(name, target, args.precision, args.tile, Path(folder))
                    for cpu in args.cpu or CPU_DEFAULTS:
                        fresh = count(arm, artifact, cpu)
                        _show(fresh)
                        if args.record:
                            # Of the words that were given, which are not always the command line's.
                            told = {"command": f"python -m tools.arm.count {shlex.join(words)}"}
                            write_record(record_path(args.record, fresh), KIND, told | fresh)
                        if args.check:
                            if record_path(Path(), fresh) not in committed:
                                raise ZooError(f"{args.check}: has no record of {name} on {target}, {cpu}")
                            check_growth(committed[record_path(Path(), fresh)], fresh)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _show(record: dict[str, Any]) -> None:
    share = record["useful_dot_share"]
    millions = " ".join(f"{n:11.2f}" for n in record["millions_per_megapixel"].values())
    cells = f"{record['model']:10} {record['target']:11} {record['machine']['processor']:11} {millions}"
    print(f"{cells}  {'-' if share is None else f'{share:.1%}'}", flush=True)


if __name__ == "__main__":
    main()
