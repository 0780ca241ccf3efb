"""Restoring with every contract: tiles are exact, colours in place, X-Trans too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.evaluation.network import network_method
from zoo.inference.restore import XTRANS_PHASE, restore
from zoo.inference.runner import TorchRunner
from zoo.inference.tiling import mirror_xtrans, plan
from zoo.models.analysis import receptive_field
from zoo.models.contracts import contract_of, get_contract
from zoo.models.contracts.cfa_masks import XTRANS_PATTERN
from zoo.models.demosaic_cnn import DemosaicCnn
from zoo.models.pmrid import ResidualBlock
from zoo.models.registry import ModelSpec, get_spec
from zoo.models.utnet2 import UtNet2FullResolution
from zoo.models.xtrans_unet import XTransUNet
from zoo.raw import NoiseProfile, RawImage

NOISE = NoiseProfile((1e-3, 8e-4, 1.2e-3), (1e-6, 1e-6, 2e-6), "given")
WB = (2.0, 1.0, 1.5)


class SmallKSigma(nn.Sequential):
    """Few layers under PMRID's contract, whose own halo no small picture exceeds."""

    contract = "ksigma_bayer_v1"


@dataclasses.dataclass(frozen=True)
class Net:
    spec: ModelSpec
    runner: TorchRunner


def net_of(model: nn.Module) -> Net:
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.1, 0.1)
    contract = contract_of(model)
    halo, multiple = receptive_field(model.eval(), contract.in_channels)
    multiple = int(np.lcm(multiple, contract.period))
    channels = contract.in_channels, contract.out_channels
    spec = ModelSpec("tiny", "", "", contract.name, *channels, halo + contract.halo, multiple, 0, 0.0)
    return Net(spec, TorchRunner(model))


def built(kind: str) -> Net:
    torch.manual_seed(0)
    if kind == "ksigma_bayer_v1":
        return net_of(SmallKSigma(ResidualBlock(4), ResidualBlock(4)))
    if kind == "demosaiced_rgb_v1":
        return net_of(DemosaicCnn(8))
    return net_of(XTransUNet(2) if kind == "cfa_masks_v1" else UtNet2FullResolution(2, demosaic=True))


