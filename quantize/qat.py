"""From trained float weights to a :class:`QuantizedModel`: post-training quantisation, then fine-tuning in its presence."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quantize.calibrate import calibrate
from quantize.equalise import equalise
from quantize.model import QuantizedModel
from quantize.recipe import prepare
from zoo.data.pool import ImagePool
from zoo.data.synth import RawSynthesizer
from zoo.errors import ZooError
from zoo.models.contracts import Contract, contract_of
from zoo.models.registry import check_int8
from zoo.training import distributed
from zoo.training.config import TrainConfig
from zoo.training.machine import StoppedError
from zoo.training.trainer import CHECKPOINT, Trainer

CALIBRATION_BATCHES = 24
EQUALISING_BATCHES = 6
# Fine-tuning, in float32 (bf16 has as many bits as int8). 5e-5 gave utnet-n 34.68 dB after 600 steps, 2e-4 34.67, Muon at 1e-4
# 34.63; utnet-m 36.62 at 5e-5 and at 1.5e-5. Compressors want less: a decoder of bayer-codec-m that calibration alone had 0.16 dB
# behind float was 0.28 behind after 400 steps at 5e-5.
QAT_DEFAULTS = {
    "steps": 600, "lr": 1.5e-5, "kernel_lr": 0.0, "warmup": 100, "ema": 0.995, "precision": "fp32", "validate_every": 200,
}  # fmt: skip


def post_training(name: str, model: nn.Module, pool: ImagePool, config: TrainConfig) -> QuantizedModel:
    """Quantise trained weights, with ranges calibrated on synthetic raws of every noise level.

    Args:
        name: registered name.
        model: with its float weights.
        pool: clean pictures to synthesise raws from.
        config: patch size and noise of the calibration raws.

    Raises:
        ZooError: a float reference.
    """
    check_int8(name)
    start = state_sha256(model)
    contract = contract_of(model, name)
    inputs = list(calibration_inputs(contract, pool, config, CALIBRATION_BATCHES))
    prepared = prepare(equalise(model, inputs[:EQUALISING_BATCHES]))
    extremes = calibrate(prepared, inputs, input_range=contract.int8_range)
    facts = {"start_sha256": start, **calibration_facts(extremes, pool, config)}
    return QuantizedModel(name, "ptq", prepared, facts)


def calibration_facts(extremes: dict[str, float], pool: ImagePool, config: TrainConfig) -> dict[str, Any]:
    """What a :class:`QuantizedModel` records of its calibration; ``extremes`` is what :func:`calibrate` returns."""
    return {
        "calibration": {"raws": CALIBRATION_BATCHES * config.batch, "patch": config.patch, "data_sha256": pool.digest},
        # For fp16: everything the network computes stays this far below 65504.
        "largest_activation": round(max(extremes.values()), 4),
        "versions": {package: version(package) for package in ("torch", "torchao", "executorch")},
    }


def state_sha256(model: nn.Module) -> str:
    """Of a model's tensors and their names, however a file holds them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def claim(folder: Path, model: nn.Module) -> None:
    """Make a folder one of fine-tuning these float weights: what is found there is resumed, whatever it started from.

    Raises:
        ZooError: it holds fine-tuning of others.
    """
    digest, note = state_sha256(model), folder / "start.sha256"
    if (folder / CHECKPOINT).exists() and (not note.exists() or note.read_text() != digest):
        raise ZooError(f"{folder}: holds fine-tuning of other float weights; give another --output-dir, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(digest)


def finetune(
    start: QuantizedModel, pool: ImagePool, config: TrainConfig, folder: Path, time_budget: float = math.inf
) -> QuantizedModel:
    """Quantisation-aware training from a post-training quantised model, with its activation ranges held.

    The ranges stay because they were searched for the smallest error, which the extremes of a batch are not. Weight scales
    follow the weights.
    """
    facts = trained(Trainer(start.prepared, config, pool, folder), time_budget, "validation_psnr_db")
    return QuantizedModel(start.name, "qat", start.prepared, start.facts | facts)


def trained(trainer: Trainer, time_budget: float, validation: str) -> dict[str, Any]:
    """Run a trainer and leave the averaged weights in its model.

    Args:
        trainer: of a prepared graph, or a compressor of two.
        time_budget: in seconds.
        validation: what the last validation's scores are called.

    Returns:
        what a :class:`QuantizedModel` records of it.

    Raises:
        StoppedError: a signal ended it before its last step; the checkpoint is there.
    """
    scores = trainer.run(time_budget)
    if trainer.stopped:
        raise StoppedError(trainer.stopped, trainer.step, trainer.config.steps)
    trainer.load_average()
    return {
        "training": {
            "steps": trainer.step,
            "hours": round(trainer.seconds * distributed.size() / 3600, 3),
            "config": dataclasses.asdict(trainer.config),
            validation: {k: round(v, 3) for k, v in scores.items()},
        }
    }


def calibration_inputs(contract: Contract, pool: ImagePool, config: TrainConfig, batches: int) -> Iterator[Tensor]:
    """Batches of synthetic raws as a network is fed them, the same for the same seed."""
    synthesizer = RawSynthesizer(pool, config.patch, config.noise, displayed=config.displayed)
    generator = torch.Generator().manual_seed(config.seed + 1)
    for _ in range(batches):
        raws = synthesizer.batch(config.batch, generator)
        yield contract.encode(raws.planes, raws.shot, raws.read, raws.wb, raws.cfa)
