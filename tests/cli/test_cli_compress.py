"""``zoo compress``, ``zoo decompress`` and ``zoo show`` of files; mistakes are one line and leave nothing behind."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from zoo import weights
from zoo.codec import parse, read_thumbnail
from zoo.data.scene import linear_scene, synthetic_raw
from zoo.inference.codec import open_codec
from zoo.raw import read_raw, srgb_encode, write_dng


@pytest.fixture
def packed(zoo, compressor, photo, tmp_path):
    """A compressed photo."""
    target = tmp_path / "a.rzc"
    assert zoo("compress", photo(), "-o", target, "--model", compressor)[::2] == (0, "")
    return target


def written(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != "photo.dng")


def test_there_and_back(zoo, compressor, photo, packed, tmp_path):
    camera = open_codec(compressor).decompress(packed)
    header = parse(packed).header
    assert (header.height, header.width, header.cfa, header.quality, header.model) == (61, 90, "GRBG", 48, compressor)
    assert read_thumbnail(parse(packed).thumbnail()).shape == (31, 46, 3)  # of the aligned mosaic
    for name in ("a.tiff", "a.tif", "a.png", "a.jpg", "a.dng"):
        code, out, err = zoo("decompress", packed, "-o", tmp_path / name, "--threads", "1")
        assert (code, err) == (0, "")
        assert str(tmp_path / name) in out
        if name != "a.dng":
            picture = tifffile.imread(tmp_path / name) if "tif" in name else np.array(Image.open(tmp_path / name))
            assert picture.shape == (61, 90, 3)
    assert zoo("decompress", packed, "-o", tmp_path / "l.tiff", "--linear")[0] == 0
    # Without a matrix camera RGB is sRGB.
    np.testing.assert_allclose(tifffile.imread(tmp_path / "l.tiff") / 65535, camera.clip(0, 1), atol=1e-4)
    assert read_raw(photo()).iso == parse(packed).header.iso == 200


def test_a_denoiser_may_go_first(zoo, compressor, photo, tmp_path):
    def compressed(name, *options):
        target = tmp_path / name
        code, out, err = zoo("compress", photo(), "-o", target, "--model", compressor, "--json", *options)
        assert code == 0, err
        return json.loads(out)["denoiser"], target.read_bytes()

    none, alone = compressed("a.rzc")
    name, behind = compressed("b.rzc", "--denoiser", "utnet-n")
    assert (none, name) == (None, "utnet-n") and alone != behind
    assert parse(alone).header.noise == parse(behind).header.noise
    assert zoo("decompress", tmp_path / "b.rzc", "-o", tmp_path / "b.png")[0] == 0
    for wrong, problem in (
        ("utnet-nn", "did you mean 'utnet-n'"),
        ("", "unknown model ''"),
        (compressor, "is a compressor"),
    ):
        code, _, err = zoo("compress", photo(), "-o", tmp_path / "c.rzc", "--model", compressor, "--denoiser", wrong)
        assert code == 2 and problem in err and not (tmp_path / "c.rzc").exists()


def test_json_and_rates(zoo, compressor, photo, tmp_path):
    def sizes(*options):
        code, out, err = zoo("compress", photo(), "-o", tmp_path / "b.rzc", "--model", compressor, "--json", *options)
        assert code == 0, err
        facts = json.loads(out)
        assert facts["bytes"] == (tmp_path / "b.rzc").stat().st_size
        assert facts["bits_per_pixel"] == pytest.approx(8 * facts["bytes"] / (61 * 90), abs=1e-4)
        return facts

    low, high = sizes("--quality", 0), sizes("--quality", 63, "--no-thumbnail")
    assert (low["quality"], high["quality"]) == (0, 63)
    plain = sizes("--quality", 0, "--no-thumbnail")
    assert plain["bytes"] < low["bytes"]
    middle = (plain["bits_per_pixel"] + high["bits_per_pixel"]) / 2
    target = sizes("--target-bpp", middle, "--no-thumbnail")
    assert 0 < target["quality"] < 63
    assert target["bits_per_pixel"] <= middle


def test_folders_there_and_back(zoo, compressor, photo, tmp_path):
    raws, files, pictures = (tmp_path / name for name in ("raws", "files", "pictures"))
    raws.mkdir()
    for name in ("a.dng", "b.dng"):
        photo().rename(raws / name)
    command = ["compress", raws, "-o", files, "--model", compressor, "--target-bpp", "20", "--json"]
    code, out, err = zoo(*command)
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["model"], facts["denoiser"], facts["errors"]) == (compressor, None, [])
    assert [Path(file["output"]).name for file in facts["files"]] == written(files) == ["a.rzc", "b.rzc"]
    assert [file["bytes"] for file in facts["files"]] == [(files / name).stat().st_size for name in written(files)]
    code, out, err = zoo(*command)
    assert (code, err) == (0, "2 of 2 were there already; --overwrite makes them anew\n")
    assert all(file["skipped"] for file in json.loads(out)["files"])

    (files / "c.rzc").write_text("no such thing")
    command = ["decompress", files, "-o", pictures, "--format", "png"]
    code, out, err = zoo(*command)
    assert (code, out.count("->"), err.count("\n")) == (2, 2, 2)
    assert "c.rzc: no .rzc file" in err and "error: 1 of 3 files failed" in err
    assert written(pictures) == ["a.png", "b.png"]
    assert np.asarray(Image.open(pictures / "a.png")).shape == (61, 90, 3)
    code, _, err = zoo(*command, "--rect", "0,0,9,9")
    assert (code, err.count("\n")) == (2, 1) and "--rect 0,0,9,9: is a part of one picture; give one file" in err
    code, _, err = zoo("decompress", files / "a.rzc", files / "b.rzc", "-o", tmp_path / "a.png")
    assert code == 2 and "need a folder" in err


def test_another_s_file_is_not_replaced(zoo, packed, compressor, photo, tmp_path):
    for command in (
        ["decompress", packed, "-o", tmp_path / "photo.jpg"],
        ["compress", photo(), "-o", tmp_path / "photo.rzc", "--model", compressor],
    ):
        target = command[3]
        target.write_bytes(b"somebody's")
        code, out, err = zoo(*command)
        assert (code, out) == (2, "")
        assert err == f"error: {target}: exists and is not raw zoo's; --overwrite replaces it\n"
        assert target.read_bytes() == b"somebody's"
        assert [zoo(*command, *option)[0] for option in (["--overwrite"], [])] == [0, 0]  # ours by then


def test_a_rectangle(zoo, packed, tmp_path):
    assert zoo("decompress", packed, "-o", tmp_path / "all.tiff")[0] == 0
    code, out, _ = zoo("decompress", packed, "-o", tmp_path / "part.tiff", "--rect", "11,7,20,33", "--json")
    assert (code, json.loads(out)["width"], json.loads(out)["height"]) == (0, 33, 20)
    whole = tifffile.imread(tmp_path / "all.tiff")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "part.tiff"), whole[11:31, 7:40])


def test_show(zoo, compressor, packed, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)  # it takes no weights
    code, out, _ = zoo("show", packed)
    assert code == 0
    for text in (f"model: {compressor}", "quality: 48", "height: 61", "GRBG", "damaged: 0"):
        assert text in out
    facts = json.loads(zoo("show", packed, "--json")[1])
    assert facts["bytes"] == packed.stat().st_size
    assert facts["tables_sha256"] == parse(packed).header.tables_sha256.hex()


def test_show_tells_of_the_tables_of_a_model(zoo, compressor):
    facts = json.loads(zoo("show", compressor, "--json")[1])
    assert [file["file"].rsplit("/")[-1] for file in facts["weights"]] == [
        f"{compressor}.safetensors",
        f"{compressor}-tables.safetensors",
    ]
    assert facts["spec"]["codec"]["latents"] == 192


def test_salvage(zoo, packed, tmp_path):
    data = packed.read_bytes()
    packed.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    out = tmp_path / "a.png"
    code, _, err = zoo("decompress", packed, "-o", out)
    assert (code, err.count("\n"), out.exists()) == (2, 1, False)
    assert "damaged" in err
    assert "with --salvage" in err
    assert "damaged: 1" in zoo("show", packed)[1]
    code, said, _ = zoo("decompress", packed, "-o", out, "--salvage")
    assert code == 0
    assert "100.0% of the pixels are damaged by 1 lost tile (magenta)" in said
    shown = np.asarray(Image.open(out))
    assert (shown[..., 1] == 0).all() and (shown[..., [0, 2]] > 100).all()


def test_salvage_paints_what_is_lost_and_nothing_else(zoo, tmp_path):
    raw, file, out = tmp_path / "a.dng", tmp_path / "a.rzc", tmp_path / "a.png"
    photo = synthetic_raw(700, 560, cfa="GRBG")
    write_dng(
        raw, photo.mosaic, cfa=photo.cfa, black=photo.black, white=photo.white, wb=photo.wb,
        xyz_to_cam=photo.xyz_to_cam, noise=photo.noise,
    )  # fmt: skip
    assert zoo("compress", raw, "-o", file, "--model", "bayer-codec-s")[0] == 0
    assert zoo("decompress", file, "-o", out)[0] == 0
    whole = np.asarray(Image.open(out)).astype(int)
    data = bytearray(file.read_bytes())
    data[-2] ^= 1  # in the last of four tiles
    file.write_bytes(data)
    code, said, _ = zoo("decompress", file, "-o", out, "--salvage", "--json")
    (box,) = json.loads(said)["damaged_tiles"]
    assert (code, box) == (0, [512, 511, 188, 49])  # GRBG: the frame begins a column before the picture
    shown = np.asarray(Image.open(out)).astype(int)
    lost = np.zeros(shown.shape[:2], bool)
    lost[box[0] :, box[1] :] = True
    assert (shown[lost][:, 1] == 0).all() and (shown[lost][:, [0, 2]] > 100).all()
    far = np.ones_like(lost)
    far[box[0] - 64 :, box[1] - 64 :] = False
    assert (shown[far] == whole[far]).all()
    code, said, _ = zoo("decompress", file, "-o", out, "--salvage", "--json", "--rect", "0,0,300,300")
    assert (code, json.loads(said)["damaged_tiles"]) == (0, [])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: b"", "no .rzc file"),
        (lambda data: b"hello" * 500, "no .rzc file"),
        (lambda data: data[:300], "cut off within its header"),
        (lambda data: data[:-4], "cut off after"),
        (lambda data: data[:40] + b"\xff" + data[41:], "header is damaged"),
        (lambda data: data + b"x", "too long"),
    ],
    ids=["empty", "text", "header", "tail", "bit", "longer"],
)
def test_bad_files(zoo, packed, tmp_path, change, text):
    packed.write_bytes(change(packed.read_bytes()))
    before = written(tmp_path)
    for command in (["decompress", packed, "-o", tmp_path / "x.png"], ["show", packed]):
        code, out, err = zoo(*command)
        if command[0] == "show" and text in ("cut off after", "too long"):
            assert code == 0  # the header is whole: what can be told is told
            continue
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert str(packed) in err
        assert text in err
    assert written(tmp_path) == before


def test_files_of_a_model_without_weights(zoo, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    code, _, err = zoo("decompress", packed, "-o", tmp_path / "x.png")
    assert code == 2
    assert "made with the model 'bayer-codec-s'" in err
    assert "make them with `zoo train`" in err
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "a.jpg"], "ends in .rzc"),
        (["-o", "no/a.rzc"], "there is no folder"),
        (["-o", "a.rzc", "--quality", "64"], "0 to 63"),
        (["-o", "a.rzc", "--quality", "9", "--target-bpp", "1"], "not allowed with"),
        (["-o", "a.rzc", "--target-bpp", "0.0001"], "at quality 0 already"),
        (["-o", "a.rzc", "--target-bpp", "-1"], "above 0"),
        (["-o", "a.rzc", "--model", "bayer-codec-x"], "unknown model 'bayer-codec-x'; did you mean 'bayer-codec-"),
        (["-o", "a.rzc", "--model", "utnet-m"], "is no compressor"),
        (["-o", "a.rzc", "--model", "balle-rgb"], "no weights ship with this version; make them with `zoo train`"),
        (["-o", "a.rzc", "--threads", "0"], "1 or more"),
        (["-o", "a.rzc", "--threads", "100000"], "--threads is 1024 or less, not 100000"),
        (["-o", "a" * 300 + "/a.rzc"], "cannot be opened (File name too long); choose another name"),
    ],
)
def test_bad_options(zoo, compressor, photo, tmp_path, monkeypatch, options, text):
    path = photo()
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in options else ["--model", compressor]
    code, out, err = zoo("compress", path, *options, *model)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "a.gif"], "no format has the suffix"),
        (["-o", "a.png", "--linear"], "8 bits are too few"),
        (["-o", "no/a.png"], "there is no folder"),
        (["-o", "a.png", "--rect", "1,2,3"], "Y,X,H,W"),
        (["-o", "a.png", "--rect", "0,0,62,1"], "lies outside its 61x90 pixels"),
        (["-o", "a.png", "--rect", "50,0,12,1"], "the part 50,0,12,1 (top, left, height, width) lies outside"),
        (["-o", "a.png", "--rect", "0,0,0,1"], "the part 0,0,0,1 (top, left, height, width) is empty"),
        (["-o", "a" * 300 + "/a.png"], "cannot be opened (File name too long); choose another name"),
        (["-o", "a.png", "--threads", "100000"], "--threads is 1024 or less, not 100000"),
        (["-o", "a.png", "--threads", "0"], "1 or more"),
    ],
)
def test_bad_options_of_decompress(zoo, packed, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    code, out, err = zoo("decompress", packed, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err
    assert written(tmp_path) == ["a.rzc"]


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "check its permissions"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "choose another name"),
    ],
)
@pytest.mark.parametrize("verb", ["compress", "denoise"])
def test_names_that_cannot_be_looked_at(zoo, tmp_path, monkeypatch, verb, error, fix):
    def exists(path, **_):
        error.filename = str(path)
        raise error

    monkeypatch.setattr(Path, "exists", exists)  # root may enter any folder
    code, out, err = zoo(verb, tmp_path / "locked" / "a.dng", "-o", tmp_path / "a.rzc")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"a.dng: cannot be opened ({error.strerror}); {fix}" in err


def test_capitals_and_what_else_is_wrong(zoo, tmp_path):
    """The name is looked at before the model, so an unknown one shows that it passed."""
    (tmp_path / "x.dng").touch()
    for name, text in (("X.RZC", "unknown model"), ("X.RZ", "ends in .rzc")):
        assert text in zoo("compress", tmp_path / "x.dng", "-o", tmp_path / name, "--model", "none")[2]


def test_missing_files(zoo, compressor, tmp_path):
    assert "no such file" in zoo("compress", tmp_path / "x.dng", "-o", tmp_path / "x.rzc")[2]
    for command, text in (
        (["decompress", tmp_path / "x.rzc", "-o", tmp_path / "x.png"], "no such file"),
        (["show", tmp_path / "x.rzc"], "cannot be read"),
    ):
        code, _, err = zoo(*command)
        assert (code, err.count("\n")) == (2, 1)
        assert text in err


def test_other_verbs_send_compressors_to_compress(zoo, compressor, photo, tmp_path):
    for command in (
        ["denoise", photo(), "-o", tmp_path / "a.png", "--model", compressor],
        ["evaluate", compressor, "--data", tmp_path],
    ):
        code, out, err = zoo(*command)
        assert (code, out) == (2, "")
        assert "compress" in err or "no pictures" in err
        assert err.count("\n") == 1


def test_the_rate_benchmark_measures_it(zoo, compressor, tmp_path):
    pictures = tmp_path / "pictures" / "own"
    pictures.mkdir(parents=True)
    scene = np.rint(srgb_encode(linear_scene(210, 224)) * 255).astype(np.uint8)
    Image.fromarray(scene).save(pictures / "a.png")
    evidence = tmp_path / "evidence"
    command = ["evaluate", compressor, "--benchmark", "rate-distortion", "--data", tmp_path / "pictures"]
    code, _, err = zoo(*command, "--noise", "iso800", "--output-dir", evidence, "--json")
    assert code == 0, err
    (file,) = evidence.glob("*.json")
    record = json.loads(file.read_text())
    (curve,) = record["images"].values()
    assert len(curve["points"]["bpp"]) == 8
    assert record["weights_sha256"] == open_codec(compressor).weights_sha256
