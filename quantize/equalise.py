"""Channels of like ranges before int8 gives all of a tensor one step (cross-layer equalisation: Nagel et al., ICCV 2019).

A ReLU passes positive factors, so a channel may be multiplied by one where it is made and divided by it where it is read, and
the network computes what it computed. Of the tensors of utnet-m at packed resolution, whose steps show in the picture, half
of the channels used less than two thirds of the range that the widest one needs.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_LIMIT = 8.0  # of a channel that hardly ever speaks little is known
_RARE = 1e-3  # of a channel's values may lie beyond its range, as calibration cuts them off too
_CONVS = (nn.Conv2d, nn.ConvTranspose2d)
_SUMS = (operator.add, torch.add)


@torch.no_grad()
def equalise(model: nn.Module, inputs: Iterable[Tensor]) -> nn.Module:
    """A copy of ``model`` whose channels inside reach as far as the widest of their tensor, by a factor of 8 at most.

    Channels that are added, or read by several layers, have one factor together: the largest that widens none of the tensors that
    layers read. What the network is fed and what it gives is left alone, as is what goes into or comes out of anything but
    convolutions without groups, ReLU, sums and concatenation.

    Args:
        model: convolutions, each called once.
        inputs: of the network, float32 ``[N, C, h, w]``; raws of every noise level.
    """
    graph = fx.symbolic_trace(copy.deepcopy(model).eval())
    layers = {n: graph.get_submodule(str(n.target)) for n in graph.graph.nodes if n.op == "call_module"}
    classes = _Classes()
    for node in graph.graph.nodes:
        classes.visit(node, layers.get(node))
    factors = classes.factors(_ranges(graph, layers, inputs))
    for node, layer in layers.items():
        if isinstance(layer, _CONVS) and layer.groups == 1:  # around others all factors are 1
            made, read = factors[node][:, None, None, None], factors[node.all_input_nodes[0]][None, :, None, None]
            if isinstance(layer, nn.ConvTranspose2d):
                made, read = made.transpose(0, 1), read.transpose(0, 1)
            layer.weight.mul_(made).div_(read)
            if layer.bias is not None:
                layer.bias.mul_(factors[node])
    result = copy.deepcopy(model)
    result.load_state_dict(graph.state_dict())
    return result


class _Classes:
    """Which channels of which results share a factor: union-find over channels."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._fixed: set[int] = set()
        self._channels: dict[fx.Node, list[int]] = {}

    def visit(self, node: fx.Node, layer: nn.Module | None) -> None:
        sources = [self._channels[n] for n in node.all_input_nodes]
        known = all(sources)
        if isinstance(layer, _CONVS) and layer.groups == 1:
            first = len(self._parents)
            self._channels[node] = list(range(first, first + layer.out_channels))
            self._parents += self._channels[node]
        elif isinstance(layer, nn.ReLU) or node.target in (F.relu, torch.relu):
            self._channels[node] = sources[0]
        elif node.target in _SUMS and len(sources) == 2 and known:
            for one, two in zip(*sources, strict=True):
                self._parents[self._root(one)] = self._root(two)
            self._channels[node] = sources[0]
        elif node.target is torch.cat and known and (node.args[1:] == (1,) or node.kwargs.get("dim") == 1):
            self._channels[node] = [c for source in sources for c in source]
        else:
            self._fixed.update(c for source in sources for c in source)
            self._channels[node] = []

    def factors(self, ranges: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """Of every result's channels, given how far those reach that layers read; ``[1]`` where nothing may be done."""
        found: dict[int, float] = {}
        for node, widths in ranges.items():
            if not self._channels[node] or not widths.any():  # unknown, or a layer that has died
                continue
            for channel, gap in zip(
                self._channels[node], (widths.max() / widths.clamp_min(1e-12)).tolist(), strict=True
            ):
                root = self._root(channel)
                found[root] = min(found.get(root, _LIMIT), gap)
        for channel in self._fixed:
            found[self._root(channel)] = 1.0
        return {
            node: torch.tensor([found.get(self._root(c), 1.0) for c in ids] or [1.0])
            for node, ids in self._channels.items()
        }

    def _root(self, channel: int) -> int:
        while self._parents[channel] != channel:
            channel = self._parents[channel]
        return channel


def _ranges(graph: fx.GraphModule, layers: dict[fx.Node, nn.Module], inputs: Iterable[Tensor]) -> dict[fx.Node, Tensor]:
    """How far each channel reaches ``[C]``, of the results that convolutions read."""
    read = {n.all_input_nodes[0] for n, layer in layers.items() if isinstance(layer, _CONVS)}
    found: dict[fx.Node, Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, node: fx.Node) -> object:
            result = super().run_node(node)
            if node in read and node.op != "placeholder":
                values = result.abs().transpose(0, 1).flatten(1)
                rank = max(1, int(_RARE * values.shape[1]))
                widths = values.topk(rank, dim=1).values[:, -1]
                found[node] = torch.maximum(found[node], widths) if node in found else widths
            return result

    for x in inputs:
        Watch(graph).run(x)
    return found