def xtrans_raw(height: int, width: int, phase: int, rgb: np.ndarray | None = None) -> RawImage:
    """``rgb`` is balanced, (3, H, W); None for random pixels."""
    top, left = divmod(phase, 6)
    colours = np.tile(np.array(XTRANS_PATTERN), (height // 6 + 2, width // 6 + 2))
    colours = colours[top : top + height, left : left + width]
    if rgb is None:
        rgb = np.random.default_rng(phase).random((3, height, width)) * np.array(WB)[:, None, None]
    values = np.take_along_axis(rgb, colours[None], 0)[0] / np.array(WB)[colours]
    mosaic = np.rint(values * 65000 + 500).astype(np.uint16)
    metadata: dict[str, str | float | int] = {XTRANS_PHASE: phase}
    levels = (500.0,) * 4, (65500.0,) * 4
    return RawImage(mosaic, "XTRANS", *levels, WB, None, 400.0, NOISE, 1, metadata, "x.raf")


@pytest.mark.parametrize("kind", ["ksigma_bayer_v1", "demosaiced_rgb_v1", "cfa_masks_v1", "bayer_vst_v1"])
def test_tiles_are_exact_under_every_contract(kind: str, raw_of, whole) -> None:
    net, raw = built(kind), raw_of(47, 170, "GRBG")
    margin = -(-net.spec.halo // net.spec.tile_multiple) * net.spec.tile_multiple
    step = net.spec.tile_multiple
    frame = whole(raw, net, tile=-(-(90 + 2 * margin) // step) * step)
    tiled = whole(raw, net, tile=-(-(2 * margin + 20) // step) * step)
    # Menon's choice of direction may turn on the last bit of a network's output, which depends on the tile's size.
    assert (np.abs(tiled - frame) < 1e-4).mean() > (0.999 if kind == "ksigma_bayer_v1" else 1 - 1e-9)


def test_xtrans_tiles_are_exact_and_phases_agree(whole) -> None:
    net, raw = built("cfa_masks_v1"), xtrans_raw(50, 190, 9)
    margin = -(-net.spec.halo // 24) * 24
    frame, tiled = whole(raw, net, tile=2 * margin + 120), whole(raw, net, tile=2 * margin + 24)
    np.testing.assert_allclose(tiled, frame, atol=1e-4)


class Interpolate(nn.Module):
    """Normalised 5x5 means of each colour's samples, less the value that the contract adds: colour out of its masks."""

    contract = "cfa_masks_v1"

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False)
        nn.init.ones_(self.mean.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        full = nn.functional.pixel_shuffle(x, 2)
        value, masks = full[:, :1], full[:, 1:]
        sums, counts = self.mean(torch.cat([value * masks, masks], 1)).split(3, 1)
        return nn.functional.pixel_unshuffle(sums / counts.clamp_min(1) - value, 2)


@pytest.mark.parametrize("phase", [0, 1, 8, 21, 35])
@pytest.mark.parametrize("size", [(36, 48), (37, 43), (7, 61)])
def test_an_xtrans_colour_comes_out_in_colour_at_every_phase_and_border(size, phase, whole) -> None:
    """A flat colour stays flat to the border only if the pattern, its phase, the gains and the mirrored border all agree."""
    colour = np.array([0.9, 0.5, 0.2])
    net = Net(dataclasses.replace(get_spec("xtrans-unet-16"), halo=1, tile_multiple=24), TorchRunner(Interpolate()))
    raw = xtrans_raw(*size, phase, np.broadcast_to(colour[:, None, None], (3, *size)))
    picture = whole(raw, net, tile=72)
    np.testing.assert_allclose(picture, np.broadcast_to(colour[:, None, None], picture.shape), atol=2e-4)


@pytest.mark.parametrize("centre", [0, 2])
def test_mirrored_indices_keep_their_colour(centre: int) -> None:
    pattern = np.array(XTRANS_PATTERN) if centre == 0 else np.array(XTRANS_PATTERN).T
    for phase in range(6):
        for size in (6, 7, 11, 40):
            indices = mirror_xtrans(-50, size + 50, size, phase, centre)
            assert indices.min() >= 0 and indices.max() < size
            assert np.array_equal(indices[50:-50], np.arange(size))
            asked = pattern[(np.arange(-50, size + 50) + phase) % 6]
            assert np.array_equal(pattern[(indices + phase) % 6], asked)


def test_what_cannot_be_restored_is_refused_in_one_line() -> None:
    net = built("cfa_masks_v1")
    with pytest.raises(
        ZooError, match=r"x.raf: X-Trans, which utnet-m cannot take \(contract bayer_vst_v1\); use [^,]*$"
    ):
        restore(xtrans_raw(24, 24, 0), net.runner, get_spec("utnet-m"))
    unknown = dataclasses.replace(xtrans_raw(24, 24, 0), metadata={})
    with pytest.raises(ZooError, match="its reader does not say at which phase"):
        restore(unknown, net.runner, net.spec)
    with pytest.raises(ZooError, match="5x24 pixels are no X-Trans picture; at least 6x6"):
        restore(xtrans_raw(5, 24, 0), net.runner, net.spec)


def test_wide_halos_get_wide_tiles() -> None:
    spec = get_spec("pmrid")
    grid = plan(spec, 3000, 4000)
    assert grid.core >= grid.tile / 2  # a quarter of each tile's area is new
    assert plan(spec, 100, 100).tile == 112 + 2 * 512


@pytest.mark.parametrize("kind", ["ksigma_bayer_v1", "demosaiced_rgb_v1", "cfa_masks_v1"])
def test_the_bed_s_method_gives_what_restoring_gives(kind: str, raw_of, whole) -> None:
    net = built(kind)
    raw = raw_of(46, 52, "RGGB", black=(64, 64, 64, 64))
    method = network_method(net.runner, net.spec)
    result = method(raw.normalised(), raw.wb, raw.noise.shot, raw.noise.read)
    difference = np.abs(result - whole(raw, net))
    assert (difference < 1e-4).mean() > 0.999


def test_a_network_that_only_demosaics_is_told_of_no_noise(raw_of, whole) -> None:
    net, raw = built("bayer_vst_v1"), raw_of(46, 52, "RGGB")
    silent = dataclasses.replace(raw, noise=NoiseProfile((0.0,) * 3, (0.0,) * 3, "given"))
    only = Net(dataclasses.replace(net.spec, task="demosaic"), net.runner)
    np.testing.assert_array_equal(whole(raw, only), whole(silent, net))
    assert not np.allclose(whole(raw, net), whole(raw, only), atol=1e-3)


def test_no_network_under_ksigma_is_menon_on_the_balanced_mosaic(raw_of, whole) -> None:
    from zoo.baselines.demosaic import menon

    contract = get_contract("ksigma_bayer_v1")
    spec = ModelSpec("none", "", "", contract.name, 4, 4, contract.halo, 2, 0, 0.0)
    raw = raw_of(64, 60, "RGGB", black=(64, 64, 64, 64))
    gains = np.array(WB, np.float32)[np.array([[0, 1], [1, 2]])]
    expected = menon(raw.normalised() * np.tile(gains, (32, 30)))
    picture = whole(raw, Net(spec, TorchRunner(nn.Identity())), tile=40)
    agree = np.abs(picture - expected)[:, 12:-12, 12:-12] < 1e-4
    assert agree.mean() > 0.99
