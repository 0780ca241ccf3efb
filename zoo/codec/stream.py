"""A photo <-> a file, with any pair of networks: they come in as two functions, this module does the tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.ahead import ahead
from zoo.codec.container import Stream, pack_stream, read_tile
from zoo.codec.entropy import encode_latents
from zoo.codec.header import Header
from zoo.codec.tables import EntropyTables
from zoo.codec.tiles import Box
from zoo.errors import ZooError
from zoo.raw import alignment

# A box of positions -> their latents, int16 [C, rows, columns], and their priors, uint8 [rows, columns]: the encoder network,
# which cuts the pixels it needs out of the aligned mosaic itself, and zoo.codec.rounding.quantise.
Analyse = Callable[[Box], tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]
# Dequantised latents float32 [C, n, n] -> linear RGB float32 [3, n * stride, n * stride]: the decoder network.
Synthesise = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
Progress = Callable[[int, int], None]  # tiles or windows done, all of them


class Piece(NamedTuple):
    """Part of a decoded photo.

    Attributes:
        box: where it lies, in pixels of the mosaic.
        rgb: float32 (3, rows, columns).
        whole: bool (rows, columns): False where damaged tiles had a part in the pixel.
    """

    box: Box
    rgb: npt.NDArray[np.float32]
    whole: npt.NDArray[np.bool_]


def compress(
    header: Header,
    tables: EntropyTables,
    analyse: Analyse,
    *,
    thumbnail: bytes = b"",
    progress: Progress | None = None,
) -> bytes:
    """The bytes of a file, tile by tile.

    Args:
        header: of the photo, from :func:`zoo.codec.header.describe`.
        tables: of its model.
        analyse: called once per tile with its box of positions, in order, from one other thread.
        thumbnail: JPEG; empty for none.
        progress: called after every tile.

    Raises:
        ZooError: tables that are not the header's, latents that do not fit the box, see also :func:`pack_stream`.
    """
    header.check_tables(tables)
    if problem := header.problem():
        raise ZooError(f"this photo cannot be written: {problem}")
    payloads = []
    boxes = [header.tiles.box(tile) for tile in range(header.tiles.count)]
    for tile, (box, (latents, priors)) in enumerate(zip(boxes, ahead(map(analyse, boxes)), strict=True)):
        if latents.shape != (tables.channels, *box.shape):
            raise ZooError(f"the encoder gave latents {latents.shape} for {tables.channels} channels of {box.shape}")
        payloads.append(encode_latents(latents, tables, priors))
        if progress is not None:
            progress(tile + 1, header.tiles.count)
    return pack_stream(header, payloads, thumbnail)


def pieces(
    stream: Stream,
    tables: EntropyTables,
    synthesise: Synthesise,
    *,
    halo: int,
    most: int | None = None,
    rect: Box | None = None,
    salvage: bool = False,
    progress: Progress | None = None,
) -> Iterator[Piece]:
    """Decode a photo tile by tile; at most the latents of the tile rows in reach are held.

    Args:
        stream: from :func:`zoo.codec.container.parse`.
        tables: of its model.
        synthesise: the decoder network; called with windows of one size: a tile and ``halo`` positions around it, or ``most``.
        halo: positions beyond a pixel's own that the network looks, >= 0.
        most: positions a side that it takes at most, more than ``2 * halo``; None for any number. Larger tiles are decoded in
            parts.
        rect: what to decode, in pixels of the mosaic; None for all. Only the tiles that it needs are read.
        salvage: decode what is whole; latents of damaged tiles are 0 and what they touch is marked. Tiles that fail their CRC or
            do not decode are noted in ``stream.lost`` before the first piece that they have a part in.
        progress: called after every window.

    Returns:
        Pieces row by row, without gaps or overlap.

    Raises:
        ZooError: other tables, an empty or outlying ``rect``; while iterating: a damaged tile (without ``salvage``),
            a network that gives another shape.
    """
    header = stream.header
    header.check_tables(tables, stream.name)
    border = alignment((header.height, header.width), header.cfa)
    frame = Box(0, 0, header.height, header.width)
    wanted = frame if rect is None else rect
    if not wanted or wanted.meet(frame) != wanted:
        y0, x0, y1, x1 = wanted
        problem = f"lies outside its {header.height}x{header.width} pixels" if wanted else "is empty"
        raise ZooError(
            f"{stream.name}: the part {y0},{x0},{y1 - y0},{x1 - x0} (top, left, height, width) {problem};"
            f" choose one within 0,0,{header.height},{header.width}"
        )
    wanted = wanted.move(border.top, border.left)
    side = header.tiles.largest if most is None else min(header.tiles.largest, most - 2 * halo)
    if side < 1:
        raise ZooError(
            f"a decoder for {most} positions, {halo} of them around what it makes on each side, leaves nothing"
        )
    return _pieces(stream, tables, synthesise, halo, side, wanted, (border.top, border.left), salvage, progress)


def _pieces(
    stream: Stream,
    tables: EntropyTables,
    synthesise: Synthesise,
    halo: int,
    side: int,
    wanted: Box,
    offset: tuple[int, int],
    salvage: bool,
    progress: Progress | None,
) -> Iterator[Piece]:
    """``wanted`` in pixels of the aligned mosaic, which begins ``offset`` before the mosaic; ``side`` positions at a time."""
    tiles, stride = stream.tiles, stream.header.stride
    cache: dict[int, npt.NDArray[np.int16]] = {}

    def read(tile: int) -> npt.NDArray[np.int16]:
        if tile not in cache:
            try:
                cache[tile] = read_tile(stream, tile, tables)
            except ZooError:
                if not salvage:
                    raise
                if tile not in stream.lost:
                    stream.lost.append(tile)
                cache[tile] = np.zeros((tables.channels, *tiles.box(tile).shape), np.int16)
        return cache[tile]

    def window(cell: Box) -> Box:
        return Box(cell.y0, cell.x0, cell.y0 + side, cell.x0 + side).grow(halo)

    def fed(cell: Box) -> tuple[list[int], npt.NDArray[np.float32]]:
        """The tiles that the decoder looks at for a cell, and what it is fed of them."""
        needed = tiles.positions(cell.scale(stride).meet(wanted)).grow(halo)
        neighbours = tiles.over(needed)
        row = neighbours[0] // tiles.columns * tiles.columns
        for old in [t for t in cache if t < row]:  # tiles come row by row: no later window reaches above this row
            del cache[old]
        latents = tiles.gather(window(cell), needed, tables.channels, read)
        return neighbours, tables.dequantise(latents, stream.header.quality)

    todo = [cell for cell in tiles.cells(side) if cell.scale(stride).meet(wanted)]
    for done, (cell, (neighbours, latents)) in enumerate(zip(todo, ahead(map(fed, todo)), strict=True), 1):
        seen, box = window(cell), cell.scale(stride).meet(wanted)
        rgb = synthesise(latents)
        if rgb.shape != (3, seen.shape[0] * stride, seen.shape[1] * stride):
            raise ZooError(f"the decoder gave a picture {rgb.shape} for latents {latents.shape} of stride {stride}")
        whole = np.ones(box.shape, bool)
        for other in neighbours:
            if other in stream.lost:
                touched = tiles.box(other).grow(halo).scale(stride).meet(box)
                if touched:
                    whole[touched.move(-box.y0, -box.x0).slices] = False
        inside = box.move(-seen.y0 * stride, -seen.x0 * stride)
        yield Piece(box.move(-offset[0], -offset[1]), rgb[:, *inside.slices], whole)
        if progress is not None:
            progress(done, len(todo))
