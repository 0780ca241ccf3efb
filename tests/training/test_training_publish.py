"""What the card of published weights says of their cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from tools.publish import publish
from zoo import weights
from zoo.models.registry import create_model
from zoo.training.trainer import CHECKPOINT


@pytest.mark.parametrize("warm", [False, True])
def test_the_card_counts_the_steps_of_the_weights_it_started_from(tmp_path: Path, warm):
    config = {"model": "utnet-n", "init": "utnet-s" if warm else ""}
    meta = {"step": 10, "seconds": 3600.0, "config": config, "data_sha256": "0", "device": "CPU"}
    state = {f"average.{n}": t.clone() for n, t in create_model("utnet-n").state_dict().items()}
    save_file(state, tmp_path / CHECKPOINT, metadata={"run": json.dumps(meta)})
    (tmp_path / "log.jsonl").write_text(json.dumps({"psnr": {"mean": 30.0}}) + "\n")
    publish(tmp_path, folder=tmp_path)
    training = yaml.safe_load((tmp_path / "utnet-n.yaml").read_text())["training"]
    before = (weights.card("utnet-s") or {})["training"] if warm else {"steps": 0, "hours": 0}
    assert training["steps"] == 10 + before["steps"]
    assert training["hours"] == pytest.approx(1 + before["hours"])
