"""Names of the classical methods and what each is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.baselines import demosaic, denoise
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
        balanced = mosaic.astype(np.float32, copy=True)
        balanced[0::2, 0::2] *= wb[0]
        balanced[0::2, 1::2] *= wb[1]
        balanced[1::2, 0::2] *= wb[1]
        balanced[1::2, 1::2] *= wb[2]
        return self.demosaic(balanced)

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


_INSTALL = {"colour-demosaicing": demosaic.INSTALL, "bm3d": denoise.BM3D_INSTALL}
_FREE = "BSD-3-Clause (colour-demosaicing)"
_MENON = {"demosaic": "Menon, Andriani & Calvagno 2007, with refining step"}
_NLM = {
    "denoise": "non-local means per packed plane",
    "transform": denoise.TRANSFORM,
    **{k: getattr(denoise.NLM, k) for k in ("h", "patch", "search")},
}
_BM3D = {"denoise": "BM3D per packed plane, profile np, both stages", "transform": denoise.TRANSFORM}

_BASELINES = {
    b.name: b
    for b in (
        Baseline("menon", _FREE, _MENON, ("colour-demosaicing",), demosaic.menon),
        Baseline("malvar", _FREE, {"demosaic": "Malvar, He & Cutler 2004"}, ("colour-demosaicing",), demosaic.malvar),
        Baseline("nlm+menon", _FREE, {**_NLM, **_MENON}, ("colour-demosaicing",), demosaic.menon, denoise.nlm_mosaic),
        Baseline(
            "bm3d+menon",
            f"bm3d: Tampere University, non-commercial use only; {_FREE}",
            {**_BM3D, **_MENON},
            ("colour-demosaicing", "bm3d"),
            demosaic.menon,
            denoise.bm3d_mosaic,
        ),
    )
}


def list_baselines() -> list[str]:
    """Names of the classical methods, simplest first."""
    return list(_BASELINES)


def get_baseline(name: str) -> Baseline:
    """The method of a name.

    Raises:
        ZooError: unknown name.
    """
    if name not in _BASELINES:
        raise ZooError(f"unknown baseline '{name}'; there are {', '.join(_BASELINES)}")
    return _BASELINES[name]
