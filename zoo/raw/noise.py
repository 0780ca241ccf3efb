"""Noise of a raw: the (S, O) model, the table of cameras, and an estimator that reads it off the picture itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Triple = tuple[float, float, float]

BLOCK = 8  # side of the DCT blocks, in plane pixels (16 sensor pixels)
MAX_BLOCKS = 20_000  # per plane: keeps 12 MP under half a second, and the fit has long stopped improving
BINS = 20  # signal levels per colour, equally wide in sqrt(signal), where Poisson noise is equally strong
FLATTEST = 0.03  # share of a level taken as flat: with 10 % pure texture (Kodak 13) reads 9x too noisy, with 3 % 1.8x
WHITE_NOISE_RATIO = 1.0  # low/high band energy of the flattest blocks: 0.6 if flat with white noise, 2..20 if textured
READ_PER_SHOT = 4.4  # O / S^2 of a median phone (O = 1e-11 iso^2, S = 1.5e-6 iso), used when O cannot be seen
MAX_SCATTER = 0.2  # mean |log(variance / line)|: 0.02..0.12 where S is read within 25 %, 0.2..1.3 where texture rules
WHITE_LEVEL_MARGIN = 0.97  # blocks that touch this are dropped: some sensors bend well before they saturate
TAG_TOLERANCE = 2.5  # a stated S this far off the measured one is not believed (phone_a71: stated/measured = 3.2)


@dataclass(frozen=True)
class NoiseProfile:
    """Variance of the noise as a function of the signal, in the form of DNG's NoiseProfile (tag 51041).

    ``var(x) = shot * x + read`` for x in [0, 1] after black subtraction and white normalisation, *before* white
    balance.

    Attributes:
        shot: S for R, G, B (signal-proportional part; the gain in units of the normalised signal).
        read: O for R, G, B (signal-independent part; a variance).
        source: "tag", "table", "estimated" or "given".
    """

    shot: Triple
    read: Triple
    source: str

    def balanced(self, wb: Sequence[float]) -> NoiseProfile:
        """The profile of the same data multiplied by the gains ``wb`` (R, G, B): S * w and O * w**2."""
        shot = (self.shot[0] * wb[0], self.shot[1] * wb[1], self.shot[2] * wb[2])
        read = (self.read[0] * wb[0] ** 2, self.read[1] * wb[1] ** 2, self.read[2] * wb[2] ** 2)
        return NoiseProfile(shot, read, self.source)


@cache
def _bands() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Low and high 2-D DCT basis functions of one block, each (64, n).

    Low is 2 <= i+j <= 6: without i+j = 1, as a slope (vignetting, sky) does not disturb the high band, i+j >= 8.
    """
    frequency, i = np.mgrid[0:BLOCK, 0:BLOCK]
    d = np.sqrt(2 / BLOCK) * np.cos(np.pi * (2 * i + 1) * frequency / (2 * BLOCK))
    d[0] /= np.sqrt(2)  # orthonormal DCT-II
    basis = np.einsum("iy,jx->ijyx", d, d).reshape(BLOCK, BLOCK, -1).astype(np.float32)
    order = np.add.outer(np.arange(BLOCK), np.arange(BLOCK))
    return basis[(order >= 2) & (order <= 6)].T.copy(), basis[order >= 8].T.copy()


def _low_clip(plane: npt.NDArray[np.float32]) -> float:
    """The value at which dark pixels pile up (clipped at black by camera or file); -inf if they do not."""
    low = float(plane.min())
    above = plane[plane > low]
    if above.size == 0:
        return low
    at_low, at_next = plane.size - above.size, int(np.count_nonzero(above == above.min()))
    return low if at_low > max(at_next, 0.001 * plane.size) else -math.inf


