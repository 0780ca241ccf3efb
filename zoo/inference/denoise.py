"""One call from a raw file to a picture."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.inference.output import save
from zoo.inference.restore import Progress, restore
from zoo.inference.runner import TileRunner, TorchRunner
from zoo.models.registry import DEFAULT_MODEL, check_denoiser, create_model, get_spec
from zoo.raw import read_raw


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
        threads: of PyTorch; None for its own choice.
        noise_scale: above 1 smooths more, below 1 keeps more, see :func:`zoo.inference.restore.restore`.
        progress: called with (tiles done, tiles in all).

    Returns:
        Without output: float32 (H, W, 3), white-balanced linear camera RGB at the size of the raw, not clipped. With
        it: the path of the picture.

    Raises:
        ZooError: whatever is wrong with the file, the model, the options or the output, in one line.
    """
    check_denoiser(model, "denoise by itself")
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
