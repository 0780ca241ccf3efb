"""Weights by name: ``<name>.safetensors`` (float), ``<name>-qat.safetensors`` (quantised), ``<name>.yaml`` (card).

A compressor has ``<name>-tables.safetensors`` besides: its entropy tables and the gains of its qualities. They lie in this
folder, or in one of `zoo publish`, which :func:`using_weights` puts in front.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent  # of those that ship
_own: Path | None = None


@contextlib.contextmanager
def using_weights(folder: str | os.PathLike[str], *names: str) -> Iterator[None]:
    """Within it, models whose weights lie in a folder that `zoo publish` wrote have those; the others have what ships.

    Args:
        folder: as ``zoo publish RUN --output-dir`` was given it.
        names: models of which at least one has to be in it.

    Raises:
        ZooError: no such folder, no weights in it, or none of those models.
    """
    global _own
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise ZooError(f"{folder}: {what}; give the folder that `zoo publish RUN --output-dir DIR` wrote")
    held = sorted(file.stem for file in folder.glob("*.yaml") if file.with_suffix(".safetensors").exists())
    if not held:
        raise ZooError(f"{folder}: holds no weights with a card; write them with `zoo publish RUN --output-dir DIR`")
    if names and not set(names) & set(held):
        raise ZooError(f"{folder}: holds {', '.join(held)}, and nothing of {', '.join(names)}; leave --weights out")
    before, _own = _own, folder
    try:
        yield
    finally:
        _own = before


def home(name: str) -> Path:
    """Folder that a model's weights are taken from."""
    return _own if _own is not None and (_own / f"{name}.yaml").exists() else FOLDER


def label() -> str:
    """Name of the folder that :func:`using_weights` puts in front, to keep apart what is made of it; empty without one."""
    return "" if _own is None else _own.resolve().name


def described(name: str) -> str:
    """Where a model's weights are from, as messages say it."""
    return "those that ship" if home(name) == FOLDER else f"those in {home(name)}"


def listed(file: Path, facts: Mapping[str, Any] | None) -> bool:
    """Whether weights are there that a card knows; others beside it may be of float weights that have been replaced."""
    return file.exists() and file.name in (facts or {}).get("sha256", {})


def path(name: str, *, quantized: bool = False, half: str = "") -> Path:
    """Where the weights of a model lie; the file may not exist. ``half`` of a compressor's quantised ones: they are two files."""
    part = f"{name}-{half}" if half else name
    return home(name) / (f"{part}-qat.safetensors" if quantized else f"{name}.safetensors")


def tables_path(name: str) -> Path:
    """Where the entropy tables of a compressor lie; the file may not exist."""
    return home(name) / f"{name}-tables.safetensors"


def card(name: str, folder: Path | None = None) -> dict[str, Any] | None:
    """The card of a model's weights (data, licences, configuration, steps, hours, device, sha256), None if it has none.

    Args:
        name: registered model.
        folder: where the weights lie; None for :func:`home`.

    Raises:
        ZooError: there is a file of that name that is none.
    """
    import yaml

    file = (folder or home(name)) / f"{name}.yaml"
    if not file.exists():
        return None
    try:
        facts = yaml.safe_load(file.read_text())
        if not isinstance(facts, dict) or not isinstance(facts.get("sha256", {}), dict):
            raise ValueError("no facts")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ZooError(f"{file}: is damaged, or no card of weights; {_cure(file)}") from error
    return facts


def verified(name: str, *, quantized: bool = False, half: str = "") -> Path:
    """Path of weights whose sha256 is the card's.

    Raises:
        ZooError: no weights, no card, or a file that differs from it.
    """
    kind, cure = ("quantised weights", "`zoo quantize`") if quantized else ("weights", "`zoo train`")
    return _verified(name, path(name, quantized=quantized, half=half), kind, cure)


def verified_tables(name: str) -> Path:
    """Path of a compressor's tables whose sha256 is the card's.

    Raises:
        ZooError: as of :func:`verified`.
    """
    verified(name)  # without weights, training them is what is to be done first
    return _verified(name, tables_path(name), "entropy tables", "`zoo publish RUN`")


def _verified(name: str, file: Path, kind: str, cure: str) -> Path:
    facts = card(name)
    if not file.exists() or facts is None or file.name not in facts.get("sha256", {}):
        if file.parent == FOLDER:
            raise ZooError(f"{name}: no {kind} ship with this version; make them with {cure}")
        raise ZooError(
            f"{name}: no {kind} in {file.parent}; make them with {cure} and put them there with `zoo publish`"
        )
    if hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"][file.name]:
        raise ZooError(f"{file}: sha256 differs from its card; the file is damaged, {_cure(file)}")
    return file


def _cure(file: Path) -> str:
    return "install the package again" if file.parent == FOLDER else "publish the weights again"


def load_weights(model: nn.Module, name: str) -> nn.Module:
    """Load the float weights of ``name`` into ``model`` (checked by sha256); returns the model.

    Raises:
        ZooError: see :func:`verified`; or the weights do not fit the model.
    """
    from safetensors.torch import load_file

    file = verified(name)
    try:
        model.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise ZooError(
            f"{file}: does not fit {type(model).__name__}; it is of another version of this package"
        ) from error
    return model
