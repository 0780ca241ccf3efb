"""Graph in, :class:`QuantizedModel` out: post-training quantisation, quantisation-aware training, the integer reference.

The names below are imported when first used: names of operators and the integer reference need no torchao.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantize.integer import IntegerNetwork
    from quantize.model import QuantizedModel

__all__ = ["IntegerNetwork", "QuantizedModel"]

# torchao says on import which of its CUDA libraries it cannot load, torch that an enum is registered twice.
for _noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

_HOME = {"IntegerNetwork": "quantize.integer", "QuantizedModel": "quantize.model"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quantize' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
