"""Metrics against what they are by definition, and against an implementation by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from zoo.evaluation.metrics import MAX_PSNR, psnr, shadow_bias, ssim


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
