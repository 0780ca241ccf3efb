"""The sheet of real raws: what is found, where each picture lands, and that it stays small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.errors import ZooError
from zoo.evaluation import blind
from zoo.evaluation.blind import Crop, find_crops, write_sheet

GENERATOR = np.random.default_rng(0)
BACKGROUND = (24, 24, 24)


def write(path: Path, size: tuple[int, int] = (300, 280), cfa: str = "RGGB", level: int = 400) -> Path:
    mosaic = np.full(size, level, np.uint16)
    about = {"black": 0, "white": 1000, "cfa": cfa, "wb": [1, 1, 1], "noise_profile": [1e-4, 1e-7], "iso": 200}
    np.savez(path, mosaic=mosaic, meta=json.dumps(about))
    return path


def grey(value: float):
    """A method that returns one level of grey whatever it is shown."""
    return lambda mosaic, wb, shot, read: np.full((3, *mosaic.shape), value, np.float32)


def noise(mosaic, wb, shot, read):
    """What no PNG can squeeze: other noise in every picture."""
    return GENERATOR.random((3, *mosaic.shape), np.float32)


def test_known_raws_come_first_and_alone(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "holiday.npz")
    write(tmp_path / "in" / "n900_bayer_small.npz")
    write(tmp_path / "canon_d30.npz")
    found = find_crops(tmp_path)
    assert [c.path.stem for c in found] == ["canon_d30", "n900_bayer_small"]
    assert found[1].centre == blind.KNOWN["n900_bayer_small"] and len(find_crops(tmp_path, 1)) == 1


def test_of_other_raws_the_middle_is_shown(tmp_path):
    write(tmp_path / "b.npz")
    (tmp_path / "a.dng").write_bytes(b"")
    (tmp_path / "c.gpr").write_bytes(b"")
    (tmp_path / "d.NRW").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    np.savez(tmp_path / "table.npz", noise=np.zeros(3))
    assert find_crops(tmp_path) == [Crop(tmp_path / name) for name in ("a.dng", "b.npz", "c.gpr", "d.NRW")]
    with pytest.raises(ZooError, match="no such folder"):
        find_crops(tmp_path / "nothing")


def test_sheet_has_a_row_per_crop_and_a_column_per_method(tmp_path):
    crops = [Crop(write(tmp_path / "a.npz")), Crop(write(tmp_path / "b.npz", (70, 101)))]
    ticks = []
    methods = {"dark": grey(0.1), "bright": grey(0.5)}
    side = write_sheet(tmp_path / "out" / "sheet.png", crops, methods, lambda: ticks.append(1))
    assert side == blind.SIDES[0] and len(ticks) == 4
    sheet = np.asarray(Image.open(tmp_path / "out" / "sheet.png").convert("RGB")).astype(int)
    line, gap = 16, 4
    assert sheet.shape == (line + (line + side + gap) + (line + 70 + gap), 2 * (side + gap), 3)
    first, second = sheet[2 * line : 2 * line + side], sheet[-70 - gap : -gap]
    for rows, width in ((first, side), (second, 100)):
        dark, bright = rows[:, :width], rows[:, side + gap : side + gap + width]
        assert np.ptp(dark) == np.ptp(bright) == 0 and 24 < dark[0, 0, 0] < bright[0, 0, 0]
    assert tuple(second[0, 110]) == BACKGROUND
    assert sheet[:line, :side].max() > 200 and sheet[line : 2 * line, :side].max() > 150  # label and title


def test_crop_shows_the_place_that_is_named(tmp_path):
    path = write(tmp_path / "a.npz", (500, 600), "GRBG")
    with np.load(path) as archive:
        content = dict(archive)
    content["mosaic"] = content["mosaic"].copy()
    content["mosaic"][400:402, 450:452] = 900  # one block of four colours
    np.savez(path, **content)

    def nearest(mosaic, wb, shot, read):
        return np.repeat(mosaic[None], 3, axis=0)

    side = write_sheet(tmp_path / "sheet.png", [Crop(path, (400, 450))], {"x": nearest})
    shown = np.asarray(Image.open(tmp_path / "sheet.png"))[32 : 32 + side, :side, 0]
    bright = np.argwhere(shown > shown.min())
    # The window is as far from the centre as it fits: rows 276..500 of 500, columns 338..562 of 600.
    assert bright.min(0).tolist() == [400 - 276, 450 - 338] and len(bright) == 4


def test_exposure_is_the_raws_and_not_the_methods(tmp_path):
    crops = [Crop(write(tmp_path / "dim.npz", level=100)), Crop(write(tmp_path / "light.npz", level=800))]
    write_sheet(tmp_path / "sheet.png", crops, {"x": grey(0.1)})
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    # 10 % of white is lifted to 50 %, sRGB 188; where the raw is light it stays 10 %, sRGB 89.
    assert sheet[100, 50, 0] == pytest.approx(188, abs=1) and sheet[350, 50, 0] == pytest.approx(89, abs=1)


def test_sheet_is_kept_small_by_smaller_crops(tmp_path):
    crops = [Crop(write(tmp_path / f"{i}.npz")) for i in range(5)]
    side = write_sheet(tmp_path / "sheet.png", crops, dict.fromkeys("abcd", noise))
    assert side in blind.SIDES[1:-1] and (tmp_path / "sheet.png").stat().st_size <= blind.LARGEST


def test_sheet_that_cannot_be_small_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(blind, "LARGEST", 20_000)  # 48x48 pixels of noise take 7 kB
    crops = [Crop(write(tmp_path / f"{i}.npz", (60, 60))) for i in range(3)]
    with pytest.raises(ZooError, match=r"3 crops of 2 methods do not fit 0\.02 MB; use --limit"):
        write_sheet(tmp_path / "sheet.png", crops, dict.fromkeys("ab", noise))
    assert not (tmp_path / "sheet.png").exists()


def test_failures_name_the_raw(tmp_path):
    crops = [Crop(write(tmp_path / "a.npz"))]
    with pytest.raises(ZooError, match=r"a\.npz: the method returned"):
        write_sheet(tmp_path / "sheet.png", crops, {"x": grey(np.nan)})
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot be written"):
        write_sheet(tmp_path / "file" / "sheet.png", crops, {"x": grey(0.5)})


def test_known_places_lie_in_the_real_raws(data_dir: Path):
    from zoo.raw import read_raw

    crops = find_crops(data_dir / "raw")
    if {c.path.stem for c in crops} != set(blind.KNOWN):
        pytest.skip(f"not all raws of the sheet are in {data_dir / 'raw'}; give their folder with --data DIR")
    for crop in crops:
        height, width = read_raw(crop.path).mosaic.shape
        assert crop.centre is not None and 0 < crop.centre[0] < height and 0 < crop.centre[1] < width
