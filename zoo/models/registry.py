"""The catalogue: names -> builders and their specification (timm's manner: entry points hold hyper-parameters only)."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MODEL = "utnet-m"

_ENTRY_POINTS: dict[str, Callable[[], nn.Module]] = {}


@dataclass(frozen=True)
class ModelSpec:
    """What a user or an app must know of a model to run it.

    Attributes:
        name: registered name.
        family: architecture family, the file under ``zoo/models``.
        task: ``"denoise+demosaic"``.
        contract: name of the input/output contract, see :mod:`zoo.models.contract`.
        in_channels, out_channels: of the packed tensors.
        halo: packed pixels on each side of a tile of the mosaic whose outputs depend on what lies outside the tile.
        tile_multiple: packed height and width must be multiples of this, and so must tile origins.
        params: number of parameters.
        gmac_per_mp: multiply-accumulates per sensor megapixel, in 1e9 (convolutions and transposed convolutions).
        licence: of code and weights.
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


def register_model(builder: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Decorator: registers a builder under its function's name with ``_`` written as ``-``."""
    _ENTRY_POINTS[builder.__name__.replace("_", "-")] = builder
    return builder


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, sorted: those of the catalogue and those registered since."""
    from zoo.models.catalogue import load_catalogue

    return sorted(fnmatch.filter(load_catalogue().keys() | _ENTRY_POINTS.keys(), pattern))


def create_model(name: str, *, pretrained: bool = False) -> nn.Module:
    """Build a registered model in eval mode.

    Args:
        name: one of :func:`list_models`.
        pretrained: load the shipped float weights.

    Raises:
        ZooError: unknown name, or no shipped weights.
    """
    model = resolve(name)().eval()
    if pretrained:
        from zoo.weights import load_weights

        load_weights(model, name)
    return model


def get_spec(name: str) -> ModelSpec:
    """Specification of a model, from the catalogue (no torch needed) or else from its layers."""
    from zoo.models.catalogue import load_catalogue

    return load_catalogue().get(name) or derive_spec(name)


def derive_spec(name: str) -> ModelSpec:
    """Specification of a registered model, with halo and cost derived from its layers and the contract."""
    from zoo.models.analysis import count_macs, receptive_field
    from zoo.models.contract import BASELINE_HALO, IN_CHANNELS, OUT_CHANNELS

    model = resolve(name)().eval()
    halo, multiple = receptive_field(model, IN_CHANNELS)
    return ModelSpec(
        name=name,
        family=type(model).__module__.rsplit(".", 1)[-1],
        task="denoise+demosaic",
        contract="bayer_vst_v1",
        in_channels=IN_CHANNELS,
        out_channels=OUT_CHANNELS,
        halo=halo + BASELINE_HALO,  # the input's detail planes (3x3 means) reach as far as the linear demosaic
        tile_multiple=multiple,
        params=sum(p.numel() for p in model.parameters()),
        gmac_per_mp=count_macs(model, IN_CHANNELS) * 0.25e6 / 1e9,
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
    from zoo.models import utnet  # noqa: F401  (registers on import)

    return _ENTRY_POINTS
