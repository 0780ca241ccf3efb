"""Names of the classical methods and what each is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.baselines import demosaic, denoise, libraw
from zoo.errors import ZooError

Array = npt.NDArray[np.float32]
_Demosaic = Callable[[Array], Array]
_Denoise = Callable[[Array, Sequence[float], Sequence[float]], Array]


@dataclass(frozen=True)
class Baseline:
    """A classical raw developer, up to linear camera RGB: denoise the mosaic, balance it, demosaic it.

    Attributes:
        name: as typed by users, e.g. ``"bm3d+menon"``.
        licence: of what is run, where it restricts what a result may be used for.
        settings: JSON-able parameters, kept with every result.
        packages: libraries whose versions belong to a result.
        demosaic: balanced RGGB mosaic float32 ``[H, W]`` -> RGB float32 ``[3, H, W]``.
        denoise: (mosaic, S of R, G, B, O of R, G, B) -> mosaic, in raw units; None leaves the noise in.
    """

    name: str
    licence: str
    settings: Mapping[str, Any]
    packages: tuple[str, ...]
    demosaic: _Demosaic
    denoise: _Denoise | None = field(default=None)

    def __call__(self, mosaic: Array, wb: Sequence[float], shot: Sequence[float], read: Sequence[float]) -> Array:
        """Run it on one raw.

        Args:
            mosaic: float32 ``[H, W]``, RGGB, black = 0, white = 1, not balanced, not clipped at black; any size >= 2.
            wb: gains R, G, B.
            shot: S of R, G, B in ``var = S*x + O``, in the units of ``mosaic``.
            read: O of R, G, B.

        Returns:
            float32 ``[3, H, W]``, white-balanced linear camera RGB, not clipped.

        Raises:
            ZooError: a library that it needs is not installed.
        """
        # A clean raw has no noise to remove (and none to scale the transform by): it goes to the demosaicer as is.
        if self.denoise is not None and min(shot) > 0:
            mosaic = self.denoise(mosaic, shot, read)
        return self.demosaic(balance(mosaic, wb))

    def versions(self) -> dict[str, str]:
        """Installed versions of its libraries.

        Raises:
            ZooError: one is missing; the line says how to install it.
        """
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError as error:
                raise ZooError(f"'{self.name}' needs {package}: pip install {_INSTALL[package]}") from error
        return found


def balance(mosaic: Array, wb: Sequence[float]) -> Array:
    """An RGGB mosaic times its gains, in a copy."""
    balanced = mosaic.astype(np.float32, copy=True)
    balanced[0::2, 0::2] *= wb[0]
    balanced[0::2, 1::2] *= wb[1]
    balanced[1::2, 0::2] *= wb[1]
    balanced[1::2, 1::2] *= wb[2]
    return balanced


@dataclass(frozen=True)
class _Part:
    """A demosaicer or a denoiser with what a result must say of it: licence, settings, libraries."""

    run: Callable[..., Array]
    licence: str
    settings: Mapping[str, Any]
    package: str | None = None


_INSTALL = {"colour-demosaicing": demosaic.INSTALL, "bm3d": denoise.BM3D_INSTALL, "rawpy": "rawpy"}
_COLOUR = ("BSD-3-Clause (colour-demosaicing)", "colour-demosaicing")
_LIBRAW_LICENCE = "LGPL-2.1 or CDDL-1.0 (LibRaw)"
_LIBRAW_SETTINGS = {
    "input": "16-bit DNG, balanced before it is written",
    "gains": 1,
    "gamma": 1,
    "highlights": "clipped",
}


def _colour(run: _Demosaic, source: str) -> _Part:
    return _Part(run, _COLOUR[0], {"demosaic": source}, _COLOUR[1])


def _libraw(algorithm: str, source: str) -> _Part:
    settings = {"demosaic": source, **_LIBRAW_SETTINGS}
    return _Part(partial(libraw.demosaic, algorithm=algorithm), _LIBRAW_LICENCE, settings, "rawpy")


_DEMOSAICERS = {
    "bilinear": _colour(demosaic.bilinear, "bilinear"),
    "malvar": _colour(demosaic.malvar, "Malvar, He & Cutler 2004"),
    "menon": _colour(demosaic.menon, "Menon, Andriani & Calvagno 2007, with refining step"),
    "libraw-ahd": _libraw("AHD", "LibRaw AHD (Hirakawa & Parks 2005)"),
    "libraw-dht": _libraw("DHT", "LibRaw DHT (Petrusevich)"),
    "libraw-aahd": _libraw("AAHD", "LibRaw AAHD (Petrusevich)"),
}
_DENOISERS = {
    "nlm": _Part(
        denoise.nlm_mosaic,
        "",
        {
            "denoise": "non-local means per packed plane",
            "transform": denoise.TRANSFORM,
            **{k: getattr(denoise.NLM, k) for k in ("h", "patch", "search")},
        },
    ),
    "bm3d": _Part(
        denoise.bm3d_mosaic,
        "bm3d: Tampere University, non-commercial use only",
        {"denoise": "BM3D per packed plane, profile np, both stages", "transform": denoise.TRANSFORM},
        "bm3d",
    ),
}


def _make(name: str, last: _Part, first: _Part | None = None) -> Baseline:
    parts = [last] if first is None else [first, last]
    return Baseline(
        name=name,
        licence="; ".join(p.licence for p in parts if p.licence),
        settings={k: v for p in parts for k, v in p.settings.items()},
        packages=tuple(p.package for p in reversed(parts) if p.package),
        demosaic=last.run,
        denoise=None if first is None else first.run,
    )


# Every denoiser with every demosaicer, as the denoisers leave a mosaic behind.
_BASELINES = {name: _make(name, last) for name, last in _DEMOSAICERS.items()} | {
    f"{before}+{name}": _make(f"{before}+{name}", last, first)
    for before, first in _DENOISERS.items()
    for name, last in _DEMOSAICERS.items()
}


def list_baselines() -> list[str]:
    """Names of the classical methods: demosaicers, simplest first, then ``denoiser+demosaicer``."""
    return list(_BASELINES)


def get_baseline(name: str) -> Baseline:
    """The method of a name.

    Raises:
        ZooError: unknown name.
    """
    if name not in _BASELINES:
        raise ZooError(f"unknown baseline '{name}'; there are {', '.join(_BASELINES)}")
    return _BASELINES[name]
