"""The raw photo that the rest of the project works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.raw.cfa import XTRANS, Alignment, alignment
from zoo.raw.noise import NoiseProfile
from zoo.raw.shading import Shading

Quad = tuple[float, float, float, float]


@dataclass(frozen=True)
class RawImage:
    """One exposure as the sensor gave it, with what is needed to develop it.

    Attributes:
        mosaic: uint16 (H, W), linearised: the picture that the camera means to be seen, without the pixels around it.
        cfa: "RGGB", "GRBG", "GBRG" or "BGGR", the 2x2 read row by row at the mosaic's top left; or "XTRANS".
        black: black level in DN per 2x2 position, row by row.
        white: saturation level in DN per 2x2 position. The readers give all four the same value, as white balance gains
            are defined on one scale and dividing the colours by different whites would tint the picture.
        wb: gains R, G, B with green = 1; ``metadata["wb_source"]`` says "as shot", "daylight" (from the colour matrix)
            or "grey world".
        xyz_to_cam: (3, 3) XYZ (D65) -> unbalanced camera RGB as DNG's ColorMatrix; None if unknown.
        iso: sensitivity, None if unknown.
        noise: noise of the normalised mosaic before white balance.
        orientation: EXIF 1..8; the mosaic itself is not turned.
        metadata: make, model, lens, exposure_time (s), f_number, focal_length (mm), datetime, offset_time (of its zone),
            artist, copyright, latitude, longitude (degrees), altitude (m), wb_source, as far as known; of a DNG also
            baseline_exposure (EV, by which it is meant to be brighter) and gain_map (1 where it has a lens shading
            correction of a kind that nothing here applies).
        path: the file, for messages.
        shading: gains against the lens's shading, which are for pictures made of the mosaic, not for the mosaic; or None.
    """

    mosaic: npt.NDArray[np.uint16]
    cfa: str
    black: Quad
    white: Quad
    wb: tuple[float, float, float]
    xyz_to_cam: npt.NDArray[np.float64] | None
    iso: float | None
    noise: NoiseProfile
    orientation: int = 1
    metadata: dict[str, str | float | int] = field(default_factory=dict)
    path: str = ""
    shading: Shading | None = None

    def normalised(self) -> npt.NDArray[np.float32]:
        """(mosaic - black) / (white - black), float32 (H, W). Clipped at neither end: noise around black is kept."""
        return normalise(self.mosaic, self.black, self.white)

    def check_bayer(self) -> None:
        """Refuse what Bayer models cannot take.

        Raises:
            ZooError: the mosaic is X-Trans, or too small.
        """
        name = self.path or "photo"
        if self.cfa == XTRANS:
            raise ZooError(f"{name}: X-Trans, which Bayer models cannot take; use the raw of a Bayer camera")
        if min(self.mosaic.shape) < 2:
            raise ZooError(f"{name}: {self.mosaic.shape} pixels are no Bayer picture; at least 2x2 are needed")

    def packed(self) -> tuple[npt.NDArray[np.float32], Alignment]:
        """Normalised planes R, G1, G2, B, float32 (4, h, w), and the border that was added to start at an R.

        Raises:
            ZooError: the mosaic is X-Trans, or too small.
        """
        self.check_bayer()
        return normalised_planes(self.mosaic, self.cfa, self.black, self.white)


def normalised_planes(
    mosaic: npt.NDArray[np.uint16], cfa: str, black: Quad, white: Quad
) -> tuple[npt.NDArray[np.float32], Alignment]:
    """:meth:`RawImage.packed` of a Bayer mosaic of at least 2x2, plane by plane: a third of the time of doing it in turn."""
    border = alignment((mosaic.shape[0], mosaic.shape[1]), cfa)
    padded = border.pad(mosaic)
    planes = np.empty((4, padded.shape[0] // 2, padded.shape[1] // 2), np.float32)
    for position, plane in enumerate(planes):
        y, x = divmod(position, 2)
        level = (y + border.top) % 2 * 2 + (x + border.left) % 2  # by 2x2 position of the mosaic before it was padded
        plane[:] = padded[y::2, x::2]
        _scale(plane, black[level], white[level])
    return planes, border


def normalise(mosaic: npt.NDArray[np.uint16], black: Quad, white: Quad) -> npt.NDArray[np.float32]:
    """Map black to 0 and white to 1 per 2x2 position, float32 (H, W), not clipped."""
    out = mosaic.astype(np.float32)
    for position in range(4):
        y, x = divmod(position, 2)
        _scale(out[y::2, x::2], black[position], white[position])
    return out


def _scale(values: npt.NDArray[np.float32], black: float, white: float) -> None:
    values -= np.float32(black)
    values *= np.float32(1 / (white - black))