def _block_statistics(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean, low-band energy, high-band energy and clipped-low fraction of unsaturated blocks, (4, n)."""
    h, w = plane.shape
    if h < BLOCK or w < BLOCK:
        return np.empty((4, 0), np.float32)
    step = max(BLOCK // 2, math.ceil(math.sqrt(h * w / MAX_BLOCKS)))
    windows = np.lib.stride_tricks.sliding_window_view(plane, (BLOCK, BLOCK))[::step, ::step]
    blocks = windows.reshape(-1, BLOCK * BLOCK)
    blocks = blocks[blocks.max(axis=1) < WHITE_LEVEL_MARGIN]
    low, high = _bands()
    return np.stack(
        [
            blocks.mean(axis=1),
            np.square(blocks @ low).mean(axis=1),
            np.square(blocks @ high).mean(axis=1),
            (blocks <= _low_clip(plane)).mean(axis=1),
        ]
    )


def _levels(planes: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    """Noise variance of the flattest blocks of one colour by signal level: rows (mean, variance, weight), (3, n).

    Blocks are ranked by their *low* band (texture) and measured in their *high* band, which for white noise is
    independent of the ranking, so that taking the flattest does not bias the variance (Ponomarenko et al. 2007; Colom
    and Buades, IPOL 2013). The low band then says how far the flattest blocks may be trusted: its energy exceeds the
    high band's where all blocks carry texture, and also where the camera has smoothed the noise.
    """
    mean, low, high, clipped = np.concatenate([_block_statistics(p) for p in planes], axis=1).astype(np.float64)
    if mean.size == 0:
        return np.empty((3, 0))
    root = np.sqrt(np.maximum(mean, 0))
    edges = np.linspace(root.min(), np.percentile(root, 99.9), BINS + 1)
    index = np.clip(np.digitize(root, edges) - 1, 0, BINS - 1)
    rows = []
    for level in range(BINS):
        members = np.flatnonzero(index == level)
        if members.size < 40:
            continue
        count = max(16, int(FLATTEST * members.size))
        flat = members[np.argsort(low[members])[:count]]
        if clipped[flat].mean() > 0.02:  # the noise is cut off here and reads too small
            continue
        variance = float(np.median(high[flat])) / 0.976  # median of chi-square / 28 degrees of freedom
        if variance <= 0:
            continue
        ratio = float(np.median(low[flat])) / variance
        weight = min(count, 200) / (1 + (ratio / WHITE_NOISE_RATIO) ** 6)
        rows.append((float(mean[flat].mean()), variance, weight))
    return np.array(rows, np.float64).reshape(-1, 3).T


def _fit_line(levels: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Non-negative (S, O) of variance = S * mean + O in relative least squares, leaning to the lower envelope.

    Texture can only add variance: a level above the line by more than 15 % loses weight, one below it does not.
    """
    mean, variance, weight = levels
    shot, read = float(np.median(variance / np.maximum(mean, 1e-4))), 0.0
    for _ in range(30):
        model = np.maximum(shot * mean + read, 1e-12)
        excess = np.maximum(variance / model - 1, 0)
        w = np.sqrt(weight / (1 + (excess / 0.15) ** 2)) / model
        solution = np.linalg.lstsq(np.stack([mean * w, w], axis=1), variance * w, rcond=None)[0]
        shot, read = float(solution[0]), float(solution[1])
        if read < 0:
            shot, read = float(np.sum(w * w * mean * variance) / np.sum(w * w * mean * mean)), 0.0
        elif shot < 0:
            shot, read = 0.0, float(np.sum(w * w * variance) / np.sum(w * w))
    return shot, read


def estimate_noise(planes: npt.NDArray[np.floating[Any]]) -> NoiseProfile | None:
    """Read the noise off one picture.

    A sensor's noise is the same behind every filter, so one line is fitted to all colours; then each colour's digital
    gain against it, which some cameras apply to red and blue before they store the raw.

    Args:
        planes: (4, h, w) planes R, G1, G2, B, normalised (black 0, white 1), not white balanced, not clipped at black.

    Returns:
        The profile (source "estimated"), or None where the picture has too little evidence: too small, textured all
        over, smoothed or coded so that its noise is not white, or too dark to tell the shot noise from the read noise.
    """
    r, g1, g2, b = (np.ascontiguousarray(p, dtype=np.float32) for p in planes)
    colours = [_levels([r]), _levels([g1, g2]), _levels([b])]
    levels = np.concatenate(colours, axis=1)
    dim = levels[0] <= 0.5
    if _evidence(levels[:, dim]) and not dim.all():
        # Some sensors saturate well below the stated white (Canon D30 at 0.94): flat, and with hardly any noise left.
        shot, read = _fit_line(levels[:, dim])
        colours = [own[:, (own[0] <= 0.5) | (own[1] > 0.5 * (shot * own[0] + read))] for own in colours]
        levels = np.concatenate(colours, axis=1)
    if not _evidence(levels):
        return None
    mean, variance, weight = levels
    trusted = mean[weight > 0.05 * weight.max()]
    if trusted.max() < 1.5 * trusted.min():  # one level only: tie O to S
        k = READ_PER_SHOT
        shot = float(np.average((np.sqrt(mean**2 + 4 * k * variance) - mean) / (2 * k), weights=weight))
        return NoiseProfile((shot,) * 3, (k * shot * shot,) * 3, "estimated")
    shot, read = _fit_line(levels)
    gains = [_gain(own, shot, read) for own in colours]
    line = [np.maximum(g * shot * own[0] + g * g * read, 1e-12) for g, own in zip(gains, colours, strict=True)]
    scatter = float(np.average(np.abs(np.log(variance / np.concatenate(line))), weights=weight))
    if shot <= 0 or scatter > MAX_SCATTER:
        return None
    return NoiseProfile((shot,) * 3, (read,) * 3, "estimated").balanced(gains)


def _gain(own: npt.NDArray[np.float64], shot: float, read: float) -> float:
    """The gain g of one colour whose noise is var(x) = g * S * x + g**2 * O: weighted median over its levels."""
    mean, variance, weight = own
    if weight.sum() < 20:  # little more than one level
        return 1.0
    linear = shot * mean
    gain = 2 * variance / np.maximum(linear + np.sqrt(np.maximum(linear**2 + 4 * read * variance, 0)), 1e-12)
    order = np.argsort(gain)
    middle = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    return float(np.clip(gain[order[middle]], 1 / 3, 3))


def _evidence(levels: npt.NDArray[np.float64]) -> bool:
    """Whether the levels suffice for a fit: about four of sixteen flat blocks, some with more than four electrons.

    mean / sigma = 2 is four electrons; below, shot noise cannot be told from read noise (dark frames).
    """
    mean, variance, weight = levels
    if weight.sum() < 60:
        return False
    trusted = weight > 0.05 * weight.max()
    return bool((mean[trusted] / np.sqrt(variance[trusted])).max() >= 2)


@cache
def _table() -> dict[str, Any]:
    import yaml

    table: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "noise_table.yaml").read_text(encoding="utf-8"))
    return table


