from __future__ import annotations

import json
import math
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_raw_cfa import bayer

from zoo.errors import ZooError
from zoo.raw import RAW_SUFFIXES, NoiseProfile, read_raw, write_dng, write_linear_dng
from zoo.raw.tags import DngTags, read_dng_tags

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("rawpy")

META = {"camera": "Test", "black": 10, "white": 4095, "cfa": "RGGB", "iso": 100}
DNG_VERSION = (50706, 1, 4, bytes((1, 4, 0, 0)), True)
MODEL = (50708, 2, 0, "Test", True)
XTRANS = bytes(
    [1, 1, 0, 1, 1, 2, 1, 1, 2, 1, 1, 0, 2, 0, 1, 0, 2, 1, 1, 1, 2, 1, 1, 0, 1, 1, 0, 1, 1, 2, 0, 2, 1, 2, 0, 1]
)


def bayer_tags(cfa: str = "RGGB") -> list[tuple[Any, ...]]:
    pattern = bytes("RGB".index(c) for c in cfa)
    return [DNG_VERSION, MODEL, (33421, 3, 2, (2, 2), True), (33422, 1, 4, pattern, True)]


def cfa_dng(path: Path, mosaic: np.ndarray, tags: list[tuple[Any, ...]], **settings: Any) -> Path:
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, extratags=tags, **settings)
    return path


def npz(path: Path, mosaic: np.ndarray | None = None, **changes: Any) -> Path:
    np.savez(path, mosaic=bayer(40, 60, "RGGB") if mosaic is None else mosaic, meta=json.dumps(META | changes))
    return path


def error_of(path: Path, **settings: Any) -> str:
    with pytest.raises(ZooError) as caught:
        read_raw(path, **settings)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_npz(tmp_path: Path) -> None:
    stack = np.stack([bayer(40, 60, "GRBG"), bayer(40, 60, "GRBG") + 1]).astype(np.uint16)
    path = npz(tmp_path / "a.npz", stack, cfa="GRBG", wb=[2, 1, 1.5, 0], color_matrix=[1, 0, 0, 0, 2, 0, 0, 0, 3],
               noise_profile=[1e-3, 1e-6], orientation=6, black=[1, 2, 3, 4])  # fmt: skip
    raw = read_raw(path, frame=1)
    np.testing.assert_array_equal(raw.mosaic, stack[1])
    assert (raw.cfa, raw.black, raw.white) == ("GRBG", (1, 2, 3, 4), (4095,) * 4)
    assert (raw.wb, raw.iso, raw.orientation) == ((2, 1, 1.5), 100, 6)
    np.testing.assert_array_equal(raw.xyz_to_cam, np.diag([1, 2, 3]))
    assert raw.noise == NoiseProfile((1e-3,) * 3, (1e-6,) * 3, "tag")
    assert read_raw(npz(tmp_path / "b.npz", as_shot_neutral=[0.5, 1, 0.8])).wb == pytest.approx((2, 1, 1.25))
    assert read_raw(npz(tmp_path / "c.npz", bayer(40, 60, "RGGB").astype(np.uint8))).mosaic.dtype == np.uint16


def test_given_noise_wins(tmp_path: Path) -> None:
    given = NoiseProfile((0.1,) * 3, (0.2,) * 3, "given")
    assert read_raw(npz(tmp_path / "a.npz", noise_profile=[1e-3, 1e-6]), noise=given).noise is given


def test_white_balance_without_an_as_shot_one(tmp_path: Path) -> None:
    mosaic = np.full((40, 60), 1000, np.uint16)
    mosaic[0::2, 0::2] = 500  # half as much red, a quarter of blue
    mosaic[1::2, 1::2] = 250
    raw = read_raw(npz(tmp_path / "a.npz", mosaic, black=0))
    assert raw.wb == pytest.approx((2, 1, 4))
    assert raw.metadata["wb_source"] == "grey world"
    raw = read_raw(npz(tmp_path / "b.npz", mosaic, color_matrix=[1, 0, 0, 0, 1, 0, 0, 0, 1]))
    assert raw.wb == pytest.approx((1 / 0.9505, 1, 1 / 1.089), abs=1e-3)
    assert raw.metadata["wb_source"] == "daylight"
    dark = read_raw(npz(tmp_path / "c.npz", np.full((40, 60), 10, np.uint16)))
    assert dark.wb == (1, 1, 1)


