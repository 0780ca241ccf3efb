"""What a run has to do with the machine under it: its name, its arithmetic, its signals."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.processor import processor_name

if TYPE_CHECKING:
    from rich.console import Console

STOPS = (signal.SIGINT, signal.SIGTERM)


def device_name(device: torch.device) -> str:
    """Of what computes, for checkpoints and cards."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {torch.get_num_threads()} thread(s)"


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16. A CPU without AVX-512 emulates them: 1.8 s a step of utnet-m, not 0.27."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "DEFAULT")


class StopSignal:
    """Turns SIGINT and SIGTERM into a flag, so that a step is finished and a checkpoint written.

    Attributes:
        asked: number of the signal that came first, 0 for none.
    """

    asked = 0

    def __enter__(self) -> None:
        self._before = {s: signal.signal(s, self._ask) for s in STOPS}

    def _ask(self, number: int, _: object) -> None:
        self.asked = self.asked or number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function as ``torch.compile`` makes it; as it is, with a line on stderr, where its first call finds that nothing can."""
    chosen = torch.compile(function)
    tried = False

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal chosen, tried
        first, tried = not tried, True
        try:
            return chosen(*args, **kwargs)
        except Exception as error:  # whatever it is: a mistake of the function's own comes again below
            if not first:
                raise
            result = function(*args, **kwargs)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"compile: not possible here ({reason:.100}), so steps take longer", file=sys.stderr)
            chosen = function
            return result

    return call


class StoppedError(ZooError):
    """A run that a signal ended before its last step; its checkpoint is there.

    Attributes:
        code: exit code, 128 and the signal's number.
        step, steps: how far it came.
    """

    def __init__(self, number: int, step: int, steps: int) -> None:
        super().__init__(stopped_at(step, steps))
        self.code, self.step, self.steps = 128 + number, step, steps


def stopped_at(step: int, steps: int) -> str:
    """What a user is told of a run that did not reach its end."""
    return f"stopped at step {step} of {steps}; run it again to go on"


def progress_console() -> Console:
    """Where progress bars go: stdout is for results."""
    from rich.console import Console

    return Console(stderr=True)
