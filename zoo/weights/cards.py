"""What publishing writes on cards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.files import replacing
from zoo.weights import card


def earlier(made: Path, file: Path, name: str) -> dict[str, dict[str, list[str]]]:
    """What a card says of files before ``made``, which is to replace ``file``, that hold the same layers: times measured with
    them still hold.
    """
    before = card(name, file.parent) or {}
    digests = {n: list(digests) for n, digests in before.get("earlier", {}).items()}
    if not file.exists() or _layers(file) != _layers(made):
        digests.pop(file.name, None)
    elif file.read_bytes() != made.read_bytes():
        digests.setdefault(file.name, []).append(hashlib.sha256(file.read_bytes()).hexdigest())
    return {"earlier": digests}


def _layers(file: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor of a safetensors file, by name."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        parts = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        return {name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()}


def update_card(
    folder: Path, name: str, files: Sequence[Path], facts: dict[str, Any], gone: Sequence[str] = ()
) -> None:
    """Write the card of files that were just written into ``folder``.

    Args:
        folder: where they lie.
        name: model.
        files: whose sha256 it is to hold.
        facts: all else that it says.
        gone: names of files that are none of the model's any more; what takes their place compares its layers with theirs.
    """
    import yaml

    before = (card(name, folder) or {}).get("sha256", {})
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    facts["sha256"] = {**{k: v for k, v in before.items() if k not in gone}, **digests}
    with replacing(folder / f"{name}.yaml") as made:
        made.write_text(yaml.safe_dump(facts, sort_keys=False, width=120))