def test_noise_profile_of_one_three_and_four_pairs(tmp_path: Path) -> None:
    mosaic = bayer(50, 64, "GRBG")
    for pairs, shot in [
        ([(1e-3, 1e-6)], (1e-3, 1e-3, 1e-3)),
        ([(1e-3, 1e-6), (2e-3, 0), (3e-3, 0)], (1e-3, 2e-3, 3e-3)),
        ([(2e-3, 0), (1e-3, 0), (3e-3, 0), (4e-3, 0)], (1e-3, 3e-3, 3e-3)),  # G, R, B, G
    ]:
        values = tuple(v for pair in pairs for v in pair)
        tags = [*bayer_tags("GRBG"), (51041, 12, len(values), values, True)]
        noise = read_raw(cfa_dng(tmp_path / "a.dng", mosaic, tags)).noise
        assert noise.shot == pytest.approx(shot)
        assert noise.source == "tag"
    tags = [*bayer_tags("GRBG"), (51041, 12, 2, (-1.0, 0.0), True)]
    assert read_raw(cfa_dng(tmp_path / "a.dng", mosaic, tags)).noise.source != "tag"


def test_picture_and_noise_in_a_sub_ifd(tmp_path: Path) -> None:
    """As Adobe's converter writes: a preview in IFD 0, the raw below it."""
    mosaic, path = bayer(60, 80, "BGGR"), tmp_path / "a.dng"
    with tifffile.TiffWriter(path) as tiff:
        preview = np.zeros((12, 16, 3), np.uint8)
        tiff.write(preview, photometric="rgb", subifds=1, subfiletype=1, metadata=None, extratags=[DNG_VERSION, MODEL])
        noise = (51041, 12, 2, (5e-3, 1e-6), True)
        tiff.write(mosaic, photometric=32803, subfiletype=0, metadata=None, extratags=[*bayer_tags("BGGR")[2:], noise])
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.mosaic, mosaic)
    assert raw.cfa == "BGGR"
    assert raw.noise.shot == pytest.approx((5e-3,) * 3)


def test_daylight_matrix_with_calibration_is_taken(tmp_path: Path) -> None:
    def matrix(code: int, diagonal: tuple[int, int, int]) -> tuple[Any, ...]:
        numbers = np.diag(diagonal).ravel()
        return (code, 10, 9, tuple(int(n) for v in numbers for n in (v, 10)), True)

    tags = [*bayer_tags(), matrix(50721, (1, 2, 3)), matrix(50722, (4, 5, 6)), matrix(50724, (10, 20, 10)),
            (50727, 5, 3, (1, 1, 1, 1, 2, 1), True), (50778, 3, 1, 17, True), (50779, 3, 1, 21, True)]  # fmt: skip
    raw = read_raw(cfa_dng(tmp_path / "a.dng", bayer(50, 64, "RGGB"), tags))
    np.testing.assert_allclose(raw.xyz_to_cam, np.diag([0.4, 1.0, 1.2]))  # balance x calibration x ColorMatrix2 (D65)


def opcodes(*numbers: int) -> bytes:
    return struct.pack(">I", len(numbers)) + b"".join(struct.pack(">4I", n, 1 << 24, 0, 8) + bytes(8) for n in numbers)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (opcodes(9), True), (opcodes(3, 9), True), (opcodes(1, 3), False), (opcodes(), False), (b"", False),
        (opcodes(3, 9)[:40], True), (opcodes(3)[:16] + b"\xff" * 12 + opcodes(9), True), (b"\0\0", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [51009, 51022])
def test_a_gain_map_that_is_none_is_told(tmp_path: Path, code: int, content: bytes, expected: bool) -> None:
    tags = [*bayer_tags(), *([(code, 7, len(content), content, True)] if content else [])]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", bayer(50, 64, "RGGB"), tags))
    assert raw.metadata.get("gain_map", 0) == expected


