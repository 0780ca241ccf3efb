"""Pictures for training and evaluation: what is none is said in one line."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from zoo.data.pool import ImagePool, read_srgb
from zoo.errors import ZooError

GREY = np.full((70, 80), 128, np.uint8)
COLOUR = np.stack([GREY, GREY // 2, GREY // 4], axis=2)


def save_huge(path: Path) -> None:
    """An npz of a few bytes whose header claims 36 TiB."""
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 10000000, 4), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rgbe.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)


def save_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, GREY)


def save_planes(path: Path) -> None:
    tifffile.imwrite(path, np.moveaxis(COLOUR, 2, 0), photometric="rgb", planarconfig="separate")


@pytest.mark.parametrize(
    ("name", "save", "problem"),
    [
        ("text.png", lambda path: path.write_text("dear diary"), "as a picture"),
        ("short.tif", lambda path: path.write_bytes(b"II*\0"), "as a picture"),
        ("grey.tif", lambda path: tifffile.imwrite(path, GREY), r"a TIFF of shape \(70, 80\), not RGB"),
        ("planes.tif", save_planes, "not RGB"),
        ("broken.npz", lambda path: path.write_bytes(b"PK\x03\x04broken"), "as an HDR band"),
        ("text.npz", lambda path: path.write_text("dear diary"), "as an HDR band"),
        ("array.npz", save_array, "as an HDR band"),
        ("huge.npz", save_huge, "as an HDR band"),
        ("flat.npz", lambda path: np.savez(path, rgbe=GREY), r"rgbe is uint8 \(70, 80\), not"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, name: str, save: Callable[[Path], Any], problem: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "good.png")
    save(tmp_path / name)
    with pytest.raises(ZooError, match=f"{name}: cannot be read .*{problem}") as caught:
        ImagePool.from_folder(tmp_path, min_side=64)
    assert "\n" not in str(caught.value)


def test_a_folder_with_the_name_of_a_picture_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a.npz").mkdir()
    Image.fromarray(COLOUR).save(tmp_path / "a.png" / "b.png")
    assert len(ImagePool.from_folder(tmp_path, min_side=64)) == 1
    with pytest.raises(ZooError, match=r"a\.png: cannot be read as a picture"):
        read_srgb(tmp_path / "a.png")


def test_a_raw_npz_is_not_taken_for_a_picture(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "good.png")
    np.savez(tmp_path / "raw.npz", mosaic=GREY, meta="{}")
    assert len(ImagePool.from_folder(tmp_path, min_side=64)) == 1


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.png"])
@pytest.mark.parametrize("alpha", [False, True])
def test_pictures_are_read_as_they_are(tmp_path: Path, name: str, alpha: bool) -> None:
    picture = np.concatenate([COLOUR, GREY[..., None] | 255], axis=2) if alpha else COLOUR
    if name == "a.png":
        Image.fromarray(picture).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, picture.astype(np.uint16) * 257, photometric="rgb")
    np.testing.assert_allclose(read_srgb(tmp_path / name), COLOUR / 255, atol=1e-6)


def test_grey_pngs_have_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_srgb(tmp_path / "a.png"), np.full((70, 80, 3), np.float32(128) / 255))


def test_grey_pngs_of_16_bit_are_scaled(tmp_path: Path) -> None:
    ramp = np.arange(70 * 80, dtype=np.uint16).reshape(70, 80) * 11
    Image.fromarray(ramp).save(tmp_path / "a.png")
    expected = np.repeat(ramp[..., None].astype(np.float32) / 65535, 3, axis=2)
    np.testing.assert_allclose(read_srgb(tmp_path / "a.png"), expected, atol=1e-6)
