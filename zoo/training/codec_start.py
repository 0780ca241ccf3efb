"""Where a Bayer codec's training starts: at the best linear transform coder for clean pictures, fitted in closed form.

From random weights, gradient steps first have to find what block transforms always had: after 5,000 an autoencoder with 96
latents gave 31.6 dB at 1.25 bits per pixel on validation pictures without noise, and a fitted start 32.0 at 1.05 before its first
step. The fit is principal components (the transform of Karhunen and Loeve) of blocks of 16x16 sensor pixels, in colours that
count as they do after development (:func:`shown_metric`). So training's steps go into what a linear transform cannot do. How many
are kept bounds the quality: of developed Kodak pictures 192 keep 34.6 dB, 256 37.5, 320 41.2, of McMaster's 29.4, 30.9 and 33.5.
The priors start as clusters of what the transform gives, by k-means in bits.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.synth import RawSynthesizer
from zoo.models.bayer_codec import STRIDE, BayerCodec, Decoder, Encoder
from zoo.models.compressor import ANCHORS, merge_twins
from zoo.models.contracts.bayer_codec_v4 import CENTRE, opponent
from zoo.models.contracts.bayer_vst import OUT_CHANNELS
from zoo.models.priors import ManyPriors, cost_table, position_costs
from zoo.raw import vst

_BATCHES, _BATCH = 60, 8  # at 256 px 120,000 blocks of 768 values
_POSITIONS = 40_000  # looked at for the priors
_ROUNDS = 8
_SPREAD = 0.5  # standard deviation of what the decoder's corrections start to look at
_REACH = 128  # of the table of costs, in symbols
_LEAST_SHARE = 1e-4  # of non-zero symbols that a prior expects
# Rounding steps of orthonormal latents at both ends of the quality scale, for display values of 0 to 1: where a uniform
# quantiser's gain in bits pays its loss, step^2 = 12 * 3 / (lambda * 255^2 * 2 ln 2), with the lambdas of zoo.training.codec.
_COARSEST, _FINEST = 0.89, 0.063


@torch.no_grad()
def fit_start(model: BayerCodec, data: RawSynthesizer, generator: torch.Generator) -> None:
    """Set a model's transforms, gains and priors to the fit.

    Args:
        model: on the device of ``data``.
        data: draws raws; its patch is a multiple of 16.
        generator: of the raws, on the device of ``data``.
    """
    pictures, matrices = [], []
    for _ in range(_BATCHES):
        batch = data.batch(_BATCH, generator)
        pictures.append(vst.forward(F.pixel_unshuffle(batch.target, 2), batch.target.new_tensor(vst.DISPLAY_OFFSET)))
        matrices.append(batch.matrix)
    metric = shown_metric(torch.cat(matrices))
    basis, spread, mean = _components(
        [_mixed(p.transpose(0, 1), metric).transpose(0, 1) for p in pictures], model.latents
    )
    # Half-way between orthonormal latents, of which the first is 200 times as strong as the last, and equally strong ones, which
    # would have the decoder's weights differ so: int8 wants latents of one range, gradient steps weights of one size.
    share = spread.sqrt()
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    transform = encoder.transform
    assert transform.bias is not None
    analysis = _mixed(basis / share, metric)  # it is symmetric
    transform.weight[: model.latents] = analysis.T.reshape(-1, *transform.weight.shape[1:]).to(transform.weight)
    transform.bias[: model.latents] = (-(mean @ basis) / share).to(transform.bias)
    _fill_synthesis(decoder.stages, basis * share, spread / share, mean)
    bias, given = decoder.stages[-1].bias, opponent().to(metric) @ torch.linalg.inv(metric)
    assert bias is not None
    for tensor in (decoder.stages[-1].weight.transpose(0, 1), bias):
        tensor.copy_(_mixed(tensor, given))
    bias[: len(bias) // 3] -= CENTRE
    model.pair_twins()
    steps = torch.linspace(math.log(_COARSEST), math.log(_FINEST), ANCHORS, device=share.device)[:, None]
    model.log_scale.copy_(steps - share.log())
    model.log_gain.copy_(-model.log_scale)
    latents = merge_twins(torch.cat([transform(y) for y in pictures]), model.twins)
    wake(decoder, model.fed(latents[: 4 * _BATCH]))
    quality = torch.rand(len(latents), generator=generator, device=latents.device)
    gain, _ = model.gains(quality)
    symbols = (latents * gain[:, :, None, None]).round().permute(0, 2, 3, 1).reshape(-1, model.latents)
    chosen = torch.randperm(len(symbols), generator=generator, device=symbols.device)[:_POSITIONS]
    fit_priors(model.priors, symbols[chosen])


@torch.no_grad()
def wake(decoder: Decoder, latents: Tensor) -> None:
    """Centre and scale what the decoder's corrections start to look at, since half of each channel is to pass its ReLU.

    Data-dependent starts are Salimans & Kingma's (NeurIPS 2016). Without the centring most channels that see brightness would
    pass always or never.

    Args:
        decoder: with its linear transform.
        latents: its channels ``[N, C + F, h, w]``.
    """
    y = decoder.expand(latents)
    for correction in (decoder.step, decoder.mend):
        look = correction.look
        assert look.bias is not None
        look.bias.zero_()
        seen = look(y)
        scale = _SPREAD / seen.std().clamp_min(1e-6)
        look.weight.mul_(scale)
        look.bias.copy_(-seen.mean((0, 2, 3)) * scale)
        y = correction(y)


def shown_metric(matrices: Tensor) -> Tensor:
    """The symmetric ``[3, 3]`` that makes errors of camera colours as large as development by ``matrices`` ``[N, 3, 3]`` does.

    Development pulls colours apart: a step of a colour difference in camera space shows as 1.9 to 2.1, one of brightness as one.
    Principal components that count all alike gave 0.9 dB less at the same rate before training (docs/training-log.md).
    """
    energy, vectors = torch.linalg.eigh(torch.einsum("nij,nik->jk", matrices, matrices).double() / len(matrices))
    return (vectors * energy.sqrt()) @ vectors.T


def _mixed(values: Tensor, metric: Tensor) -> Tensor:
    """``values`` ``[3 * K, ...]``, laid out by colour first, with ``metric`` applied to the colours."""
    return torch.tensordot(metric.to(values), values.unflatten(0, (3, -1)), 1).flatten(0, 1)


def _cells(planes: Tensor) -> Tensor:
    """``[N, C, h, w]`` -> float64 blocks ``[P, C * 8 * 8]``, laid out as a convolution's kernel."""
    n, c, h, w = planes.shape
    cells = planes.view(n, c, h // STRIDE, STRIDE, w // STRIDE, STRIDE).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(-1, c * STRIDE * STRIDE).double()


def _components(pictures: list[Tensor], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of blocks: orthonormal ``[values, count]``, their standard deviations, largest first, the mean."""
    sums = []
    for picture in pictures:
        cells = _cells(picture)
        sums.append((torch.tensor(len(cells)), cells.sum(0), cells.T @ cells))
    blocks, total, product = (torch.stack(terms).sum(0) for terms in zip(*sums, strict=True))
    mean = total / blocks
    energy, vectors = torch.linalg.eigh(product / blocks - torch.outer(mean, mean))
    return vectors[:, -count:].flip(1), energy[-count:].flip(0).clamp_min(1e-8).sqrt(), mean


def _fill_synthesis(stages: list[nn.ConvTranspose2d], synthesis: Tensor, spread: Tensor, mean: Tensor) -> None:
    """Factor ``[12 * 8 * 8, latents]`` into 2x2 transposed convolutions, each cutting blocks into four.

    A stage with fewer channels than a block has values keeps the subspace with the most energy.

    Args:
        stages: ``ConvTranspose2d(k=2, s=2)``, the last of which makes the values of a cell of 2x2; inputs beyond those of the fit
            get no weight.
        synthesis: blocks from latents.
        spread: standard deviations of the latents.
        mean: the mean block.
    """
    side = STRIDE
    for stage in stages:
        side //= 2
        quarters = synthesis.view(OUT_CHANNELS, 2, side, 2, side, -1).permute(1, 3, 0, 2, 4, 5)
        parts = quarters.reshape(2, 2, OUT_CHANNELS * side * side, -1)  # [y, x, values, input channels]
        weighted = (parts * spread).permute(2, 0, 1, 3).flatten(1)
        subspace = _even(torch.linalg.svd(weighted)[0][:, : stage.out_channels])
        if stage.out_channels == len(subspace):
            subspace = torch.eye(len(subspace), dtype=parts.dtype, device=parts.device)  # the pixels themselves
        stage.weight.zero_()
        stage.weight[: parts.shape[3]].copy_(torch.einsum("yxpi,po->ioyx", parts, subspace))
        assert stage.bias is not None
        stage.bias.zero_()
        coefficients = torch.einsum("yxpi,po->yxoi", parts * spread, subspace)
        synthesis, spread = subspace, coefficients.square().sum(3).mean((0, 1)).sqrt()
    assert stages[-1].bias is not None
    # Any pixel of a block is as bright as the next, on the mean.
    stages[-1].bias.copy_(mean.view(OUT_CHANNELS, -1).mean(1).repeat_interleave(side * side))


def _even(basis: Tensor) -> Tensor:
    """The same subspace by vectors that share its strong directions evenly (a rotation by DCT-II), for one int8 scale."""
    n = basis.shape[1]
    k = torch.arange(n, dtype=basis.dtype, device=basis.device)
    rotation = torch.cos(math.pi * (k[:, None] + 0.5) * k[None] / n) * math.sqrt(2 / n)  # [position, frequency]
    rotation[:, 0] /= math.sqrt(2)
    return basis @ rotation.T


@torch.no_grad()
def fit_priors(priors: ManyPriors, symbols: Tensor) -> None:
    """Set priors to logistic densities of clusters of positions.

    Args:
        priors: K over C channels.
        symbols: float ``[P, C]`` of whole numbers, P >= K.
    """
    k = priors.priors
    order = symbols.abs().div(symbols.abs().mean(0).clamp_min(1e-6)).mean(1).argsort()
    chosen = torch.empty(len(symbols), dtype=torch.int64, device=symbols.device)
    chosen[order] = torch.arange(len(symbols), device=symbols.device) * k // len(symbols)
    for _ in range(_ROUNDS):
        _set_logistic(priors, symbols, chosen)
        costs = position_costs(symbols.T[None, :, :, None], cost_table(priors, _REACH))
        share = F.one_hot(chosen, k).double().mean(0).clamp_min(1e-6)
        chosen = (costs - share.log2().float()).min(1).indices
    _set_logistic(priors, symbols, chosen)


def _set_logistic(priors: ManyPriors, symbols: Tensor, chosen: Tensor) -> None:
    """Mean and width of every prior and channel from the positions that chose it, and a few of everybody's."""
    counts = torch.zeros(priors.priors, 1, device=symbols.device).index_add_(
        0, chosen, torch.ones(len(symbols), 1, device=symbols.device)
    )
    few = 4.0

    def pooled(values: Tensor) -> Tensor:
        sums = torch.zeros(priors.priors, priors.channels, device=values.device).index_add_(0, chosen, values)
        return (sums + few * values.mean(0)) / (counts + few)

    mean = pooled(symbols)
    away = symbols - mean[chosen]
    # By the mean deviation, a logistic density's being 2 ln 2 widths, or by the share of symbols that are not the middle one,
    # where nearly all are.
    outside = pooled((away.abs() > 0.5).float()).clamp(_LEAST_SHARE, 0.9)
    width = torch.maximum(pooled(away.abs()) / (2 * math.log(2)), 0.25 / torch.atanh(1 - outside))
    slope = width.reciprocal() ** (1 / len(priors.slopes))
    for step, (slopes, shifts) in enumerate(zip(priors.slopes, priors.shifts, strict=True)):
        slopes.copy_(slope + torch.log(-torch.expm1(-slope)))  # inverse of softplus
        shifts.copy_(-mean * slope if step == 0 else torch.zeros_like(mean))
    for gates in priors.gates:
        gates.zero_()
