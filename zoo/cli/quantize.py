"""``zoo quantize``: float weights -> int8 scales, by calibration (ptq) or fine-tuning (qat)."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from zoo.training.config import TrainConfig

_DATA = Path("../shared/data/train_rgb")


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "quantize",
        help=help,
        description="Calibrates int8 ranges on synthetic raws and, with --recipe qat, fine-tunes the weights to them. With "
        "--sensitivity it looks at a quantised model instead: what each tensor and each layer costs.",
    )
    parser.add_argument("name", help="model, see `zoo list`")
    parser.add_argument("--recipe", choices=("ptq", "qat"), default="qat")
    parser.add_argument(
        "--data",
        type=Path,
        help=f"folder of clean pictures (default: {_DATA}); with --sensitivity: look at its validation patches too",
    )
    parser.add_argument("--output-dir", type=Path, help="where the quantised model (and the run) goes")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="folder of `zoo publish`, or safetensors with float weights, with --sensitivity a quantised model (default: the "
        "shipped ones)",
    )
    parser.add_argument(
        "--sensitivity", action="store_true", help="print what each tensor and layer costs in int8, the dearest first"
    )
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="with --sensitivity: write the costs into this folder"
    )
    parser.add_argument("--steps", type=int, help="fine-tuning steps")
    parser.add_argument("--time-budget", default="", help="stop fine-tuning cleanly after 90s, 9m, 1.5h")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> int:
    from quantize import check_installed
    from zoo.errors import ZooError

    check_installed()
    if args.sensitivity:
        from zoo.cli.sensitivity import report

        report(args)
        return 0
    if args.output_dir is None:
        raise ZooError("give --output-dir for the quantised model, or --sensitivity; see `zoo quantize --help`")
    if args.record:
        raise ZooError("--record belongs to --sensitivity")
    args.data = args.data or _DATA

    import torch

    from quantize.qat import claim, finetune, post_training
    from zoo.cli.train import read_pool
    from zoo.files import check_folder
    from zoo.models.compressor import Compressor
    from zoo.models.registry import check_int8, create_model
    from zoo.training.config import parse_duration
    from zoo.training.machine import StoppedError, stopped_at

    check_int8(args.name)
    check_folder(args.output_dir)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = _config(args)
    budget = parse_duration(args.time_budget) if args.time_budget else math.inf
    model = create_model(args.name, pretrained=args.weights is None)
    if args.weights:
        _load(model, args.name, args.weights)
    pool = read_pool(args.data, config.patch)
    if args.recipe == "qat":
        claim(args.output_dir, model)
    try:
        if isinstance(model, Compressor):
            from quantize.codec import finetune_halves, post_training_halves

            halves = post_training_halves(args.name, model, pool, config)
            if args.recipe == "qat":
                halves = finetune_halves(halves, model, pool, config, args.output_dir, budget)
            results = list(halves.values())
        else:
            quantized = post_training(args.name, model, pool, config)
            if args.recipe == "qat":
                quantized = finetune(quantized, pool, config, args.output_dir, budget)
            results = [quantized]
    except StoppedError as stopped:  # its checkpoint is written, a model that looks complete is not
        if args.json:
            print(json.dumps({"output_dir": str(args.output_dir), "step": stopped.step, "steps": stopped.steps}))
        print(stopped, file=sys.stderr)
        return stopped.code
    saved = [(result.save(args.output_dir), result.facts) for result in results]
    if args.json:
        rows = [{"path": str(path), **facts} for path, facts in saved]
        print(json.dumps(rows if len(rows) > 1 else rows[0]))  # a compressor has two
    else:
        print("\n".join(str(path) for path, _ in saved))
    if saved and (step := saved[0][1].get("training", {}).get("steps", config.steps)) < config.steps:
        print(stopped_at(step, config.steps), file=sys.stderr)
    return 0


def _config(args: argparse.Namespace) -> TrainConfig:
    """Of calibration and fine-tuning."""
    from quantize.qat import QAT_DEFAULTS
    from zoo.models.registry import get_spec
    from zoo.training.config import TrainConfig, parse

    values = {**QAT_DEFAULTS, "model": args.name, "data": str(args.data), "seed": 1}
    if get_spec(args.name).task == "demosaic":  # it has never seen noise
        drawn = _trained_with(args.name, args.weights)
        values |= {key: drawn[key] for key in ("noise", "textured", "displayed") if key in drawn}
    if get_spec(args.name).codec:
        # 16 positions a side, as in training. Transforms lie at an optimum: at quality 0.5 without noise bayer-codec-m lost
        # 0.19 dB after fine-tuning at 1.5e-5 and 0.17 at 3e-6.
        values |= {"patch": 256, "batch": 8, "lr": 3e-6}
        # Patches drawn as for the float weights cost bayer-codec-m 0.01 dB less. Of the denoisers utnet-s, trained on half
        # textured ones, lost 0.04 dB without noise to that, and utnet-n as much as gained with noise.
        drawn = _trained_with(args.name, args.weights)
        values |= {key: drawn[key] for key in ("textured", "denoiser", "denoised") if key in drawn}
    if args.steps is not None:
        values["steps"] = args.steps
    return parse(TrainConfig, values, "zoo quantize")


def _trained_with(name: str, file: Path | None) -> dict[str, Any]:
    """The configuration that float weights were trained with: of a checkpoint its own, of those that ship the card's."""
    from safetensors import SafetensorError, safe_open

    from zoo import weights

    if file is None:
        card = weights.card(name)
        return card["training"]["config"] if card else {}
    try:
        with safe_open(file, "pt") as tensors:
            run = (tensors.metadata() or {}).get("run")
    except (OSError, SafetensorError):  # what is wrong with it, loading says
        return {}
    return json.loads(run)["config"] if run else {}


def _load(model: nn.Module, name: str, file: Path) -> None:
    """Put float weights into a model: all of them, where training may also start from those of a part or of a smaller network.

    Raises:
        ZooError: no such file, not readable, or weights of another model.
    """
    from zoo.errors import ZooError
    from zoo.models.bayer_codec import BayerCodec
    from zoo.training.transfer import read_weights

    if not file.is_file():
        raise ZooError(f"{file}: no such weights; give a safetensors file, as `zoo train` writes them")
    tensors = read_weights(file)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = textwrap.shorten(str(error).splitlines()[1], 120)
        raise ZooError(
            f"{file}: holds no weights of {name} ({first}); give those that `zoo train` made of it"
        ) from error
    if isinstance(model, BayerCodec):
        model.tie_decoder()  # training leaves layers that only int8 needs as they were, and so do its checkpoints
