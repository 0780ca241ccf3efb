"""A typical phone's main camera: what pictures are unprocessed to, and synthetic scenes are photographed with."""

from __future__ import annotations

WHITE_BALANCE = (2.0, 1.0, 1.7)  # daylight gains
# Balanced camera RGB -> linear sRGB: the mean of 404 tuning matrices of 65 sensors (libcamera). Rows sum to 1: white stays white.
CAMERA_TO_SRGB = ((1.81, -0.55, -0.26), (-0.43, 1.88, -0.45), (-0.03, -0.81, 1.84))
# (S, O) of var = S*x + O in raw units; medians of measured phones up to ISO 3200, ISO 12,800 by the same law.
NOISE_LEVELS: dict[str, tuple[float, float]] = {
    "clean": (0.0, 0.0),
    "iso800": (1.2e-3, 9.4e-6),
    "iso3200": (5e-3, 1.9e-4),
    "iso12800": (2e-2, 1.6e-3),
}
