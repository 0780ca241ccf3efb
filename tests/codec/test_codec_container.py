from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zoo.codec import (
    EntropyTables,
    Header,
    describe,
    encode_latents,
    make_thumbnail,
    pack_stream,
    parse,
    read_thumbnail,
    read_tile,
    write_file,
)
from zoo.codec.container import crc32c, squeeze, unsqueeze
from zoo.codec.header import cut
from zoo.errors import ZooError
from zoo.raw import NoiseProfile, RawImage, read_raw


@pytest.fixture(scope="module")
def tables(toys: ModuleType) -> EntropyTables:
    return toys.toy_tables(2, 3, 9, -4, 5)


@pytest.fixture(scope="module")
def header(toys: ModuleType, tables: EntropyTables) -> Header:
    return toys.toy_header(tables, 61, 91, "GRBG", 8, 4, 1)


@pytest.fixture(scope="module")
def payloads(toys: ModuleType, tables: EntropyTables, header: Header) -> list[bytes]:
    boxes = [header.tiles.box(tile) for tile in range(header.tiles.count)]
    return [encode_latents(toys.toy_latents(tables, box.shape, seed), tables) for seed, box in enumerate(boxes)]


@pytest.fixture(scope="module")
def data(header: Header, payloads: list[bytes]) -> bytes:
    return pack_stream(header, payloads, b"thumb")


def signed(data: bytes) -> bytes:
    """With the header's checksum put right."""
    (size,) = struct.unpack_from("<I", data, 12)
    return data[: size - 4] + struct.pack("<I", crc32c(data[: size - 4])) + data[size:]


def patched(data: bytes, at: int, layout: str, *values: object) -> bytes:
    """A field of the header changed, by its offset in docs/bitstream.md; the directory begins at 544."""
    fields, taken = unsqueeze(data[16:], 528)
    out = bytearray(data[:16] + fields + data[16 + taken :])
    struct.pack_into(layout, out, at, *values)
    again = squeeze(bytes(out[16:544]))
    (size,) = struct.unpack_from("<I", out, 12)
    struct.pack_into("<I", out, 12, size + len(again) - taken)
    return signed(bytes(out[:16]) + again + bytes(out[544:]))


def assert_same(a: Header, b: Header) -> None:
    for field in dataclasses.fields(Header):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if field.name == "xyz_to_cam" and left is not None:
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right, field.name


