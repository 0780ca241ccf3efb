from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_raw_cfa import bayer, raw_image

from zoo.errors import ZooError
from zoo.raw import BAYER_PHASES, NoiseProfile, apply_orientation, camera_to_srgb_matrix, read_raw, write_dng
from zoo.raw import write_linear_dng as write_linear
from zoo.raw.colour import D65

rawpy = pytest.importorskip("rawpy")

MATRIX = np.array([[0.99, -0.2771, -0.1324], [-0.7072, 1.4229, 0.314], [-0.279, 0.3344, 0.8861]])
NOISE = NoiseProfile((1e-3, 2e-3, 3e-3), (1e-6, 0.0, 3e-6), "given")


def write(path: Path, mosaic: np.ndarray, **changes) -> Path:
    settings = {"cfa": "RGGB", "black": (64, 65, 66, 67.5), "white": 4000, "wb": (2.0, 1.0, 1.5), "xyz_to_cam": MATRIX}
    write_dng(path, mosaic, **(settings | changes))
    return path


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("shape", [(50, 64), (51, 64), (50, 63), (51, 63)])
def test_mosaic_round_trip(tmp_path: Path, cfa: str, shape: tuple[int, int]) -> None:
    mosaic = bayer(*shape, cfa)
    raw = read_raw(write(tmp_path / "a.dng", mosaic, cfa=cfa))
    np.testing.assert_array_equal(raw.mosaic, mosaic)
    assert raw.cfa == cfa
    assert raw.white == (4000,) * 4
    assert raw.black == (64, 65, 66, 67.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_metadata_round_trip(tmp_path: Path, orientation: int) -> None:
    path = write(
        tmp_path / "a.dng", bayer(50, 64, "GBRG"), cfa="GBRG", iso=640, noise=NOISE, orientation=orientation,
        make="Acme", model="X1",
    )  # fmt: skip
    raw = read_raw(path)
    assert raw.orientation == orientation
    assert raw.iso == 640
    assert raw.wb == pytest.approx((2.0, 1.0, 1.5), abs=1e-5)
    np.testing.assert_allclose(raw.xyz_to_cam, MATRIX, atol=1e-5)
    assert (raw.metadata["make"], raw.metadata["model"], raw.metadata["wb_source"]) == ("Acme", "X1", "as shot")
    assert (raw.noise.shot, raw.noise.read, raw.noise.source) == (NOISE.shot, NOISE.read, "tag")


@pytest.mark.parametrize(("bytes_", "text"), [(b"A\xc3\xa9me", "Aéme"), (b"Acm\xe9\x20", "Acmé")])
def test_names_that_are_not_ascii(tmp_path: Path, bytes_: bytes, text: str) -> None:
    path = write(tmp_path / "a.dng", bayer(50, 64, "RGGB"), make="Make!", model="X")
    path.write_bytes(path.read_bytes().replace(b"Make!", bytes_))
    assert read_raw(path).metadata["make"] == text
    write_linear(tmp_path / "b.dng", np.zeros((50, 64, 3), np.uint16), raw=read_raw(path), black=0)
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(tmp_path / "b.dng") as file:
        assert file.pages[0].tags.valueof(271) == text.replace("é", "?")


def test_of_four_whites_the_lowest_is_written(tmp_path: Path) -> None:
    raw = read_raw(write(tmp_path / "a.dng", bayer(50, 64, "RGGB"), white=(3900, 4000, 4000, 4100)))
    assert raw.white == (3900,) * 4


def test_levels_with_many_digits_fit_a_rational(tmp_path: Path) -> None:
    black = (8191.123457, 65000.987654, 0.000003, 1 / 3)
    raw = read_raw(write(tmp_path / "a.dng", bayer(50, 64, "RGGB"), black=black, white=65535))
    np.testing.assert_allclose(raw.black, black, rtol=1e-9, atol=1e-6)


def test_negative_matrix_entries_fit_a_signed_rational(tmp_path: Path) -> None:
    matrix = np.diag([-2999.123457, 3000.987653, 1.0])
    raw = read_raw(write(tmp_path / "a.dng", bayer(50, 64, "RGGB"), xyz_to_cam=matrix))
    np.testing.assert_allclose(raw.xyz_to_cam, matrix, atol=1e-6)


def test_libraw_develops_the_right_colours(tmp_path: Path) -> None:
    mosaic = np.zeros((64, 64), np.uint16)
    mosaic[0::2, 1::2] = 1000  # R of GRBG
    with rawpy.imread(str(write(tmp_path / "a.dng", mosaic, cfa="GRBG", black=0))) as raw:
        rgb = raw.postprocess(use_camera_wb=True)[32, 32].astype(int)
    assert rgb[0] > 4 * max(rgb[1], rgb[2])


def test_unknown_matrix_gives_srgb_colours(tmp_path: Path) -> None:
    raw = read_raw(write(tmp_path / "a.dng", bayer(50, 64, "RGGB"), xyz_to_cam=None))
    np.testing.assert_allclose(camera_to_srgb_matrix(raw.xyz_to_cam, raw.wb), np.eye(3), atol=1e-3)


def patches() -> np.ndarray:
    """Camera RGB (96, 120, 3) in 20-pixel patches, some slightly negative, none saturated after balancing."""
    values = np.random.default_rng(0).uniform(0.05, 0.25, (5, 6, 3))
    values[0, 0] = -0.02
    return np.kron(values, np.ones((20, 20, 1)))[:96]


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_linear_dng_is_developed_like_our_own_matrix(tmp_path: Path, orientation: int) -> None:
    daylight = 1 / (MATRIX @ D65)
    wb = tuple(daylight / daylight.min())  # LibRaw scales the least gain to 1
    black, white = 2048.0, 60000.0
    rgb = patches()
    source = raw_image(bayer(96, 120, "RGGB"), "RGGB")
    source = type(source)(**(vars(source) | {"wb": wb, "xyz_to_cam": MATRIX, "orientation": orientation}))
    stored = np.round(rgb * (white - black) + black).astype(np.uint16)
    write_linear(tmp_path / "a.dng", stored, raw=source, black=black, white=white)
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        got = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(1, 1)) / 65535
    got *= white / (white - black)  # LibRaw's scale, see write_linear_dng
    want = (np.maximum(rgb, 0) * wb).clip(0, 1) @ camera_to_srgb_matrix(MATRIX, wb).T
    want = apply_orientation(want, orientation).clip(0, 1)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=0.001)


