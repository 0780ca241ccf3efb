"""How peers' networks are shown a raw: stabilised and encoded values, phases, edges, and what the noise is said to be."""

from __future__ import annotations

import numpy as np
import peers_methods as methods
import pytest
import torch
from peers_nets import CascadeDemosaic, DemosaicNet
from torch import Tensor, nn

WB = (2.0, 1.0, 1.7)
CLEAN = (0.0, 0.0, 0.0)
NOISY = ((5e-3,) * 3, (1.9e-4,) * 3)


def test_stabilised_noise_has_the_sigma_that_is_told():
    values = methods.Stabilised.of(WB, *NOISY, most=0.5)
    assert values.forward(np.zeros(1, np.float32)) == pytest.approx(0, abs=1e-6)
    assert values.forward(np.ones(1, np.float32)) == pytest.approx(1, abs=1e-6)
    generator = np.random.default_rng(0)
    for x in (0.05, 0.3, 0.8):  # balanced, of the mean pixel that the curve is for
        shot, read = values.shot, values.read
        noisy = generator.poisson(x / shot, 200_000) * shot + generator.normal(0, read**0.5, 200_000)
        shown = values.forward(noisy.astype(np.float32))
        assert shown.std() == pytest.approx(values.sigma, rel=0.05)
        assert values.inverse(shown.mean(keepdims=True)) == pytest.approx(x, abs=0.05 * shot)


def test_more_noise_than_the_network_knows_darkens_the_picture():
    values = methods.Stabilised.of(WB, *NOISY, most=0.02)
    assert values.sigma == pytest.approx(0.02)
    white = values.forward(np.ones(1, np.float32))
    assert 0.2 < white[0] < 0.5
    assert values.inverse(white) == pytest.approx(1, abs=0.01)


class Spy(nn.Module):
    """In the place of DemosaicNet: gives back the mosaic that it sees in all three channels, and keeps what it is given."""

    margin, noise_aware = DemosaicNet.margin, True

    def forward(self, planes: Tensor, sigma: Tensor | None = None) -> Tensor:
        self.planes, self.sigma = planes, sigma
        m = self.margin
        return planes.sum(1, keepdim=True).repeat(1, 3, 1, 1)[..., m:-m, m:-m]


@pytest.mark.parametrize("size", [(40, 46), (41, 45), (70, 33), (2, 3)])
def test_demosaicnet_gets_green_first_and_its_result_lies_where_the_mosaic_does(size):
    raw = np.random.default_rng(0).random(size, np.float32)
    spy = Spy()
    rgb = methods.run_demosaicnet(spy, raw, 0.03)  # type: ignore[arg-type]
    assert rgb.shape == (3, *size) and (rgb == raw).all()
    planes = spy.planes[0].numpy()
    # The raw is RGGB and begins an odd number of columns and an even number of rows from the planes' start.
    y, x = spy.margin + 1, spy.margin + 2
    assert planes[0, y, x] == raw[0, 0] and planes[1, y, x + 1] == raw[0, 1]
    assert planes[1, y + 1, x] == raw[1, 0] and planes[2, y + 1, x + 1] == raw[1, 1]
    assert (planes != 0).sum(0).max() == 1
    assert spy.sigma is not None and spy.sigma.unique().tolist() == pytest.approx([0.03])


def test_no_noise_plane_for_a_network_that_takes_none():
    spy = Spy()
    spy.noise_aware = False
    methods.run_demosaicnet(spy, np.zeros((8, 8), np.float32), 0.1)  # type: ignore[arg-type]
    assert spy.sigma is None


@pytest.mark.parametrize("size", [(24, 30), (25, 31)])
def test_cascade_keeps_place_and_scale(size):
    net = CascadeDemosaic(steps=2, depth=2)
    for parameter in net.denoiser.leave.parameters():
        nn.init.zeros_(parameter)
    rgb = methods.run_cascade(net, np.full(size, 0.4, np.float32), 0.01)
    assert rgb.shape == (3, *size) and np.allclose(rgb, 0.4, atol=1e-5)
    raw = np.random.default_rng(0).random(size, np.float32)
    rgb = methods.run_cascade(net, raw, 0.01)
    assert np.allclose(rgb[0, 0::2, 0::2], raw[0::2, 0::2], atol=1e-5)
    assert np.allclose(rgb[2, 1::2, 1::2], raw[1::2, 1::2], atol=1e-5)