@pytest.mark.parametrize(
    ("fraction", "expected"), [((130, 100), 1.3), ((-50, 100), -0.5), ((0, 1), 0.0), ((5, 1), None), ((400, 0), None)]
)
def test_baseline_exposure_is_read_and_carried_on(
    tmp_path: Path, fraction: tuple[int, int], expected: float | None
) -> None:
    tags = [*bayer_tags(), (50730, 10, 1, fraction, True)]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", bayer(50, 64, "RGGB"), tags))
    assert raw.metadata.get("baseline_exposure") == expected
    write_linear_dng(tmp_path / "b.dng", np.zeros((50, 64, 3), np.uint16), raw=raw)
    assert read_dng_tags(tmp_path / "b.dng").baseline == expected


def test_linearisation_table_is_applied(tmp_path: Path) -> None:
    codes = (np.arange(50 * 64).reshape(50, 64) % 256).astype(np.uint16)
    table = tuple(int(v) for v in np.arange(256) ** 2 // 4)
    tags = [*bayer_tags(), (50712, 3, 256, table, True), (50717, 4, 1, 16000, True)]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", codes, tags))
    np.testing.assert_array_equal(raw.mosaic, np.array(table)[codes])
    assert raw.white == (16000,) * 4


@pytest.mark.parametrize(
    ("tag", "as_type"),
    [(50713, 2), (50713, 7), (277, 2), (277, 7), (278, 5), (278, 12)],  # text, bytes, a fraction and an infinite float
)
def test_a_dng_with_a_number_of_another_type_is_read_without_its_tags(tmp_path: Path, tag: int, as_type: int) -> None:
    mosaic = bayer(50, 64, "GRBG")
    levels = [(50713, 3, 2, (2, 2), True), (50714, 4, 4, (100, 200, 300, 200), True)]
    path = cfa_dng(tmp_path / "a.dng", mosaic, [*bayer_tags("GRBG"), *levels])
    assert read_dng_tags(path).kind == "cfa"
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[tag].offset + 2
    content = bytearray(path.read_bytes())
    content[place : place + 2] = struct.pack("<H", as_type)
    path.write_bytes(content)
    assert read_dng_tags(path) == DngTags()
    np.testing.assert_array_equal(read_raw(path).mosaic, mosaic)


def test_xtrans_is_read_but_not_packed(tmp_path: Path) -> None:
    tags = [DNG_VERSION, MODEL, (33421, 3, 2, (6, 6), True), (33422, 1, 36, XTRANS, True)]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", bayer(60, 72, "RGGB"), tags))
    assert raw.cfa == "XTRANS"
    assert raw.normalised().shape == (60, 72)
    with pytest.raises(ZooError, match=r"a\.dng: X-Trans, which Bayer models cannot take"):
        raw.packed()


def save_cut(path: Path) -> None:
    write_dng(path, bayer(50, 64, "RGGB"), cfa="RGGB", black=0, white=4095, wb=(1, 1, 1), xyz_to_cam=None)
    path.write_bytes(path.read_bytes()[:-500])


def save_linear(path: Path) -> None:
    picture = np.zeros((50, 64, 3), np.uint16)
    tifffile.imwrite(path, picture, photometric=34892, metadata=None, extratags=[DNG_VERSION, MODEL])


def save_layout(path: Path, rows: int, columns: int) -> None:
    pattern = bytes([0, 1, 1, 2]) + bytes(60)
    layout = [(33421, 3, 2, (rows, columns), True), (33422, 1, rows * columns, pattern[: rows * columns], True)]
    cfa_dng(path, bayer(50, 64, "RGGB"), [DNG_VERSION, MODEL, *layout])


def save_npz_of(path: Path, head: str, pixels: bytes = b"") -> None:
    """With a mosaic whose header reads ``head``."""
    npz(path)
    with zipfile.ZipFile(path) as archive:
        meta = archive.read("meta.npy")
    text = head.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mosaic.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + pixels)
        archive.writestr("meta.npy", meta)


def claim(shape: str) -> str:
    return f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}"


def save_rgb_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((50, 64, 3), np.uint8))


def save_grey_tiff(path: Path) -> None:
    """What LibRaw takes for a mosaic, whatever its name is: it has nothing but the name to tell it from a camera's."""
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 60000, (400, 600)).astype(np.uint16))


