"""``zoo denoise``: what comes out, and that mistakes leave nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import zoo as package
from zoo import weights
from zoo.cli import runtimes
from zoo.raw import read_raw

MODEL = "utnet-n"


def written(folder):
    """Names of all that is in a folder, hidden files too, without the tests' own."""
    return sorted(p.name for p in folder.iterdir() if p.name not in ("weights", "photo.dng"))


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpg", "a.dng"])
def test_one_photo_to_one_file(zoo, shipped, photo, tmp_path, name):
    code, out, err = zoo("denoise", photo(), "-o", tmp_path / name, "--model", MODEL)
    assert (code, err) == (0, "")
    assert "s/MP" in out
    assert "MB" in out
    assert written(tmp_path) == [name]
    if name != "a.dng":
        picture = tifffile.imread(tmp_path / name) if name == "a.tiff" else np.array(Image.open(tmp_path / name))
        assert picture.shape == (61, 90, 3)
        grey = picture[5:-5, 5:-5].astype(float)
        assert np.ptp(grey, axis=2).max() < 0.02 * np.iinfo(picture.dtype).max
        assert (np.diff(grey.mean(axis=(0, 2))) > 0).mean() > 0.9


def test_json(zoo, shipped, photo, tmp_path):
    code, out, _ = zoo("denoise", photo(), "-o", tmp_path / "a.tiff", "--model", MODEL, "--json", "--threads", "1")
    facts = json.loads(out)
    assert code == 0
    assert (facts["model"], facts["runtime"], facts["precision"], facts["errors"]) == (MODEL, "torch", "fp32", [])
    (file,) = facts["files"]
    assert (file["height"], file["width"], file["noise"]["source"]) == (61, 90, "tag")
    assert file["peak_rss_mb"] > 10


