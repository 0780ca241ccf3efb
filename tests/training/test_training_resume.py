"""Which runs go on, how they end, and what is told of it."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zoo.cli import main
from zoo.data.pool import ImagePool
from zoo.data.synth import NoiseRange
from zoo.errors import ZooError
from zoo.models.registry import create_model
from zoo.models.utnet import CompactUtNet
from zoo.training import distributed
from zoo.training.config import TrainConfig
from zoo.training.machine import compiled
from zoo.training.trainer import CHECKPOINT, Trainer, make_trainer, read_checkpoint
from zoo.training.transfer import spent


def tiny(width: int = 8) -> CompactUtNet:
    torch.manual_seed(0)
    return CompactUtNet((width,), (1,), (), head_width=4)


def config(**changes: object) -> TrainConfig:
    values = {"model": "tiny", "steps": 2, "batch": 2, "patch": 64, "precision": "fp32", "warmup": 2}
    return TrainConfig(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def run(pool: ImagePool, tmp_path: Path) -> Path:
    trainer = Trainer(tiny(), config(), pool, tmp_path)
    trainer._train_step()
    trainer.save()
    return tmp_path


def test_a_run_goes_on_with_the_teacher_that_it_had(pool: ImagePool, tmp_path: Path) -> None:
    def teach(seed: int) -> Trainer:
        torch.manual_seed(seed)
        save_file({k: v.contiguous() for k, v in create_model("utnet-n").state_dict().items()}, file)
        return Trainer(tiny(), config(teacher=str(file)), pool, tmp_path / "run")

    file = tmp_path / "utnet-n.safetensors"
    (tmp_path / "run").mkdir()
    teach(0).save()
    assert teach(0).step == 0
    with pytest.raises(ZooError, match=r"holds a run with another teacher \(other weights\); give another folder"):
        teach(1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 3}, "batch"),
        ({"seed": 1, "ema": 0.5}, "ema, seed"),
        ({"noise": NoiseRange(clean=0.5)}, "noise.clean"),
        ({"init": "utnet-n"}, "init"),
    ],
)
def test_a_run_goes_on_as_it_began_or_not_at_all(pool: ImagePool, run: Path, changes: dict, named: str) -> None:
    with pytest.raises(ZooError, match="holds a run with another") as raised:
        Trainer(tiny(), config(**changes), pool, run)
    told = str(raised.value)
    assert set(named.split(", ")) == set(told.split("with another ")[1].split(";")[0].split(", "))
    assert told.endswith(f"give another folder, start from this one with 'init: {run / CHECKPOINT}'")


def test_other_pictures_are_another_run(pool: ImagePool, run: Path) -> None:
    with pytest.raises(ZooError, match=r"with another data \(other pictures\)"):
        Trainer(tiny(), config(), ImagePool(pool.images, "other"), run)


def test_what_says_nothing_of_the_weights_may_change(pool: ImagePool, run: Path) -> None:
    changes = {"steps": 5, "validate_every": 7, "checkpoint_every": 1.0, "data": "elsewhere", "compile": True}
    assert Trainer(tiny(), config(**changes), pool, run).step == 1
    tensors, meta = read_checkpoint(run / CHECKPOINT)  # as an older version wrote it
    del meta["config"]["textured"], meta["config"]["noise"]["knowledge"], meta["processes"], meta["data_sha256"]
    save_file(tensors, run / CHECKPOINT, {"run": json.dumps(meta)})
    assert Trainer(tiny(), config(textured=0.5), pool, run).step == 1


def test_other_layers_are_told_in_a_line(pool: ImagePool, run: Path) -> None:
    with pytest.raises(ZooError, match=r"holds a run of other layers \(size mismatch"):
        Trainer(tiny(16), config(), pool, run)


def test_a_stopped_run_is_saved_before_it_is_validated(
    pool: ImagePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny(), config(steps=9), pool, tmp_path)
    step, save = trainer._train_step, trainer.save

    def interrupted() -> float:
        loss = step()
        signal.raise_signal(signal.SIGTERM)
        return loss

    def slow() -> None:
        signal.raise_signal(signal.SIGINT)  # a second one, while it is written
        save()

    def again() -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_train_step", interrupted)
    monkeypatch.setattr(trainer, "save", slow)
    monkeypatch.setattr(trainer, "validate", again)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert read_checkpoint(tmp_path / CHECKPOINT)[1]["step"] == 1
    assert trainer.stopped == signal.SIGTERM  # the first


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 0)])
def test_the_command_says_where_it_stopped(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int | None,
    code: int,
) -> None:
    step = Trainer._train_step

    def stopped(self: Trainer) -> float:
        loss = step(self)
        if number:
            signal.raise_signal(number)
        return loss

    monkeypatch.setattr(Trainer, "_train_step", stopped)
    (tmp_path / "c.yaml").write_text("model: utnet-n\nbatch: 1\npatch: 64\nprecision: fp32\nsteps: 3\n")
    words = ["train", "--config", tmp_path / "c.yaml", "--data", pictures, "--output-dir", tmp_path / "run", "--json"]
    command = [str(w) for w in words]
    budget = [] if number else ["--time-budget", "0"]
    assert main([*command, *budget]) == code
    out, err = capsys.readouterr()
    reached = 1 if number else 0
    assert {k: json.loads(out)[k] for k in ("step", "steps")} == {"step": reached, "steps": 3}  # and nothing else
    assert f"stopped at step {reached} of 3; run it again to go on" in err
    monkeypatch.undo()
    for _ in range(2):  # once more when it is done
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["step"] == 3 and "stopped" not in err
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "NaN" not in log and json.loads(log.splitlines()[-1])["loss"] is None


@pytest.mark.parametrize("verb", ["train", "quantize"])
@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_no_folder_for_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: Path, verb: str, below: str
) -> None:
    file = tmp_path / "taken"
    file.write_text("")
    (tmp_path / "c.yaml").write_text("model: utnet-n\n")
    words = ["--config", str(tmp_path / "c.yaml")] if verb == "train" else ["utnet-n", "--recipe", "ptq"]
    assert main([verb, *words, "--data", str(pictures), "--output-dir", str(file / below)]) == 2
    assert f"{file}: is a file, not a folder" in capsys.readouterr().err


def test_where_nothing_compiles_steps_are_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(function: object) -> object:
        def call(*_: object) -> torch.Tensor:
            raise RuntimeError("No working C++ compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    twice = compiled(lambda x: 2 * x)
    assert [float(twice(torch.tensor(v))) for v in (1.0, 2.0)] == [2.0, 4.0]
    assert capsys.readouterr().err.splitlines() == [
        "compile: not possible here (No working C++ compiler found), so steps take longer"
    ]


def test_the_time_of_all_processes_counts(pool: ImagePool, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny(), config(), pool, run)
    trainer.seconds = 3600.0
    trainer.save()
    meta = read_checkpoint(run / CHECKPOINT)[1]
    assert meta["processes"] == 1
    assert spent(meta | {"processes": 4})["hours"] == 4
    monkeypatch.setattr(distributed, "size", lambda: 2)  # goes on with more: what it has cost stays
    monkeypatch.setattr(distributed, "share", lambda tensors: None)
    assert Trainer(tiny(), config(), pool, run).seconds == 1800


@pytest.mark.parametrize("changes", [{"picture_steps": 3}, {"ms_ssim_weight": 0.5, "patch": 192}])
def test_denoisers_take_nothing_of_compressors(pool: ImagePool, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ZooError, match=f"is no compressor and takes no {next(iter(changes))}"):
        make_trainer(tiny(), dataclasses.replace(config(), **changes), pool, tmp_path)
