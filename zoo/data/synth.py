"""Synthetic raws: clean linear pictures -> camera space -> noisy mosaics, in batches on the training device.

Unprocessing after Brooks et al. (CVPR 2019, "Unprocessing Images for Learned Raw Denoising"); noise after the DNG
NoiseProfile form ``var = S*x + O``, with row noise and quantisation.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.pool import ImagePool, decode_linear
from zoo.errors import ZooError
from zoo.models.contracts.cfa_masks import RGGB, masks
from zoo.raw.cfa import XTRANS

CFAS = ("bayer", "xtrans", "both")


_CANDIDATES = 4  # crops from which the most textured is taken
_NEAR_SRGB = 0.25  # share of raws whose camera sees colours more saturated than real ones do


@dataclass(frozen=True)
class NoiseRange:
    """From what the noise of a training raw is drawn; defaults hold 98.6 % of phones' NoiseProfile rows, ISO 50-3200."""

    shot_min: float = 2e-5
    shot_max: float = 3e-2
    read_per_iso2: tuple[float, float] = (5e-13, 6.4e-11)  # O = floor + c * iso^2, c log-uniform
    read_floor: tuple[float, float] = (1e-7, 1.5e-6)
    shot_per_iso: tuple[float, float] = (1.0e-6, 2.2e-6)  # S / ISO of the phones measured, ties O to S
    clean: float = 0.12  # share of raws without noise: the demosaicing-only case
    row: float = 0.15  # row noise up to this share of the read noise's standard deviation
    knowledge: float = 0.15  # the network is told noise levels that are wrong by up to this share (estimators are)

    def at(self, shot: float, read: float) -> NoiseRange:
        """The same narrowed to one level, S and O of ``S*x + O``."""
        fixed = dataclasses.replace(self, shot_min=max(shot, 1e-9), shot_max=max(shot, 1e-9), clean=float(shot == 0))
        return dataclasses.replace(fixed, read_floor=(read, read), read_per_iso2=(1e-30, 1e-30))


@dataclass
class RawBatch:
    """Synthetic raws, white-balanced.

    Attributes:
        planes: noisy packed mosaic, float32 ``[N, 4, h, w]``.
        target: clean white-balanced linear camera RGB, float32 ``[N, 3, 2h, 2w]``.
        shot, read: noise as told to the network, float32 ``[N, 3]``, balanced units.
        wb: white balance gains R, G, B, float32 ``[N, 3]``, green = 1.
        matrix: balanced camera RGB -> linear sRGB of each raw's camera, float32 ``[N, 3, 3]``, rows sum to 1.
        displayed: whether ``target`` holds a picture's display values instead of light, bool ``[N]``.
        cfa: ``"RGGB"``, or ``"XTRANS"`` from the first pixel of its pattern on (:mod:`zoo.models.contracts.cfa_masks`).
    """

    planes: Tensor
    target: Tensor
    shot: Tensor
    read: Tensor
    wb: Tensor
    matrix: Tensor
    displayed: Tensor
    cfa: str = RGGB


