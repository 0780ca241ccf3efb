"""Peers' networks as methods of the benchmarks: in which values each is run, and what it is told of the noise.

A network gets what it was trained on, as nearly as a raw of known noise allows. Which values those are was tried on three
pictures of the bed (kodak_05, mcm_05, urban_012), and what was best for the peer is kept; the figures stand at each function.

* sRGB-encoded values, for networks that learnt on pictures without noise. DemosaicNet: 35.4 dB, on linear values 33.1; Deep
  Demosaick (crops of 160 pixels): 34.7 and 33.2.
* stabilised values (:class:`Stabilised`), for networks that learnt additive noise of one sigma. DemosaicNet at ISO 800 and
  3200: 30.1 and 26.1 dB, told a local sigma on linear values 28.5 and 25.9, on sRGB-encoded ones 30.0 and 23.4. Deep Demosaick
  (crops): 30.2 and 25.2, on linear values 29.3 and 25.2.
* k-Sigma values, for PMRID.

DnCNN for sigma 25/255 is left out: on packed planes that are scaled to its one sigma it takes 40 s a picture and stands below
non-local means at ISO 800 (23.4 to 25.9 dB) and 3200 (22.6 to 23.2).

On the benchmark ``demosaic`` file values count as light, so there the networks see the mosaic as it is.

A denoiser has nothing to do on a raw without noise and is left out there, as with the classical methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from peers_nets import CascadeDemosaic, DemosaicNet

from zoo.baselines.catalogue import balance
from zoo.baselines.denoise import anscombe, inverse_anscombe
from zoo.evaluation.method import Method
from zoo.models.contracts import ksigma_bayer
from zoo.raw.cfa import alignment, pack, unpack
from zoo.raw.colour import srgb_decode, srgb_encode

Array = npt.NDArray[np.float32]
Denoise = Callable[[Array, Sequence[float], Sequence[float]], Array]
Demosaic = Callable[[Array], Array]

_COLOURS = [0, 1, 1, 2]  # of the packed planes


@dataclass(frozen=True)
class Stabilised:
    """Values whose noise is nearly white: the generalised Anscombe transform, one curve for all colours so that grey stays grey.

    The curve is for the noise of the balanced mosaic's mean pixel. The gains leave R and B noisier than G, by 1.4 and 1.3 at
    gains of 2 and 1.7: the price of one curve.

    Attributes:
        shot, read: S and O that the curve is for, balanced units; S > 0.
        scale: of the transform's units (noise of 1) per unit of value.
    """

    shot: float
    read: float
    scale: float

    @classmethod
    def of(cls, wb: Sequence[float], shot: Sequence[float], read: Sequence[float], most: float) -> Stabilised:
        """The curve of a raw: black at 0, white at 1, or below it where the noise would exceed ``most``."""
        s = sum(shot[c] * wb[c] for c in _COLOURS) / 4
        o = sum(read[c] * wb[c] ** 2 for c in _COLOURS) / 4
        low, high = (float(anscombe(np.array(v), np.array(s), np.array(o))) for v in (0.0, 1.0))
        return cls(s, o, max(high - low, 1 / most))

    @property
    def sigma(self) -> float:
        """Of the noise, in units of value."""
        return 1 / self.scale

    def forward(self, balanced: Array) -> Array:
        """Balanced values, negative ones too, -> stabilised values."""
        s, o = np.array(self.shot), np.array(self.read)
        moved = anscombe(balanced.astype(np.float64), s, o) - anscombe(np.array(0.0), s, o)
        return np.asarray(moved / self.scale, np.float32)

    def inverse(self, values: Array) -> Array:
        """Unbiased inverse for values without noise."""
        s, o = np.array(self.shot), np.array(self.read)
        counts = values.astype(np.float64) * self.scale + anscombe(np.array(0.0), s, o)
        return np.asarray(inverse_anscombe(counts, s, o), np.float32)


def colour_planes(mosaic: Array, cfa: str) -> tuple[Array, Array]:
    """A mosaic ``[H, W]`` at its colours' places of ``[3, H, W]``, 0 elsewhere; and the mask of those places."""
    mask = np.zeros((3, *mosaic.shape), np.float32)
    for position, colour in enumerate(cfa):
        y, x = divmod(position, 2)
        mask["RGB".index(colour), y::2, x::2] = 1
    return mosaic * mask, mask


