"""A toy network of the zoo's kind, quantised once per session with the PT2E recipe that ``quantize`` uses."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export.target import quiet
from quantize.model import snap_biases
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS

TILE = 32
ABOUT = {"model": "toy, ä"}  # metadata of its files


class Toy(nn.Module):
    """Every kind of layer that the zoo's networks have, once or twice; ``act`` is where a bad one can be put."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(IN_CHANNELS, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 2, 2)
        self.mid = nn.Conv2d(32, 32, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.head = nn.Conv2d(16, OUT_CHANNELS, 3, padding=1)
        self.residual = nn.Conv2d(IN_CHANNELS, OUT_CHANNELS, 1)
        self.act = act or nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.stem(x))
        deep = torch.relu(self.mid(torch.relu(self.down(skip))))
        return self.head(self.act(self.up(deep) + skip)) + self.residual(x)


@dataclass
class Quantised:
    """The least that the targets ask of a quantised model."""

    prepared: torch.fx.GraphModule

    def graph(self, fold: bool) -> torch.fx.GraphModule:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        with quiet():
            return snap_biases(convert_pt2e(copy.deepcopy(self.prepared), fold_quantize=fold))


def quantised(net: nn.Module) -> Quantised:
    """The network after post-training quantisation on seeded noise."""
    with quiet():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        inputs = [torch.from_numpy(tile_input(seed)) for seed in (1, 2, 3)]
        graph = torch.export.export(net, (inputs[0],)).module(check_guards=False)
        prepared = prepare_pt2e(graph, quantizer)
        with torch.no_grad():
            for x in inputs:
                prepared(x)
    return Quantised(prepared)


def tile_input(seed: int = 0) -> np.ndarray:
    """A seeded float32 ``[1, IN_CHANNELS, 32, 32]``, about standard normal."""
    return np.random.default_rng(seed).standard_normal((1, IN_CHANNELS, TILE, TILE)).astype(np.float32)
