"""The ``.rzc`` file: header, directory, thumbnail, tiles; each with a CRC32C. docs/bitstream.md has every field.

Reading trusts nothing: sizes are compared with the file's before anything of that size is read or allocated.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.codec.entropy import decode_latents, max_bytes
from zoo.codec.header import HAS_MATRIX, LAYOUT, MAX_TILES, Header
from zoo.codec.tables import EntropyTables
from zoo.codec.tiles import Tiles
from zoo.errors import ZooError
from zoo.files import replacing

SUFFIX = ".rzc"
# As PNG's: a byte that is no ASCII, and line ends that a transfer as text would change.
MAGIC = b"\x89RZC\r\n\x1a\n"
VERSION = 3
MAX_THUMBNAIL = 16384  # bytes
_START = struct.Struct("<8s2HI")  # magic, version, flags, bytes up to and with the header's CRC
_ENTRY = struct.Struct("<2I")  # length, CRC32C
_CRC = struct.Struct("<I")
Source = bytes | str | os.PathLike[str]


class Stream:
    """A checked header and directory, and access to the tiles. Made by :func:`parse`.

    Attributes:
        header: of the photo.
        name: the file's, for messages.
        lost: tiles that salvaging has found to be damaged so far.
    """

    def __init__(
        self, source: Source, header: Header, directory: Sequence[tuple[int, int, int]], thumbnail: tuple[int, int, int]
    ) -> None:
        self.header = header
        self.name = _name(source)
        self._source = source
        self._directory = directory
        self._thumbnail = thumbnail
        self.lost: list[int] = []

    @property
    def tiles(self) -> Tiles:
        """Where the tiles lie."""
        return self.header.tiles

    def thumbnail(self) -> bytes:
        """The thumbnail's JPEG, empty if there is none.

        Raises:
            ZooError: it is damaged or cut off.
        """
        return self._checked(*self._thumbnail, "the thumbnail")

    def payload(self, tile: int) -> bytes:
        """A tile's coded latents.

        Raises:
            ZooError: they are damaged or cut off.
            IndexError: no such tile.
        """
        if tile < 0:
            raise IndexError(f"tile {tile}")
        return self._checked(*self._directory[tile], f"tile {tile + 1} of {len(self._directory)}")

    def whole(self) -> npt.NDArray[np.bool_]:
        """bool [rows, columns]: whether a tile's data are all there and unchanged. Reads the whole file."""
        found = np.zeros(self.tiles.count, bool)
        for tile in range(self.tiles.count):
            try:
                self.payload(tile)
            except ZooError:
                continue
            found[tile] = True
        return found.reshape(self.tiles.rows, self.tiles.columns)

    def _checked(self, offset: int, length: int, crc: int, what: str) -> bytes:
        data = _read(self._source, offset, length)
        if len(data) < length:
            raise ZooError(
                f"{self.name}: {what} is cut off; copy the file again, or decode what is left with --salvage"
            )
        if crc32c(data) != crc:
            raise ZooError(f"{self.name}: {what} is damaged; copy the file again, or decode the rest with --salvage")
        return data


def pack_stream(header: Header, payloads: Sequence[bytes], thumbnail: bytes = b"") -> bytes:
    """The bytes of a file.

    Args:
        header: of the photo.
        payloads: of every tile in order, from :func:`zoo.codec.entropy.encode_latents`.
        thumbnail: JPEG, see :func:`zoo.codec.thumbnail.make_thumbnail`; empty for none.

    Raises:
        ZooError: a header that the format does not hold, another number of tiles, a thumbnail of more than 16 kB.
    """
    if problem := header.problem():
        raise ZooError(f"this photo cannot be written: {problem}")
    if len(payloads) != header.tiles.count or len(thumbnail) > MAX_THUMBNAIL:
        raise ZooError(
            f"a file of {header.tiles.count} tiles and a thumbnail of at most {MAX_THUMBNAIL} bytes cannot be made of"
            f" {len(payloads)} tiles and {len(thumbnail)} bytes"
        )
    flags = 0 if header.xyz_to_cam is None else HAS_MATRIX
    fields = squeeze(header.pack(flags, len(payloads), (len(thumbnail), crc32c(thumbnail))))
    head = _START.pack(MAGIC, VERSION, flags, _head_size(len(fields), len(payloads))) + fields
    head += b"".join(_ENTRY.pack(len(payload), crc32c(payload)) for payload in payloads)
    return b"".join([head, _CRC.pack(crc32c(head)), thumbnail, *payloads])


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write the bytes of a file, under a temporary name beside it that is renamed at the end.

    Raises:
        ZooError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def parse(source: Source, *, salvage: bool = False) -> Stream:
    """Check header and directory of a file. Tiles are read and checked when they are asked for.

    Args:
        source: a path, or the file's bytes.
        salvage: accept a file that ends early or goes on after its end; its tiles tell whether they are whole.

    Raises:
        ZooError: no such file, no .rzc, another version, a damaged header, impossible values; without ``salvage`` also
            a file of another length than the directory says.
    """
    name, size = _name(source), _size(source)
    start = _read(source, 0, _START.size)
    if start[: len(MAGIC)] != MAGIC[: len(start)] or len(start) < len(MAGIC):
        raise ZooError(f"{name}: no {SUFFIX} file; give one that `zoo compress` wrote")
    if len(start) < _START.size:
        raise ZooError(f"{name}: cut off within its header; copy the file again")
    _, version, flags, head_size = _START.unpack(start)
    if version != VERSION:
        fix = "update raw-zoo" if version > VERSION else "decode it with the raw-zoo that wrote it"
        raise ZooError(f"{name}: version {version} of the format, this program reads {VERSION}; {fix}")
    least, most = LAYOUT.size // 8, LAYOUT.size // 8 * 9
    if not _head_size(least, 1) <= head_size <= _head_size(most, MAX_TILES):
        raise ZooError(f"{name}: its header is damaged; copy the file again")
    if head_size > size:
        raise ZooError(f"{name}: cut off within its header; copy the file again")
    head = _read(source, 0, head_size)
    if len(head) != head_size or crc32c(head[: -_CRC.size]) != _CRC.unpack_from(head, head_size - _CRC.size)[0]:
        raise ZooError(f"{name}: its header is damaged; copy the file again")
    try:
        fields, taken = unsqueeze(head[_START.size : -_CRC.size], LAYOUT.size)
        header, count, (length, crc) = Header.unpack(fields, flags)
    except ValueError as error:  # UnicodeDecodeError is one
        problem = "a text that is no UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise ZooError(f"{name}: its header says {problem}; the file was not written by this program") from error
    entries = head[_START.size + taken : -_CRC.size]
    directory = _directory(header, count, head_size + length, entries)
    if not directory or length > MAX_THUMBNAIL:
        raise ZooError(f"{name}: its directory does not fit its picture; the file was not written by this program")
    end = directory[-1][0] + directory[-1][1]
    if size != end and not salvage:
        problem = f"cut off after {size} of {end} bytes" if size < end else f"{size - end} bytes too long"
        raise ZooError(f"{name}: {problem}; copy the file again, or decode what is left with --salvage")
    return Stream(source, header, directory, (head_size, length, crc))


