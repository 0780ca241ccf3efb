"""Weights from elsewhere: warm starts, and teachers whose estimate is a second target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.synth import RawBatch
from zoo.errors import ZooError
from zoo.models.contracts import contract_of
from zoo.models.registry import check_denoiser, create_model, list_models
from zoo.models.utnet import CompactUtNet

NOTHING = {"steps": 0, "hours": 0.0}  # what weights drawn at random have cost


def load_initial(model: nn.Module, source: str) -> None:
    """Put weights into a model.

    Args:
        model: of the architecture that the weights are of; or one whose ``denoiser`` is: it alone gets them then; or a compact
            UtNet that is larger than theirs, and computes what they do until it is trained.
        source: a registered model's name for its shipped weights, a safetensors file of weights, or a checkpoint of
            ``zoo train``, whose averaged weights are taken.

    Raises:
        ZooError: no such weights, or they do not fit.
    """
    from zoo import weights

    registered = source in list_models()
    tensors = _read(weights.verified(source) if registered else Path(source))
    denoiser = getattr(model, "denoiser", None)
    if isinstance(denoiser, nn.Module) and tensors.keys() == denoiser.state_dict().keys():
        model = denoiser
    try:
        if isinstance(model, CompactUtNet):
            model.grow(tensors)
        else:
            model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ZooError(f"{source}: does not fit {type(model).__name__}: {first}") from error


def cost(source: str) -> dict[str, Any]:
    """What the weights of :func:`load_initial` have cost: ``steps`` and ``hours``, with those that they started from.

    Nothing for a file of weights alone. The source is one that :func:`load_initial` has read.
    """
    from safetensors import safe_open

    from zoo import weights

    if source in list_models():
        card = weights.card(source)
        return {key: card["training"][key] for key in ("steps", "hours")} if card else dict(NOTHING)
    with safe_open(source, "pt") as file:
        run = (file.metadata() or {}).get("run")
    return spent(json.loads(run)) if run else dict(NOTHING)


def spent(meta: dict[str, Any]) -> dict[str, Any]:
    """``steps`` and ``hours`` of a checkpoint's run and of what it started from."""
    before = meta.get("before", NOTHING)
    return {"steps": meta["step"] + before["steps"], "hours": round(meta["seconds"] / 3600 + before["hours"], 2)}


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise ZooError(f"{file}: no such weights; give a safetensors file or a model of `zoo list`") from error
    except (SafetensorError, OSError) as error:
        raise ZooError(f"{file}: is no readable safetensors file") from error
    return averaged(tensors) or tensors


def averaged(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a checkpoint of ``zoo train`` ships: the averages, and what was not trained as it is."""
    part = lambda prefix: {k.removeprefix(prefix): v for k, v in checkpoint.items() if k.startswith(prefix)}  # noqa: E731
    return part("model.") | part("average.")


class Teacher:
    """A trained network that is asked for its estimate.

    Args:
        source: a registered model's name for its shipped weights, or a file ``NAME.safetensors`` with weights of model NAME.
        device: where to run it.

    Raises:
        ZooError: no such model, a compressor, no weights, or they do not fit.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        name = source if source in list_models() else Path(source).stem
        check_denoiser(name, "teach")
        self._model = create_model(name)
        load_initial(self._model, source)
        self._model.to(device).eval().requires_grad_(False)
        self.contract = contract_of(self._model)

    @torch.no_grad()
    def __call__(self, batch: RawBatch) -> Tensor:
        """The estimate in the VST domain, ``[N, 12, h, w]`` or ``[N, 4, h, w]``, see :class:`zoo.models.contracts.Contract`."""
        told = batch.shot, batch.read, batch.wb
        x = self.contract.encode(batch.planes, *told, batch.cfa)
        return self.contract.estimate(x, self._model(x).float(), *told)