def test_cameras_raws_that_are_tiffs_need_no_tags_of_a_dng(tmp_path: Path) -> None:
    for name in ("a.nef", "a.CR2", "a.arw", "a.pef"):
        save_grey_tiff(tmp_path / name)
        assert read_raw(tmp_path / name).mosaic.shape == (400, 600)


@pytest.mark.parametrize(
    ("name", "save", "problem"),
    [
        ("none.dng", lambda path: None, "no such file"),
        ("folder.dng", Path.mkdir, "is a folder"),
        ("empty.dng", Path.touch, "is empty"),
        ("text.dng", lambda path: path.write_text("dear diary\n" * 500), "no raw that LibRaw knows"),
        ("zeros.cr2", lambda path: path.write_bytes(bytes(100_000)), "no raw that LibRaw knows"),
        ("picture.tif", save_rgb_tiff, "no raw that LibRaw knows"),
        ("grey.dng", save_grey_tiff, "is a TIFF named .dng, without the tags of a DNG"),
        ("grey.DNG", save_grey_tiff, "is a TIFF named .dng, without the tags of a DNG"),
        ("cut.dng", save_cut, "is cut off at"),
        ("linear.dng", save_linear, "already demosaiced"),
        ("a" * 300 + ".dng", lambda path: None, "File name too long"),
        ("monochrome.dng", lambda path: save_layout(path, 1, 1), "are not a Bayer mosaic"),
        ("layout.dng", lambda path: save_layout(path, 8, 2), "are not a Bayer mosaic"),
        ("text.npz", lambda path: path.write_text("dear diary"), "is no npz file"),
        ("other.npz", lambda path: np.savez(path, x=1), "has no array"),
        ("bare.npz", lambda path: np.savez(path, mosaic=bayer(4, 4, "RGGB"), meta="{}"), "its meta is wrong"),
        ("list.npz", lambda path: np.savez(path, mosaic=bayer(4, 4, "RGGB"), meta="[]"), "its meta is wrong"),
        ("wb.npz", lambda path: npz(path, wb="auto"), "its meta is wrong"),
        ("float.npz", lambda path: npz(path, np.zeros((4, 4))), "float64"),
        ("phase.npz", lambda path: npz(path, cfa="RGBG"), "cfa RGBG"),
        ("levels.npz", lambda path: npz(path, black=5000), "black is below white"),
        ("nan.npz", lambda path: npz(path, black=[10, math.nan, 10, 10]), "black is below white, both finite"),
        ("white.npz", lambda path: npz(path, white=math.inf), "black is below white, both finite"),
        ("turn.npz", lambda path: npz(path, orientation=math.inf), "its meta is wrong"),
        ("negative.npz", lambda path: npz(path, iso=-100), "meta says iso -100; it is above 0"),
        ("noiso.npz", lambda path: npz(path, iso=math.nan), "meta says iso nan; it is above 0"),
        ("iso.npz", lambda path: npz(path, iso=1e300), "meta says iso 1e+300"),
        ("deep.npz", lambda path: np.savez(path, mosaic=bayer(4, 4, "RGGB"), meta="[" * 10**5), "its meta is wrong"),
        ("huge.npz", lambda path: save_npz_of(path, claim("(1000000, 10000000)")), "mosaic claims uint16"),
        ("short.npz", lambda path: save_npz_of(path, claim("(40, 60)"), bytes(4799)), "mosaic claims uint16"),
        ("head.npz", lambda path: save_npz_of(path, claim("(4, 'x(")), "is damaged"),
        ("pickle.npz", lambda path: np.savez(path, mosaic=np.array([{}]), meta="{}"), "is damaged"),
    ],
)
def test_what_is_no_raw_is_said_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, save: Callable[[Path], Any], problem: str
) -> None:
    path = tmp_path / name
    save(path)
    assert problem in error_of(path)
    assert capfd.readouterr().err == ""


def test_a_claim_is_held_to_what_memory_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.raw.read._MOST_BYTES", 4799)
    assert "mosaic claims uint16 (40, 60)" in error_of(npz(tmp_path / "a.npz"))


