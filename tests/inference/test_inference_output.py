"""Pictures on disk: right colours, right tags, nothing half-written, flat memory."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import time
from pathlib import Path

import exifread
import numpy as np
import pytest
import rawpy
import tifffile
from banded_photo import CAMERA, bands_of
from PIL import Image, ImageCms

from zoo.errors import ZooError
from zoo.inference import icc
from zoo.inference.output import develop, save
from zoo.inference.tiling import Band
from zoo.raw import camera_to_srgb_matrix, read_raw, srgb_encode
from zoo.raw.exif import read_exif


def read(path: Path) -> np.ndarray:
    picture = tifffile.imread(path) if path.suffix in (".tif", ".tiff") else np.array(Image.open(path))
    return picture.astype(np.float64) / np.iinfo(picture.dtype).max


@pytest.mark.parametrize(("name", "step"), [("a.tiff", 1 / 65535), ("a.tif", 1 / 65535), ("a.png", 1 / 255)])
def test_developed_pictures_hold_srgb(photo, tmp_path, name, step):
    raw, rgb = photo
    save(tmp_path / name, bands_of(rgb), raw)
    matrix = camera_to_srgb_matrix(raw.xyz_to_cam, raw.wb)
    expected = srgb_encode(np.clip(np.einsum("ij,jyx->yxi", matrix, rgb), 0, 1))
    np.testing.assert_allclose(read(tmp_path / name), expected, atol=0.51 * step + 1e-6)
    np.testing.assert_allclose(expected, srgb_encode(np.moveaxis(rgb, 0, -1)), atol=0.002)  # the matrix undoes CAMERA
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_jpeg_is_close(photo, tmp_path):
    raw, rgb = photo
    save(tmp_path / "a.jpg", bands_of(rgb), raw)
    assert np.abs(read(tmp_path / "a.jpg") - srgb_encode(np.moveaxis(rgb, 0, -1))).mean() < 0.01


def test_linear_tiff_and_exposure(photo, tmp_path):
    raw, rgb = photo
    save(tmp_path / "a.tiff", bands_of(rgb), raw, linear=True)
    np.testing.assert_allclose(read(tmp_path / "a.tiff"), np.moveaxis(rgb, 0, -1), atol=0.001)
    save(tmp_path / "b.tiff", bands_of(rgb), raw, linear=True, exposure=-1)
    np.testing.assert_allclose(read(tmp_path / "b.tiff"), np.moveaxis(rgb / 2, 0, -1), atol=0.001)


@pytest.mark.parametrize(("baseline", "factor"), [(1.0, 2), (-1.0, 1), (0.0, 1), (99.0, 16)])
def test_a_dng_is_developed_as_bright_as_it_says(photo, tmp_path, baseline, factor):
    raw, rgb = photo
    raw = dataclasses.replace(raw, metadata=raw.metadata | {"baseline_exposure": baseline})
    save(tmp_path / "a.tiff", bands_of(rgb / 8), raw)
    expected = srgb_encode(np.clip(np.moveaxis(rgb, 0, -1) / 8 * factor, 0, 1))
    np.testing.assert_allclose(read(tmp_path / "a.tiff"), expected, atol=0.005)
    save(tmp_path / "b.tiff", bands_of(rgb / 8), raw, exposure=-1)
    expected = srgb_encode(np.clip(np.moveaxis(rgb, 0, -1) / 16 * factor, 0, 1))
    np.testing.assert_allclose(read(tmp_path / "b.tiff"), expected, atol=0.005)
    save(tmp_path / "c.tiff", bands_of(rgb), raw, linear=True)
    np.testing.assert_allclose(read(tmp_path / "c.tiff"), np.moveaxis(rgb, 0, -1), atol=0.001)


def test_blown_highlights_are_white_and_negative_values_black(raw_of):
    raw = raw_of(4, 4, wb=(2.0, 1.0, 0.8), matrix=CAMERA)
    blown = np.array(raw.wb, np.float32)[:, None, None]  # where every channel saturates
    np.testing.assert_allclose(develop(blown, raw, linear=False, exposure=0.0), 1.0, atol=1e-6)
    grey = develop(blown, raw, linear=True, exposure=-1.0)
    np.testing.assert_allclose(grey, 0.5, atol=1e-6)
    assert develop(-blown, raw, linear=False, exposure=0.0).max() == 0


def test_linear_dng_is_read_by_libraw_with_its_colours(photo, tmp_path):
    raw, rgb = photo
    rgb = rgb.copy()
    rgb[:, :20] = -0.0075 * np.reshape(raw.wb, (3, 1, 1))  # below black, near the end of what it keeps
    save(tmp_path / "a.dng", bands_of(rgb), raw)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dng"]
    stored = (tifffile.imread(tmp_path / "a.dng") - 512.0) / (65535 - 512) * raw.wb
    np.testing.assert_allclose(stored, np.moveaxis(rgb, 0, -1), atol=1e-4)
    with rawpy.imread(str(tmp_path / "a.dng")) as file:
        picture = file.postprocess(
            use_camera_wb=True,
            no_auto_bright=True,
            output_bps=16,
            gamma=(1, 1),
            user_flip=0,
            highlight_mode=rawpy.HighlightMode.Clip,
        )
    # LibRaw 0.22 does not take a per-channel black off its white level: 0.8 % darker, in all channels alike.
    picture = picture / (65535 - 512)
    np.testing.assert_allclose(picture[30:, 5:-5], np.moveaxis(rgb, 0, -1)[30:, 5:-5], atol=0.005)
    with pytest.raises(ZooError, match="linear DNG"):
        read_raw(tmp_path / "a.dng")


KNOWN = {
    "f_number": 2.8,
    "focal_length": 4.25,
    "lens": "Acme 4.25 mm",
    "artist": "José García",
    "copyright": "© José García",
    "offset_time": "+02:00",
    "latitude": -33.8567844,
    "longitude": 151.2152967,
    "altitude": -2.5,
}


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg", "a.dng"])
def test_tags_are_kept(photo, tmp_path, name):
    raw, rgb = photo
    raw = dataclasses.replace(raw, metadata=raw.metadata | KNOWN)
    save(tmp_path / name, bands_of(rgb), raw)
    with (tmp_path / name).open("rb") as file:
        tags = exifread.process_file(file)
    texts = {
        "Image Make": "Acme", "Image Model": "One", "Image Software": "raw zoo", "Image Orientation": "Rotated 90 CW",
        "Image DateTime": "2024:05:06 07:08:09", "EXIF DateTimeOriginal": "2024:05:06 07:08:09",
        "EXIF OffsetTimeOriginal": "+02:00", "EXIF LensModel": "Acme 4.25 mm", "EXIF ISOSpeedRatings": "400",
        "EXIF ExposureTime": "1/125", "EXIF FNumber": "14/5", "EXIF FocalLength": "17/4",
        "GPS GPSLatitudeRef": "S", "GPS GPSLongitudeRef": "E", "GPS GPSAltitude": "5/2", "GPS GPSAltitudeRef": "1",
    }  # fmt: skip
    assert {key: str(tags[key]) for key in texts} == texts
    assert tags["Image Artist"].values == KNOWN["artist"]
    assert tags["Image Copyright"].values == KNOWN["copyright"]
    for key, value in (("Latitude", 33.8567844), ("Longitude", 151.2152967)):
        degrees = [float(v) for v in tags[f"GPS GPS{key}"].values]
        assert degrees[0] + degrees[1] / 60 + degrees[2] / 3600 == pytest.approx(value, abs=1e-7)
    again = read_exif(tmp_path / name)
    assert again.pop("iso") == raw.iso
    assert again == pytest.approx(raw.metadata, abs=1e-7)
    if name != "a.dng":  # which Pillow does not open
        exif = Image.open(tmp_path / name).getexif()
        assert (exif[274], exif[271], exif[305], exif[306]) == (6, "Acme", "raw zoo", "2024:05:06 07:08:09")
        details, place = exif.get_ifd(34665), exif.get_ifd(34853)
        assert (details[34855], details[36867], details[42036]) == (400, "2024:05:06 07:08:09", "Acme 4.25 mm")
        numbers = [float(details[code]) for code in (33434, 33437, 37386)]
        assert numbers == pytest.approx([1 / 125, 2.8, 4.25])
        assert (place[1], place[3], float(place[6])) == ("S", "E", 2.5)


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg", "a.dng"])
def test_what_a_stranger_put_into_tags_is_held_in_bounds(raw_of, tmp_path, name):
    raw = raw_of(10, 12)
    nan, inf = float("nan"), float("inf")
    raw.metadata.update(artist="a\0b\n" * 9000, lens="\ud800 L", copyright="\0", offset_time="Z", f_number=nan)
    raw.metadata.update(
        exposure_time=inf, focal_length=-1.0, latitude=91.0, longitude=nan, datetime="2024:13:01 00:00:00"
    )
    save(tmp_path / name, bands_of(np.zeros((3, 10, 12), np.float32)), raw)
    found = read_exif(tmp_path / name)
    assert found.pop("artist") == ("a b " * 50).strip()
    assert found == {"make": "Acme", "model": "One", "iso": 400, "lens": "L"}


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg", "a.dng"])
def test_tags_that_cannot_be_written_as_they_are(raw_of, tmp_path, name):
    raw = raw_of(10, 12)
    raw.metadata.update(make="Größe", datetime="2024:02:29 12-00-00")
    save(tmp_path / name, bands_of(np.zeros((3, 10, 12), np.float32)), raw)
    if name == "a.dng":
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.pages[0].tags.valueof(271) == "Gr??e"
    else:
        exif = Image.open(tmp_path / name).getexif()
        assert (exif[271], 306 in exif) == ("Gr??e", False)


def test_a_picture_may_be_written_over_when_the_raw_is_gone(photo, tmp_path):
    raw, rgb = photo
    (tmp_path / "a.png").write_bytes(b"old")
    save(tmp_path / "a.png", bands_of(rgb), dataclasses.replace(raw, path=str(tmp_path / "gone.dng")))
    assert (tmp_path / "a.png").read_bytes() != b"old"


@pytest.mark.parametrize("length", [245, 300])  # 245: its temporary name is too long, the name is not
@pytest.mark.parametrize("suffix", [".tiff", ".png", ".dng"])
def test_a_name_that_is_too_long(photo, tmp_path, suffix, length):
    raw, rgb = photo
    (tmp_path / "raw.dng").touch()
    with pytest.raises(ZooError, match=rf"a{suffix}: cannot be written \(File name too long\)"):
        save(
            tmp_path / ("a" * length + suffix), bands_of(rgb), dataclasses.replace(raw, path=str(tmp_path / "raw.dng"))
        )
    assert [p.name for p in tmp_path.iterdir()] == ["raw.dng"]


def test_a_photo_of_which_nothing_is_known(raw_of, tmp_path):
    raw = raw_of(10, 12)
    raw.metadata.clear()
    for name in ("a.tiff", "a.png", "a.jpeg", "a.dng"):
        save(tmp_path / name, bands_of(np.zeros((3, 10, 12), np.float32)), raw)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("a.tif_", {}, "no format has the suffix"),
        ("a", {}, "no format has the suffix"),
        ("a.png", {"format": "tiff"}, "suffix says png"),
        ("a.tiff", {"format": "tif_"}, "did you mean 'tiff'"),
        ("a.png", {"format": "jpg"}, "suffix says png, but the format given is jpeg"),
        ("a.png", {"linear": True}, "8 bits are too few"),
        ("a.dng", {"exposure": 1.0}, "raw developer"),
        ("a.tiff", {"exposure": float("nan")}, "-20 to 20"),
        ("missing/a.tiff", {}, "cannot be written"),
    ],
)
def test_what_cannot_be_written(photo, tmp_path, name, options, text):
    raw, rgb = photo
    with pytest.raises(ZooError, match=text):
        save(tmp_path / name, bands_of(rgb), raw, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg", "a.dng"])
def test_a_failure_half_way_leaves_the_old_file(photo, tmp_path, name):
    raw, rgb = photo
    save(tmp_path / name, bands_of(rgb), raw)
    old = (tmp_path / name).read_bytes()

    def bands():
        yield Band(0, rgb[:, :70])
        raise ZooError("the runner broke")

    with pytest.raises(ZooError, match="broke"):
        save(tmp_path / name, bands(), raw)
    assert (tmp_path / name).read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg"])
def test_developed_pictures_carry_an_srgb_profile(photo, tmp_path, name):
    raw, rgb = photo
    save(tmp_path / name, bands_of(rgb), raw)
    if name == "a.tiff":
        with tifffile.TiffFile(tmp_path / name) as file:
            profile = file.pages[0].tags.valueof(34675)
    else:
        profile = Image.open(tmp_path / name).info["icc_profile"]
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert "sRGB" in ImageCms.getProfileDescription(opened)
    assert profile[24:36] == bytes(12)  # no time
    picture = Image.fromarray(np.rint(read(tmp_path / name) * 255).astype(np.uint8))
    same = ImageCms.profileToProfile(picture, opened, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(same).astype(int) - np.asarray(picture)).max() <= 1


def test_linear_pictures_carry_a_linear_profile(photo, tmp_path):
    raw, rgb = photo
    save(tmp_path / "a.tiff", bands_of(rgb), raw, linear=True)
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        profile = file.pages[0].tags.valueof(34675)
    assert len(profile) == int.from_bytes(profile[:4])
    opened = ImageCms.getOpenProfile(io.BytesIO(profile))
    assert ImageCms.getProfileDescription(opened).strip() == "sRGB primaries, linear"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).profile
    for name in ("red_colorant", "green_colorant", "blue_colorant"):
        np.testing.assert_allclose(getattr(opened.profile, name)[0], getattr(srgb, name)[0], atol=2e-4)
    levels = np.arange(256, dtype=np.uint8)
    grey, hues = np.stack([levels] * 3, -1), np.random.default_rng(0).integers(0, 256, (3, 256, 3), np.uint8)
    for rows in (grey[None], hues):
        shown = ImageCms.profileToProfile(Image.fromarray(rows), opened, ImageCms.createProfile("sRGB"))
        assert np.abs(np.asarray(shown) - 255 * srgb_encode(rows / 255)).max() <= 1.01


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg", "a.dng"])
def test_equal_pictures_give_equal_files(photo, tmp_path, name):
    raw, rgb = photo
    files = []
    for moment in (0, 1):
        icc.srgb_profile.cache_clear()
        time.sleep(1.1 * moment)  # the profile's time is in whole seconds
        save(tmp_path / name, bands_of(rgb), raw)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_short_names_of_formats(photo, tmp_path):
    raw, rgb = photo
    for name, format in (("a.tif", "tif"), ("a.tiff", "tif"), ("a.jpg", "jpg"), ("a.jpeg", "jpg")):
        save(tmp_path / name, bands_of(rgb), raw, format=format)
        assert read(tmp_path / name).shape == (150, 101, 3)


_MEASURE = """
import resource, sys
sys.path.insert(0, "tests/inference")
from pathlib import Path
from conftest import ZeroRunner, make_raw, make_spec
from zoo.inference.output import save
from zoo.inference.restore import restore
height, path = int(sys.argv[1]), Path(sys.argv[2])
raw = make_raw(height, 2000)
save(path, restore(raw, ZeroRunner(), make_spec(), tile=256), raw)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - raw.mosaic.nbytes / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.tiff", "a.dng", "a.png"])
def test_memory_is_flat(tmp_path, name):
    """Peak less the mosaic, at 3 and 15 MP."""
    peaks = []
    for height in (1500, 7500):
        run = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(height), str(tmp_path / name)],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        peaks.append(float(run.stdout))
    growth_per_mp = (peaks[1] - peaks[0]) / 12
    print(name, peaks, growth_per_mp)
    # Bytes per pixel. TIFF: none but noise (16-bit RGB would be 6). PNG: the 8-bit picture and Pillow's 4-byte copy.
    # DNG: the spool file, which is mapped and can be dropped.
    assert growth_per_mp < {"a.tiff": 1.5, "a.dng": 6.5, "a.png": 8.0}[name]
