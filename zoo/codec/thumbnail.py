"""The small picture in an ``.rzc`` file that shows what it holds without any network."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.codec.container import MAX_THUMBNAIL
from zoo.errors import ZooError

_SIDES = (256, 192, 128, 64)  # pixels of the longer side, tried in turn until the JPEG is small enough
_QUALITIES = (85, 70, 50, 30)
_MAX_SIDE = 1024  # of a thumbnail that is decoded


def make_thumbnail(picture: npt.NDArray[np.uint8], exif: bytes = b"") -> bytes:
    """A JPEG of at most 16 kB.

    Args:
        picture: uint8 (H, W, 3), sRGB, the way it is to be seen, any size.
        exif: what it is to carry, from :func:`zoo.codec.extras.pack_extras`.

    Raises:
        ZooError: no such picture, or more EXIF than there is room.
    """
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise ZooError(f"a thumbnail is made of a uint8 (H, W, 3) picture, not {picture.dtype} {picture.shape}")
    image = Image.fromarray(np.ascontiguousarray(picture))
    data = b""
    for side in _SIDES:
        scale = min(1.0, side / max(image.size))
        small = image.resize([max(1, round(s * scale)) for s in image.size], Image.Resampling.BOX)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality, exif=exif)
            data = buffer.getvalue()
            if len(data) <= MAX_THUMBNAIL:
                return data
    raise ZooError(f"a thumbnail of {_SIDES[-1]} pixels takes {len(data)} bytes; {MAX_THUMBNAIL} are allowed")


def read_thumbnail(data: bytes) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3) of a thumbnail's JPEG.

    Raises:
        ZooError: no JPEG, or more than 1024 pixels a side.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"):  # of pictures of more than 89 megapixels
            image: Any = Image.open(io.BytesIO(data), formats=["JPEG"])
        if max(image.size) > _MAX_SIDE:  # known before pixels are decoded
            raise ZooError(f"the thumbnail has {image.size[0]}x{image.size[1]} pixels; {_MAX_SIDE} a side are allowed")
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises any of these
        raise ZooError("the thumbnail is no JPEG; the file is damaged") from error