def test_a_folder_of_photos(zoo, shipped, photo, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.DNG", "a.dng", "c.gpr"):
        photo().rename(folder / name)
    (folder / "notes.txt").write_text("not a photo")
    code, out, _ = zoo("denoise", folder, "-o", tmp_path / "out", "--model", MODEL, "--format", "png")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    assert out.count("->") == 3


def test_the_others_go_on_when_one_fails(zoo, shipped, photo, tmp_path):
    fake = tmp_path / "fake.dng"
    fake.write_text("hello " * 1000)
    inputs = [fake, tmp_path / "missing.dng", photo()]
    code, out, err = zoo("denoise", *inputs, "-o", tmp_path / "out", "--model", MODEL, "--json")
    assert code == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.tiff"]
    first, second, last = err.strip().splitlines()
    assert "fake.dng" in first
    assert "missing.dng" in second
    assert last == "error: 2 of 3 files failed"
    assert len(json.loads(out)["errors"]) == 2


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_the_others_go_on_after_a_bug_too(zoo, shipped, photo, tmp_path, monkeypatch, debug):
    def read(path):
        if path.name == "a.dng":
            raise IndexError("no such\nrow")
        return read_raw(path)

    monkeypatch.setattr("zoo.raw.read_raw", read)
    inputs = [photo("a.dng"), photo("b.dng")]
    code, out, err = zoo("denoise", *inputs, "-o", tmp_path / "out", "--model", MODEL, "--json", *debug)
    assert code == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.tiff"]
    line = f"{inputs[0]}: IndexError: no such row; this is a bug, --debug shows where"
    assert json.loads(out)["errors"] == [line]
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert errors == [f"error: {line}", "error: 1 of 2 files failed"]
    assert ("in read\n" in err) == bool(debug)
    assert zoo("denoise", inputs[0], "-o", tmp_path / "a.tiff", "--model", MODEL)[0] == 1  # alone, it ends the program


@pytest.mark.parametrize("inputs", [["photo.dng"], ["photo.dng", "b.dng"]])
def test_names_that_are_too_long(zoo, shipped, photo, tmp_path, monkeypatch, inputs):
    monkeypatch.chdir(tmp_path)
    for name in inputs:
        photo(name)
    for arguments in ([*inputs, "-o", "a" * 300 + ".tiff"], ["a" * 300 + ".dng", "-o", "a.tiff"]):
        code, _, err = zoo("denoise", *arguments, "--model", MODEL)
        assert code == 2
        assert "File name too long" in err
        assert err.count("\n") == 1


def test_the_api_agrees_with_the_cli(zoo, shipped, photo, tmp_path):
    zoo("denoise", photo(), "-o", tmp_path / "a.tiff", "--model", MODEL, "--linear", "--tile", "128")
    camera = package.denoise(photo(), model=MODEL)
    assert camera.dtype == np.float32
    assert package.denoise(photo(), tmp_path / "b.tiff", model=MODEL, linear=True) == tmp_path / "b.tiff"
    a, b = (tifffile.imread(tmp_path / name).astype(float) for name in ("a.tiff", "b.tiff"))
    assert np.abs(a - b).max() <= 1
    # Without a matrix camera RGB is sRGB, up to the rounding of the DNG's rationals.
    np.testing.assert_allclose(a / 65535, camera.clip(0, 1), atol=1e-3)


def test_a_photo_one_pixel_odd_each_way(zoo, shipped, photo, tmp_path):
    for cfa in ("RGGB", "GRBG", "GBRG", "BGGR"):
        path = photo(f"{cfa}.dng", (101, 67), cfa)
        assert read_raw(path).mosaic.shape == (101, 67)
        assert zoo("denoise", path, "-o", tmp_path / f"{cfa}.tiff", "--model", MODEL)[0] == 0
        assert tifffile.imread(tmp_path / f"{cfa}.tiff").shape == (101, 67, 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "a.tiff", "--model", "utnet-nn"], "did you mean 'utnet-n'"),
        (["-o", "a.tiff", "--model", "utnet-m"], "no weights"),
        (["-o", "a.tiff", "--runtime", "integer", "--model", "utnet-nn"], "did you mean 'utnet-n'"),
        (["-o", "a.tiff", "--runtime", "executorch", "--model", "utnet-nn"], "did you mean 'utnet-n'"),
        (["-o", "a.tiff", "--runtime", "integer", "--model", MODEL], "no quantised weights"),
        (["-o", "a.tiff", "--runtime", "torhc"], "did you mean 'torch'"),
        (["-o", "a.tiff", "--precision", "int9"], "did you mean 'int8'"),
        (["-o", "a.tiff", "--precision", "int8", "--model", MODEL], "torch runs fp32, not int8"),
        (["-o", "out", "--format", "tif_"], "did you mean 'tiff'"),
        (["-o", "-"], "not go to the standard output; name a file or a folder"),
        (["photo.dng", "-o", "out"], "photo.dng: is given twice; leave one of them out"),
        ([".", "-o", "out"], "photo.dng: is given twice; leave one of them out"),
        (["-o", "a.png", "--format", "tiff"], "suffix says png"),
        (["-o", "a.gif"], "no format has the suffix"),
        (["-o", "nowhere/a.tiff"], "there is no folder"),
        (["-o", "a.png", "--linear"], "8 bits"),
        (["-o", "a.dng", "--exposure", "1"], "raw developer"),
        (["-o", "a.tiff", "--tile", "100", "--model", MODEL], "multiples of 8 from 56"),
        (["-o", "a.tiff", "--tile", "1000000"], "tile 1000000 is too large: 4096 packed pixels or less"),
        (["-o", "a.tiff", "--threads", "0"], "1 or more"),
        (["-o", "a.tiff", "--threads", "100000"], "--threads is 1024 or less, not 100000"),
        (["-o", "a.tiff", "--noise-scale", "0", "--model", MODEL], "noise scale"),
        (["-o", "photo.dng", "--model", MODEL], "the raw itself"),
        (["-o", "out", "--model", "nothing.pte"], "does not exist"),
        (["-o", "out", "--model", "nothing.pte", "--runtime", "litert"], "is for executorch"),
    ],
)
def test_mistakes_leave_nothing_behind(zoo, shipped, photo, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    photo()
    before = (tmp_path / "photo.dng").read_bytes()
    code, out, err = zoo("denoise", "photo.dng", *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err
    assert written(tmp_path) == []
    assert (tmp_path / "photo.dng").read_bytes() == before


def damaged(kind, photo, tmp_path):
    path = photo("bad.dng")
    if kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("this is no raw\n" * 50)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:6000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "empty folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "no such file"),
        ("text", "no raw"),
        ("truncated", "cut off"),
        ("empty", "is empty"),
        ("empty folder", "no raw files"),
    ],
)
def test_bad_photos(zoo, shipped, photo, tmp_path, kind, text):
    path = damaged(kind, photo, tmp_path)
    code, out, err = zoo("denoise", path, "-o", tmp_path / "out" / "", "--model", MODEL)
    assert (code, out) == (2, "")
    assert str(path) in err
    assert text in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_xtrans(zoo, shipped, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.raw.read_raw", lambda path: dataclasses.replace(read_raw(path), cfa="XTRANS"))
    code, _, err = zoo("denoise", photo(), "-o", tmp_path / "a.tiff", "--model", MODEL)
    assert code == 2
    assert "X-Trans" in err
    assert written(tmp_path) == []


@pytest.mark.parametrize("size", [0, 100, -1])
def test_damaged_weights(zoo, shipped, photo, tmp_path, size):
    file = weights.path(MODEL)
    file.write_bytes(file.read_bytes()[:size])
    code, _, err = zoo("denoise", photo(), "-o", tmp_path / "a.tiff", "--model", MODEL)
    assert code == 2
    assert "damaged" in err
    assert written(tmp_path) == []


def test_a_damaged_artefact(zoo, shipped, photo, tmp_path):
    # The first bytes of such files, as a copy that was cut off has them, and something else.
    begun = {"cut.pte": b"\x24\0\0\0ET12", "cut.tflite": b"\x20\0\0\0TFL3"}
    others = dict.fromkeys(("bad.pte", "bad.tflite"), b"no program" * 100)
    for name, content in (begun | others).items():
        (tmp_path / name).write_bytes(content)
        code, _, err = zoo("denoise", photo(), "-o", tmp_path / "a.tiff", "--model", tmp_path / name)
        assert code == 2
        assert f"{name} is not a readable" in err
        assert err.count("\n") == 1
    assert written(tmp_path) == sorted(begun | others)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(zoo, shipped, photo, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "cannot be written" in zoo("denoise", photo(), "-o", folder / "a.tiff", "--model", MODEL)[2]
    assert "cannot be written to" in zoo("denoise", photo(), "-o", f"{folder}/new/", "--model", MODEL)[2]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
def test_a_folder_that_takes_no_files(zoo, shipped, photo):
    for out in ("/proc/a.tiff", "/proc/a.png", "/proc/a.dng", "/proc/new/"):
        code, _, err = zoo("denoise", photo(), "-o", out, "--model", MODEL)
        assert code == 2
        assert "/proc" in err
        assert err.count("\n") == 1


def test_a_folder_that_cannot_be_one(zoo, shipped, photo, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "deeper" / "", tmp_path / "file" / "a.tiff"):
        code, _, err = zoo("denoise", photo(), "-o", out, "--model", MODEL)
        assert code == 2
        assert err.count("\n") == 1
    assert written(tmp_path) == ["file"]


@pytest.mark.parametrize("format", ["jpg", "jpeg", "tif", "tiff"])
def test_formats_by_their_short_names(zoo, shipped, photo, tmp_path, format):
    assert zoo("denoise", photo(), "-o", tmp_path / "out", "--model", MODEL, "--format", format)[0] == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"photo.{format}"]
    assert zoo("denoise", photo(), "-o", tmp_path / f"a.{format}", "--model", MODEL, "--format", format)[0] == 0


def test_another_raw_in_the_folder_is_not_overwritten(zoo, shipped, photo, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    meta = {"black": 10, "white": 4095, "cfa": "RGGB"}
    np.savez(folder / "IMG_1.npz", mosaic=np.full((40, 60), 900, np.uint16), meta=json.dumps(meta))
    raw = photo().rename(folder / "IMG_1.dng")
    before = raw.read_bytes()
    command = ["denoise", folder / "IMG_1.npz", "-o", folder, "--model", MODEL, "--format", "dng"]
    code, out, err = zoo(*command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{raw}: is a DNG that raw-zoo did not write and would be overwritten" in err
    assert raw.read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["IMG_1.dng", "IMG_1.npz"]
    raw.unlink()
    assert [zoo(*command)[0] for _ in range(2)] == [0, 0]  # its own picture may be made again


@pytest.mark.parametrize("threads", [0, -3, 100000])
def test_threads_of_the_api(shipped, photo, threads):
    with pytest.raises(package.ZooError, match=f"threads is 1.* or (more|less), not {threads}"):
        package.denoise(photo(), model=MODEL, threads=threads)


_SLOW = """
import sys, time
from zoo.cli import main
from zoo.inference import restore
run_tile = restore.run_tile

def slow(*arguments):
    print("tile", flush=True)
    time.sleep(0.3)
    return run_tile(*arguments)

restore.run_tile = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
@pytest.mark.parametrize("name", ["a.tiff", "a.dng"])
def test_signals_leave_nothing_behind(photo, tmp_path, number, code, name):
    command = [sys.executable, "-c", _SLOW, "denoise", photo(size=(900, 90)), "-o", tmp_path / name]
    command += ["--model", "passthrough", "--tile", "64"]

    def as_in_a_terminal() -> None:  # what runs under nohup or in the background ignores some of them
        for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(one, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=as_in_a_terminal, **pipes) as process:
        assert process.stdout.readline() == "tile\n"
        for _ in range(4):  # so that pixels are written already
            process.stdout.readline()
        assert any(p.name.startswith(".a.") for p in tmp_path.iterdir())
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.startswith("error: ") and err.count("\n") == 1
    assert written(tmp_path) == []


def test_two_photos_with_one_name(zoo, shipped, photo, tmp_path):
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "photo.dng"
    photo().rename(other)
    code, _, err = zoo("denoise", photo(), other, "-o", tmp_path / "out", "--model", MODEL)
    assert code == 2
    assert "would both become" in err
    code, _, err = zoo("denoise", photo(), other, "-o", tmp_path / "out.tiff", "--model", MODEL)
    assert code == 2
    assert "need a folder" in err


@pytest.mark.slow
def test_runtimes_agree(zoo, shipped, photo, tmp_path, monkeypatch):
    """An artefact is exported on first use, used again, and made anew when the weights change."""
    pytest.importorskip("executorch")
    monkeypatch.setattr(runtimes, "_FOLDER", tmp_path / "artifacts")
    options = ["--model", MODEL, "--linear"]
    zoo("denoise", photo(), "-o", tmp_path / "torch.tiff", *options)
    expected = tifffile.imread(tmp_path / "torch.tiff").astype(float)
    run = ["--runtime", "executorch", "--precision", "fp32", "--tile", "64"]
    for announced in (True, False):
        code, _, err = zoo("denoise", photo(), "-o", tmp_path / "pte.tiff", *options, *run)
        assert code == 0, err
        assert ("exporting" in err) == announced
        assert np.abs(tifffile.imread(tmp_path / "pte.tiff") - expected).max() <= 2
    (artefact,) = (tmp_path / "artifacts").glob("*.pte")
    code, _, err = zoo("denoise", photo(), "-o", tmp_path / "again.tiff", "--model", artefact, "--linear")
    assert code == 0, err
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "again.tiff"), tifffile.imread(tmp_path / "pte.tiff"))
    code, _, err = zoo("denoise", photo(), "-o", tmp_path / "c.tiff", "--model", artefact, "--tile", "128")
    assert code == 2
    assert "exported for 64" in err


def test_a_model_without_weights_runs_on_runtimes_too(zoo, photo, tmp_path, monkeypatch):
    """And its artefact, once there, is found to be made from the same nothing."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtimes, "_FOLDER", tmp_path / "artifacts")
    options = ["--model", "passthrough", "--linear", "--tile", "64"]
    zoo("denoise", photo(), "-o", tmp_path / "torch.tiff", *options)
    for announced in (True, False):
        code, _, err = zoo("denoise", photo(), "-o", tmp_path / "onnx.tiff", *options, "--runtime", "onnx")
        assert code == 0, err
        assert ("exporting" in err) == announced
    expected = tifffile.imread(tmp_path / "torch.tiff").astype(float)
    assert np.abs(tifffile.imread(tmp_path / "onnx.tiff") - expected).max() <= 2


@pytest.mark.parametrize("name", ["bmpcc_cinemadng.dng", "canon_d30.crw", "phone_a71_iso500_fabric.npz"])
def test_real_photos(zoo, shipped, data_dir, tmp_path, name):
    code, out, err = zoo("denoise", data_dir / "raw" / name, "-o", tmp_path / "a.png", "--model", MODEL, "--json")
    assert code == 0, err
    file = json.loads(out)["files"][0]
    picture = np.array(Image.open(tmp_path / "a.png"))
    assert picture.shape == (file["height"], file["width"], 3)
    assert 10 < picture.mean() < 245
