"""Channels that a ReLU has put out: found while training, and raised by their biases until some pixel lights them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zoo.models.compressor import Compressor

LIFT = 1e-3  # weight of the penalty, and so the gradient of a dark channel's bias
_MANY = 1 / 3  # of a layer's channels are worth a line
_SHARE = 4  # every fourth sample of a batch is looked at


class DarkChannels:
    """Of every watched convolution, what the last training forward left dark.

    Args:
        model: to watch.

    Attributes:
        penalties: the sums of dark channels' biases, negated; every training forward adds to it.

    Behind a ReLU a channel that is negative everywhere has no gradient, so nothing would ever bring it back: Muon's steps, large
    in every direction, left 93 of 96 channels of utnet-m's lowest level like that. Its bias alone is raised: through the kernels,
    of which Muon makes full steps from any gradient, that took 0.23 dB from utnet-m (1,500 steps).

    A layer that is dark altogether is lost with all behind it, and not raised in time where its kernels have grown: the lowest
    level of a utnet-l trained from utnet-m at 5e-3 had outputs of a deviation of 51, none above zero, and nothing else showed it.
    Nor did anything show that half of the last correction of a bayer-codec-m was dark: biases of 60 below zero, which AdamW
    did not raise, probably since a few bright patches make its denominators large.
    """

    def __init__(self, model: nn.Module) -> None:
        self.penalties: list[Tensor] = []
        self._dark: dict[str, Tensor] = {}
        names = {module: name for name, module in model.named_modules()}
        for module in before_relu(model):
            module.register_forward_hook(self._hook(names[module]))

    def tell(self, step: int) -> None:
        """Print which layers are dark altogether, or a third of their channels, if any is."""
        if lost := [name for name, dark in self._dark.items() if bool(dark.all())]:
            print(
                f"step {step}: no sample lights any channel of {', '.join(lost)}, so all behind it has stopped learning; "
                f"start anew with a lower kernel_lr",
                file=sys.stderr,
            )
        for name, dark in self._dark.items():
            if name not in lost and (count := int(dark.sum())) > _MANY * len(dark):
                print(f"step {step}: no sample lights {count} of {len(dark)} channels of {name}", file=sys.stderr)

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def watch(module: nn.Module, _: Any, output: Tensor) -> None:
            if torch.is_grad_enabled():
                assert isinstance(module.bias, Tensor)
                self._dark[name] = dark = output.detach()[::_SHARE].amax((0, 2, 3)) < 0
                self.penalties.append(-(module.bias * dark).sum())

        return watch


def before_relu(model: nn.Module) -> list[nn.Module]:
    """Convolutions with a bias whose output is a ReLU's input as it stands; what is added to something first may be negative.

    None of a graph prepared for QAT, nor of a network that ``torch.fx`` cannot trace.
    """
    if isinstance(model, fx.GraphModule):
        return []
    found = []
    for half in (model.encoder, model.decoder) if isinstance(model, Compressor) else (model,):
        try:
            traced = fx.symbolic_trace(half)
        except fx.proxy.TraceError:
            continue
        for node in traced.graph.nodes:
            called = traced.get_submodule(node.target) if node.op == "call_module" else node.target
            if called in (F.relu, torch.relu) or isinstance(called, nn.ReLU):
                source = node.all_input_nodes[0]
                if source.op == "call_module":
                    found.append(half.get_submodule(source.target))
    return [m for m in found if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and m.bias is not None]
