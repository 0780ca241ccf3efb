"""Picture codecs: real files of the right shape, better and larger with quality; programs by stand-ins on PATH."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from zoo.baselines import codecs
from zoo.baselines.codecs import get_codec, list_codecs, lossless_raw
from zoo.errors import ZooError

LIBRARIES = ["jpeg", "jpeg2k", "webp", "heic", "avif", "jpegxl"]
# What a file of each begins with; boxes of HEIC and AVIF name the brand after their length.
SIGNATURES = {
    "jpeg": (0, b"\xff\xd8\xff"),
    "jpeg2k": (4, b"jP  "),
    "webp": (8, b"WEBPVP8 "),
    "heic": (4, b"ftyphe"),
    "avif": (4, b"ftypavif"),
    "jpegxl": (0, b"\xff\x0a"),
}


def photo(height: int = 91, width: int = 133) -> np.ndarray:
    """Smooth colour with some texture, uint8 ``[H, W, 3]``; sides odd on purpose."""
    generator = np.random.default_rng(0)
    layers = [gaussian_filter(generator.random((height, width, 3)), (s, s, 0)) for s in (8, 2)]
    total = sum(
        (layer - layer.min()) / np.ptp(layer) * weight for layer, weight in zip(layers, (0.7, 0.3), strict=True)
    )
    picture = np.uint8(255 * total)
    picture[0, :3] = np.eye(3) * 255  # the corners of the gamut, whose Cb and Cr are 255.5
    return picture


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a.astype(float) - b) / 255).mean()))


def test_every_library_is_there():
    assert [n for n in list_codecs() if get_codec(n).package] == LIBRARIES


@pytest.mark.parametrize("name", LIBRARIES)
def test_ladder_goes_up_in_bytes_and_quality(name):
    codec, picture = get_codec(name), photo()
    assert codec.problem() == "" and codec.versions().keys() == {codec.package}
    ladder = codec.qualities[-5::2]
    files = [codec.encode(picture, q) for q in ladder]
    sizes = [len(f) for f in files]
    scores = [psnr(codec.decode(f, picture.shape[:2]), picture) for f in files]
    assert sizes == sorted(sizes) and scores == sorted(scores) and len(set(sizes)) == len(sizes)
    assert scores[-1] > 30 and sizes[-1] < picture.size / 4  # lossy, and not by a detour through fewer pixels
    start, signature = SIGNATURES[name]
    assert all(f[start:].startswith(signature) for f in files)


@pytest.mark.parametrize("name", sorted(set(LIBRARIES) - {"webp"}))
def test_chroma_is_not_halved(name):
    # Red and green stripes of one pixel: at 4:2:0 both become the same brown, off by 90 of 255.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, 0::2], stripes[:, 1::2] = (200, 60, 60), (60, 131, 60)
    codec = get_codec(name)
    result = codec.decode(codec.encode(stripes, codec.qualities[-1]), (64, 64)).astype(float)
    assert (result[:, 0::2, 0] - result[:, 1::2, 0]).mean() > 100


@pytest.mark.parametrize("name", LIBRARIES)
def test_damaged_files_and_other_shapes_are_one_line(name):
    codec = get_codec(name)
    with pytest.raises(ZooError, match=f"{codec.label} failed at 4 bytes"):
        codec.decode(b"\0\1\2\3", (91, 133))
    data = codec.encode(photo(), codec.qualities[0])
    with pytest.raises(ZooError, match=r"decoded uint8 \(91, 133, 3\) of a picture \(90, 133, 3\)"):
        codec.decode(data, (90, 133))


def test_missing_library_says_how_to_get_it(monkeypatch):
    def absent(package: str) -> str:
        raise codecs.PackageNotFoundError

    monkeypatch.setattr(codecs, "version", absent)
    with pytest.raises(ZooError, match=r"HEIC needs pillow-heif: pip install 'raw-zoo\[baselines\]'"):
        get_codec("heic").encode(photo(), 5)


def test_unknown_codec_is_named():
    with pytest.raises(ZooError, match="unknown codec 'jpegxxl'; there are jpeg,"):
        get_codec("jpegxxl")


@pytest.mark.parametrize("bits", codecs.RAW_BITS)
@pytest.mark.parametrize("width", [132, 133])
def test_lossless_raw_gives_every_sample_back(bits, width):
    import imagecodecs

    mosaic = np.random.default_rng(1).integers(0, 2**bits, (90, width)).astype(np.uint16)
    mosaic[0, :2] = 0, 2**bits - 1
    back = imagecodecs.jpeg8_decode(lossless_raw(mosaic, bits)).reshape(90, -1)
    assert np.array_equal(back[:, :width], mosaic)


def test_lossless_raw_predicts_from_the_same_colour():
    # Two colours far apart, each nearly constant: a predictor across colours would pay 12 bits for each sample.
    mosaic = np.full((128, 128), 500, np.uint16)
    mosaic[:, 1::2] = 3500
    assert 8 * len(lossless_raw(mosaic, 12)) / mosaic.size < 1.5


# Stand-ins with the command lines of the real programs, which keep the picture in an npy and note how they were called.
PROGRAMS = {
    "bpgenc": """
at = dict(zip(args[:-1:2], args[1:-1:2]))
assert at["-f"] == "444" and at["-b"] == "8", args
save(at["-o"], np.asarray(Image.open(args[-1])) // 8 * 8 + int(at["-q"]) % 2)
""",
    "bpgdec": """
Image.fromarray(np.load(args[2])).save(args[1])
""",
    "SvtJpegxsEncApp": """
at = dict(zip(args[::2], args[1::2]))
assert at["--colour-format"] == "yuv444" and at["--input-depth"] == "8" and float(at["--bpp"]) > 0, args
save(at["-b"], np.fromfile(at["-i"], np.uint8).reshape(3, int(at["-h"]), int(at["-w"])))
""",
    "SvtJpegxsDecApp": """
np.load(args[1]).tofile(args[3])
""",
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    head = "import sys, numpy as np\nfrom PIL import Image\nargs = sys.argv[1:]\n"
    head += "def save(path, array):\n    with open(path, 'wb') as file:\n        np.save(file, array)\n"
    for name, body in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!{sys.executable}\n{head}{body}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


# bpgenc's stand-in drops three bits; JPEG XS's goes through YCbCr, whose rounding costs one step.
@pytest.mark.parametrize(("name", "most"), [("bpg", 8), ("jpegxs", 1)])
def test_programs_get_the_picture_and_give_it_back(name, most, programs):
    codec, picture = get_codec(name), photo()
    assert codec.problem() == "" and all(v.startswith("sha256 ") for v in codec.versions().values())
    back = codec.decode(codec.encode(picture, codec.qualities[0]), picture.shape[:2])
    assert np.abs(back.astype(int) - picture).max() <= most


def test_programs_that_fail_are_quoted(programs):
    (programs / "bpgenc").write_text("#!/bin/sh\necho noise >&2\necho 'out of luck' >&2\nexit 3\n")
    with pytest.raises(ZooError, match="BPG failed at quality 51: out of luck"):
        get_codec("bpg").encode(photo(), 51)


def test_programs_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert get_codec("bpg").problem() == "BPG needs bpgenc and bpgdec on PATH"
    with pytest.raises(ZooError, match="JPEG XS needs SvtJpegxsEncApp and SvtJpegxsDecApp on PATH"):
        get_codec("jpegxs").versions()
