"""Training beyond one compact model: other contracts, X-Trans, batch norms, warm starts, teachers, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from zoo import weights
from zoo.data.pool import ImagePool
from zoo.data.synth import NoiseRange, RawSynthesizer, mosaic
from zoo.errors import ZooError
from zoo.models.contracts.cfa_masks import masks
from zoo.models.pmrid import PMRID
from zoo.models.utnet import CompactUtNet
from zoo.models.utnet2 import UtNet2
from zoo.models.xtrans_unet import XTransUNet
from zoo.training.config import TrainConfig
from zoo.training.losses import as_channels
from zoo.training.trainer import CHECKPOINT, Trainer, make_trainer, read_checkpoint
from zoo.training.transfer import Teacher, cost

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pool() -> ImagePool:
    """Smooth noise: something to demosaic, quick to make."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for _ in range(3):
        rough = torch.rand(1, 3, 25, 25, generator=generator)
        smooth = nn.functional.interpolate(rough, size=(200, 216), mode="bicubic").clamp(0, 1)[0]
        images.append((smooth.permute(1, 2, 0) * 16000).to(torch.uint16))
    return ImagePool(images, "")


@pytest.fixture(autouse=True)
def small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.training.trainer.NOISE_LEVELS", {"iso3200": (5e-3, 1.9e-4)})


def tiny(seed: int = 0) -> CompactUtNet:
    torch.manual_seed(seed)
    return CompactUtNet((8,), (1,), (), head_width=4)


def seeded(build: type[nn.Module], *arguments: int) -> nn.Module:
    torch.manual_seed(0)
    return build(*arguments).eval()


def config(**changes: object) -> TrainConfig:
    values = {"model": "tiny", "steps": 4, "batch": 2, "patch": 64, "precision": "fp32", "warmup": 2}
    return TrainConfig(**{**values, "validate_every": 100, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "cfa"),
    [(UtNet2, "bayer"), (XTransUNet, "both"), (PMRID, "bayer")],
    ids=["bayer_vst_v1", "cfa_masks_v1", "ksigma_bayer_v1"],
)
def test_every_contract_trains(model: type[nn.Module], cfa: str, pool: ImagePool, tmp_path: Path) -> None:
    net = seeded(model) if model is PMRID else seeded(model, 4)
    trainer = Trainer(net, config(steps=12, lr=2e-3, ema=0.5, cfa=cfa), pool, tmp_path)
    batch = trainer.data.batch(8, torch.Generator().manual_seed(5))

    def loss() -> float:
        trainer.data.batch = lambda *_: batch  # type: ignore[method-assign]
        return trainer._train_step()

    losses = [loss() for _ in range(12)]
    assert losses[-1] < losses[0]
    assert trainer.validate()["mean"] > 5


def test_xtrans_raws_are_the_target_s_pixels(pool: ImagePool) -> None:
    batch = RawSynthesizer(pool, 64, NoiseRange(clean=1.0), "xtrans").batch(4, torch.Generator().manual_seed(0))
    assert batch.cfa == "XTRANS"
    measured = (batch.target * masks(64, 64, "XTRANS")).sum(1)
    assert torch.allclose(nn.functional.pixel_shuffle(batch.planes, 2)[:, 0], measured, atol=1e-6)


def test_noise_of_xtrans_raws_has_the_stated_variance(pool: ImagePool) -> None:
    fixed = NoiseRange(
        shot_min=5e-3, shot_max=5e-3, read_floor=(2e-4, 2e-4), read_per_iso2=(1e-30, 1e-30), clean=0, row=0, knowledge=0
    )
    batch = RawSynthesizer(pool, 128, fixed, "xtrans").batch(16, torch.Generator().manual_seed(0))
    told = batch.shot[:, :, None, None] * batch.target + batch.read[:, :, None, None]
    clean, variance = mosaic(batch.target, "XTRANS"), mosaic(told, "XTRANS")
    dark = clean < 0.5
    assert float(((batch.planes - clean).square() / variance)[dark].mean()) == pytest.approx(1, rel=0.05)


def test_both_draws_both_and_bayer_draws_as_before(pool: ImagePool) -> None:
    generator = torch.Generator().manual_seed(0)
    both = RawSynthesizer(pool, 64, NoiseRange(), "both")
    assert {both.batch(1, generator).cfa for _ in range(12)} == {"RGGB", "XTRANS"}
    with pytest.raises(ZooError, match="cfa is 'foveon'; it can be bayer, xtrans, both"):
        config(cfa="foveon")


def test_bayer_networks_refuse_xtrans(pool: ImagePool, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="contract bayer_vst_v1 knows only Bayer"):
        Trainer(tiny(), config(cfa="both"), pool, tmp_path)


