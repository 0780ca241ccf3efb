"""Shipped weights: ``<name>.safetensors`` (float), ``<name>-qat.safetensors`` (quantised), ``<name>.yaml`` (card).

A compressor has ``<name>-tables.safetensors`` besides: its entropy tables and the gains of its qualities.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent


def path(name: str, *, quantized: bool = False, half: str = "") -> Path:
    """Where the weights of a model lie; the file may not exist. ``half`` of a compressor's quantised ones: they are two files."""
    part = f"{name}-{half}" if half else name
    return FOLDER / (f"{part}-qat.safetensors" if quantized else f"{name}.safetensors")


def tables_path(name: str) -> Path:
    """Where the entropy tables of a compressor lie; the file may not exist."""
    return FOLDER / f"{name}-tables.safetensors"


def card(name: str, folder: Path | None = None) -> dict[str, Any] | None:
    """The card of a model's weights (data, licences, configuration, steps, hours, device, sha256), None if none ships.

    Args:
        name: registered model.
        folder: where the weights lie; None for where they ship.
    """
    import yaml

    file = (folder or FOLDER) / f"{name}.yaml"
    return yaml.safe_load(file.read_text()) if file.exists() else None


def verified(name: str, *, quantized: bool = False, half: str = "") -> Path:
    """Path of shipped weights whose sha256 is the card's.

    Raises:
        ZooError: no weights, no card, or a file that differs from it.
    """
    kind, verb = ("quantised weights", "zoo quantize") if quantized else ("weights", "zoo train")
    return _verified(name, path(name, quantized=quantized, half=half), kind, verb)


def verified_tables(name: str) -> Path:
    """Path of a compressor's tables whose sha256 is the card's.

    Raises:
        ZooError: as of :func:`verified`.
    """
    verified(name)  # without weights, training them is what is to be done first
    return _verified(name, tables_path(name), "entropy tables", "python -m tools.publish RUN")


def _verified(name: str, file: Path, kind: str, verb: str) -> Path:
    facts = card(name)
    if not file.exists() or facts is None or file.name not in facts["sha256"]:
        raise ZooError(f"{name}: no {kind} ship with this version; make them with `{verb}`")
    if hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"][file.name]:
        raise ZooError(f"{file}: sha256 differs from its card; the file is damaged, install the package again")
    return file


def load_weights(model: nn.Module, name: str) -> nn.Module:
    """Load the shipped float weights of ``name`` into ``model`` (checked by sha256); returns the model.

    Raises:
        ZooError: see :func:`verified`; or the weights do not fit the model.
    """
    from safetensors.torch import load_file

    file = verified(name)
    try:
        model.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise ZooError(
            f"{file}: does not fit {type(model).__name__}; the package's files are of two versions"
        ) from error
    return model
