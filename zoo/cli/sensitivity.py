"""``zoo quantize NAME --sensitivity``: what each tensor and each layer costs in int8."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 128  # packed pixels of the synthetic scene
PATCHES, PATCH = 8, 192  # validation patches per noise level, and their side in sensor pixels, as in training


def report(args: argparse.Namespace) -> None:
    """Measure, print and record.

    Raises:
        ZooError: a float reference, no weights, or a compressor with ``--data``, whose pictures its halves do not make alone.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from quantize.sensitivity import SwitchedNetwork, sensitivity
    from zoo.errors import ZooError
    from zoo.models.registry import check_int8, get_spec, halves

    check_int8(args.name)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.data and get_spec(args.name).codec:
        raise ZooError(
            f"{args.name}: --data gives pictures, which neither half of a compressor makes alone; leave it out"
        )
    if args.weights and get_spec(args.name).codec:
        raise ZooError(f"{args.name}: --weights takes one quantised model, and a compressor is two; leave it out")
    rows: list[dict[str, Any]] = []
    for half in halves(args.name):
        model, digest = _model(args.name, half, args.weights)
        network = SwitchedNetwork(model)
        sets: dict[str, tuple[dict[str, Any], Callable[[str, Any], float] | None, str]] = {
            "synthetic scene": (_scene(args.name, half), None, "")
        }
        if args.data:
            sets["validation patches"] = _validation(args.name, args.data)
        for name, (inputs, psnr, data) in sets.items():
            with Progress(console=Console(stderr=True), transient=True) as progress:
                bar = progress.add_task(f"{args.name} {half} {name}", total=None)

                def show(done: int, total: int, progress: Progress = progress, bar: Any = bar) -> None:
                    progress.update(bar, completed=done, total=total)

                result = sensitivity(network, inputs, psnr, show)
            about = {"model": args.name, "half": half, "recipe": model.recipe, "weights_sha256": digest}
            about |= {"inputs": name, "data_sha256": data, **dataclasses.asdict(result)}
            rows.append(_finite(about))
            if not args.json:
                _print(rows[-1])
    if args.record:
        for row in rows:
            _write(args.record, row)
    if args.json:
        print(json.dumps(rows))


def _model(name: str, half: str, file: Path | None) -> tuple[Any, str]:
    """A quantised model with the sha256 of its file: the shipped one, or that of ``file``."""
    from export import load_source
    from quantize import QuantizedModel
    from zoo.errors import ZooError
    from zoo.evaluation.records import sha256

    if file is None:
        return load_source(name, "int8", half)
    model = QuantizedModel.load(file)
    if model.name != name:
        raise ZooError(f"{file}: is of {model.name}, not of {name}")
    return model, sha256(file)


def _scene(name: str, half: str) -> dict[str, Any]:
    """The synthetic scene at the bed's four noise levels; a decoder is fed what the float encoder makes of it."""
    import torch

    from export.verify import tiles_of
    from zoo.models.compressor import Compressor
    from zoo.models.contracts import contract_of
    from zoo.models.registry import create_model

    inputs = {key: torch.from_numpy(x) for key, x in tiles_of(SIDE, contract_of(None, name))}
    if half != "decoder":
        return inputs
    model = create_model(name, pretrained=True)
    assert isinstance(model, Compressor)
    with torch.no_grad():
        return {key: model.coded(x, torch.tensor([0.5])) for key, x in inputs.items()}


def _validation(name: str, folder: Path) -> tuple[dict[str, Any], Callable[[str, Any], float], str]:
    """Patches of the pictures that training holds back, at its validation levels; PSNR in the display curve."""
    import torch

    from zoo.cli.train import read_pool
    from zoo.data.pool import ImagePool
    from zoo.data.synth import RawSynthesizer
    from zoo.models.contracts import contract_of
    from zoo.raw.typical import NOISE_LEVELS
    from zoo.training.config import TrainConfig
    from zoo.training.losses import display_psnr
    from zoo.training.trainer import held_back

    pool = read_pool(folder, PATCH)
    held = ImagePool(held_back(pool.images), pool.digest)
    contract, noise = contract_of(None, name), TrainConfig(model=name).noise
    batches, inputs = {}, {}
    for level, (shot, read) in NOISE_LEVELS.items():
        synthesizer = RawSynthesizer(held, PATCH, noise.at(shot, read))
        raws = batches[level] = synthesizer.batch(PATCHES, torch.Generator().manual_seed(7))
        inputs[level] = contract.encode(raws.planes, raws.shot, raws.read, raws.wb, raws.cfa)

    def psnr(level: str, y: Any) -> float:
        return float(display_psnr(contract, inputs[level], y, batches[level], margin=16).mean())

    return inputs, psnr, pool.digest


def _finite(value: Any) -> Any:
    """JSON has no infinity: None stands for no error at all; numbers to a ten-thousandth of a dB."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def _print(row: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{row['model']} {row['half']}".strip()
    print(f"{title} ({row['recipe']}), {row['inputs']}: output {_db(row['total_db'])} dB over its int8 error", end="")
    if row["picture_db"] is not None:
        lost = row["float_picture_db"] - row["picture_db"]
        print(f"; picture {row['picture_db']:.2f} dB, {lost:+.3f} dB less than with nothing quantised", end="")
    print()
    levels = list(row["total_db_of"])
    columns = ["tensor or layer", "kind", "own SQNR", "alone", "costs", *levels]
    if row["picture_db"] is not None:
        columns.append("costs the picture")
    table = Table(*columns, box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for cost in row["costs"]:
        cells = [cost["name"], cost["kind"], _db(cost["own_db"]), _db(cost["alone_db"]), f"{cost['cost_db']:+.3f}"]
        cells += [f"{cost['cost_db_of'][level]:+.2f}" for level in levels]
        if cost["picture_db"] is not None:
            cells.append(f"{cost['picture_db']:+.4f}")
        table.add_row(*cells)
    Console(width=max(150, Console().width)).print(table)


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _write(folder: Path, row: dict[str, Any]) -> None:
    from zoo.cli.methods import package_versions
    from zoo.evaluation.records import machine
    from zoo.record import write_record

    parts = (row["model"], row["half"], row["recipe"], row["inputs"].split()[0])
    import torch

    about = {"schema": 1, "versions": package_versions(), "machine": machine(torch.get_num_threads())}
    write_record(folder / f"{'-'.join(p for p in parts if p)}.json", "sensitivity", {**about, **row})