def three_times(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[None], 3, 0)


def test_encoded_values_come_back():
    seen = []

    def run(values: np.ndarray) -> np.ndarray:
        seen.append(values)
        return three_times(values)

    balanced = np.array([[-0.1, 0.0], [0.18, 1.3]], np.float32)
    made = methods.in_srgb(run)(balanced)
    assert np.allclose(made[1], balanced, atol=1e-6)
    assert seen[0][1, 0] == pytest.approx(0.461, abs=1e-3) and seen[0][0, 0] < -0.3


def test_joint_method_tells_the_noise_and_leaves_a_clean_raw_to_the_other():
    told = []

    def run(values: np.ndarray, sigma: float) -> np.ndarray:
        told.append(sigma)
        return three_times(values)

    method = methods.joint_method(run, lambda balanced: three_times(balanced) + 1, most=0.04)
    raw = np.full((8, 8), 0.25, np.float32)
    clean = method(raw, WB, CLEAN, CLEAN)
    assert not told and clean[0, 0, 0] == pytest.approx(1.5) and clean[2, 1, 1] == pytest.approx(1.425)
    noisy = method(raw, WB, *NOISY)
    assert told == [pytest.approx(0.04)]  # 0.054 at this noise, were it not held
    # Unbiased: the inverse takes values for means of noisy ones, which lie a quarter of a count or less above their curve.
    assert noisy[0, 0, 0] == pytest.approx(0.5, abs=3e-3) and noisy[1, 0, 1] == pytest.approx(0.25, abs=3e-3)


def test_denoiser_is_left_out_of_clean_raws_only():
    method = methods.demosaic_method(three_times, lambda mosaic, shot, read: mosaic + 1)
    raw = np.zeros((4, 4), np.float32)
    assert (method(raw, WB, CLEAN, CLEAN) == 0).all()
    assert method(raw, WB, *NOISY)[0].max() == 2  # R, denoised before it is balanced


@pytest.mark.parametrize("size", [(40, 70), (31, 45), (64, 64), (6, 7)])
def test_pmrid_sees_ksigma_planes_of_a_size_that_it_takes(size):
    shapes, levels = [], []

    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shapes.append(tuple(x.shape))
            levels.append(x.mean().item())
            return x

    raw = np.random.default_rng(0).random(size, np.float32) - 0.2
    result = methods.pmrid_denoiser(Same())(raw, *NOISY)
    assert np.allclose(result, raw, atol=1e-6) and result.dtype == np.float32
    ((_, channels, height, width),) = shapes
    assert channels == 4 and height % 32 == width % 32 == 0 and min(height, width) >= 32
    # k-Sigma by its definition, 256 (x k_a / k + (s2 / k^2 - s2_a / k_a^2) k_a) / V with the sensor's V, k_a, s2_a.
    big, k_a, s_a = 959.0, 0.0005995267 * 1600 + 0.00868861, 7.11772e-7 * 1600**2 + 6.514934e-4 * 1600 + 0.11492713
    k, s = NOISY[0][0] * big, NOISY[1][0] * big**2
    flat = np.full((32, 32), 0.1, np.float32)
    methods.pmrid_denoiser(Same())(flat, *NOISY)
    assert levels[-1] == pytest.approx(256 * (0.1 * big * k_a / k + (s / k**2 - s_a / k_a**2) * k_a) / big, rel=1e-5)


def test_balance_leaves_its_input_alone():
    raw = np.ones((3, 3), np.float32)
    assert methods.balance(raw, WB)[0, 0] == 2 and methods.balance(raw, WB)[1, 1] == np.float32(1.7)
    assert (raw == 1).all() and torch.is_grad_enabled()
