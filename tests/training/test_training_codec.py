"""Training of compressors: the loss falls, runs resume exactly, idle priors come back, runs become shipped files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tools.publish import publish
from zoo import weights
from zoo.cli import main
from zoo.codec.prediction import residual
from zoo.data.pool import ImagePool
from zoo.data.scene import linear_scene, synthetic_raw
from zoo.data.synth import NoiseRange, RawBatch, RawSynthesizer, mosaic
from zoo.errors import ZooError
from zoo.evaluation.metrics import ssim_and_ms_ssim
from zoo.inference.codec import open_codec
from zoo.inference.denoise import denoised_mosaic
from zoo.inference.runner import TorchRunner
from zoo.models.bayer_codec import BayerCodec, Decoder
from zoo.models.denoise_compress import DenoiseThenCompress
from zoo.models.priors import WORTH, ManyPriors, cost_table, position_costs
from zoo.models.registry import create_model, get_spec
from zoo.models.utnet import CompactUtNet
from zoo.raw import RawImage, srgb_encode, vst
from zoo.training.codec import _IDLE, CodecTrainer, _developed, dissimilarity, distortion, thin
from zoo.training.codec_start import _fill_synthesis, fit_priors, shown_metric
from zoo.training.config import TrainConfig
from zoo.training.neighbours import NeighbourPrediction
from zoo.training.trainer import CHECKPOINT, make_trainer, read_checkpoint
from zoo.training.transfer import Teacher, averaged


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        picture = np.rint(srgb_encode(linear_scene(200, 200, seed=seed)) * 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def pool(pictures: Path) -> ImagePool:
    return ImagePool.from_folder(pictures, min_side=192)


def tiny_codec(latents: int, priors: int) -> BayerCodec:
    return BayerCodec(CompactUtNet((8,), (1,), (), 8), latents, Decoder(latents, 96, (8, 8)), priors=priors)


def start(pool: ImagePool, folder: Path, **changes: object) -> CodecTrainer:
    torch.manual_seed(0)
    values = {
        "model": "tiny",
        "steps": 8,
        "batch": 2,
        "patch": 64,
        "precision": "fp32",
        "warmup": 1,
        "weight_decay": 0.0,
    }
    config = TrainConfig(**{**values, "validate_every": 3, **changes})  # type: ignore[arg-type]
    trainer = make_trainer(tiny_codec(8, 4), config, pool, folder)
    assert isinstance(trainer, CodecTrainer)
    return trainer


def fitted(pool: ImagePool, folder: Path, **changes: object) -> CodecTrainer:
    """As it is before its first step."""
    trainer = start(pool, folder, **changes)
    trainer.fit()
    return trainer


def probe(trainer: CodecTrainer) -> float:
    """The loss on the same raws, qualities and noise every time."""
    trainer.generator.manual_seed(5)
    with torch.no_grad():
        return float(trainer.loss(trainer.data.batch(8, trainer.generator)))


def test_a_few_steps_lower_the_loss(pool: ImagePool, tmp_path: Path) -> None:
    trainer = fitted(pool, tmp_path, lr=3e-4, kernel_lr=3e-4, steps=100)
    before = probe(trainer)
    for _ in range(20):
        trainer._train_step()
    assert probe(trainer) < before


def test_training_starts_from_a_transform_of_the_picture(pool: ImagePool, tmp_path: Path) -> None:
    trainer = fitted(pool, tmp_path)
    batch = at_no_noise(trainer, 16)
    x = trainer.contract.encode(batch.planes, batch.shot, batch.read, batch.wb)
    target = vst.forward(torch.nn.functional.pixel_unshuffle(batch.target, 2), torch.tensor(vst.DISPLAY_OFFSET))
    random = tiny_codec(8, 4)
    with torch.no_grad():
        latent = trainer.model.encoder(x)
        error = (trainer.model.decode(latent) - target).square().mean()
        unfitted = (random.decode(random.encoder(x)) - target).square().mean()
    assert error < 0.2 * target.var() < unfitted  # 8 of 768 numbers
    spread = latent.std((0, 2, 3))
    assert spread.argmax() == 0
    assert latent.mean((0, 2, 3)).abs().max() < 0.5 * spread[0]


def test_what_is_decoded_has_the_latents_it_came_from(pool: ImagePool, tmp_path: Path) -> None:
    """The decoder undoes the colours' metric that the transform counts by."""
    model = fitted(pool, tmp_path).model
    latent = torch.randn(1, 8, 3, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        again, of_nothing = (model.encoder.transform(model.decode(y)) for y in (latent, torch.zeros_like(latent)))
    torch.testing.assert_close(again - of_nothing, latent, atol=1e-3, rtol=0)  # blocks' mean is kept by plane only


def test_errors_count_as_development_shows_them() -> None:
    generator = torch.Generator().manual_seed(3)
    matrices, error = torch.randn(50, 3, 3, generator=generator), torch.randn(3, generator=generator).double()
    shown = (matrices.double() @ error).square().sum(1).mean()
    assert float((shown_metric(matrices) @ error).square().sum()) == pytest.approx(float(shown))


def at_no_noise(trainer: CodecTrainer, size: int) -> RawBatch:
    return RawSynthesizer(trainer.data.pool, 128, NoiseRange().at(0, 0)).batch(size, trainer.generator)


def test_the_decoders_chain_is_the_fitted_basis(pool: ImagePool, tmp_path: Path) -> None:
    """Two different ways to the same numbers: the chain of three layers, and the basis it was factored from."""
    decoder = tiny_codec(8, 4).decoder
    assert isinstance(decoder, Decoder)
    basis = torch.linalg.qr(torch.randn(768, 8, generator=torch.Generator().manual_seed(1)).double())[0]
    mean = torch.arange(12).double().repeat_interleave(64) / 12
    with torch.no_grad():
        _fill_synthesis(decoder.stages, basis, torch.ones(8).double(), mean)
        latent = torch.randn(1, 8, 3, 2, generator=torch.Generator().manual_seed(2))
        blocks = torch.einsum("pi,niyx->npyx", basis.float(), latent) + mean.float()[:, None, None]
        wanted = blocks.view(12, 8, 8, 3, 2).permute(0, 3, 1, 4, 2).reshape(1, 12, 24, 16)
        picture, correction = decoder.shown(latent).chunk(2, 1)
        torch.testing.assert_close(torch.nn.functional.pixel_shuffle(picture, 2), wanted, atol=1e-4, rtol=0)
        assert not correction.any()


def test_the_decoders_corrections_start_awake_and_add_nothing(pool: ImagePool, tmp_path: Path) -> None:
    trainer = start(pool, tmp_path)
    trainer.fit()
    decoder = trainer.model.decoder
    assert isinstance(decoder, Decoder)
    batch = trainer.data.batch(8, trainer.generator)
    lit: list[float] = []
    assert not decoder.step.up.weight[decoder.expand.out_channels :].any() and not decoder.mend.second.weight.any()
    for correction in (decoder.step, decoder.mend):
        correction.look.register_forward_hook(lambda m, i, o: lit.append(float((o > 0).float().mean((0, 2, 3)).max())))
    with torch.no_grad():
        latents = trainer.model.encoder(trainer._told(batch))
        decoder(latents)
    assert all(0.3 < share < 0.95 for share in lit)


def test_fitted_priors_beat_one_width_for_all() -> None:
    generator = torch.Generator().manual_seed(3)
    quiet = (torch.randn(3000, 6, generator=generator) * 0.6).round()
    loud = (torch.randn(3000, 6, generator=generator) * torch.tensor([30.0, 8, 8, 3, 3, 3]) + 20).round()
    symbols = torch.cat([quiet, loud])
    priors, narrow = ManyPriors(6, 2), ManyPriors(6, 2, scale=4.0)
    fit_priors(priors, symbols)

    def bits(of: ManyPriors) -> float:
        costs = position_costs(symbols.T[None, :, :, None], cost_table(of, 128))
        return float(costs.min(1).values.mean())

    widths = torch.tensor([[0.6] * 6, [30.0, 8, 8, 3, 3, 3]])
    ideal = float((0.5 * torch.log2(2 * torch.pi * torch.e * (widths.square() + 1 / 12))).sum(1).mean())
    assert bits(priors) < ideal * 1.1 < bits(narrow)


def test_a_warm_start_is_not_fitted(pool: ImagePool, tmp_path: Path) -> None:
    first = start(pool, tmp_path / "a", steps=1)
    first.run()
    again = start(pool, tmp_path / "b", init=str(tmp_path / "a" / CHECKPOINT), lr=0.0, kernel_lr=0.0)
    again._train_step()
    for name, value in first.average.items():
        assert torch.equal(again.average[name], value), name


def test_the_picture_is_learned_first(pool: ImagePool, tmp_path: Path) -> None:
    """Nothing else moves until then; what follows is fitted when its turn comes, also after an interruption there."""
    trainer = start(pool, tmp_path, picture_steps=2, steps=4)
    first = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    for _ in range(2):
        trainer._train_step()
    moved = {name for name, p in trainer.parameters.items() if not torch.equal(p, first[name])}
    assert moved
    assert trainer.validate().keys() == {"clean", "iso800", "iso3200", "iso12800", "mean"}  # of the picture
    assert all(name.startswith(("encoder.denoiser.", "encoder.demosaic.")) for name in moved)
    trainer.save()
    again = start(pool, tmp_path, picture_steps=2, steps=4)
    for run in (trainer, again):
        run._train_step()
    assert "clean/q1 bpp" in trainer.validate()
    assert not torch.equal(trainer.model.encoder.transform.weight, first["encoder.transform.weight"])
    for name, value in trainer.parameters.items():
        assert torch.equal(again.parameters[name], value), name
    with pytest.raises(ZooError, match="has no picture in its encoder; leave 'picture_steps' out"):
        config = dataclasses.replace(trainer.config, model="balle-bayer-ps")
        make_trainer(create_model("balle-bayer-ps"), config, pool, tmp_path / "b").run()


def test_interrupted_run_equals_uninterrupted(pool: ImagePool, tmp_path: Path) -> None:
    """Also where the interruption falls between two refreshes of the table, and validations are in between."""
    whole = start(pool, tmp_path / "whole")
    whole.run()
    first = start(pool, tmp_path / "parts")
    first.run(time_budget=0)
    for _ in range(4):
        first._train_step()
    first.save()
    first._train_step()  # lost, as after kill -9
    second = start(pool, tmp_path / "parts")
    assert second.step == 4
    second.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert torch.equal(whole._last_won, second._last_won)


def test_a_checkpoint_without_the_priors_state_goes_on(pool: ImagePool, tmp_path: Path) -> None:
    first = start(pool, tmp_path)
    first._train_step()
    first._extra_state = dict  # type: ignore[method-assign]
    first.save()
    second = start(pool, tmp_path)
    assert (second.step, second._last_won.tolist()) == (1, [1] * 4)
    assert second._train_step() > 0


def test_idle_priors_are_trained_on_what_is_expensive(pool: ImagePool, tmp_path: Path) -> None:
    def improvement(idle: bool) -> float:
        trainer = fitted(pool, tmp_path / str(idle), lr=2e-3)
        priors = trainer.model.priors
        with torch.no_grad():
            trainer.model.log_gain -= trainer.model.log_gain[0].clone()  # symbols of one digit
            priors.shifts[0][2] += 200.0  # prior 2 expects latents nobody has: it never wins
        trainer.step = 2 * _IDLE
        trainer._last_won.fill_(trainer.step)
        if idle:
            trainer._last_won[2] = 0
        symbols = torch.randint(-3, 4, (1, 8, 4, 4)).float()
        before = position_costs(symbols, cost_table(priors, 8))[:, 2].mean()
        shift = priors.shifts[3][2].clone()
        for _ in range(10):
            trainer._train_step()
        assert torch.equal(priors.shifts[3][2], shift) != idle
        return float(before - position_costs(symbols, cost_table(priors, 8))[:, 2].mean())

    assert improvement(idle=False) == 0
    assert improvement(idle=True) > 0


def test_neighbours_are_the_bitstreams() -> None:
    latents = torch.randint(-9, 10, (2, 20, 5, 4), generator=torch.Generator().manual_seed(0)).float()
    prediction = NeighbourPrediction(20)
    prediction.weights = torch.randint(-60000, 60000, prediction.weights.shape).float() / 65536
    weights = (prediction.weights * 65536).int().view(12, 3, 16).numpy()
    predicted = prediction.predict(latents)
    for index, picture in enumerate(latents):
        expected = residual(picture.numpy().astype(np.int16), weights)
        mine = picture[:12] - (predicted[index].double() + 0.5).floor()
        assert np.array_equal(mine.numpy(), expected[:12])


def test_prediction_learns_what_neighbours_say() -> None:
    prediction = NeighbourPrediction(3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(11):
        # Every latent is its left neighbour, the first column its upper one.
        symbols = torch.randint(-50, 51, (2, 3, 1, 1), generator=generator).float().expand(2, 3, 6, 6)
        prediction.learn(symbols, torch.ones(2, 3))
    inner = prediction.predict(symbols)[..., 1:, 1:]
    assert torch.allclose(inner, symbols[..., 1:, 1:], atol=0.1)
    again = NeighbourPrediction(3)
    again.load(prediction.state())
    assert torch.equal(again.predict(symbols), prediction.predict(symbols))


def test_distortion_is_of_what_is_shown(pool: ImagePool, tmp_path: Path) -> None:
    trainer = start(pool, tmp_path)
    batch = trainer.data.batch(2, trainer.generator)
    perfect = torch.nn.functional.pixel_unshuffle(batch.target, 2)
    shown = vst.forward(perfect, perfect.new_tensor(vst.DISPLAY_OFFSET))
    assert distortion(shown, batch, clamp=True).max() < 1e-8
    assert distortion(shown, batch, clamp=False).max() < 1e-8
    assert (distortion(shown + 0.1, batch, clamp=True) > 1e-4).all()


def test_dissimilarity_is_the_beds_ms_ssim(pool: ImagePool, tmp_path: Path) -> None:
    trainer = start(pool, tmp_path, patch=192, ms_ssim_weight=0.5)
    batch = trainer.data.batch(2, trainer.generator)
    perfect = torch.nn.functional.pixel_unshuffle(batch.target, 2)
    shown = vst.forward(perfect, perfect.new_tensor(vst.DISPLAY_OFFSET))
    assert dissimilarity(shown, batch).abs().max() < 1e-6
    noisy = shown + 0.1 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(1))
    clamped = [
        torch.nn.functional.pixel_shuffle(_developed(x, batch, clamp=False).flatten(1, 2), 2)
        for x in (vst.inverse(noisy, noisy.new_tensor(vst.DISPLAY_OFFSET)), perfect)
    ]
    bed = [ssim_and_ms_ssim(a, b)[1] for a, b in zip(*clamped, strict=True)]
    assert (1 - dissimilarity(noisy, batch)).tolist() == pytest.approx(bed, abs=1e-3)


def test_ms_ssim_takes_its_share_of_the_loss(pool: ImagePool, tmp_path: Path) -> None:
    pure, mixed = (start(pool, tmp_path / str(w), patch=192, ms_ssim_weight=w) for w in (0.0, 0.5))
    assert probe(mixed) != pytest.approx(probe(pure), rel=1e-3)
    mixed.run()
    with pytest.raises(ZooError, match="it is a share"):
        start(pool, tmp_path, ms_ssim_weight=2)
    with pytest.raises(ZooError, match="MS-SSIM wants at least 176"):
        start(pool, tmp_path, ms_ssim_weight=1)


def test_a_frozen_denoiser_starts_from_its_weights_keeps_them_and_is_shipped(pool: ImagePool, tmp_path: Path) -> None:
    values = {"model": "denoise-then-compress", "steps": 2, "batch": 1, "patch": 64, "precision": "fp32", "warmup": 0}
    with pytest.raises(ZooError, match="name them in 'init'"):
        make_trainer(DenoiseThenCompress(frozen=True), TrainConfig(**values), pool, tmp_path)  # type: ignore[arg-type]
    config = TrainConfig(**values, init="utnet-m")  # type: ignore[arg-type]
    model = DenoiseThenCompress(frozen=True)
    trainer = make_trainer(model, config, pool, tmp_path)
    before = model.decoder[0].layers[0].weight.clone()
    trainer.run()
    assert not torch.equal(model.decoder[0].layers[0].weight, before)
    shipped = averaged(read_checkpoint(tmp_path / CHECKPOINT)[0])
    assert shipped.keys() == model.state_dict().keys()
    for key, value in create_model("utnet-m", pretrained=True).state_dict().items():
        assert torch.equal(shipped[f"encoder.0.network.{key}"], value)


def test_compiled_distortion_is_the_same(pool: ImagePool, tmp_path: Path) -> None:
    plain, compiled = start(pool, tmp_path / "a"), start(pool, tmp_path / "b", compile=True)
    assert probe(compiled) == pytest.approx(probe(plain), rel=1e-4)


def test_teachers_display_values_and_xtrans_are_refused(pool: ImagePool, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="takes no teacher"):
        start(pool, tmp_path, teacher="utnet-m")
    with pytest.raises(ZooError, match="codes light, not display values"):
        start(pool, tmp_path, displayed=0.5)
    with pytest.raises(ZooError, match="contract bayer_codec_v4 knows only Bayer"):
        start(pool, tmp_path, model="bayer-codec-s", cfa="both")


def test_training_rounds_as_an_encoder_does() -> None:
    """The rule of zoo.codec.rounding, here with a table of training's densities."""
    torch.manual_seed(1)
    priors, scaled = ManyPriors(6, 3, scale=2.0), torch.randn(2, 6, 5, 7) * 2
    table = cost_table(priors, 8)
    nearest = scaled.round()
    chosen = position_costs(nearest, table).min(1).indices
    symbols = nearest.clone()
    thin(symbols, scaled, chosen, table, first=2)
    assert torch.equal(symbols[:, :2], nearest[:, :2])
    moved = symbols != nearest
    assert 0.01 < moved.float().mean() < 0.3
    assert torch.equal(nearest[moved].abs() - symbols[moved].abs(), torch.ones(int(moved.sum())))
    at = chosen.view(2, 5, 7)
    for n, c, y, x in (nearest[:, 2:] != 0).nonzero().tolist():
        c += 2
        value, prior = float(nearest[n, c, y, x]), int(at[n, y, x])
        less = value - np.sign(value)
        bits = [float(table[c * 17 + 8 + int(v), prior]) for v in (value, less)]
        lost = (float(scaled[n, c, y, x]) - less) ** 2 - (float(scaled[n, c, y, x]) - value) ** 2
        assert bool(moved[n, c, y, x]) == (lost < WORTH * (bits[0] - bits[1]))


def test_a_share_of_the_mosaics_is_denoised_as_photos_are(pool: ImagePool, tmp_path: Path) -> None:
    photo = synthetic_raw(192, 192, shot=5e-3, read=1.9e-4)
    gains = torch.tensor([photo.wb])

    def batch(raw: RawImage) -> RawBatch:
        planes = torch.from_numpy(raw.packed()[0])[None] * gains[:, [0, 1, 1, 2], None, None]
        told = raw.noise.balanced(raw.wb)
        fields = torch.tensor([told.shot]), torch.tensor([told.read]), gains
        return RawBatch(
            planes, torch.zeros(1, 3, 192, 192), *fields, torch.eye(3)[None], torch.zeros(1, dtype=torch.bool)
        )

    noisy = batch(photo)
    want = batch(denoised_mosaic(photo, TorchRunner(create_model("utnet-n", pretrained=True), 1), get_spec("utnet-n")))
    twice = RawBatch(*(torch.cat((a, a)) for a in dataclasses.astuple(noisy)[:-1]))
    got = Teacher("utnet-n", torch.device("cpu"), removes_noise=True).denoised(twice, torch.tensor([True, False]))
    inner = (..., slice(24, -24), slice(24, -24))  # training's patches end in zeros, photos are mirrored
    torch.testing.assert_close(got.planes[:1][inner], want.planes[inner], atol=1e-4, rtol=0)
    torch.testing.assert_close((got.shot[:1], got.read[:1]), (want.shot, want.read))
    assert torch.equal(got.planes[1:], noisy.planes)
    assert torch.equal(got.shot[1:], noisy.shot)


def test_a_denoiser_in_front_is_validated_too(pool: ImagePool, tmp_path: Path) -> None:
    trainer = fitted(pool, tmp_path, denoiser="utnet-n", denoised=1.0)
    assert sorted(trainer.validation) == sorted(
        ["clean", *(f"{level}{end}" for level in ("iso800", "iso3200", "iso12800") for end in ("", " denoised"))]
    )
    error = {level: (b.planes - mosaic(b.target)).square().mean() for level, b in trainer.validation.items()}
    assert error["iso12800 denoised"] < 0.4 * error["iso12800"]
    without = fitted(pool, tmp_path / "none", denoiser="utnet-n", denoised=0.0)
    assert probe(trainer) < probe(without)  # less noise, less error and fewer bits
    with pytest.raises(ZooError, match="does not denoise mosaics"):
        start(pool, tmp_path / "wrong", denoiser="balle-bayer-ps")
    with pytest.raises(ZooError, match="the denoiser gives a mosaic"):
        start(pool, tmp_path / "wrong", denoiser="pmrid")


def test_from_the_command_line_to_a_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "model: bayer-codec-s\nsteps: 2\nbatch: 1\npatch: 64\nprecision: fp32\nvalidate_every: 100\n"
    (tmp_path / "c.yaml").write_text(config)
    run, folder = tmp_path / "run", tmp_path / "weights"
    command = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(pictures), "--output-dir", str(run)]
    assert main([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])["psnr"]
    assert scores["clean/q0"] > 0
    assert 0 < scores["clean/q0 bpp"] < scores["clean/q1 bpp"]
    assert "psnr" in json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    folder.mkdir()
    monkeypatch.setattr(weights, "FOLDER", folder)
    with pytest.raises(ZooError, match="no such folder of training pictures"):
        publish(run, folder=folder, data=tmp_path / "none")
    assert list(folder.iterdir()) == []
    publish(run, folder=folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        f"bayer-codec-s{end}" for end in ("-tables.safetensors", ".safetensors", ".yaml")
    ]
    facts = weights.card("bayer-codec-s")
    assert facts is not None
    assert facts["tables"]["escapes"] < 2e-3
    assert facts["tables"]["rows"] <= 512
    assert set(facts["sha256"]) == {"bayer-codec-s.safetensors", "bayer-codec-s-tables.safetensors"}
    assert facts["training"]["validation"]["clean/q0"] == round(scores["clean/q0"], 3)
    codec = open_codec("bayer-codec-s", threads=1)
    assert codec.weights_sha256 == facts["sha256"]["bayer-codec-s.safetensors"]
    assert codec.decompress(codec.compress(synthetic_raw(64, 80))).shape == (64, 80, 3)
    assert main(["list", "bayer-codec-s"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "-"  # rates are no decibels to average
