"""Synthetic raws, configuration, and a loop that can be stopped at any moment."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zoo.data.pool import ImagePool, decode_linear, difference_hash
from zoo.data.scene import linear_scene, synthetic_raw
from zoo.data.synth import NoiseRange, RawBatch, RawSynthesizer, mosaic
from zoo.errors import ZooError
from zoo.models.contracts import contract_of
from zoo.models.contracts.bayer_vst import curve_offset, working_range
from zoo.models.registry import create_model
from zoo.models.utnet import CompactUtNet
from zoo.raw import srgb_encode, vst
from zoo.training.config import TrainConfig, load_config, parse_duration
from zoo.training.dark_channels import before_relu
from zoo.training.losses import display_psnr, restoration_loss
from zoo.training.trainer import CHECKPOINT, Trainer, read_checkpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(4):
        picture = np.rint(srgb_encode(linear_scene(256, 240, seed=seed)) * 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{seed}.png")
    rgbe = np.zeros((220, 256, 4), np.uint8)
    rgbe[..., :3], rgbe[..., 3] = 128, np.linspace(126, 134, 256).astype(np.uint8)
    np.savez(folder / "hdr.npz", rgbe=rgbe)
    return folder


@pytest.fixture(scope="module")
def pool(pictures: Path) -> ImagePool:
    return ImagePool.from_folder(pictures, min_side=200)


def tiny() -> CompactUtNet:
    torch.manual_seed(0)
    return CompactUtNet((8,), (1,), (), head_width=4)


def config(**changes: object) -> TrainConfig:
    values = {
        "model": "tiny",
        "steps": 6,
        "batch": 2,
        "patch": 64,
        "precision": "fp32",
        "warmup": 2,
        "validate_every": 100,
    }
    return TrainConfig(**{**values, **changes})  # type: ignore[arg-type]


def test_pool_keeps_linear_light(pool: ImagePool) -> None:
    assert len(pool) == 5
    stored = decode_linear(pool.images[0])
    assert (stored - torch.from_numpy(linear_scene(256, 240, seed=0))).abs().max() < 0.01
    assert max(float(decode_linear(i).max()) for i in pool.images) > 1  # the HDR band


def test_validation_takes_pictures_that_hold_a_training_patch_alone(tmp_path: Path) -> None:
    images = [torch.randint(0, 15000, (70 + n, 150, 3), dtype=torch.int32).to(torch.uint16) for n in range(12)]
    trainer = Trainer(tiny(), config(), ImagePool(images, ""), tmp_path)
    assert {tuple(b.planes.shape) for b in trainer.validation.values()} == {(24, 4, 24, 24)}  # 48: 16 and 6 divide it


def test_progress_ends_with_pictures_that_are_left_out(pictures: Path) -> None:
    told: list[tuple[int, int]] = []
    pool = ImagePool.from_folder(pictures, min_side=230, progress=lambda *at: told.append(at))
    assert len(pool) == 4 and sorted(pictures.iterdir())[-1].name == "hdr.npz"  # which is too small
    assert told == [(n, 5) for n in range(6)]


def test_pool_refuses_held_out_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rough = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    smooth = (
        torch.nn.functional.interpolate(rough, size=(200, 220), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).numpy()
    )
    source = Image.fromarray(np.rint(srgb_encode(smooth) * 255).astype(np.uint8))
    known = difference_hash(smooth)
    monkeypatch.setattr("zoo.data.pool._held_out", lambda: (frozenset(["00"]), known[None]))
    source.resize((110, 100)).save(tmp_path / "copy.jpg", quality=70)  # halved and recompressed, it is still recognised
    with pytest.raises(ZooError, match=r"copy\.jpg: looks like a copy of a held-out"):
        ImagePool.from_folder(tmp_path, min_side=64)
    (tmp_path / "copy.jpg").unlink()
    source.rotate(180).save(tmp_path / "other.png")
    assert len(ImagePool.from_folder(tmp_path, min_side=64)) == 1


def test_shipped_list_refuses_the_evaluation_pictures(data_dir: Path) -> None:
    with pytest.raises(ZooError, match="held-out"):
        ImagePool.from_folder(data_dir / "eval_rgb", min_side=64)


def test_noise_has_the_stated_variance(pool: ImagePool) -> None:
    shot, read = 5e-3, 2e-4
    fixed = NoiseRange(
        shot_min=shot, shot_max=shot, read_floor=(read, read), read_per_iso2=(1e-30, 1e-30), clean=0, row=0, knowledge=0
    )
    batch = RawSynthesizer(pool, 128, fixed).batch(32, torch.Generator().manual_seed(0))
    clean = mosaic(batch.target)
    told = batch.shot[:, [0, 1, 1, 2], None, None] * clean + batch.read[:, [0, 1, 1, 2], None, None]
    # Away from white, where a sensor clips.
    unclipped = clean < 0.5
    ratio = ((batch.planes - clean).square() / told)[unclipped].mean()
    assert float(ratio) == pytest.approx(1, rel=0.03)
    assert float((batch.planes - clean)[unclipped].mean()) == pytest.approx(0, abs=1e-3)
    assert (batch.planes < 0).any()  # nothing is clipped at black


def test_clean_raws_are_the_target(pool: ImagePool) -> None:
    batch = RawSynthesizer(pool, 64, NoiseRange(clean=1.0)).batch(4, torch.Generator().manual_seed(0))
    assert torch.allclose(batch.planes, mosaic(batch.target), atol=1e-6)
    assert batch.shot.abs().max() == 0


def test_all_bayer_phases_are_drawn() -> None:
    # Each pixel holds its own phase within a 2x2 cell: what stands at a patch's origin is the phase it was cut at.
    y, x = torch.meshgrid(torch.arange(96), torch.arange(97), indexing="ij")
    picture = (1000 * (1 + 2 * (y % 2) + x % 2)).to(torch.uint16)[..., None].expand(-1, -1, 3).contiguous()
    crops = RawSynthesizer(ImagePool([picture], ""), 64, NoiseRange())._crops(64, torch.Generator().manual_seed(0))
    assert set(crops[:, 0, 0, 0].tolist()) == {1000, 2000, 3000, 4000}


def test_same_seed_same_batch(pool: ImagePool) -> None:
    make = lambda: RawSynthesizer(pool, 64, NoiseRange()).batch(4, torch.Generator().manual_seed(3)).planes  # noqa: E731
    assert torch.equal(make(), make())


def test_channels_that_no_pixel_lights_come_back(pool: ImagePool, tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.stem.weight[2] = 0
        model.stem.bias[2] = -0.05
    trainer = Trainer(model, config(steps=40, lr=5e-3), pool, tmp_path)
    lit: list[bool] = []
    model.stem.register_forward_hook(lambda m, i, o: lit.append(bool(o[:, 2].amax() > 0)))
    for _ in range(30):
        trainer._train_step()
    assert not lit[0] and all(lit[-3:])


@pytest.mark.parametrize(
    ("model", "lifted"),
    [
        (tiny(), ["stem", "encoder.0.0"]),  # neither what is added to a skip nor what comes out
        (torch.nn.Sequential(torch.nn.Conv2d(12, 12, 3, padding=1), torch.nn.ReLU()), ["0"]),
        (torch.nn.Sequential(torch.nn.Conv2d(12, 12, 3, padding=1), torch.nn.LeakyReLU(0.2)), []),
        (create_model("bayer-codec-m", pretrained=False).decoder, ["step.look", "mend.look"]),
    ],
    ids=["utnet", "relu", "leaky", "codec"],
)
def test_only_channels_that_can_die_are_lifted(model: torch.nn.Module, lifted: list[str]) -> None:
    names = {module: name for name, module in model.named_modules()}
    assert [names[module] for module in before_relu(model)] == lifted


def test_a_layer_that_is_dark_altogether_is_told(
    pool: ImagePool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny()
    Trainer(model, config(steps=2), pool, tmp_path / "whole").run()
    assert "no sample lights" not in capsys.readouterr().err
    first, second = (model.get_submodule(name) for name in ("stem", "encoder.0.0"))
    with torch.no_grad():
        first.bias[0] = 5.0  # type: ignore[index, operator]
        second.bias -= 1e3  # type: ignore[operator]
    Trainer(model, config(steps=2), pool, tmp_path / "dark").run()
    told = capsys.readouterr().err
    assert "no sample lights any channel of encoder.0.0, so all behind it" in told  # and not of the stem
    model = tiny()
    with torch.no_grad():
        model.stem.bias[:4] = -1e3
    Trainer(model, config(steps=2), pool, tmp_path / "part").run()
    assert re.search(r"no sample lights [4-7] of 8 channels of stem\n", capsys.readouterr().err)


def test_training_improves(pool: ImagePool, tmp_path: Path) -> None:
    trainer = Trainer(tiny(), config(steps=150, lr=5e-3, kernel_lr=1e-2, ema=0.9), pool, tmp_path)
    before = trainer.validate()["mean"]
    assert trainer.run()["mean"] > before + 0.3


def test_interrupted_run_equals_uninterrupted(pool: ImagePool, tmp_path: Path) -> None:
    whole = Trainer(tiny(), config(), pool, tmp_path / "whole")
    whole.run()
    first = Trainer(tiny(), config(), pool, tmp_path / "parts")
    for _ in range(3):
        first._train_step()
    (tmp_path / "parts").mkdir()
    first.save()
    first._train_step()  # lost, as after kill -9
    second = Trainer(tiny(), config(), pool, tmp_path / "parts")
    assert second.step == 3
    second.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name


def test_kill_and_resume_through_the_cli(pictures: Path, tmp_path: Path) -> None:
    settings = "model: utnet-n\nbatch: 2\npatch: 64\nsteps: 100000\nprecision: fp32\ncheckpoint_every: 0.5\n"
    (tmp_path / "c.yaml").write_text(settings)
    command = [
        sys.executable, "-m", "zoo", "train", "--config", str(tmp_path / "c.yaml"), "--data", str(pictures),
        "--output-dir", str(tmp_path / "run"), "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "run" / CHECKPOINT
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = read_checkpoint(checkpoint)[1]["step"]
    assert reached > 0
    result = subprocess.run([*command, "--time-budget", "2s", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1])["psnr"]["mean"] > 0
    assert read_checkpoint(checkpoint)[1]["step"] > reached
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".") and str(os.getpid()) in p.name]


def test_a_full_disk_leaves_the_checkpoint_of_before(
    pool: ImagePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny(), config(), pool, tmp_path)
    trainer.save()
    trainer._train_step()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ZooError, match=r"cannot be written \(No space left on device\); choose a folder with space"):
        trainer.save()
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
    assert read_checkpoint(tmp_path / CHECKPOINT)[1]["step"] == 0


def test_another_models_folder_is_refused(pool: ImagePool, tmp_path: Path) -> None:
    Trainer(tiny(), config(steps=1), pool, tmp_path).run()
    with pytest.raises(ZooError, match="holds a run of 'tiny', not of 'other'"):
        Trainer(tiny(), config(model="other"), pool, tmp_path)


def test_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(ZooError, match="damaged"):
        read_checkpoint(tmp_path / CHECKPOINT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: utnet-n\nbach: 3\n", "unknown key 'bach'; did you mean 'batch'"),
        ("model: utnet-n\nnoise: {shot_mn: 1}\n", "unknown key 'shot_mn'; did you mean 'shot_min'"),
        ("model: utnet-n\nbatch: many\n", "'batch' must be int"),
        ("model: [", "is not YAML"),
        ("batch: 3\n", "missing 1 required positional argument: 'model'"),
        ("model: utnet-n\nprecision: fp8\n", "it can be bf16 or fp32"),
        ("model: utnet-n\ntextured: 2\n", "textured is 2.0; it is a share"),
        ("model: utnet-n\nnoise: {read_floor: 5}\n", "'read_floor' must be a list of 2 values, not 5"),
        ("model: utnet-n\nnoise: {read_floor: '1e'}\n", "'read_floor' must be a list of 2 values, not '1e'"),
        ("model: utnet-n\nnoise: {read_floor: [1, 2, 3]}\n", "must be a list of 2 values, not [1, 2, 3]"),
        ("model: utnet-n\nnoise: {read_floor: [a, b]}\n", "'read_floor' must be float, not 'a'"),
        ("model: 2020-02-31\n", "is not YAML (day is out of range"),
    ],
)
def test_configuration_explains(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ZooError, match=re.escape(message)):
        load_config(tmp_path / "c.yaml")


def test_configuration_reads_exponents(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: utnet-n\nlr: 1e-3\nnoise: {clean: 0.5, read_floor: [1e-7, 2e-7]}\n")
    read = load_config(tmp_path / "c.yaml", steps=5)
    assert (read.lr, read.steps, read.noise.clean, read.noise.read_floor) == (1e-3, 5, 0.5, (1e-7, 2e-7))


def test_a_share_of_patches_is_chosen_for_its_texture() -> None:
    """On a picture whose right quarter alone has texture, an even draw seldom meets it, the best of four mostly does."""
    picture = torch.full((256, 1024, 3), 9000)
    picture[:, 768:] += torch.randint(-4000, 4000, (256, 256, 3), generator=torch.Generator().manual_seed(1))
    pool = ImagePool([picture.to(torch.uint16)], "")

    def busy(textured: float) -> list[bool]:
        data = RawSynthesizer(pool, 64, NoiseRange(), textured=textured)
        return [bool(p.float().std() > 50) for p in data._patches(200, torch.Generator().manual_seed(2))]

    even, half, all_of_them = busy(0.0), busy(0.5), busy(1.0)
    assert 0.2 < sum(even) / 200 < 0.4
    assert sum(half[:100]) > 60 and sum(half[100:]) < 40  # the chosen ones come first
    assert sum(all_of_them) > 130


def test_raws_of_display_values_are_the_picture(pool: ImagePool) -> None:
    """What the benchmark ``demosaic`` shows a network: the file's values, gains of 1, no colour matrix."""
    make = lambda share: RawSynthesizer(pool, 64, NoiseRange(clean=1.0), displayed=share).batch(  # noqa: E731
        8, torch.Generator().manual_seed(5)
    )
    batch = make(1.0)
    picture = decode_linear(RawSynthesizer(pool, 64, NoiseRange())._crops(8, torch.Generator().manual_seed(5)))
    assert batch.displayed.all() and not make(0.0).displayed.any()
    np.testing.assert_allclose(batch.target.numpy(), srgb_encode(picture.clamp(0, 1).numpy()), atol=2e-6)
    assert torch.equal(batch.planes, mosaic(batch.target)) and bool((batch.wb == 1).all())
    assert torch.equal(batch.matrix, torch.eye(3).expand(8, 3, 3))