def read_tile(stream: Stream, tile: int, tables: EntropyTables) -> npt.NDArray[np.int16]:
    """One tile's latents, without the rest of the file.

    Args:
        stream: from :func:`parse`.
        tile: number, row by row.
        tables: those that it was coded with.

    Returns:
        int16 [C, h, w]; h and w are ``core``, less at the right and bottom edge.

    Raises:
        ZooError: other tables, a damaged tile.
        IndexError: no such tile.
    """
    stream.header.check_tables(tables, stream.name)
    data = stream.payload(tile)
    try:
        return decode_latents(data, (stream.header.channels, *stream.tiles.box(tile).shape), tables)
    except ZooError as error:
        raise ZooError(f"{stream.name}: tile {tile + 1}: {error}") from error


def crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli, RFC 3720 appendix B.4) of ``data``."""
    return int(_crc().value(data))


@cache
def _crc() -> Any:
    try:
        import google_crc32c
    except ImportError as error:
        raise ZooError("the codec needs the package google-crc32c; pip install 'raw-zoo[codec]'") from error
    return google_crc32c


def squeeze(data: bytes) -> bytes:
    """``data``, a multiple of 8 bytes, without its zeros: of every 8 one byte that tells which are not zero, then those.

    Half of a header is zeros, and 220 bytes were 2 % of the bits of pictures of 0.3 megapixels.
    """
    out = bytearray()
    for at in range(0, len(data), 8):
        word = data[at : at + 8]
        out.append(sum(1 << i for i, byte in enumerate(word) if byte))
        out += word.replace(b"\0", b"")
    return bytes(out)


def unsqueeze(data: bytes, size: int) -> tuple[bytes, int]:
    """The inverse of :func:`squeeze`: ``size`` bytes, and how many of ``data`` they took.

    Raises:
        ValueError: ``data`` end before, or name a zero as none.
    """
    out, at = bytearray(), 0
    while len(out) < size:
        named = [i for i in range(8) if data[at : at + 1] and data[at] >> i & 1]
        word, found = bytearray(8), data[at + 1 : at + 1 + len(named)]
        if at >= len(data) or len(found) < len(named) or 0 in found:
            raise ValueError("fields that are none")
        for i, byte in zip(named, found, strict=True):
            word[i] = byte
        out += word
        at += 1 + len(named)
    return bytes(out), at


def _head_size(fields: int, count: int) -> int:
    """Bytes up to and with the header's CRC."""
    return _START.size + fields + count * _ENTRY.size + _CRC.size


def _directory(header: Header, count: int, at: int, entries: bytes) -> list[tuple[int, int, int]]:
    """Offset, length and CRC32C of the tiles, one after another from ``at`` on; none if they contradict the header."""
    if not count == header.tiles.count == len(entries) / _ENTRY.size:
        return []
    found = []
    for tile, (length, crc) in enumerate(_ENTRY.iter_unpack(entries)):
        if length % 4 or length > max_bytes((header.channels, *header.tiles.box(tile).shape)):
            return []
        found.append((at, length, crc))
        at += length
    return found


def _name(source: Source) -> str:
    return "stream" if isinstance(source, bytes) else str(source)


def _size(source: Source) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return Path(source).stat().st_size
    except OSError as error:
        raise ZooError(f"{source}: cannot be read ({error.strerror}); check the name") from error


def _read(source: Source, offset: int, length: int) -> bytes:
    """At most ``length`` bytes from ``offset`` on, fewer where the file ends."""
    if isinstance(source, bytes):
        return source[offset : offset + length]
    try:
        with Path(source).open("rb") as file:
            left = os.fstat(file.fileno()).st_size - offset
            file.seek(offset)
            return file.read(max(0, min(length, left)))  # read(n) allocates n bytes first
    except OSError as error:
        raise ZooError(f"{source}: cannot be read ({error.strerror}); check the name") from error
