"""Training of compressors: the loss falls, runs resume exactly, idle priors come back, runs become shipped files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_codec import fitted, probe, start, tiny_codec
from torch import nn

from zoo import weights
from zoo.cli import main
from zoo.data.pool import ImagePool
from zoo.data.scene import synthetic_raw
from zoo.data.synth import mosaic
from zoo.errors import ZooError
from zoo.inference.codec import open_codec
from zoo.models.denoise_compress import DenoiseThenCompress
from zoo.models.priors import cost_table, position_costs
from zoo.models.registry import create_model
from zoo.training.codec import _IDLE
from zoo.training.config import TrainConfig
from zoo.training.publish import publish
from zoo.training.trainer import CHECKPOINT, make_trainer, read_checkpoint
from zoo.training.transfer import averaged


def test_a_few_steps_lower_the_loss(pool: ImagePool, tmp_path: Path) -> None:
    trainer = fitted(pool, tmp_path, lr=3e-4, kernel_lr=3e-4, steps=100)
    before = probe(trainer)
    for _ in range(20):
        trainer._train_step()
    assert probe(trainer) < before


def test_a_warm_start_is_not_fitted(pool: ImagePool, tmp_path: Path) -> None:
    first = start(pool, tmp_path / "a", steps=1)
    first.run()
    again = start(pool, tmp_path / "b", init=str(tmp_path / "a" / CHECKPOINT))
    for optimizer in again.optimizers:
        for group in optimizer.param_groups:
            group["peak"] = 0.0
    again._train_step()
    for name, value in first.average.items():
        assert torch.equal(again.average[name], value), name


def test_the_picture_is_learned_first(pool: ImagePool, tmp_path: Path) -> None:
    """Nothing else moves until then; what follows is fitted when its turn comes, also after an interruption there."""
    trainer = start(pool, tmp_path, picture_steps=2, steps=4)
    first = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    for _ in range(2):
        trainer._train_step()
    moved = {name for name, p in trainer.parameters.items() if not torch.equal(p, first[name])}
    assert moved
    assert trainer.validate().keys() == {"clean", "iso800", "iso3200", "iso12800", "mean"}  # of the picture
    assert all(name.startswith(("encoder.denoiser.", "encoder.demosaic.")) for name in moved)
    trainer.save()
    again = start(pool, tmp_path, picture_steps=2, steps=4)
    for run in (trainer, again):
        run._train_step()
    assert "clean/q1 bpp" in trainer.validate()
    assert not torch.equal(trainer.model.encoder.transform.weight, first["encoder.transform.weight"])
    for name, value in trainer.parameters.items():
        assert torch.equal(again.parameters[name], value), name
    with pytest.raises(ZooError, match="has no picture in its encoder; leave 'picture_steps' out"):
        config = dataclasses.replace(trainer.config, model="balle-bayer-ps")
        make_trainer(create_model("balle-bayer-ps"), config, pool, tmp_path / "b").run()


def test_validation_is_of_the_averages_and_leaves_what_trains(pool: ImagePool, tmp_path: Path) -> None:
    """Of what batch norms have counted too."""
    torch.manual_seed(0)
    model = tiny_codec(8, 4)
    model.encoder.transform = nn.Sequential(model.encoder.transform, nn.BatchNorm2d(8))
    values = {"model": "tiny", "batch": 2, "patch": 64, "precision": "fp32"}
    trainer = make_trainer(model, TrainConfig(**values), pool, tmp_path)  # type: ignore[arg-type]
    for value in trainer.average.values():
        value += 0.01 if value.is_floating_point() else 1
    live = {name: t.clone() for name, t in model.state_dict().items()}
    scores = trainer.validate()
    for name, value in model.state_dict().items():
        assert torch.equal(value, live[name]), name
    assert trainer._scores() != scores
    trainer.load_average()
    assert trainer._scores() == scores


def test_interrupted_run_equals_uninterrupted(pool: ImagePool, tmp_path: Path) -> None:
    """Also where the interruption falls between two refreshes of the table, and validations are in between."""
    whole = start(pool, tmp_path / "whole")
    whole.run()
    first = start(pool, tmp_path / "parts")
    first.run(time_budget=0)
    for _ in range(4):
        first._train_step()
    first.save()
    first._train_step()  # lost, as after kill -9
    second = start(pool, tmp_path / "parts")
    assert second.step == 4
    second.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert torch.equal(whole._last_won, second._last_won)


def test_a_checkpoint_without_the_priors_state_goes_on(pool: ImagePool, tmp_path: Path) -> None:
    first = start(pool, tmp_path)
    first._train_step()
    first._extra_state = dict  # type: ignore[method-assign]
    first.save()
    second = start(pool, tmp_path)
    assert (second.step, second._last_won.tolist()) == (1, [1] * 4)
    assert second._train_step() > 0


def test_idle_priors_are_trained_on_what_is_expensive(pool: ImagePool, tmp_path: Path) -> None:
    def improvement(idle: bool) -> float:
        trainer = fitted(pool, tmp_path / str(idle), lr=2e-3)
        priors = trainer.model.priors
        with torch.no_grad():
            trainer.model.log_gain -= trainer.model.log_gain[0].clone()  # symbols of one digit
            priors.shifts[0][2] += 200.0  # prior 2 expects latents nobody has: it never wins
        trainer.step = 2 * _IDLE
        trainer._last_won.fill_(trainer.step)
        if idle:
            trainer._last_won[2] = 0
        symbols = torch.randint(-3, 4, (1, 8, 4, 4)).float()
        before = position_costs(symbols, cost_table(priors, 8))[:, 2].mean()
        shift = priors.shifts[3][2].clone()
        for _ in range(10):
            trainer._train_step()
        assert torch.equal(priors.shifts[3][2], shift) != idle
        return float(before - position_costs(symbols, cost_table(priors, 8))[:, 2].mean())

    assert improvement(idle=False) == 0
    assert improvement(idle=True) > 0


def test_ms_ssim_takes_its_share_of_the_loss(pool: ImagePool, tmp_path: Path) -> None:
    pure, mixed = (start(pool, tmp_path / str(w), patch=192, ms_ssim_weight=w) for w in (0.0, 0.5))
    assert probe(mixed) != pytest.approx(probe(pure), rel=1e-3)
    mixed.run()
    with pytest.raises(ZooError, match="it is a share"):
        start(pool, tmp_path, ms_ssim_weight=2)
    with pytest.raises(ZooError, match="MS-SSIM wants at least 176"):
        start(pool, tmp_path, ms_ssim_weight=1)


def test_a_frozen_denoiser_starts_from_its_weights_keeps_them_and_is_shipped(pool: ImagePool, tmp_path: Path) -> None:
    values = {"model": "denoise-then-compress", "steps": 2, "batch": 1, "patch": 64, "precision": "fp32", "warmup": 0}
    with pytest.raises(ZooError, match="name them in 'init'"):
        make_trainer(DenoiseThenCompress(frozen=True), TrainConfig(**values), pool, tmp_path)  # type: ignore[arg-type]
    config = TrainConfig(**values, init="utnet-m")  # type: ignore[arg-type]
    model = DenoiseThenCompress(frozen=True)
    trainer = make_trainer(model, config, pool, tmp_path)
    before = model.decoder[0].layers[0].weight.clone()
    trainer.run()
    assert not torch.equal(model.decoder[0].layers[0].weight, before)
    shipped = averaged(read_checkpoint(tmp_path / CHECKPOINT)[0])
    assert shipped.keys() == model.state_dict().keys()
    for key, value in create_model("utnet-m", pretrained=True).state_dict().items():
        assert torch.equal(shipped[f"encoder.0.network.{key}"], value)


def test_teachers_display_values_and_xtrans_are_refused(pool: ImagePool, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="takes no teacher"):
        start(pool, tmp_path, teacher="utnet-m")
    with pytest.raises(ZooError, match="codes light, not display values"):
        start(pool, tmp_path, displayed=0.5)
    with pytest.raises(ZooError, match="contract bayer_codec_v4 knows only Bayer"):
        start(pool, tmp_path, model="bayer-codec-s", cfa="both")


def test_a_denoiser_in_front_is_validated_too(pool: ImagePool, tmp_path: Path) -> None:
    trainer = fitted(pool, tmp_path, denoiser="utnet-n", denoised=1.0)
    assert sorted(trainer.validation) == sorted(
        ["clean", *(f"{level}{end}" for level in ("iso800", "iso3200", "iso12800") for end in ("", " denoised"))]
    )
    error = {level: (b.planes - mosaic(b.target)).square().mean() for level, b in trainer.validation.items()}
    assert error["iso12800 denoised"] < 0.4 * error["iso12800"]
    without = fitted(pool, tmp_path / "none", denoiser="utnet-n", denoised=0.0)
    assert probe(trainer) < probe(without)  # less noise, less error and fewer bits
    with pytest.raises(ZooError, match="does not denoise mosaics"):
        start(pool, tmp_path / "wrong", denoiser="balle-bayer-ps")
    with pytest.raises(ZooError, match="the denoiser gives a mosaic"):
        start(pool, tmp_path / "wrong", denoiser="pmrid")


def test_from_the_command_line_to_a_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "model: bayer-codec-s\nsteps: 2\nbatch: 1\npatch: 64\nprecision: fp32\nvalidate_every: 100\n"
    (tmp_path / "c.yaml").write_text(config)
    run, folder = tmp_path / "run", tmp_path / "weights"
    command = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(pictures), "--output-dir", str(run)]
    assert main([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])["psnr"]
    assert scores["clean/q0"] > 0
    assert 0 < scores["clean/q0 bpp"] < scores["clean/q1 bpp"]
    assert "psnr" in json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    folder.mkdir()
    monkeypatch.setattr(weights, "FOLDER", folder)
    with pytest.raises(ZooError, match="no such folder of training pictures"):
        publish(run, folder, data=tmp_path / "none", licences="none")
    assert list(folder.iterdir()) == []
    publish(run, folder, licences="none")
    assert sorted(p.name for p in folder.iterdir()) == [
        f"bayer-codec-s{end}" for end in ("-tables.safetensors", ".safetensors", ".yaml")
    ]
    facts = weights.card("bayer-codec-s")
    assert facts is not None
    assert facts["tables"]["escapes"] < 2e-3
    assert facts["tables"]["rows"] <= 512
    assert set(facts["sha256"]) == {"bayer-codec-s.safetensors", "bayer-codec-s-tables.safetensors"}
    assert facts["training"]["validation"]["clean/q0"] == round(scores["clean/q0"], 3)
    codec = open_codec("bayer-codec-s", threads=1)
    assert codec.weights_sha256 == facts["sha256"]["bayer-codec-s.safetensors"]
    assert codec.decompress(codec.compress(synthetic_raw(64, 80))).shape == (64, 80, 3)
    assert main(["list", "bayer-codec-s"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "-"  # rates are no decibels to average
