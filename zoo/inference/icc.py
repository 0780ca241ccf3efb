"""The ICC profiles that pictures carry: sRGB, and the same primaries in linear light."""

from __future__ import annotations

import struct
from functools import cache

# sRGB's primaries under D50, the white that profiles are written for (Bradford-adapted; they sum to it).
_D50 = (0.9642, 1.0, 0.8249)
_RED, _GREEN, _BLUE = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14298, 0.06064, 0.7139)
_NAME = "sRGB primaries, linear"


@cache
def srgb_profile() -> bytes:
    """sRGB, without the time of its making: equal pictures are to give equal files."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


@cache
def linear_profile() -> bytes:
    """sRGB's primaries with gamma 1, as an ICC profile of version 2.1, which all programs read (ICC.1:1998-09).

    A header, a table of tags, and the tags' values at multiples of four bytes: a name, a copyright, the white, a primary
    and a curve for each colour. All three curves are one value.
    """
    name = _NAME.encode() + b"\0"
    # The name once more in Unicode and for Macintosh: empty, of fixed sizes (6.5.17).
    description = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(4 + 4 + 2 + 1 + 67)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 1 << 8)  # one number is a gamma, in 1/256
    values = {
        (b"desc",): description,
        (b"cprt",): b"text" + bytes(4) + b"No copyright, use freely\0",
        (b"wtpt",): _xyz(_D50),
        (b"rXYZ",): _xyz(_RED),
        (b"gXYZ",): _xyz(_GREEN),
        (b"bXYZ",): _xyz(_BLUE),
        (b"rTRC", b"gTRC", b"bTRC"): curve,
    }
    count = sum(map(len, values))
    table, data, place = struct.pack(">I", count), b"", 128 + 4 + 12 * count
    for tags, value in values.items():
        table += b"".join(struct.pack(">4sII", tag, place + len(data), len(value)) for tag in tags)
        data += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s4xI4s4x8xI12s4x44x",
        place + len(data), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp",
        0, b"\0" * 4, 0, _xyz(_D50)[8:],
    )  # fmt: skip
    return header + table + data


def _xyz(values: tuple[float, float, float]) -> bytes:
    """A tag of one colour, in 1/65536."""
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))