def test_errors_in_display_values_count_as_they_are(pool: ImagePool) -> None:
    """The same error in file values costs the same in shadows and in lights, and is what the validation's PSNR says."""
    batch = RawSynthesizer(pool, 64, NoiseRange(clean=1.0), displayed=1.0).batch(2, torch.Generator().manual_seed(5))
    ends = torch.tensor([0.1, 0.6])[:, None, None, None]
    batch.target = ends.expand_as(batch.target).contiguous()
    contract = contract_of(create_model("utnet-n"))
    x = contract.encode(mosaic(batch.target), batch.shot, batch.read, batch.wb)
    losses = []
    for one in range(2):
        part = RawBatch(*(v[one : one + 1] if isinstance(v, Tensor) else v for v in vars(batch).values()))
        offset = curve_offset(part.shot, part.read)
        wrong = vst.forward(ends[one] + 0.01, offset) - vst.forward(ends[one], offset)
        y = (wrong / working_range(part.shot, part.read)).expand(1, 12, 32, 32)
        loss = restoration_loss(contract, x[one : one + 1], y, part, margin=4, display_weight=0.5)
        losses.append(float(loss) * float(working_range(part.shot, part.read)) / 0.06 / 1.5)
        psnr = display_psnr(contract, x[one : one + 1], y, part, margin=4)
        assert float(psnr) == pytest.approx(40.0, abs=0.01)
    assert losses == pytest.approx([0.01, 0.01], rel=0.06)  # to first order: the curve bends within the error


