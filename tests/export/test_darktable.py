"""The darktable package: contract, parity with the zoo's own pipeline, honest refusals."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="the onnx target's libraries are not installed")

from export.darktable import package, packed_session
from export.verify import centre_planes
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.evaluation.bed import LEVELS
from zoo.models.contracts import contract_of
from zoo.models.registry import create_model, list_models
from zoo.raw.typical import WHITE_BALANCE

TILE = 96
MODEL = "utnet-n"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("darktable")
    return folder / package(MODEL, noise="iso3200", tile=TILE, output_dir=folder)["path"]


def test_package_has_what_darktable_reads(packed: Path) -> None:
    name = packed.stem
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == [f"{name}/config.json", f"{name}/model_bayer.onnx"]
        config = json.loads(archive.read(f"{name}/config.json"))
    assert (config["id"], config["task"], config["backend"]) == (name, "rawdenoise", "onnx")
    about = config["attributes"]
    assert about["input_sizes"] == [TILE]
    for bayer in (about["model_bayer"], about["variants"]["bayer"]):
        assert bayer["input_kind"] == "bayer_v1"
        assert (bayer["wb_norm"], bayer["output_scale"]) == ("as_shot", "absolute")
    assert about["variants"]["bayer"]["onnx"] == "model_bayer.onnx"


def test_interface_is_bayer_v1(packed: Path) -> None:
    session = packed_session(packed)
    ends = [(e.name, e.type, e.shape) for e in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [
        ("input", "tensor(float)", [1, 4, TILE, TILE]),
        ("output", "tensor(float)", [1, 3, 2 * TILE, 2 * TILE]),
    ]


def test_picture_is_that_of_the_zoo_told_the_same_noise(packed: Path) -> None:
    shot, read = LEVELS["iso3200"]
    raw = synthetic_raw(2 * TILE, 2 * TILE, shot=shot, read=read, seed=5)
    planes, noise = centre_planes(raw, TILE), raw.noise.balanced(WHITE_BALANCE)
    told = torch.tensor([noise.shot]), torch.tensor([noise.read]), torch.tensor([WHITE_BALANCE])
    model = create_model(MODEL, pretrained=True)
    contract = contract_of(model)
    with torch.no_grad():
        x = contract.encode(torch.from_numpy(planes), *told)
        expected = contract.decode(x, model(x), *told).numpy()
    picture = packed_session(packed).run(None, {"input": planes})[0]
    assert np.abs(picture - expected).max() < 1e-3
    # Absolute scale: its mean is the mosaic's, without any matching of gains.
    assert picture[:, 1].mean() == pytest.approx(planes[:, 1:3].mean(), rel=0.05)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"name": "pmrid"}, "speaks ksigma_bayer_v1"),
        ({"name": "xtrans-unet-16"}, "speaks cfa_masks_v1"),
        ({"name": list_models("bayer-codec-*")[0]}, "is a compressor"),
        ({"name": MODEL, "noise": "iso320"}, "did you mean 'iso3200'"),
        ({"name": MODEL, "tile": 64}, "larger than 64"),
        ({"name": MODEL, "tile": 100}, "must be a multiple of"),
        ({"name": "utnet3"}, "no weights ship"),
    ],
)
def test_what_cannot_be_packed_is_refused(request_: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=message):
        package(**request_, output_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_failed_gate_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.darktable.MIN_DB", {"fp32": 1000.0})
    with pytest.raises(ZooError, match="gate failed"):
        package(MODEL, tile=TILE, output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
