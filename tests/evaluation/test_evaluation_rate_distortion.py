"""Rate-distortion: what is counted, what is compared with what, and evidence that grows."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_pictures import SCORED, picture

from zoo.baselines import get_baseline
from zoo.baselines.codecs import PictureCodec
from zoo.data.pool import read_srgb
from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.evaluation.method import Picture
from zoo.evaluation.rate_distortion import (
    DevelopedPicture,
    LosslessRaw,
    Measured,
    RawCompressor,
    Source,
    evaluate,
    measure,
    quantise,
    raw_image,
)
from zoo.evaluation.rate_records import RateRecord
from zoo.raw.colour import camera_to_srgb_matrix

PICTURE = Picture(Path("a.png"), "mine")
MENON = get_baseline("menon")


def scene(level: str = "iso3200") -> bed.Scene:
    return bed.make_scene((picture(0, *SCORED) / 255).astype(np.float32), "a", level)


def exact(qualities: tuple[float, ...] = (1.0,)) -> PictureCodec:
    """A codec that loses nothing; its quality is a number of bytes that are added."""
    return PictureCodec(
        "exact",
        "Exact",
        qualities,
        {},
        lambda array, quality: b"x" * int(quality) + array.tobytes(),
        lambda data, shape: np.frombuffer(data[-shape[0] * shape[1] * 3 :], np.uint8).reshape(*shape, 3),
    )


class Toy:
    """A compressor of raws with the interface of :func:`zoo.inference.codec.open_codec`: half-resolution pixels, deflated."""

    name, weights_sha256 = "toy", "1" * 64

    def __init__(self, qualities=range(64), scale: float = 1.0) -> None:
        self.qualities, self.scale, self.raws = qualities, scale, []

    def compress(self, raw, quality: int, *, denoised=None) -> bytes:
        self.raws.append((raw, quality))
        planes, _ = raw.packed()
        gains = np.array([raw.wb[0], raw.wb[1], raw.wb[1], raw.wb[2]])[:, None, None]
        return bytes([quality]) + zlib.compress((planes * gains).astype(np.float32).tobytes())

    def decompress(self, data: bytes) -> np.ndarray:
        planes = np.frombuffer(zlib.decompress(data[1:]), np.float32).reshape(4, SCORED[0] // 2, SCORED[1] // 2)
        rgb = np.stack([planes[0], (planes[1] + planes[2]) / 2, planes[3]], -1) * self.scale
        return rgb.repeat(2, 0).repeat(2, 1)


def test_rate_is_every_byte_over_sensor_pixels():
    curve = measure(DevelopedPicture(exact((1, 1000)), Source(MENON)), scene(), PICTURE, "0" * 64)
    pixels = SCORED[0] * SCORED[1]
    assert curve.points["bytes"] == [1 + 3 * pixels, 1000 + 3 * pixels]
    assert curve.points["bpp"] == [round(8 * b / pixels, 5) for b in curve.points["bytes"]]
    assert (curve.set, curve.sha256, curve.megapixels) == ("mine", "0" * 64, round(pixels / 1e6, 6))


@pytest.mark.parametrize("level", ["clean", "iso3200"])
def test_distortion_is_that_of_the_bed_up_to_8_bits(level):
    curve = measure(DevelopedPicture(exact(), Source(MENON)), scene(level), PICTURE, "")
    expected = bed.score(MENON, scene(level)).values
    for metric, tolerance in (("psnr", 0.05), ("ssim", 2e-3), ("ms_ssim", 1e-3)):
        assert curve.points[metric][0] == pytest.approx(expected[metric], abs=tolerance)
    assert curve.develop_seconds > 0


def test_truth_is_the_clean_picture_and_not_what_was_coded():
    made = scene("iso12800")

    def perfect(mosaic, wb, shot, read):
        return made.truth

    curve = measure(DevelopedPicture(exact(), Source(perfect)), made, PICTURE, "")
    assert curve.points["psnr"][0] > 55  # rounding to 8 bits only: 58.9 dB


def test_codecs_share_a_development_and_scenes_do_not():
    calls = []

    def counting(mosaic, wb, shot, read):
        calls.append(mosaic)
        return np.broadcast_to(mosaic, (3, *mosaic.shape)).astype(np.float32)

    source, first, second = Source(counting), scene(), scene("clean")
    one, other = DevelopedPicture(exact((1, 2, 3)), source), DevelopedPicture(exact(), source)
    a, b = measure(one, first, PICTURE, ""), measure(other, first, PICTURE, "")
    assert len(calls) == 1 and a.develop_seconds == b.develop_seconds
    measure(one, second, PICTURE, "")
    assert len(calls) == 2 and calls[1] is second.mosaic


def test_lossless_raw_has_a_rate_that_grows_with_depth_and_nothing_else():
    points = measure(LosslessRaw(), scene(), PICTURE, "").points
    assert points["quality"] == [12, 14] and 4 < points["bpp"][0] < points["bpp"][1] - 1 < 14
    assert points["psnr"] == points["ms_ssim"] == points["decode_seconds"] == [None, None]


@pytest.mark.parametrize("bits", [12, 16])
def test_quantised_mosaic_keeps_noise_below_black(bits):
    mosaic = scene("iso12800").mosaic
    integers, black, white = quantise(mosaic, bits)
    step = 1 / (white - black)
    assert white == 2**bits - 1 and mosaic.min() < -0.05
    assert np.abs((integers.astype(float) - black) * step - mosaic).max() < 0.51 * step


def test_raw_of_a_scene_says_what_the_bed_knows():
    raw = raw_image(scene("iso3200"))
    assert (raw.cfa, raw.wb, raw.iso, raw.noise.shot) == ("RGGB", bed.WB_GAINS, 3200, (5e-3,) * 3)
    assert np.abs(raw.normalised() - scene("iso3200").mosaic).max() < 1e-5
    assert np.allclose(camera_to_srgb_matrix(raw.xyz_to_cam, raw.wb), bed.CAMERA_MATRIX, atol=2e-3)


def test_compressor_is_developed_as_the_truth_is():
    toy = Toy()
    codec = RawCompressor(toy)
    assert codec.qualities == [0, 9, 18, 27, 36, 45, 54, 63]
    curve = measure(codec, scene("clean"), PICTURE, "")
    assert [q for _, q in toy.raws] == codec.qualities == curve.points["quality"]
    assert curve.points["psnr"][0] > 24 and curve.develop_seconds == 0
    dark = measure(RawCompressor(Toy(scale=0.5)), scene("clean"), PICTURE, "")
    assert dark.points["psnr"][0] < 20


def test_short_ladders_of_compressors_are_taken_whole():
    assert RawCompressor(Toy(qualities=[3, 5])).qualities == [3, 5]


def test_compressor_of_another_shape_is_refused():
    class Turned(Toy):
        def decompress(self, data: bytes) -> np.ndarray:
            return super().decompress(data).transpose(2, 0, 1)

    with pytest.raises(ZooError, match=r"toy gave \(3, 210, 214\) or non-finite values for a raw of \(210, 214\)"):
        measure(RawCompressor(Turned()), scene(), PICTURE, "")


class Counting(DevelopedPicture):
    """Counts the files that it writes, and stops at one of them."""

    def __init__(self, stop_at: int = -1, qualities: tuple[float, ...] = (1, 2)) -> None:
        super().__init__(exact(qualities), Source(MENON))
        self.files, self.stop_at = 0, stop_at

    def encode(self, prepared, quality: float) -> bytes:
        self.files += 1
        if self.files == self.stop_at:
            raise KeyboardInterrupt
        return super().encode(prepared, quality)


def record(name: str = "exact+menon", level: str = "iso800", qualities=(1, 2), **fields) -> RateRecord:
    settings = {"qualities": list(qualities), **fields.pop("settings", {})}
    return RateRecord(name, "codec", "uint8", level, *bed.LEVELS[level], settings=settings, **fields)


def test_evidence_has_a_file_per_codec_and_is_read_back(pictures_dir, tmp_path):
    pictures, ticks = bed.find_pictures(pictures_dir), []
    both = [Measured(Counting(), record("a+menon")), Measured(Counting(), record("b+menon", command="zoo"))]
    first, second = evaluate(both, pictures, tmp_path, progress=lambda: ticks.append(1))
    assert len(ticks) == 4 and first.images.keys() == second.images.keys() >= {"kodak/kodak_01", "mine/holiday"}
    path = tmp_path / "rate-distortion-b+menon-codec-uint8-iso800.json"
    assert RateRecord.load(path) == second and second.command == "zoo" and second.date
    content = json.loads(path.read_text())
    assert (content["kind"], content["schema"], content["sets"]) == (
        "rate-distortion",
        1,
        {"kodak": 2, "mcmaster": 1, "mine": 1},
    )
    mean = content["summary"]["kodak"]["mean"]
    own = [second.images[f"kodak/kodak_0{i}"].points["psnr"] for i in (1, 2)]
    assert mean["psnr"] == pytest.approx(np.mean(own, 0), abs=1e-6)
    assert content["summary"]["overall"]["mean"]["bytes"] == [3 * SCORED[0] * SCORED[1] + n for n in (1, 2)]


def test_second_run_measures_nothing_and_writes_nothing(pictures_dir, tmp_path):
    pictures = bed.find_pictures(pictures_dir)
    (first,) = evaluate([Measured(Counting(), record())], pictures, tmp_path)
    path = first.path(tmp_path)
    stamp, again, more = path.stat().st_mtime_ns, Counting(), Counting()
    measured = [Measured(again, record(command="again")), Measured(more, record("more+menon"))]
    same, _ = evaluate(measured, pictures, tmp_path)
    assert (again.files, more.files) == (0, 8) and same == first and path.stat().st_mtime_ns == stamp
    evaluate([Measured(again, record())], bed.find_pictures(pictures_dir, ["mine"]), tmp_path, fresh=True)
    assert again.files == 2 and len(RateRecord.load(path).images) == 4


def test_interrupted_run_goes_on(pictures_dir, tmp_path):
    pictures = bed.find_pictures(pictures_dir)
    with pytest.raises(KeyboardInterrupt):
        evaluate([Measured(Counting(stop_at=4), record())], pictures, tmp_path)
    codec = Counting()
    evaluate([Measured(codec, record())], pictures, tmp_path)
    assert codec.files == 6  # of eight: the first picture was whole


@pytest.mark.parametrize(
    "change", [{"settings": {"codec": {"effort": 9}}}, {"weights_sha256": "1" * 64}, {"bed_version": 0}]
)
def test_another_codec_starts_anew(pictures_dir, tmp_path, change):
    evaluate([Measured(Counting(), record())], bed.find_pictures(pictures_dir), tmp_path)
    mine = bed.find_pictures(pictures_dir, ["mine"])
    (result,) = evaluate([Measured(Counting(), record(**change))], mine, tmp_path)
    assert list(result.images) == ["mine/holiday"]


def test_errors_name_picture_and_codec(tmp_path):
    Image.fromarray(picture(0, 60, 60)).save(tmp_path / "tiny.png")
    with pytest.raises(ZooError, match=r"tiny\.png: exact\+menon: a picture of 60x60 is too small"):
        evaluate([Measured(Counting(), record())], bed.find_pictures(tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (["kind"], "quality", "is no rate-distortion evidence"),
        (["schema"], 2, "is no rate-distortion evidence"),
        (["benchmark"], "bayer", "damaged"),
        (["settings", "qualities"], [1, 3], "not at the qualities of the settings"),
        (["images", "mine/holiday", "points", "psnr"], [30.0], "one list per column"),
        (["images", "mine/holiday", "points", "bpp"], [0.0, 1.0], "without anything"),
        (["images", "mine/holiday", "points", "bytes"], [None, 7], "no numbers"),
        (["images", "mine/holiday", "points", "psnr"], [30.0, "x"], "damaged"),
        (["images", "mine/holiday", "points", "psnr"], [30.0, 31.0], "its summary is not that of its pictures"),
    ],
)
def test_wrong_evidence_is_refused(pictures_dir, tmp_path, where, value, problem):
    (made,) = evaluate([Measured(Counting(), record())], bed.find_pictures(pictures_dir, ["mine"]), tmp_path)
    path = made.path(tmp_path)
    content = inner = json.loads(path.read_text())
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ZooError, match=problem):
        RateRecord.load(path)


def test_pictures_are_those_of_the_bed(pictures_dir):
    """The scene is made of the picture's file and name, so that its noise is the benchmark bayer's."""
    (mine,) = bed.find_pictures(pictures_dir, ["mine"])
    seen = []

    class Looking(Counting):
        def prepare(self, scene):
            seen.append(scene)
            return super().prepare(scene)

    evaluate([Measured(Looking(), record())], [mine], pictures_dir / "out")
    expected = bed.make_scene(read_srgb(mine.path), "holiday", "iso800")
    assert np.array_equal(seen[0].mosaic, expected.mosaic)