def test_a_run_without_noise_validates_without(pool: ImagePool, tmp_path: Path) -> None:
    run = Trainer(tiny(), config(noise=NoiseRange(clean=1.0), displayed=0.5), pool, tmp_path)
    assert list(run.validation) == ["clean", "displayed"]
    assert run.validation["displayed"].displayed.all() and set(run.run()) == {"clean", "displayed", "mean"}


def test_a_cpu_that_would_emulate_bf16_trains_in_fp32(
    pool: ImagePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def autocasts(capability: str) -> bool:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        config = TrainConfig(model="utnet-n", batch=2, patch=64)
        with Trainer(create_model("utnet-n"), config, pool, tmp_path)._autocast():
            return torch.is_autocast_enabled("cpu")

    assert autocasts("AVX512") and not autocasts("AVX2")
    run = Trainer(tiny(), config(precision="bf16", steps=1), pool, tmp_path / "run")  # still on the second
    run.run()
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["config"]["precision"] == "fp32"  # what the card will say


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_not_faulted_in_again() -> None:
    """In a process of its own: the setting lasts."""
    code = """
import resource, torch
from zoo.training.allocator import keep_freed_memory
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(40_000_000, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
first = faults()
assert keep_freed_memory()
faults()
print(first, faults())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(out[0]) > 10_000 and int(out[1]) < 0.01 * int(out[0])


def test_durations() -> None:
    assert [parse_duration(t) for t in ("90", "90s", "9m", "1.5h")] == [90, 90, 540, 5400]
    with pytest.raises(ZooError, match="write 90s, 9m"):
        parse_duration("soon")


def test_synthetic_raw_is_a_raw() -> None:
    for phase in ("RGGB", "GRBG", "GBRG", "BGGR"):
        planes, _ = synthetic_raw(65, 63, cfa=phase, shot=0, read=0).packed()
        reference, _ = synthetic_raw(65, 63, cfa="RGGB", shot=0, read=0).packed()
        assert abs(planes.mean((1, 2)) - reference.mean((1, 2))).max() < 0.03
