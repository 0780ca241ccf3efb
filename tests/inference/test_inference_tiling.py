"""Tiles put together are the whole frame; colours and positions are right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from zoo.errors import ZooError
from zoo.inference.restore import restore
from zoo.inference.tiling import DEFAULT_TILE, mirror, plan
from zoo.models.contracts import bayer_vst
from zoo.raw import BAYER_PHASES

SIZES = [(96, 128), (97, 131), (2, 3), (5, 2), (33, 7), (61, 202)]


def test_the_networks_have_a_halo_worth_testing(float_net, integer_net):
    assert float_net.spec.halo > 10
    assert (float_net.spec.halo, float_net.spec.tile_multiple) == (
        integer_net.spec.halo,
        integer_net.spec.tile_multiple,
    )


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("size", SIZES)
def test_integer_tiles_equal_the_whole_frame_bit_for_bit(integer_net, raw_of, whole, size, cfa):
    raw = raw_of(*size, cfa)
    frame = whole(raw, integer_net, tile=192)
    for tile in (40, 52):
        np.testing.assert_array_equal(whole(raw, integer_net, tile=tile), frame)


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("size", SIZES)
def test_float_tiles_equal_the_whole_frame_to_rounding(float_net, raw_of, whole, size, cfa):
    raw = raw_of(*size, cfa)
    frame = whole(raw, float_net, tile=192)
    for tile in (None, 40, 52):
        np.testing.assert_allclose(whole(raw, float_net, tile=tile), frame, atol=1e-5)


def test_a_halo_that_is_too_small_shows(integer_net, raw_of, whole):
    """The tests above would find a wrong halo: half of it, and tiles differ."""
    spec = integer_net.spec
    narrow = dataclasses.replace(integer_net, spec=dataclasses.replace(spec, halo=spec.halo // 2))
    raw = raw_of(96, 128)
    assert (whole(raw, narrow, tile=40) != whole(raw, integer_net, tile=192)).any()


def test_the_whole_frame_is_the_network_on_the_mirrored_mosaic(float_net, raw_of, whole):
    """Against numpy's own reflection and one plain run, without any of the tiling's code."""
    raw = raw_of(62, 90, "GBRG", black=(64, 64, 64, 64))
    margin = -(-float_net.spec.halo // 4) * 4
    # GBRG: a row above the first R. 64x96 sensor pixels, a multiple of the stride, then margin and ring.
    around = 2 * (margin + 1)
    normalised = np.pad(raw.normalised(), ((around + 1, around + 1), (around, around + 6)), mode="reflect")
    r, g1, g2, b = (normalised[y::2, x::2] for y in range(2) for x in range(2))
    planes = torch.from_numpy(np.stack([r * 2, g1, g2, b * 1.5]))[None].float()
    noise = raw.noise.balanced(raw.wb)
    shot, read = torch.tensor([noise.shot]), torch.tensor([noise.read])
    x = bayer_vst.encode(planes, shot, read)[..., 1:-1, 1:-1]  # without the ring whose detail planes lack neighbours
    y = bayer_vst.decode(x, torch.from_numpy(float_net.runner(x.numpy())), shot, read)[0].numpy()
    expected = y[:, 2 * margin + 1 :, 2 * margin :][:, :62, :90]
    np.testing.assert_allclose(whole(raw, float_net, tile=192), expected, atol=1e-5)


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("size", [(64, 80), (63, 81), (64, 79)])
def test_a_gradient_comes_out_in_place_and_in_colour(zero_net, raw_of, whole, size, cfa):
    """The linear demosaic is exact on planes, so a pixel's shift (0.005) or a swapped colour would show."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    rgb = np.stack([0.1 + 0.004 * x + 0.002 * y, 0.6 - 0.005 * y, 0.2 + 0.006 * x])
    picture = whole(raw_of(*size, cfa, rgb=rgb), zero_net, tile=20)
    # The square-root curve bends the planes slightly; the mirror bends them at the border.
    np.testing.assert_allclose(picture[:, 3:-3, 3:-3], rgb[:, 3:-3, 3:-3], atol=1e-3)
    np.testing.assert_allclose(picture, rgb, atol=0.015)


