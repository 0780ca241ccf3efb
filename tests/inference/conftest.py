"""Small networks and synthetic photos for the inference tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from banded_photo import CAMERA
from torch import nn

from zoo.inference.restore import restore
from zoo.inference.runner import TileRunner, TorchRunner
from zoo.models.analysis import receptive_field
from zoo.models.contracts.bayer_vst import BASELINE_HALO, IN_CHANNELS, OUT_CHANNELS
from zoo.models.registry import ModelSpec
from zoo.models.utnet import CompactUtNet
from zoo.raw import NoiseProfile, RawImage

NOISE = NoiseProfile((1e-3, 8e-4, 1.2e-3), (1e-6, 1e-6, 2e-6), "given")


@dataclass(frozen=True)
class Net:
    """A network with what is needed to run it."""

    spec: ModelSpec
    runner: TileRunner


class IntegerRunner:
    """Integer weights on integer inputs in float64: exact, so that any difference between tilings is an error."""

    target, precision, tile = "integer", "int8", None

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        levels = torch.from_numpy(x).mul(100).round().clamp(-128, 127).double()
        y = self._model(levels)
        assert y.abs().max() < 2**53
        # Folded to a few units: most of them differ if one input level does.
        return (y.remainder(101) / 1000).float().numpy()


class ZeroRunner:
    """No correction: what comes out is the linear demosaic."""

    target, precision, tile = "torch", "fp32", None

    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.zeros((1, 12, *x.shape[2:]), np.float32)


def _network() -> nn.Module:
    torch.manual_seed(3)
    model = CompactUtNet(widths=(8, 12), encoder_depth=(1, 1), decoder_depth=(1,), head_width=8).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.1, 0.1)  # so that zero padding differs from a picture of zeros
    model.head.weight.data *= 10  # initialised to almost no correction
    return model


def make_spec(model: nn.Module | None = None) -> ModelSpec:
    """Specification of an unregistered network; None for one that only needs the baseline's halo."""
    halo, multiple = (0, 2) if model is None else receptive_field(model, IN_CHANNELS)
    halo += BASELINE_HALO
    return ModelSpec(
        "tiny", "utnet", "denoise+demosaic", "bayer_vst_v1", IN_CHANNELS, OUT_CHANNELS, halo, multiple, 0, 0.0
    )


@pytest.fixture(scope="session")
def float_net() -> Net:
    model = _network()
    return Net(make_spec(model), TorchRunner(model))


@pytest.fixture(scope="session")
def integer_net() -> Net:
    model = _network()
    for parameter in model.parameters():
        parameter.data.copy_((parameter / parameter.abs().max() * 2).round())
    return Net(make_spec(model), IntegerRunner(model.double()))


@pytest.fixture(scope="session")
def zero_net() -> Net:
    return Net(make_spec(), ZeroRunner())


def make_raw(
    height: int,
    width: int,
    cfa: str = "RGGB",
    *,
    rgb: npt.NDArray[np.float64] | None = None,
    black: tuple[float, float, float, float] = (64, 60, 68, 64),
    wb: tuple[float, float, float] = (2.0, 1.0, 1.5),
    matrix: npt.NDArray[np.float64] | None = None,
    orientation: int = 1,
) -> RawImage:
    """A photo of ``rgb`` (balanced linear camera RGB, (3, H, W)); None for random pixels."""
    if rgb is None:
        mosaic = np.random.default_rng(height * 1000 + width).integers(0, 1024, (height, width), np.uint16)
    else:
        mosaic = np.empty((height, width), np.uint16)
        for position, colour in enumerate(cfa):
            y, x = divmod(position, 2)
            c = "RGB".index(colour)
            values = rgb[c, y::2, x::2] / wb[c] * (65535 - black[position]) + black[position]
            mosaic[y::2, x::2] = np.rint(values)
    white = 65535.0 if rgb is not None else 1023.0
    metadata: dict[str, str | float | int] = {"make": "Acme", "model": "One", "exposure_time": 1 / 125}
    metadata["datetime"] = "2024:05:06 07:08:09"
    return RawImage(
        mosaic,
        cfa,
        black,
        (white,) * 4,
        wb,
        matrix,
        400.0,
        NOISE,
        orientation,
        metadata,
    )


@pytest.fixture(scope="session")
def raw_of() -> Callable[..., RawImage]:
    """Makes synthetic photos, see :func:`make_raw`."""
    return make_raw


@pytest.fixture(scope="session")
def whole() -> Callable[..., npt.NDArray[np.float32]]:
    """Restores a photo and puts its bands together, checking that they follow each other."""

    def run(raw: RawImage, net: Net, tile: int | None = None, **options: float) -> npt.NDArray[np.float32]:
        bands = []
        for y0, rgb in restore(raw, net.runner, net.spec, tile=tile, **options):
            assert y0 == sum(b.shape[1] for b in bands)
            assert rgb.dtype == np.float32
            bands.append(rgb)
        picture = np.concatenate(bands, axis=1)
        assert picture.shape == (3, *raw.mosaic.shape)
        assert np.isfinite(picture).all()
        return picture

    return run


@pytest.fixture
def photo(raw_of):
    """A photo of 150x101 pixels and the balanced RGB it shows."""
    y, x = np.mgrid[0:150, 0:101]
    rgb = np.stack([0.1 + 0.004 * x, 0.6 - 0.003 * y, 0.05 + 0.001 * (x + y)]).astype(np.float32)
    return raw_of(150, 101, "GRBG", wb=(2.0, 1.0, 1 / 0.7), matrix=CAMERA, orientation=6), rgb
