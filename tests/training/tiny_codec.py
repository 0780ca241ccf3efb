"""A compressor small enough to train in tests, and runs of it."""

from __future__ import annotations

from pathlib import Path

import torch

from zoo.data.pool import ImagePool
from zoo.models.bayer_codec import BayerCodec, Decoder
from zoo.models.utnet import CompactUtNet
from zoo.training.codec import CodecTrainer
from zoo.training.config import TrainConfig
from zoo.training.trainer import make_trainer


def tiny_codec(latents: int, priors: int) -> BayerCodec:
    return BayerCodec(CompactUtNet((8,), (1,), (), 8), latents, Decoder(latents, 96, (8, 8)), priors=priors)


def start(pool: ImagePool, folder: Path, **changes: object) -> CodecTrainer:
    torch.manual_seed(0)
    values = {
        "model": "tiny",
        "steps": 8,
        "batch": 2,
        "patch": 64,
        "precision": "fp32",
        "warmup": 1,
        "weight_decay": 0.0,
    }
    config = TrainConfig(**{**values, "validate_every": 3, **changes})  # type: ignore[arg-type]
    trainer = make_trainer(tiny_codec(8, 4), config, pool, folder)
    assert isinstance(trainer, CodecTrainer)
    return trainer


def fitted(pool: ImagePool, folder: Path, **changes: object) -> CodecTrainer:
    """As it is before its first step."""
    trainer = start(pool, folder, **changes)
    trainer.fit()
    return trainer


def probe(trainer: CodecTrainer) -> float:
    """The loss on the same raws, qualities and noise every time."""
    trainer.generator.manual_seed(5)
    with torch.no_grad():
        return float(trainer.loss(trainer.data.batch(8, trainer.generator)))
