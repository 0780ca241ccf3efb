"""Compressors: sizes and costs as published or budgeted, exact reaches, gains, priors and GDN by hand."""

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.inference.denoise import denoise
from zoo.models.analysis import decoder_reach, encoder_reach
from zoo.models.balle import GDN, BalleDecoder, BalleEncoder
from zoo.models.bayer_codec import BayerCodec, Decoder, Mend, Step
from zoo.models.compressor import ANCHORS, Compressor, merge_twins
from zoo.models.contracts import bayer_vst as bayer
from zoo.models.contracts import get_contract
from zoo.models.contracts.bayer_codec import CONTRACT as DISPLAY
from zoo.models.denoise_compress import Denoised, DenoiseThenCompress
from zoo.models.priors import ManyPriors, bits_of, cost_table, mass, position_costs
from zoo.models.registry import check_compressor, check_int8, create_model, derive_spec, get_spec, list_models
from zoo.models.utnet import CompactUtNet

# Parameters with 64 priors, GMAC per sensor megapixel of encoder and decoder, counted from the originals' layers.
PUBLISHED = {
    "balle-rgb": (7_236_291, 93.7, 93.7),
    "balle-bayer-ps": (8_150_796, 23.7, 80.7),
    "balle-bayer-tc": (8_162_883, 23.7, 83.7),
    "balle-bayer-preupsample": (7_241_091, 94.9, 93.7),
}
DENOISER_FIRST = ("denoise-then-compress", "denoise-then-compress-e2e")


def tiny_codec(latents: int, priors: int) -> BayerCodec:
    return BayerCodec(CompactUtNet((4,), (1,), (), 4), latents, Decoder(latents, 96, (4, 4)), priors=priors)


BUDGET = {"bayer-codec-s": (1.5, 3.1), "bayer-codec-m": (2.0, 6.0)}  # most GMAC per megapixel of either half


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_references_have_the_published_size_and_cost(name: str) -> None:
    spec, (params, encoder, decoder) = get_spec(name), PUBLISHED[name]
    assert spec.codec is not None
    assert spec.params == params
    assert spec.codec.encoder_gmac_per_mp == pytest.approx(encoder, rel=2e-3)
    assert spec.codec.decoder_gmac_per_mp == pytest.approx(decoder, rel=2e-3)
    assert not spec.int8


@pytest.mark.parametrize("name", DENOISER_FIRST)
def test_denoise_then_compress_costs_what_its_parts_cost(name: str) -> None:
    spec, rgb, denoiser = get_spec(name), get_spec("balle-rgb"), get_spec("utnet-m")
    assert spec.codec is not None and rgb.codec is not None
    assert spec.params == rgb.params + denoiser.params
    # The linear demosaic, which both count, is once in it.
    assert spec.codec.encoder_gmac_per_mp == pytest.approx(
        rgb.codec.encoder_gmac_per_mp + denoiser.gmac_per_mp, rel=1e-6
    )
    model = create_model(name)
    assert isinstance(model, DenoiseThenCompress)
    assert all(p.requires_grad is not model.frozen for p in model.denoiser.parameters())
    assert all(p.requires_grad for p in model.decoder.parameters())


def test_what_is_compressed_is_the_denoisers_picture() -> None:
    """The layer in the encoder makes what the denoiser's own contract makes."""
    torch.manual_seed(0)
    network = create_model("utnet-n")
    planes, shot, read = torch.rand(2, 4, 16, 16), torch.rand(2, 1).expand(2, 3) * 0.01, torch.full((2, 3), 1e-4)
    x = bayer.encode(planes, shot, read)
    with torch.no_grad():
        want = bayer.decode(x, network(x), shot, read)
        got = DISPLAY.picture(Denoised(network)(DISPLAY.encode(planes, shot, read, torch.ones(2, 3))))
    inner = (..., slice(4, -4), slice(4, -4))  # the layer pads its demosaic with zeros
    assert torch.allclose(got[inner], want[inner], atol=1e-5)


