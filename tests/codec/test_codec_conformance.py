from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from reference_decoder import crc32c as reference_crc
from reference_decoder import decode_tile, encode, read_file, tables_sha256

from zoo import weights
from zoo.codec import EntropyTables, encode_latents, parse, read_tile
from zoo.codec.container import crc32c
from zoo.codec.entropy import prior_map
from zoo.inference.codec import open_codec

TOYS = ("tiles", "one_prior", "many_priors", "escapes", "zeros")
PHOTOS = ("photo-balle-bayer-ps", "photo-bayer-codec-m", "photo-bayer-codec-s")


def tables_of(vectors: Path, name: str) -> EntropyTables:
    """Of a toy its own, of a photo those that ship with its compressor."""
    shipped = weights.tables_path(name.removeprefix("photo-"))
    return EntropyTables.load(shipped if name in PHOTOS else vectors / f"{name}.safetensors")


@pytest.mark.parametrize("name", (*TOYS, *PHOTOS))
def test_vectors_decode_to_what_was_recorded(vectors: Path, name: str) -> None:
    tables = tables_of(vectors, name)
    stream = parse(vectors / f"{name}.rzc")
    with np.load(vectors / f"{name}.npz") as expected:
        assert len(expected.files) == 2 * stream.tiles.count + (name in PHOTOS)
        for tile in range(stream.tiles.count):
            latents = read_tile(stream, tile, tables)
            np.testing.assert_array_equal(latents, expected[f"latents_{tile}"])
            np.testing.assert_array_equal(prior_map(latents, tables), expected[f"priors_{tile}"])


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_are_the_recorded_pictures(vectors: Path, name: str) -> None:
    codec = open_codec(name.removeprefix("photo-"))
    with np.load(vectors / f"{name}.npz") as expected:
        np.testing.assert_allclose(codec.decompress(vectors / f"{name}.rzc"), expected["rgb"], atol=2e-3)


@pytest.mark.parametrize("name", (*TOYS, *PHOTOS))
def test_a_decoder_written_from_the_document_agrees(vectors: Path, name: str) -> None:
    tables = {n: t.tolist() for n, t in tables_of(vectors, name).tensors(prefix="").items()}
    file = read_file((vectors / f"{name}.rzc").read_bytes())
    rows, columns = file["grid"]
    core, tile = file["core"], 0
    with np.load(vectors / f"{name}.npz") as expected:
        for y in range(0, rows, core):
            for x in range(0, columns, core):
                shape = (min(core, rows - y), min(core, columns - x))
                latents, priors = decode_tile(file["payloads"][tile], *shape, tables)
                want = expected[f"latents_{tile}"]
                assert want.shape == (file["channels"], *shape)
                assert latents == want.reshape(len(want), -1).tolist()
                assert priors == expected[f"priors_{tile}"].ravel().tolist()
                tile += 1
    assert tile == len(file["payloads"])


@pytest.mark.parametrize("name", TOYS)
def test_the_tables_name_is_the_documents(vectors: Path, name: str) -> None:
    tables = EntropyTables.load(vectors / f"{name}.safetensors")
    want = tables_sha256({n: t.tolist() for n, t in tables.tensors(prefix="").items()})
    assert tables.sha256 == want == read_file((vectors / f"{name}.rzc").read_bytes())["tables"]


def test_an_encoder_written_from_the_document_agrees(toys: ModuleType) -> None:
    tables = toys.toy_tables(1, 3, 9, -4, 2)
    latents = np.clip(toys.toy_latents(tables, (20, 20), 1), -4, 4)  # one prior, no escapes: columns alone
    order = sorted(range(3), key=lambda channel: (tables.rows[0, channel], channel))
    symbols = [
        (v + 4, tables.frequencies[tables.rows[0, c]].tolist()) for c in order for v in latents[c].ravel().tolist()
    ]
    data = encode(symbols)
    assert len(data) > 200
    assert encode_latents(latents, tables) == data


def test_header_fields_lie_where_the_document_says(vectors: Path) -> None:
    file, header = read_file((vectors / "tiles.rzc").read_bytes()), parse(vectors / "tiles.rzc").header
    assert (file["height"], file["width"], file["cfa"], file["orientation"]) == (61, 97, 3, 6)
    assert (file["channels"], file["stride"], file["core"], file["quality"]) == (5, 8, 5, 1)
    assert (file["flags"], file["source"], file["balance"]) == (1, 1, 1)
    assert file["black"] == header.black == (63.5, 64.0, 64.25, 64.0)
    assert file["white"] == header.white == (1023.0, 1023.0, 1023.0, 1022.0)
    assert file["wb"] == header.wb == (2.03125, 1.0, 1.71875)
    assert header.xyz_to_cam is not None
    assert file["matrix"] == tuple(header.xyz_to_cam.ravel())
    assert file["iso"] == header.iso == 800.0
    assert file["shot"] == header.noise.shot == (1e-3, 2e-3, 3e-3)
    assert file["read"] == header.noise.read == (1e-6, 2e-6, 3e-6)
    assert file["exposure"] == (1 / 60, 1.8, 5.4)
    assert file["texts"] == ["toy", "Größe", "R-1 ∑", "2024:02:29 12:00:00"]
    assert header.metadata["model"] == "R-1 ∑"
    assert file["weights"] == header.weights_sha256 == bytes(range(32))
    assert file["tables"] == EntropyTables.load(vectors / "tiles.safetensors").sha256


def test_the_generator_still_makes_these_files(vectors: Path, toys: ModuleType) -> None:
    names = []
    for name, (tables, stream, expected) in toys.cases():
        names.append(name)
        assert tables.sha256 == EntropyTables.load(vectors / f"{name}.safetensors").sha256
        assert stream == (vectors / f"{name}.rzc").read_bytes()
        with np.load(vectors / f"{name}.npz") as recorded:
            assert sorted(recorded.files) == sorted(expected)
            for key in recorded.files:
                np.testing.assert_array_equal(recorded[key], expected[key])
    assert tuple(names) == TOYS
    assert {f.stem for f in vectors.iterdir()} == {*TOYS, *PHOTOS}


def test_crc32c_is_castagnolis() -> None:
    # RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and counting up.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert reference_crc(b"123456789") == crc32c(b"123456789") == 0xE3069283
