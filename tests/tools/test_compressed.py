"""The sheet of pictures at equal bytes: who is in it, that nobody gets more bytes, that what ships is recorded."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import compressed
from zoo.data.scene import linear_scene
from zoo.errors import ZooError
from zoo.raw import srgb_encode

ROOT = Path(__file__).resolve().parents[2]


def test_all_codecs_get_the_bytes_of_ours(compressor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs", reason="needs the extra 'baselines'")
    picture = np.rint(srgb_encode(linear_scene(208, 224, seed=1)) * 255).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "scene.png")
    monkeypatch.setattr(compressed, "CODEC", compressor)
    monkeypatch.setattr(compressed, "DEVELOPERS", ("menon", "bilinear"))
    monkeypatch.setattr(compressed, "SHOWN", (compressed.Shown("scene", "iso800", 50, (10, 20)),))
    ((noisy, *coded, clean),), record = compressed.make(tmp_path)
    (scene,) = record["scenes"]
    assert [c["codec"] for c in scene["codecs"]] == ["jpegxl+menon", "jpegxl+bilinear", compressor]
    *peers, ours = (c["bytes"] for c in scene["codecs"])
    assert all(0.8 * ours < size <= ours for size in peers)
    assert scene["bpp"] == pytest.approx(8 * ours / picture[..., 0].size)
    assert clean[0] == "clean"
    np.testing.assert_array_equal(clean[1], picture[10:154, 20:164])
    assert all(crop.shape == (144, 144, 3) for _, crop in (noisy, *coded))
    assert compressed.sheet([[noisy, *coded, clean]]).size == (5 * 288, 288 + 34)
    monkeypatch.setattr(compressed, "SHOWN", (compressed.Shown("other", "iso800", 50, (10, 20)),))
    with pytest.raises(ZooError, match="holds no other; give the folder"):
        compressed.make(tmp_path)


def test_the_sheet_that_ships_is_the_recorded_one() -> None:
    record = json.loads((ROOT / compressed.RECORD).read_text())
    shipped = hashlib.sha256((ROOT / compressed.PICTURE).read_bytes()).hexdigest()
    assert record["picture_sha256"] == shipped
    weights = hashlib.sha256((ROOT / f"zoo/weights/{compressed.CODEC}.safetensors").read_bytes()).hexdigest()
    assert record["weights_sha256"] == weights, "run python tools/compressed.py"
