"""Metrics against what they are by definition, and against an implementation by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from zoo.evaluation.metrics import MAX_PSNR, psnr, shadow_bias, ssim, ssim_and_ms_ssim, texture_kept


def test_psnr_of_a_known_error():
    reference = torch.rand(3, 20, 20)
    assert psnr(reference + 0.1, reference) == pytest.approx(20, abs=1e-4)
    assert psnr(reference - 0.01, reference) == pytest.approx(40, abs=1e-3)
    half = reference.clone()
    half[:, :10] += 0.1  # half of the pixels: half of the mean squared error, 3.01 dB
    assert psnr(half, reference) == pytest.approx(23.0103, abs=1e-3)


def test_psnr_of_no_error_is_finite():
    assert psnr(torch.ones(3, 8, 8), torch.ones(3, 8, 8)) == MAX_PSNR


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.2, 0.6), (0.0, 1.0)])
def test_ssim_of_constants_is_its_luminance_term(a, b):
    value = ssim(torch.full((3, 16, 16), a), torch.full((3, 16, 16), b))
    assert value == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-5)


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """What scikit-image computes with gaussian_weights=True, use_sample_covariance=False, sigma=1.5, data_range=1."""

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, 1.5, truncate=3.5)

    values = []
    for a, b in zip(x.astype(np.float64), y.astype(np.float64), strict=True):
        ma, mb = blur(a), blur(b)
        va, vb, vab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
        value = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))
        values.append(value[5:-5, 5:-5].mean())
    return float(np.mean(values))


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
def test_ssim_equals_the_published_definition(sigma):
    generator = np.random.default_rng(0)
    smooth = np.stack([gaussian_filter(generator.random((60, 47)), 3) for _ in range(3)])
    x = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    y = (x + generator.normal(0, sigma, x.shape)).clip(0, 1).astype(np.float32)
    assert ssim(torch.from_numpy(y), torch.from_numpy(x)) == pytest.approx(reference_ssim(y, x), abs=1e-5)


def test_ssim_of_the_same_picture_is_one():
    picture = torch.rand(3, 30, 30)
    assert ssim(picture, picture) == pytest.approx(1, abs=1e-6)


def noisy_pair(height: int, width: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture with some detail, and the same with noise, both in [0, 1]."""
    generator = np.random.default_rng(1)
    layers = [gaussian_filter(generator.random((3, height, width)), (0, s, s)) * s for s in (1, 4, 12)]
    x = np.sum(layers, axis=0)
    x = ((x - x.min()) / np.ptp(x)).astype(np.float32)
    y = (x + generator.normal(0, sigma, x.shape)).clip(0, 1).astype(np.float32)
    return torch.from_numpy(y), torch.from_numpy(x)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("size", [(176, 192), (240, 208)])
def test_ms_ssim_equals_another_implementation(size, sigma):
    # Sides that halve evenly four times: at odd ones the other pads with zeros, which the paper does not.
    other = pytest.importorskip("pytorch_msssim")
    y, x = noisy_pair(*size, sigma)
    single, multi = ssim_and_ms_ssim(y, x)
    assert single == ssim(y, x)
    expected = other.ms_ssim(y[None].double(), x[None].double(), data_range=1.0)
    assert multi == pytest.approx(float(expected), abs=1e-6)


def test_ms_ssim_of_constants_is_the_luminance_of_the_coarsest_scale():
    # No structure anywhere: contrast terms are 1, and what is left is luminance to the power 0.1333.
    _, multi = ssim_and_ms_ssim(torch.full((3, 177, 180), 0.2), torch.full((3, 177, 180), 0.6))
    assert multi == pytest.approx(((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)) ** 0.1333, abs=1e-6)


def test_ms_ssim_of_a_negative_is_not_a_number_with_a_root():
    x = noisy_pair(176, 176, 0.1)[1]
    assert ssim_and_ms_ssim(1 - x, x)[1] == 0


def test_texture_kept_is_the_amplitude_that_is_left():
    x = noisy_pair(200, 200, 0)[1]
    blurred = x - 0.3 * (x - torch.from_numpy(gaussian_filter(x.numpy(), (0, 1.5, 1.5), truncate=3.5)))
    assert texture_kept(x, x) == 1
    assert 0.7 < texture_kept(blurred, x) < 0.85  # 0.7 of the finest; of the coarser less was taken
    assert texture_kept(0.5 + 0.4 * (x - 0.5), x) == pytest.approx(0.4, abs=1e-5)
    assert texture_kept(torch.full_like(x, 0.5), x) == pytest.approx(0, abs=1e-6)


def test_noise_is_no_texture():
    x = noisy_pair(400, 400, 0)[1]
    noise = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(x, 0.5) + noise
    detail = (x - torch.from_numpy(gaussian_filter(x.numpy(), (0, 1.5, 1.5)))).std()
    assert noise.std() > 2 * detail  # so that it would count for much if it did
    assert texture_kept(x + noise, x) == pytest.approx(1, abs=0.06)
    assert texture_kept(flat, x) == pytest.approx(0, abs=0.06)


def test_texture_of_a_flat_reference_is_whole():
    flat = torch.full((3, 64, 64), 0.25)
    assert texture_kept(flat, flat) == 1


def test_shadow_bias_is_relative_to_the_darkest_tenth_and_signed():
    luminance = torch.full((10, 10), 0.5)
    luminance[3] = 0.04
    reference = luminance.expand(3, -1, -1).clone()
    picture = reference.clone()
    picture[0, 3] += 0.002
    picture[2, 3] -= 0.004
    picture[1, :3] += 0.3  # not in the shadows
    assert shadow_bias(picture, reference, luminance) == pytest.approx((0.05, 0.0, -0.1), abs=1e-6)


def test_shadow_bias_of_true_black_is_finite():
    black = torch.zeros(3, 20, 20)
    assert shadow_bias(black + 1e-5, black, black[0]) == pytest.approx((0.01, 0.01, 0.01), rel=1e-4)
