"""The catalogue: names -> builders and their specification (timm's manner: entry points hold hyper-parameters only)."""

from __future__ import annotations

import difflib
import fnmatch
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MODEL = "utnet-m"
DEFAULT_COMPRESSOR = "bayer-codec-m"
HALVES = ("encoder", "decoder")

_ENTRY_POINTS: dict[str, Callable[[], nn.Module]] = {}


@dataclass(frozen=True)
class CodecSpec:
    """What a compressor has beside what every model has.

    Attributes:
        latents: channels of what lies between encoder and decoder.
        stride: sensor pixels per latent position, each way.
        encoder_halo: packed pixels that a position looks beyond its own, the contract's included.
        decoder_halo: latent positions that a pixel looks beyond its own.
        encoder_gmac_per_mp, decoder_gmac_per_mp: multiply-accumulates per sensor megapixel, in 1e9.
        twins: channels that the encoder gives besides, see :func:`zoo.models.compressor.merge_twins`.
        fine: channels that the decoder takes besides, see :func:`zoo.models.compressor.split_fine`.
    """

    latents: int
    stride: int
    encoder_halo: int
    decoder_halo: int
    encoder_gmac_per_mp: float
    decoder_gmac_per_mp: float
    twins: int = 0
    fine: int = 0

    def channels(self, half: str) -> int:
        """What the encoder gives, or the decoder takes."""
        return self.latents + (self.twins if half == "encoder" else self.fine)


