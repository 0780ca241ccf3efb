"""The test bed ``bayer``: pictures are turned into raws of a typical phone, developed by a method, and scored.

A picture is taken for a perfect development. Undoing it gives the raw and the truth:

1. sRGB decoding to linear light;
2. the inverse of :data:`CAMERA_MATRIX`: white-balanced linear camera RGB, the truth in linear light;
3. division by :data:`WB_GAINS`: raw units, black = 0, white = 1. The matrix's inverse and the gains keep [0, 1] in
   [0, 1], so that nothing clips by being unprocessed;
4. the RGGB mosaic;
5. noise: ``var = S*x + O``, a Poisson count of x/S photons plus Gaussian read noise, clipped at white as a converter
   does, and not at black, where sensors have a pedestal. No row noise and no quantisation: the bed measures methods,
   not sensors.

The noise is seeded by the picture's name and the level, so that every method sees the same raw whatever else is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zoo.data.pool import PICTURES, read_srgb
from zoo.errors import ZooError
from zoo.evaluation import metrics
from zoo.evaluation.method import Array, Method, Picture, Scores, Triple, inner, run
from zoo.models.registry import nearest
from zoo.raw.colour import SRGB_TO_XYZ, srgb_decode, srgb_encode
from zoo.raw.typical import CAMERA_TO_SRGB, NOISE_LEVELS, WHITE_BALANCE

BENCHMARK = "bayer"
# Of what all benchmarks compute; a change that moves numbers or adds some raises it, and older evidence is then not
# mixed in. 2: MS-SSIM, texture, linear SSIM, the slanted edge, megapixels.
VERSION = 2

SHADOW_BIAS = ("shadow_bias_r", "shadow_bias_g", "shadow_bias_b")
METRICS = ("psnr", "ssim", "ms_ssim", "texture", "psnr_linear", "ssim_linear", *SHADOW_BIAS)

CAMERA_MATRIX = np.array(CAMERA_TO_SRGB)
WB_GAINS: Triple = WHITE_BALANCE
LUMINANCE = np.asarray(SRGB_TO_XYZ[1] @ CAMERA_MATRIX, np.float32)  # of balanced camera RGB; sums to 1

LEVELS = NOISE_LEVELS

# Benchmark sets by the beginning of their files' names. Any other picture belongs to the set named after its folder.
SETS = {
    "kodak": "kodak_",
    "mcmaster": "mcm_",
    "urban": "urban_",
    "cid": "cid_",
    "clic": "clic_",
    "condat": "condat_",
}
ALL_SETS = "all"


@dataclass(frozen=True)
class Scene:
    """A raw with its truth.

    Attributes:
        mosaic: noisy RGGB, float32 ``[H, W]``, raw units.
        truth: clean balanced linear camera RGB, float32 ``[3, H, W]`` in [0, 1].
        shot, read: S and O of R, G, B in raw units.
    """

    mosaic: Array
    truth: Array
    shot: Triple
    read: Triple


def find_pictures(folder: Path, sets: Sequence[str] = (ALL_SETS,), limit: int | None = None) -> list[Picture]:
    """Pictures below a folder, by name.

    Args:
        folder: where to look, subfolders included.
        sets: names of :data:`SETS` or of subfolders, or "all".
        limit: at most so many of each set, the first by name.

    Raises:
        ZooError: no such folder, no picture in it, an unknown set, or two pictures of one name.
    """
    if not folder.is_dir():
        raise ZooError(f"{folder}: no such folder; point --data at a folder of pictures")
    found = [Picture(p, _set_of(p)) for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURES]
    known = dict.fromkeys(p.set for p in found)
    if not found:
        raise ZooError(f"{folder}: holds no picture ({', '.join(PICTURES)})")
    for name in sets:
        if name not in known and name != ALL_SETS:
            raise ZooError(f"{folder}: has no set '{name}'{nearest(name, known)}; it has {', '.join(known)}")
    chosen: dict[str, list[Picture]] = {}
    for picture in found:
        if picture.set in sets or ALL_SETS in sets:
            chosen.setdefault(picture.set, []).append(picture)
    for name, pictures in chosen.items():
        twice = {p.name for p in pictures if sum(q.name == p.name for q in pictures) > 1}
        if twice:
            raise ZooError(f"{folder}: set '{name}' has several pictures named {min(twice)}; rename all but one")
    return [p for pictures in chosen.values() for p in pictures[:limit]]


def make_scene(srgb: Array, name: str, level: str) -> Scene:
    """Unprocess a picture and add noise.

    Args:
        srgb: float32 ``[H, W, 3]``, sRGB-encoded, in [0, 1].
        name: the picture's, seeds the noise together with ``level``.
        level: one of :data:`LEVELS`.
    """
    linear = srgb_decode(srgb.astype(np.float64)).transpose(2, 0, 1)
    truth = np.einsum("ij,jhw->ihw", np.linalg.inv(CAMERA_MATRIX), linear)
    raw = truth / np.array(WB_GAINS)[:, None, None]
    mosaic = raw[1].copy()
    mosaic[0::2, 0::2] = raw[0, 0::2, 0::2]
    mosaic[1::2, 1::2] = raw[2, 1::2, 1::2]
    shot, read = LEVELS[level]
    if shot:
        seed = hashlib.sha256(f"{name}|{level}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(seed[:16], "big"))
        photons = generator.poisson(mosaic.clip(0) / shot) * shot
        mosaic = np.minimum(photons + generator.normal(0, np.sqrt(read), mosaic.shape), 1.0)
    return Scene(mosaic.astype(np.float32), truth.astype(np.float32), (shot,) * 3, (read,) * 3)


def develop(camera: Array) -> Array:
    """Balanced linear camera RGB ``[3, H, W]`` -> sRGB ``[3, H, W]`` in [0, 1]: matrix, clipping, transfer curve."""
    linear = np.einsum("ij,jhw->ihw", CAMERA_MATRIX.astype(np.float32), camera)
    return srgb_encode(linear.clip(0, 1)).astype(np.float32)


def score(method: Method, scene: Scene) -> Scores:
    """Run a method on a raw and compare with the truth, a border left out on each side.

    Returns:
        Scores with the values :data:`METRICS`: ``psnr`` (dB), ``ssim``, ``ms_ssim`` and ``texture`` of developed sRGB;
        ``psnr_linear`` (dB) and ``ssim_linear`` of balanced linear camera RGB; ``shadow_bias_r``, ``_g``, ``_b``. What
        each is: :mod:`zoo.evaluation.metrics`.

    Raises:
        ZooError: the picture is too small to be scored, or the method returns another shape or no finite numbers.
    """
    height, width = scene.mosaic.shape
    part = (..., *inner(height, width))
    result, seconds = run(method, scene.mosaic, WB_GAINS, scene.shot, scene.read)
    linear, truth = torch.from_numpy(result[part]), torch.from_numpy(scene.truth[part])
    shown, reference = (torch.from_numpy(develop(t)[part]) for t in (result, scene.truth))
    single, multi = metrics.ssim_and_ms_ssim(shown, reference)
    dark = torch.einsum("i,ihw->hw", torch.from_numpy(LUMINANCE), truth)
    values = {
        "psnr": metrics.psnr(shown, reference),
        "ssim": single,
        "ms_ssim": multi,
        "texture": metrics.texture_kept(shown, reference),
        "psnr_linear": metrics.psnr(linear, truth),
        "ssim_linear": metrics.ssim(linear, truth),
        **dict(zip(SHADOW_BIAS, metrics.shadow_bias(linear, truth, dark), strict=True)),
    }
    return Scores(values, seconds, height * width / 1e6)


def score_picture(method: Method, picture: Picture, level: str) -> Scores:
    """Score a method on one file at one noise level.

    Raises:
        ZooError: the file cannot be read or scored; the line names it.
    """
    scene = make_scene(read_srgb(picture.path), picture.name, level)
    try:
        return score(method, scene)
    except ZooError as error:
        raise ZooError(f"{picture.path}: {error}") from error


def _set_of(path: Path) -> str:
    return next((name for name, prefix in SETS.items() if path.name.startswith(prefix)), path.parent.name)