def test_batch_norms_count_resume_and_ship(pool: ImagePool, tmp_path: Path) -> None:
    whole = Trainer(seeded(XTransUNet, 4), config(), pool, tmp_path / "whole")
    whole.run()
    first = Trainer(seeded(XTransUNet, 4), config(), pool, tmp_path / "parts")
    for _ in range(2):
        first._train_step()
    first.validate()  # must leave the live statistics alone
    (tmp_path / "parts").mkdir()
    first.save()
    second = Trainer(seeded(XTransUNet, 4), config(), pool, tmp_path / "parts")
    second.run()
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name
    # What is shipped loads strictly, statistics included.
    tensors, _ = read_checkpoint(tmp_path / "whole" / CHECKPOINT)
    average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    XTransUNet(4).load_state_dict(average)
    norm = "body.encoder.0.1"
    assert int(average[f"{norm}.num_batches_tracked"]) == 4
    assert average[f"{norm}.running_mean"].abs().max() > 0


def test_a_warm_start_takes_weights_from_files_and_checkpoints(pool: ImagePool, tmp_path: Path) -> None:
    donor = Trainer(tiny(1), config(), pool, tmp_path / "donor")
    donor.run()
    save_file({k: v.contiguous() for k, v in tiny(2).state_dict().items()}, tmp_path / "w.safetensors")
    cases = {str(tmp_path / "w.safetensors"): tiny(2).state_dict(), str(tmp_path / "donor" / CHECKPOINT): donor.average}
    for number, (source, expected) in enumerate(cases.items()):
        started = Trainer(tiny(), config(init=source), pool, tmp_path / str(number))
        for name, value in started.average.items():
            assert torch.equal(value, expected[name])


def test_a_resumed_run_does_not_start_over_from_init(pool: ImagePool, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in tiny(2).state_dict().items()}, tmp_path / "w.safetensors")
    changes = {"init": str(tmp_path / "w.safetensors")}
    Trainer(tiny(), config(**changes), pool, tmp_path / "run").run()
    (tmp_path / "w.safetensors").unlink()
    assert Trainer(tiny(), config(**changes), pool, tmp_path / "run").step == 4


def test_a_run_of_other_optimisers_is_not_resumed_but_can_be_started_from(pool: ImagePool, tmp_path: Path) -> None:
    Trainer(tiny(), config(kernel_lr=0.0), pool, tmp_path / "adam").run()
    with pytest.raises(ZooError, match="other optimisers") as raised:
        Trainer(tiny(), config(kernel_lr=1e-3), pool, tmp_path / "adam")
    assert "\n" not in str(raised.value)
    init = str(raised.value).split("init: ")[1].rstrip("'")
    Trainer(tiny(), config(kernel_lr=1e-3, init=init), pool, tmp_path / "muon")


