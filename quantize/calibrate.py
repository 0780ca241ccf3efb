"""Ranges of activations, from what the network sees on raws."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e import FakeQuantize

from quantize.integer import Quantized, fixed_point_add
from quantize.recipe import ActivationFakeQuantize, PerChannelFakeQuantize, fake_quantizers

_SAMPLES_PER_BATCH = 20_000
_SEARCH_BATCHES = 3
_NUDGES = tuple(1 + i / 1000 for i in range(16))
_USUAL_STEPS = 32.0  # magnitude of addends at which a pair counts a third
_SHRINKS = tuple(0.02 * 50 ** (i / 39) for i in range(40))  # 0.02 to 1


@torch.no_grad()
def calibrate(
    prepared: nn.Module,
    inputs: Iterable[Tensor],
    shown: Callable[[Tensor], Tensor] = lambda y: y,
    input_range: tuple[float, float] | None = None,
    output_range: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Set every activation's scale and zero point; weights get theirs from their values.

    Two searches. First each activation by itself: the range that loses least in mean square, clipping included, over
    shrunken minimum and maximum. Then, from the output backwards, each range again by what it costs at the network's output
    while all others stay quantised: a tensor in front of a ReLU may clip far more of its negative side than its own error
    suggests. Scales of sums are moved by up to 1.5 % where runtimes would round them differently.

    Args:
        prepared: graph from :func:`quantize.recipe.prepare`.
        inputs: network inputs ``[N, C, h, w]``; real or synthetic raws, never random tensors.
        shown: what is made of the network's output and has an error to speak of.
        input_range, output_range: of the network's input and output where they are agreed, not searched.

    Returns:
        largest magnitude seen per activation, by module name (for the fp16 headroom on cards).
    """
    activations = fake_quantizers(prepared, ActivationFakeQuantize)
    values: dict[str, list[Tensor]] = {name: [] for name in activations}
    extremes: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> object:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().flatten()
            low, high = extremes.get(name, (0.0, 0.0))
            extremes[name] = (min(low, float(x.min())), max(high, float(x.max())))
            pick = torch.randint(len(x), (_SAMPLES_PER_BATCH,), generator=generator)
            values[name].append(x[pick])

        return hook

    generator = torch.Generator().manual_seed(0)
    kept: list[tuple[Tensor, Tensor]] = []
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in activations.items()]
    prepared.eval()
    for module in activations.values():
        module.disable_observer()
        module.disable_fake_quant()
    weights = fake_quantizers(prepared, PerChannelFakeQuantize).values()
    for quantizer in weights:
        quantizer.disable_fake_quant()
    for x in inputs:
        y = prepared(x)
        if len(kept) < _SEARCH_BATCHES:
            kept.append((x, shown(y)))
    for hook in hooks:
        hook.remove()
    every: list[FakeQuantize] = [*activations.values(), *weights]
    for quantizer in every:
        quantizer.enable_fake_quant()
    for name, activation in activations.items():
        if extremes[name] == (0.0, 0.0):
            # Channels that have died: any range holds zeros, but the smallest gives factors between scales above 256, with
            # which XNNPACK loads no file.
            activation.set_range(0.0, 1.0)
        else:
            activation.set_range(*_best_range(torch.cat(values[name]), *extremes[name]))
    searched = list(activations.values())
    if input_range is not None:
        searched.pop(0).set_range(*input_range)
    if output_range is not None:
        output = _output(prepared)
        output.set_range(*output_range)
        searched.remove(output)
    for activation in reversed(searched):
        _search_by_output(lambda x: shown(prepared(x)), activation, kept)
    _avoid_ties(prepared)
    return {name: max(-low, high) for name, (low, high) in extremes.items()}


def _output(prepared: nn.Module) -> ActivationFakeQuantize:
    """What quantises the network's output."""
    assert isinstance(prepared, fx.GraphModule)
    (results,) = next(n for n in prepared.graph.nodes if n.op == "output").args
    last = results[0] if isinstance(results, tuple | list) else results
    assert isinstance(last, fx.Node)
    module = prepared.get_submodule(str(last.target))
    assert isinstance(module, ActivationFakeQuantize)
    return module


def _best_range(values: Tensor, low: float, high: float) -> tuple[float, float]:
    """The (low, high) around zero with the smallest quantisation error for ``values``."""

    def error(a: float, b: float) -> float:
        scale = max(b - a, 1e-8) / 255
        zero = round(-128 - a / scale)
        q = torch.clamp(torch.round(values / scale) + zero, -128, 127)
        return float((((q - zero) * scale) - values).square().mean())

    best = min(((error(low * s, high * s), low * s, high * s) for s in _SHRINKS), key=lambda t: t[0])
    _, low, high = best
    # The two ends one after the other, around the common optimum.
    for end in range(2):
        tries = [(low * s, high) if end == 0 else (low, high * s) for s in torch.linspace(0.7, 1.2, 21).tolist()]
        low, high = min(tries, key=lambda t: error(*t))
    return low, high


def _search_by_output(
    network: Callable[[Tensor], Tensor], module: ActivationFakeQuantize, kept: list[tuple[Tensor, Tensor]]
) -> None:
    scale, zero = float(module.scale), int(module.zero_point)
    low, high = (-128 - zero) * scale, (127 - zero) * scale
    candidates = [(low * a, high * b) for a in (1.0, 0.8, 0.6, 0.4, 0.25) for b in (1.0, 1.2, 0.8, 0.6)]

    def error(bounds: tuple[float, float]) -> float:
        module.set_range(*bounds)
        return sum(float((network(x) - y).square().mean()) for x, y in kept)

    # A range that starts at zero (after a ReLU) has nothing to gain from its lower end.
    module.set_range(*min(candidates[: 4 if low == 0 else None], key=error))


def _avoid_ties(prepared: nn.Module) -> None:
    """Move the scales of sums away from those at which pairs of small addends fall on ties.

    XNNPACK adds in fixed point, Core ML and onnxruntime in float32, and the two round ties differently. With scales of which
    2 a + 31 b was 31.500 of the sum's, that was 3e-4 of a tensor, and 4e-2 of the network's outputs at the end.
    """
    assert isinstance(prepared, fx.GraphModule)
    for node in prepared.graph.nodes:
        if "add.Tensor" not in str(node.target):
            continue
        last = node
        while not (found := [u for u in last.users if u.op == "call_module"]):
            (last,) = last.users
        quantizers = [prepared.get_submodule(str(n.target)) for n in (*node.args[:2], found[0])]
        one, two, total = (q for q in quantizers if isinstance(q, ActivationFakeQuantize))
        a, b, scale, zero = float(one.scale), float(two.scale), float(total.scale), int(total.zero_point)
        low, high = (-128 - zero) * scale, (127 - zero) * scale
        factor = min(_NUDGES, key=lambda f: disagreement(a, b, scale * f))
        total.set_range(low * factor, high * factor)


def disagreement(a: float, b: float, total: float) -> float:
    """How often a sum differs between fixed point and float32: over pairs of addends, small ones counting most.

    Args:
        a, b: scales of the addends.
        total: of the sum.
    """
    steps = torch.arange(-128, 128)
    one, two = torch.meshgrid(steps, steps, indexing="ij")
    fixed = fixed_point_add(Quantized(one, a, 0), Quantized(two, b, 0), total, 0, -128)
    inverse = torch.tensor(1.0) / total
    plain = torch.round((one.float() * a + two.float() * b) * inverse).clamp(-128, 127)
    weight = torch.exp(-(one.abs() + two.abs()) / _USUAL_STEPS)
    return float(weight[fixed != plain].sum())
