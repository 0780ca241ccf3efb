"""Throws mutated files at the reader: ``python tests/codec/fuzz_streams.py COUNT SEED``. Prints counts as JSON.

Runs as a process of its own, whose address space is held to 256 MB above what it took to start and whose every file
has two seconds. Anything but a :class:`ZooError` ends it with a traceback and the number of the mutation.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.codec import EntropyTables, compress, make_thumbnail, pack_stream, parse, read_thumbnail, read_tile
from zoo.codec.container import crc32c, squeeze, unsqueeze
from zoo.codec.entropy import prior_map
from zoo.codec.extras import pack_extras, read_extras
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.raw.shading import Shading

sys.path.insert(0, str(Path(__file__).parent))
from conftest import load_toys
from whole_picture import decompress

MEMORY = 256 << 20
SECONDS = 2.0
EXTREMES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def sample() -> tuple[EntropyTables, bytes]:
    """A file of 2 x 3 tiles with everything in it."""
    toys = load_toys()
    tables = toys.toy_tables(3, 4, 9, -4, 5)
    header = toys.toy_header(tables, 61, 91, "GRBG", 8, 4, 1)
    latents = toys.toy_latents(tables, header.tiles.grid.shape, 3)
    picture = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    priors = prior_map(latents, tables)
    analyse = lambda box: (latents[:, *box.slices], priors[box.slices])  # noqa: E731
    gains = np.linspace(1, 2, 60, dtype=np.float32).reshape(4, 5, 3)
    known = {
        "lens": "Acme",
        "artist": "A",
        "latitude": 1.5,
        "longitude": 2.5,
        "altitude": 3.0,
        "baseline_exposure": 0.5,
    }
    raw = replace(synthetic_raw(61, 91), metadata=known, shading=Shading(gains, (0.0, 0.0), (0.3, 0.25)))
    thumbnail = make_thumbnail(picture, pack_extras(raw))
    assert read_extras(thumbnail, (61, 91))[0].keys() == known.keys()
    return tables, compress(header, tables, analyse, thumbnail=thumbnail)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes anywhere, half of them in the header; often with the checksums put right again."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        size = len(out)
        at = int(rng.integers(0, min(size, 360) if rng.random() < 0.5 else size)) if size else 0
        kind = rng.integers(0, 7)
        if kind == 0:
            out = out[: int(rng.integers(0, size + 1))]
        elif kind == 1 and size:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2 and size:
            out[at] = int(rng.integers(0, 256))
        elif kind == 3:
            out[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif kind == 4:
            del out[at : at + int(rng.integers(1, 40))]
        elif kind == 5:
            out[at : at + int(rng.integers(1, 200))] = rng.bytes(int(rng.integers(1, 200)))
        elif size >= 4:
            at = min(at // 2 * 2, size - 4)
            extreme = int(EXTREMES[rng.integers(len(EXTREMES))])
            out[at : at + 4] = (
                struct.pack("<I", extreme) if rng.random() < 0.5 else struct.pack("<H", extreme & 0xFFFF) * 2
            )
    return repair(bytes(out)) if rng.random() < 0.7 else bytes(out)


def repair(data: bytes) -> bytes:
    """Every checksum made right as far as the fields before it make sense, so that the code behind them is reached."""
    out = bytearray(data)
    if len(out) < 16:
        return data
    (head_size,) = struct.unpack_from("<I", out, 12)
    if not 16 < head_size <= len(out):
        return data
    try:
        fields, taken = unsqueeze(bytes(out[16:head_size]), 528)
    except ValueError:
        return data
    (thumb,) = struct.unpack_from("<I", fields, 24)
    checked = struct.pack("<I", crc32c(bytes(out[head_size : head_size + thumb])))
    again = squeeze(fields[:28] + checked + fields[32:])
    out[16 : 16 + taken] = again
    head_size += len(again) - taken
    struct.pack_into("<I", out, 12, head_size)
    offset = head_size + thumb
    for at in range(16 + len(again), head_size - 11, 8):
        (length,) = struct.unpack_from("<I", out, at)
        struct.pack_into("<I", out, at + 4, crc32c(bytes(out[offset : offset + length])))
        offset += length
    struct.pack_into("<I", out, head_size - 4, crc32c(bytes(out[: head_size - 4])))
    return bytes(out)


def synthesise(x: np.ndarray) -> np.ndarray:
    return x[:3].repeat(8, axis=1).repeat(8, axis=2)


def rebuild(data: bytes, rng: np.random.Generator) -> bytes:
    """A consistent file around what no encoder wrote: tiles and thumbnail mutated, geometry changed, all well signed."""
    stream = parse(data)
    header, payloads, thumbnail = stream.header, [stream.payload(t) for t in range(6)], stream.thumbnail()
    if rng.random() < 0.4:
        fields = ("height", "width", "stride", "core", "channels", "quality")
        sizes = {"height": 400, "width": 400, "stride": 64, "core": 64, "channels": 9, "quality": 5}
        for name in rng.choice(fields, rng.integers(1, 3)).tolist():
            header = replace(header, **{name: int(rng.integers(1, sizes[name]))})
        if header.problem() or header.tiles.count > 200:
            return repair(mutate(data, rng))
    payloads = [payloads[i] for i in rng.integers(0, 6, header.tiles.count)]
    for tile in rng.integers(0, len(payloads), rng.integers(0, 4)).tolist():
        wrong = mutate(payloads[tile], rng) if rng.random() < 0.7 else rng.bytes(int(rng.integers(0, 300)))
        payloads[tile] = wrong[: len(wrong) // 4 * 4]
    if rng.random() < 0.3:
        thumbnail = mutate(thumbnail, rng)
    try:
        return pack_stream(header, payloads, thumbnail)
    except ZooError:
        return repair(mutate(data, rng))


def attempt(data: bytes, tables: EntropyTables) -> str:
    """How far reading gets, as a word; every way of reading is tried."""
    try:
        strict = parse(data)
        decompress(strict, tables, synthesise, halo=1)
        read_thumbnail(strict.thumbnail())
        read_extras(strict.thumbnail(), (strict.header.height, strict.header.width))
        return "accepted"
    except ZooError as error:
        message = str(error)
        assert "\n" not in message
    try:
        stream = parse(data, salvage=True)
    except ZooError:
        return "no header"
    whole = stream.whole()
    try:
        stream.thumbnail()
        read_tile(stream, 0, tables)
    except ZooError:
        pass
    if stream.header.stride != 8:
        return "other stride"
    try:
        rgb, good = decompress(stream, tables, synthesise, halo=1, salvage=True)
    except ZooError:
        return "other tables"
    assert rgb.shape[1:] == good.shape == (stream.header.height, stream.header.width)
    return "salvaged" if good.any() else f"nothing left ({'whole' if whole.any() else 'no'} tiles)"


def main(count: int, seed: int) -> None:
    """Run mutations ``seed``, 0..count-1."""
    tables, data = sample()
    assert attempt(data, tables) == "accepted"
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        mutated = (mutate if number % 2 else rebuild)(data, rng)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its default action ends the process
        try:
            outcomes[attempt(mutated, tables)] += 1
        except BaseException:
            print(f"mutation {number} of seed {seed}", file=sys.stderr)
            raise
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