@pytest.mark.parametrize("name", list(BUDGET))
def test_compact_codecs_keep_their_budget(name: str) -> None:
    spec = derive_spec(name)
    assert spec == get_spec(name), "run python -m zoo.models.catalogue"
    assert spec.codec is not None
    assert spec.codec.encoder_gmac_per_mp <= BUDGET[name][0]
    assert spec.codec.decoder_gmac_per_mp <= BUDGET[name][1]
    assert spec.gmac_per_mp == spec.codec.encoder_gmac_per_mp + spec.codec.decoder_gmac_per_mp
    assert (spec.codec.stride, spec.tile_multiple, spec.task) == (16, 8, "denoise+demosaic+compress")


def test_only_operators_that_every_delegate_has() -> None:
    model = create_model("bayer-codec-m")
    kinds = {type(m).__name__ for half in ("encoder", "decoder") for m in model.get_submodule(half).modules()}
    assert kinds <= {
        "Conv2d",
        "ConvTranspose2d",
        "ReLU",
        "Sequential",
        "ModuleList",
        "Encoder",
        "Decoder",
        "Mend",  # two convolutions, a ReLU and a concatenation
        "Step",  # a convolution, a ReLU, a concatenation and a transposed convolution
        "CompactUtNet",
    }


@pytest.mark.parametrize(
    ("encoder", "channels"),
    [
        (tiny_codec(4, 1).encoder, 12),
        (BalleEncoder(4), 4),
        (BalleEncoder(4, upsample=True), 4),
    ],
    ids=["compact", "balle", "upsampled"],
)
def test_encoder_halo_is_what_a_position_depends_on(encoder: nn.Module, channels: int) -> None:
    halo, stride = encoder_reach(encoder, channels)
    at, size = 4 * stride, 9 * stride
    torch.manual_seed(0)
    x = torch.randn(1, channels, size, size)
    near = slice(at - halo, at + stride + halo)
    changed = torch.randn_like(x)
    changed[..., near, near] = x[..., near, near]
    with torch.no_grad():
        assert torch.allclose(encoder(x)[..., 4, 4], encoder(changed)[..., 4, 4], atol=1e-5)
        moved = []
        for row in (at - halo, at + stride + halo - 1):  # on one side at least, the outermost pixel matters
            lit = x.clone()
            lit[..., row, :] += 100
            moved.append(float((encoder(lit)[..., 4, :] - encoder(x)[..., 4, :]).abs().max()))
    assert max(moved) > 1e-4


@pytest.mark.parametrize(
    ("decoder", "latents"),
    [(tiny_codec(4, 1).decoder, 4), (BalleDecoder("transposed"), 320)],
    ids=["compact", "balle"],
)
def test_decoder_halo_is_what_pixels_depend_on(decoder: nn.Module, latents: int) -> None:
    halo, stride = decoder_reach(decoder, latents)
    torch.manual_seed(0)
    for module in decoder.modules():
        if isinstance(module, Step | Mend):  # whose corrections start as nothing
            nn.init.normal_((module.up if isinstance(module, Step) else module.second).weight, std=0.1)
    y = torch.randn(1, latents, 2 * halo + 3, 2 * halo + 3)
    own = (..., slice((halo + 1) * stride, (halo + 2) * stride), slice((halo + 1) * stride, (halo + 2) * stride))
    changed = torch.randn_like(y)
    changed[..., 1:-1, 1:-1] = y[..., 1:-1, 1:-1]
    closer = y.clone()
    closer[..., [1, -2], :] += 100
    with torch.no_grad():
        assert torch.allclose(decoder(y)[own], decoder(changed)[own], atol=1e-5)
        assert (decoder(y)[own] - decoder(closer)[own]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["bayer-codec-s", "balle-bayer-ps"])