def test_everything_written_is_read_again(header: Header, payloads: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.rzc"
    write_file(path, pack_stream(header, payloads, b"thumb"))
    stream = parse(path)
    assert_same(stream.header, header)
    assert_same(parse(path.read_bytes()).header, header)
    assert [stream.payload(t) for t in range(stream.tiles.count)] == payloads
    assert stream.thumbnail() == b"thumb"
    assert stream.whole().all()
    assert [f.name for f in tmp_path.iterdir()] == ["a.rzc"]
    head = 16 + len(squeeze(header.pack(1, len(payloads), (5, crc32c(b"thumb"))))) + 8 * len(payloads) + 4
    assert head < 400  # 644 with its zeros and with offsets
    assert path.stat().st_size == head + 5 + sum(map(len, payloads))


def test_zeros_are_left_out_and_come_back() -> None:
    data = bytes(9) + b"\1\0\0\2" + bytes(2) + b"\3" + bytes(range(8))
    made = squeeze(data)
    assert made == b"\0\x92\1\2\3\xfe\1\2\3\4\5\6\7"
    assert unsqueeze(made + b"rest", 24) == (data, len(made))
    for wrong in (made[:-1], b"\1\0" + bytes(2), b""):
        with pytest.raises(ValueError, match="none"):
            unsqueeze(wrong, 24)


def test_what_is_unknown_stays_unknown(header: Header, payloads: list[bytes]) -> None:
    bare = dataclasses.replace(header, xyz_to_cam=None, iso=None, metadata={})
    stream = parse(pack_stream(bare, payloads))
    again = stream.header
    assert again.xyz_to_cam is None
    assert again.iso is None
    assert again.metadata == {}
    assert stream.thumbnail() == b""


def test_real_raws_are_described_without_loss(data_dir: Path, toys: ModuleType, tables: EntropyTables) -> None:
    raws = sorted((data_dir / "raw").glob("*.dng"))[:3]
    assert raws
    for path in raws:
        raw = read_raw(path)
        header = describe(raw, model="m", weights_sha256=bytes(32), tables=tables, quality=1, stride=16, core=32)
        again = parse(pack_stream(header, [b""] * header.tiles.count)).header
        assert_same(again, header)
        assert (again.height, again.width) == raw.mosaic.shape
        assert again.noise == raw.noise
        assert again.metadata["wb_source"] == raw.metadata["wb_source"]


def test_describe_refuses_what_the_format_cannot_hold(tables: EntropyTables) -> None:
    noise = NoiseProfile((1e-3,) * 3, (0.0,) * 3, "given")
    raw = RawImage(
        np.zeros((8, 8), np.uint16), "XTRANS", (0.0,) * 4, (9.0,) * 4, (1, 1, 1), None, None, noise, path="x"
    )
    how = {"model": "m", "weights_sha256": bytes(32), "tables": tables, "stride": 16, "core": 32}
    with pytest.raises(ZooError, match="x: colour filter array XTRANS"):
        describe(raw, quality=0, **how)
    raw = dataclasses.replace(raw, cfa="RGGB")
    assert describe(raw, quality=2, **how).tiles.count == 1
    with pytest.raises(ZooError, match="0 to 2"):
        describe(raw, quality=3, **how)
    with pytest.raises(ZooError, match="2 to 65535"):
        describe(dataclasses.replace(raw, mosaic=np.broadcast_to(np.uint16(0), (2, 65536))), quality=0, **how)


def test_texts_are_cut_between_characters(header: Header, payloads: list[bytes]) -> None:
    long = dataclasses.replace(
        header, metadata={"make": "ü" * 40, "model": "a" + "ü" * 40, "datetime": "1\n2\x00" + "x" * 99}
    )
    again = parse(pack_stream(long, payloads)).header.metadata
    assert again == {"make": "ü" * 32, "model": "a" + "ü" * 31, "datetime": "12" + "x" * 30}
    assert cut("a\ud800b", 9) == b"ab"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: b"", "no .rzc file"),
        (lambda d: d[:7], "no .rzc file"),
        (lambda d: b"\xff\xd8" + d[2:], "no .rzc file"),
        (lambda d: d.replace(b"\r\n", b"\n", 1), "no .rzc file"),
        (lambda d: d[:12], "cut off within its header"),
        (lambda d: d[:200], "cut off within its header"),
        (lambda d: d[:-1], "cut off after"),
        (lambda d: d + b"x", "1 bytes too long"),
        (lambda d: d[:8] + b"\1" + d[9:], "version 1 of the format.*decode it with the raw-zoo that wrote it"),
        (lambda d: d[:8] + b"\2" + d[9:], "version 2 of the format.*decode it with the raw-zoo that wrote it"),
        (lambda d: d[:8] + b"\4" + d[9:], "version 4 of the format.*update raw-zoo"),
        (lambda d: d[:100] + b"\1\2\3" + d[103:], "header is damaged"),
        (lambda d: d[:12] + b"\xff\xff\xff\xff" + d[16:], "header is damaged"),
        (lambda d: patched(d, 16, "<II", 0, 0), "0x0 pixels"),
        (lambda d: patched(d, 16, "<II", 65536, 10), "65536x10 pixels"),
        (lambda d: patched(d, 16, "<II", 65535, 65535), "65535x65535 pixels"),
        (lambda d: patched(d, 24, "<B", 4), "code that does not exist"),
        (lambda d: patched(d, 25, "<B", 9), "orientation 9"),
        (lambda d: patched(d, 26, "<B", 4), "code that does not exist"),
        (lambda d: patched(d, 28, "<H", 0), "0 channels"),
        (lambda d: patched(d, 28, "<H", 513), "513 channels"),
        (lambda d: patched(d, 30, "<H", 7), "stride 7"),
        (lambda d: patched(d, 30, "<H", 0), "stride 0"),
        (lambda d: patched(d, 32, "<H", 0), "tiles of 0"),
        (lambda d: patched(d, 32, "<H", 129), "tiles of 129"),
        (lambda d: patched(d, 16, "<II", 3000, 3000), "directory does not fit"),
        (lambda d: patched(d, 16, "<II", 16000, 16000), "250500 tiles"),
        (lambda d: patched(patched(d, 28, "<HHH", 512, 8, 128), 16, "<II", 16384, 16384), "2148532224 symbols"),
        (lambda d: patched(d, 34, "<B", 4), "code that does not exist"),
        (lambda d: patched(d, 35, "<B", 1), "code that does not exist"),
        (lambda d: patched(d, 10, "<H", 3), "code that does not exist"),
        (lambda d: patched(d, 36, "<I", 7), "directory does not fit"),
        (lambda d: patched(d, 36, "<I", 0xFFFFFFFF), "directory does not fit"),
        (lambda d: patched(d, 40, "<I", 16385), "directory does not fit"),
        (lambda d: patched(d, 48, "<d", float("nan")), "not finite"),
        (lambda d: patched(d, 80, "<d", 1.0), "white level below black"),
        (lambda d: patched(d, 112, "<d", 0.0), "gain of 0"),
        (lambda d: patched(d, 136, "<d", float("inf")), "not finite"),
        (lambda d: patched(d, 136, "<9d", *[1.0] * 9), "without an inverse"),
        (lambda d: patched(d, 136, "<d", 1e308), "beyond 10000"),
        (lambda d: patched(d, 112, "<d", 1e-300), "beyond 10000"),
        (lambda d: patched(d, 80, "<d", 1e300), "beyond 1e.09"),
        (lambda d: patched(d, 216, "<d", -1.0), "negative noise"),
        (lambda d: patched(d, 288, "<4s", b"\xff\xfe\xfd\xfc"), "no UTF-8"),
        (lambda d: patched(d, 288, "<4s", b"a\nbc"), "with control characters"),
        (lambda d: patched(d, 288, "<32s", b""), "no model"),
        (lambda d: signed(d[:17] + b"\0" + d[18:]), "fields that are none"),
        (lambda d: signed(d[:16] + b"\xff" * (len(d) - 16)), "fields that are none"),
        (lambda d: patched(d, 544, "<I", 0xFFFFFFFC), "directory does not fit"),
        (lambda d: patched(d, 544, "<I", 1), "directory does not fit"),
    ],
)
@pytest.mark.parametrize("salvage", [False, True])
def test_bad_files_are_refused_in_one_line(
    data: bytes, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str, salvage: bool
) -> None:
    if salvage and ("cut off after" in message or "too long" in message):
        assert parse(spoil(data), salvage=True).whole().sum() >= 5
        return
    path = tmp_path / "bad.rzc"
    path.write_bytes(spoil(data))
    with pytest.raises(ZooError, match=message) as error:
        parse(path, salvage=salvage)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_damage_is_named_by_tile(data: bytes, header: Header, tables: EntropyTables) -> None:
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(ZooError, match="tile 6 of 6 is damaged"):
        read_tile(parse(flipped), 5, tables)
    assert read_tile(parse(flipped), 4, tables).shape == (3, *header.tiles.box(4).shape)
    for wrong in (-1, 6):
        with pytest.raises(IndexError):
            parse(data).payload(wrong)
    size = struct.unpack_from("<I", data, 12)[0]
    with pytest.raises(ZooError, match="thumbnail is damaged"):
        parse(data[:size] + b"x" + data[size + 1 :]).thumbnail()


def test_well_signed_nonsense_in_a_tile_is_refused(
    header: Header, payloads: list[bytes], tables: EntropyTables
) -> None:
    stream = parse(pack_stream(header, [b"\1\2\3\4" * 50, *payloads[1:]]))
    with pytest.raises(ZooError, match="tile 1: latents: the data are damaged"):
        read_tile(stream, 0, tables)


def test_what_the_format_cannot_hold_is_not_packed(header: Header, payloads: list[bytes]) -> None:
    for wrong in (
        (header, payloads[1:]),
        (header, payloads, bytes(16385)),
        (dataclasses.replace(header, stride=3), payloads),
    ):
        with pytest.raises(ZooError, match="cannot be"):
            pack_stream(*wrong)


def test_writing_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "a.rzc"
    path.write_bytes(b"old")
    (tmp_path / "folder.rzc").mkdir()
    for name in ("folder.rzc", "b" * 250 + ".rzc", "a.rzc/b.rzc"):  # the last two are names that cannot even be removed
        with pytest.raises(ZooError, match="cannot be written"):
            write_file(tmp_path / name, b"new")
    assert path.read_bytes() == b"old"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.rzc", "folder.rzc"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"none\.rzc: cannot be read"):
        parse(tmp_path / "none.rzc")
    with pytest.raises(ZooError, match="cannot be read"):
        parse(tmp_path)


def test_claims_of_size_allocate_nothing(data: bytes) -> None:
    claims = [
        patched(patched(data, 36, "<I", 0xFFFFFFFF), 16, "<II", 32768, 32768),
        patched(data, 544, "<I", 0xFFFFFFFC),
        data[:12] + struct.pack("<I", 16 + 594 + 8 * 65536 + 4) + data[16:],
        patched(data, 28, "<H", 512),
    ]
    parse(data)
    tracemalloc.start()
    for claim in claims:
        with pytest.raises(ZooError):
            stream = parse(claim, salvage=True)
            read_tile(stream, 0, EntropyTables.load(Path(__file__).parent / "vectors" / "tiles.safetensors"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_thousands_of_mutations_end_in_one_line_or_a_picture() -> None:
    script = Path(__file__).parent / "fuzz_streams.py"
    run = subprocess.run([sys.executable, str(script), "2000", "1"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    counts = json.loads(run.stdout)
    assert sum(counts.values()) == 2000
    # The mutations reach every stage; without that the test would show nothing.
    assert all(
        counts[stage] >= 20 for stage in ("no header", "other tables", "other stride", "salvaged", "accepted")
    ), counts


def test_thumbnails_are_bounded_both_ways() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1200, 900, 3)).astype(np.uint8)
    jpeg = make_thumbnail(noise)
    assert len(jpeg) <= 16384
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, :, 0] = 200
    small = read_thumbnail(make_thumbnail(picture))
    assert small.shape == (85, 256, 3)
    assert np.abs(small.reshape(-1, 3).mean(axis=0) - (200, 0, 0)).max() < 3
    assert read_thumbnail(make_thumbnail(np.zeros((1, 3000, 3), np.uint8))).shape == (1, 256, 3)
    with pytest.raises(ZooError, match="uint8"):
        make_thumbnail(np.zeros((4, 4), np.uint8))
    for wrong in (b"", b"GIF89a" + bytes(50), jpeg[:200]):
        with pytest.raises(ZooError, match="no JPEG"):
            read_thumbnail(wrong)
    at = jpeg.index(b"\xff\xc0")  # start of frame: length, precision, height, width
    for side in (2000, 65535):
        with pytest.raises(ZooError, match=r"no JPEG|1024 a side"):
            read_thumbnail(jpeg[: at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9 :])
