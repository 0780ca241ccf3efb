"""Run a denoiser's exported file without this project: NumPy and a runtime, nothing else.

What stands around the network in an app, written out once: alignment, white balance, the variance-stabilising curve (VST), the
planes that the network sees, tiles, the linear demosaic that its output corrects, and the way back to linear light. Port this to
Kotlin, Swift or a shader. It follows the words of contract ``bayer_vst_v1`` in the file's metadata; ``docs/app.md`` says where
its arguments come from. A test holds it to ``zoo.denoise``.

    python examples/client.py artifacts/utnet-m-litert-int8-256.tflite mosaic.npy out.npy  # RGGB, uint16, levels below
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = Any


def vst(x: Array, c: float) -> Array:
    """Linear light -> the curve's values; its tangent below zero."""
    return x / (np.sqrt(np.maximum(x, 0) + c) + np.sqrt(c)) / (np.sqrt(1 + c) - np.sqrt(c))


def inverse_vst(y: Array, c: float) -> Array:
    """The exact inverse of :func:`vst`."""
    y = y * (np.sqrt(1 + c) - np.sqrt(c))
    return y * (np.maximum(y, 0) + 2 * np.sqrt(c))


def neighbours(planes: Array) -> dict[tuple[int, int], Array]:
    """Planes ``[C, h, w]`` moved by -1, 0 and 1 each way, edges repeated."""
    h, w = planes.shape[1:]
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return {(y, x): padded[:, 1 + y : 1 + y + h, 1 + x : 1 + x + w] for y in (-1, 0, 1) for x in (-1, 0, 1)}


def demosaic(planes: Array) -> Array:
    """Malvar, He & Cutler (ICASSP 2004) on packed planes R, G1, G2, B ``[4, h, w]`` -> ``[3, 2h, 2w]``."""
    near = neighbours(planes)

    def mosaic(y: int, x: int, dy: int, dx: int) -> Array:
        """The mosaic's samples at distance (dy, dx) from sub-pixel (y, x)."""
        cell_y, sub_y = divmod(y + dy, 2)
        cell_x, sub_x = divmod(x + dx, 2)
        return near[cell_y, cell_x][2 * sub_y + sub_x]

    def total(y: int, x: int, *places: tuple[int, int]) -> Array:
        return sum(mosaic(y, x, dy, dx) for dy, dx in places)

    sides, far = ((0, -1), (0, 1), (-1, 0), (1, 0)), ((0, -2), (0, 2), (-2, 0), (2, 0))
    corners = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    out = np.empty((3, 2 * planes.shape[1], 2 * planes.shape[2]))
    for y in (0, 1):
        for x in (0, 1):
            here, place = mosaic(y, x, 0, 0), (slice(y, None, 2), slice(x, None, 2))
            if y == x:  # red or blue is measured
                own, other = (0, 2) if y == 0 else (2, 0)
                out[own][place] = here
                out[1][place] = (4 * here + 2 * total(y, x, *sides) - total(y, x, *far)) / 8
                out[other][place] = (6 * here + 2 * total(y, x, *corners) - 1.5 * total(y, x, *far)) / 8
            else:
                out[1][place] = here
                along, across = (
                    (((0, -1), (0, 1)), ((-1, 0), (1, 0))) if y == 0 else (((-1, 0), (1, 0)), ((0, -1), (0, 1)))
                )
                for colour, near_by in (
                    (0, along),
                    (2, across),
                ):  # red lies along the row of G1, along the column of G2
                    (dy, dx), _ = near_by
                    beyond = ((2 * dy, 2 * dx), (-2 * dy, -2 * dx))
                    beside = ((2 * dx, 2 * dy), (-2 * dx, -2 * dy))
                    value = 5 * here + 4 * total(y, x, *near_by) - total(y, x, *corners, *beyond)
                    out[colour][place] = (value + 0.5 * total(y, x, *beside)) / 8
    return out