def test_halves_fit_each_other(name: str) -> None:
    model, spec = create_model(name), get_spec(name)
    assert isinstance(model, Compressor)
    assert spec.codec is not None
    side = 2 * spec.tile_multiple
    with torch.no_grad():
        y = model.encoder(torch.rand(1, spec.in_channels, side, side))
        assert y.shape == (1, spec.codec.channels("encoder"), 2, 2)
        latents = merge_twins(y, spec.codec.twins)
        assert latents.shape[1] == spec.codec.latents
        contract = get_contract(spec.contract)
        given = model.decoder(model.fed(latents))
        assert given.shape == (1, spec.out_channels, side // contract.out_cell, side // contract.out_cell)
        assert model.decode(latents).shape == (1, 12, side, side)


def test_gains_go_through_their_anchors_and_never_jump() -> None:
    model = tiny_codec(3, 2)
    with torch.no_grad():
        model.log_gain.copy_(torch.randn(ANCHORS, 3))
        gain, scale = model.gains(torch.linspace(0, 1, 4 * (ANCHORS - 1) + 1))
        assert torch.allclose(gain[::4], model.log_gain.exp(), atol=1e-6)
        assert torch.allclose(scale[::4], model.log_scale.exp(), atol=1e-6)
        assert torch.allclose(gain[1:4:2].log().mean(0), gain[2].log(), atol=1e-5)
        assert torch.equal(model.gains(torch.tensor([-1.0, 2.0]))[0], gain[[0, -1]])


def test_gdn_is_its_formula_and_the_inverse_multiplies() -> None:
    torch.manual_seed(0)
    x, forward, inverse = torch.randn(2, 3, 4, 4), GDN(3), GDN(3, inverse=True)
    with torch.no_grad():
        for layer in (forward, inverse):
            layer.gamma.copy_(torch.rand(3, 3, generator=torch.Generator().manual_seed(1)))
            layer.beta.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm = torch.empty_like(x)
        for i in range(3):
            weighted = sum(forward.gamma[i, j] ** 2 * x[:, j] ** 2 for j in range(3))
            norm[:, i] = (forward.beta[i] ** 2 + weighted).sqrt()
        assert torch.allclose(forward(x), x / norm, atol=1e-5)
        assert torch.allclose(inverse(x), x * norm, atol=1e-5)
        forward.beta.fill_(-1)  # a gradient step too far
        forward.gamma.fill_(-1)
        assert forward(x).isfinite().all()


def test_priors_are_densities_and_the_table_is_their_bits() -> None:
    torch.manual_seed(0)
    priors = ManyPriors(3, 5, scale=2.0)
    with torch.no_grad():
        for parameter in priors.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        at = torch.arange(-200, 201).view(1, 1, -1).float()
        every = priors.densities((..., None))
        share = mass(at, every)
        assert share.shape == (5, 3, 401)
        assert torch.allclose(share.sum(-1), torch.ones(5, 3), atol=1e-3)
        symbols = torch.randint(-8, 9, (2, 3, 4, 5)).float()
        by_hand = sum(-torch.log2(share[:, c, symbols[:, c].long() + 200] + 1e-10) for c in range(3))
        costs = position_costs(symbols, cost_table(priors, 8))
        assert torch.allclose(costs.view(2, 4, 5, 5).permute(3, 0, 1, 2), by_hand, atol=1e-3)
        assert 30 < bits_of(torch.full((1, 3, 1), 1e6), every).min() <= 50  # where no mass is left
        # As training counts: each position under one prior of its own.
        chosen = torch.randint(5, (40,))
        own = bits_of(symbols.permute(0, 2, 3, 1).reshape(-1, 3), priors.densities(chosen)).sum(1)
        assert torch.allclose(own, costs.gather(1, chosen[:, None])[:, 0], atol=1e-3)


def test_compressors_are_kept_from_where_a_denoiser_is_needed() -> None:
    names = [n for n in list_models() if get_spec(n).codec]
    assert names == sorted([*PUBLISHED, *DENOISER_FIRST, *BUDGET])
    for name in names:
        with pytest.raises(
            ZooError, match=f"{name} is a compressor and does not denoise by itself; use `zoo compress`"
        ):
            denoise("nothing.dng", model=name)
    with pytest.raises(ZooError, match="utnet-m is no compressor; choose from balle-bayer-preupsample"):
        check_compressor("utnet-m")
    codec = check_compressor("bayer-codec-m")
    assert (codec.latents, codec.channels("encoder"), codec.channels("decoder")) == (192, 192 + 6, 192 + 128)
    check_int8("bayer-codec-m")
    with pytest.raises(ZooError, match="balle-rgb is a float reference"):
        check_int8("balle-rgb")
