"""A synthetic scene of our own: what tests, parity checks and examples look at where no photos are at hand."""

from __future__ import annotations

import numpy as np

from zoo.raw.image import RawImage
from zoo.raw.noise import NoiseProfile
from zoo.raw.typical import CAMERA_TO_SRGB, WHITE_BALANCE

BLACK, WHITE = 256, 4095  # a 12-bit sensor


def linear_scene(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Smooth gradients, a zone plate, slanted edges, fine text-like bars, coloured discs and deep shadow.

    Args:
        height, width: in pixels.
        seed: of colours and positions.

    Returns:
        float32 ``[height, width, 3]``, white-balanced linear camera RGB in [0, 1].
    """
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    rgb = np.stack([0.25 + 0.3 * x, 0.3 + 0.2 * y, 0.35 - 0.2 * x * y], -1)
    radius2 = (x - 0.25) ** 2 + (y - 0.3) ** 2
    # The zone plate's frequency reaches Nyquist (0.5 cycles/px) at a fifth of the shorter side.
    plate = 0.5 + 0.5 * np.cos(np.pi * radius2 * min(height, width) / 0.4)
    rgb = np.where((radius2 < 0.04)[..., None], 0.05 + 0.8 * plate[..., None], rgb)
    slant = (x - 0.7) + 0.12 * (y - 0.3)
    rgb = np.where(
        ((abs(x - 0.7) < 0.2) & (abs(y - 0.25) < 0.17))[..., None], np.where(slant > 0, 0.75, 0.04)[..., None], rgb
    )
    bars = (np.arange(width) // 3 % 2)[None, :] * (np.arange(height) // 12 % 2)[:, None]
    rgb = np.where(((y > 0.75) & (x > 0.5))[..., None], (0.08 + 0.6 * bars)[..., None] * [1.0, 0.95, 0.8], rgb)
    for _ in range(12):
        centre, size = rng.uniform(0.05, 0.95, 2), rng.uniform(0.02, 0.06)
        colour = rng.uniform(0.02, 0.9, 3)
        rgb = np.where(((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < size**2)[..., None], colour, rgb)
    rgb = np.where(((y > 0.55) & (y < 0.7))[..., None], 0.002 + 0.02 * x[..., None] * [1.0, 1.0, 0.7], rgb)
    return rgb.astype(np.float32)


def synthetic_raw(
    height: int, width: int, *, cfa: str = "RGGB", shot: float = 1.2e-3, read: float = 9.4e-6, seed: int = 0
) -> RawImage:
    """A noisy 12-bit mosaic of :func:`linear_scene`.

    Args:
        height, width: in sensor pixels; odd ones too.
        cfa: Bayer phase.
        shot, read: noise variance ``shot * x + read`` in units of white, before white balance.
        seed: of scene and noise.
    """
    colour = {"R": 0, "G": 1, "B": 2}
    rgb = linear_scene(height, width, seed=seed) / np.array(WHITE_BALANCE, np.float32)
    clean = np.empty((height, width), np.float32)
    for position, letter in enumerate(cfa):
        rows, columns = slice(position // 2, None, 2), slice(position % 2, None, 2)
        clean[rows, columns] = rgb[rows, columns, colour[letter]]
    rng = np.random.default_rng(seed + 1)
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(shot * clean + read)
    mosaic = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE).astype(np.uint16)
    return RawImage(
        mosaic=mosaic,
        cfa=cfa,
        black=(float(BLACK),) * 4,
        white=(float(WHITE),) * 4,
        wb=WHITE_BALANCE,
        xyz_to_cam=_xyz_to_camera(),
        iso=None,
        noise=NoiseProfile((shot,) * 3, (read,) * 3, "given"),
        orientation=1,
        metadata={"make": "zoo", "model": "synthetic"},
        path="synthetic",
    )


def _xyz_to_camera() -> np.ndarray:
    """XYZ (D65) -> camera for which balanced camera RGB turns into sRGB by :data:`CAMERA_TO_SRGB`."""
    srgb_to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    balanced = np.linalg.inv(np.array(CAMERA_TO_SRGB)) @ np.linalg.inv(srgb_to_xyz)
    return balanced / np.array(WHITE_BALANCE)[:, None]
