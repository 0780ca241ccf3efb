"""The codec's bitstream: integer latents to bytes and back, the ``.rzc`` file, tiles. Networks come in as functions."""

from zoo.codec.container import SUFFIX, Stream, pack_stream, parse, read_tile, write_file
from zoo.codec.entropy import decode_latents, encode_latents, estimate_bits
from zoo.codec.fitting import build, fit_index
from zoo.codec.header import Header, describe
from zoo.codec.stream import Piece, compress, pieces
from zoo.codec.tables import EntropyTables
from zoo.codec.thumbnail import make_thumbnail, read_thumbnail
from zoo.codec.tiles import Box, Tiles

__all__ = [
    "SUFFIX",
    "Box",
    "EntropyTables",
    "Header",
    "Piece",
    "Stream",
    "Tiles",
    "build",
    "compress",
    "decode_latents",
    "describe",
    "encode_latents",
    "estimate_bits",
    "fit_index",
    "make_thumbnail",
    "pack_stream",
    "parse",
    "pieces",
    "read_thumbnail",
    "read_tile",
    "write_file",
]
