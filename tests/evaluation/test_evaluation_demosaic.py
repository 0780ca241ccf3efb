"""The benchmark of demosaicing alone, against the published protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve
from small_pictures import SCORED, picture

from zoo.errors import ZooError
from zoo.evaluation import bed, demosaic
from zoo.evaluation.method import Picture


def bilinear(mosaic, wb, shot, read):
    """Means of the nearest samples of each colour, RGGB."""
    assert (tuple(wb), tuple(shot), tuple(read)) == ((1, 1, 1), (0, 0, 0), (0, 0, 0))
    planes = np.zeros((3, *mosaic.shape))
    for channel, y, x in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        planes[channel, y::2, x::2] = mosaic[y::2, x::2]
    square, cross = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4, np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    r, g, b = planes
    return np.stack([convolve(r, square), convolve(g, cross), convolve(b, square)]).astype(np.float32)


@pytest.fixture
def source() -> np.ndarray:
    return np.float32(picture(3, *SCORED)) / 255


def test_mosaic_is_the_file_at_the_stated_phase(source):
    seen = []

    def method(mosaic, wb, shot, read):
        seen.append(mosaic)
        return np.zeros((3, *mosaic.shape), np.float32)

    demosaic.score(method, source)
    (mosaic,) = seen
    # GRBG is handed on as RGGB with one mirrored column before it (and one behind, for an even width).
    assert mosaic.shape == (SCORED[0], SCORED[1] + 2)
    green, red, blue = source[0::2, 0::2, 1], source[0::2, 1::2, 0], source[1::2, 0::2, 2]
    assert (mosaic[0::2, 1:-1:2] == green).all() and (mosaic[1::2, 1:-1:2] == blue).all()
    assert (mosaic[0::2, 2::2] == red).all()


def test_perfect_result_is_perfect_and_values_outside_are_clipped(source):
    whole = np.pad(source.transpose(2, 0, 1), ((0, 0), (0, 0), (1, 1)), mode="reflect")
    assert demosaic.score(lambda *_: whole, source).values == pytest.approx({"psnr": 100, "ssim": 1, "ms_ssim": 1})
    white = np.ones_like(source)
    over = np.full_like(whole, 1.5)
    assert demosaic.score(lambda *_: over, white).values["psnr"] == 100


def test_psnr_is_of_all_channels_together(source):
    whole = np.pad(source.transpose(2, 0, 1) * 0.5 + 0.25, ((0, 0), (0, 0), (1, 1)), mode="reflect")
    whole[0] += 0.1  # a third of the values by 0.1: 10 log10(3 / 0.01)
    shifted = source * 0.5 + 0.25
    assert demosaic.score(lambda *_: whole, shifted).values["psnr"] == pytest.approx(24.7712, abs=1e-3)


def test_problems_name_the_file(tmp_path):
    Image.fromarray(np.zeros((100, 300, 3), np.uint8)).save(path := tmp_path / "small.png")
    with pytest.raises(ZooError, match=r"small\.png: a picture of 300x100 is too small"):
        demosaic.score_picture(bilinear, Picture(path, "x"), "clean")


@pytest.mark.slow
def test_bilinear_gives_the_published_figure_on_mcmaster(data_dir: Path):
    pictures = bed.find_pictures(data_dir / "eval_rgb", ["mcmaster"])
    if len(pictures) != 18:
        pytest.skip(f"McMaster's 18 pictures are not all in {data_dir / 'eval_rgb'}; give their folder with --data DIR")
    scores = [demosaic.score_picture(bilinear, p, "clean").values["psnr"] for p in pictures]
    assert np.mean(scores) == pytest.approx(32.30, abs=0.005)
