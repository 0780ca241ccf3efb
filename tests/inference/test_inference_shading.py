"""Pictures are without the lens's shading, also those of compressed photos, which keep what their header has no field for."""

from __future__ import annotations

import dataclasses
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from banded_photo import bands_of
from PIL import Image

from zoo.codec import Box, make_thumbnail, parse, read_thumbnail
from zoo.codec.container import pack_stream
from zoo.codec.extras import pack_extras, read_extras
from zoo.data.scene import synthetic_raw
from zoo.inference.codec import Codec, make_preview, open_codec, raw_of
from zoo.inference.output import save
from zoo.raw import RawImage
from zoo.raw.shading import Shading

KNOWN = {
    "lens": "Acme 4.25 mm", "artist": "José García", "copyright": "© José García", "offset_time": "+02:00",
    "latitude": 48.137222, "longitude": -11.575556, "altitude": 520.0, "baseline_exposure": -0.5,
    "make": "Acme", "model": "One", "datetime": "2024:05:06 07:08:09", "exposure_time": 0.01, "f_number": 1.8,
    "focal_length": 4.25, "wb_source": "as shot",
}  # fmt: skip


@pytest.fixture
def shading() -> Shading:
    """Corners a stop darker, red more than the others; points of the binary fractions that a float32 holds."""
    down, across = np.meshgrid(np.linspace(-1, 1, 13), np.linspace(-1, 1, 17), indexing="ij")
    gains = 1 + (down**2 + across**2)[:, :, None] / 2 * [1.0, 0.75, 0.5]
    return Shading(gains.astype(np.float32), (0.0, 0.0), (1 / 12, 1 / 16))


def test_pictures_are_without_it(photo, tmp_path: Path, shading: Shading) -> None:
    raw, rgb = photo
    raw = dataclasses.replace(raw, shading=shading)
    gains = shading.field(rgb.shape[1:])(0, rgb.shape[1])
    assert gains.max() > 1.8
    even = np.minimum(np.moveaxis(rgb * gains / 2, 0, -1), 1)
    save(tmp_path / "a.tiff", bands_of(rgb / 2), raw, linear=True)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "a.tiff") / 65535, even, atol=0.001)
    save(tmp_path / "a.dng", bands_of(rgb / 2), raw)
    stored = (tifffile.imread(tmp_path / "a.dng") - 512.0) / (65535 - 512) * raw.wb
    np.testing.assert_allclose(stored, np.minimum(np.moveaxis(rgb * gains / 2, 0, -1), raw.wb), atol=1e-4)


def test_blown_corners_are_white(photo, tmp_path: Path, shading: Shading) -> None:
    raw, rgb = photo
    blown = np.broadcast_to(np.array(raw.wb, np.float32)[:, None, None], rgb.shape)
    save(tmp_path / "a.png", bands_of(blown), dataclasses.replace(raw, shading=shading))
    assert np.array(Image.open(tmp_path / "a.png")).min() == 255


def known(shading: Shading | None = None, **metadata: str | float) -> RawImage:
    photo = synthetic_raw(140, 170, cfa="GBRG")
    return dataclasses.replace(photo, metadata=metadata, shading=shading, orientation=6)


@pytest.fixture
def codec(compressor: str) -> Codec:
    return open_codec(compressor, threads=1)


def test_a_compressed_photo_keeps_what_its_header_has_no_field_for(codec: Codec, shading: Shading) -> None:
    photo = known(shading, **KNOWN)
    stream = parse(codec.compress(photo, thumbnail=True))
    assert max(read_thumbnail(stream.thumbnail()).shape) <= 256
    got = raw_of(stream)
    for name, value in KNOWN.items():
        assert got.metadata[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), name
    assert got.orientation == 6 and got.iso == photo.iso
    assert got.shading is not None
    gains = shading.field((140, 170))(0, 140)
    np.testing.assert_array_equal(got.shading.field((140, 170))(0, 140), gains)
    part = raw_of(stream, Box(17, 30, 80, 101))
    assert part.shading is not None and part.mosaic.shape == (63, 71)
    np.testing.assert_allclose(part.shading.field((63, 71))(0, 63), gains[:, 17:80, 30:101], rtol=1e-5)


