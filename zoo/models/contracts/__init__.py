"""Contracts: what stands between a mosaic and a network, by name.

A network maps packed tensors to packed tensors, ``[N, C, h, w] -> [N, C', h, w]`` at half the sensor's resolution each way, also
where it works at full resolution inside (only ``bayer_codec_v4`` gives cells of 2x2 packed pixels). So the tile runner, the
exporters and the benchmark know one geometry. Everything else (white balance, noise, curves, demosaicing, masks) is the
contract's, which the model's class names in its attribute ``contract``.

==================  =============================================================  ==========================================
name                in -> out                                                      spoken by
==================  =============================================================  ==========================================
bayer_vst_v1        mosaic, detail, noise -> correction of a linear demosaic       compact UtNets, UtNet2, UtNet3, passthrough
ksigma_bayer_v1     mosaic after the k-Sigma transform -> the same, denoised       PMRID
demosaiced_rgb_v1   edge-aware demosaic, un-balanced -> RGB                        the 9-5-5 CNN
cfa_masks_v1        mosaic and one-hot colours, Bayer or X-Trans -> RGB            X-Trans U-Net
bayer_codec_v1      as bayer_vst_v1 -> latents -> RGB in the display curve         denoise-then-compress
bayer_codec_v4      the same -> latents -> brightness and colour differences       Bayer codecs
display_codec_v1    mosaic in the display curve -> latents -> RGB in it            Balle autoencoders
==================  =============================================================  ==========================================

This module loads no torch, so that ``zoo list`` and ``zoo show`` stay quick.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_CONTRACT = "bayer_vst_v1"

# Name -> module, which documents the contract in its docstring and holds it as ``CONTRACT``.
_HOMES = {
    "bayer_vst_v1": "zoo.models.contracts.bayer_vst",
    "ksigma_bayer_v1": "zoo.models.contracts.ksigma_bayer",
    "demosaiced_rgb_v1": "zoo.models.contracts.demosaiced_rgb",
    "cfa_masks_v1": "zoo.models.contracts.cfa_masks",
    "bayer_codec_v1": "zoo.models.contracts.bayer_codec",
    "bayer_codec_v4": "zoo.models.contracts.bayer_codec_v4",
    "display_codec_v1": "zoo.models.contracts.display_codec",
}


class Contract(ABC):
    """What goes into a network and what is made of its output.

    ``planes`` are float32 ``[N, 4, h, w]``: the white-balanced linear mosaic, black = 0, white = 1 (x gain), not clipped, plane
    ``2*dy + dx`` for position (dy, dx) of each 2x2. ``shot`` and ``read`` are float32 ``[N, 3]``: S and O of the noise variance
    ``S*x + O`` per colour R, G, B, balanced like the planes, >= 0. ``wb`` are the gains R, G, B, ``[N, 3]``, green = 1.

    Attributes:
        name: as registered.
        in_channels, out_channels: of the network's packed tensors.
        out_cell: packed pixels per position of the output, each way.
        halo: packed pixels that :meth:`encode` or :meth:`decode` reads beyond its own.
        cfa: ``"bayer"`` (RGGB) or ``"any"`` (RGGB and X-Trans).
        period: packed pixels after which the input's layout repeats; tiles start at multiples of it.
        int8_range: what the input of an int8 network holds, in 255 steps; None where there is no int8.
        words: the contract in words by topic, which every artefact carries in its metadata.
    """

    name: str
    in_channels: int
    out_channels: int
    halo: int
    out_cell: int = 1
    cfa: str = "bayer"
    period: int = 1
    int8_range: tuple[float, float] | None = None
    words: ClassVar[Mapping[str, str]]

    @abstractmethod
    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        """Network input ``[N, in_channels, h, w]``; ``cfa`` is ``"RGGB"``, or ``"XTRANS"`` from the pattern's first pixel on."""

    @abstractmethod
    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        """The network's estimate in the VST domain (:mod:`zoo.raw.vst`, offset of green), for losses.

        Args:
            x: from :meth:`encode`.
            y: float32 ``[N, out_channels, h, w]``, the network's output for ``x``.

        Returns:
            packed RGB ``[N, 12, h, w]`` (channel ``c*4 + 2*dy + dx``) or, where the network leaves demosaicing to others, the
            packed mosaic ``[N, 4, h, w]``.
        """

    @abstractmethod
    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        """Float32 ``[N, 3, 2h, 2w]``, white-balanced linear camera RGB, not clipped; arguments as :meth:`estimate`.

        Up to ``halo`` packed pixels at each border may depend on what lies beyond it.
        """


def list_contracts() -> list[str]:
    """Names of all contracts."""
    return list(_HOMES)


def get_contract(name: str) -> Contract:
    """The contract of a name.

    Raises:
        ZooError: unknown name.
    """
    return importlib.import_module(_home(name)).CONTRACT


def contract_of(model: Any, name: str = "") -> Contract:
    """The contract that a network speaks.

    Args:
        model: says so in its attribute ``contract``; graphs prepared for quantisation have lost theirs.
        name: of the model, whose specification is asked then; :data:`DEFAULT_CONTRACT` if there is none.
    """
    declared = getattr(model, "contract", None)
    if not isinstance(declared, str):
        from zoo.models.catalogue import load_catalogue

        spec = load_catalogue().get(name)
        declared = spec.contract if spec else DEFAULT_CONTRACT
    return get_contract(declared)


def documentation(name: str) -> str:
    """What a contract's module says of itself, read without importing it, as that would load torch.

    Raises:
        ZooError: unknown name.
    """
    package, _, module = _home(name).rpartition(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).with_name(f"{module}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def _home(name: str) -> str:
    if name not in _HOMES:
        raise ZooError(f"unknown contract '{name}'; this version has {', '.join(_HOMES)}")
    return _HOMES[name]
