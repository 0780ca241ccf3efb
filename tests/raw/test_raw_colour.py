from __future__ import annotations

import numpy as np
import pytest

from zoo.raw import apply_orientation, camera_to_srgb_matrix, srgb_decode, srgb_encode
from zoo.raw.colour import D65, SRGB_TO_XYZ

# Canon EOS D30, Adobe's D65 matrix
CANON = np.array([[0.99, -0.2771, -0.1324], [-0.7072, 1.4229, 0.314], [-0.279, 0.3344, 0.8861]])


@pytest.mark.parametrize("wb", [(2.0, 1.0, 1.5), (1.2, 1.0, 3.0), (9.0, 1.0, 0.1)])
def test_white_stays_white(wb: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(camera_to_srgb_matrix(CANON, wb) @ np.ones(3), np.ones(3), atol=1e-6)


def test_in_daylight_it_inverts_the_camera() -> None:
    wb = 1 / (CANON @ D65)
    for srgb in np.eye(3) * 0.5 + 0.1:
        balanced = wb * (CANON @ SRGB_TO_XYZ @ srgb)
        np.testing.assert_allclose(camera_to_srgb_matrix(CANON, wb) @ balanced, srgb, atol=1e-5)


def test_implausible_gains_fall_back_to_daylight() -> None:
    daylight = camera_to_srgb_matrix(CANON, 1 / (CANON @ D65))
    np.testing.assert_allclose(camera_to_srgb_matrix(CANON, (0.05, 1.0, 40.0)), daylight, atol=1e-6)
    assert np.abs(camera_to_srgb_matrix(CANON, (1.4, 1.0, 2.2)) - daylight).max() > 0.01  # tungsten is a real white


def test_unknown_matrix_is_the_identity() -> None:
    np.testing.assert_array_equal(camera_to_srgb_matrix(None, (2, 1, 2)), np.eye(3))


def test_srgb_curve_known_values_and_inverse() -> None:
    np.testing.assert_allclose(srgb_encode(np.array([0.0, 0.001, 0.18, 1.0])), [0, 0.01292, 0.461356, 1], atol=1e-5)
    x = np.linspace(-0.2, 1.5, 300)
    np.testing.assert_allclose(srgb_decode(srgb_encode(x)), x, atol=1e-6)
    np.testing.assert_allclose(srgb_encode(np.array(-0.1)), -1.292)
    assert srgb_encode(np.zeros(3, np.float32)).dtype == np.float32


def test_orientations_as_pillow_turns_them(tmp_path) -> None:
    image_module, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    pixels = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3)
    for orientation in range(1, 9):
        picture = image_module.fromarray(pixels)
        exif = picture.getexif()
        exif[274] = orientation
        picture.save(tmp_path / "a.png", exif=exif)
        with image_module.open(tmp_path / "a.png") as opened:
            want = np.asarray(ops.exif_transpose(opened))
        np.testing.assert_array_equal(apply_orientation(pixels, orientation), want)
    with pytest.raises(ValueError, match=r"1\.\.8"):
        apply_orientation(pixels, 9)
