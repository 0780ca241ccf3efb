from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from zoo.raw import NoiseProfile, camera_noise, estimate_noise, generic_noise, read_raw
from zoo.raw.noise import choose_noise


def scene(seed: int = 0, size: tuple[int, int] = (360, 480)) -> np.ndarray:
    """Clean planes (4, h, w) in [0, 1]: slopes and discs of many levels, with texture on the lower half."""
    rng = np.random.default_rng(seed)
    h, w = size
    y, x = np.mgrid[0:h, 0:w]
    light = 0.02 + 0.5 * (x / w) ** 2 + 0.1 * y / h
    for _ in range(12):
        cy, cx, radius = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(20, 60)
        light = np.where((y - cy) ** 2 + (x - cx) ** 2 < radius**2, rng.uniform(0.01, 0.9), light)
    texture = ndimage.gaussian_filter(rng.normal(size=(h, w)), 1.5) * 0.8
    light = np.where(y > h / 2, light * np.exp(texture), light)
    return np.stack([light * gain for gain in (0.6, 1.0, 1.0, 0.7)])


def expose(clean: np.ndarray, shot: float, read: float, seed: int = 1, levels: int = 4095) -> np.ndarray:
    """A noisy exposure of clean planes, quantised, saturating at white."""
    rng = np.random.default_rng(seed)
    noisy = shot * rng.poisson(clean / shot) + rng.normal(0, read**0.5, clean.shape)
    return np.round(np.minimum(noisy, 1) * levels) / levels


def estimate(planes: np.ndarray) -> NoiseProfile:
    profile = estimate_noise(planes)
    assert profile is not None
    assert profile.source == "estimated"
    return profile


@pytest.mark.parametrize("shot", [1e-4, 5e-4, 2e-3, 8e-3, 2e-2])
@pytest.mark.parametrize("seed", [0, 1])
def test_known_noise_is_found_in_a_picture(shot: float, seed: int) -> None:
    read = 1e-6 + 5 * shot**2
    profile = estimate(expose(scene(seed), shot, read, seed))
    np.testing.assert_allclose(profile.shot, shot, rtol=0.25)
    np.testing.assert_allclose(profile.read, read, rtol=0.6)


def test_each_colour_has_its_own_noise() -> None:
    clean = scene()
    colours = [(clean[:1], 2e-3, 4e-6), (clean[1:3], 1e-3, 1e-6), (clean[3:], 1.5e-3, 2e-6)]
    planes = np.concatenate([expose(part, shot, read) for part, shot, read in colours])
    np.testing.assert_allclose(estimate(planes).shot, (2e-3, 1e-3, 1.5e-3), rtol=0.25)


def test_flat_field_of_one_level() -> None:
    flat = np.full((4, 200, 200), 0.3)
    np.testing.assert_allclose(estimate(expose(flat, 1e-3, 2e-6)).shot, 1e-3, rtol=0.1)


def test_clipped_light_hot_pixels_and_clipped_black_do_not_disturb() -> None:
    clean = scene() * 1.6  # a quarter of the picture saturates
    clean[:, :80, :80] = 0.0
    planes = np.maximum(expose(clean, 1e-3, 1e-5), 0)  # the camera clips at black
    planes.reshape(-1)[np.random.default_rng(2).integers(0, planes.size, 500)] = 1.0
    profile = estimate(planes)
    np.testing.assert_allclose(profile.shot, 1e-3, rtol=0.25)
    np.testing.assert_allclose(profile.read, 1e-5, rtol=0.6)


def test_saturation_below_the_stated_white() -> None:
    planes = np.minimum(expose(scene() * 1.6, 1e-3, 1e-5), 0.85)
    planes += np.random.default_rng(0).normal(0, 5e-4, planes.shape) * (planes == 0.85)  # nearly noiseless plateau
    np.testing.assert_allclose(estimate(planes).shot, 1e-3, rtol=0.25)


def test_too_little_evidence() -> None:
    rng = np.random.default_rng(0)
    assert estimate_noise(rng.normal(0, 1e-3, (4, 200, 200))) is None  # dark frame
    assert estimate_noise(expose(scene(), 1e-3, 1e-6)[:, :20, :20]) is None  # tiny
    assert estimate_noise(np.zeros((4, 4, 4))) is None
    assert estimate_noise(np.full((4, 100, 100), 0.5)) is None  # no noise at all
    foliage = 0.3 * np.exp(ndimage.gaussian_filter(rng.normal(size=(4, 300, 300)), (0, 1, 1)))
    assert estimate_noise(expose(foliage, 1e-4, 1e-7)) is None  # texture everywhere
    smoothed = ndimage.uniform_filter(expose(scene(), 1e-3, 1e-6), (0, 3, 3))
    assert estimate_noise(smoothed) is None  # noise that is no longer white


def test_twelve_megapixels_within_a_second_and_a_half() -> None:
    planes = np.tile(expose(scene(), 1e-3, 1e-6), (1, 4, 4))[:, :1500, :2000].astype(np.float32)
    start = time.perf_counter()
    estimate(planes)
    assert time.perf_counter() - start < 1.5  # measured: 0.06 s


