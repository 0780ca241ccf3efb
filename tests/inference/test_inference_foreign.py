"""Files that are there already: ours are written again, others' are left alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from banded_photo import CAMERA, bands_of
from PIL import Image

from zoo.codec.container import MAGIC
from zoo.errors import ZooError
from zoo.inference.output import is_foreign, save
from zoo.raw import write_dng


def test_the_raw_itself_is_not_overwritten(photo, tmp_path):
    raw, rgb = photo
    path = tmp_path / "synthetic.dng"
    path.write_text("raw")
    object.__setattr__(raw, "path", str(path))
    with pytest.raises(ZooError, match="the raw itself"):
        save(path, bands_of(rgb), raw)
    assert path.read_text() == "raw"


def other_dngs(photo, folder: Path) -> list[Path]:
    """Files named .dng that are no picture of ours: a camera's, our own raw, a foreign linear one, one that is damaged."""
    raw, rgb = photo
    camera, own, linear, text = (folder / f"{name}.dng" for name in ("camera", "own", "linear", "text"))
    levels = {"black": 64, "white": 1023, "wb": raw.wb, "xyz_to_cam": CAMERA}
    write_dng(own, np.full((40, 60), 500, np.uint16), cfa="RGGB", **levels)
    save(linear, bands_of(rgb), raw)
    for path, source in ((camera, own), (linear, linear)):
        path.write_bytes(source.read_bytes().replace(b"raw zoo", b"Acme 10"))
    text.write_text("a raw that was damaged")
    return [camera, own, linear, text]


def test_another_raw_is_not_overwritten(photo, tmp_path):
    raw, rgb = photo
    raw = dataclasses.replace(raw, path=str(tmp_path / "a.npz"))
    for path in other_dngs(photo, tmp_path):
        before = path.read_bytes()
        with pytest.raises(
            ZooError, match=rf"{path.name}: is a DNG that raw-zoo did not write and would be overwritten"
        ):
            save(path, bands_of(rgb), raw)
        assert path.read_bytes() == before
        path.rename(path.with_suffix(".DNG"))
        with pytest.raises(ZooError, match="did not write"):
            save(path.with_suffix(".DNG"), bands_of(rgb), raw)
    assert len(list(tmp_path.iterdir())) == 4


def test_our_own_linear_dng_is_written_again(photo, tmp_path):
    raw, rgb = photo
    path = tmp_path / "a.dng"
    path.touch()  # an empty file holds nothing to lose
    save(path, bands_of(rgb), raw)
    first = tifffile.imread(path)
    save(path, bands_of(rgb / 2), raw)
    assert (tifffile.imread(path) < first).mean() > 0.9


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpeg", "a.dng"])
def test_pictures_of_ours_are_told_from_others(photo, tmp_path, name):
    raw, rgb = photo
    path = tmp_path / name
    assert not is_foreign(path)  # nothing there, nothing to lose
    path.touch()
    assert not is_foreign(path)
    save(path, bands_of(rgb), raw)
    assert not is_foreign(path)
    path.write_bytes(path.read_bytes().replace(b"raw zoo", b"Acme 10"))
    assert is_foreign(path)
    path.write_bytes(path.read_bytes()[:20])
    assert is_foreign(path)


def test_other_files_are_foreign(photo, tmp_path):
    assert [is_foreign(path) for path in other_dngs(photo, tmp_path)] == [True] * 4
    (tmp_path / "a.rzc").write_bytes(MAGIC + bytes(8))
    assert not is_foreign(tmp_path / "a.rzc")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpeg")
    tifffile.imwrite(tmp_path / "plain.tiff", np.zeros((8, 8, 3), np.uint8))
    assert all(is_foreign(tmp_path / f"plain.{suffix}") for suffix in ("png", "jpeg", "tiff"))
    assert not is_foreign(tmp_path)  # a folder is no picture; that it cannot be written to is said then
    assert not is_foreign(tmp_path / ("a" * 300 + ".png"))
