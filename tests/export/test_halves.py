"""Compressors as two artefacts each, of made-up weights: shapes, parity, and one file from every int8 encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export import artifact_path, describe, export, load_source, target_module
from export.benchmark import benchmark
from export.target import shapes_in
from export.verify import tiles_of
from quantize import QuantizedModel
from quantize.calibrate import calibrate
from quantize.codec import finetune_halves, post_training_halves
from quantize.recipe import prepare
from zoo import weights
from zoo.cli import main
from zoo.codec import parse, write_file
from zoo.data.pool import ImagePool
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.inference.codec import open_codec
from zoo.models.contracts import get_contract
from zoo.models.registry import create_model, get_spec, halves
from zoo.raw import write_dng
from zoo.training.config import TrainConfig

TILE, CORE = 72, 3  # 9 positions, 3 of margin on each side


@pytest.fixture
def encoder_int8(compressor: str) -> QuantizedModel:
    model = create_model(compressor, pretrained=True)
    prepared = prepare(model.get_submodule("encoder"), 12)
    tiles = [torch.from_numpy(x) for _, x in tiles_of(TILE, get_contract("bayer_codec_v4"))]
    calibrate(prepared, tiles)
    return QuantizedModel(compressor, "ptq", prepared, {}, "encoder")


def test_halves_have_latents_at_one_end(compressor: str) -> None:
    spec = get_spec(compressor)
    about = describe(spec, "", "fp32", "litert", "encoder")
    assert shapes_in(about, TILE) == ((12, TILE, TILE), (198, 9, 9))
    assert shapes_in(earlier(about), TILE) == shapes_in(about, TILE)
    with pytest.raises(ZooError, match="this encoder does not say how many channels its latents have; export it anew"):
        shapes_in({"half": "encoder", "stride": "16"}, TILE)
    about = describe(spec, "", "fp32", "litert", "decoder")
    assert shapes_in(earlier(about), 7) == shapes_in(about, 7)
    assert shapes_in(about, 7) == ((256, 7, 7), (128, 28, 28))
    assert (about["halo"], about["tile_multiple"]) == ("1", "1")
    assert shapes_in({}, 16) == ((12, 16, 16), (12, 16, 16))
    assert halves("utnet-m") == ("",)


def earlier(about: dict[str, str]) -> dict[str, str]:
    """Metadata as files had them until the count of latents got a name of its own."""
    return {key: value for key, value in about.items() if key != "latent_channels"} | {
        "latents": about["latent_channels"]
    }


def test_halves_explain_their_own_ends_and_name_what_a_header_names(compressor: str) -> None:
    spec, words = get_spec(compressor), get_contract("bayer_codec_v4").words
    encoder, decoder = (describe(spec, "", "fp32", "litert", half) for half in halves(compressor))
    assert encoder["latents"] == decoder["latents"] == words["latents"]
    assert (encoder["input"], decoder["output"]) == (words["input"], words["output"])
    assert "[1, 198, tile/8, tile/8]" in encoder["output"]
    assert "channel 192+k (a twin)" in encoder["output"]
    assert "[1, 256, tile, tile]" in decoder["input"]
    assert "192 to 255 (fine) 8*(y - rint(128*y)/128) of the first 64" in decoder["input"]
    header = parse(open_codec(compressor).compress(synthetic_raw(64, 64), 40)).header
    named = (header.weights_sha256.hex(), header.tables_sha256.hex())
    for about in (encoder, decoder):
        assert (about["float_weights_sha256"], about["tables_sha256"]) == named
    assert describe(get_spec("utnet-demosaic"), "", "fp32", "litert")["noise"] == "none: tell it S = O = 0"
    assert "noise" not in describe(get_spec("utnet-n"), "", "fp32", "litert")


def test_int8_encoders_of_all_runtimes_write_the_same_bytes(
    compressor: str, encoder_int8: QuantizedModel, tmp_path: Path
) -> None:
    photo = synthetic_raw(150, 130, cfa="GBRG")
    reference: Any = encoder_int8.integer()
    reference.tile = TILE
    encoder = create_model(compressor).get_submodule("encoder")
    convolutions = sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in encoder.modules())
    files = {"integer": open_codec(compressor, encoder=reference).compress(photo, 40)}
    for target in ("executorch", "litert"):
        module = target_module(target)
        path = tmp_path / f"encoder.{module.SUFFIX}"
        about = describe(get_spec(compressor), "", "int8", target, "encoder")
        module.write(encoder_int8, precision="int8", tile=TILE, metadata=about, path=path)
        audit = module.audit(path)
        assert audit["conv_int8"] == audit["conv_total"] == convolutions
        codec = open_codec(compressor, encoder=module.runner(path))
        files[target] = codec.compress(photo, 40)
    assert files["executorch"] == files["integer"]
    assert files["litert"] == files["integer"]
    stream = parse(files["litert"])
    assert stream.header.core == CORE
    # The float encoder makes almost the same picture, and any decoder reads either file.
    plain = open_codec(compressor)
    quantised, exact = plain.decompress(files["litert"]), plain.decompress(plain.compress(photo, 40))
    assert quantised.shape == exact.shape
    assert 0 < np.abs(quantised - exact).mean() < 0.5 * np.abs(exact - exact.mean()).mean()


def test_shipped_int8_halves_write_one_file_and_read_each_others(tmp_path: Path) -> None:
    name, photo = "bayer-codec-s", synthetic_raw(150, 130, cfa="GBRG")
    codecs = {}
    for target in ("executorch", "litert", "coreml"):
        results = {
            half: export(name, target=target, precision="int8", tile=TILE, output_dir=tmp_path, half=half)
            for half in halves(name)
        }
        codecs[target] = open_codec(name, **{half: target_module(target).runner(r.path) for half, r in results.items()})
    files = {target: codec.compress(photo, 40) for target, codec in codecs.items()}
    assert files["executorch"] == files["litert"]
    assert len(files["coreml"]) == pytest.approx(len(files["litert"]), rel=0.01)  # fp16 between the integers
    read = {(by, of): codec.decompress(files[of]) for by, codec in codecs.items() for of in ("litert", "coreml")}
    for of in ("litert", "coreml"):
        np.testing.assert_array_equal(read["executorch", of], read["litert", of])
        assert np.abs(read["coreml", of] - read["litert", of]).mean() < 1e-3
    plain = open_codec(name)
    exact = plain.decompress(plain.compress(photo, 40))
    for picture in read.values():  # 0.034: other symbols were chosen, whose errors differ
        assert np.abs(picture - exact).mean() < 0.05 * exact.mean()


@pytest.mark.parametrize("target", ["executorch", "litert"])
def test_float_halves_are_exported_verified_and_run(
    compressor: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {}
    for half in halves(compressor):
        results[half] = export(compressor, target=target, precision="fp32", tile=TILE, output_dir=tmp_path, half=half)
        assert results[half].path == artifact_path(compressor, target, "fp32", TILE, tmp_path, half)
        assert results[half].parity["worst_psnr_db"] > 90
    assert (results["encoder"].tile, results["decoder"].tile) == (TILE, CORE + 2)
    assert f"{compressor}-decoder-{target}-fp32-{CORE + 2}" in results["decoder"].path.name
    module = target_module(target)
    codec = open_codec(compressor, **{half: module.runner(r.path) for half, r in results.items()})
    photo = synthetic_raw(100, 90)
    data = codec.compress(photo, 40)
    np.testing.assert_allclose(codec.decompress(data), open_codec(compressor).decompress(data), atol=1e-3)
    write_file(tmp_path / "a.rzc", data)
    dng = tmp_path / "a.dng"
    write_dng(
        dng, photo.mosaic, cfa="RGGB", black=256, white=4095, wb=photo.wb, xyz_to_cam=None, iso=100, noise=photo.noise
    )
    encoder, decoder = str(results["encoder"].path), str(results["decoder"].path)
    for command in (
        ["compress", str(dng), "-o", str(tmp_path / "b.rzc"), "--model", encoder],
        ["decompress", str(tmp_path / "b.rzc"), "-o", str(tmp_path / "b.png"), "--decoder", decoder],
    ):
        assert main(command) == 0
    for command, text in (
        (["compress", str(dng), "-o", str(tmp_path / "c.rzc"), "--model", decoder], "is no encoder of a compressor"),
        (["decompress", str(tmp_path / "a.rzc"), "-o", str(tmp_path / "c.png"), "--decoder", encoder], "is no decoder"),
        (["denoise", str(dng), "-o", str(tmp_path / "c.png"), "--model", encoder], "does not denoise by itself"),
    ):
        capsys.readouterr()
        assert main(command) == 2
        assert text in capsys.readouterr().err
    assert parse(tmp_path / "b.rzc").header.core == CORE
    report = benchmark(results["decoder"].path, warmup_runs=0, num_runs=2)
    assert report["ms_per_megapixel"] == pytest.approx(report["ms"]["median"] / ((CORE + 2) * 16) ** 2 * 1e6, rel=0.01)
    with pytest.raises(ZooError, match="exported as encoder and decoder"):
        export(compressor, target=target, precision="fp32", output_dir=tmp_path)
    with pytest.raises(ZooError, match="no quantised weights ship"):
        export(compressor, target=target, precision="int8", output_dir=tmp_path, half="encoder")


def test_quantised_halves_are_saved_loaded_and_fine_tuned(compressor: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("quantize.codec.CALIBRATION_BATCHES", 2)
    pool = ImagePool([(torch.rand(200, 200, 3) * 15000).to(torch.int32).to(torch.uint16)], "")
    config = TrainConfig(model=compressor, batch=2, patch=64, precision="fp32", steps=2, validate_every=100, lr=1e-4)
    model: Any = create_model(compressor, pretrained=True)
    start = post_training_halves(compressor, model, pool, config)
    before = {half: q.integer() for half, q in start.items()}
    assert before["decoder"].input_scale == 1 / 128  # the steps that latents come in
    assert before["encoder"].input_scale == pytest.approx(3.8 / 255)  # -2.2 to 1.6, wide enough for noise below black
    inputs = {"encoder": torch.rand(1, 12, 32, 32).numpy(), "decoder": torch.randn(1, 256, 6, 6).numpy()}
    for half, q in start.items():
        loaded = QuantizedModel.load(q.save(tmp_path))
        assert (loaded.half, loaded.name) == (half, compressor)
        np.testing.assert_array_equal(loaded.integer()(inputs[half]), before[half](inputs[half]))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{compressor}-{half}-ptq.safetensors" for half in sorted(start)
    ]
    tuned = finetune_halves(start, model, pool, config, tmp_path / "run")
    for half, q in tuned.items():
        assert (q.recipe, q.half, q.facts["training"]["steps"]) == ("qat", half, 2)
        assert np.abs(q.integer()(inputs[half]) - before[half](inputs[half])).max() > 0
    untouched = create_model(compressor, pretrained=True).state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in model.state_dict().items())
    with pytest.raises(ZooError, match="balle-rgb is a float reference"):
        post_training_halves("balle-rgb", model, pool, config)
    assert weights.path(compressor, quantized=True, half="encoder").name == f"{compressor}-encoder-qat.safetensors"
    assert load_source(compressor, "fp32", "encoder")[0].demosaic.in_channels == 12