def test_grey_stays_grey_and_black_stays_black(zero_net, raw_of, whole):
    grey = whole(raw_of(41, 50, "GRBG", rgb=np.full((3, 41, 50), 0.3)), zero_net)
    np.testing.assert_allclose(grey, 0.3, atol=1e-4)
    assert np.abs(whole(raw_of(41, 50, rgb=np.zeros((3, 41, 50))), zero_net)).max() < 1e-6


def test_values_below_black_and_above_white_are_kept(zero_net, raw_of, whole):
    raw = raw_of(40, 40)
    raw.mosaic[:] = 20
    raw.mosaic[:, 20:] = 1023
    picture = whole(raw, zero_net)
    assert picture[:, :, :10].max() < -0.03
    np.testing.assert_allclose(picture[:, 20, 35], raw.wb, rtol=1e-4)


def test_the_noise_scale_reaches_the_network(float_net, raw_of, whole):
    seen = []

    class Spy:
        target, precision, tile = "torch", "fp32", None

        def __call__(self, x):
            seen.append(x[0, -4:-1, 0, 0].copy())
            return np.zeros((1, 12, *x.shape[2:]), np.float32)

    net = dataclasses.replace(float_net, runner=Spy())
    for scale in (1.0, 2.0):
        whole(raw_of(20, 20), net, noise_scale=scale)
    assert (seen[1] > seen[0] * 1.1).all()


def test_progress_counts_tiles(zero_net, raw_of):
    calls = []
    list(restore(raw_of(50, 30), zero_net.runner, zero_net.spec, tile=16, progress=lambda *c: calls.append(c)))
    assert calls == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize("size", [2, 3, 7, 50])
def test_mirror_is_numpys_reflection(size):
    expected = np.pad(np.arange(size), (120, 120), mode="reflect")
    np.testing.assert_array_equal(mirror(-120, size + 120, size), expected)
    assert ((mirror(-120, size + 120, size) - np.arange(-120, size + 120)) % 2 == 0).all()


def test_plan_fits_small_frames_and_caps_large_ones(float_net):
    assert plan(float_net.spec, 4, 9).rows == 1
    assert plan(float_net.spec, 4, 9).tile < 100
    assert plan(float_net.spec, 3000, 2000).tile == DEFAULT_TILE


@pytest.mark.parametrize(
    ("tile", "fixed", "text"),
    [(30, None, "multiples of 4 from"), (8, None, "multiples of 4 from"), (-4, None, "multiples"), (64, 128, "leave")],
)
def test_tiles_that_do_not_fit(float_net, tile, fixed, text):
    with pytest.raises(ZooError, match=text):
        plan(float_net.spec, 100, 100, tile, fixed)


def test_a_fixed_tile_is_used(integer_net, raw_of, whole):
    sizes = set()

    class Fixed:
        target, precision, tile = "litert", "int8", 64

        def __call__(self, x):
            sizes.add(x.shape)
            return integer_net.runner(x)

    raw = raw_of(45, 201)
    fixed = dataclasses.replace(integer_net, runner=Fixed())
    np.testing.assert_array_equal(whole(raw, fixed), whole(raw, integer_net, tile=192))
    assert sizes == {(1, 12, 64, 64)}


def test_what_cannot_be_restored(zero_net, raw_of):
    def start(raw, runner=zero_net.runner, **options):
        return list(restore(raw, runner, zero_net.spec, **options))

    with pytest.raises(ZooError, match="X-Trans"):
        start(dataclasses.replace(raw_of(12, 12), cfa="XTRANS"))
    with pytest.raises(ZooError, match="tile 1000000 is too large: 4096 packed pixels or less"):
        start(raw_of(12, 12), tile=1000000)
    with pytest.raises(ZooError, match="at least 2x2"):
        start(raw_of(1, 12))
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(ZooError, match="noise scale"):
            start(raw_of(12, 12), noise_scale=scale)

    class Overflowing:
        target, precision, tile = "litert", "fp16", None

        def __call__(self, x):
            return np.full((1, 12, *x.shape[2:]), np.inf, np.float32)

    with pytest.raises(ZooError, match="not finite"):
        start(raw_of(12, 12), Overflowing())


def test_no_noise_at_all_is_no_division_by_zero(float_net, raw_of, whole):
    silent = dataclasses.replace(raw_of(20, 20).noise, shot=(0.0,) * 3, read=(0.0,) * 3)
    whole(dataclasses.replace(raw_of(20, 20), noise=silent), float_net)
