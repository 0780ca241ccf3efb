"""ManyPriors: factorised priors that compete for every position of a latent (RawNIND, arXiv 2501.08924).

Each prior has one learned density per channel, the four-step cumulative of Balle, Laparra & Simoncelli (ICLR 2017, appendix
6.1). Every position takes the prior under which it costs fewest bits; the index travels as side information. There is no
hyperprior and no context model, so that a decoder needs tables and nothing that was computed in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEPS = 4
_FLOOR = 1e-10  # probability below which bits stop growing: 33 bits
_MAX_BITS = 50.0
# Squared error, in steps, that a bit is worth. Where steps are fine, bits and squared error trade at ln 2 / 6 = 0.116; measured,
# 0.05 saves 1 % of the bytes at equal PSNR without noise, 2 % at ISO 3200 and 4 % at 12,800; 0.08 nowhere more.
WORTH = 0.05


class Densities(NamedTuple):
    """Parameters of densities: one tensor for each step of their cumulatives."""

    slopes: Sequence[Tensor]
    shifts: Sequence[Tensor]
    gates: Sequence[Tensor]


class ManyPriors(nn.Module):
    """``priors`` factorised densities over ``channels`` channels; 11 numbers each.

    Args:
        channels: of the latent.
        priors: how many compete.
        scale: standard deviation that the densities start with, spread by a factor of e around it from prior to prior, so
            that each wins somewhere from the first step.
    """

    def __init__(self, channels: int, priors: int = 64, scale: float = 4.0) -> None:
        super().__init__()
        self.channels, self.priors = channels, priors
        shape = (priors, channels)
        self.slopes = nn.ParameterList(nn.Parameter(torch.randn(shape) * 0.01) for _ in range(_STEPS))
        self.shifts = nn.ParameterList(nn.Parameter(torch.randn(shape) * 0.01) for _ in range(_STEPS))
        self.gates = nn.ParameterList(nn.Parameter(torch.randn(shape) * 0.01) for _ in range(_STEPS - 1))
        with torch.no_grad():
            # The product of the four slopes is 1.8 / standard deviation: a logistic density has sd 1.8 at slope 1.
            spread = torch.linspace(-1, 1, priors).exp()[:, None] if priors > 1 else torch.ones(1, 1)
            slope = (1.8 / (scale * spread)) ** (1 / _STEPS)
            for h in self.slopes:
                h.add_(torch.log(torch.expm1(slope)))

    def densities(self, at: Any) -> Densities:
        """Theirs, each tensor ``[K, C]`` indexed by ``at``."""
        return Densities(*([p[at] for p in group] for group in (self.slopes, self.shifts, self.gates)))


def cumulative(y: Tensor, densities: Densities) -> Tensor:
    """Logit of the cumulative, before the closing sigmoid: of every value, whose shape the parameters broadcast with."""
    for step, (slope, shift) in enumerate(zip(densities.slopes, densities.shifts, strict=True)):
        y = y * F.softplus(slope) + shift
        if step < len(densities.gates):
            y = y + torch.tanh(y) * torch.tanh(densities.gates[step])
    return y


def mass(y: Tensor, densities: Densities) -> Tensor:
    """Probability of the step of width 1 around every value."""
    low, high = cumulative(y - 0.5, densities), cumulative(y + 0.5, densities)
    # On the side where both sigmoids are small, since 1 - 1e-9 has no digits left in float32.
    sign = -torch.sign(low + high).detach()
    return (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()


def bits_of(y: Tensor, densities: Densities) -> Tensor:
    """What every value costs: whole symbols, or noisy ones in training."""
    return (-torch.log2(mass(y, densities) + _FLOOR)).clamp(0, _MAX_BITS)


def cost_table(priors: ManyPriors, reach: int) -> Tensor:
    """Bits of every symbol under every prior: float ``[C * (2 * reach + 1), K]``, symbols -reach..reach.

    Laid out for :func:`torch.nn.functional.embedding_bag`, which then sums the bits of a position over its channels for all
    priors at once: 5 ms for 2,000 positions, where evaluating 64 densities takes 300.
    """
    with torch.no_grad():
        values = torch.arange(-reach, reach + 1, device=priors.slopes[0].device).float().view(1, 1, -1)
        costs = bits_of(values, priors.densities((..., None)))
    return costs.permute(1, 2, 0).reshape(-1, priors.priors).contiguous()


def position_costs(symbols: Tensor, table: Tensor) -> Tensor:
    """Bits of every position under every prior by table: ``[N, C, h, w]`` -> ``[N * h * w, K]``."""
    channels = symbols.shape[1]
    span = table.shape[0] // channels
    reach = span // 2
    flat = symbols.permute(0, 2, 3, 1).reshape(-1, channels).clamp(-reach, reach).long() + reach
    return F.embedding_bag(flat + torch.arange(channels, device=flat.device) * span, table, mode="sum")
