"""The bitstream's prediction of latents by their neighbours (:mod:`zoo.codec.prediction`), as training prices it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.compressor import PREDICTED, SEEN

_MEMORY = 0.98  # of the statistics, per step
_EVERY = 10  # steps between two solutions
_RIDGE = 1e-4


class NeighbourPrediction:
    """Linear prediction of the lowest latents, by least squares over the last steps' pictures.

    Args:
        latents: channels C; of few of them fewer are predicted.

    Attributes:
        weights: float ``[P, 3 * M]``, of the first M latents of the left, upper and upper left neighbour; zero at first.
    """

    def __init__(self, latents: int) -> None:
        self._seen, predicted = min(SEEN, latents), min(PREDICTED, latents)
        self.weights = torch.zeros(predicted, 3 * self._seen)
        self._square = torch.zeros(3 * self._seen, 3 * self._seen, dtype=torch.float64)
        self._product = torch.zeros(3 * self._seen, predicted, dtype=torch.float64)
        self._steps = torch.zeros((), dtype=torch.int64)

    def predict(self, latents: Tensor) -> Tensor:
        """What neighbours say: ``[N, C, h, w]`` -> ``[N, P, h, w]``, not rounded."""
        n, _, h, w = latents.shape
        return (self.weights @ neighbours(latents[:, : self._seen]).flatten(2)).view(n, -1, h, w)

    @torch.no_grad()
    def learn(self, symbols: Tensor, scale: Tensor) -> None:
        """Take one step's pictures into account.

        Args:
            symbols: rounded latents ``[N, C, h, w]``.
            scale: of a symbol in latents' own units ``[N, C]``, in which errors count; else the best quality decides alone.
        """
        share = scale[:, :1, None].square()
        seen = neighbours(symbols[:, : self._seen]).flatten(2)
        target = symbols[:, : len(self.weights)].flatten(2)
        weighted = (seen * share).transpose(1, 2)
        self._square.mul_(_MEMORY).add_((seen @ weighted).sum(0))
        self._product.mul_(_MEMORY).add_((weighted.transpose(1, 2) @ target.transpose(1, 2)).sum(0))
        if self._steps % _EVERY == 0:
            ridge = _RIDGE * self._square.diagonal().mean().clamp_min(1e-12)
            eye = torch.eye(len(self._square), device=ridge.device, dtype=ridge.dtype)
            self.weights = torch.linalg.solve(self._square + ridge * eye, self._product).T.float().contiguous()
        self._steps += 1

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.load({key: tensor.to(device) for key, tensor in self.state().items()})

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {
            "neighbours": self.weights,
            "neighbours_square": self._square,
            "neighbours_product": self._product,
            "neighbours_steps": self._steps,
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`; a checkpoint without it starts at zero."""
        if "neighbours" in state:
            self.weights = state["neighbours"]
            self._square, self._product = state["neighbours_square"], state["neighbours_product"]
            self._steps = state["neighbours_steps"]


def neighbours(values: Tensor) -> Tensor:
    """Left, upper and upper left neighbour of every position: ``[N, M, h, w]`` -> ``[N, 3 * M, h, w]``.

    In the first row all three are the left one, in the first column the upper one; the first position has none and sees zeros.
    """
    left, up = F.pad(values, (1, 0))[..., :-1], F.pad(values, (0, 0, 1, 0))[..., :-1, :]
    both = F.pad(values, (1, 0, 1, 0))[..., :-1, :-1]
    first = torch.zeros(values.shape[-2:], dtype=torch.bool, device=values.device)
    row, column = first.clone(), first
    row[0], column[:, 0] = True, True
    left = torch.where(column, up, left)
    near = [left, torch.where(row, left, up), torch.where(row, left, torch.where(column, up, both))]
    return torch.cat(near, 1)
