"""Bjontegaard deltas: known answers, curves that bend back, and reasons where there is no number."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.evaluation.bd import bd_quality, bd_rate, decibels, rising

# Six dB per doubling of the rate, bent a little at its ends.
RATES = [0.1, 0.2, 0.4, 0.8, 1.6]
QUALITIES = [24.0, 29.5, 35.0, 40.0, 44.5]
ANCHOR = (RATES, QUALITIES)


def scaled(rate: float = 1.0, quality: float = 0.0) -> tuple[list[float], list[float]]:
    return [r * rate for r in RATES], [q + quality for q in QUALITIES]


@pytest.mark.parametrize(("factor", "percent"), [(1.0, 0.0), (0.5, -50.0), (1.25, 25.0)])
def test_a_rate_that_is_a_multiple_is_that_much_in_percent(factor, percent):
    assert bd_rate(ANCHOR, scaled(rate=factor)).value == pytest.approx(percent, abs=1e-9)


def test_better_pictures_at_equal_rate_are_that_much_in_decibels():
    delta = bd_quality(ANCHOR, scaled(quality=1.5))
    assert delta.value == pytest.approx(1.5, abs=1e-9) and delta.reason == ""
    assert bd_rate(ANCHOR, scaled(quality=1.5)).value < 0


def test_straight_curves_of_other_points_agree_with_the_integral():
    # ln(rate) = a + b q for both: the mean difference over the shared 26..38 dB is that of the lines.
    first, second = np.array([20.0, 26, 30, 34, 38]), np.array([26.0, 29, 33, 37, 41, 44])
    anchor = (np.exp(0.1 * first - 4).tolist(), first.tolist())
    test = (np.exp(0.12 * second - 5).tolist(), second.tolist())
    shared = np.array([26.0, 38.0])
    expected = 100 * (np.exp((0.02 * shared - 1).mean()) - 1)
    assert bd_rate(anchor, test).value == pytest.approx(expected, abs=1e-6)


def test_order_of_points_does_not_matter():
    shuffled = (RATES[::-1], QUALITIES[::-1])
    assert bd_rate(shuffled, scaled(rate=0.5)).value == pytest.approx(-50)


def test_points_that_cost_more_and_give_less_do_not_count():
    rates, qualities = rising([0.1, 0.2, 0.4, 0.3, 0.8], [20, 22, 21, 22, 23])
    assert rates.tolist() == [0.1, 0.2, 0.8] and qualities.tolist() == [20, 22, 23]
    bent = ([*RATES, 3.2, 6.4], [*QUALITIES, 43.0, 41.0])  # keeps noise at high rates
    assert bd_rate(ANCHOR, bent).value == pytest.approx(0, abs=1e-9)


def test_quality_that_was_reached_is_held_where_more_bits_make_it_worse():
    # Both reach 30 dB at 0.4 bpp. The one falls back after it; nobody would pay for that, so it is no worse for it.
    flat = ([0.1, 0.2, 0.4, 1.6], [20.0, 25, 30, 30])
    bent = ([0.1, 0.2, 0.4, 1.6], [20.0, 25, 30, 22])
    assert bd_quality(flat, bent).value == pytest.approx(0, abs=1e-9)
    better = ([0.1, 0.2, 0.4, 1.6], [21.0, 26, 31, 31])
    assert bd_quality(bent, better).value == pytest.approx(1)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (scaled(quality=40), "lies above the anchor's throughout"),
        (scaled(quality=-40), "lies below the anchor's throughout"),
        (scaled(quality=20.2), "share 0.3 dB only"),
        (([0.1, 0.2, 0.4, 0.8], [30.0, 35, 34, 33]), "the codec's curve rises over 2 points only"),
    ],
)
def test_no_overlap_is_no_number_but_a_reason(test, reason):
    delta = bd_rate(ANCHOR, test)
    assert delta.value is None and reason in delta.reason


def test_anchor_that_hardly_rises_is_the_reason():
    delta = bd_rate(([0.1, 0.2, 0.4, 0.8], [24.0, 30, 29, 28]), ANCHOR)
    assert delta.value is None and delta.reason == "the anchor's curve rises over 2 points only"


def test_rates_without_overlap_have_no_quality_delta():
    delta = bd_quality(ANCHOR, scaled(rate=100))
    assert delta.value is None and "no rate in common" in delta.reason


def test_similarity_in_decibels():
    assert decibels([0.9, 0.99, 1.0]) == pytest.approx([10, 20, 100])


def test_missing_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(ZooError, match=r"BD-rates need bjontegaard: pip install 'raw-zoo\[report\]'"):
        bd_rate(ANCHOR, scaled(quality=1))
