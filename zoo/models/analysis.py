"""Facts that follow from a model's layers: cost, receptive field, tile multiple."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

_PROBE = 256  # packed side of the probe; a halo of up to 100 fits


@torch.no_grad()
def count_macs(model: nn.Module, in_channels: int, side: int = 64) -> float:
    """Multiply-accumulates of all (transposed) convolutions per packed pixel."""
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        # A convolution spends weight[0] per output value, a transposed one weight[0] per input value.
        positions = args[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += positions.numel() * weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    try:
        model(torch.zeros(1, in_channels, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return total / side**2


@torch.no_grad()
def receptive_field(model: nn.Module, in_channels: int) -> tuple[int, int]:
    """Halo and tile multiple, by propagating impulses through the layers.

    Every weight is set to one and every bias to zero in a copy, so that nothing cancels: what an impulse at input pixel p
    reaches is exactly what depends on p. The reach differs with p modulo the total stride; all phases are tried.

    Returns:
        (halo, multiple): the largest distance between an input pixel and an output pixel that depends on it, and the total
        stride, both in packed pixels.
    """
    probe = copy.deepcopy(model).eval()
    for parameter in probe.parameters():
        # Divided by the fan-in to stay finite over many layers; positive is all that counts.
        parameter.fill_(1 / max(1, parameter[0].numel()) if parameter.dim() > 1 else 0.0)
    smallest = _PROBE

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        nonlocal smallest
        smallest = min(smallest, output.shape[-1])

    hooks = [m.register_forward_hook(note) for m in probe.modules() if not list(m.children())]
    probe(torch.zeros(1, in_channels, _PROBE, _PROBE))
    for hook in hooks:
        hook.remove()
    multiple = _PROBE // smallest
    probe = probe.double()
    halo = 0
    for phase in range(multiple):
        at = _PROBE // 2 + phase
        x = torch.zeros(1, in_channels, _PROBE, _PROBE, dtype=torch.float64)
        x[..., at, at] = 1.0
        reached = probe(x)[0].ne(0).any(0).nonzero()
        if reached.numel():
            halo = max(halo, int((reached - at).abs().max()))
    if halo + multiple >= _PROBE // 2:
        raise ValueError(f"the receptive field does not fit the probe of {_PROBE} packed pixels")
    return halo, multiple