def test_what_is_unknown_may_be_left_out_of_an_npz(tmp_path: Path) -> None:
    raw = read_raw(npz(tmp_path / "a.npz", iso=0, make=None, orientation=None))
    assert (raw.iso, raw.orientation, raw.metadata["model"]) == (None, 1, "Test")
    assert "make" not in raw.metadata


def test_frames_that_are_not_there(tmp_path: Path) -> None:
    assert "there is no frame 1" in error_of(npz(tmp_path / "a.npz"), frame=1)
    cfa_dng(tmp_path / "a.dng", bayer(50, 64, "RGGB"), bayer_tags())
    assert "there is no frame 2" in error_of(tmp_path / "a.dng", frame=2)


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/B\xe9.dng"))
    try:
        path.touch()
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    mosaic = bayer(50, 64, "GRBG")
    tags = [*bayer_tags("GRBG"), (271, 2, 0, "Acme", True)]
    cfa_dng(tmp_path / "a.dng", mosaic, tags)
    (tmp_path / "a.dng").rename(path)
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.mosaic, mosaic)
    assert raw.metadata["make"] == "Acme"
    path.write_text("dear diary\n" * 500)
    assert "no raw that LibRaw knows" in error_of(path)


def test_suffixes_of_raws() -> None:
    assert len(set(RAW_SUFFIXES)) == len(RAW_SUFFIXES)
    assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in RAW_SUFFIXES)
    assert {".mef", ".mos", ".dcr", ".kdc", ".bay", ".cap", ".ptx", ".rwz"} < set(RAW_SUFFIXES)
    assert ".raw" not in RAW_SUFFIXES


def test_import_is_light() -> None:
    heavy = ("torch", "rawpy", "tifffile", "exifread", "scipy")
    code = f"import sys, zoo.raw; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.strip() == "[]"


def test_real_cinema_dng(data_dir: Path) -> None:
    raw = read_raw(data_dir / "raw" / "bmpcc_cinemadng.dng")
    assert (raw.cfa, raw.mosaic.shape, raw.black, raw.white) == ("GBRG", (1080, 1920), (256,) * 4, (51080,) * 4)
    assert raw.mosaic.max() > 4095  # 12-bit codes went through the linearisation table
    assert raw.wb == pytest.approx((1 / 0.8722, 1, 1 / 0.5928), rel=1e-3)
    assert raw.xyz_to_cam is not None
    assert raw.xyz_to_cam[0] == pytest.approx((1.00885, -0.27351, -0.08258))


def test_damaged_real_raw_is_said_quietly(data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray((data_dir / "raw" / "bmpcc_cinemadng.dng").read_bytes())
    content[500_000:500_400] = np.random.default_rng(0).bytes(400)
    (tmp_path / "a.dng").write_bytes(content)
    assert "is damaged" in error_of(tmp_path / "a.dng")
    assert capfd.readouterr().err == ""


def test_real_crw(data_dir: Path) -> None:
    raw = read_raw(data_dir / "raw" / "canon_d30.crw")
    assert (raw.cfa, raw.mosaic.shape, raw.iso, raw.white) == ("RGGB", (1440, 2160), 100, (4095,) * 4)
    assert raw.black == (127, 128, 128, 128)
    assert raw.metadata["wb_source"] == "daylight"  # LibRaw gives -1 for red
    assert raw.noise.source == "estimated"
    assert 1e-5 < raw.noise.shot[1] < 1e-4  # its plateau at 0.94 of white must not pass for a noiseless level


def test_every_real_raw_makes_sense(data_dir: Path) -> None:
    paths = sorted((data_dir / "raw").iterdir())
    assert len(paths) >= 20
    for path in paths:
        raw = read_raw(path)
        planes, border = raw.packed()
        assert border.crop(np.zeros((3, planes.shape[1] * 2, planes.shape[2] * 2))).shape[1:] == raw.mosaic.shape
        assert np.isfinite(planes).all(), path
        assert -0.1 < np.quantile(planes, 0.01) < np.quantile(planes, 0.99) < 1.1, path
        assert all(0.25 <= gain <= 4 for gain in raw.wb), path
        assert all(1e-6 < s < 1e-2 for s in raw.noise.shot), (path, raw.noise)
        assert all(0 <= o < 1e-4 for o in raw.noise.read), (path, raw.noise)
