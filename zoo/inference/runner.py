"""What runs one tile: the interface that every runtime offers, and PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import nn

MOST_THREADS = 1024  # more than machines have; far beyond it the system refuses them, and PyTorch ends the process


def check_threads(threads: int | None, name: str = "threads") -> None:
    """Refuse a number of threads that no machine has.

    Raises:
        ZooError: below 1 or above :data:`MOST_THREADS`.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        limit = "1 or more" if threads < 1 else f"{MOST_THREADS} or less"
        raise ZooError(f"{name} is {limit}, not {threads}")


class TileRunner(Protocol):
    """A network in some runtime: packed tile in, packed tile out, channels by its contract (:mod:`zoo.models.contracts`).

    The integer reference of ``quantize`` and the runners of ``export`` satisfy it without knowing it, so nothing here
    has to import them.
    """

    @property
    def target(self) -> str:
        """Runtime, e.g. ``torch``, ``integer``, ``executorch``, ``litert``."""

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16`` or ``int8``."""

    @property
    def tile(self) -> int | None:
        """Packed side that it takes; None for any."""

    def __call__(self, x: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]:
        """float32 ``[1, in_channels, t, t]`` -> float32 ``[1, out_channels, t, t]``."""


@contextmanager
def torch_beside(runner: TileRunner) -> Iterator[None]:
    """One thread for torch's functions around a network that another runtime runs.

    Threads of their own gain nothing and spin against the network's and the writer's: 12 megapixels took 3.2 s with two, 1.6
    with one.
    """
    import torch

    threads = torch.get_num_threads()
    alone = runner.target in ("torch", "integer")
    if not alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if not alone:
            torch.set_num_threads(threads)


class TorchRunner:
    """Runs a torch module on the CPU, any tile size.

    Args:
        model: in eval mode.
        threads: of PyTorch, for the whole process; None leaves them as they are.

    Raises:
        ZooError: as of :func:`check_threads`.
    """

    target = "torch"
    precision = "fp32"
    tile = None

    def __init__(self, model: nn.Module, threads: int | None = None) -> None:
        import torch

        check_threads(threads)
        if threads is not None:
            torch.set_num_threads(threads)
        self._model = model

    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            return self._model(torch.from_numpy(x)).numpy()
