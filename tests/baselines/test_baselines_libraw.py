"""LibRaw's demosaicers behind a written DNG: scale, place, sizes, what becomes of values outside 0..1."""

from __future__ import annotations

import numpy as np
import pytest
import rawpy

from zoo.baselines import get_baseline, libraw
from zoo.errors import ZooError

WB = (2.0, 1.0, 1.7)
CLEAN = (0.0, 0.0, 0.0)
STEP = 1 / 65535


def sample(rgb: np.ndarray) -> np.ndarray:
    """The RGGB mosaic of ``[3, H, W]``, float32."""
    mosaic = rgb[1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = rgb[0, 0::2, 0::2], rgb[2, 1::2, 1::2]
    return mosaic.astype(np.float32)


def gradient(height: int, width: int) -> np.ndarray:
    """Smooth in both directions, other slopes in each colour; 0.2..0.8."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, 0.7 - 0.3 * x + 0.1 * y])


def texture(height: int, width: int) -> np.ndarray:
    """Neutral bumps a few pixels wide, whose place is certain to a fraction of a pixel."""
    from scipy.ndimage import gaussian_filter

    grey = gaussian_filter(np.random.default_rng(0).random((height, width)), 2.0, mode="wrap")
    return np.repeat((0.1 + 0.8 * (grey - grey.min()) / np.ptp(grey))[None], 3, 0)


# AAHD is off by up to a step of the ramp (0.0075) at some pixels, an rms of 0.0011; a shift by one pixel has an rms of 0.005.
@pytest.mark.parametrize(
    ("algorithm", "worst", "rms"), [("AHD", 1e-4, 2e-5), ("DHT", 2e-3, 2e-4), ("AAHD", 0.015, 2e-3)]
)
@pytest.mark.parametrize("size", [(64, 80), (63, 81)])
def test_a_gradient_is_reproduced(algorithm, worst, rms, size):
    rgb = gradient(*size)
    made = libraw.demosaic(sample(rgb), algorithm)
    assert made.shape == rgb.shape and made.dtype == np.float32
    inner = (made - rgb)[:, 6:-6, 6:-6]  # mirrored at its edges, a ramp has a kink there
    assert np.abs(inner).max() < worst and np.sqrt((inner**2).mean()) < rms
    assert np.abs(inner.mean((1, 2))).max() < worst / 10


@pytest.mark.parametrize("algorithm", libraw.ALGORITHMS)
def test_the_picture_is_not_shifted(algorithm):
    rgb = texture(72, 90)
    made = libraw.demosaic(sample(rgb), algorithm)
    for colour in range(3):
        a, b = made[colour] - made[colour].mean(), rgb[colour] - rgb[colour].mean()
        found = np.fft.ifft2(np.fft.fft2(a) * np.fft.fft2(b).conj()).real
        assert np.unravel_index(found.argmax(), found.shape) == (0, 0)
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("algorithm", libraw.ALGORITHMS)
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (5, 9), (40, 33)])
def test_a_flat_patch_keeps_its_colours_on_an_absolute_scale_at_any_size(algorithm, size):
    colours = np.array([0.2, 0.5, 0.35])
    flat = np.broadcast_to(colours[:, None, None], (3, *size))
    made = libraw.demosaic(sample(flat), algorithm)
    assert made.shape == flat.shape and np.abs(made - flat).max() < 2 * STEP
    # Half the light, half the values: no exposure is chosen by the picture's brightest pixel.
    assert np.abs(libraw.demosaic(sample(flat / 2), algorithm) - flat / 2).max() < 2 * STEP


@pytest.mark.parametrize("algorithm", libraw.ALGORITHMS)
@pytest.mark.parametrize("value", [-0.05, 1.7])
def test_values_below_black_and_above_white_survive(algorithm, value):
    made = libraw.demosaic(np.full((24, 24), value, np.float32), algorithm)
    assert made == pytest.approx(value, abs=3 * STEP)


@pytest.mark.parametrize("algorithm", libraw.ALGORITHMS)
def test_noise_around_black_keeps_its_mean(algorithm):
    raw = np.random.default_rng(0).normal(0, 0.05, (96, 96)).astype(np.float32)
    made = libraw.demosaic(raw, algorithm)
    assert made.min() < -0.05
    for colour, (y, x) in enumerate([(0, 0), (0, 1), (1, 1)]):
        assert made[colour].mean() == pytest.approx(raw[y::2, x::2].mean(), abs=0.006)  # clipped at black: 0.02


@pytest.mark.parametrize("name", ["libraw-ahd", "libraw-dht", "libraw-aahd"])
def test_gains_are_applied_before_demosaicing(name):
    grey = np.linspace(0.1, 0.9, 80)[None, None].repeat(3, 0).repeat(48, 1)
    raw = sample(grey / np.array(WB)[:, None, None])
    made = get_baseline(name)(raw, WB, CLEAN, CLEAN)[:, 2:-2, 2:-2]
    assert np.abs(made - grey[:, 2:-2, 2:-2]).max() < 0.02
    assert np.abs(made - made.mean(0)).max() < 0.02  # unbalanced, R would be at half


def test_algorithms_differ():
    mosaic = sample(texture(64, 64) * np.array([1, 0.7, 0.4])[:, None, None])
    made = [libraw.demosaic(mosaic, a) for a in libraw.ALGORITHMS]
    assert all(np.abs(made[i] - made[j]).max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_what_libraw_refuses_is_one_line(monkeypatch):
    def refuse(*_: object) -> None:
        raise rawpy.LibRawFileUnsupportedError("Unsupported file format")

    monkeypatch.setattr(rawpy, "imread", refuse)
    with pytest.raises(ZooError, match=r"LibRaw's AHD did not develop the mosaic \(Unsupported file format\)"):
        libraw.demosaic(np.zeros((8, 8), np.float32), "AHD")
