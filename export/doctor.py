"""What will happen to a network on a target, told before it is exported.

The graph of ``torch.export`` is walked node by node and held against the table of :mod:`export.rules`, which the micro-operator
matrix backs (docs/operators.md). Beside operators it looks at the range of activations (fp16), at channels and at the tile.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from export.rule_conditions import name_of
from export.rules import RULES, SEVERITY, Effect, Rule, effect_of
from zoo.errors import ZooError
from zoo.models.compressor import Compressor
from zoo.models.contracts import Contract, contract_of

FP16_MAX = 65504.0
GROUP = 16  # channels that XNNPACK's int8 and fp32 kernels compute at once (NR of its GEMMs on AVX512 and with dot products)
_RANGE_TILE = 128  # packed pixels a side that activations are looked at on, or the nearest multiple


@dataclass(frozen=True)
class Finding:
    """One operator, tensor or setting that will not do as it is.

    Attributes:
        layer: path of the layer, or ``network``.
        operator: of the exported graph, such as ``leaky_relu``; ``tile``, ``channels``, ``range`` for the other checks.
        consequence: ``fails``, ``splits``, ``float``, ``numerics`` or ``note``; worst first, see :data:`export.rules.SEVERITY`.
        reason, rewrite: one sentence each.
        evidence: row of the operator matrix, or what else backs it.
        shows: names under which an audit of the file will list it.
    """

    layer: str
    operator: str
    consequence: str
    reason: str
    rewrite: str
    evidence: str
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patient:
    """A network to look at.

    Attributes:
        name: as the user gave it, with ``/half`` for a half of a compressor.
        network: eval mode.
        channels: of its input.
        contract: what its input means.
        tile: side of its input, packed pixels (latent positions of a decoder).
        multiple, halo: of the tile; None where they cannot be derived.
        inputs: makes network inputs from a side; None where there are no weights to look at activations with.
    """

    name: str
    network: nn.Module
    channels: int
    contract: Contract
    tile: int
    multiple: int | None
    halo: int | None
    inputs: Callable[[int], Iterator[np.ndarray]] | None


def examine(patient: Patient, target: str, precision: str) -> list[Finding]:
    """All findings, worst first; of the same operator in the order of the graph.

    Args:
        patient: from :func:`patients`.
        target: one of :data:`export.TARGETS`.
        precision: ``fp32``, ``fp16`` or ``int8``.

    Raises:
        ZooError: the network cannot be exported at all; the line says why.
    """
    found = list(_tile(patient))
    side = patient.tile
    if found:  # the graph of a tile that does fit is looked at all the same
        multiple = patient.multiple or 1
        side = -(-side // multiple) * multiple
    graph = trace(patient.network, patient.channels, side, patient.name)
    found += operators(graph, target, precision)
    if precision == "fp16" or (target, precision) == ("coreml", "int8"):
        found += _ranges(patient, precision)
    if target != "coreml":
        found += _channels(graph)
    return sorted(found, key=lambda f: SEVERITY.index(f.consequence))


def trace(network: nn.Module, channels: int, tile: int, name: str = "network") -> torch.export.ExportedProgram:
    """The network as ``torch.export`` sees it, for one input ``[1, channels, tile, tile]``.

    Raises:
        ZooError: it does not trace.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(network.eval(), (torch.zeros(1, channels, tile, tile),))
        except Exception as error:  # torch raises a dozen types here
            line = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
            raise ZooError(f"{name}: torch.export cannot trace it at tile {tile}: {line[:200]}") from error


def operators(program: torch.export.ExportedProgram, target: str, precision: str) -> Iterator[Finding]:
    """What the table says of every operator of a graph."""
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        for rule, effect in matches(node, program, target, precision):
            yield Finding(
                layer_path(node), name_of(node), effect.consequence, effect.reason or rule.reason,
                effect.rewrite or rule.rewrite, f"docs/operators.md: {rule.cell}", effect.shows,
            )  # fmt: skip


