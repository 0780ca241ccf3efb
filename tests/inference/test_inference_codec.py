"""Compressors as a whole: raw -> file -> picture, with networks of made-up weights."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo import weights
from zoo.codec import Box, parse, rounding
from zoo.codec.tables import load_tables
from zoo.codec.thumbnail import read_thumbnail
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.inference.black import raise_to_black
from zoo.inference.codec import Codec, make_preview, open_codec, open_stream_codec, raw_of
from zoo.inference.denoise import denoised_mosaic
from zoo.inference.restore import bayer_tile, restore
from zoo.inference.runner import TorchRunner
from zoo.models.compressor import Compressor
from zoo.models.contracts import get_contract
from zoo.models.registry import create_model, get_spec
from zoo.raw import NoiseProfile, RawImage
from zoo.training.tables import QUALITIES, quality_tables


@pytest.fixture
def codec(compressor: str) -> Codec:
    return open_codec(compressor, threads=1)


class Fixed(TorchRunner):
    """A half that takes one size only, as files for phones do."""

    def __init__(self, model: torch.nn.Module, tile: int) -> None:
        super().__init__(model)
        self.tile = tile  # type: ignore[assignment]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        assert x.shape[2:] == (self.tile, self.tile)
        return super().__call__(x)


def raw(height: int = 96, width: int = 130, cfa: str = "RGGB", seed: int = 0) -> RawImage:
    return synthetic_raw(height, width, cfa=cfa, seed=seed)


def test_decoding_loads_nothing_of_training() -> None:
    code = (
        "import sys, zoo.inference.codec; print([m for m in sys.modules if m.startswith(('zoo.data', 'zoo.training'))])"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.strip() == "[]"


def test_no_threads_are_refused() -> None:
    with pytest.raises(ZooError, match="threads is 1 or more, not 0"):
        open_codec(threads=0)


def test_qualities_are_the_continuous_scale(codec: Codec) -> None:
    model = create_model(codec.name, pretrained=True)
    gains, steps = quality_tables(model)  # type: ignore[arg-type]
    assert list(codec.qualities) == list(range(QUALITIES))
    assert gains.shape == steps.shape == (64, 192)
    # The untrained scale: rounding steps from 0.89 to 0.063 of orthonormal latents.
    fine = model.fine
    np.testing.assert_allclose(gains[63, :fine] / gains[0, :fine], 0.89 / 0.063, rtol=1e-5)
    np.testing.assert_allclose(steps, 65536 / gains, atol=0.51)  # whole numbers
    # What has no fine channel comes in whole steps of an int8 decoder's input.
    continuous = 65536 * model.gains(torch.linspace(0, 1, 64))[1].detach().numpy()[:, fine:]  # type: ignore[operator]
    np.testing.assert_array_equal(steps[:, fine:], np.maximum(np.rint(continuous / 512), 1) * 512)
    tables, stored = load_tables(weights.tables_path(codec.name))
    np.testing.assert_array_equal(stored, gains)
    np.testing.assert_array_equal(tables.steps, steps)


def whole_frame(codec: Codec, photo: RawImage, quality: int) -> np.ndarray:
    """The picture by one pass over everything, without any tile: what tiles must equal. Float32 [3, H, W]."""
    model, contract = create_model(codec.name, pretrained=True), get_contract("bayer_codec_v4")
    assert isinstance(model, Compressor)
    spec = get_spec(codec.name).codec
    assert spec is not None
    step, pad = spec.stride // 2, 4  # positions of margin, more than either halo
    grid = parse(codec.compress(photo, quality)).tiles.grid
    side = max(grid.shape) + 2 * pad
    noise = photo.noise.balanced(photo.wb)
    told = torch.tensor([noise.shot]), torch.tensor([noise.read]), torch.tensor([photo.wb])
    planes = torch.from_numpy(bayer_tile(photo, -pad * step, -pad * step, side * step))[None]
    with torch.no_grad():
        latents = model.encode(contract.encode(planes, *told))[0].numpy()
        inner = latents[:, pad : pad + grid.y1, pad : pad + grid.x1]
        symbols = np.rint(inner * codec.gains[quality][:, None, None]).astype(np.int16)
        padded = np.pad(symbols, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        y = model.decode(torch.from_numpy(codec.tables.dequantise(padded, quality))[None])
        rgb = contract.decode(torch.zeros(0), y, *told)[0].numpy()
    top, left = (2 * pad * step + divmod(photo.cfa.index("R"), 2)[axis] for axis in (0, 1))
    return rgb[:, top : top + photo.mosaic.shape[0], left : left + photo.mosaic.shape[1]]


@pytest.mark.parametrize("cfa", ["RGGB", "GRBG", "BGGR"])
def test_tiles_equal_the_whole_frame(codec: Codec, cfa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independently coded and decoded tiles: exact by both halos."""
    monkeypatch.setattr(rounding, "WORTH", 0.0)  # else what a tile holds decides about its integers
    photo = raw(151, 130, cfa)
    want = whole_frame(codec, photo, 40).transpose(1, 2, 0)
    model = create_model(codec.name, pretrained=True)
    # 3 or 2 positions of core instead of the whole photo's 10, of 8 packed pixels each.
    for core in (3, 2):
        small = Codec(
            get_spec(codec.name), codec.tables, codec.gains,
            Fixed(model.get_submodule("encoder"), (core + 2 * codec._margin) * 8),
            Fixed(model.get_submodule("decoder"), core + 2 * codec.halo + 1),
            codec.weights_sha256,
        )  # fmt: skip
        data = small.compress(photo, 40)
        stream = parse(data)
        assert stream.header.core == core
        assert stream.tiles.count == (-(-10 // core)) * (-(-9 // core))
        got = small.decompress(data)
        assert got.shape == (151, 130, 3)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=2e-5)
        np.testing.assert_allclose(codec.decompress(data), want, atol=2e-5)  # any decoder, any tiles


def test_halos_are_enough_and_no_larger_than_they_must_be(codec: Codec) -> None:
    photo, box = raw(), Box(1, 1, 3, 3)
    latents = codec._analyse(photo, box, 2)
    data = codec.compress(photo, 40)
    picture = codec.decompress(data)
    codec.halo += 1
    codec._margin += 1
    np.testing.assert_allclose(codec._analyse(photo, box, 2), latents, atol=1e-5)
    np.testing.assert_allclose(codec.decompress(data), picture, atol=2e-5)
    codec.halo -= 2
    codec._margin -= 2
    assert np.abs(codec._analyse(photo, box, 2) - latents).max() > 1e-4
    assert np.abs(codec.decompress(data) - picture).max() > 3e-4


def test_a_rectangle_is_cut_from_the_whole(codec: Codec) -> None:
    photo = raw(150, 131, "GBRG")
    data = codec.compress(photo, 20)
    whole = codec.decompress(data)
    for rect in (Box(0, 0, 1, 1), Box(149, 130, 150, 131), Box(33, 40, 97, 131)):
        np.testing.assert_array_equal(codec.decompress(data, rect), whole[rect.y0 : rect.y1, rect.x0 : rect.x1])


def test_the_same_photo_is_the_same_file_and_quality_costs_bytes(codec: Codec, tmp_path: Path) -> None:
    photo = raw()
    sizes = [len(codec.compress(photo, q)) for q in (0, 21, 42, 63)]
    assert sizes == sorted(set(sizes))
    assert codec.compress(photo, 21) == codec.compress(photo, 21)
    (tmp_path / "a.rzc").write_bytes(codec.compress(photo, 21))
    np.testing.assert_array_equal(
        codec.decompress(tmp_path / "a.rzc"), codec.decompress(codec.compress(photo, 21, thumbnail=True))
    )


def test_a_target_is_met_by_the_best_quality_that_meets_it(codec: Codec) -> None:
    photo = raw()
    bpp = [8 * len(codec.compress(photo, q)) / photo.mosaic.size for q in (0, 30, 31, 63)]
    data, quality = codec.compress_to(photo, (bpp[1] + bpp[2]) / 2)
    assert quality == 30
    assert data == codec.compress(photo, 30)
    assert codec.compress_to(photo, 100)[1] == 63
    assert codec.compress_to(photo, bpp[0])[1] == 0
    with pytest.raises(ZooError, match=r"takes \d+\.\d+ bits per pixel at quality 0 already") as caught:
        codec.compress_to(photo, bpp[0] * 0.99)
    assert codec.compress_to(photo, float(str(caught.value).split()[2]))[1] == 0  # what it says to ask for
    with pytest.raises(ZooError, match="above 0"):
        codec.compress_to(photo, 0)


def test_salvage_marks_what_is_lost(codec: Codec) -> None:
    model = create_model(codec.name, pretrained=True)
    tiled = Codec(
        get_spec(codec.name), codec.tables, codec.gains, Fixed(model.get_submodule("encoder"), 9 * 8),
        TorchRunner(model.get_submodule("decoder")), codec.weights_sha256,
    )  # fmt: skip
    data = tiled.compress(raw(200, 200), 30)
    whole = tiled.decompress(data)
    cut = data[: len(data) * 3 // 4]
    with pytest.raises(ZooError, match="cut off"):
        tiled.decompress(cut)
    rgb, mask = tiled.decompress(cut, salvage=True)
    assert 0.2 < mask.mean() < 0.8
    np.testing.assert_array_equal(rgb[mask], whole[mask])


def test_xtrans_and_wrong_qualities_are_refused(codec: Codec) -> None:
    with pytest.raises(ZooError, match="X-Trans"):
        codec.compress(dataclasses.replace(raw(), cfa="XTRANS"))
    for quality in (-1, 64):
        with pytest.raises(ZooError, match="0 to 63"):
            codec.compress(raw(), quality)
    with pytest.raises(ZooError, match="2x2"):
        codec.compress(dataclasses.replace(raw(), mosaic=np.zeros((1, 9), np.uint16)))
    for size in ((2, 2), (2, 40), (3, 17)):
        assert codec.decompress(codec.compress(raw(*size))).shape == (*size, 3)


def test_files_of_other_models_or_weights_are_refused(codec: Codec) -> None:
    data = codec.compress(raw())
    stream = parse(data)
    assert open_stream_codec(stream).name == codec.name
    for change, text in (
        ({"model": "bayer-codec-x"}, "unknown model 'bayer-codec-x'"),
        ({"model": "utnet-m"}, "utnet-m is no compressor"),
        ({"model": "balle-rgb"}, "no weights ship"),
        ({"weights_sha256": bytes(32)}, "other weights of bayer-codec-s"),
        ({"tables_sha256": bytes(32)}, "other entropy tables"),
    ):
        stream.header = dataclasses.replace(parse(data).header, **change)
        with pytest.raises(ZooError, match=text):
            open_stream_codec(stream)
    stream.header = dataclasses.replace(parse(data).header, stride=32)
    with pytest.raises(ZooError, match="not written by this program"):
        codec.bands(stream)


def test_tables_must_be_there_and_whole(compressor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in weights.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    weights.tables_path(compressor).write_bytes(b"")
    with pytest.raises(ZooError, match="sha256 differs"):
        open_codec(compressor)
    weights.tables_path(compressor).unlink()
    with pytest.raises(ZooError, match="no entropy tables ship with this version; make them with `zoo publish RUN`"):
        open_codec(compressor)


def test_an_encoder_too_small_for_its_halo_is_refused(codec: Codec) -> None:
    half = create_model(codec.name).get_submodule("encoder")
    for tile in (32, 60):
        with pytest.raises(ZooError, match="export it for 56 or more"):
            open_codec(codec.name, encoder=Fixed(half, tile))


@pytest.mark.parametrize("rect", [None, Box(17, 30, 80, 101)])
def test_a_decoder_smaller_than_the_files_tiles_decodes_them_in_parts(codec: Codec, rect: Box | None) -> None:
    half = create_model(codec.name, pretrained=True).get_submodule("decoder")
    data = codec.compress(raw(140, 170, "GBRG"))
    whole = codec.decompress(data, rect)
    for tile in (3, 5, 40):  # and one that is larger than they are
        got = open_codec(codec.name, decoder=Fixed(half, tile)).decompress(data, rect)
        np.testing.assert_allclose(got, whole, atol=1e-5)
    with pytest.raises(
        ZooError, match="a decoder for 2 positions, 1 of them around what it makes on each side, leaves nothing"
    ):
        open_codec(codec.name, decoder=Fixed(half, 2)).decompress(data)


def test_previews_are_upright_and_small(codec: Codec) -> None:
    photo = dataclasses.replace(raw(120, 600), orientation=6)
    shown = read_thumbnail(make_preview(photo))
    assert shown.shape[0] > 4 * shown.shape[1]
    stream = parse(codec.compress(photo, thumbnail=True))
    assert raw_of(stream).mosaic.shape == (120, 600)
    assert raw_of(stream).orientation == 6
    for size in ((2, 2), (2, 1500)):
        assert len(make_preview(raw(*size))) > 100


def denoised(photo: RawImage, *, pretrained: bool = True) -> RawImage:
    return denoised_mosaic(photo, TorchRunner(create_model("utnet-n", pretrained=pretrained), 1), get_spec("utnet-n"))


@pytest.mark.parametrize("cfa", ["RGGB", "GRBG", "GBRG", "BGGR"])
@pytest.mark.parametrize(("height", "width"), [(96, 130), (61, 91)])
def test_a_denoised_mosaic_is_nearer_to_the_light(cfa: str, height: int, width: int) -> None:
    noisy = synthetic_raw(height, width, cfa=cfa, shot=2e-2, read=5e-4)
    calm = synthetic_raw(height, width, cfa=cfa, shot=1e-9, read=1e-12).normalised()
    cleaned = denoised(noisy)
    assert cleaned.mosaic.dtype == np.uint16 and cleaned.mosaic.shape == noisy.mosaic.shape and cleaned.cfa == cfa
    before, after = noisy.normalised() - calm, cleaned.normalised() - calm
    for dy in range(2):
        for dx in range(2):  # every colour at its place, or errors would be larger than the noise
            assert after[dy::2, dx::2].std() < 0.8 * before[dy::2, dx::2].std()
            assert abs(after[dy::2, dx::2].mean()) < 0.02
    assert cleaned.noise.shot == pytest.approx([0.15 * s for s in noisy.noise.shot])
    assert cleaned.noise.read == pytest.approx([0.15 * o for o in noisy.noise.read])
    # Levels grow by a whole factor, so that rounding to integers takes nothing.
    assert cleaned.white[0] == 12 * noisy.white[0] and cleaned.black[0] == 12 * noisy.black[0]


def test_bands_that_start_at_odd_rows_are_put_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = synthetic_raw(
        90, 70, cfa="GBRG"
    )  # its first row is added by alignment, so the first band has an odd height
    whole = denoised(photo)
    runner = TorchRunner(create_model("utnet-n", pretrained=True), 1)
    monkeypatch.setattr(
        "zoo.inference.denoise.restore", lambda *args, **kwargs: restore(*args, **{**kwargs, "tile": 72})
    )
    tiled = denoised_mosaic(photo, runner, get_spec("utnet-n"))
    assert np.abs(whole.mosaic.astype(int) - tiled.mosaic.astype(int)).max() <= 1  # ties of rounding


def test_an_encoder_that_is_shown_a_denoised_mosaic_writes_a_file_of_the_raw(codec: Codec) -> None:
    photo = raw()
    cleaned = denoised(photo, pretrained=False)
    alone, behind = parse(codec.compress(photo, 40)), parse(codec.compress(photo, 40, denoised=cleaned))
    for of_the_raw in ("black", "white", "noise", "wb", "quality", "height", "width"):
        assert getattr(behind.header, of_the_raw) == getattr(alone.header, of_the_raw)
    assert codec.compress(photo, 40) != codec.compress(photo, 40, denoised=cleaned)
    assert codec.compress(photo, 40, denoised=cleaned) == codec.compress(photo, 40, denoised=cleaned)
    assert codec.decompress(codec.compress(photo, 40, denoised=cleaned)).shape == (96, 130, 3)
    data, quality = codec.compress_to(photo, 4.0, denoised=cleaned)
    assert data == codec.compress(photo, quality, denoised=cleaned)
    with pytest.raises(ZooError, match="of another photo"):
        codec.compress(photo, 40, denoised=denoised(raw(height=98), pretrained=False))


def test_areas_below_black_are_raised_to_it_and_noise_around_it_is_left() -> None:
    photo = raw(200, 230, "GBRG")
    noisy = 30 * np.random.default_rng(0).standard_normal(photo.mosaic.shape)
    sigma = 30 / (photo.white[0] - photo.black[0])
    photo = dataclasses.replace(photo, noise=NoiseProfile((1e-4,) * 3, (sigma**2,) * 3, "given"))
    dark = dataclasses.replace(photo, mosaic=np.rint(photo.black[0] + noisy).astype(np.uint16))
    assert raise_to_black(dark) is dark
    assert raise_to_black(photo) is photo
    low = dataclasses.replace(photo, mosaic=np.rint(photo.black[0] - 40 + noisy).clip(0).astype(np.uint16))
    raised = raise_to_black(low).mosaic.astype(float) - photo.black[0]
    assert raised.mean() == pytest.approx(0, abs=0.5)
    assert raised.std() == pytest.approx(30, rel=0.05)
    hole = photo.mosaic.copy()
    hole[64:128, 64:128] = 0
    filled = raise_to_black(dataclasses.replace(photo, mosaic=hole)).mosaic
    assert filled[80:112, 80:112].mean() == pytest.approx(photo.black[0], abs=2)
    assert (filled[:32] == photo.mosaic[:32]).all() and (filled[:, 160:] == photo.mosaic[:, 160:]).all()


@pytest.mark.parametrize("name", ["utnet-demosaic", "passthrough"])
def test_what_leaves_the_noise_makes_no_mosaic(name: str) -> None:
    with pytest.raises(ZooError, match=f"{name} only demosaics and leaves the noise; use a denoiser, e.g. utnet-m"):
        denoised_mosaic(raw(), TorchRunner(create_model(name), 1), get_spec(name))


def test_no_mosaic_is_made_again_of_xtrans() -> None:
    photo = dataclasses.replace(raw(), cfa="XTRANS", path="x.raf", metadata={"xtrans_phase": 0})
    with pytest.raises(ZooError, match=r"x\.raf: X-Trans, of which no mosaic is made again"):
        denoised_mosaic(photo, TorchRunner(create_model("xtrans-unet-16"), 1), get_spec("xtrans-unet-16"))
