"""What training a compressor is made of: what it starts from, what rates and errors are, denoised mosaics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_codec import fitted, probe, start, tiny_codec

from zoo.codec.prediction import residual
from zoo.data.pool import ImagePool
from zoo.data.scene import synthetic_raw
from zoo.data.synth import NoiseRange, RawBatch, RawSynthesizer
from zoo.evaluation.metrics import ssim_and_ms_ssim
from zoo.inference.denoise import denoised_mosaic
from zoo.inference.runner import TorchRunner
from zoo.models.bayer_codec import Decoder
from zoo.models.priors import WORTH, ManyPriors, cost_table, position_costs
from zoo.models.registry import create_model, get_spec
from zoo.raw import RawImage, vst
from zoo.training.codec import CodecTrainer, _developed, dissimilarity, distortion, thin
from zoo.training.codec_start import _fill_synthesis, fit_priors, shown_metric
from zoo.training.neighbours import NeighbourPrediction
from zoo.training.transfer import Teacher


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


def test_compiled_distortion_is_the_same(pool: ImagePool, tmp_path: Path) -> None:
    plain, compiled = start(pool, tmp_path / "a"), start(pool, tmp_path / "b", compile=True)
    assert probe(compiled) == pytest.approx(probe(plain), rel=1e-4)


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