class RawSynthesizer:
    """Draws batches of synthetic raws from a pool.

    Args:
        pool: clean pictures, on the device where batches are wanted.
        patch: side of a patch in sensor pixels, even.
        noise: distribution of the noise.
        cfa: ``bayer``, ``xtrans``, or ``both``: every batch is one or the other, by chance.
        textured: share of the patches of a batch that are the most textured of four crops; the rest are drawn evenly.
        displayed: share of raws whose sensor sees the picture's sRGB values themselves, as published benchmarks have it
            (:mod:`zoo.evaluation.demosaic`): no camera, tone or exposure.

    Raises:
        ZooError: another ``cfa``.
    """

    def __init__(
        self,
        pool: ImagePool,
        patch: int,
        noise: NoiseRange,
        cfa: str = "bayer",
        *,
        textured: float = 0.0,
        displayed: float = 0.0,
    ) -> None:
        if cfa not in CFAS:
            raise ZooError(f"cfa is '{cfa}'; it can be {', '.join(CFAS)}")
        self.cfa = cfa
        self.pool = pool
        self.patch = patch
        self.noise = noise
        self.textured = textured
        self.displayed = displayed
        self.device = pool.images[0].device
        self._weights = pool.areas.to(self.device)

    def batch(self, size: int, generator: torch.Generator) -> RawBatch:
        """``size`` raws; all randomness comes from ``generator`` (on the pool's device)."""
        rgb = decode_linear(self._patches(size, generator))
        balanced, gains, matrix = self._unprocess(rgb, generator)
        displayed = (
            torch.rand(size, generator=generator, device=self.device) < self.displayed if self.displayed else None
        )
        if displayed is not None:
            balanced[displayed] = _srgb_values(rgb[displayed].clamp(0, 1))
            gains[displayed], matrix[displayed] = 1.0, torch.eye(3, device=self.device)
        # A sensor clips each colour at its own white, before the gains; the network's task ends there.
        target = torch.minimum(balanced, gains[:, :, None, None])
        shot, read = self._noise_levels(size, generator)
        cfa = self._draw_cfa(generator)
        planes, wb = mosaic(target, cfa), _packed_gains(gains, self.patch, cfa)
        raw = planes / wb
        noisy = self._add_noise(raw, shot, read, generator)
        told = torch.exp(self._uniform(size, -self.noise.knowledge, self.noise.knowledge, generator))
        return RawBatch(
            noisy * wb,
            target,
            shot[:, None] * gains * told[:, None],
            read[:, None] * gains.square() * told[:, None],
            gains,
            matrix,
            torch.zeros(size, dtype=torch.bool, device=self.device) if displayed is None else displayed,
            cfa,
        )

    def _draw_cfa(self, generator: torch.Generator) -> str:
        if self.cfa == "both":
            return XTRANS if torch.rand((), generator=generator, device=self.device) < 0.5 else RGGB
        return XTRANS if self.cfa == "xtrans" else RGGB

    def _uniform(self, shape: int | tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.device) * (high - low) + low

    def _log_uniform(self, shape: int, bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
        return torch.exp(self._uniform(shape, math.log(bounds[0]), math.log(bounds[1]), generator))

    def _patches(self, size: int, generator: torch.Generator) -> Tensor:
        """Crops of which a share is chosen for its texture."""
        chosen = round(size * self.textured)
        if not chosen:
            return self._crops(size, generator)
        crops = self._crops(chosen * _CANDIDATES, generator).unflatten(0, (_CANDIDATES, chosen))
        best = torch.stack([_texture(c) for c in crops]).argmax(0)
        textured = crops[best, torch.arange(chosen, device=self.device)]
        return torch.cat((textured, self._crops(size - chosen, generator))) if chosen < size else textured

    def _crops(self, size: int, generator: torch.Generator) -> Tensor:
        """Random crops, flips and transposes: uint16 codes ``[N, 3, patch, patch]``."""
        picks = torch.multinomial(self._weights, size, replacement=True, generator=generator).tolist()
        where = torch.rand(size, 2, generator=generator, device=self.device).tolist()
        turns = torch.randint(8, (size,), generator=generator, device=self.device).tolist()
        crops = []
        for pick, (fy, fx), turn in zip(picks, where, turns, strict=True):
            image = self.pool.images[pick]
            y = int(fy * (image.shape[0] - self.patch + 1))
            x = int(fx * (image.shape[1] - self.patch + 1))
            # An odd origin is another phase of the mosaic relative to the picture: all four Bayer phases are drawn.
            crop = image[y : y + self.patch, x : x + self.patch].to(torch.int32).permute(2, 0, 1)
            if turn & 1:
                crop = crop.flip(1)
            if turn & 2:
                crop = crop.flip(2)
            crops.append(crop.transpose(1, 2) if turn & 4 else crop)
        return torch.stack(crops)

    def _unprocess(self, rgb: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """sRGB-linear -> white-balanced camera RGB with a random camera, tone and exposure; its white balance, its matrix."""
        n = rgb.shape[0]
        # Inverse of a global S-shaped tone curve (Brooks et al., section 3.2), on half of the pictures.
        tone = (torch.rand(n, generator=generator, device=self.device) < 0.5)[:, None, None, None]
        capped = rgb.clamp(0, 1)
        inverse_tone = 0.5 - torch.sin(torch.asin(1 - 2 * capped) / 3)
        rgb = torch.where(tone & (rgb <= 1), inverse_tone, rgb)
        # Camera matrices with unit row sums, inverted. Ranges: 5-95 % of 404 tuning matrices of 65 sensors (libcamera).
        near = self._uniform((n, 3), 0.05, 0.9, generator)
        far = self._uniform((n, 3), -0.1, 0.55, generator)
        matrix = torch.zeros(n, 3, 3, device=self.device)
        for row, (a, b) in enumerate(((1, 2), (0, 2), (1, 0))):
            matrix[:, row, a] = -near[:, row]
            matrix[:, row, b] = -far[:, row]
            matrix[:, row, row] = 1 + near[:, row] + far[:, row]
        # A quarter nearer to sRGB's own primaries, down to the identity: the inverse matrices only ever pull colours together,
        # and on saturated ones the networks were then no better than Menon's demosaic (33.8 dB on McMaster's file values).
        drawn = torch.rand(n, generator=generator, device=self.device) < _NEAR_SRGB
        strength = torch.where(drawn, self._uniform(n, 0, 1, generator), torch.ones((), device=self.device))
        matrix = torch.lerp(torch.eye(3, device=self.device).expand(n, 3, 3), matrix, strength[:, None, None])
        camera = torch.einsum("nij,njhw->nihw", torch.linalg.inv(matrix), rgb)
        # Exposure: mostly as the picture was shown, down to a fifth (dim scenes), up to 1.6 (clipped highlights).
        exposure = self._log_uniform(n, (0.2, 1.6), generator)
        gains = torch.ones(n, 3, device=self.device)
        gains[:, 0] = self._uniform(n, 1.2, 2.6, generator)
        gains[:, 2] = self._uniform(n, 1.2, 2.6, generator)
        return camera * exposure[:, None, None, None], gains, matrix

    def _noise_levels(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = self.noise
        shot = self._log_uniform(n, (noise.shot_min, noise.shot_max), generator)
        iso = shot / self._log_uniform(n, noise.shot_per_iso, generator)
        per_iso2 = self._log_uniform(n, noise.read_per_iso2, generator)
        read = self._uniform(n, *noise.read_floor, generator) + per_iso2 * iso.square()
        noisy = torch.rand(n, generator=generator, device=self.device) >= noise.clean
        return shot * noisy, read * noisy

    def _add_noise(self, raw: Tensor, shot: Tensor, read: Tensor, generator: torch.Generator) -> Tensor:
        has_noise = (shot > 0)[:, None, None, None]
        std = read.sqrt()[:, None, None, None]
        variance = (shot[:, None, None, None] * raw.clamp_min(0)) + std.square()
        noisy = raw + variance.sqrt() * torch.randn(raw.shape, generator=generator, device=self.device)
        # Counting statistics where they differ from a Gaussian: fewer than 500 photons at white. (Sampling Poisson for all
        # takes 13 of the 22 ms that a batch costs on one CPU core.)
        few = (shot > 2e-3).nonzero().flatten()
        if few.numel():
            scale = shot[few, None, None, None]
            photons = torch.poisson(raw[few].clamp_min(0) / scale, generator=generator) * scale
            noisy[few] = photons + std[few] * torch.randn(photons.shape, generator=generator, device=self.device)
        n, _, height, _ = raw.shape
        # Row noise: one value per sensor row; the planes R and G1 share a row, G2 and B the other.
        rows = torch.randn(n, 2, height, 1, generator=generator, device=self.device).repeat_interleave(2, 1)
        noisy = noisy + rows * std * self._uniform((n, 1, 1, 1), 0, self.noise.row, generator)
        # The converter: 10 to 14 bits, a black level well above zero, white clipped, nothing clipped at black.
        bits = torch.randint(10, 15, (n, 1, 1, 1), generator=generator, device=self.device)
        steps = torch.exp2(bits.to(torch.float32)) * 15 / 16
        return torch.where(has_noise, torch.round(noisy.clamp(max=1.0) * steps) / steps, noisy)


def _srgb_values(linear: Tensor) -> Tensor:
    """Linear light in [0, 1] -> sRGB values (IEC 61966-2-1), as :func:`zoo.raw.srgb_encode` on arrays."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def _texture(crops: Tensor) -> Tensor:
    """How much the green of ``[N, 3, H, W]`` differs from its four neighbours' mean, at a quarter of the pixels: ``[N]``."""
    green = crops[:, 1].float()
    across = green[:, 1:-1:2, :-2:2] + green[:, 1:-1:2, 2::2]
    along = green[:, :-2:2, 1:-1:2] + green[:, 2::2, 1:-1:2]
    return (green[:, 1:-1:2, 1:-1:2] - (across + along) / 4).abs().mean((1, 2))


def mosaic(rgb: Tensor, cfa: str = RGGB) -> Tensor:
    """RGB ``[N, 3, 2h, 2w]`` -> packed mosaic ``[N, 4, h, w]``, plane ``2*dy + dx`` (R, G1, G2, B of RGGB)."""
    if cfa == RGGB:
        return torch.stack(
            [rgb[:, 0, 0::2, 0::2], rgb[:, 1, 0::2, 1::2], rgb[:, 1, 1::2, 0::2], rgb[:, 2, 1::2, 1::2]], dim=1
        )
    measured = masks(rgb.shape[2], rgb.shape[3], cfa).to(rgb)
    return F.pixel_unshuffle((rgb * measured).sum(1, keepdim=True), 2)


def _packed_gains(gains: Tensor, side: int, cfa: str) -> Tensor:
    """Gain of every sample of a packed mosaic, ``[N, 4, 1, 1]`` for RGGB, else ``[N, 4, side/2, side/2]``."""
    if cfa == RGGB:
        return gains[:, [0, 1, 1, 2]][:, :, None, None]
    return mosaic(gains[:, :, None, None].expand(-1, -1, side, side), cfa)