def test_a_run_remembers_what_the_weights_it_started_from_had_cost(pool: ImagePool, tmp_path: Path) -> None:
    first = Trainer(tiny(), config(), pool, tmp_path / "first")
    first.run()
    init = str(tmp_path / "first" / CHECKPOINT)
    second = Trainer(tiny(), config(init=init), pool, tmp_path / "second")
    assert second.before == {"steps": first.step, "hours": pytest.approx(first.seconds / 3600, abs=0.01)}
    second.run()
    again = Trainer(tiny(), config(init=init), pool, tmp_path / "second")  # resumed, whatever has become of the first
    assert again.before == second.before
    third = Trainer(tiny(), config(init=str(tmp_path / "second" / CHECKPOINT)), pool, tmp_path / "third")
    assert third.before["steps"] == first.step + second.step
    card = weights.card("utnet-n")
    assert card and cost("utnet-n") == {key: card["training"][key] for key in ("steps", "hours")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "nowhere.safetensors"}, "no such weights; give a safetensors file"),
        ({"init": "utnet-n"}, "utnet-n: does not fit CompactUtNet"),
        ({"teacher": "utnet3"}, "no weights ship with this version"),
        ({"teacher": "nothing.safetensors"}, "unknown model 'nothing'"),
    ],
)
def test_weights_that_do_not_serve_are_explained(
    changes: dict[str, str], message: str, pool: ImagePool, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=message) as raised:
        Trainer(tiny(), config(**changes), pool, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_teacher_s_contract_computes_in_float32(pool: ImagePool) -> None:
    """The network may run in bfloat16; its demosaic, a convolution too, may not."""
    teacher, batch = (
        Teacher("utnet-n", torch.device("cpu")),
        RawSynthesizer(pool, 64, NoiseRange()).batch(2, torch.Generator().manual_seed(1)),
    )
    teacher._model = nn.Conv2d(12, 12, 1)
    nn.init.zeros_(teacher._model.weight), nn.init.zeros_(teacher._model.bias)
    exact = teacher(batch)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(teacher(batch), exact, rtol=0, atol=0)


def test_what_is_no_compressor_takes_no_denoiser(pool: ImagePool, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="is no compressor and takes no denoiser"):
        make_trainer(tiny(), config(denoiser="utnet-n"), pool, tmp_path)


def test_a_student_comes_closer_to_its_teacher(pool: ImagePool, tmp_path: Path) -> None:
    # To 0.83 of the distance; without a teacher to 0.97.
    changes = {"teacher": "utnet-n", "teacher_weight": 100.0, "lr": 2e-3, "kernel_lr": 2e-2, "steps": 100, "ema": 0.5}
    trainer = Trainer(tiny(), config(**changes), pool, tmp_path)
    batch = trainer.data.batch(8, torch.Generator().manual_seed(9))

    def distance() -> float:
        x = trainer.contract.encode(batch.planes, batch.shot, batch.read, batch.wb)
        with torch.no_grad():
            estimate = trainer.contract.estimate(x, trainer.model(x), batch.shot, batch.read, batch.wb)
        assert trainer.teacher is not None
        return float((estimate - trainer.teacher(batch)).abs()[..., 8:-8, 8:-8].mean())

    before = distance()
    for _ in range(100):
        trainer._train_step()
    assert distance() < 0.9 * before


def test_a_teacher_s_colours_serve_a_mosaic_but_not_the_reverse() -> None:
    rgb = torch.rand(1, 3, 8, 8)
    packed = nn.functional.pixel_unshuffle(rgb, 2)
    assert torch.equal(as_channels(packed, 4), mosaic(rgb))
    with pytest.raises(ZooError, match="the teacher gives a mosaic"):
        as_channels(mosaic(rgb), 12)


def torchrun(processes: int, folder: Path, data: Path, steps: int) -> dict:
    (folder / "c.yaml").write_text("model: utnet-n\nbatch: 2\npatch: 64\nprecision: fp32\nseed: 3\nwarmup: 2\n")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        "-m", "zoo", "train", "--config", str(folder / "c.yaml"), "--output-dir", str(folder / "run"),
        "--data", str(data), "--steps", str(steps), "--threads", "1", "--json",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    (printed,) = [line for line in done.stdout.splitlines() if line.startswith("{")]  # one process speaks
    return json.loads(printed)


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    data = tmp_path / "pictures"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(data / f"{number}.png")
    assert torchrun(2, tmp_path, data, 3)["psnr"]["mean"] > 0
    first, meta = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert meta["step"] == 3
    assert not torch.equal(first["generator"], first["generator.1"])  # each drew its own raws
    torchrun(2, tmp_path, data, 5)
    second, meta = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert meta["step"] == 5
    assert not torch.equal(first["model.head.weight"], second["model.head.weight"])
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [3, 5]


def test_averaging_is_the_mean_over_processes(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from zoo.training import distributed as d\n"
        "with d.joined():\n"
        "  r = d.rank(); a, b = torch.full((2, 3), float(r)), torch.tensor([4.0 * r]); d.average([a, b])\n"
        "  assert a.eq(0.5).all() and b.item() == 2, (a, b)\n"
        "  s = torch.tensor([r + 7.0]); d.share([s]); assert s.item() == 7\n"
        "  assert d.any_of(r == 1, a.device) and not d.any_of(False, a.device)\n"
        "  assert [int(t) for t in d.gathered(torch.tensor([r], dtype=torch.uint8), a.device)] == [0, 1]\n"
    )
    (tmp_path / "collectives.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(tmp_path / "collectives.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_training_needs_no_reader_and_no_converter() -> None:
    """What a GPU machine has: torch, numpy, Pillow, safetensors, YAML, rich."""
    code = (
        "import sys; blocked = {'rawpy', 'torchao', 'executorch', 'coremltools', 'litert_torch', 'tifffile', 'exifread',"
        " 'colour_demosaicing'}\n"
        "class Block:\n"
        "  def find_spec(self, name, *_):\n"
        "    if name.split('.')[0] in blocked: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import zoo.training.trainer, zoo.data.pool, zoo.data.synth, zoo.models.registry as r, zoo.cli.train\n"
        "r.create_model('pmrid'); r.create_model('xtrans-unet-16')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_reference_recipe_reads(tmp_path: Path) -> None:
    from zoo.training.config import load_config

    read = load_config(ROOT / "configs" / "reference.yaml", model="pmrid")
    assert (read.model, read.batch, read.patch, read.steps) == ("pmrid", 16, 128, 4000)


def test_files_of_weights_hold_no_fixed_layers(tmp_path: Path) -> None:
    """The linear demosaic inside utnet2-rgb is no weight: files hold what was learnt."""
    from zoo.models.registry import create_model

    state = create_model("utnet2-rgb").state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
    assert sum(v.numel() for v in load_file(tmp_path / "w.safetensors").values()) == 7_760_163