@torch.inference_mode()
def run_demosaicnet(net: DemosaicNet, mosaic: Array, sigma: float = 0.0) -> Array:
    """RGGB ``[H, W]`` in the network's values -> RGB ``[3, H, W]``, mirrored at the edges; any size >= 2.

    The network wants green first (GRBG): it gets a mirrored column more on the left. ``sigma`` is told to a noise-aware one.
    """
    height, width = mosaic.shape
    top, left = net.margin + 1, net.margin + 2  # even and odd
    padded = np.pad(mosaic, ((top, top + height % 2), (left, left + width % 2)), mode="reflect")
    planes, _ = colour_planes(padded, "GRBG")
    plane = torch.full((1, 1, padded.shape[0] // 2, padded.shape[1] // 2), sigma) if net.noise_aware else None
    rgb = net(torch.from_numpy(planes)[None], plane)[0].numpy()
    return np.ascontiguousarray(rgb[:, 1 : 1 + height, 2 : 2 + width])


@torch.inference_mode()
def run_cascade(net: CascadeDemosaic, mosaic: Array, sigma: float) -> Array:
    """RGGB ``[H, W]`` in values of 0..1 with noise of ``sigma`` -> RGB ``[3, H, W]``; the network works in 0..255."""
    border = 8  # mirrored, as the authors' application does
    planes, mask = colour_planes(np.pad(mosaic, border, mode="reflect"), "RGGB")
    rgb = net(torch.from_numpy(planes * 255)[None], torch.from_numpy(mask)[None], sigma * 255)[0].numpy() / 255
    return np.ascontiguousarray(rgb[:, border:-border, border:-border])


def in_srgb(run: Demosaic) -> Demosaic:
    """A demosaicer that sees sRGB-encoded values; the curve is mirrored below black."""

    def demosaic(balanced: Array) -> Array:
        made = run(np.asarray(np.sign(balanced) * srgb_encode(np.abs(balanced)), np.float32))
        return np.asarray(np.sign(made) * srgb_decode(np.abs(made)), np.float32)

    return demosaic


def demosaic_method(demosaic: Demosaic, denoise: Denoise | None = None) -> Method:
    """Denoise the mosaic where there is noise and a denoiser, balance it, demosaic it."""

    def method(mosaic: Array, wb: Sequence[float], shot: Sequence[float], read: Sequence[float]) -> Array:
        if denoise is not None and min(shot) > 0:
            mosaic = denoise(mosaic, shot, read)
        return demosaic(balance(mosaic, wb))

    return method


def joint_method(run: Callable[[Array, float], Array], clean: Demosaic, most: float) -> Method:
    """A network that is told one sigma, on stabilised values; without noise, ``clean``.

    Args:
        run: (RGGB in the network's values, sigma) -> RGB.
        clean: what demosaics a balanced mosaic without noise.
        most: largest sigma that the network is shown, see :meth:`Stabilised.of`.
    """

    def method(mosaic: Array, wb: Sequence[float], shot: Sequence[float], read: Sequence[float]) -> Array:
        balanced = balance(mosaic, wb)
        if min(shot) <= 0:
            return clean(balanced)
        values = Stabilised.of(wb, shot, read, most)
        return values.inverse(run(values.forward(balanced), values.sigma))

    return method


def pmrid_denoiser(net: torch.nn.Module) -> Denoise:
    """PMRID on k-Sigma values of the raw's own S and O, on the whole picture, mirrored at the edges.

    Negative values go in, which the authors cut off: at ISO 3200 that halves the shadow bias (80 %, 57 %, 113 % of their level in
    R, G, B instead of 155 %, 98 %, 178 %) and gains 0.05 dB. Telling it 0.7 of the noise gains 0.3 dB (of the raw) at ISO 800 and
    loses up to 1.1 dB at ISO 12,800; it is told the truth.
    """

    @torch.inference_mode()
    def denoise(mosaic: Array, shot: Sequence[float], read: Sequence[float]) -> Array:
        even = alignment((mosaic.shape[0], mosaic.shape[1]), "RGGB")
        planes = pack(even.pad(mosaic))
        height, width = planes.shape[1:]
        # At least 16 on each side, as the authors pad, to a multiple of 32; they pad with black.
        pads = [(16, 16 + (-side) % 32) for side in (height, width)]
        x = torch.from_numpy(np.pad(planes, ((0, 0), *pads), mode="symmetric"))[None]
        noise = ksigma_bayer.parameters(*(torch.tensor([v], dtype=torch.float32) for v in (shot, read)))
        y = ksigma_bayer.inverse(net(ksigma_bayer.forward(x, *noise)), *noise)[0].numpy()
        return np.ascontiguousarray(even.crop(unpack(y[:, 16 : 16 + height, 16 : 16 + width])))

    return denoise