def matches(
    node: fx.Node, program: torch.export.ExportedProgram, target: str, precision: str
) -> Iterator[tuple[Rule, Effect]]:
    """The rules that speak of a node, each with its effect on the target."""
    for rule in RULES:
        if name_of(node) in rule.ops and (rule.when is None or rule.when(node, program)):
            effect = effect_of(rule, target, precision)
            if effect is not None:
                yield rule, effect


def layer_path(node: fx.Node) -> str:
    """Path of the innermost layer that a node comes from; ``network`` for the forward method itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    return (paths[-1] if paths else "") or "network"


def _tile(patient: Patient) -> Iterator[Finding]:
    if patient.multiple and patient.tile % patient.multiple:
        reason = f"a tile of {patient.tile} is no multiple of {patient.multiple}, the network's total stride"
        near = max(patient.multiple, round(patient.tile / patient.multiple) * patient.multiple)
        yield Finding("network", "tile", "fails", reason, f"--tile {near}", "the layers' strides")
    if patient.halo and patient.tile <= 2 * patient.halo:
        reason = f"a tile of {patient.tile} is all margin: {patient.halo} packed pixels on each side see beyond it"
        multiple = patient.multiple or 1
        rewrite = f"--tile {-(-4 * patient.halo // multiple) * multiple} or more"
        yield Finding("network", "tile", "fails", reason, rewrite, "the layers' receptive field")


@torch.no_grad()
def _ranges(patient: Patient, precision: str) -> Iterator[Finding]:
    """Values beyond fp16, over the synthetic scene at the bed's four noise levels."""
    if patient.inputs is None:
        return
    multiple = patient.multiple or 1
    side = max(multiple, _RANGE_TILE // multiple * multiple)
    program = trace(patient.network, patient.channels, side, patient.name)
    watcher = _Watcher(program.module(check_guards=False))
    for x in patient.inputs(side):
        watcher.run(torch.from_numpy(x))
    where = "between its integers, the file computes in fp16" if precision == "int8" else "fp16 ends at 65504"
    for node, largest in watcher.largest.items():
        # Not "> FP16_MAX": a value that is no number has left the range too.
        if not largest <= FP16_MAX:
            reason = f"reaches {largest:.3g} on the synthetic scene; {where}"
            rewrite = (
                "scale the weights of the layer in front down and those of the layer behind up, or train with a limit"
            )
            yield Finding(layer_path(node), name_of(node), "numerics", reason, rewrite, "measured just now")


class _Watcher(fx.Interpreter):
    """Notes the largest magnitude of every operator's floating-point result."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function" and isinstance(result, torch.Tensor) and result.is_floating_point():
            magnitude = float(result.abs().max())
            before = self.largest.get(n, 0.0)
            self.largest[n] = before if before >= magnitude else magnitude
        return result


def _channels(program: torch.export.ExportedProgram) -> Iterator[Finding]:
    """Convolutions whose last group of output channels is not full; the network's own output is the contract's."""
    nodes = list(program.graph.nodes)
    results = {a for n in nodes if n.op == "output" for a in n.all_input_nodes}
    for node in nodes:
        if name_of(node) not in ("conv2d", "conv_transpose2d") or _reaches(node, results):
            continue
        width = int(node.meta["val"].shape[1])
        if width % GROUP:
            full = -(-width // GROUP) * GROUP
            reason = f"{width} channels cost as much as {full} ({(full - width) / full:.0%} of the work is padding)"
            rewrite = f"{full} channels, or {full - GROUP}" if full > GROUP else f"{full} channels"
            evidence = f"XNNPACK computes {GROUP} output channels at once"
            yield Finding(layer_path(node), "channels", "note", reason, rewrite, evidence)


def _reaches(node: fx.Node, results: set[fx.Node]) -> bool:
    """Whether a convolution makes the network's output, at once or through element-wise operators of the same width."""
    while node not in results:
        users = list(node.users)
        if len(users) != 1 or name_of(users[0]) not in ("add", "relu", "mul", "pixel_unshuffle", "sub"):
            return False
        node = users[0]
    return True


def patients(name: str, tile: int | None = None) -> list[Patient]:
    """The networks of a registered model (two of a compressor), or of a class of the user's.

    Args:
        name: one of ``zoo list``, or ``module:Class`` (any callable without arguments that makes an ``nn.Module``), whose module
            is found from the current folder on. Its attribute ``contract`` says what it is fed.
        tile: side of the packed input; None for the model's default.

    Raises:
        ZooError: unknown name, module or class, one that cannot be built, or that takes other channels than its contract has.
    """
    return [_own(name, tile)] if ":" in name else _registered(name, tile)


def _registered(name: str, tile: int | None) -> list[Patient]:
    from export import default_tile, input_side
    from zoo import weights
    from zoo.models.layers import fold_norms
    from zoo.models.registry import create_model, get_spec, halves

    spec = get_spec(name)
    shipped = weights.path(name).exists()
    model = create_model(name, pretrained=shipped)
    contract = contract_of(model, name)
    found = []
    for half in halves(name):
        network = fold_norms(model.get_submodule(half) if half else model)
        decoder = half == "decoder" and spec.codec is not None
        side = input_side(spec, tile or default_tile(spec), half)
        channels = spec.codec.channels(half) if decoder and spec.codec else spec.in_channels
        front = model if decoder and isinstance(model, Compressor) else None
        stride = spec.codec.stride // 2 if decoder and spec.codec else 1
        inputs = _scene(contract, front, stride) if shipped or not spec.params else None
        label = f"{name}/{half}" if half else name
        multiple, halo = (1, None) if decoder else (spec.tile_multiple, spec.halo)
        found.append(Patient(label, network, channels, contract, side, multiple, halo, inputs))
    return found


def _own(name: str, tile: int | None) -> Patient:
    from zoo.models.analysis import receptive_field

    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        made = getattr(importlib.import_module(module_name), attribute)()
    except Exception as error:  # the user's code may raise anything
        raise ZooError(
            f"{name}: cannot be made: {type(error).__name__}: {error}; give module:Class without arguments"
        ) from error
    if not isinstance(made, nn.Module):
        raise ZooError(f"{name}: makes {type(made).__name__}, not a torch module")
    network, contract = made.eval(), contract_of(made)
    multiple: int | None = None
    halo: int | None = None
    try:
        with torch.no_grad():
            network(torch.zeros(1, contract.in_channels, 64, 64))
    except Exception as error:
        told = " ".join(str(error).split())[:120]
        raise ZooError(
            f"{name}: does not take [1, {contract.in_channels}, 64, 64], the input of {contract.name} ({told}); "
            "name another contract in the class's attribute `contract`"
        ) from error
    with contextlib.suppress(RuntimeError, ValueError, ZeroDivisionError):  # networks that look at the whole picture
        halo, multiple = receptive_field(network, contract.in_channels)
        halo += contract.halo
    side = tile or max(256, -(-4 * (halo or 0) // (multiple or 1)) * (multiple or 1))
    return Patient(name, network, contract.in_channels, contract, side, multiple, halo, _scene(contract))


def _scene(
    contract: Contract, front: Compressor | None = None, stride: int = 1
) -> Callable[[int], Iterator[np.ndarray]]:
    """Makes inputs of the synthetic scene at the bed's noise levels; through the encoder of ``front`` where there is one."""

    def make(side: int) -> Iterator[np.ndarray]:
        from export.verify import tiles_of

        for _, x in tiles_of(side * stride, contract):
            if front is None:
                yield x
            else:
                with torch.no_grad():
                    yield front.coded(torch.from_numpy(x), torch.tensor([0.5])).numpy()

    return make


def verdict(findings: Sequence[Finding]) -> int:
    """Exit code: 1 where something fails, splits a delegate, stays float or changes numerics; notes cost time only."""
    return int(any(f.consequence != "note" for f in findings))
