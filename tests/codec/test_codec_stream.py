from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from whole_picture import decompress

from zoo.codec import (
    Box,
    EntropyTables,
    Header,
    Stream,
    compress,
    make_thumbnail,
    pack_stream,
    parse,
    pieces,
    read_thumbnail,
    read_tile,
)  # fmt: skip
from zoo.codec.entropy import prior_map
from zoo.errors import ZooError
from zoo.raw import alignment

STRIDE, CORE, HALO = 8, 4, 2


def coded(latents: np.ndarray, tables: EntropyTables) -> tuple[np.ndarray, np.ndarray]:
    return latents, prior_map(latents, tables)


@pytest.fixture(scope="module")
def tables(toys: ModuleType) -> EntropyTables:
    return toys.toy_tables(3, 6, 9, -4, 5)


@pytest.fixture(scope="module")
def header(toys: ModuleType, tables: EntropyTables) -> Header:
    return toys.toy_header(tables, 75, 109, "GBRG", STRIDE, CORE, 1)


@pytest.fixture(scope="module")
def latents(toys: ModuleType, tables: EntropyTables, header: Header) -> np.ndarray:
    return toys.toy_latents(tables, header.tiles.grid.shape, 3)


@pytest.fixture(scope="module")
def data(tables: EntropyTables, header: Header, latents: np.ndarray) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    return compress(
        header, tables, lambda box: coded(latents[:, *box.slices], tables), thumbnail=make_thumbnail(picture)
    )


def synthesise(x: np.ndarray) -> np.ndarray:
    """A decoder network of receptive field HALO: a moving sum over positions, zero-padded, then sub-pixels."""
    size = 2 * HALO + 1
    padded = np.pad(x.astype(np.float64), ((0, 0), (HALO, HALO), (HALO, HALO)))
    moved = [
        padded[:, i : i + x.shape[1], j : j + x.shape[2]] * (1 + i + 2 * j) for i in range(size) for j in range(size)
    ]
    mixed = sum(moved)[:3] + sum(moved)[3:]
    sub = np.arange(STRIDE * STRIDE).reshape(STRIDE, STRIDE)
    return (mixed.repeat(STRIDE, 1).repeat(STRIDE, 2) + np.tile(sub, x.shape[1:])).astype(np.float32)


def whole_frame(tables: EntropyTables, header: Header, latents: np.ndarray) -> np.ndarray:
    """The picture from one window over everything."""
    pad = HALO + CORE
    x = tables.dequantise(np.pad(latents, ((0, 0), (pad, pad), (pad, pad)), mode="edge"), header.quality)
    border = alignment((header.height, header.width), header.cfa)
    y, x0 = pad * STRIDE + border.top, pad * STRIDE + border.left
    return synthesise(x)[:, y : y + header.height, x0 : x0 + header.width]


def test_tiled_decoding_equals_the_whole_frame(
    tables: EntropyTables, header: Header, latents: np.ndarray, data: bytes, tmp_path: Path
) -> None:
    assert header.tiles.count == 12
    path = tmp_path / "a.rzc"
    path.write_bytes(data)
    seen: list[tuple[int, int]] = []
    for source in (data, path, str(path)):
        rgb, whole = decompress(parse(source), tables, synthesise, halo=HALO, progress=lambda *at: seen.append(at))
        assert whole.all()
        np.testing.assert_array_equal(rgb, whole_frame(tables, header, latents))
    assert seen == [(i, 12) for i in range(1, 13)] * 3


