"""``rounded``: a share of the patches that a network sees in training are in the steps of an int8 file's input."""

from pathlib import Path

import pytest
import torch
from tiny_codec import start
from torch import Tensor, nn

from zoo.data.pool import ImagePool
from zoo.errors import ZooError
from zoo.models.registry import create_model
from zoo.models.utnet import CompactUtNet
from zoo.training.config import TrainConfig
from zoo.training.trainer import Trainer

STEP, ENCODER_STEP = 3 / 255, 3.8 / 255


def make(model: nn.Module, pool: ImagePool, folder: Path, name: str = "tiny") -> Trainer:
    config = TrainConfig(name, batch=64, patch=64, precision="fp32", rounded=0.5)
    return Trainer(model, config, pool, folder)


def watched(network: nn.Module) -> list[Tensor]:
    fed: list[Tensor] = []
    network.register_forward_hook(lambda _, x, __: fed.append(x[0]))
    return fed


def test_a_share_of_inputs_comes_in_int8_steps(pool: ImagePool, tmp_path: Path) -> None:
    run = make(CompactUtNet((8,), (1,), (), head_width=4), pool, tmp_path)
    batch, step = run.data.batch(64, run.generator), STEP
    given = run.contract.encode(batch.planes, batch.shot, batch.read, batch.wb)
    fed = watched(run.model)
    run.loss(batch)
    changed = (fed[0] != given).flatten(1).any(1)
    assert 16 < changed.sum() < 48
    assert float((fed[0][changed] / step).sub((given[changed] / step).round()).abs().max()) < 1e-3
    run.validate()
    level = run.validation["iso800"]
    assert len(fed) == 1 + len(run.validation)  # sees inputs as they are
    torch.testing.assert_close(fed[2], run.contract.encode(level.planes, level.shot, level.read, level.wb))


def test_encoders_are_fed_int8_steps_in_training_alone(pool: ImagePool, tmp_path: Path) -> None:
    run = start(pool, tmp_path, rounded=1.0)
    fed = watched(run.model.encoder)
    run.loss(run.data.batch(2, run.generator))
    run.validate()
    off = [float((x / ENCODER_STEP).sub((x / ENCODER_STEP).round()).abs().max()) for x in fed]
    assert off[0] < 1e-3 and min(off[1:]) > 0.4


def test_a_contract_without_int8_takes_no_rounded_inputs(pool: ImagePool, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="ksigma_bayer_v1 has no int8 input; leave 'rounded' out"):
        make(create_model("pmrid"), pool, tmp_path, "pmrid")
