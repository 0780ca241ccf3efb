"""Bayer codecs: twins, fine channels, whole steps and colours that come twice change nothing in float and help int8."""

import pytest
import torch
from torch import nn

from zoo.models.bayer_codec import BayerCodec, Decoder
from zoo.models.compressor import FINE, LATENT_STEP, TWIN_GAP, merge_twins, split_fine, whole_steps
from zoo.models.contracts.bayer_codec_v4 import (
    OUTPUT_GAP,
    OUTPUT_RANGE,
    OUTPUT_STEP,
    PLANES,
    CompactCodecContract,
    opponent,
)
from zoo.models.utnet import CompactUtNet


def tiny_codec(latents: int, priors: int) -> BayerCodec:
    return BayerCodec(CompactUtNet((4,), (1,), (), 4), latents, Decoder(latents, 96, (4, 4)), priors=priors)


BUDGET = {"bayer-codec-s": (1.5, 3.1), "bayer-codec-m": (2.0, 6.0)}  # most GMAC per megapixel of either half


@pytest.mark.parametrize(
    ("twins", "fine"),
    [(0, 0), (2, 2), (1, 3)],
    ids=["plain", "alike", "all fine"],
)
def test_rescaled_latents_are_the_same_codec(twins: int, fine: int) -> None:
    torch.manual_seed(0)
    decoder = Decoder(3 + fine, 8, (4, 4))
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    model = BayerCodec(CompactUtNet((4,), (1,), (), 4), 3, decoder, priors=2, twins=twins, fine=fine)
    model.pair_twins()
    x, quality = torch.rand(2, 12, 32, 32), torch.tensor([0.1, 0.8])
    factors = torch.tensor([0.2, 1.0, 30.0])

    def coded() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        latent = model.encode(x)
        gain, scale = (g[:, :, None, None] for g in model.gains(quality))
        return latent, latent * gain, model.decode(latent * gain * scale)

    with torch.no_grad():
        latent, scaled, picture = coded()
        model.rescale_latents(factors)
        again = coded()
        channels = model.encoder(x)
    assert torch.allclose(again[0], latent * factors[:, None, None], rtol=1e-4, atol=1e-5)
    assert torch.allclose(again[1], scaled, rtol=1e-4, atol=1e-4)
    assert torch.allclose(again[2], picture, rtol=1e-4, atol=1e-5)
    assert torch.allclose(channels[:, 3:] - channels[:, :twins], torch.tensor(TWIN_GAP), atol=1e-5)


def test_twins_and_fine_channels_change_nothing_of_a_float_codec() -> None:
    torch.manual_seed(0)
    decoder = Decoder(5, 8, (4, 4))
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    model = BayerCodec(CompactUtNet((4,), (1,), (), 4), 3, decoder, priors=2, twins=2, fine=2)
    x, y = torch.rand(1, 12, 32, 32), torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        channels, picture = model.encoder(x), decoder.shown(torch.cat([y, torch.zeros(1, 2, 4, 4)], 1))
        model.pair_twins()
        assert torch.equal(model.encode(x), channels[:, :3])
        assert torch.allclose(decoder.shown(split_fine(y, 2)), picture, atol=1e-5)
        whole = model.decode(y)
        model.rounds = True
        assert torch.allclose(model.decode(y), whole, atol=1e-5)


def test_a_levelled_decoder_is_the_same_with_all_channels_of_what_it_joins_as_large() -> None:
    torch.manual_seed(0)
    decoder, y = Decoder(5, 8, (4, 4)), torch.rand(2, 5, 6, 6)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        decoder.step.look.weight *= 0.3
        decoder.expand.weight *= torch.linspace(0.5, 1.5, 8)[:, None, None]
        decoder.tie()
        picture = decoder(y)
        decoder.level(y)
        joined = decoder.step.joined(decoder.expand(y))
        assert torch.allclose(decoder(y), picture, rtol=1e-4, atol=1e-5)
    assert torch.allclose(joined.abs().amax((0, 2, 3)), joined.abs().max().expand(12), rtol=1e-4)


def test_colours_that_come_again_are_the_pictures_and_training_leaves_them_out() -> None:
    torch.manual_seed(0)
    model, y = tiny_codec(3, 2), torch.rand(1, 3, 4, 4)
    decoder = model.decoder
    assert isinstance(decoder, Decoder)
    decoder.tie()
    with torch.no_grad():
        given = decoder(y)
        assert torch.allclose(given[:, 96:] - given[:, PLANES:48], torch.tensor(OUTPUT_GAP), atol=1e-6)
        assert torch.allclose(CompactCodecContract().joined(given), model.decode(y), atol=1e-6)
        decoder.again.weight.zero_()
        assert torch.allclose(CompactCodecContract().added(*given[:, :96].chunk(2, 1)), model.decode(y), atol=1e-6)
    model.decode(y).sum().backward()
    assert decoder.again.weight.grad is None
    assert decoder.step.up.weight.grad is not None


