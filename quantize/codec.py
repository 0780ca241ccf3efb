"""Compressors: both halves quantised on their own, fine-tuned together.

Gains, steps and priors stay as they are: files of the quantised encoder are files of the float model, and either decoder reads
them.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from quantize.calibrate import calibrate
from quantize.model import QuantizedModel
from quantize.qat import CALIBRATION_BATCHES, calibration_facts, state_sha256
from quantize.recipe import prepare
from zoo.data.pool import ImagePool
from zoo.data.synth import RawSynthesizer
from zoo.models.compressor import LATENT_STEP, Compressor
from zoo.models.contracts import contract_of
from zoo.models.contracts.bayer_codec import BayerCodecContract
from zoo.models.contracts.bayer_codec_v4 import INPUT_RANGE, OUTPUT_RANGE
from zoo.models.registry import HALVES, check_int8
from zoo.training.codec import CodecTrainer
from zoo.training.config import TrainConfig


def post_training_halves(
    name: str, model: Compressor, pool: ImagePool, config: TrainConfig
) -> dict[str, QuantizedModel]:
    """Quantise trained weights, with ranges calibrated on synthetic raws of every noise level and latents of every quality.

    Args:
        name: registered name.
        model: with its float weights.
        pool: clean pictures to synthesise raws from.
        config: patch size and noise of the calibration raws.

    Returns:
        ``encoder`` and ``decoder``.

    Raises:
        ZooError: a float reference.
    """
    check_int8(name)
    contract = contract_of(model)
    assert isinstance(contract, BayerCodecContract)
    raws = list(_raws(model, pool, config))
    inputs = {"encoder": raws, "decoder": [_dequantised(model, x, config.seed + n) for n, x in enumerate(raws)]}
    result, start = {}, state_sha256(model)
    for half in HALVES:
        prepared = prepare(model.get_submodule(half), inputs[half][0].shape[1])
        if half == "decoder":
            # Steps of the input are what fine channels are told the rest of, half of one of the output what colours are apart.
            agreed = (-128 * LATENT_STEP, 127 * LATENT_STEP)
            extremes = calibrate(prepared, inputs[half], contract.joined, agreed, OUTPUT_RANGE)
        else:
            extremes = calibrate(prepared, inputs[half], input_range=INPUT_RANGE)
        facts = {"start_sha256": start, **calibration_facts(extremes, pool, config)}
        result[half] = QuantizedModel(name, "ptq", prepared, facts, half)
    return result


def finetune_halves(
    start: dict[str, QuantizedModel],
    model: Compressor,
    pool: ImagePool,
    config: TrainConfig,
    folder: Path,
    time_budget: float = math.inf,
) -> dict[str, QuantizedModel]:
    """Quantisation-aware training of both halves under the compressor's own loss; see :func:`quantize.qat.finetune`.

    Args:
        start: from :func:`post_training_halves`; trained in place.
        model: whose gains and priors are used.
        pool, config, folder, time_budget: as of :class:`zoo.training.codec.CodecTrainer`.
    """
    joint = copy.deepcopy(model).requires_grad_(False)
    joint.rounds = True
    for half in HALVES:
        setattr(joint, half, start[half].prepared.requires_grad_(True))
    trainer = CodecTrainer(joint, config, pool, folder)
    scores = trainer.run(time_budget)
    trainer.load_average()
    training = {
        "steps": trainer.step,
        "hours": round(trainer.seconds / 3600, 3),
        "config": dataclasses.asdict(config),
        "validation": {k: round(v, 3) for k, v in scores.items()},
    }
    return {
        half: QuantizedModel(q.name, "qat", q.prepared, q.facts | {"training": training}, half)
        for half, q in start.items()
    }


def _raws(model: Compressor, pool: ImagePool, config: TrainConfig) -> Iterator[Tensor]:
    contract = contract_of(model)
    synthesizer = RawSynthesizer(pool, config.patch, config.noise)
    generator = torch.Generator().manual_seed(config.seed + 1)
    for _ in range(CALIBRATION_BATCHES):
        raws = synthesizer.batch(config.batch, generator)
        yield contract.encode(raws.planes, raws.shot, raws.read, raws.wb, raws.cfa)


@torch.no_grad()
def _dequantised(model: Compressor, x: Tensor, seed: int) -> Tensor:
    """What the decoder is fed for an encoder's input, each picture at a quality of its own."""
    return model.coded(x, torch.rand(len(x), generator=torch.Generator().manual_seed(seed)))
