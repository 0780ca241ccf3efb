"""The benchmark ``pairs``: real noisy frames of a still scene against the mean of many, in the domain of the raw.

Only a noisy frame is shown to a method. What it makes of it, balanced camera RGB, is divided by the gains, sampled at
the sensor's phase and clipped to black and white, but not rounded: the truth, a mean of frames, is not either. PSNR for
a peak of white minus black, 16 pixels of border cut. So a demosaicer that leaves the sampled values alone scores what
the frame itself does, and a network that gives full RGB is measured at the samples, where there is a truth.

The figure flatters no one: the mean of 64 frames is itself 18 dB below one frame's noise, not without noise.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zoo.errors import ZooError
from zoo.evaluation import metrics
from zoo.evaluation.demosaic import sample
from zoo.evaluation.method import Array, Method, Picture, Scores, inner, run
from zoo.models.registry import nearest
from zoo.raw import NoiseProfile, RawImage, pack, read_raw
from zoo.raw.read import npy_header

BENCHMARK = "pairs"
LEVELS = {"real": (None, None)}  # the noise is the file's
METRICS = ("psnr", "ssim", "psnr_input")

_TRUTH, _TRUTH_SCALE = "gt_x32", 32
_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_NOISE_NOTE = re.compile(rf"S={_NUMBER}, *O={_NUMBER}")


def find_pairs(folder: Path, sets: Sequence[str] = ("all",), limit: int | None = None) -> list[Picture]:
    """Frames of every npz below a folder that holds frames and their truth, by file and frame.

    A file holds ``mosaic``, frames ``[N, H, W]``; ``gt_x32``, 32 times their clean mean, ``[H, W]``; and ``meta`` as
    :func:`zoo.raw.read_raw` wants it, with the noise as ``noise_profile`` ([S, O]) or as "S=..., O=..." in ``note``.

    Args:
        folder: where to look, subfolders included.
        sets: names of such files without suffix, or "all".
        limit: at most so many frames of each file, the first ones.

    Raises:
        ZooError: no such folder, no such file in it, or an unknown set.
    """
    if not folder.is_dir():
        raise ZooError(f"{folder}: no such folder; point --data at the folder of the noisy/clean pairs")
    found = {p: n for p in sorted(folder.rglob("*.npz")) if (n := _frames(p))}
    if not found:
        raise ZooError(f"{folder}: holds no noisy/clean pairs (an npz with 'mosaic' [N, H, W] and '{_TRUTH}' [H, W])")
    known = [p.stem for p in found]
    for name in sets:
        if name not in known and name != "all":
            raise ZooError(f"{folder}: has no set '{name}'{nearest(name, known)}; it has {', '.join(known)}")
    chosen = {p: n for p, n in found.items() if p.stem in sets or "all" in sets}
    return [Picture(p, p.stem, frame) for p, n in chosen.items() for frame in range(n)[:limit]]


def score_picture(method: Method, picture: Picture, level: str) -> Scores:
    """Score a method on one frame; ``level`` can only be "real".

    Returns:
        Scores with the values :data:`METRICS`: ``psnr`` in dB and ``ssim`` (mean of the four packed planes) of the
        method's mosaic, ``psnr_input`` in dB of the noisy frame itself.

    Raises:
        ZooError: the file cannot be read or scored; the line names it.
    """
    assert picture.frame is not None
    truth, noise = _truth_and_noise(picture.path)
    raw = _frame(picture.path, picture.frame, noise)
    try:
        return _score(method, raw, truth)
    except ZooError as error:
        raise ZooError(f"{picture.path}: {error}") from error


def _score(method: Method, raw: RawImage, truth: Array) -> Scores:
    noisy = raw.normalised()
    if noisy.shape != truth.shape:
        raise ZooError(f"its frames are {noisy.shape}, its {_TRUTH} is {truth.shape}; both are (H, W) of one sensor")
    part = inner(*noisy.shape)
    result, seconds = run(method, noisy, raw.wb, raw.noise.shot, raw.noise.read, raw.cfa)
    made = sample(result / np.array(raw.wb, np.float32)[:, None, None], raw.cfa).clip(0, 1)
    clean = (truth - np.float32(raw.black[0])) / np.float32(raw.white[0] - raw.black[0])
    cut = [np.ascontiguousarray(m[part]) for m in (made, clean, noisy.clip(0, 1))]
    shown, reference, given = (torch.from_numpy(m)[None] for m in cut)
    even = tuple(slice(side // 2 * 2) for side in cut[0].shape)
    planes = [torch.from_numpy(pack(m[even])) for m in cut[:2]]
    values = {
        "psnr": metrics.psnr(shown, reference),
        "ssim": metrics.ssim(planes[0], planes[1]),
        "psnr_input": metrics.psnr(given, reference),
    }
    return Scores(values, seconds, noisy.size / 1e6)


def _frames(path: Path) -> int:
    """How many frames with a truth a file holds; 0 where it is something else, which may lie beside them."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not {"mosaic.npy", "meta.npy", f"{_TRUTH}.npy"} <= set(archive.namelist()):
                return 0
            member = archive.getinfo("mosaic.npy")
            with archive.open(member) as file:  # its header alone: the frames may be gigabytes
                shape, dtype = npy_header(file)
    except Exception:  # zipfile and the parser of the header raise what they like where a file is damaged
        return 0
    return shape[0] if len(shape) == 3 and 0 < math.prod(shape) * dtype.itemsize <= member.file_size else 0


def _frame(path: Path, frame: int, noise: NoiseProfile) -> RawImage:
    """A frame of a file as :func:`zoo.raw.read_raw` gives it.

    Raises:
        ZooError: the file cannot be read.
    """
    first, frames = _frames_of(path, noise)
    if first.metadata["wb_source"] == "grey world":  # of each frame its own
        return read_raw(path, noise=noise, frame=frame)
    return dataclasses.replace(first, mosaic=frames[frame].astype(np.uint16))


@lru_cache(maxsize=1)  # frames are asked for file by file
def _frames_of(path: Path, noise: NoiseProfile) -> tuple[RawImage, npt.NDArray[np.unsignedinteger]]:
    """The first frame, checked, and the mosaics of all: unpacking gigabytes once for each frame would take minutes.

    Raises:
        ZooError: the file cannot be read.
    """
    _frames_of.cache_clear()  # not the last file's beside them
    first = read_raw(path, noise=noise)
    with np.load(path, allow_pickle=False) as archive:
        return first, archive["mosaic"]


@lru_cache(maxsize=2)
def _truth_and_noise(path: Path) -> tuple[npt.NDArray[np.float32], NoiseProfile]:
    """The clean mosaic in DN, float32 ``[H, W]``, and the noise that the file states.

    Raises:
        ZooError: the file cannot be read, or states no noise.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            truth = archive[_TRUTH].astype(np.float32) / _TRUTH_SCALE
            meta = json.loads(str(archive["meta"]))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ZooError(f"{path}: is damaged ({error}); copy it again") from error
    stated = meta.get("noise_profile")
    if stated is None:
        match = _NOISE_NOTE.search(str(meta.get("note", "")))
        stated = match.groups() if match else None
    if stated is None:
        raise ZooError(f'{path}: states no noise; add "noise_profile": [S, O] to its meta')
    shot, read = (float(value) for value in stated)
    return truth, NoiseProfile((shot,) * 3, (read,) * 3, "given")
