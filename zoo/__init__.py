"""Raw zoo: compact joint denoise + demosaic networks for raw photos, with quantised exports for phones.

The names below are imported when first used: ``import zoo`` itself loads neither torch nor rawpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.errors import ZooError
    from zoo.inference.codec import open_codec
    from zoo.inference.denoise import denoise
    from zoo.models.registry import create_model, get_spec, list_models
    from zoo.raw import read_raw
    from zoo.weights import load_weights, using_weights

__version__ = "0.1.0"

__all__ = [
    "ZooError",
    "__version__",
    "create_model",
    "denoise",
    "get_spec",
    "list_models",
    "load_weights",
    "open_codec",
    "read_raw",
    "using_weights",
]

_HOME = {
    "ZooError": "zoo.errors",
    "create_model": "zoo.models.registry",
    "denoise": "zoo.inference.denoise",
    "get_spec": "zoo.models.registry",
    "list_models": "zoo.models.registry",
    "load_weights": "zoo.weights",
    "open_codec": "zoo.inference.codec",
    "read_raw": "zoo.raw",
    "using_weights": "zoo.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