def test_static_pairs_against_the_variance_of_frames(data_dir: Path) -> None:
    path = data_dir / "raw" / "d455_static_pairs.npz"
    with np.load(path) as archive:
        truth, variance = archive["gt_x32"] / 32 / 1023, archive["var"].astype(np.float64) / 1023**2
    profiles = [estimate(read_raw(path, frame=frame).packed()[0]) for frame in range(8)]
    slopes = []
    for sites in ([(0, 1)], [(0, 0), (1, 1)], [(1, 0)]):  # R, G, B of GRBG
        x = np.concatenate([truth[y::2, x::2].ravel() for y, x in sites])
        v = np.concatenate([variance[y::2, x::2].ravel() for y, x in sites])
        used = (x > 0.005) & (x < 0.5)
        slopes.append(np.polyfit(x[used], v[used], 1, w=1 / (1.6e-4 * x[used] + 6e-7))[0])
    shots = np.array([p.shot for p in profiles])
    np.testing.assert_allclose(shots.mean(axis=0), slopes, rtol=0.25)  # by colour
    np.testing.assert_allclose(shots.mean(axis=1), np.mean(slopes), rtol=0.25)  # by frame: 0.06 MP of each colour
    assert np.mean([p.read for p in profiles]) == pytest.approx(6e-7, rel=0.5)


@pytest.mark.parametrize("name", ["imx296_flat", "imx296_checker"])
def test_flats_against_photon_transfer(data_dir: Path, name: str) -> None:
    profile = estimate(read_raw(data_dir / "raw" / f"{name}.npz").packed()[0])
    np.testing.assert_allclose(profile.shot, 0.094 / 963, rtol=0.25)  # 170 frames: var = 0.20 + 0.094 (x - 60) DN^2
    np.testing.assert_allclose(profile.read, 0.20 / 963**2, rtol=0.6)


def test_burst_against_its_differences(data_dir: Path) -> None:
    path = data_dir / "raw" / "seestar_m94_burst.npz"
    with np.load(path) as archive:
        frames = archive["mosaic"].astype(np.float64)
    difference = np.diff(frames, axis=0)
    robust = np.median(np.abs(difference - np.median(difference, axis=(1, 2), keepdims=True))) / 0.6745
    sky = (np.median(frames) - 615) / (65535 - 615)
    profile = estimate(read_raw(path).packed()[0])
    assert profile.shot[1] * sky + profile.read[1] == pytest.approx(robust**2 / 2 / (65535 - 615) ** 2, rel=0.25)


def test_wrong_tag_of_a_phone_is_overruled(data_dir: Path) -> None:
    for name in ("ceiling", "fabric"):
        noise = read_raw(data_dir / "raw" / f"phone_a71_iso500_{name}.npz").noise  # its tag says 2.23e-3
        assert noise.source == "estimated"
        assert all(4e-4 < s < 9e-4 for s in noise.shot)


def test_choice_between_tag_picture_and_table() -> None:
    def profile(shot: float, source: str) -> NoiseProfile:
        return NoiseProfile((shot,) * 3, (1e-6,) * 3, source)

    seen = profile(1e-3, "estimated")
    assert choose_noise(profile(2e-3, "tag"), 100, seen).source == "tag"
    assert choose_noise(profile(2.6e-3, "tag"), 100, seen) is seen
    assert choose_noise(profile(3.9e-4, "table"), 100, seen) is seen
    assert choose_noise(profile(0.5, "tag"), 100, None).source == "tag"
    assert choose_noise(None, 100, seen) is seen
    assert choose_noise(None, 100, None) == generic_noise(100)


@pytest.mark.parametrize("iso", [100, 200, 800, 3200, 6400, 12800])
def test_table_follows_the_published_calibration(iso: int) -> None:
    profile = camera_noise("OPPO Reno 10x Zoom", iso)
    assert profile is not None
    assert profile.source == "table"
    k, sigma2 = 0.0005995267 * iso + 0.00868861, 7.11772e-7 * iso**2 + 6.514934e-4 * iso + 0.11492713  # PMRID
    assert profile.shot[0] == pytest.approx(k / 959, rel=0.05)
    assert profile.read[0] == pytest.approx(sigma2 / 959**2, rel=0.25)


def test_table_knows_its_cameras_only() -> None:
    assert camera_noise("Raspberry Pi Global Shutter camera (IMX296)", None) is None
    assert camera_noise("Canon EOS R5", 100) is None
    assert generic_noise(800).shot == pytest.approx((1.2e-3,) * 3)
    assert generic_noise(6400).shot[0] == pytest.approx(2 * 5.1e-3)
    assert generic_noise(None) == generic_noise(400)


def test_balanced_scales_shot_and_read() -> None:
    got = NoiseProfile((1e-3, 2e-3, 3e-3), (1e-6, 2e-6, 3e-6), "tag").balanced((2.0, 1.0, 3.0))
    assert got.shot == pytest.approx((2e-3, 2e-3, 9e-3))
    assert got.read == pytest.approx((4e-6, 2e-6, 27e-6))
    assert got.source == "tag"
