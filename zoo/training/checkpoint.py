"""Folders of runs and the checkpoints in them: what may be resumed, and by whom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.training.config import TrainConfig

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"  # a line per validation
# What a run may go on with otherwise than it began. Pictures are known by their digest, wherever they lie.
_MAY_CHANGE = ("steps", "validate_every", "checkpoint_every", "data", "compile", "precision")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and run facts of a checkpoint.

    Raises:
        ZooError: missing or damaged file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["run"])  # noqa: SIM118
    except FileNotFoundError as error:
        raise ZooError(f"{path}: no such checkpoint; `zoo train` writes one") from error
    except (SafetensorError, KeyError, TypeError) as error:
        raise ZooError(f"{path}: is damaged or no checkpoint of `zoo train`; delete it to start anew") from error


def check_same_run(
    folder: Path, meta: dict[str, Any], config: TrainConfig, digest: str, asked: Mapping[str, str]
) -> None:
    """Refuse to go on with a run under another configuration or on other pictures, which its card would say of all its steps.

    Args:
        folder: of the run.
        meta: of its checkpoint. What an older one does not hold is not compared.
        config, digest: with which it is to go on.
        asked: sha256 of the weights of its teacher and its denoiser.

    Raises:
        ZooError: they are not the run's.
    """
    before = meta["config"]
    if before["model"] != config.model:
        raise ZooError(f"{folder}: holds a run of '{before['model']}', not of '{config.model}'; give another folder")
    instead = f"give another folder, start from this one with 'init: {folder / CHECKPOINT}'"
    # Of before kernel_lr was there, runs have one optimiser.
    if bool(before.get("kernel_lr")) != bool(config.kernel_lr):
        raise ZooError(f"{folder}: holds a run of other optimisers (kernel_lr); {instead}")
    now = _flat(json.loads(json.dumps(asdict(config))))  # as the file holds it
    other = [k for k, v in _flat(before).items() if k not in _MAY_CHANGE and k in now and now[k] != v]
    if meta.get("data_sha256", digest) != digest:
        other.append("data (other pictures)")
    other += [
        f"{key} (other weights)" for key, known in meta.get("asked_sha256", {}).items() if asked.get(key) != known
    ]
    if other:
        raise ZooError(f"{folder}: holds a run with another {', '.join(other)}; {instead}")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return found


def load_network(folder: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put a checkpoint's weights into the model of its run.

    Raises:
        ZooError: other layers.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ZooError(f"{folder}: holds a run of other layers ({first:.120}); give another folder") from error


def unfinished(meta: dict[str, Any]) -> str:
    """What a checkpoint's run lacks, of its steps; empty for one that is done."""
    steps = meta["config"].get("steps", 0)
    return f"holds {meta['step']} of {steps} steps" if meta["step"] < steps else ""
