"""Weights from elsewhere: warm starts, and teachers whose estimate is a second target."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.data.synth import RawBatch
from zoo.errors import ZooError
from zoo.models.contracts import contract_of
from zoo.models.registry import check_denoiser, create_model, list_models


def load_initial(model: nn.Module, source: str) -> None:
    """Put weights into a model.

    Args:
        model: of the architecture that the weights are of, or one whose ``denoiser`` is: it alone gets them then.
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
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ZooError(f"{source}: does not fit {type(model).__name__}: {first}") from error


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
