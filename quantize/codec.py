"""Compressors: both halves quantised on their own, fine-tuned together.

Gains, steps and priors stay as they are: files of the quantised encoder are files of the float model, and either decoder reads
them.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor

from quantize.calibrate import calibrate
from quantize.model import QuantizedModel
from quantize.qat import (
    CALIBRATION_BATCHES,
    EQUALISING_BATCHES,
    calibration_facts,
    calibration_inputs,
    state_sha256,
    trained,
)
from quantize.recipe import prepare
from zoo.data.pool import ImagePool
from zoo.errors import ZooError
from zoo.models.compressor import LATENT_STEP, Compressor
from zoo.models.contracts import contract_of
from zoo.models.contracts.bayer_codec import BayerCodecContract
from zoo.models.contracts.bayer_codec_v4 import INPUT_RANGE, OUTPUT_RANGE
from zoo.models.registry import HALVES, check_int8
from zoo.training.codec import CodecTrainer
from zoo.training.config import TrainConfig

# Of all latents' values, and of any one's, may lie beyond the range. Those of bayer-codec-m that shipped had 0.001 and 0.012 on
# scenes that publishing did not see, others of 192, scaled on 8 raws alone, 0.007 and 0.07, and before any scaling 0.08 and 0.75.
_OUTSIDE, _MOST_OUTSIDE = 0.02, 0.2


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
        ZooError: a float reference; latents that its decoder's agreed range does not hold.
    """
    check_int8(name)
    contract = contract_of(model)
    assert isinstance(contract, BayerCodecContract)
    raws = list(calibration_inputs(contract, pool, config, CALIBRATION_BATCHES))
    _check_range(name, model, raws[:EQUALISING_BATCHES])
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
    facts = trained(CodecTrainer(joint, config, pool, folder), time_budget, "validation")
    return {half: QuantizedModel(q.name, "qat", q.prepared, q.facts | facts, half) for half, q in start.items()}


@torch.no_grad()
def _check_range(name: str, model: Compressor, raws: list[Tensor]) -> None:
    """Refuse latents as training leaves them, which the range agreed with decoders would cut off.

    A few strong ones hold most of the picture, so each of them counts, and all of them together.
    """
    outside: list[Tensor] = []
    for x in raws:
        y = model.encode(x)
        outside.append(((y < -128 * LATENT_STEP) | (y > 127 * LATENT_STEP)).float().mean((0, 2, 3)))
    share = torch.stack(outside).mean(0)
    most, mean = float(share.max()), float(share.mean())
    if most > _MOST_OUTSIDE or mean > _OUTSIDE:
        raise ZooError(
            f"{name}: {mean:.1%} of its latents go beyond -1 to 1, of one channel {most:.0%}, and int8 decoders take no others; "
            "`zoo publish RUN` scales them, quantise what that writes"
        )


@torch.no_grad()
def _dequantised(model: Compressor, x: Tensor, seed: int) -> Tensor:
    """What the decoder is fed for an encoder's input, each picture at a quality of its own."""
    return model.coded(x, torch.rand(len(x), generator=torch.Generator().manual_seed(seed)))
