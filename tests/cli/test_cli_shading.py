"""Pictures of DNGs with gain maps, by `zoo denoise` and by way of compressed files."""

from __future__ import annotations

import struct

import numpy as np
import tifffile

from zoo.data.scene import synthetic_raw


def shaded(path, mosaic, gains, **tags):
    """A DNG whose lens leaves less light in its corners than ``gains`` say, BaselineExposure as given."""
    height, width = mosaic.shape
    data = struct.pack(">10I4dI", 0, 0, height, width, 0, 1, 1, 1, *gains.shape, 1 / 4, 1 / 5, 0, 0, 1)
    data += gains.astype(">f4").tobytes()
    opcodes = struct.pack(">5I", 1, 9, 0x01030000, 1, len(data)) + data
    extra = [
        (50706, 1, 4, bytes((1, 4, 0, 0)), True), (50708, 2, 0, "Test", True), (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes((0, 1, 1, 2)), True), (50714, 4, 1, 64, True), (50717, 4, 1, 4095, True),
        (51009, 7, len(opcodes), opcodes, True), (50730, 10, 1, (tags.get("baseline", 0), 10), True),
    ]  # fmt: skip
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, extratags=extra)
    return path


def test_corners_are_as_bright_as_a_dng_wants_them(zoo, compressor, tmp_path):
    """`zoo denoise` and `zoo decompress`, of a part too, against the same photo without maps, multiplied."""
    mosaic = synthetic_raw(120, 150).mosaic
    gains = np.linspace(1, 1.5, 30).reshape(5, 6)
    dng = shaded(tmp_path / "a.dng", mosaic, gains)
    plain = shaded(tmp_path / "b.dng", mosaic, np.ones((5, 6)))
    y, x = (np.arange(120) + 0.5) / 120 * 4, (np.arange(150) + 0.5) / 150 * 5
    field = 1 + (np.clip(y, 0, 4)[:, None] * 6 + np.clip(x, 0, 5)) * 0.5 / 29
    for verb, source in (("denoise", None), ("decompress", compressor)):
        pictures = []
        for photo in (dng, plain):
            if source:
                packed = photo.with_suffix(".rzc")
                assert zoo("compress", photo, "-o", packed, "--model", source)[::2] == (0, "")
            name = photo.with_suffix(f".{verb}.tiff")
            options = () if source else ("--model", "utnet-n")
            assert zoo(verb, packed if source else photo, "-o", name, "--linear", *options)[::2] == (0, "")
            pictures.append(tifffile.imread(name) / 65535)
        got, expected = pictures[0], np.minimum(pictures[1] * field[..., None], 1)
        seen = (pictures[1] > 0) & (pictures[1] < 0.9)  # what is clipped in one of the two tells nothing
        assert seen.mean() > 0.5
        np.testing.assert_allclose(got[seen], expected[seen], atol=2e-4)
    assert zoo("decompress", tmp_path / "a.rzc", "-o", tmp_path / "p.tiff", "--linear", "--rect", "30,41,50,60")[0] == 0
    np.testing.assert_allclose(tifffile.imread(tmp_path / "p.tiff") / 65535, got[30:80, 41:101], atol=2e-4)


def test_what_a_thumbnail_holds_is_told_where_it_is_lost(zoo, compressor, tmp_path):
    dng = shaded(tmp_path / "a.dng", synthetic_raw(120, 150).mosaic, np.full((5, 6), 2.0), baseline=15)
    code, _, err = zoo("compress", dng, "-o", tmp_path / "a.rzc", "--model", compressor, "--no-thumbnail")
    assert (code, err) == (0, f"note: {dng}: --no-thumbnail loses its lens shading correction and BaselineExposure\n")
    assert zoo("compress", dng, "-o", tmp_path / "b.rzc", "--model", compressor)[::2] == (0, "")
    data = bytearray((tmp_path / "b.rzc").read_bytes())
    data[data.index(b"\xff\xd8\xff") + 30] ^= 0xFF
    (tmp_path / "c.rzc").write_bytes(data)
    code, _, err = zoo("decompress", tmp_path / "c.rzc", "-o", tmp_path / "c.tiff")
    assert (
        code == 0 and err.startswith(f"note: {tmp_path / 'c.rzc'}: its thumbnail is damaged;") and err.count("\n") == 1
    )
    for name in ("b", "c"):
        assert zoo("decompress", tmp_path / f"{name}.rzc", "-o", tmp_path / f"{name}.tiff")[0] == 0
    # Twice the light, 1.5 EV more.
    assert tifffile.imread(tmp_path / "b.tiff").mean() > 1.5 * tifffile.imread(tmp_path / "c.tiff").mean()