def test_colours_that_come_twice_have_half_the_step() -> None:
    u = torch.rand(1, 96, 40, 40) * 1.3 - 0.65
    y = torch.cat([u, u[:, PLANES:48] + OUTPUT_GAP], 1)
    low, high = (round(end / OUTPUT_STEP) for end in OUTPUT_RANGE)
    assert (low, high) == (-128, 127)
    y8 = (y / OUTPUT_STEP).round().clamp(low, high) * OUTPUT_STEP
    u8 = y8[:, :96]
    once = CompactCodecContract().added(u8[:, :48], u[:, 48:]) - CompactCodecContract().joined(y)
    y8[:, 48:96] = u[:, 48:]
    twice = CompactCodecContract().joined(y8) - CompactCodecContract().joined(y)
    for a, b in (once, twice), (opponent_of(once), opponent_of(twice)):
        assert abs(float(b.mean())) < 0.02 * OUTPUT_STEP
        assert b.std() < a.std()
    assert opponent_of(twice).std() == pytest.approx(0.5 * float(opponent_of(once).std()), rel=0.05)


def opponent_of(packed: torch.Tensor) -> torch.Tensor:
    """The colour differences of packed RGB."""
    return torch.einsum("ic,ncphw->niphw", opponent()[1:], packed.unflatten(1, (3, 4)))


def rounded(channels: torch.Tensor) -> torch.Tensor:
    return (channels / LATENT_STEP).round().clamp(-128, 127) * LATENT_STEP


def test_twins_have_half_the_step() -> None:
    latents = torch.rand(1, 6, 50, 50) * 1.9 - 0.95
    channels = torch.cat([latents[:, :2] - TWIN_GAP / 2, latents[:, 2:], latents[:, :2] + TWIN_GAP / 2], 1)
    assert torch.allclose(merge_twins(channels, 2), latents, atol=1e-6)
    assert merge_twins(latents, 0) is latents
    error = merge_twins(rounded(channels), 2) - latents
    assert error[:, :2].std() == pytest.approx(0.5 * float(error[:, 2:].std()), rel=0.05)


def test_fine_channels_hold_what_an_int8_input_loses() -> None:
    latents = torch.rand(1, 6, 50, 50) * 1.9 - 0.95
    assert split_fine(latents, 0) is latents
    channels = split_fine(latents, 2)
    assert torch.equal(channels[:, 2:6], latents[:, 2:])
    assert torch.equal(channels[:, :2], rounded(latents)[:, :2])  # on the grid, which rounding once more does not leave
    assert torch.equal(channels[:, :2] + channels[:, 6:] / FINE, latents[:, :2])
    seen = rounded(channels)
    error = seen[:, :2] + seen[:, 6:] / FINE - latents[:, :2]
    assert error.abs().max() <= LATENT_STEP / FINE / 2
    latents.requires_grad_()
    split_fine(latents, 2)[:, :6].sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))  # type: ignore[arg-type]


def test_steps_without_a_fine_channel_are_whole_ones() -> None:
    scale = torch.tensor([[0.3, 0.3, 1.4, 1.6, 7.2]]) * LATENT_STEP
    gain = 0.9 / scale
    assert whole_steps(gain, scale, 0) == (gain, scale)
    gains, scales = whole_steps(gain, scale, 1)
    torch.testing.assert_close(scales / LATENT_STEP, torch.tensor([[0.3, 1.0, 1.0, 2.0, 7.0]]))
    torch.testing.assert_close(gains * scales, gain * scale)
    y = torch.round(torch.randn(1, 5, 9, 9) * 20) * scales[:, :, None, None]
    assert torch.equal(rounded(y)[:, 1:], y[:, 1:].clamp(-1, 127 / 128))
    model = tiny_codec(3, 2)
    model.fine = 1
    plain = model.gains(torch.tensor([0.5]))
    model.rounds = True
    for a, b in zip(model.gains(torch.tensor([0.5])), whole_steps(*plain, 1), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(plain[1], model.gains(torch.tensor([0.5]))[1])


def test_what_a_decoder_is_fed_is_coded_at_a_quality() -> None:
    torch.manual_seed(0)
    model, x, quality = tiny_codec(3, 2), torch.rand(1, 12, 32, 32), torch.tensor([0.5])
    with torch.no_grad():
        nn.init.normal_(model.encoder.transform.weight, std=0.05)  # type: ignore[union-attr, arg-type]
        gain, scale = (g[:, :, None, None] for g in model.gains(quality))
        symbols = model.coded(x, quality) / scale
        torch.testing.assert_close(symbols, symbols.round(), atol=1e-4, rtol=0)
        assert symbols.abs().max() > 2
        assert ((symbols / gain - model.encode(x)).abs() <= 0.5 / gain + 1e-4).all()


def test_what_a_decoder_gives_is_joined_to_a_picture() -> None:
    """Plane by plane as the contract's words have it."""
    torch.manual_seed(0)
    y = torch.randn(2, 128, 3, 4)
    joined = CompactCodecContract().joined(y)
    assert joined.shape == (2, 12, 6, 8)
    u = torch.cat([y[:, :16], (y[:, 16:48] + y[:, 96:]) / 2 - OUTPUT_STEP / 4], 1) + y[:, 48:96] / 4
    for py, px, place in ((0, 0, 0), (1, 0, 3), (1, 1, 2)):  # place: 2 * dy + dx
        bright, red, blue = (u[:, (colour * 4 + place) * 4 + 2 * py + px] for colour in range(3))
        r, g, b = (joined[:, colour * 4 + place, py::2, px::2] for colour in range(3))
        torch.testing.assert_close((r + g + b) / 3, bright + 0.625)
        torch.testing.assert_close(r - g, red)
        torch.testing.assert_close(b - g, blue)
    rgb = torch.rand(3, 5)
    torch.testing.assert_close(opponent() @ rgb, torch.stack([rgb.mean(0), rgb[0] - rgb[1], rgb[2] - rgb[1]]))
