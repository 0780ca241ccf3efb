"""Training of compressors: bits plus lambda times distortion, over a continuous range of qualities in one model."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.pool import ImagePool
from zoo.data.synth import RawBatch
from zoo.errors import ZooError
from zoo.models.bayer_codec import BayerCodec, Encoder
from zoo.models.compressor import Compressor
from zoo.models.priors import WORTH, bits_of, cost_table, position_costs
from zoo.raw import vst
from zoo.raw.vst import DISPLAY_OFFSET
from zoo.training.codec_start import fit_start
from zoo.training.config import TrainConfig
from zoo.training.losses import display_psnr
from zoo.training.machine import compiled
from zoo.training.neighbours import NeighbourPrediction
from zoo.training.trainer import Trainer
from zoo.training.transfer import Teacher

# Weight of the mean squared error (display values 0..255) against bits per pixel, at quality 0 and 1: about 0.1 and 2 bits per
# pixel on pictures without noise.
LAMBDA_MIN, LAMBDA_MAX = 5e-4, 1e-1
# 1 - MS-SSIM counts as that much squared error: CompressAI's lambdas for the one over those for the other at its qualities 1 to 6
# (2.4 / 0.0018 to 60.5 / 0.0483; its documentation, "Model zoo").
_MS_SSIM_SCALE = 1300
_REACH = 192  # of the table that picks priors; beyond it lie 0.03 % of the symbols at quality 1, priced as the last one
_REFRESH = 40  # steps between two computations of that table, each of which takes as long as most of a step
_IDLE = 50  # a prior that has not won for so many steps is trained on positions that all priors find expensive
_WORST_SHARE = 0.1
_VALIDATED = (0.0, 0.5, 1.0)  # qualities


class CodecTrainer(Trainer):
    """Trains a :class:`~zoo.models.compressor.Compressor`; see :class:`Trainer` for the rest.

    Raises:
        ZooError: what :class:`Trainer` raises; a teacher, X-Trans or display values, which compressors do not take; a frozen
            denoiser and no weights for it.
    """

    model: Compressor

    def __init__(self, model: Compressor, config: TrainConfig, pool: ImagePool, folder: Path) -> None:
        if config.teacher:
            raise ZooError(f"{config.model} is a compressor and takes no teacher; leave 'teacher' out")
        if config.displayed:
            raise ZooError(f"{config.model} is a compressor and codes light, not display values; leave 'displayed' out")
        if getattr(model, "frozen", False) and not config.init:
            raise ZooError(
                f"{config.model}: its denoiser is frozen and has no weights; name them in 'init', e.g. utnet-m"
            )
        self._table: Tensor | None = None
        self._table_step = 0
        self._last_won = torch.zeros(model.priors.priors, dtype=torch.int64)
        self._distortion = compiled(distortion) if config.compile else distortion
        self._neighbours = NeighbourPrediction(model.latents)
        super().__init__(model, config, pool, folder)
        self._denoiser = Teacher(config.denoiser, self.device, removes_noise=True) if config.denoiser else None
        if self._denoiser is not None:
            for level, batch in list(self.validation.items()):
                if batch.shot.any():
                    every = torch.ones(batch.shot.shape[0], dtype=torch.bool, device=self.device)
                    self.validation[f"{level} denoised"] = self._denoiser.denoised(batch, every)
        self._last_won = self._last_won.to(self.device)
        self._neighbours.to(self.device)

    def _learning_rate(self) -> float:
        # What is fitted has not been trained yet, when the rest already has.
        since = self.step - self.config.picture_steps
        fresh = 0 <= since < self.config.warmup
        return super()._learning_rate() * (
            (since + 1) / self.config.warmup if fresh and self.config.picture_steps else 1
        )

    def _train_step(self) -> float:
        encoder = self.model.encoder
        if self.step == self.config.picture_steps and isinstance(encoder, Encoder) and not self.config.init:
            self.fit()
        return super()._train_step()

    def fit(self) -> None:
        """Start what follows the encoder's picture as :mod:`zoo.training.codec_start` says."""
        assert isinstance(self.model, BayerCodec)
        # From a generator of its own: every process of a run fits the same, and so does a run that is resumed here.
        fit_start(self.model, self.data, torch.Generator(self.device).manual_seed(self.config.seed))
        picture = ("encoder.denoiser.", "encoder.demosaic.")
        for name, tensor in self._tracked().items():
            if not name.startswith(picture):
                self.average[name].copy_(tensor.detach())

    def _extra_state(self) -> dict[str, Tensor]:
        # The table too: it is of weights that were, and a resumed run has to go on as it would have.
        state = {"last_won": self._last_won, "table_step": torch.tensor(self._table_step), **self._neighbours.state()}
        return state if self._table is None else {**state, "table": self._table}

    def _load_extra_state(self, state: dict[str, Tensor]) -> None:
        if not state:  # a checkpoint of before this was kept
            self._last_won.fill_(self.step)
            return
        self._last_won = state["last_won"]
        self._neighbours.load(state)
        self._table_step = int(state["table_step"])
        self._table = state["table"].to(self.device) if "table" in state else None

    def loss(self, batch: RawBatch) -> Tensor:
        if self._denoiser is not None:
            lots = torch.rand(batch.planes.shape[0], generator=self.generator, device=self.device)
            with self._autocast():
                batch = self._denoiser.denoised(batch, lots < self.config.denoised)
        if self.step < self.config.picture_steps:
            return self._picture_loss(batch)
        size = batch.planes.shape[0]
        quality = torch.rand(size, generator=self.generator, device=self.device)
        decoded, bits = self._code(batch, quality, training=True)
        weight = LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** quality
        error = 255**2 * self._distortion(decoded, batch, clamp=False)
        share = self.config.ms_ssim_weight
        if share:
            error = (1 - share) * error + share * _MS_SSIM_SCALE * dissimilarity(decoded, batch)
        pixels = batch.target.shape[2] * batch.target.shape[3]
        rate = bits / pixels
        # Divided by what is to be expected at this quality, else the best qualities take over the gradient.
        return ((weight * error + rate) / (0.1 + 2 * quality)).mean()

    def _picture_loss(self, batch: RawBatch) -> Tensor:
        """Of the encoder's picture, by decibels, in which every noise level counts alike."""
        encoder = self.model.encoder
        if not isinstance(encoder, Encoder):
            raise ZooError(f"{self.config.model} has no picture in its encoder; leave 'picture_steps' out")
        with self._autocast():
            picture = encoder.picture(self._told(batch))
        return self._distortion(picture.float(), batch, clamp=False).clamp_min(1e-8).log10().mean()

    def _told(self, batch: RawBatch) -> Tensor:
        """What the encoder sees."""
        x = self.contract.encode(batch.planes, batch.shot, batch.read, batch.wb)
        return x.contiguous(memory_format=torch.channels_last) if self.device.type == "cpu" else x

    def _code(self, batch: RawBatch, quality: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        """Decoded display values ``[N, 12, h, w]`` and bits per picture ``[N]``."""
        with self._autocast():
            told = self._told(batch)
            latent = self.model.encode(self._rounded(told) if training else told)
        gain, scale = self.model.gains(quality)
        scaled = latent.float() * gain[:, :, None, None]
        nearest = scaled.detach().round()
        # What is coded: the lowest latents less what their neighbours, rounded, say of them.
        predicted = self._neighbours.predict(scaled + (nearest - scaled.detach()))
        count = predicted.shape[1]
        symbols = torch.cat((nearest[:, :count] - predicted.detach().round(), nearest[:, count:]), 1)
        table = self._costs() if training else cost_table(self.model.priors, _REACH)
        costs, chosen = position_costs(symbols, table).min(1)
        # Networks meet what an encoder's rounding makes of latents. Others depend on the predicted ones, which stay.
        thin(symbols, scaled.detach(), chosen, table, first=count)
        rounded = scaled + (torch.cat((nearest[:, :count], symbols[:, count:]), 1) - scaled).detach()
        if training:
            self._neighbours.learn(nearest, scale.detach())
            noise = torch.rand(scaled.shape, generator=self.generator, device=self.device) - 0.5
            values = scaled + noise
            values = torch.cat((values[:, :count] - predicted, values[:, count:]), 1)
            bits = self._bits(values, self._with_idle(costs, chosen))
        else:
            bits = self._bits(symbols, position_costs(symbols, table).min(1).indices)
        with self._autocast():
            decoded = self.model.decode(rounded * scale[:, :, None, None])
        return decoded.float(), bits

    def _costs(self) -> Tensor:
        if self._table is None or self.step - self._table_step >= _REFRESH:
            self._table, self._table_step = cost_table(self.model.priors, _REACH), self.step
        return self._table

    def _with_idle(self, costs: Tensor, chosen: Tensor) -> Tensor:
        """The priors of positions ``[P]``; those that have not won for long are put on the most expensive ones."""
        self._last_won[chosen] = self.step
        idle = (self.step - self._last_won > _IDLE).nonzero().flatten()
        if idle.numel():
            worst = costs.topk(max(1, int(costs.numel() * _WORST_SHARE))).indices
            lots = torch.randint(idle.numel(), (worst.numel(),), generator=self.generator, device=self.device)
            chosen[worst] = idle[lots]
        return chosen

    def _bits(self, values: Tensor, chosen: Tensor) -> Tensor:
        """Bits per picture ``[N]`` of values ``[N, C, h, w]``, each position under its chosen prior, the index included."""
        priors = self.model.priors
        share = F.one_hot(chosen, priors.priors).double().mean(0).clamp_min(1e-6)
        flat = values.permute(0, 2, 3, 1).reshape(-1, priors.channels)
        # Only the winner's density is evaluated: [positions, C] with each position's own parameters.
        costs = bits_of(flat, priors.densities(chosen)).sum(1) + (-share.log2()[chosen]).float()
        return costs.view(values.shape[0], -1).sum(1)

    def _scores(self) -> dict[str, float]:
        """``LEVEL/qQ``: PSNR, dB, and ``LEVEL/qQ bpp``: bits per pixel; ``mean`` is one number to watch, the mean of PSNR less a
        third of the rate in decibels, about the trade that lambda makes. While the picture alone is trained, ``LEVEL``: its PSNR,
        and their mean."""
        return self._picture_scores() if 0 < self.step <= self.config.picture_steps else self._coded_scores()

    def _picture_scores(self) -> dict[str, float]:
        encoder = self.model.encoder
        assert isinstance(encoder, Encoder)
        scores = {}
        for level, batch in self.validation.items():
            x = self._told(batch)
            with self._autocast():
                picture = encoder.picture(x)
            scores[level] = float(display_psnr(self.contract, x, picture, batch, margin=16).mean())
        return {**scores, "mean": sum(scores.values()) / len(scores)}

    def _coded_scores(self) -> dict[str, float]:
        scores: dict[str, float] = {}
        total = 0.0
        for level, batch in self.validation.items():
            pixels = batch.target.shape[2] * batch.target.shape[3]
            for q in _VALIDATED:
                decoded, bits = self._code(
                    batch, torch.full((batch.planes.shape[0],), q, device=self.device), training=False
                )
                error = distortion(decoded, batch, clamp=True)
                psnr = float((-10 * torch.log10(error.clamp_min(1e-10))).mean())
                bpp = float(bits.mean()) / pixels
                scores[f"{level}/q{q:g}"], scores[f"{level}/q{q:g} bpp"] = psnr, bpp
                total += psnr - 10 * math.log10(bpp) / 3
        return {**scores, "mean": total / (len(_VALIDATED) * len(self.validation))}


def dissimilarity(decoded: Tensor, batch: RawBatch) -> Tensor:
    """1 - MS-SSIM per picture after development, ``[N]``; patches of at least 176 sensor pixels; arguments of :func:`distortion`.

    Raises:
        ZooError: ``pytorch-msssim`` is not installed.
    """
    try:
        from pytorch_msssim import ms_ssim
    except ImportError as error:
        raise ZooError(
            "'ms_ssim_weight' wants pytorch-msssim; install it with: pip install 'raw-zoo[train]'"
        ) from error
    offset = decoded.new_tensor(DISPLAY_OFFSET)
    linear = F.pixel_unshuffle(batch.target, 2)
    shown, wanted = (
        F.pixel_shuffle(_developed(x, batch, clamp=False).flatten(1, 2), 2)
        for x in (vst.inverse(decoded, offset), linear)
    )
    return 1 - ms_ssim(shown, wanted, data_range=1.0, size_average=False)


def _developed(linear: Tensor, batch: RawBatch, *, clamp: bool) -> Tensor:
    """Packed linear RGB ``[N, 12, h, w]`` -> display values ``[N, 3, 4, h, w]``."""
    n, _, h, w = linear.shape
    shown = torch.einsum("nij,njshw->nishw", batch.matrix, linear.view(n, 3, 4, h, w))
    # Highlights beyond white cost no bits: what is shown ends at 1, and training may not push them back by much either.
    shown = shown.clamp(0, 1) if clamp else shown.clamp(-0.02, 1.1)
    return vst.forward(shown, linear.new_tensor(DISPLAY_OFFSET))


def distortion(decoded: Tensor, batch: RawBatch, *, clamp: bool) -> Tensor:
    """Mean squared error per picture after development (colour matrix, display curve), against the clean picture: ``[N]``.

    Args:
        decoded: packed RGB ``[N, 12, h, w]`` in the display curve.
        batch: with the target.
        clamp: compare what can be shown, [0, 1].
    """
    offset = decoded.new_tensor(DISPLAY_OFFSET)
    target = F.pixel_unshuffle(batch.target, 2)
    error = _developed(vst.inverse(decoded, offset), batch, clamp=clamp) - _developed(target, batch, clamp=clamp)
    if not clamp:
        # Outside of what is shown the developed error has no gradient; a little of the undeveloped keeps it in place.
        plain = decoded - vst.forward(target, offset)
        return error.square().mean((1, 2, 3, 4)) + 0.1 * plain.square().mean((1, 2, 3))
    return error.square().mean((1, 2, 3, 4))


def thin(symbols: Tensor, scaled: Tensor, chosen: Tensor, table: Tensor, *, first: int) -> None:
    """Symbols one step nearer to zero where that saves more bits than it costs quality, as :func:`zoo.codec.rounding.quantise`
    has it, in place.

    Args:
        symbols: whole float ``[N, C, h, w]``.
        scaled: what they are the nearest integers of.
        chosen: prior of each position ``[N * h * w]``.
        table: from :func:`zoo.models.priors.cost_table`.
        first: channels before it stay.
    """
    channels = symbols.shape[1]
    span = table.shape[0] // channels
    reach = span // 2
    n, c, y, x = (symbols[:, first:] != 0).nonzero(as_tuple=True)
    at = n, c + first, y, x
    given = symbols[at]
    less = given - given.sign()
    position = (n * symbols.shape[2] + y) * symbols.shape[3] + x
    rows = at[1] * span + reach
    bits = [table[rows + v.clamp(-reach, reach).long(), chosen[position]] for v in (given, less)]
    lost = 2 * (scaled[at].abs() - given.abs()) + 1
    symbols[at] = torch.where(lost < WORTH * (bits[0] - bits[1]), less, given)
