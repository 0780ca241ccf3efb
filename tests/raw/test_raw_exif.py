"""What is read of a photo's exposure, and the folders in which pictures keep it."""

from __future__ import annotations

import dataclasses
import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from test_raw_cfa import bayer, raw_image

from zoo.raw import read_raw
from zoo.raw.exif import MOST_TEXT, clean_metadata, clean_text, is_datetime, read_exif
from zoo.raw.ifd import append_ifds, exif_block, image_tags

exifread = pytest.importorskip("exifread")
tifffile = pytest.importorskip("tifffile")
pytest.importorskip("rawpy")

KNOWN = {
    "make": "FUJIFILM", "model": "X-A9", "datetime": "2024:05:06 07:08:09", "exposure_time": 0.01, "f_number": 2.8,
    "lens": "XC 15-45", "artist": "Zoë", "latitude": 1.5, "longitude": -2.25, "altitude": 10.0,
}  # fmt: skip


def known_raw():
    raw = raw_image(bayer(40, 60, "RGGB"), "RGGB")
    return dataclasses.replace(raw, metadata=dict(KNOWN), iso=640.0)


def jpeg() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif_block(known_raw()))
    return file.getvalue()


def raf(path: Path, preview: bytes) -> Path:
    head = b"FUJIFILMCCD-RAW 0201FF123456" + b"X-A9".ljust(32, b"\0")
    path.write_bytes(head.ljust(84, b"\0") + struct.pack(">2I", 200, len(preview)) + bytes(108) + preview)
    return path


def test_a_raf_has_its_exif_in_the_preview(tmp_path: Path) -> None:
    assert read_exif(raf(tmp_path / "a.raf", jpeg())) == pytest.approx(KNOWN | {"iso": 640})
    assert read_exif(raf(tmp_path / "b.raf", b"no jpeg")) == {"make": "FUJIFILM", "model": "X-A9"}


def test_a_cr3_has_its_exif_in_boxes(tmp_path: Path) -> None:
    block = exif_block(known_raw())[6:]  # IFD 0 stands for both
    box = b"".join(struct.pack(">I", len(block) + 8) + name + block for name in (b"CMT1", b"CMT2"))
    (tmp_path / "a.cr3").write_bytes(struct.pack(">I", 24) + b"ftypcrx " + bytes(12) + bytes(40) + box)
    found = read_exif(tmp_path / "a.cr3")
    assert {key: found[key] for key in ("make", "model", "datetime", "lens")} == {
        key: KNOWN[key] for key in ("make", "model", "datetime", "lens")
    }


def test_a_crw_is_dated_by_the_camera_wherever_the_computer_is(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_dir / "raw" / "canon_d30.crw"
    expected = {
        "make": "Canon", "model": "Canon EOS D30", "datetime": "2018:01:01 13:03:32",
        "artist": "Peter Wemmert/Kameratrollet",
    }  # fmt: skip
    try:
        for zone in ("UTC", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert read_exif(path) == expected
            metadata = read_raw(path).metadata
            assert {key: metadata[key] for key in expected} == expected
            assert metadata["focal_length"] == 31
    finally:
        monkeypatch.undo()
        time.tzset()
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(50):  # directories lie at the end
        damaged = bytearray(content[:100] + content[-3000:])
        for place in generator.integers(0, len(damaged), 60):
            damaged[place] = generator.integers(256)
        (tmp_path / "a.crw").write_bytes(damaged)
        read_exif(tmp_path / "a.crw")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_folders_are_put_behind_a_tiff(tmp_path: Path, big: bool, order: str) -> None:
    raw, path = known_raw(), tmp_path / "a.tiff"
    picture = np.arange(40 * 60 * 3, dtype=np.uint16).reshape(40, 60, 3)
    tags = sorted(image_tags(raw))
    tifffile.imwrite(path, picture, photometric="rgb", metadata=None, extratags=tags, bigtiff=big, byteorder=order)
    size = path.stat().st_size
    append_ifds(path, raw)
    assert path.stat().st_size < size + 1500
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
        np.testing.assert_array_equal(tiff.pages[0].asarray(), picture)
        codes = [tag.code for tag in tiff.pages[0].tags]
        assert codes == sorted(codes)
        assert tiff.pages[0].tags.valueof(272) == "X-A9"
        exif, place = tiff.pages[0].tags.valueof(34665), tiff.pages[0].tags.valueof(34853)
    assert (exif["ExposureTime"], exif["FNumber"], exif["LensModel"]) == ((1, 100), (14, 5), "XC 15-45")
    assert (exif["DateTimeOriginal"], exif["ISOSpeedRatings"]) == (KNOWN["datetime"], 640)
    assert (place["GPSLatitude"], place["GPSLongitudeRef"]) == ((1, 1, 30, 1, 0, 10_000), "W")
    if not big:  # which exifread does not read
        assert read_exif(path) == pytest.approx(KNOWN | {"iso": 640})


def test_only_what_can_be_true_is_kept() -> None:
    assert clean_text("a\0b\n\x1b[31m" + "x" * 1000).startswith("a b  [31mx")
    assert len(clean_text("x" * 1000)) == MOST_TEXT
    assert clean_text("\ud800\u202e é ") == "é"
    found = {"iso": -1.0, "f_number": float("nan"), "exposure_time": float("inf"), "offset_time": "+2", "make": "\0"}
    assert clean_metadata(found | {"datetime": "0000:00:00 00:00:00"}) == {}
    assert [is_datetime(f"2024:02:{day} 23:59:60") for day in ("29", "32", "٣١")] == [True, False, False]


def test_places_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    raw = known_raw()
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None)
    append_ifds(path, raw)
    content = path.read_bytes()
    place = content.index(struct.pack("<6I", 1, 1, 30, 1, 0, 10_000))
    for numbers in ((1, 0, 30, 1, 0, 1), (91, 1, 0, 1, 0, 1)):  # a camera without a fix; beyond the pole
        path.write_bytes(content[:place] + struct.pack("<6I", *numbers) + content[place + 24 :])
        assert not {"latitude", "longitude", "altitude"} & set(read_exif(path))