def test_the_preview_is_without_shading_and_turned_once(codec: Codec, shading: Shading) -> None:
    grey = np.full((200, 300), 1000, np.uint16)
    photo = dataclasses.replace(known(shading), mosaic=grey, cfa="RGGB", wb=(1.0, 1.0, 1.0), xyz_to_cam=None)
    plain = read_thumbnail(make_preview(dataclasses.replace(photo, shading=None))).astype(int)
    evened = read_thumbnail(make_preview(photo)).astype(int)
    assert np.ptp(plain[..., 1]) < 4 and evened[0, 0, 0] > evened[0, 0, 2] > plain[0, 0, 2] + 10
    thumbnail = make_preview(photo)
    assert read_thumbnail(thumbnail).shape[0] > read_thumbnail(thumbnail).shape[1]
    assert b"Exif" in thumbnail[:40]
    brighter = dataclasses.replace(photo, metadata={"baseline_exposure": 1.0}, shading=None)
    assert read_thumbnail(make_preview(brighter)).mean() > plain.mean() + 20  # as its pictures are


@pytest.mark.parametrize("name", ["lens", "artist", "copyright", "offset_time", "baseline_exposure"])
def test_each_of_them_is_kept_alone(name: str) -> None:
    extras, shading = read_extras(make_preview(known(**{name: KNOWN[name]})), (140, 170))
    assert extras == {name: KNOWN[name]} and shading is None


def test_where_the_header_says_it_all_a_thumbnail_carries_nothing() -> None:
    held = {name: KNOWN[name] for name in ("make", "model", "datetime", "exposure_time", "wb_source")}
    assert pack_extras(known(**held)) == b""
    assert b"Exif" not in make_preview(known(**held))[:40]
    assert read_extras(make_preview(known(**held)), (140, 170)) == ({}, None)
    assert read_extras(b"", (140, 170)) == ({}, None)


def test_a_header_wins_over_its_thumbnail(codec: Codec, shading: Shading) -> None:
    """Of the make that both hold, and of the orientation: a thumbnail is turned already."""
    stream = parse(codec.compress(known(**KNOWN)))
    other = make_preview(known(shading, **(KNOWN | {"make": "Other", "lens": "Other lens"})))
    payloads = [stream.payload(tile) for tile in range(stream.tiles.count)]
    got = raw_of(parse(pack_stream(stream.header, payloads, other)))
    assert (got.metadata["make"], got.metadata["lens"]) == ("Acme", "Other lens")


def test_a_finer_grid_takes_no_more_room_than_there_is(shading: Shading) -> None:
    fine = shading.like((129, 97), (0.0, 0.0), (1 / 128, 1 / 96))
    thumbnail = make_preview(known(fine, **KNOWN))
    assert len(thumbnail) <= 16384
    _, got = read_extras(thumbnail, (140, 170))
    assert got is not None and got.gains.shape == (24, 24, 3)
    np.testing.assert_allclose(got.field((140, 170))(0, 140), fine.field((140, 170))(0, 140), rtol=0.01)


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_thumbnail_costs_what_is_in_it_and_no_more(codec: Codec, shading: Shading, seed: int) -> None:
    rng = np.random.default_rng(seed)
    damaged = bytearray(make_preview(known(shading, **KNOWN)))
    for at in rng.integers(0, 3000, 20):
        damaged[at] = rng.integers(0, 256)
    extras, got = read_extras(bytes(damaged), (140, 170))
    assert set(extras) <= {*KNOWN, "gain_map"}
    assert got is None or (np.isfinite(got.gains).all() and got.gains.min() > 0)
    data = bytearray(codec.compress(known(shading, **KNOWN), thumbnail=True))
    place = data.index(b"\xff\xd8\xff")
    data[place + 40] ^= 0xFF
    assert raw_of(parse(bytes(data))).shading is None  # its CRC tells


def test_exif_that_names_the_same_bytes_again_and_again_takes_no_time(shading: Shading) -> None:
    """A chain of folders of many entries that overlap: seconds and more for a library that follows them."""
    entries, folders = 60, 20
    size = 2 + 12 * entries + 4
    block = b"II*\0" + struct.pack("<I", 8)
    for n in range(folders):
        block += struct.pack("<H", entries)
        block += b"".join(struct.pack("<HHII", 315 + i, 3, 999, 8) for i in range(entries))
        block += struct.pack("<I", 8 + size * (n + 1) if n + 1 < folders else 0)
    jpeg = make_thumbnail(np.zeros((64, 64, 3), np.uint8), b"Exif\0\0" + block)
    start = time.process_time()
    extras, got = read_extras(jpeg, (140, 170))
    assert time.process_time() - start < 1 and got is None
    assert set(extras) <= {"artist"}
