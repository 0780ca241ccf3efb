"""Graph in, :class:`QuantizedModel` out: post-training quantisation, quantisation-aware training, the integer reference.

The names below are imported when first used: names of operators and the integer reference need no torchao.
"""

from __future__ import annotations

import importlib
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from quantize.integer import IntegerNetwork
    from quantize.model import QuantizedModel

__all__ = ["IntegerNetwork", "QuantizedModel", "check_installed"]

# torchao says on import which of its CUDA libraries it cannot load, torch that an enum is registered twice.
for _noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

_HOME = {"IntegerNetwork": "quantize.integer", "QuantizedModel": "quantize.model"}


def check_installed() -> None:
    """Make sure that the libraries are there which quantise, and read quantised models.

    Raises:
        ZooError: one is not.
    """
    for package in ("torchao", "executorch"):
        if find_spec(package) is None:
            raise ZooError(f"int8 needs {package}; install it with: pip install 'raw-zoo[quantize]'")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quantize' has no attribute '{name}'")
    if name == "QuantizedModel":
        check_installed()
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
