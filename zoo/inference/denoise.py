"""One call from a raw file to a picture; and a raw that a network has denoised, for what takes raws."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.inference.output import save
from zoo.inference.restore import Progress, restore
from zoo.inference.runner import TileRunner, TorchRunner, check_threads
from zoo.models.compressor import KEPT, TOLD
from zoo.models.registry import DEFAULT_MODEL, ModelSpec, check_denoiser, check_removes_noise, create_model, get_spec
from zoo.raw import XTRANS, NoiseProfile, RawImage, read_raw
from zoo.raw.image import Quad
from zoo.raw.noise import Triple

# White level that a denoised mosaic is scaled to at most: a denoised highlight may exceed it.
_HIGHEST = 49152


def denoise(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    model: str = DEFAULT_MODEL,
    runner: TileRunner | None = None,
    format: str | None = None,
    linear: bool = False,
    exposure: float = 0.0,
    tile: int | None = None,
    threads: int | None = None,
    noise_scale: float = 1.0,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32] | Path:
    """Denoise and demosaic a raw photo.

    Args:
        path: raw file, see :func:`zoo.raw.read_raw`.
        output: picture to write, see :mod:`zoo.inference.output`; None to get the pixels instead.
        model: registered name.
        runner: runs the model elsewhere than in PyTorch with the shipped weights, e.g. ``export.litert.runner(file)``.
        format: of the picture, ``tiff``, ``png``, ``jpeg`` or ``dng``; None for the output's suffix.
        linear: TIFF without the sRGB curve.
        exposure: in EV, for developed pictures.
        tile: packed side of the tiles; None for the runner's or a good one. The result does not depend on it.
        threads: of PyTorch, 1 to :data:`zoo.inference.runner.MOST_THREADS`; None for its own choice.
        noise_scale: above 1 smooths more, below 1 keeps more, see :func:`zoo.inference.restore.restore`.
        progress: called with (tiles done, tiles in all).

    Returns:
        Without output: float32 (H, W, 3), white-balanced linear camera RGB at the size of the raw, not clipped, and with the
        lens's shading (:attr:`zoo.raw.RawImage.shading` has the gains against it). With it: the path of the picture.

    Raises:
        ZooError: whatever is wrong with the file, the model, the options or the output, in one line.
    """
    check_denoiser(model, "denoise by itself")
    check_threads(threads)
    raw = read_raw(path)
    if runner is None:
        runner = TorchRunner(create_model(model, pretrained=True), threads)
    bands = restore(raw, runner, get_spec(model), tile=tile, noise_scale=noise_scale, progress=progress)
    if output is not None:
        save(Path(output), bands, raw, format=format, linear=linear, exposure=exposure)
        return Path(output)
    picture = np.empty((*raw.mosaic.shape, 3), np.float32)
    for y0, rgb in bands:
        picture[y0 : y0 + rgb.shape[1]] = np.moveaxis(rgb, 0, -1)
    return picture


def denoised_mosaic(
    raw: RawImage, runner: TileRunner, spec: ModelSpec, *, progress: Progress | None = None
) -> RawImage:
    """A raw as if there had been more light: samples of a network's picture, mixed with a quarter of the noisy ones.

    For compressors (:meth:`zoo.inference.codec.Codec.compress`), whose encoders are too small to denoise as well as a denoiser.

    Args:
        raw: Bayer, any phase, at least 2x2.
        runner: runs the network.
        spec: of the network that the runner runs; a denoiser.
        progress: called after every tile with (done, all).

    Returns:
        The same, with another mosaic, levels a whole multiple of the raw's, and what is left of the noise.

    Raises:
        ZooError: a network that only demosaics, X-Trans; what :func:`zoo.inference.restore.restore` raises.
    """
    check_removes_noise(spec.name)
    if raw.cfa == XTRANS:
        raise ZooError(
            f"{raw.path or 'photo'}: X-Trans, of which no mosaic is made again; use the raw of a Bayer camera"
        )
    scale = max(1, int(_HIGHEST // max(raw.white)))
    mosaic = np.empty(raw.mosaic.shape, np.uint16)
    for y0, rgb in restore(raw, runner, spec, progress=progress):
        for at, name in enumerate(raw.cfa):
            dy, dx = divmod(at, 2)
            colour, black = "RGB".index(name), raw.black[at]
            first = (dy - y0) % 2  # a band may start at an odd row
            clean = rgb[colour, first::2, dx::2] * ((raw.white[at] - black) / raw.wb[colour]) + black
            rows = slice(y0 + first, y0 + rgb.shape[1], 2)
            mixed = (1 - KEPT) * clean + KEPT * raw.mosaic[rows, dx::2]
            mosaic[rows, dx::2] = np.rint(scale * mixed).clip(0, 65535)

    def scaled(levels: Quad) -> Quad:
        return levels[0] * scale, levels[1] * scale, levels[2] * scale, levels[3] * scale

    def left(part: Triple) -> Triple:
        return part[0] * TOLD, part[1] * TOLD, part[2] * TOLD

    noise = NoiseProfile(left(raw.noise.shot), left(raw.noise.read), raw.noise.source)
    return dataclasses.replace(raw, mosaic=mosaic, black=scaled(raw.black), white=scaled(raw.white), noise=noise)
