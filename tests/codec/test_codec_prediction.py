"""Predicting a position's lowest latents by its neighbours', and tables that are counted."""

from __future__ import annotations

import numpy as np
import pytest
from reference_decoder import restore as restore_plainly

from zoo.codec import build, decode_latents, encode_latents, estimate_bits
from zoo.codec.fitting import count
from zoo.codec.prediction import MAX_WEIGHT, fit_weights, residual, restore


@pytest.mark.parametrize("shape", [(6, 1, 1), (6, 1, 9), (6, 9, 1), (6, 7, 5), (3, 32, 32)])
@pytest.mark.parametrize(("predicted", "seen"), [(1, 1), (3, 1), (2, 3)])
def test_restore_undoes_residual_even_where_16_bits_wrap(shape: tuple, predicted: int, seen: int) -> None:
    rng = np.random.default_rng(1)
    latents = rng.integers(-32768, 32768, shape).astype(np.int16)
    weights = rng.integers(-MAX_WEIGHT, MAX_WEIGHT + 1, (predicted, 3, seen)).astype(np.int32)
    coded = residual(latents, weights)
    assert coded.dtype == np.int16
    assert (coded[predicted:] == latents[predicted:]).all()
    assert shape[1:] == (1, 1) or (coded[:predicted] != latents[:predicted]).any()
    np.testing.assert_array_equal(restore(coded, weights), latents)


def test_plain_integers_predict_the_same() -> None:
    rng = np.random.default_rng(2)
    coded = rng.integers(-300, 300, (5, 6, 8)).astype(np.int16)
    weights = rng.integers(-60_000, 60_000, (3, 3, 4)).astype(np.int32)
    plain = [channel.ravel().tolist() for channel in coded]
    restore_plainly(plain, 8, weights.tolist())
    np.testing.assert_array_equal(restore(coded, weights).reshape(5, -1), plain)


def test_weights_find_what_makes_a_picture() -> None:
    """Latents that are their left neighbour's plus half of the difference of the two above, and noise."""
    rng = np.random.default_rng(3)
    latents = np.zeros((2, 40, 40))
    for y in range(40):
        for x in range(40):
            near = latents[:, y, x - 1] + 0.5 * (latents[:, y - 1, x] - latents[:, y - 1, x - 1]) if x and y else 0
            latents[:, y, x] = 0.9 * near + rng.normal(0, 30, 2)
    latents = np.rint(latents).astype(np.int32)
    weights = fit_weights([(latents, 1.0)], 2, 2) / 65536
    np.testing.assert_allclose(weights[0, :, 0], [0.9, 0.45, -0.45], atol=0.1)
    np.testing.assert_allclose(weights[0, :, 1], 0, atol=0.1)
    left = residual(latents.astype(np.int16), fit_weights([(latents, 1.0)], 2, 2))
    assert left.std() < 0.8 * latents.std()


def test_pictures_without_content_leave_weights_at_zero() -> None:
    assert (fit_weights([(np.zeros((4, 8, 8), np.int16), 1.0)], 2, 4) == 0).all()


def test_counted_tables_beat_those_of_wrong_densities() -> None:
    rng = np.random.default_rng(4)
    scale = np.array([0.2, 1.5])[rng.integers(0, 2, (20, 16, 16))]
    tiles = [np.rint(rng.laplace(0, s, (6, 16, 16))).astype(np.int16) for s in scale]
    maps = [(np.abs(t).mean(0) > 0.5).astype(np.uint8) for t in tiles]
    steps, none = np.full((1, 6), 65536), np.zeros((1, 3, 1), np.int32)
    tables = count(tiles, maps, priors=2, low=-8, values=17, steps=steps, neighbours=none, max_rows=8)
    assert len(tables.frequencies) <= 8
    wide = np.exp(-np.abs(np.arange(-8, 9)) / 4.0)
    guessed = build(np.tile(wide / wide.sum(), (2, 6, 1)), -8, steps=steps)
    bits = [sum(estimate_bits(t, made) for t in tiles) for made in (tables, guessed)]
    assert bits[0] < 0.7 * bits[1]
    for tile in tiles[:3]:
        np.testing.assert_array_equal(decode_latents(encode_latents(tile, tables), tile.shape, tables), tile)