def _at_iso(ladder: dict[int, list[float]], iso: float) -> NoiseProfile:
    isos = sorted(ladder)
    inside = min(max(iso, isos[0]), isos[-1])
    logs = np.log([ladder[i] for i in isos])
    shot, read = (float(np.exp(np.interp(np.log(inside), np.log(isos), logs[:, k]))) for k in (0, 1))
    beyond = iso / inside
    return NoiseProfile((shot * beyond,) * 3, (read * beyond**2,) * 3, "table")


def camera_noise(camera: str, iso: float | None) -> NoiseProfile | None:
    """The profile of a named camera from ``noise_table.yaml``.

    Args:
        camera: make and model in one string.
        iso: sensitivity; None gives None.
    """
    for entry in _table()["cameras"]:
        if iso and any(piece in camera.lower() for piece in entry["match"]):
            return _at_iso(entry["iso"], iso)
    return None


def generic_noise(iso: float | None) -> NoiseProfile:
    """The profile of a median phone; an unknown ISO counts as 400, the middle of the ladder."""
    return _at_iso(_table()["generic"]["iso"], iso or 400.0)


def choose_noise(stated: NoiseProfile | None, iso: float | None, estimate: NoiseProfile | None) -> NoiseProfile:
    """What to believe: a tag or named camera unless the picture contradicts it, else the picture, else a median phone.

    The generic row stands last, after the picture: it is right within a factor of 4, an estimate within 25 %.

    Args:
        stated: from the file's tag, else from the table's named cameras, else None.
        iso: sensitivity, for the generic row.
        estimate: from :func:`estimate_noise`; None where the picture has too little evidence.
    """
    if estimate is None:
        return stated or generic_noise(iso)
    if stated is None:
        return estimate
    said, seen = (math.prod(max(s, 1e-9) for s in p.shot) ** (1 / 3) for p in (stated, estimate))
    return estimate if max(said / seen, seen / said) > TAG_TOLERANCE else stated