def restore(
    mosaic: Array, cfa: str, black: Array, white: Array, gains: Array, shot: Array, read: Array,
    network: Callable[[Array], Array], tile: int, margin: int,
) -> Array:  # fmt: skip
    """A noisy Bayer mosaic -> clean RGB.

    Args:
        mosaic: ``[H, W]``, DN.
        cfa: ``RGGB``, ``GRBG``, ``GBRG`` or ``BGGR``, the 2x2 at its top left.
        black, white: levels in DN, one each or four per 2x2 position row by row.
        gains: white balance R, G, B, green 1.
        shot, read: S and O of R, G, B: the noise of (mosaic - black) / (white - black) = x has the variance S x + O.
        network: float32 ``[1, 12, tile, tile]`` -> the same shape: runs the file.
        tile: the file's.
        margin: the file's; tiles overlap by twice as much.

    Returns:
        ``[3, H, W]``, white-balanced linear camera RGB: black 0, white the channel's gain, not clipped.

    Raises:
        ValueError: a tile that its margins fill.
    """
    if tile <= 2 * margin:
        raise ValueError(
            f"a tile of {tile} leaves nothing within margins of {margin}; export it for more than {2 * margin}"
        )
    gains = np.asarray(gains, float)
    shot, read = (
        np.asarray(shot, float) * gains,
        np.asarray(read, float) * gains**2,
    )  # noise is balanced as the signal is
    c = float(np.clip(0.375 * shot[1] + read[1] / max(shot[1], 1e-9), 1 / 512, 1))
    sigma = np.sqrt(shot * 0.18 + read) * 0.5 / np.sqrt(0.18 + c) / (np.sqrt(1 + c) - np.sqrt(c))
    unit = 0.03 + sigma[1]
    told = np.append(2 * np.sqrt(sigma), np.sqrt(c))[:, None, None]

    (height, width), (top, left) = mosaic.shape, divmod(cfa.index("R"), 2)
    levels = [np.resize(np.asarray(level, float), 4).reshape(2, 2) for level in (black, white)]
    rows, columns = np.arange(height)[:, None] % 2, np.arange(width)[None] % 2
    low, high = (level[rows, columns] for level in levels)
    x = (mosaic - low) / (high - low)

    def mirrored(start: int, size: int) -> Array:
        """Indices of ``2 * tile`` pixels from ``start`` on, reflected at the ends without repeating them."""
        at = np.arange(start, start + 2 * tile) % (2 * (size - 1))
        return np.minimum(at, 2 * (size - 1) - at)

    core = tile - 2 * margin
    out = np.empty((3, height, width), np.float32)
    for y0 in range(0, height + top, 2 * core):
        for x0 in range(0, width + left, 2 * core):
            # An R of RGGB is at every tile's corner; the first tile begins ``margin`` beyond the picture.
            part = x[np.ix_(mirrored(y0 - top - 2 * margin, height), mirrored(x0 - left - 2 * margin, width))]
            planes = np.stack([part[i::2, j::2] * gains[i + j] for i in (0, 1) for j in (0, 1)])
            curved = vst(planes, c)
            detail = np.clip((curved - sum(neighbours(curved).values()) / 9) / (4 * unit), -1.5, 1.5)
            seen = np.concatenate([curved, detail, np.broadcast_to(told, (4, tile, tile))])[None].astype(np.float32)
            correction = network(seen)[0].reshape(3, 2, 2, tile, tile).transpose(0, 3, 1, 4, 2).reshape(3, 2 * tile, -1)
            rgb = inverse_vst(demosaic(curved) + unit * correction, c)
            down, right = min(height, y0 - top + 2 * core), min(width, x0 - left + 2 * core)
            up, far_left = max(0, y0 - top), max(0, x0 - left)
            inside_y, inside_x = up - (y0 - top) + 2 * margin, far_left - (x0 - left) + 2 * margin
            out[:, up:down, far_left:right] = rgb[
                :, inside_y : inside_y + down - up, inside_x : inside_x + right - far_left
            ]
    return out


def open_tflite(path: str) -> tuple[Callable[[Array], Array], dict[str, str]]:
    """A file's network and its metadata."""
    from ai_edge_litert.interpreter import Interpreter

    Path(path).open("rb").close()  # says that it is not there; the interpreter says nothing of use
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def network(x: Array) -> Array:
        interpreter.set_tensor(given, x)
        interpreter.invoke()
        return interpreter.get_tensor(made)

    return network, metadata_of(path)


def metadata_of(path: str) -> dict[str, str]:
    """The metadata entry ``zoo_metadata`` of a .tflite file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(Path(path).read_bytes(), 0)
    entry = next((e for e in model.metadata or [] if e.name == b"zoo_metadata"), None)
    if entry is None:
        raise ValueError(f"{path}: carries no zoo_metadata; write it with `zoo export`")
    return json.loads(bytes(model.buffers[entry.buffer].data))


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(_complain("three arguments: FILE.tflite MOSAIC.npy OUT.npy"))
    try:
        _run(*sys.argv[1:])
    except OSError as error:
        sys.exit(_complain(f"{error.filename}: {error.strerror}; check the path" if error.filename else str(error)))
    except (ValueError, KeyError) as error:  # a file of another kind, a tile that leaves nothing
        sys.exit(_complain(str(error)))


def _complain(text: str) -> int:
    print("error:", " ".join(text.split()), file=sys.stderr)
    return 2


def _run(file: str, source: str, target: str) -> None:
    network, metadata = open_tflite(file)
    rgb = restore(
        np.load(source), "RGGB", black=64, white=1023, gains=(2.0, 1.0, 1.6), shot=(1e-3,) * 3, read=(1e-5,) * 3,
        network=network, tile=int(metadata["tile"]), margin=int(metadata["margin"]),
    )  # fmt: skip
    np.save(target, rgb)


if __name__ == "__main__":
    main()
