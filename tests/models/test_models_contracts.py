"""The four contracts: what each makes of a mosaic, and that nothing is lost, clipped or rescaled on the way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoo.baselines.demosaic import menon
from zoo.data.synth import mosaic
from zoo.errors import ZooError
from zoo.models.contracts import bayer_vst as bayer
from zoo.models.contracts import contract_of, documentation, get_contract, list_contracts
from zoo.models.contracts.bayer_codec import BayerCodecContract
from zoo.models.contracts.bayer_codec_v4 import BASE, SPAN
from zoo.models.contracts.cfa_masks import XTRANS_PATTERN, colours, masks
from zoo.models.contracts.demosaiced_rgb import edge_aware_demosaic, repair_highlights
from zoo.models.contracts.ksigma_bayer import ANCHOR_READ, ANCHOR_SHOT, MIN_SHOT, forward, inverse, parameters
from zoo.models.registry import create_model
from zoo.raw import vst

LEVELS = [(0.0, 0.0), (1.2e-3, 9.4e-6), (2e-2, 1.6e-3), (0.0, 1e-4), (1e-6, 1e-2)]
WB = torch.tensor([[2.0, 1.0, 1.7]])
GAINS = WB[:, [0, 1, 1, 2], None, None]


def told(shot: float, read: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise of an un-balanced mosaic, balanced, and the balance."""
    return shot * WB, read * WB.square(), WB


