"""The test bed: unprocessing, noise, scoring, and networks as methods."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_pictures import SCORED, picture
from torch import nn

from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.evaluation.network import network_method
from zoo.inference.runner import TorchRunner
from zoo.models.contracts import bayer_vst
from zoo.models.registry import ModelSpec


def srgb(seed: int = 0, height: int = 64, width: int = 72) -> np.ndarray:
    return np.float32(picture(seed, height, width)) / 255


def oracle(scene: bed.Scene) -> bed.Method:
    return lambda mosaic, wb, shot, read: scene.truth


def test_camera_matrix_keeps_white_and_range():
    assert np.allclose(bed.CAMERA_MATRIX.sum(1), 1)
    inverse = np.linalg.inv(bed.CAMERA_MATRIX)
    assert inverse.min() >= 0  # so that camera RGB of pictures in [0, 1] lies in [0, 1]


def test_developing_the_truth_gives_the_picture():
    source = srgb()
    scene = bed.make_scene(source, "x", "iso800")
    assert scene.truth.min() >= 0 and scene.truth.max() <= 1 + 1e-6
    assert np.abs(bed.develop(scene.truth) - source.transpose(2, 0, 1)).max() < 1e-4


@pytest.mark.parametrize("size", [(64, 72), (63, 72), (64, 71), (63, 71)])
def test_clean_mosaic_is_the_truth_before_balance(size):
    scene = bed.make_scene(srgb(0, *size), "x", "clean")
    assert scene.mosaic.shape == size and scene.mosaic.dtype == np.float32
    r, g, b = scene.truth / np.array(bed.WB_GAINS)[:, None, None]
    assert np.allclose(scene.mosaic[0::2, 0::2], r[0::2, 0::2])
    assert np.allclose(scene.mosaic[0::2, 1::2], g[0::2, 1::2])
    assert np.allclose(scene.mosaic[1::2, 0::2], g[1::2, 0::2])
    assert np.allclose(scene.mosaic[1::2, 1::2], b[1::2, 1::2])


@pytest.mark.parametrize("level", ["iso800", "iso3200", "iso12800"])
@pytest.mark.parametrize("grey", [0.0, 0.5])
def test_noise_has_the_stated_variance_and_no_bias(level, grey):
    flat = np.full((400, 400, 3), grey, np.float32)
    clean, noisy = bed.make_scene(flat, "flat", "clean").mosaic, bed.make_scene(flat, "flat", level).mosaic
    shot, read = bed.LEVELS[level]
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        error, signal = (noisy - clean)[y::2, x::2].astype(np.float64), float(clean[y, x])
        assert error.var() == pytest.approx(shot * signal + read, rel=0.04)
        assert abs(error.mean()) < 4 * ((shot * signal + read) / error.size) ** 0.5


def test_noise_is_clipped_at_white_and_not_at_black():
    ramp = np.linspace(0, 1, 100, dtype=np.float32)[None, :, None].repeat(100, 0).repeat(3, 2)
    mosaic = bed.make_scene(ramp, "ramp", "iso12800").mosaic
    assert mosaic.min() < -0.05 and mosaic.max() == 1


def test_noise_depends_on_name_and_level_only():
    first = bed.make_scene(srgb(), "a", "iso3200").mosaic
    bed.make_scene(srgb(1), "b", "iso800")
    assert (bed.make_scene(srgb(), "a", "iso3200").mosaic == first).all()
    assert (bed.make_scene(srgb(), "b", "iso3200").mosaic != first).mean() > 0.9
    # Known values: the same noise in every version, or bed.VERSION has to rise.
    assert first[10, 10:13] == pytest.approx([0.183064, 0.233686, 0.157932], abs=1e-6)


def test_perfect_method_scores_perfectly():
    scene = bed.make_scene(srgb(0, *SCORED), "x", "iso3200")
    scores = bed.score(oracle(scene), scene)
    perfect = dict.fromkeys(bed.METRICS, 1.0) | {"psnr": 100, "psnr_linear": 100} | dict.fromkeys(bed.SHADOW_BIAS, 0)
    assert scores.values == pytest.approx(perfect, abs=1e-6)
    assert scores.megapixels == SCORED[0] * SCORED[1] / 1e6


def test_border_is_not_scored_and_the_rest_is():
    scene = bed.make_scene(srgb(0, *SCORED), "x", "clean")
    spoiled = scene.truth.copy()
    spoiled[:, :16], spoiled[:, -16:], spoiled[:, :, :16], spoiled[:, :, -16:] = 9, 9, 9, 9
    assert bed.score(lambda *_: spoiled, scene).values["psnr"] == 100
    spoiled[:, 16, 16] += 0.5
    assert bed.score(lambda *_: spoiled, scene).values["psnr"] < 70  # 0.5 in one of 32,000 pixels


def test_clipping_at_black_shows_as_shadow_bias():
    scene = bed.make_scene(np.full((*SCORED, 3), 0.1, np.float32), "x", "clean")  # 1 % of white
    noise = np.random.default_rng(0).normal(0, 0.02, scene.truth.shape).astype(np.float32)
    fair = bed.score(lambda *_: scene.truth + noise, scene).values
    clipped = bed.score(lambda *_: (scene.truth + noise).clip(0), scene).values
    assert max(abs(fair[c]) for c in bed.SHADOW_BIAS) < 0.15
    assert (
        min(clipped[c] for c in bed.SHADOW_BIAS) > 0.3
    )  # sigma * (density(1/2) - 1/2 * tail(1/2)) = 0.004, 40 % of the level


@pytest.mark.parametrize(
    ("result", "problem"),
    [(np.zeros((3, 8, 8), np.float32), r"\[3, 8, 8\]"), (np.full((3, *SCORED), np.nan, np.float32), "non-finite")],
)
def test_methods_that_return_nonsense_are_refused(result, problem):
    with pytest.raises(ZooError, match=problem):
        bed.score(lambda *_: result, bed.make_scene(srgb(0, *SCORED), "x", "clean"))


def test_small_pictures_are_refused_by_name(tmp_path):
    from PIL import Image

    path = tmp_path / "tiny.png"
    Image.fromarray(np.zeros((207, 300, 3), np.uint8)).save(path)
    with pytest.raises(ZooError, match=r"tiny\.png: a picture of 300x207 is too small to be scored; it needs 208"):
        bed.score_picture(lambda *_: np.zeros(1), bed.Picture(path, "x"), "clean")


def test_pictures_are_found_by_set(pictures_dir):
    def names(*args, **kwargs):
        return [(p.set, p.name) for p in bed.find_pictures(pictures_dir, *args, **kwargs)]

    everything = [("kodak", "kodak_01"), ("kodak", "kodak_02"), ("mcmaster", "mcm_01"), ("mine", "holiday")]
    assert names() == names(["all"]) == everything
    assert names(["mcmaster", "mine"]) == everything[2:]
    assert names(["all"], limit=1) == [everything[0], *everything[2:]]


def test_wrong_folders_and_sets_are_refused(pictures_dir, tmp_path):
    with pytest.raises(ZooError, match="did you mean 'kodak'"):
        bed.find_pictures(pictures_dir, ["kodac"])
    with pytest.raises(ZooError, match="no such folder"):
        bed.find_pictures(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="holds no picture"):
        bed.find_pictures(tmp_path / "empty")
    (pictures_dir / "kodak_01.webp").write_bytes((pictures_dir / "kodak_01.png").read_bytes())
    with pytest.raises(ZooError, match="several pictures named kodak_01"):
        bed.find_pictures(pictures_dir)


# Halo 3: two packed pixels of Toy's, one of the contract's detail planes.
SPEC = ModelSpec("toy", "toy", "denoise+demosaic", "bayer_vst_v1", bayer_vst.IN_CHANNELS, 12, 3, 4, 0, 0)


class Toy(nn.Module):
    """Receptive field of 2 packed pixels, total stride 4: the grid shows in the result where tiles start elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near = nn.Conv2d(bayer_vst.IN_CHANNELS, 12, 5, padding=2)
        self.grid = nn.Parameter(torch.randn(1, 12, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.1 * self.near(x) + 0.1 * self.grid.repeat(1, 1, x.shape[2] // 4, x.shape[3] // 4)


class Tiled(TorchRunner):
    tile = 16

    def __call__(self, x: np.ndarray) -> np.ndarray:
        assert x.shape == (1, bayer_vst.IN_CHANNELS, 16, 16)
        return super().__call__(x)


@pytest.mark.parametrize("size", [(64, 72), (63, 71), (50, 46), (45, 90)])
def test_tiles_give_what_the_whole_picture_gives(size):
    scene = bed.make_scene(srgb(0, *size), "x", "iso3200")
    arguments = (scene.mosaic, bed.WB_GAINS, scene.shot, scene.read)
    whole = network_method(TorchRunner(Toy().eval()), SPEC)(*arguments)
    tiles = network_method(Tiled(Toy().eval()), SPEC)(*arguments)
    assert whole.shape == (3, *size) and whole.dtype == np.float32
    assert np.abs(whole - tiles).max() < 1e-5


@pytest.mark.parametrize("size", [(64, 72), (63, 71)])
def test_network_without_correction_is_the_linear_demosaic_of_the_contract(size):
    class Zero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(x.shape[0], 12, *x.shape[2:])

    scene = bed.make_scene(srgb(0, *size), "x", "iso800")
    result = network_method(TorchRunner(Zero()), SPEC)(scene.mosaic, bed.WB_GAINS, scene.shot, scene.read)
    cut = scene.mosaic[:62, :70]
    planes = np.stack([cut[0::2, 0::2], cut[0::2, 1::2], cut[1::2, 0::2], cut[1::2, 1::2]])
    gains = torch.tensor([[bed.WB_GAINS[i] for i in (0, 1, 2)]])
    shot, read = torch.tensor([scene.shot]) * gains, torch.tensor([scene.read]) * gains**2
    x = bayer_vst.encode(torch.from_numpy(planes)[None] * gains[0, [0, 1, 1, 2], None, None], shot, read)
    expected = bayer_vst.decode(x, torch.zeros(1, 12, *x.shape[2:]), shot, read)[0].numpy()
    assert np.abs(result[:, 4:58, 4:66] - expected[:, 4:58, 4:66]).max() < 1e-5


def test_networks_that_overflow_are_named():
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_full((x.shape[0], 12, *x.shape[2:]), torch.inf)

    scene = bed.make_scene(srgb(0, *SCORED), "x", "clean")
    with pytest.raises(ZooError, match="toy gave values that are not finite"):
        bed.score(network_method(TorchRunner(Broken()), SPEC), scene)


def test_tile_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ZooError, match="tile 16 does not fit toy"):
        network_method(Tiled(Toy()), dataclasses.replace(SPEC, halo=9))
