"""A network in any runtime as a method of the test bed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from zoo.evaluation.bed import Array, Method
from zoo.inference.restore import packed_gains, run_tile
from zoo.inference.runner import TileRunner
from zoo.inference.tiling import mirror, plan
from zoo.models.contracts import get_contract
from zoo.models.contracts.cfa_masks import RGGB
from zoo.models.registry import ModelSpec
from zoo.raw.cfa import pack


def network_method(runner: TileRunner, spec: ModelSpec) -> Method:
    """The method that runs a network: balance, mirror at the edges, encode, run, decode, by the network's contract.

    A runner that takes any size gets the whole picture at once, one with a fixed tile gets exact tiles
    (:mod:`zoo.inference.tiling`): the scores are the same. Any picture size works.

    Args:
        runner: float32 ``[1, in_channels, t, t]`` -> float32 ``[1, out_channels, t, t]``.
        spec: of the network that it runs.

    Raises:
        ZooError: the runner's tile does not fit the network.
    """
    step = spec.tile_multiple
    contract = get_contract(spec.contract)
    # A grid over nothing: its margin, and the check of the runner's tile, are the same for all pictures.
    margin = plan(spec, step, step, fixed=runner.tile).margin

    def method(mosaic: Array, wb: Sequence[float], shot: Sequence[float], read: Sequence[float]) -> Array:
        height, width = mosaic.shape
        if runner.tile is None:
            core_y, core_x = (-(-side // (2 * step)) * 2 * step for side in (height, width))  # sensor pixels
        else:
            core_y = core_x = 2 * (runner.tile - 2 * margin)
        gains = packed_gains((wb[0], wb[1], wb[2]), 2, RGGB)
        told = (
            torch.tensor([[s * w for s, w in zip(shot, wb, strict=True)]], dtype=torch.float32),
            torch.tensor([[o * w**2 for o, w in zip(read, wb, strict=True)]], dtype=torch.float32),
            torch.tensor([list(wb)], dtype=torch.float32),
        )
        result = np.empty((3, height, width), np.float32)
        for y in range(0, height, core_y):
            rows = mirror(y - 2 * margin, y + core_y + 2 * margin, height)
            for x in range(0, width, core_x):
                columns = mirror(x - 2 * margin, x + core_x + 2 * margin, width)
                planes = pack(mosaic[np.ix_(rows, columns)]) * gains
                rgb = run_tile(contract, planes, *told, runner, spec, margin)
                part = result[:, y : y + core_y, x : x + core_x]
                part[:] = rgb[:, : part.shape[1], : part.shape[2]]
        return result

    return method
