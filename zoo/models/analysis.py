"""Facts that follow from a model's layers: cost, receptive field, tile multiple."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_PROBE = 256  # packed length of the first probe; it doubles until the receptive field fits
_LONGEST = 4096
_TALLEST_STRIDE = 64  # rows of the strip that finds the total stride, which they must be a multiple of


@torch.no_grad()
def count_macs(model: nn.Module, in_channels: int, side: int = 64) -> float:
    """Multiply-accumulates of all (transposed) convolutions, and of GDN's 1x1 ones, per pixel of the input."""
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        # A convolution spends weight[0] per output value, a transposed one weight[0] per input value.
        positions = args[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += positions.numel() * weight[0].numel()

    def count_pointwise(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        macs = module.pointwise_macs
        assert isinstance(macs, int)
        total += output.numel() // output.shape[1] * macs

    shapes = copy.deepcopy(model).to("meta")  # shapes are all it takes: nothing is computed
    for module in shapes.modules():
        if hasattr(module, "pointwise_macs"):
            module.register_forward_hook(count_pointwise)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.device("meta"):  # what a network makes on the way, too
        shapes(torch.zeros(1, in_channels, side, side))
    return total / side**2


@torch.no_grad()
def receptive_field(model: nn.Module, in_channels: int) -> tuple[int, int]:
    """Halo and tile multiple, by propagating impulses through the layers.

    In a copy, every (transposed) convolution becomes a box of its size over the mean of all channels, and every normalisation
    nothing: what an impulse at input pixel p reaches is then exactly what depends on p, nothing cancels, and width costs
    nothing. The reach differs with p modulo the total stride; all phases are tried, along both axes, each in a narrow strip.

    Returns:
        (halo, multiple): the largest distance between an input pixel and an output pixel that depends on it, and the total
        stride, both in packed pixels.

    Raises:
        ValueError: a receptive field of thousands of pixels.
    """
    probe = _probe_of(model)
    smallest = _PROBE

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        nonlocal smallest
        smallest = min(smallest, output.shape[-1])

    hooks = [m.register_forward_hook(note) for m in probe.modules() if not list(m.children())]
    probe(torch.zeros(1, in_channels, _TALLEST_STRIDE, _PROBE, dtype=torch.float64))
    for hook in hooks:
        hook.remove()
    multiple = _PROBE // smallest
    length = _PROBE
    while length <= _LONGEST:
        halo = max(_reach(probe, in_channels, length, multiple, axis) for axis in (-1, -2))
        if halo + multiple < length // 2:
            return halo, multiple
        length *= 2
    raise ValueError(
        f"the receptive field does not fit a probe of {_LONGEST} packed pixels; attention and norms over the picture, e.g. "
        "GroupNorm, see all of it, which tiles cannot: use BatchNorm2d, or none"
    )


@torch.no_grad()
def encoder_reach(encoder: nn.Module, in_channels: int) -> tuple[int, int]:
    """Halo and stride of the first half of a compressor, in packed pixels; impulses as in :func:`receptive_field`.

    Returns:
        (halo, stride): a latent position owns stride x stride pixels and looks at most ``halo`` pixels beyond them.

    Raises:
        ValueError: it looks further than a probe of 256 packed pixels holds.
    """
    probe = _probe_of(encoder)
    stride = _PROBE // probe(torch.zeros(1, in_channels, _TALLEST_STRIDE, _PROBE, dtype=torch.float64)).shape[-1]
    halo = 0
    for axis in (-1, -2):
        for at, where in _touched(
            probe, in_channels, _PROBE, 2 * stride, axis, range(_PROBE // 2, _PROBE // 2 + stride)
        ):
            first = where * stride
            halo = max(halo, int(torch.maximum(first - at, at - (first + stride - 1)).max()))
    if halo + 2 * stride >= _PROBE // 2:
        raise ValueError(f"the encoder looks further than a probe of {_PROBE} packed pixels")
    return halo, stride


@torch.no_grad()
def decoder_reach(decoder: nn.Module, latents: int) -> tuple[int, int]:
    """Halo in latent positions and stride in positions of the output of the second half of a compressor.

    Returns:
        (halo, stride): the stride x stride positions that a latent position becomes depend on those at most ``halo`` away.
    """
    probe = _probe_of(decoder)
    length = 32
    stride = probe(torch.zeros(1, latents, 2, length, dtype=torch.float64)).shape[-1] // length
    halo = 0
    for axis in (-1, -2):
        for at, where in _touched(probe, latents, length, 2, axis, [length // 2]):
            halo = max(halo, int((where // stride - at).abs().max()))
    return halo, stride


def _touched(
    probe: nn.Module, channels: int, length: int, across: int, axis: int, places: Iterable[int]
) -> Iterator[tuple[int, Tensor]]:
    """Where along ``axis`` the output depends on the input at each of ``places``, in a strip ``across`` wide."""
    shape = [1, channels, across, across]
    shape[axis] = length
    without = probe(torch.zeros(shape, dtype=torch.float64))  # not zero where a network adds parameters of its own
    for at in places:
        x = torch.zeros(shape, dtype=torch.float64)
        x.select(axis, at).fill_(1.0)
        yield at, (probe(x) != without)[0].any(0).any(-2 if axis == -1 else -1).nonzero().flatten()


def _reach(probe: nn.Module, in_channels: int, length: int, multiple: int, axis: int) -> int:
    """Largest distance that an impulse travels along an axis, up to half of ``length``."""
    reached = 0
    places = range(length // 2, length // 2 + multiple)
    for at, where in _touched(probe, in_channels, length, 2 * multiple, axis, places):
        if where.numel():
            reached = max(reached, int((where - at).abs().max()))
    return reached


def _probe_of(model: nn.Module) -> nn.Module:
    """A copy whose layers pass on whatever they see, in double precision."""
    probe = _boxes(copy.deepcopy(model)).eval().double()
    for parameter in probe.parameters():  # gains that start at zero would hide what they are to let through
        parameter.fill_(1 / parameter[0].numel() if parameter.dim() > 1 else 1)
    return probe


class _Box(nn.Module):
    """Stands for a (transposed) convolution: the same geometry, one positive tap per position, all channels alike."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.outputs = conv.out_channels
        kind = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose2d) else nn.Conv2d
        names = ["kernel_size", "stride", "padding", "dilation"]
        names += ["output_padding"] if kind is nn.ConvTranspose2d else []
        geometry: dict[str, Any] = {name: getattr(conv, name) for name in names}
        self.box = kind(1, 1, **geometry, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.box(x.mean(1, keepdim=True)).expand(-1, self.outputs, -1, -1)


def _boxes(module: nn.Module) -> nn.Module:
    """The module with its layers replaced, in place; PReLUs too, whose slope training might take to zero, and GDN."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            setattr(module, name, _Box(child))
        elif isinstance(child, nn.BatchNorm2d | nn.LayerNorm | nn.PReLU) or hasattr(child, "pointwise_macs"):
            setattr(module, name, nn.Identity())
        else:
            _boxes(child)
    return module
