"""The slanted edge: its MTF50 against what Gaussian optics say it must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import erf

from zoo.evaluation import bed, edge
from zoo.raw import srgb_decode


def blurred(sigma: float) -> np.ndarray:
    """The edge of the bed, linear, with a total blur of ``sigma`` pixels."""
    y, x = np.mgrid[0 : edge.SIZE[0], 0 : edge.SIZE[1]]
    angle = math.radians(5)
    distance = (x - (edge.SIZE[1] - 1) / 2) * math.cos(angle) - (y - (edge.SIZE[0] - 1) / 2) * math.sin(angle)
    return 0.25 + 0.15 * erf(distance / (sigma * math.sqrt(2)))


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 1.5, 2.5])
def test_mtf50_of_a_gaussian_blur(sigma):
    # exp(-2 (pi f sigma)^2) = 1/2
    expected = math.sqrt(math.log(2) / 2) / (math.pi * sigma)
    assert edge.mtf50(blurred(sigma)) == pytest.approx(expected, rel=0.02)


def test_picture_of_the_edge_has_the_stated_levels_and_sharpness():
    linear = srgb_decode(edge.scene())
    assert linear.shape == (*edge.SIZE, 3) and (linear[..., 0] == linear[..., 2]).all()
    assert linear.min() == pytest.approx(edge.DARK, abs=1e-4) and linear.max() == pytest.approx(edge.BRIGHT, abs=1e-4)
    assert edge.mtf50(linear[..., 1]) == pytest.approx(0.375, abs=0.004)


def test_perfect_method_has_the_references_sharpness_and_a_blurring_one_less():
    truth = bed.make_scene(edge.scene(), edge.NAME, "clean").truth
    soft = np.repeat(blurred(1.0)[None], 3, axis=0).astype(np.float32)
    assert edge.measure(lambda *_: truth, "iso3200") == {"mtf50": pytest.approx(0.375, abs=0.004)}
    assert edge.measure(lambda *_: soft, "iso3200") == {"mtf50": pytest.approx(0.187, abs=0.004)}


def test_noise_in_the_result_moves_mtf50_little():
    # As much as is left of ISO 3200 after a denoiser, sigma 0.02; without one, 0.1, it is read within 0.08.
    truth = bed.make_scene(edge.scene(), edge.NAME, "clean").truth
    for sigma, tolerance in ((0.02, 0.015), (0.1, 0.08)):
        noise = np.random.default_rng(0).normal(0, sigma, truth.shape).astype(np.float32)
        assert edge.measure(lambda *_, n=noise: truth + n, "clean")["mtf50"] == pytest.approx(0.375, abs=tolerance)
