"""What the card of published weights says of their cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from quantize import QuantizedModel
from quantize.publish import publish_quantized
from zoo import weights
from zoo.data.pool import ImagePool
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.inference.codec import open_codec
from zoo.models.registry import create_model
from zoo.training.publish import publish
from zoo.training.trainer import CHECKPOINT


@pytest.mark.parametrize("before", [None, {"steps": 500, "hours": 0.25}])
def test_the_card_counts_the_steps_of_the_weights_it_started_from(tmp_path: Path, before):
    meta = {"step": 10, "seconds": 3600.0, "config": {"model": "utnet-n"}, "data_sha256": "0", "device": "CPU"}
    if before:
        meta["before"] = before
    state = {f"average.{n}": t.clone() for n, t in create_model("utnet-n").state_dict().items()}
    save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
    (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}}) + "\n")
    for _ in range(2):  # once more, and it must not count twice
        publish(tmp_path, tmp_path, licences="none")
        training = yaml.safe_load((tmp_path / "utnet-n.yaml").read_text())["training"]
        assert training["steps"] == (510 if before else 10)
        assert training["hours"] == (1.25 if before else 1.0)


def test_int8_weights_of_other_float_weights_are_none_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    meta = {"step": 1, "seconds": 1.0, "config": {"model": "utnet-n"}, "data_sha256": "0", "device": "CPU"}
    state = {f"average.{n}": t.clone() for n, t in create_model("utnet-n").state_dict().items()}
    save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
    (tmp_path / "utnet-n-qat.safetensors").write_bytes(b"of before")
    (tmp_path / "utnet-n.yaml").write_text(
        yaml.safe_dump({"sha256": {"utnet-n-qat.safetensors": hashlib.sha256(b"of before").hexdigest()}})
    )
    weights.verified("utnet-n", quantized=True)
    with pytest.raises(ZooError, match=r"log.jsonl: is missing or damaged"):  # and nothing is replaced
        publish(tmp_path, tmp_path, licences="none")
    assert not (tmp_path / "utnet-n.safetensors").exists()
    (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}}) + "\n")
    publish(tmp_path, tmp_path, licences="none")
    assert weights.verified("utnet-n")
    with pytest.raises(ZooError, match="no quantised weights ship"):
        weights.verified("utnet-n", quantized=True)


def test_references_ship_in_half_precision(tmp_path: Path) -> None:
    meta = {"step": 1, "seconds": 1.0, "config": {"model": "xtrans-unet-16"}, "data_sha256": "0", "device": "CPU"}
    state = create_model("xtrans-unet-16").state_dict()
    save_file(
        {f"average.{n}": t.clone() for n, t in state.items()}, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)}
    )
    (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}}) + "\n")
    shipped = load_file(publish(tmp_path, tmp_path, licences="none"))
    assert {t.dtype for t in shipped.values() if t.is_floating_point()} == {torch.float16}
    model = create_model("xtrans-unet-16")
    model.load_state_dict(shipped)  # in float32 again, as rounded
    assert all(
        torch.equal(t, state[n].half().float() if t.is_floating_point() else t) for n, t in model.state_dict().items()
    )


def test_so_do_reference_compressors_with_tables_of_those_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.training.publish._COUNTED_RAWS", 2)
    monkeypatch.setattr("zoo.training.publish._HELD_RAWS", 1)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(2):
        values = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), np.uint8)
        Image.fromarray(values).save(pictures / f"{seed}.png")
    config = {"model": "balle-bayer-ps", "data": str(pictures), "patch": 64}
    meta = {"step": 1, "seconds": 1.0, "config": config, "data_sha256": "0", "device": "CPU"}
    state = {f"average.{n}": t.clone() for n, t in create_model("balle-bayer-ps").state_dict().items()}
    save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
    (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}}) + "\n")
    with pytest.raises(ZooError, match="pictures: holds other pictures than the run was trained on"):
        publish(tmp_path, tmp_path, licences="none")
    meta["data_sha256"] = ImagePool.from_folder(pictures, min_side=64).digest
    save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
    file = publish(tmp_path, tmp_path, licences="none")
    assert {t.dtype for t in load_file(file).values() if t.is_floating_point()} == {torch.float16}
    assert file.stat().st_size < 20e6
    codec = open_codec("balle-bayer-ps", threads=1)
    assert codec.decompress(codec.compress(synthetic_raw(32, 48))).shape == (32, 48, 3)


def test_the_card_remembers_weights_of_the_same_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times measured with them still hold; with those of other layers they do not."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path)

    def ship(model: torch.nn.Module) -> str:
        config = {"model": "utnet-n", "init": ""}
        meta = {"step": 1, "seconds": 1.0, "config": config, "data_sha256": "0", "device": "CPU"}
        state = {f"average.{n}": t.clone() for n, t in model.state_dict().items()}
        save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
        (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}}) + "\n")
        file = publish(tmp_path, tmp_path, licences="none")
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def earlier() -> list[str]:
        return yaml.safe_load((tmp_path / "utnet-n.yaml").read_text())["earlier"].get("utnet-n.safetensors", [])

    model = create_model("utnet-n")
    first = ship(model)
    assert earlier() == []
    second = ship(create_model("utnet-n"))  # drawn anew
    assert second != first and earlier() == [first]
    ship(create_model("utnet-n"))
    assert earlier() == [first, second]
    old = {k: v.contiguous() for k, v in create_model("utnet-s").state_dict().items()}  # of before its layers changed
    save_file(old, tmp_path / "utnet-n.safetensors")
    ship(create_model("utnet-n"))
    assert earlier() == []


@pytest.fixture
def done(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run's folder."""

    def write(step: int, steps: int, digest: str) -> Path:
        config = {"model": "utnet-n", "steps": steps}
        meta = {"step": step, "seconds": 1.0, "config": config, "data_sha256": digest, "device": "CPU"}
        state = {f"average.{n}": t.clone() for n, t in create_model("utnet-n").state_dict().items()}
        save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
        (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}, "loss": None}) + "\n")
        return tmp_path

    return write


def test_a_run_that_is_not_done_is_not_published(done: Callable[..., Path]) -> None:
    run = done(3, 5, "0")
    with pytest.raises(ZooError, match=r"holds 3 of 5 steps; run `zoo train` again to go on, or with --steps 3"):
        publish(run, folder=run, licences="none")
    assert not (run / "utnet-n.yaml").exists()


def test_licences_are_of_the_pictures_that_a_card_knows(done: Callable[..., Path]) -> None:
    run = done(5, 5, "0")
    with pytest.raises(ZooError, match=r"no card knows the pictures.* give --licences TEXT"):
        publish(run, folder=run)
    publish(run, folder=run, licences="mine")
    assert yaml.safe_load((run / "utnet-n.yaml").read_text())["data"] == {"sha256": "0", "licences": "mine"}
    (known,) = {(c["data"]["sha256"], c["data"]["licences"]) for n in ("utnet-n", "utnet-m") if (c := weights.card(n))}
    publish(done(5, 5, known[0]), folder=run)
    assert yaml.safe_load((run / "utnet-n.yaml").read_text())["data"] == dict(
        zip(("sha256", "licences"), known, strict=True)
    )


def test_fine_tuning_that_is_not_done_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"training": {"steps": 3, "config": {"steps": 5}}}
    made = QuantizedModel("utnet-n", "qat", torch.nn.Identity(), facts)
    monkeypatch.setattr(QuantizedModel, "load", lambda path: made)
    with pytest.raises(ZooError, match=r"holds 3 of 5 steps; run `zoo quantize` again to go on"):
        publish_quantized(tmp_path / "q.safetensors", tmp_path)