@pytest.mark.parametrize("rect", [Box(0, 0, 1, 1), Box(74, 108, 75, 109), Box(30, 33, 34, 70), Box(5, 0, 75, 3)])
def test_a_rectangle_is_the_whole_pictures_and_reads_no_more_than_it_needs(
    tables: EntropyTables, header: Header, latents: np.ndarray, data: bytes, rect: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    payload = Stream.payload
    monkeypatch.setattr(Stream, "payload", lambda self, tile: read.append(tile) or payload(self, tile))
    rgb, _ = decompress(parse(data), tables, synthesise, halo=HALO, rect=rect)
    np.testing.assert_array_equal(rgb, whole_frame(tables, header, latents)[:, *rect.slices])
    assert len(read) == len(set(read)) < 12
    border = alignment((header.height, header.width), header.cfa)
    tiles = header.tiles
    assert set(read) == set(tiles.over(tiles.positions(rect.move(border.top, border.left)).grow(HALO)))


def test_each_tile_is_read_once_for_the_whole_picture(
    tables: EntropyTables, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    payload = Stream.payload
    monkeypatch.setattr(Stream, "payload", lambda self, tile: read.append(tile) or payload(self, tile))
    for _ in pieces(parse(data), tables, synthesise, halo=HALO):
        pass
    assert sorted(read) == list(range(12))


@pytest.mark.parametrize(
    ("rect", "text"),
    [
        (Box(0, 0, 0, 5), "0,0,0,5 .* is empty"),
        (Box(3, 0, 2, 5), "3,0,-1,5 .* is empty"),
        (Box(-1, 0, 5, 5), "-1,0,6,5 .* lies outside its 75x109"),
        (Box(70, 0, 76, 5), "70,0,6,5 .* lies outside its 75x109"),
    ],
)
def test_rectangles_outside_are_refused(tables: EntropyTables, data: bytes, rect: Box, text: str) -> None:
    with pytest.raises(ZooError, match=f"the part {text}.*; choose one within 0,0,75,109"):
        decompress(parse(data), tables, synthesise, halo=HALO, rect=rect)


def _damage(data: bytes, stream: Stream, tile: int) -> bytes:
    at = stream._directory[tile][0]
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


def _cut(data: bytes, stream: Stream, tile: int) -> bytes:
    return data[: stream._directory[tile][0] + 2]


@pytest.mark.parametrize(
    ("spoil", "tile", "lost"),
    [(_damage, 5, [5]), (_damage, 0, [0]), (_damage, 11, [11]), (_cut, 9, [9, 10, 11]), (_cut, 0, list(range(12)))],
)
def test_salvage_decodes_what_is_whole_and_marks_the_rest(
    tables: EntropyTables, header: Header, latents: np.ndarray, data: bytes, spoil: Callable[..., bytes], tile: int,
    lost: list[int],
) -> None:  # fmt: skip
    spoilt = spoil(data, parse(data), tile)
    if spoil is _cut:
        with pytest.raises(ZooError, match="cut off after"):
            parse(spoilt)
    else:
        with pytest.raises(ZooError, match=f"tile {tile + 1} of 12 is damaged"):
            decompress(parse(spoilt), tables, synthesise, halo=HALO)
    stream = parse(spoilt, salvage=True)
    assert np.flatnonzero(~stream.whole()).tolist() == lost
    assert stream.whole().shape == (3, 4)
    rgb, whole = decompress(stream, tables, synthesise, halo=HALO, salvage=True)
    holed = latents.copy()
    for t in lost:
        holed[:, *header.tiles.box(t).slices] = 0
    np.testing.assert_array_equal(rgb, whole_frame(tables, header, holed))
    np.testing.assert_array_equal(rgb[:, whole], whole_frame(tables, header, latents)[:, whole])
    # Marked is no more than the lost tiles and HALO positions around.
    border = alignment((header.height, header.width), header.cfa)
    want = np.ones(whole.shape, bool)
    frame = Box(0, 0, header.height, header.width)
    for t in lost:
        touched = header.tiles.box(t).grow(HALO).scale(STRIDE).move(-border.top, -border.left).meet(frame)
        want[touched.slices] = False
    np.testing.assert_array_equal(whole, want)
    assert sorted(stream.lost) == lost


def test_a_tile_that_does_not_decode_is_lost_though_its_crc_is_right(
    tables: EntropyTables, header: Header, data: bytes
) -> None:
    stream = parse(data)
    payloads = [stream.payload(tile) for tile in range(stream.tiles.count)]
    payloads[5] = payloads[5][:-4] + bytes([payloads[5][-4] ^ 4]) + payloads[5][-3:]
    spoilt = pack_stream(header, payloads)
    with pytest.raises(ZooError, match="tile 6: "):
        decompress(parse(spoilt), tables, synthesise, halo=HALO)
    stream = parse(spoilt, salvage=True)
    _, whole = decompress(stream, tables, synthesise, halo=HALO, salvage=True)
    assert stream.lost == [5]
    assert not whole.all()


def test_other_tables_or_model_are_named(tables: EntropyTables, toys: ModuleType, header: Header, data: bytes) -> None:
    other = toys.toy_tables(3, 6, 9, -4, 6)
    stream = parse(data)
    for use in (
        lambda: read_tile(stream, 0, other),
        lambda: decompress(stream, other, synthesise, halo=HALO),
        lambda: compress(header, other, lambda box: coded(np.zeros((6, *box.shape), np.int16), other)),
    ):
        with pytest.raises(ZooError, match="other entropy tables"):
            use()
    stream.header.check_model("toy", bytes(range(32)), tables)
    with pytest.raises(ZooError, match="model 'toy', not 'rzc-s'"):
        stream.header.check_model("rzc-s", bytes(range(32)), tables, "a.rzc")
    with pytest.raises(ZooError, match="other weights of toy"):
        stream.header.check_model("toy", bytes(32), tables)


def test_networks_of_another_shape_are_refused(tables: EntropyTables, header: Header, data: bytes) -> None:
    with pytest.raises(ZooError, match="the encoder gave"):
        compress(header, tables, lambda box: coded(np.zeros((6, 1, 1), np.int16), tables))
    with pytest.raises(ZooError, match="the decoder gave"):
        decompress(parse(data), tables, lambda x: synthesise(x)[:, 1:], halo=HALO)


def test_thumbnail_is_small_and_read_alone(data: bytes) -> None:
    jpeg = parse(data).thumbnail()
    assert 500 < len(jpeg) <= 16384
    assert read_thumbnail(jpeg).shape == (192, 256, 3)  # white noise: a smaller side or quality had to be taken
