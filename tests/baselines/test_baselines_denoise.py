"""Denoisers of the mosaic and the transform that they work in."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zoo.baselines import get_baseline
from zoo.baselines.denoise import (
    NlmSettings,
    anscombe,
    bm3d_mosaic,
    inverse_anscombe,
    nlm_mosaic,
    non_local_means,
)
from zoo.errors import ZooError

ISO3200, ISO12800 = (5e-3, 1.9e-4), (2e-2, 1.6e-3)


def noisy(clean: np.ndarray, shot: float, read: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.poisson(clean / shot) * shot + generator.normal(0, read**0.5, clean.shape)


@pytest.mark.parametrize("level", [(1.2e-3, 9.4e-6), ISO3200, ISO12800])
@pytest.mark.parametrize("x", [0.0, 0.01, 0.1, 0.6])
def test_transform_stabilises_and_its_inverse_is_unbiased(level, x):
    shot, read = level
    transformed = anscombe(noisy(np.full(400_000, x), shot, read), np.array(shot), np.array(read))
    assert transformed.std() == pytest.approx(1, abs=0.1)
    # The plain algebraic inverse would be a quarter of a count (S/4) too dark; the unbiased one is within 0.05 counts.
    back = inverse_anscombe(np.array(transformed.mean()), np.array(shot), np.array(read))
    assert abs(back - x) < 0.05 * shot


def test_inverse_of_values_below_black_stays_below_black():
    shot, read = (np.array(v) for v in ISO3200)
    assert inverse_anscombe(anscombe(np.array(-0.02), shot, read), shot, read) < -0.01


def direct_non_local_means(plane: np.ndarray, s: NlmSettings) -> np.ndarray:
    """The definition, pixel by pixel."""
    reach, half = s.search // 2, s.patch // 2
    border = reach + half
    z = np.pad(plane, border, mode="reflect")

    def patch(y: int, x: int) -> np.ndarray:
        return z[y - half : y + half + 1, x - half : x + half + 1]

    result = np.empty_like(plane)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            weights, values = [], []
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if dy or dx:
                        v, u = y + border + dy, x + border + dx
                        d2 = ((patch(v, u) - patch(y + border, x + border)) ** 2).mean()
                        weights.append(np.exp(-max(d2 - 2, 0) / s.h**2))
                        values.append(z[v, u])
            weights.append(max(weights))
            values.append(plane[y, x])
            result[y, x] = np.average(values, weights=weights)
    return result


@pytest.mark.parametrize("settings", [NlmSettings(0.8, 3, 5), NlmSettings(1.1, 5, 7), NlmSettings(1.0, 3, 3)])
def test_non_local_means_is_its_definition(settings):
    generator = np.random.default_rng(1)
    planes = generator.normal(0, 1, (2, 11, 14)) + 4 * (np.arange(14) > 6)
    result = non_local_means(planes, settings)
    for plane, expected in zip(result, planes, strict=True):
        assert np.allclose(plane, direct_non_local_means(expected, settings), atol=1e-4)


def test_non_local_means_keeps_constants_and_edges():
    plane = np.full((1, 24, 24), 3.0)
    plane[:, :, 12:] = 30
    assert np.allclose(non_local_means(plane, NlmSettings(1.0, 3, 7)), plane, atol=1e-4)


@pytest.mark.parametrize(("method", "size"), [("nlm", (64, 80)), ("nlm", (63, 79)), ("bm3d", (63, 79))])
def test_noise_of_a_flat_mosaic_goes_and_its_level_stays(method, size):
    if method == "bm3d":
        pytest.importorskip("bm3d")
    denoise = {"nlm": nlm_mosaic, "bm3d": bm3d_mosaic}[method]
    colours = np.full(size, 0.3)
    colours[0::2, 0::2], colours[1::2, 1::2] = 0.1, 0.2
    shot, read = ISO3200
    raw = noisy(colours, shot, read).astype(np.float32)
    result = denoise(raw, (shot,) * 3, (read,) * 3)
    assert result.shape == size and result.dtype == np.float32
    assert (result - colours).std() < 0.4 * (raw - colours).std()
    for y, x in ((0, 0), (0, 1), (1, 1)):
        assert result[y::2, x::2].mean() == pytest.approx(colours[y, x], rel=0.03)


def test_clean_raws_are_not_denoised():
    raw = np.random.default_rng(0).random((32, 32), np.float32)
    clean = (0.0, 0.0, 0.0)
    plain = get_baseline("menon")(raw, (1, 1, 1), clean, clean)
    assert (get_baseline("nlm+menon")(raw, (1, 1, 1), clean, clean) == plain).all()


def test_missing_bm3d_says_how_to_install_it_and_under_what_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ZooError, match=r"pip install 'raw-zoo\[bm3d\]' .*non-commercial"):
        bm3d_mosaic(np.zeros((8, 8), np.float32), (1, 1, 1), (1, 1, 1))
