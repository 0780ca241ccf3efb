"""What the verbs for photos share: which photos, what they become, what is left alone. By a model that does nothing."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich import console as rich_console

from zoo.cli import photos
from zoo.errors import ZooError
from zoo.raw import RAW_SUFFIXES, read_raw

MODEL = ["--model", "passthrough"]
SUFFIXES = (".tiff", ".png", ".dng")


@pytest.fixture
def folder(photo, tmp_path):
    """Two raws."""
    path = tmp_path / "in"
    path.mkdir()
    for name in ("a.dng", "b.dng"):
        photo().rename(path / name)
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def gathered(inputs, out):
    args = argparse.Namespace(inputs=[Path(path) for path in inputs], output=photos.Output.parse(str(out)))
    return photos.gather(args, RAW_SUFFIXES, "raw files", SUFFIXES)


def test_a_picture_of_another_s_is_left_alone(zoo, folder, tmp_path):
    Image.new("RGB", (9, 9)).save(folder / "a.jpg")  # as cameras put it beside the raw
    before = (folder / "a.jpg").read_bytes()
    command = ["denoise", folder, "-o", folder, "--format", "jpg", *MODEL]
    code, out, err = zoo(*command)
    first, last = err.splitlines()
    assert (code, out.count("->"), last) == (2, 1, "error: 1 of 2 files failed")
    assert first == f"error: {folder / 'a.jpg'}: exists and is not raw zoo's; --overwrite replaces it"
    assert (folder / "a.jpg").read_bytes() == before
    assert names(folder) == ["a.dng", "a.jpg", "b.dng", "b.jpg"]
    single = ["denoise", folder / "a.dng", "-o", folder / "a.jpg", *MODEL]
    code, out, err = zoo(*single)
    assert (code, out, err) == (2, "", f"{first}\n")
    assert [zoo(*single, *option)[0] for option in (["--overwrite"], [])] == [0, 0]
    assert (folder / "a.jpg").read_bytes() != before
    (tmp_path / "c.tiff").mkdir()
    with pytest.raises(ZooError, match=r"c\.tiff: is a folder"):
        photos._check_target(tmp_path / "c.tiff", folder / "a.dng", overwrite=True)
    for target, text in (("a.dng", "is the raw itself"), ("b.dng", "is a DNG that raw-zoo did not write")):
        with pytest.raises(ZooError, match=text):
            photos._check_target(folder / target, folder / "a.dng", overwrite=True)


def test_a_folder_goes_on_where_it_was(zoo, folder, tmp_path):
    command = ["denoise", folder, "-o", tmp_path / "out", *MODEL]
    assert zoo("denoise", folder / "a.dng", "-o", f"{tmp_path}/out/", *MODEL)[0] == 0
    made = (tmp_path / "out" / "a.tiff").stat().st_mtime_ns
    code, out, err = zoo(*command, "--json")
    assert (code, err) == (0, "1 of 2 were there already; --overwrite makes them anew\n")
    skipped, done = json.loads(out)["files"]
    assert skipped == {"input": str(folder / "a.dng"), "output": str(tmp_path / "out" / "a.tiff"), "skipped": True}
    assert done["output"].endswith("b.tiff") and "skipped" not in done
    assert (tmp_path / "out" / "a.tiff").stat().st_mtime_ns == made
    os.utime(folder / "b.dng")  # newer than its picture
    (tmp_path / "out" / "a.tiff").write_bytes(b"")  # nothing that could be lost, nor a picture
    code, out, err = zoo(*command)
    assert (code, out.count("->"), err) == (0, 2, "")
    code, out, err = zoo(*command, "--overwrite")
    assert (code, out.count("->"), err) == (0, 2, "")


def test_pictures_beside_their_raws_are_no_raws(zoo, folder):
    (folder / "b.dng").rename(folder / "b.dng.dng")
    command = ["denoise", folder, "-o", folder, "--format", "dng", *MODEL]
    code, _, err = zoo(*command)
    assert code == 2 and "a.dng: is the raw itself" in err and "b.dng.dng: is the raw itself" in err
    assert names(folder) == ["a.dng", "b.dng.dng"]
    (folder / "a.dng").rename(folder / "a.gpr")
    (folder / "b.dng.dng").unlink()
    for said in ("", "1 of 1 were there already; --overwrite makes them anew\n"):
        code, _, err = zoo(*command)
        assert (code, err, names(folder)) == (0, said, ["a.dng", "a.gpr"])


def test_names_with_a_dot_in_front_are_no_photos(tmp_path):
    for name in ("._A.dng", ".B.dng", "A.dng", "B.DNG", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in gathered([tmp_path], tmp_path / "out").sources] == ["A.dng", "B.DNG"]
    for name in ("A.dng", "B.DNG"):
        (tmp_path / name).unlink()
    (tmp_path / "README").touch()
    text = r"holds no raw files among its 2 files \(\.txt, no suffix\); give the folder they lie in"
    with pytest.raises(ZooError, match=text):
        gathered([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["A.cr2", "A.dng", "B.cr2"], ["A.cr2.tiff", "A.dng.tiff", "B.tiff"]),
        (["A.dng", "B.cr2", "A.cr2"], ["A.dng.tiff", "B.tiff", "A.cr2.tiff"]),
        (["A.cr2", "a.dng"], ["A.cr2.tiff", "a.dng.tiff"]),
        (["A.cr2", "A.cr2.dng", "A.dng"], ["A.cr2.tiff", "A.cr2.dng.tiff", "A.dng.tiff"]),
        (["x/A.cr2", "y/A.dng"], ["A.cr2.tiff", "A.dng.tiff"]),
    ],
)
def test_raws_of_one_stem(sources, expected):
    jobs = photos.Photos([Path(source) for source in sources], None, Path("out"), True).jobs(".tiff")
    assert [target for _, target in jobs] == [Path("out") / name for name in expected]
    with pytest.raises(ZooError, match=r"x/A.cr2 and y/A.cr2 would both become out/A.cr2.tiff"):
        photos.Photos([Path("x/A.cr2"), Path("y/A.cr2")], None, Path("out"), True).jobs(".tiff")


def test_a_slash_makes_a_folder(zoo, folder, tmp_path):
    out = tmp_path / "2024.06.01"
    found = gathered([folder / "a.dng"], f"{out}/")
    assert (found.target, found.folder, found.several) == (None, out, False)
    assert gathered([folder / "a.dng"], out).target == out  # a file of a suffix that nothing writes
    assert zoo("denoise", folder / "a.dng", "-o", f"{out}/", *MODEL)[0] == 0
    assert names(out) == ["a.tiff"]
    assert gathered([folder / "a.dng"], out).target is None
    (tmp_path / "b.tiff").touch()
    with pytest.raises(ZooError, match="is a file, not a folder"):
        gathered([folder / "a.dng"], f"{tmp_path}/b.tiff/")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--tile", "7", "--model", "utnet-n"], "tile 7 does not fit"),
        (["--noise-scale", "0"], "the noise scale is a number above 0"),
        (["--noise-scale", "nan"], "the noise scale is a number above 0"),
        (["-o", "/proc/none/out"], "/proc/none/out: cannot be written to"),
        (["-o", "file/out"], "file: is a file, not a folder; give another -o"),
    ],
)
def test_what_is_wrong_for_all_is_said_once(zoo, folder, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, err = zoo("denoise", folder, "-o", "out", *MODEL, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err
    assert names(tmp_path) == ["file", "in"]


def test_lens_shading_is_noted_once(zoo, folder, tmp_path, monkeypatch):
    def read(path):
        raw = read_raw(path)
        return dataclasses.replace(raw, metadata=raw.metadata | {"gain_map": 1})

    monkeypatch.setattr("zoo.raw.read_raw", read)
    code, _, err = zoo("denoise", folder, "-o", tmp_path / "out", *MODEL)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(f"note: {folder / 'a.dng'}: its lens shading correction (GainMap) is damaged or not of")


def test_the_bar_says_which_photo_of_how_many(monkeypatch):
    shown = io.StringIO()
    terminal = rich_console.Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(rich_console, "Console", lambda **_: terminal)
    place = photos.Place(300, number=12, worked=10, begun=0.0, photo_begun=600.0)
    monkeypatch.setattr(photos.time, "perf_counter", lambda: 601.0)
    with photos.Bar("[/x].dng", 12.0, place, hidden=False) as progress:
        monkeypatch.setattr(photos.time, "perf_counter", lambda: 604.0)
        progress(1, 4)
    text = shown.getvalue()
    assert "[12/300] [/x].dng" in text and "11/300" in text and "1/4" in text
    assert "1.0 MP/s, 0:09 to go" in text and "photos, 4:48:56 to go" in text
    shown.truncate(0)
    with photos.Bar("a.dng", 12.0, photos.Place(1, number=1), hidden=False) as progress:
        progress(1, 1)
    assert "a.dng" in shown.getvalue() and "photos" not in shown.getvalue()


def test_names_that_are_not_utf_8(photo, tmp_path):
    """In a process of its own, whose output is what a terminal's is."""
    folder = os.fsencode(tmp_path)
    name = photo().rename(os.fsdecode(folder + b"/B\xe9.dng"))
    command = [sys.executable, "-m", "zoo", "denoise", name, "-o", f"{tmp_path}/out/", *MODEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "B\\udce9.tiff" in done.stdout and names(tmp_path / "out") == ["B\udce9.tiff"]
