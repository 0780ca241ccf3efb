"""The contract around the networks: VST, linear demosaic, encoding and decoding."""

import pytest
import torch
import torch.nn.functional as F

from zoo.data.synth import mosaic
from zoo.models.contracts import bayer_vst
from zoo.raw import vst

LEVELS = [(0.0, 0.0), (1.2e-3, 9.4e-6), (5e-3, 1.9e-4), (2e-2, 1.6e-3), (0.0, 1e-4)]


def noise(shot: float, read: float, n: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((n, 3), shot), torch.full((n, 3), read)


@pytest.mark.parametrize(("shot", "read"), LEVELS)
def test_vst_is_inverted_for_negative_and_overexposed_values(shot: float, read: float) -> None:
    offset = vst.curve_offset(torch.tensor(shot), torch.tensor(read)).double()
    x = torch.linspace(-0.5, 3, 1000, dtype=torch.float64)
    y = vst.forward(x, offset)
    assert torch.allclose(vst.inverse(y, offset), x, atol=1e-12)
    assert (y.diff() > 0).all()
    assert torch.allclose(vst.forward(torch.tensor([0.0, 1.0]).double(), offset), torch.tensor([0.0, 1.0]).double())


def test_vst_slope_is_its_derivative() -> None:
    offset = torch.tensor(0.02, dtype=torch.float64)
    x = torch.linspace(-0.1, 1, 50, dtype=torch.float64, requires_grad=True)
    vst.forward(x, offset).sum().backward()
    assert torch.allclose(x.grad, vst.slope(x.detach(), offset))


@pytest.mark.parametrize(("shot", "read"), LEVELS[1:4])
def test_vst_stabilises_noise(shot: float, read: float) -> None:
    generator = torch.Generator().manual_seed(0)
    offset = vst.curve_offset(torch.tensor(shot), torch.tensor(read))
    stated = vst.noise_std(0.18, torch.tensor(shot), torch.tensor(read), offset)
    for level in (0.02, 0.1, 0.5, 0.9):
        x = level + (shot * level + read) ** 0.5 * torch.randn(200_000, generator=generator)
        assert vst.forward(x, offset).std() == pytest.approx(float(stated), rel=0.12)


def test_linear_demosaic_keeps_samples_and_reproduces_planes() -> None:
    # Malvar's filters are exact for colours that vary linearly with a common slope.
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    ramp = 0.01 * y + 0.02 * x
    rgb = torch.stack([0.1 + ramp, 0.3 + ramp, 0.2 + ramp])[None]
    out = F.pixel_shuffle(bayer_vst.linear_demosaic(mosaic(rgb)), 2)
    assert torch.allclose(out[..., 4:-4, 4:-4], rgb[..., 4:-4, 4:-4], atol=1e-5)
    planes = torch.rand(2, 4, 8, 8)
    assert torch.equal(mosaic(F.pixel_shuffle(bayer_vst.linear_demosaic(planes), 2)), planes)


def test_summed_demosaic_is_the_convolution_and_the_same_in_any_tile() -> None:
    planes = torch.rand(2, 4, 41, 60) - 0.1
    whole = bayer_vst._summed_demosaic(planes)
    assert torch.allclose(whole, bayer_vst.linear_demosaic(planes), atol=1e-6)
    assert torch.equal(bayer_vst._summed_demosaic(planes[:, :, 3:20, 5:38])[:, :, 1:-1, 1:-1], whole[:, :, 4:19, 6:37])


def test_no_correction_gives_the_linear_demosaic_of_the_stabilised_planes() -> None:
    planes = torch.rand(1, 4, 8, 8) - 0.05
    shot, read = noise(1e-3, 1e-5)
    x = bayer_vst.encode(planes, shot, read)
    rgb = bayer_vst.decode(x, torch.zeros(1, 12, 8, 8), shot, read)
    assert x.shape == (1, bayer_vst.IN_CHANNELS, 8, 8)
    assert rgb.shape == (1, 3, 16, 16)
    # Measured samples come back unclipped, negative ones too.
    assert torch.allclose(mosaic(rgb), planes, atol=1e-5)
    assert (mosaic(rgb) < 0).any()


def test_black_stays_black() -> None:
    shot, read = noise(5e-3, 2e-4)
    x = bayer_vst.encode(torch.zeros(1, 4, 8, 8), shot, read)
    assert bayer_vst.decode(x, torch.zeros(1, 12, 8, 8), shot, read).abs().max() == 0


@pytest.mark.parametrize(("shot", "read"), LEVELS)
def test_encoded_input_fits_one_int8_range(shot: float, read: float) -> None:
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(4, 4, 32, 32, generator=generator)
    noisy = clean + (shot * clean + read).sqrt() * torch.randn(clean.shape, generator=generator)
    x = bayer_vst.encode(noisy, *noise(shot, read, 4))
    assert x.isfinite().all()
    assert x.abs().max() < 2


def test_noise_planes_tell_levels_apart() -> None:
    planes = torch.full((1, 4, 4, 4), 0.2)
    told = [bayer_vst.encode(planes, *noise(s, o))[0, 8:, 0, 0] for s, o in LEVELS[:4]]
    for weaker, stronger in zip(told, told[1:], strict=False):
        assert (stronger[:3] > weaker[:3] + 0.05).all()