@dataclass(frozen=True)
class ModelSpec:
    """What a user or an app must know of a model to run it.

    Attributes:
        name: registered name.
        family: architecture family, the file under ``zoo/models``.
        task: ``"denoise+demosaic"``; ``"denoise"`` or ``"demosaic"`` where the network does only one of them;
            ``"denoise+demosaic+compress"`` of a compressor, which `zoo compress` runs.
        contract: name of the input/output contract, see :mod:`zoo.models.contracts`.
        in_channels, out_channels: of the packed tensors.
        halo: packed pixels on each side of a tile of the mosaic whose outputs depend on what lies outside the tile.
        tile_multiple: packed height and width must be multiples of this, and so must tile origins.
        params: number of parameters.
        gmac_per_mp: multiply-accumulates per sensor megapixel, in 1e9 (convolutions and transposed convolutions).
        licence: of code and weights.
        int8: whether it may be quantised; the float references may not, see :func:`check_int8`.
        codec: of a compressor, whose ``halo`` is the encoder's and whose cost is that of both halves; else None.
    """

    name: str
    family: str
    task: str
    contract: str
    in_channels: int
    out_channels: int
    halo: int
    tile_multiple: int
    params: int
    gmac_per_mp: float
    licence: str = "Apache-2.0"
    int8: bool = True
    codec: CodecSpec | None = None

    @property
    def margin(self) -> int:
        """What a tile of the mosaic has around its core on each side, packed pixels: the halo, up to the next multiple."""
        return -(-self.halo // self.tile_multiple) * self.tile_multiple


def register_model(builder: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Decorator: registers a builder under its function's name with ``_`` written as ``-``."""
    _ENTRY_POINTS[builder.__name__.replace("_", "-")] = builder
    return builder


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, sorted: those of the catalogue and those registered since.

    Of the latter without what :func:`get_spec` refuses: one bad network must not hide the others. stderr says so, once.
    """
    from zoo.models.catalogue import load_catalogue

    known = load_catalogue()
    names = fnmatch.filter(known.keys() | _ENTRY_POINTS.keys(), pattern)
    return sorted(name for name in names if name in known or _sound(name, _ENTRY_POINTS[name]))


def create_model(name: str, *, pretrained: bool = False) -> nn.Module:
    """Build a registered model in eval mode.

    Args:
        name: one of :func:`list_models`.
        pretrained: load the shipped float weights (a model without parameters needs none).

    Raises:
        ZooError: unknown name, or no shipped weights.
    """
    model = resolve(name)().eval()
    if pretrained and next(model.parameters(), None) is not None:
        from zoo.weights import load_weights

        load_weights(model, name)
    return model


def get_spec(name: str) -> ModelSpec:
    """Specification of a model, from the catalogue (no torch needed) or else from its layers."""
    from zoo.models.catalogue import load_catalogue

    return load_catalogue().get(name) or derive_spec(name)


@cache
def _sound(name: str, builder: Callable[[], nn.Module]) -> bool:
    try:
        derive_spec(name)
    except ZooError as error:
        print(f"warning: {' '.join(str(error).split())}; it is left out", file=sys.stderr)
        return False
    return True


def derive_spec(name: str) -> ModelSpec:
    """Specification of a registered model, with halo and cost derived from its layers and the contract.

    Raises:
        ZooError: unknown name, or a network that cannot be made, run, or cut into tiles.
    """
    import torch

    builder = resolve(name)
    try:
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay what they are
            return _derive(name, builder().eval())
    except ZooError:
        raise
    except Exception as error:  # anyone's code
        raise ZooError(
            f"{name}: its layers cannot be examined ({type(error).__name__}: {error}); mend the network"
        ) from error


def _derive(name: str, model: Any) -> ModelSpec:
    from zoo.models.analysis import count_macs, receptive_field
    from zoo.models.contracts import contract_of

    contract = contract_of(model)
    if hasattr(model, "decoder") and hasattr(model, "priors"):
        return _derive_compressor(name, model, contract)
    halo, multiple = receptive_field(model, contract.in_channels)
    return ModelSpec(
        name=name,
        family=type(model).__module__.rsplit(".", 1)[-1],
        task=getattr(model, "task", "denoise+demosaic"),
        contract=contract.name,
        in_channels=contract.in_channels,
        out_channels=contract.out_channels,
        halo=halo + contract.halo,  # what is around the network reads that much before it or after it, never both
        tile_multiple=math.lcm(multiple, contract.period),
        params=sum(p.numel() for p in model.parameters()),
        gmac_per_mp=count_macs(model, contract.in_channels) * 0.25e6 / 1e9,
        int8=bool(getattr(model, "int8", True)),
    )


def _derive_compressor(name: str, model: Any, contract: Any) -> ModelSpec:
    from zoo.models.analysis import count_macs, decoder_reach, encoder_reach

    halo, stride = encoder_reach(model.encoder, contract.in_channels)
    fed = model.latents + model.fine
    decoder_halo, _ = decoder_reach(model.decoder, fed)
    costs = (
        count_macs(model.encoder, contract.in_channels) * 0.25e6 / 1e9,
        count_macs(model.decoder, fed, side=8) / stride**2 * 0.25e6 / 1e9,
    )
    return ModelSpec(
        name=name,
        family=type(model).__module__.rsplit(".", 1)[-1],
        task=model.task,
        contract=contract.name,
        in_channels=contract.in_channels,
        out_channels=contract.out_channels,
        halo=halo + contract.halo,
        tile_multiple=stride,
        params=model.counted(),
        gmac_per_mp=sum(costs),
        int8=model.int8,
        codec=CodecSpec(
            model.latents, 2 * stride, halo + contract.halo, decoder_halo, *costs, twins=model.twins, fine=model.fine
        ),
    )


def check_denoiser(name: str, what: str) -> None:
    """Refuse a compressor where a network from mosaic to picture is needed.

    Args:
        name: registered model.
        what: what cannot be done with a compressor, e.g. ``"denoise"``.

    Raises:
        ZooError: the model is a compressor, or is not known.
    """
    if get_spec(name).codec is not None:
        raise ZooError(f"{name} is a compressor and does not {what}; use `zoo compress`, or a denoiser, e.g. utnet-m")


def check_removes_noise(name: str) -> None:
    """Refuse what cannot make a mosaic with less noise for a compressor.

    Raises:
        ZooError: the model is a compressor, only demosaics, or is not known.
    """
    check_denoiser(name, "denoise mosaics")
    if "denoise" not in get_spec(name).task:
        raise ZooError(f"{name} only demosaics and leaves the noise; use a denoiser, e.g. {DEFAULT_MODEL}")


def check_compressor(name: str) -> CodecSpec:
    """What is known of a compressor.

    Raises:
        ZooError: the model is none, or is not known.
    """
    codec = get_spec(name).codec
    if codec is None:
        known = [n for n in list_models() if get_spec(n).codec]
        raise ZooError(f"{name} is no compressor{nearest(name, known)}; choose from {', '.join(known)}")
    return codec


def halves(name: str) -> tuple[str, ...]:
    """The networks of a model that are files of their own: encoder and decoder of a compressor, else one, ``""``."""
    return HALVES if get_spec(name).codec is not None else ("",)


def check_int8(name: str) -> None:
    """Refuse to quantise a float reference.

    Raises:
        ZooError: the model is one, or is not known.
    """
    resolve(name)
    if not get_spec(name).int8:
        raise ZooError(
            f"{name} is a float reference (LeakyReLU, PReLU, GDN, concatenated skips and batch norm lose too much in int8; of "
            "others none was made); quantise a compact model, e.g. utnet-m, or use --precision fp32 or fp16"
        )


def resolve(name: str) -> Callable[[], nn.Module]:
    """The builder of a name.

    Raises:
        ZooError: unknown name; the line holds the nearest ones.
    """
    points = _entry_points()
    if name not in points:
        raise ZooError(f"unknown model '{name}'{nearest(name, points)}; `zoo list` prints all")
    return points[name]


def registered() -> list[str]:
    """Names that the architecture files register, sorted; :func:`list_models` reads them from the catalogue instead."""
    return sorted(_entry_points())


def nearest(word: str, choices: Any) -> str:
    """``; did you mean 'x'?`` for the closest of ``choices``, or the empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _entry_points() -> dict[str, Callable[[], nn.Module]]:
    from zoo.models import (  # noqa: F401  (register on import)
        balle,
        bayer_codec,
        demosaic_cnn,
        denoise_compress,
        pmrid,
        utnet,
        utnet2,
        xtrans_unet,
    )

    return _ENTRY_POINTS
