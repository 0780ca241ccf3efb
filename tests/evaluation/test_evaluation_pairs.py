"""Real noisy/clean pairs: what is found, and that the comparison is at the sensor's samples."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.evaluation import pairs
from zoo.raw import read_raw

NOISE = "fitted (S=1.6e-3, O=6e-6)"
BLACK, WHITE, SIZE = 64, 1023, (210, 214)


def write(path: Path, cfa: str = "GRBG", frames: int = 3, meta: dict | None = None, size: tuple = SIZE) -> np.ndarray:
    """A file of pairs; returns the clean mosaic in DN."""
    generator = np.random.default_rng(0)
    clean = np.linspace(100, 900, size[0] * size[1]).reshape(size).round(1)
    noisy = np.clip(np.round(clean + generator.normal(0, 10.23, (frames, *size))), 0, WHITE).astype(np.uint16)
    about = {"black": BLACK, "white": WHITE, "cfa": cfa, "wb": [2.0, 1.0, 1.5], "note": NOISE} | (meta or {})
    np.savez(path, mosaic=noisy, gt_x32=np.round(clean * 32).astype(np.uint16), meta=json.dumps(about))
    return clean


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw" / "room.npz")
    np.savez(tmp_path / "raw" / "weights.npz", layer=np.zeros(3))
    np.savez(tmp_path / "raw" / "burst.npz", mosaic=np.zeros((2, 8, 8), np.uint16), meta="{}")
    (tmp_path / "raw" / "broken.npz").write_bytes(b"PK")
    return tmp_path


def as_is(mosaic, wb, shot, read):
    """Every channel the balanced mosaic itself, which is right at the samples and wrong everywhere else."""
    balanced = mosaic.copy()
    balanced[0::2, 0::2] *= wb[0]
    balanced[1::2, 1::2] *= wb[2]
    result = np.full((3, *mosaic.shape), 7, np.float32)
    for channel, y, x in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        result[channel, y::2, x::2] = balanced[y::2, x::2]
    return result


def test_frames_are_found_among_other_files(folder):
    assert [(p.set, p.name, p.frame) for p in pairs.find_pairs(folder)] == [("room", f"room-{i}", i) for i in range(3)]
    assert len(pairs.find_pairs(folder, ["room"], limit=2)) == 2
    with pytest.raises(ZooError, match="no set 'rom'; did you mean 'room'"):
        pairs.find_pairs(folder, ["rom"])
    with pytest.raises(ZooError, match="no such folder"):
        pairs.find_pairs(folder / "nothing")


@pytest.mark.parametrize("cfa", ["RGGB", "GRBG", "GBRG", "BGGR"])
@pytest.mark.parametrize("size", [SIZE, (211, 213)])
def test_samples_that_are_left_alone_score_what_the_frame_does(tmp_path, cfa, size):
    clean = write(path := tmp_path / "a.npz", cfa, size=size)
    with np.load(path) as archive:
        noisy = archive["mosaic"][1].astype(np.float64)
    error = (noisy - np.round(clean * 32) / 32)[16:-16, 16:-16]
    expected = 20 * np.log10(WHITE - BLACK) - 10 * np.log10((error**2).mean())
    scores = pairs.score_picture(as_is, pairs.find_pairs(tmp_path)[1], "real")
    assert scores.values["psnr"] == pytest.approx(expected, abs=1e-3)
    assert scores.values["psnr"] == pytest.approx(scores.values["psnr_input"], abs=1e-3)
    assert scores.megapixels == size[0] * size[1] / 1e6


def test_results_are_clipped_to_black_and_white_and_not_rounded(tmp_path):
    write(tmp_path / "a.npz")
    (picture,) = pairs.find_pairs(tmp_path, limit=1)
    mosaics = []
    result = pairs.score_picture(lambda m, *_: mosaics.append(m) or np.full((3, *m.shape), -9.0), picture, "real")
    black = pairs.score_picture(lambda m, *_: np.zeros((3, *m.shape), np.float32), picture, "real")
    assert result.values == black.values and mosaics[0].max() > 0.8


@pytest.mark.parametrize("meta", [{}, {"note": "", "noise_profile": [1.6e-3, 6e-6]}])
def test_method_is_told_the_noise_of_the_file(tmp_path, meta):
    write(tmp_path / "a.npz", meta=meta)
    told = []
    pairs.score_picture(lambda *a: told.append(a[1:]) or as_is(*a), pairs.find_pairs(tmp_path)[0], "real")
    assert told == [((2.0, 1.0, 1.5), (1.6e-3,) * 3, (6e-6,) * 3)]


def test_frames_are_unpacked_once_for_all(tmp_path, monkeypatch):
    """Twice, to be exact: the first, which tells what they have in common, is read with its own checks."""
    write(tmp_path / "a.npz", frames=5)
    write(tmp_path / "b.npz", frames=5)
    frame, sizes, read = 2 * SIZE[0] * SIZE[1], [], zipfile.ZipExtFile.read

    def counted(file: zipfile.ZipExtFile, n: int = -1) -> bytes:
        sizes.append(len(data := read(file, n)))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    pictures = pairs.find_pairs(tmp_path)
    assert len(pictures) == 10 and sum(sizes) < frame / 10
    scores = [pairs.score_picture(as_is, picture, "real").values["psnr_input"] for picture in pictures]
    assert sum(sizes) < 2 * (2 * 5 + 1.5) * frame  # with the truth of each
    monkeypatch.undo()
    with np.load(tmp_path / "a.npz") as archive:
        error = archive["mosaic"].astype(np.float64) - archive["gt_x32"] / 32
    expected = 20 * np.log10(WHITE - BLACK) - 10 * np.log10((error[:, 16:-16, 16:-16] ** 2).mean((1, 2)))
    assert scores == pytest.approx([*expected, *expected], abs=1e-3)


def test_a_file_that_claims_more_frames_than_it_holds_is_passed_over(tmp_path):
    write(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"(3, 210, 214)", b"(9999999,9,9)"))
    assert {p.set for p in pairs.find_pairs(tmp_path)} == {"a"}


def test_frames_without_white_balance_have_each_their_own(tmp_path):
    write(tmp_path / "a.npz", meta={"wb": None})
    told = []
    for picture in pairs.find_pairs(tmp_path):
        pairs.score_picture(lambda *a: told.append(a[1]) or as_is(*a), picture, "real")
    assert told == [read_raw(tmp_path / "a.npz", frame=i).wb for i in range(3)] and len(set(told)) == 3


def test_files_without_noise_or_of_two_sizes_are_refused(tmp_path):
    write(tmp_path / "silent.npz", meta={"note": "a room"})
    with pytest.raises(ZooError, match=r"silent\.npz: states no noise"):
        pairs.score_picture(as_is, pairs.find_pairs(tmp_path)[0], "real")
    write(path := tmp_path / "uneven.npz")
    with np.load(path) as archive:
        content = dict(archive)
    np.savez(path, **content | {"gt_x32": content["gt_x32"][:-2]})
    with pytest.raises(ZooError, match=r"uneven\.npz: its frames are \(210, 214\)"):
        pairs.score_picture(as_is, pairs.find_pairs(tmp_path, ["uneven"])[0], "real")


def test_real_pairs_score_what_is_known_of_them(data_dir: Path):
    if not (data_dir / "raw" / "d455_static_pairs.npz").exists():
        pytest.skip(f"no d455_static_pairs.npz in {data_dir / 'raw'}; give the folder of the data with --data DIR")
    pictures = pairs.find_pairs(data_dir)
    assert len(pictures) == 8
    scores = [pairs.score_picture(as_is, p, "real").values for p in pictures]
    assert np.mean([s["psnr"] for s in scores]) == pytest.approx(48.04, abs=0.01)  # 48.1 in the data's README
