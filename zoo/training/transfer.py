"""Weights from elsewhere: warm starts, teachers whose estimate is a second target, denoisers in front."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.synth import RawBatch
from zoo.errors import ZooError
from zoo.models.compressor import KEPT, TOLD
from zoo.models.contracts import contract_of
from zoo.models.contracts.bayer_vst import curve_offset
from zoo.models.registry import check_denoiser, check_removes_noise, create_model, list_models
from zoo.models.utnet import CompactUtNet
from zoo.raw import vst
from zoo.training.losses import as_channels

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
    tensors = read_weights(weights.verified(source) if registered else Path(source))
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
    """``steps`` and ``hours`` (of all processes together) of a checkpoint's run and of what it started from."""
    before = meta.get("before", NOTHING)
    hours = meta["seconds"] * meta.get("processes", 1) / 3600
    return {"steps": meta["step"] + before["steps"], "hours": round(hours + before["hours"], 2)}


def read_weights(file: Path) -> dict[str, Tensor]:
    """Weights by name, of a safetensors file, or the averages of a checkpoint of ``zoo train``.

    Raises:
        ZooError: no such file, or not readable.
    """
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
    return part(checkpoint, "model.") | part(checkpoint, "average.")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, by what follows it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def digest_of(source: str) -> str:
    """sha256 of the file that :func:`load_initial` reads for a source; empty where there is none, which it says itself."""
    from zoo import weights

    file = weights.path(source) if source in list_models() else Path(source)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


class Teacher:
    """A trained network that is asked for its estimate.

    Args:
        source: a registered model's name for its shipped weights, or a file ``NAME.safetensors`` with weights of model NAME.
        device: where to run it.
        removes_noise: it is there for :meth:`denoised`.

    Raises:
        ZooError: no such model, a compressor, no weights, or they do not fit; one that leaves the noise, where it is to go.
    """

    def __init__(self, source: str, device: torch.device, *, removes_noise: bool = False) -> None:
        name = source if source in list_models() else Path(source).stem
        if removes_noise:
            check_removes_noise(name)
        else:
            check_denoiser(name, "teach")
        self._model = create_model(name)
        load_initial(self._model, source)
        self._model.to(device).eval().requires_grad_(False)
        if device.type == "cpu":
            self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.contract = contract_of(self._model)

    @torch.no_grad()
    def __call__(self, batch: RawBatch) -> Tensor:
        """The estimate in the VST domain, ``[N, 12, h, w]`` or ``[N, 4, h, w]``, see :class:`zoo.models.contracts.Contract`."""
        return self._estimate(batch.planes, batch.shot, batch.read, batch.wb, batch.cfa)

    def _estimate(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str) -> Tensor:
        # The network as the caller's autocast says; the contract in float32: its demosaic is a convolution too, and bfloat16 has
        # steps of 1/256 at white.
        with torch.autocast(planes.device.type, enabled=False):
            x = self.contract.encode(planes, shot, read, wb, cfa)
        y = self._model(x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x)
        with torch.autocast(planes.device.type, enabled=False):
            return self.contract.estimate(x, y.float(), shot, read, wb)

    @torch.no_grad()
    def denoised(self, batch: RawBatch, which: Tensor) -> RawBatch:
        """The batch with some of its mosaics as if there had been more light, as :func:`zoo.inference.denoise.denoised_mosaic`
        makes them of a photo.

        Args:
            batch: Bayer mosaics.
            which: bool ``[N]``.

        Returns:
            the same but for planes and told noise of the chosen.

        Raises:
            ZooError: a network that leaves demosaicing to others.
        """
        if not which.any():
            return batch
        planes, shot, read, wb = (t[which] for t in (batch.planes, batch.shot, batch.read, batch.wb))
        estimate = self._estimate(planes, shot, read, wb, batch.cfa)
        if estimate.shape[1] != 12:
            raise ZooError("the denoiser gives a mosaic; choose one whose output is RGB, e.g. utnet-m")
        clean = as_channels(vst.inverse(estimate, curve_offset(shot, read)), 4)
        out = dataclasses.replace(batch, planes=batch.planes.clone(), shot=batch.shot.clone(), read=batch.read.clone())
        out.planes[which] = torch.lerp(clean, planes, KEPT)
        out.shot[which] *= TOLD
        out.read[which] *= TOLD
        return out
