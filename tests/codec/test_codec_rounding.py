"""From the encoder network's latents to integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.codec import EntropyTables, build, decode_latents, encode_latents, estimate_bits, rounding
from zoo.codec.entropy import prior_map
from zoo.codec.rounding import quantise
from zoo.errors import ZooError


def tables(predicted: int = 1) -> EntropyTables:
    """Two priors, Laplacians; the first ``predicted`` of four channels predicted by their left neighbours."""
    scale = np.array([[0.3, 0.3, 0.4, 0.5], [2.0, 2.0, 3.0, 4.0]])
    mass = np.exp(-np.abs(np.arange(-8, 9)) / scale[..., None])
    neighbours = np.zeros((predicted, 3, predicted), np.int32)
    neighbours[:, 0] = np.eye(predicted) * 30_000
    return build(mass / mass.sum(2, keepdims=True) * 0.999, -8, neighbours=neighbours)


def latents(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wide = np.repeat(rng.choice([0.4, 3.0], (1, 12, 12)), 4, axis=0)
    return (rng.laplace(0, 1, wide.shape) * wide).astype(np.float32)


def test_rounding_costs_less_than_it_saves() -> None:
    """Squared error plus the price of bits, against plain rounding."""
    made, gains, x = tables(), np.array([1.0, 2.0, 0.5, 1.0]), latents()
    scaled = x * gains[:, None, None]
    nearest, chosen = np.rint(scaled).astype(np.int16), quantise(x, gains, made)[0]
    assert chosen.dtype == np.int16
    moved = chosen != nearest
    assert 0.01 < moved.mean() < 0.3
    assert not moved[0].any()  # it is predicted
    assert (np.abs(nearest[moved]) - np.abs(chosen[moved]) == 1).all()
    saved = estimate_bits(nearest, made) - estimate_bits(chosen, made)
    lost = np.square(scaled - chosen).sum() - np.square(scaled - nearest).sum()
    assert 0 < lost < rounding.WORTH * saved


def test_integers_and_priors_are_chosen_for_each_other() -> None:
    """Rounded by the priors of what was rounded by the nearest integers' priors, bits and error cost less than by those alone."""
    mass = np.exp(-np.abs(np.arange(-8, 9)) / np.geomspace(0.15, 3, 8)[:, None, None]).repeat(4, axis=1)
    made = build(mass / mass.sum(2, keepdims=True) * 0.999, -8)
    rng = np.random.default_rng(3)
    x = (rng.laplace(0, 1, (4, 32, 32)) * np.exp(rng.uniform(-2, 1, (32, 32)))).astype(np.float32)
    nearest = np.rint(x).astype(np.int16)
    symbols, priors = quantise(x, np.ones(4), made)
    assert (priors != prior_map(nearest, made)).any()
    assert decode_latents(encode_latents(symbols, made, priors), symbols.shape, made).tolist() == symbols.tolist()
    # A choice for exactly these integers would hardly be shorter.
    assert len(encode_latents(symbols, made, priors)) < 1.002 * len(encode_latents(symbols, made))

    def price(y: np.ndarray) -> float:
        return float(np.square(x - y).sum()) + rounding.WORTH * estimate_bits(y, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "prior_map", lambda *_: prior_map(nearest, made))
        once, _ = quantise(x, np.ones(4), made)
    assert price(symbols) < price(once) < price(nearest)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_integers_stay_integers_unless_bits_are_dear(seed: int) -> None:
    whole = np.rint(latents(seed) * 2)
    np.testing.assert_array_equal(quantise(whole.astype(np.float32), np.ones(4), tables())[0], whole)


def test_halves_go_to_even_and_what_escapes_to_the_nearest() -> None:
    x = np.array([2.5, 3.5, -0.5, 1e9, 700.4, -700.4], np.float32).reshape(1, 2, 3).repeat(4, axis=0)
    got, _ = quantise(x, np.ones(4), tables())
    assert got[0].ravel().tolist() == [2, 4, 0, 32767, 700, -700]
    assert got[3].ravel()[3:].tolist() == [32767, 700, -700]


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ZooError, match="not finite"):
        quantise(np.full((4, 1, 1), np.nan), np.ones(4), tables())
    assert (quantise(np.zeros((4, 2, 2)), np.ones(4), tables())[0] == 0).all()
