"""``zoo train``: trains a model from a configuration, in a folder that can be resumed."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "train",
        help=help,
        description="Trains on synthetic raws made from a folder of clean pictures. A run interrupted by Ctrl-C, a time "
        "budget or a crash goes on from its checkpoint when the same command is given again. Several GPUs: "
        "torchrun --nproc-per-node N -m zoo train ...",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/ and zoo.training.config")
    parser.add_argument("--model", help="registered model (default: what the configuration says)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", help="folder of clean pictures (default: what the configuration says)")
    parser.add_argument("--time-budget", default="", help="stop cleanly after 90s, 9m, 1.5h")
    parser.add_argument("--steps", type=int, help="optimiser steps of the whole run")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from zoo.errors import ZooError
    from zoo.files import check_folder
    from zoo.models.registry import create_model
    from zoo.training import distributed
    from zoo.training.config import load_config, parse_duration
    from zoo.training.machine import stopped_at
    from zoo.training.trainer import make_trainer

    if args.threads:
        torch.set_num_threads(args.threads)
    config = load_config(args.config, model=args.model, data=args.data, steps=args.steps)
    budget = parse_duration(args.time_budget) if args.time_budget else math.inf
    check_folder(args.output_dir)
    torch.manual_seed(config.seed)
    model = create_model(config.model)
    if next(model.parameters(), None) is None:
        raise ZooError(f"{config.model} has no parameters to train")
    with distributed.joined():
        pool = read_pool(Path(config.data), config.patch)
        trainer = make_trainer(model, config, pool, args.output_dir)
        scores = trainer.run(budget)
        code = 128 + trainer.stopped if trainer.stopped else 0
        if distributed.rank():
            return code
    if args.json:
        reached = {"step": trainer.step, "steps": config.steps}
        print(json.dumps({"output_dir": str(args.output_dir), **reached, "psnr": scores}))
    else:
        # A compressor's rates say their unit in their names: "clean/q0.5 bpp".
        print("  ".join(f"{key} {value:.2f}" + " dB" * (not key.endswith("bpp")) for key, value in scores.items()))
    if trainer.step < config.steps:
        print(stopped_at(trainer.step, config.steps), file=sys.stderr)
    return code


def read_pool(folder: Path, patch: int):
    """The training pictures, with a progress bar.

    Raises:
        ZooError: no such folder or nothing in it.
    """
    from rich.progress import Progress

    from zoo.data.pool import ImagePool
    from zoo.errors import ZooError
    from zoo.training.machine import progress_console

    if not folder.is_dir():
        raise ZooError(f"{folder}: no such folder of training pictures; give one with --data")
    with Progress(transient=True, console=progress_console()) as progress:
        bar = progress.add_task("pictures", total=None)
        return ImagePool.from_folder(
            folder, min_side=patch, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )
