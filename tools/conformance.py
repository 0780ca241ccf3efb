"""Writes the codec's conformance vectors: ``python tools/conformance.py tests/codec/vectors``.

Every case is three files: ``<case>.safetensors`` (entropy tables), ``<case>.rzc`` (a stream) and ``<case>.npz`` with what a
decoder has to find in it, tile by tile: ``latents_<i>`` int16 [C, h, w] and ``priors_<i>`` uint8 [h, w]. The tables are toys;
their numbers come from integers alone, so the files are the same wherever they are made.

``photo-<model>.rzc`` and ``.npz`` are of the compressors that ship: a synthetic photo coded with their own tables, and beside its
latents and priors ``rgb``, float16 [H, W, 3], the linear picture that their float decoders make of it. A test holds
decoders to 2e-3 of it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.codec import EntropyTables, Header, build, encode_latents, fit_index, pack_stream
from zoo.codec.entropy import prior_map
from zoo.raw import NoiseProfile

Case = tuple[EntropyTables, bytes, dict[str, npt.NDArray[Any]]]


def toy_tables(
    priors: int, channels: int, values: int, low: int, seed: int, predicted: tuple[int, int] | None = None
) -> EntropyTables:
    """Tables whose priors go from narrow to wide, channels likewise; a few qualities; P channels predicted from M."""
    rng = np.random.default_rng(seed)
    distance = np.abs(np.arange(values) + low)
    width = 1 + 3 * np.arange(priors)[:, None, None] + np.arange(channels)[None, :, None] % 5
    # A rational bell: IEEE divisions and products only, which are the same everywhere; logarithms need not be.
    weight = 1 / (1 + (distance * distance) / (0.25 * width * width)) ** 2
    steps = ((1 << 16) * (1 + rng.integers(0, 8, (3, channels))) + 12345) >> np.arange(3)[:, None]
    p = weight / (weight.sum(axis=2, keepdims=True) * (1 + 1 / 64))
    shape = None if predicted is None else (predicted[0], 3, predicted[1])
    neighbours = None if shape is None else rng.integers(-40_000, 40_000, shape).astype(np.int32)
    return build(p, low, steps=steps, neighbours=neighbours)


def toy_latents(tables: EntropyTables, shape: tuple[int, int], seed: int) -> npt.NDArray[np.int16]:
    """Symbols drawn from the tables' own frequencies, with priors in patches; about the escape's share lies beyond."""
    rng = np.random.default_rng(seed)
    height, width = shape
    coarse = rng.integers(0, tables.priors, (height // 3 + 1, width // 4 + 1))
    prior = coarse.repeat(3, axis=0).repeat(4, axis=1)[:height, :width]
    rows = tables.rows[prior].transpose(2, 0, 1)  # [C, h, w]
    cumulative = np.cumsum(tables.frequencies, axis=1, dtype=np.int64)
    drawn = rng.integers(0, 1 << 16, rows.shape)
    columns = (drawn[..., None] >= cumulative[rows]).sum(axis=-1)
    latents = columns + tables.low[:, None, None]
    beyond = rng.integers(0, 300, rows.shape) * rng.choice([-1, 1], rows.shape)
    return np.where(columns == tables.values, latents + beyond, latents).astype(np.int16)


def toy_header(
    tables: EntropyTables, height: int, width: int, cfa: str, stride: int, core: int, quality: int
) -> Header:
    """A photo's description with no number left at a default."""
    metadata = {"make": "Größe", "model": "R-1 ∑", "datetime": "2024:02:29 12:00:00", "exposure_time": 1 / 60,
                "f_number": 1.8, "focal_length": 5.4, "wb_source": "as shot"}  # fmt: skip
    matrix = np.array([[0.9, -0.25, -0.125], [-0.5, 1.25, 0.25], [-0.0625, 0.125, 0.75]])
    return Header(
        height, width, cfa, (63.5, 64.0, 64.25, 64.0), (1023.0, 1023.0, 1023.0, 1022.0), (2.03125, 1.0, 1.71875), matrix,
        800.0, NoiseProfile((1e-3, 2e-3, 3e-3), (1e-6, 2e-6, 3e-6), "tag"), 6, "toy", bytes(range(32)), tables.sha256,
        tables.channels, stride, core, quality, metadata,
    )  # fmt: skip


def cases() -> Iterator[tuple[str, Case]]:
    """All vectors by name."""
    plain = _fitted(toy_tables(4, 5, 17, -8, 1, (2, 4)))
    yield "tiles", _case(plain, toy_header(plain, 61, 97, "BGGR", 8, 5, 1), 10)
    single = toy_tables(1, 3, 9, -4, 2)
    yield "one_prior", _case(single, toy_header(single, 40, 40, "RGGB", 16, 3, 0), 20)
    many = _fitted(toy_tables(64, 6, 33, -16, 3, (5, 3)))
    yield "many_priors", _case(many, toy_header(many, 300, 200, "GRBG", 16, 13, 2), 30)
    skewed = replace(toy_tables(2, 2, 5, -2, 4, (2, 2)), low=np.array([-4, 0], np.int16))
    extreme = [np.array([-32768, 32767, -5, 1, 0, -4, 5, -1, 1023, -1024, 3, 2], np.int16).reshape(2, 2, 3)]
    yield "escapes", _case(skewed, toy_header(skewed, 15, 24, "GBRG", 8, 4, 0), 40, extreme)
    zero = [np.zeros((5, 4, 4), np.int16)]
    yield (
        "zeros",
        _case(plain, replace(toy_header(plain, 64, 64, "RGGB", 16, 4, 0), xyz_to_cam=None, iso=None), 50, zero),
    )


def _fitted(tables: EntropyTables) -> EntropyTables:
    return fit_index(tables, [prior_map(toy_latents(tables, (24, 24), seed), tables) for seed in range(4)])


def _case(tables: EntropyTables, header: Header, seed: int, latents: list[npt.NDArray[np.int16]] | None = None) -> Case:
    if latents is None:
        boxes = [header.tiles.box(tile) for tile in range(header.tiles.count)]
        latents = [toy_latents(tables, box.shape, seed + tile) for tile, box in enumerate(boxes)]
    expected: dict[str, npt.NDArray[Any]] = {f"latents_{tile}": y for tile, y in enumerate(latents)}
    expected |= {f"priors_{tile}": prior_map(y, tables) for tile, y in enumerate(latents)}
    return tables, pack_stream(header, [encode_latents(y, tables) for y in latents]), expected


def photos() -> Iterator[tuple[str, bytes, dict[str, npt.NDArray[Any]]]]:
    """A file and its contents for every compressor that ships."""
    from zoo import weights
    from zoo.codec.container import parse, read_tile
    from zoo.data.scene import synthetic_raw
    from zoo.inference.codec import open_codec
    from zoo.models.registry import get_spec, list_models

    for name in list_models():
        if get_spec(name).codec is None or not weights.path(name).exists():
            continue
        codec = open_codec(name, threads=1)
        data = codec.compress(synthetic_raw(120, 150, cfa="GBRG", seed=11), 40, thumbnail=True)
        stream = parse(data)
        latents = {f"latents_{tile}": read_tile(stream, tile, codec.tables) for tile in range(stream.tiles.count)}
        expected: dict[str, npt.NDArray[Any]] = dict(latents)
        expected |= {k.replace("latents", "priors"): prior_map(y, codec.tables) for k, y in latents.items()}
        yield f"photo-{name}", data, expected | {"rgb": codec.decompress(data).astype(np.float16)}


def main(folder: Path) -> None:
    """Write all vectors into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data, expected in photos():
        (folder / f"{name}.rzc").write_bytes(data)
        np.savez_compressed(folder / f"{name}.npz", **expected)  # type: ignore[arg-type]
    for name, (tables, stream, expected) in cases():
        tables.save(folder / f"{name}.safetensors")
        (folder / f"{name}.rzc").write_bytes(stream)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **expected)  # type: ignore[arg-type]
        (folder / f"{name}.npz").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/conformance.py FOLDER")
    main(Path(sys.argv[1]))