def test_linear_dng_keeps_the_pixels(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    stored = np.random.default_rng(0).integers(0, 65535, (37, 53, 3), dtype=np.uint16)
    write_linear(tmp_path / "a.dng", stored, raw=raw_image(bayer(36, 52, "RGGB"), "RGGB"), black=1000)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.dng"), stored)


def test_wrong_pictures_are_refused(tmp_path: Path) -> None:
    mosaic = bayer(50, 64, "RGGB")
    for bad, changes in [(mosaic.astype(np.float32), {}), (mosaic[None], {}), (mosaic, {"cfa": "XTRANS"}),
                         (mosaic, {"orientation": 0})]:  # fmt: skip
        with pytest.raises(ZooError, match=r"a\.dng: a CFA DNG takes"):
            write(tmp_path / "a.dng", bad, **changes)
    with pytest.raises(ZooError, match="uint16"):
        write_linear(tmp_path / "a.dng", mosaic, raw=raw_image(mosaic, "RGGB"))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = write(tmp_path / "a.dng", bayer(50, 64, "RGGB"))
    before = path.read_bytes()

    def full_disk(target: Path, *_args: object, **_settings: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(ZooError, match="No space left"):
        write(path, bayer(50, 64, "RGGB"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.dng"]
    assert path.read_bytes() == before
    with pytest.raises(ZooError, match="cannot be written"):
        write(tmp_path / "none" / "a.dng", bayer(50, 64, "RGGB"))
    for name in ("a" * 250 + ".dng", "a.dng/b.dng"):  # names that cannot even be removed
        with pytest.raises(ZooError, match="cannot be written"):
            write(tmp_path / name, bayer(50, 64, "RGGB"))
