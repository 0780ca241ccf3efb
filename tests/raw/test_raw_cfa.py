from __future__ import annotations

import numpy as np
import pytest

from zoo.raw import BAYER_PHASES, Alignment, NoiseProfile, RawImage, alignment, depth_to_space, pack, unpack


def bayer(height: int, width: int, cfa: str) -> np.ndarray:
    """A mosaic whose pixels say their colour (R 1000, G 2000, B 3000) and, in the low digits, where they are."""
    y, x = np.mgrid[0:height, 0:width]
    value = {"R": 1000, "G": 2000, "B": 3000}
    colours = np.array([value[c] for c in cfa]).reshape(2, 2)
    return (colours[y % 2, x % 2] + (20 * y + x) % 1000).astype(np.uint16)


def raw_image(mosaic: np.ndarray, cfa: str, black=(0.0,) * 4, white=(4000.0,) * 4) -> RawImage:
    noise = NoiseProfile((1e-3,) * 3, (1e-6,) * 3, "given")
    return RawImage(mosaic, cfa, black, white, (1.0, 1.0, 1.0), None, None, noise)


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("shape", [(10, 12), (11, 12), (10, 13), (11, 13), (2, 2), (3, 2)])
def test_packed_holds_one_colour_per_plane_and_every_pixel(cfa: str, shape: tuple[int, int]) -> None:
    mosaic = bayer(*shape, cfa)
    planes, border = raw_image(mosaic, cfa).packed()
    assert planes.dtype == np.float32
    colours = [set((plane * 4000 // 1000).astype(int).ravel()) for plane in planes]
    assert colours == [{1}, {2}, {2}, {3}]
    padded = unpack(planes)
    assert padded.shape[0] % 2 == padded.shape[1] % 2 == 0
    np.testing.assert_allclose(border.crop(padded) * 4000, mosaic, atol=1e-3)


def test_border_is_mirrored_about_the_edge_pixel() -> None:
    mosaic = bayer(5, 5, "BGGR")
    border = alignment((5, 5), "BGGR")
    assert border == Alignment(1, 1, 0, 0)
    padded = border.pad(mosaic)
    assert padded[0, 1] == mosaic[1, 0]
    assert padded[1, 0] == mosaic[0, 1]


def test_crop_takes_the_last_two_axes() -> None:
    image = np.arange(3 * 6 * 8).reshape(3, 6, 8)
    np.testing.assert_array_equal(Alignment(1, 0, 0, 1).crop(image), image[:, 1:, :-1])


def test_normalised_uses_levels_per_position_and_clips_nothing() -> None:
    mosaic = np.array([[10, 120], [0, 240]], np.uint16)
    got = raw_image(mosaic, "RGGB", black=(20, 20, 30, 40), white=(120, 100, 130, 140)).normalised()
    np.testing.assert_allclose(got, [[-0.1, 1.25], [-0.3, 2.0]], rtol=1e-6)


def test_pack_and_unpack_are_inverse_and_ordered() -> None:
    mosaic = np.arange(24).reshape(4, 6)
    planes = pack(mosaic)
    assert [int(p[0, 0]) for p in planes] == [0, 1, 6, 7]
    np.testing.assert_array_equal(unpack(planes), mosaic)


def test_depth_to_space_is_pixel_shuffle() -> None:
    torch = pytest.importorskip("torch")
    planes = np.random.default_rng(0).normal(size=(12, 5, 7)).astype(np.float32)
    want = torch.pixel_shuffle(torch.from_numpy(planes)[None], 2)[0].numpy()
    np.testing.assert_array_equal(depth_to_space(planes), want)


def test_alignment_refuses_what_is_no_bayer_mosaic() -> None:
    with pytest.raises(ValueError, match="RGGB"):
        alignment((4, 4), "XTRANS")
    with pytest.raises(ValueError, match="2x2"):
        alignment((1, 4), "RGGB")
