"""A quantised network as a value: saved as safetensors + JSON, turned into graphs for the exporters and the reference."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from quantize.integer import IntegerNetwork, attribute
from quantize.recipe import PerChannelFakeQuantize, fake_quantizers, prepare
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.models.contracts import contract_of

FORMAT = 1


@dataclass
class QuantizedModel:
    """A network with its int8 scales.

    Attributes:
        name: registered model name.
        recipe: ``"ptq"`` or ``"qat"``.
        prepared: graph with fake quantisation and fixed ranges (see :mod:`quantize.recipe`).
        facts: JSON-able record: calibration, training, largest activation, versions, and as ``start_sha256`` what
            :func:`quantize.qat.state_sha256` says of the float weights.
        half: of a compressor: ``"encoder"`` or ``"decoder"``, else empty.
    """

    name: str
    recipe: str
    prepared: nn.Module
    facts: dict[str, Any] = field(default_factory=dict)
    half: str = ""

    def graph(self, *, fold: bool) -> fx.GraphModule:
        """The converted PT2E graph.

        Args:
            fold: int8 weights (ExecuTorch, Core ML, integer reference) rather than float ones behind q/dq (LiteRT).
        """
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepared = copy.deepcopy(self.prepared).eval()
            # Weight scales := max|w| / 127 of the final weights; a forward pass with observers on does it.
            for module in fake_quantizers(prepared, PerChannelFakeQuantize).values():
                module.enable_observer()
            prepared(torch.zeros(1, _channels(self.name, self.half), 64, 64))
            # fold=False leaves quantize ops on the weights, but the int8 values are the same.
            converted = convert_pt2e(prepared, fold_quantize=fold)
        return snap_biases(converted)

    def integer(self) -> IntegerNetwork:
        """The integer reference of this model."""
        return IntegerNetwork(self.graph(fold=True))

    def save(self, folder: Path) -> Path:
        """Write ``<name>[-<half>]-<recipe>.safetensors`` (tensors and facts) into ``folder``; returns its path.

        Raises:
            ZooError: the system refuses it.
        """
        from safetensors.torch import save

        path = folder / f"{'-'.join(part for part in (self.name, self.half, self.recipe) if part)}.safetensors"
        tensors = {k: v.detach().contiguous().clone() for k, v in self.prepared.state_dict().items()}
        meta = {"format": FORMAT, "name": self.name, "recipe": self.recipe, "facts": self.facts, "half": self.half}
        with replacing(path, parents=True) as made:
            made.write_bytes(save(tensors, {"quantized_model": json.dumps(meta, sort_keys=True)}))
        return path

    @classmethod
    def load(cls, path: Path) -> QuantizedModel:
        """Read what :meth:`save` wrote and rebuild the graph; no pickle is involved.

        Raises:
            ZooError: missing, damaged or foreign file.
        """
        from safetensors import SafetensorError, safe_open

        from zoo.models.registry import create_model

        try:
            with safe_open(path, "pt") as file:
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
                meta = json.loads(file.metadata()["quantized_model"])
        except FileNotFoundError as error:
            raise ZooError(f"{path}: no such quantised model; `zoo quantize` writes one") from error
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ZooError(f"{path}: is damaged or not a quantised model; write it anew with `zoo quantize`") from error
        if meta["format"] != FORMAT:
            raise ZooError(f"{path}: has format {meta['format']}, this version reads {FORMAT}; write it anew")
        model, half = create_model(meta["name"]), meta.get("half", "")
        network = model.get_submodule(half) if half else model
        prepared = prepare(network, _channels(meta["name"], half))
        _load_state(prepared, tensors, path)
        return cls(meta["name"], meta["recipe"], prepared, meta["facts"], half)


def _channels(name: str, half: str) -> int:
    """Channels of what a network, or a half of one, is fed."""
    if half == "decoder":
        from zoo.models.registry import check_compressor

        return check_compressor(name).channels(half)
    return contract_of(None, name).in_channels


def snap_biases(graph: fx.GraphModule) -> fx.GraphModule:
    """Move every bias onto the grid ``scale_x * scale_w`` of its accumulator, in place.

    ExecuTorch rounds b / (sx * sw) in float32, LiteRT in float64: a bias that lies half-way between two steps gave results
    one step apart (90 of 196,608 outputs of one QAT model). On the grid both round to the same integer.
    """
    for node in graph.graph.nodes:
        if node.op != "call_function" or not ("conv2d" in str(node.target) or "conv_transpose2d" in str(node.target)):
            continue
        if len(node.args) < 3 or node.args[2] is None:
            continue
        source, weight, bias = node.args[:3]
        scale_w = weight.args[1]
        step = torch.as_tensor(float(source.args[1])).float() * (
            attribute(graph, scale_w).float() if isinstance(scale_w, fx.Node) else torch.tensor([float(scale_w)])
        )
        value = attribute(graph, bias)
        with torch.no_grad():
            value.copy_((torch.round(value.double() / step.double()) * step.double()).to(value.dtype))
    return graph


def _load_state(prepared: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into the graph, resizing the observers' buffers, which are empty before calibration."""
    # Under every name that it has: what is concatenated shares one range, and so one module.
    own = {**dict(prepared.named_parameters()), **dict(prepared.named_buffers(remove_duplicate=False))}
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())[0]
        raise ZooError(f"{path}: does not fit this version's graph (first difference: {odd}); write it anew")
    with torch.no_grad():
        for key, value in tensors.items():
            if own[key].shape != value.shape:
                own[key].resize_(value.shape)
            own[key].copy_(value)