def planes(seed: int = 0) -> torch.Tensor:
    return (torch.rand(1, 4, 12, 18, generator=torch.Generator().manual_seed(seed)) - 0.05) * GAINS


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", list_contracts())
def test_shapes_hold_and_values_stay_finite_at_every_noise_level(name: str, level: tuple[float, float]) -> None:
    contract = get_contract(name)
    x = contract.encode(planes(), *told(*level))
    assert x.shape == (1, contract.in_channels, 12, 18)
    assert x.isfinite().all()
    assert x.abs().max() < 65504 / 10  # fp16
    side = contract.out_cell
    y = torch.zeros(1, contract.out_channels, 12 // side, 18 // side) if name != "ksigma_bayer_v1" else x
    if isinstance(contract, BayerCodecContract):
        y = contract.joined(y)
    estimate, rgb = contract.estimate(x, y, *told(*level)), contract.decode(x, y, *told(*level))
    assert rgb.shape == (1, 3, 24, 36)
    assert rgb.isfinite().all()
    if estimate.shape[1] == 12:  # the loss looks at what the picture is made of
        offset = bayer.curve_offset(*told(*level)[:2])
        assert torch.allclose(F.pixel_shuffle(vst.inverse(estimate, offset), 2), rgb, atol=1e-5)


@pytest.mark.parametrize("name", list_contracts())
def test_contracts_describe_themselves(name: str) -> None:
    contract = get_contract(name)
    assert contract.name == name
    assert name in documentation(name)
    assert {"input", "output"} <= contract.words.keys()
    assert name != "bayer_codec_v4" or f"{SPAN:g}*(v - {BASE:g})" in contract.words["input"]  # put in by replacement


def test_contracts_by_model_by_name_and_unknown() -> None:
    assert contract_of(create_model("pmrid")).name == "ksigma_bayer_v1"
    assert (
        contract_of(torch.nn.Identity(), "demosaic-cnn").name == "demosaiced_rgb_v1"
    )  # a graph has lost its attribute
    assert contract_of(torch.nn.Identity()).name == "bayer_vst_v1"
    with pytest.raises(ZooError, match="unknown contract 'x'; this version has bayer_vst_v1"):
        get_contract("x")


def test_bayer_object_is_the_functions() -> None:
    contract, level = get_contract("bayer_vst_v1"), told(5e-3, 1.9e-4)
    x = contract.encode(planes(), *level)
    assert torch.equal(x, bayer.encode(planes(), *level[:2]))
    y = torch.rand(1, 12, 12, 18) - 0.5
    assert torch.allclose(contract.decode(x, y, *level), bayer.decode(x, y, *level[:2]), atol=1e-6)


def test_ksigma_is_the_papers_formula_in_its_own_units() -> None:
    """x' = [x V k_a/k + (s2/k^2 - s2_a/k_a^2) k_a] / V in DN of a 10-bit sensor, V = 959, network input x' * 256."""
    span, x = 959.0, torch.linspace(-0.05, 1, 50)
    k = lambda iso: 0.0005995267 * iso + 0.00868861  # noqa: E731
    s2 = lambda iso: 7.11772e-7 * iso**2 + 6.514934e-4 * iso + 0.11492713  # noqa: E731
    for iso in (100, 800, 6400):
        ratio, anchor = s2(iso) / k(iso) ** 2, s2(1600) / k(1600) ** 2
        expected = (x * span * k(1600) / k(iso) + (ratio - anchor) * k(1600)) / span * 256
        shot, read = (torch.tensor(v) for v in (k(iso) / span, s2(iso) / span**2))
        assert torch.allclose(forward(x, shot, read), expected, rtol=1e-5, atol=1e-3)
        assert torch.allclose(inverse(forward(x, shot, read), shot, read), x, atol=1e-5)
    anchor_shot, anchor_read = torch.tensor(ANCHOR_SHOT), torch.tensor(ANCHOR_READ)
    assert torch.allclose(forward(x, anchor_shot, anchor_read), 256 * x, atol=1e-3)  # at the anchor, the picture itself


def test_ksigma_makes_variance_equal_at_every_level() -> None:
    generator, stds = torch.Generator().manual_seed(0), []
    for shot, read in ((2e-4, 1e-6), (5e-3, 1.9e-4)):
        s, o = torch.tensor(shot), torch.tensor(read)
        x = 0.3 + (shot * 0.3 + read) ** 0.5 * torch.randn(100_000, generator=generator)
        y = forward(x, s, o) / 256 / ANCHOR_SHOT + ANCHOR_READ / ANCHOR_SHOT**2
        stds.append(float(y.var() / y.mean()))
    assert stds == pytest.approx([1, 1], rel=0.02)


def test_ksigma_floors() -> None:
    shot, read = parameters(torch.zeros(1, 3), torch.zeros(1, 3))
    assert float(shot) == pytest.approx(7.158e-5, rel=1e-3) == MIN_SHOT
    assert float(read) == 0
    assert float(parameters(torch.zeros(1, 3), torch.full((1, 3), 1e-4))[0]) == pytest.approx(1e-3)


def test_ksigma_decodes_its_own_input_to_the_demosaiced_mosaic() -> None:
    contract, level = get_contract("ksigma_bayer_v1"), told(1e-3, 1e-5)
    x = contract.encode(planes(), *level)
    assert torch.allclose(
        vst.inverse(contract.estimate(x, x, *level), bayer.curve_offset(*level[:2])), planes(), atol=1e-5
    )
    expected = menon(F.pixel_shuffle(planes(), 2)[0, 0].numpy())
    # Menon's choice between directions may turn on the last bit: nearly all pixels agree, not every one.
    assert (np.abs(contract.decode(x, x, *level)[0].numpy() - expected) < 1e-4).mean() > 0.99


def test_edge_aware_demosaic_is_exact_on_common_slopes_and_keeps_samples() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    ramp = 0.01 * y + 0.02 * x
    rgb = torch.stack([0.1 + ramp, 0.3 + ramp, 0.2 + ramp])[None]
    assert torch.allclose(edge_aware_demosaic(mosaic(rgb))[..., 4:-4, 4:-4], rgb[..., 4:-4, 4:-4], atol=1e-5)
    assert torch.allclose(mosaic(edge_aware_demosaic(planes())), planes(), atol=1e-6)


def test_edge_aware_demosaic_follows_an_edge() -> None:
    """A grey vertical edge: interpolating across it would give green in between."""
    rgb = torch.zeros(1, 3, 24, 24)
    rgb[..., 11:] = 0.8
    assert (edge_aware_demosaic(mosaic(rgb))[:, 1] - rgb[:, 1]).abs().max() < 1e-3


def test_edge_aware_demosaic_reads_no_further_than_the_contract_says() -> None:
    halo, reached = get_contract("demosaiced_rgb_v1").halo, 0
    for seed in range(8):
        whole, changed = planes(seed), planes(seed)
        changed[..., 6, 9] = planes(seed + 100)[..., 6, 9]
        differs = (F.pixel_unshuffle(edge_aware_demosaic(changed) - edge_aware_demosaic(whole), 2) != 0).any(1)[0]
        reached = max(reached, int((differs.nonzero() - torch.tensor([6, 9])).abs().max()))
    assert reached == halo


def test_highlights_are_repaired_where_green_is_clipped_only() -> None:
    rgb = torch.tensor([[1.4, 1.0, 1.2], [1.4, 0.9, 1.2], [0.9, 1.0, 0.8], [0.9, 1.0, 1.3]]).T[None, :, :, None]
    assert repair_highlights(rgb)[0, 1, :, 0].tolist() == pytest.approx([1.3, 0.9, 1.0, 1.1])


def test_demosaiced_contract_undoes_itself() -> None:
    contract, level = get_contract("demosaiced_rgb_v1"), told(1e-3, 1e-5)
    x = contract.encode(planes(), *level)
    assert torch.allclose(contract.decode(x, x, *level), repair_highlights(edge_aware_demosaic(planes())), atol=1e-6)


def test_xtrans_pattern_is_fuji_s_and_symmetric_where_mirroring_needs_it() -> None:
    pattern = np.array(XTRANS_PATTERN)
    assert np.bincount(pattern.ravel()).tolist() == [8, 20, 8]
    assert all(set(line) == {0, 1, 2} for line in (*pattern, *pattern.T))  # every colour in every row and column
    for k in range(1, 6):
        for row in (0, 3):
            assert np.array_equal(pattern[(row + k) % 6], pattern[(row - k) % 6])
        for column in (2, 5):
            assert np.array_equal(pattern[:, (column + k) % 6], pattern[:, (column - k) % 6])


@pytest.mark.parametrize("cfa", ["RGGB", "XTRANS"])
def test_masks_tell_what_was_measured(cfa: str) -> None:
    contract, level = get_contract("cfa_masks_v1"), told(0.0, 0.0)
    rgb = torch.rand(1, 3, 24, 36)
    x = contract.encode(mosaic(rgb, cfa), *level, cfa)
    value, *one_hot = F.pixel_shuffle(x, 2)[0]
    assert torch.equal(torch.stack(one_hot), masks(24, 36, cfa)[0])
    assert torch.equal(torch.stack(one_hot).argmax(0), colours(24, 36, cfa))
    # Without a correction, every measured value comes back in its own colour.
    restored = contract.decode(x, torch.zeros(1, 12, 12, 18), *level)
    assert torch.allclose(mosaic(restored, cfa), mosaic(rgb, cfa), atol=1e-6)
    assert value.shape == (24, 36)


def test_unknown_cfa_is_refused() -> None:
    with pytest.raises(ZooError, match="unknown colour filter array 'RGBW'; the networks take RGGB and XTRANS"):
        colours(6, 6, "RGBW")
