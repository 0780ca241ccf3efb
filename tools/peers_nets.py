"""Architectures of peers, rebuilt from their papers and the shapes of their tensors, and what loads their weights into them.

Their weights are no part of this project: ``tools/peers.py --peers DIR`` says where they lie. Nothing is unpickled.

* DemosaicNet: Gharbi, Chaurasia, Paris & Durand, "Deep Joint Demosaicking and Denoising", SIGGRAPH Asia 2016. The published
  weights multiply two halves of the last features, which the paper does not have; the noise-aware ones of the first as well.
* Deep Demosaick: Kokkinos & Lefkimmiatis, "Deep Image Demosaicking using a Cascade of Convolutional Residual Denoising
  Networks", ECCV 2018: one denoiser, run again and again between steps towards the mosaic.
* PMRID is :class:`zoo.models.pmrid.PMRID`, whose tensors bear the published names.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError

Net = TypeVar("Net", bound=nn.Module)
Tensors = Mapping[str, Tensor]


class DemosaicNet(nn.Module):
    """Fifteen 3x3 convolutions at packed resolution predict 12 planes; a 3x3 one mixes them with the mosaic at full resolution.

    No convolution is padded: the output lacks :attr:`margin` sensor pixels on each side.

    Args:
        noise_aware: the first convolution also sees a plane with the noise's sigma, and its halves are multiplied.

    Shape:
        float ``[N, 3, H, W]``, a GRBG mosaic at its colours' places and 0 elsewhere, H and W even, and for the noise-aware net
        ``[N, 1, H / 2, W / 2]``, sigma in the mosaic's units -> ``[N, 3, H - 62, W - 62]``.
    """

    margin = 2 * 15 + 1
    width = 64

    def __init__(self, *, noise_aware: bool) -> None:
        super().__init__()
        w = self.width
        self.noise_aware = noise_aware
        self.pack = nn.Conv2d(3, 4, 2, stride=2)
        self.first = nn.Conv2d(5, 2 * w, 3) if noise_aware else nn.Conv2d(4, w, 3)
        self.body = nn.ModuleList(nn.Conv2d(w, w, 3) for _ in range(13))
        self.last = nn.Conv2d(w, 2 * w, 3)
        self.residual = nn.Conv2d(w, 12, 1)
        self.unpack = nn.ConvTranspose2d(12, 3, 2, stride=2, groups=3)
        self.mix = nn.Conv2d(6, w, 3)
        self.output = nn.Conv2d(w, 3, 1)

    @property
    def gmac_per_mp(self) -> float:
        """1e9 multiply-accumulates per sensor megapixel, margins not counted."""
        quarter = [self.pack, self.first, *self.body, self.last, self.residual, self.unpack]
        return (_weights(quarter) / 4 + _weights([self.mix, self.output])) / 1e3

    def forward(self, mosaic: Tensor, sigma: Tensor | None = None) -> Tensor:
        packed = self.pack(mosaic)
        if self.noise_aware:
            if sigma is None:
                raise ValueError("the noise-aware network needs the noise's sigma")
            x = _halves_product(F.relu(self.first(torch.cat([packed, sigma], 1))))
        else:
            x = F.relu(self.first(packed))
        for convolution in self.body:
            x = F.relu(convolution(x))
        x = _halves_product(F.relu(self.last(x)))
        details = self.unpack(self.residual(x))
        cut = self.margin - 1
        seen = mosaic[..., cut:-cut, cut:-cut]
        return self.output(F.relu(self.mix(torch.cat([seen, details], 1))))


class ResidualDenoiser(nn.Module):
    """The denoiser of Deep Demosaick: 5x5 in, five pairs of 3x3 with PReLU before each, transposed 5x5 out.

    Shape:
        float ``[N, 3, H, W]`` in 0..255 -> the estimated noise, not yet held to its known size; H, W >= 3.
    """

    def __init__(self, depth: int = 5, width: int = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 5)
        self.slopes = nn.ParameterList(nn.Parameter(torch.full((width,), 0.1)) for _ in range(2 * depth))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3) for _ in range(2 * depth))
        self.leave = nn.ConvTranspose2d(width, 3, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(_mirrored(x, 2))
        for pair in range(0, len(self.convolutions), 2):
            y = x
            for i in (pair, pair + 1):
                y = self.convolutions[i](_mirrored(F.prelu(y, self.slopes[i]), 1))
            x = x + y if pair else y  # the first pair has no shortcut
        return self.leave(x)


class CascadeDemosaic(nn.Module):
    """Deep Demosaick: a fixed number of proximal steps with extrapolation, from bilinear interpolation.

    Each step extrapolates from the last two estimates, puts the mosaic's pixels back, and takes away the denoiser's noise, held
    to the norm that noise of ``exp(alpha) * sigma`` has over the whole picture. That norm ties all pixels together: a tile gives
    another result than the picture.

    Args:
        steps: how often the denoiser runs.
        depth: pairs of convolutions in it.

    Shape:
        float ``[1, 3, H, W]`` in 0..255, a mosaic at its colours' places and 0 elsewhere, its mask, and sigma in the same units
        -> ``[1, 3, H, W]`` in 0..255.
    """

    def __init__(self, steps: int = 20, depth: int = 5) -> None:
        super().__init__()
        self.denoiser = ResidualDenoiser(depth)
        self.alpha = nn.Parameter(torch.zeros(steps))
        self.extrapolation = nn.Parameter(torch.zeros(steps))

    @property
    def gmac_per_mp(self) -> float:
        """1e9 multiply-accumulates per sensor megapixel, of all steps."""
        layers = [self.denoiser.enter, *self.denoiser.convolutions, self.denoiser.leave]
        return len(self.alpha) * _weights(layers) / 1e3

    def forward(self, mosaic: Tensor, mask: Tensor, sigma: float) -> Tensor:
        now = _bilinear(mosaic)
        before = now
        size = sigma * (mosaic.numel() - 1) ** 0.5
        for step in range(len(self.alpha)):
            ahead = now + torch.exp(self.extrapolation[step]) * (now - before) if step else now
            consistent = ahead - mask * ahead + mosaic
            noise = self.denoiser(consistent)
            limit = torch.exp(self.alpha[step]) * size
            noise = noise * (limit / torch.maximum(noise.norm(), limit))
            now, before = (consistent - noise).clamp(0, 255), now
        return now


# Layers of the published DemosaicNet, by torch's and by Caffe's names, and what they are called here.
_DEMOSAICNET_LAYERS = {
    **{"pack_mosaic": "pack", "pack_mosaick": "pack", "conv1": "first", "preconv1": "first", "conv15": "last"},
    **{f"conv{i + 2}": f"body.{i}" for i in range(13)},
    **{"residual_predictor": "residual", "upsampler": "unpack", "unpack_mosaick": "unpack"},
    **{"post_conv": "mix", "post_conv1": "mix"},
}
_CAFFE_KINDS = {"0": "weight", "1": "bias"}


def load_demosaicnet(path: Path) -> DemosaicNet:
    """From ``bayer.pth`` or the ``caffe_*.npz`` of the same net; noise-aware if the file has the layer for it.

    Raises:
        ZooError: missing, unreadable, or other tensors.
    """
    tensors = read_tensors(path)
    found = {}
    for key, tensor in tensors.items():
        # "main_processor.conv1.weight" of torch; "conv1_0" (weight) and "conv1_1" (bias) of Caffe
        layer, kind = key.split(".")[-2:] if "." in key else key.rsplit("_", 1)
        found[f"{_DEMOSAICNET_LAYERS.get(layer, layer)}.{_CAFFE_KINDS.get(kind, kind)}"] = tensor
    net = DemosaicNet(noise_aware=any(key.startswith("preconv1") for key in tensors))
    return _filled(net, found, path)


def load_deep_demosaick(path: Path) -> CascadeDemosaic:
    """From ``bayer.pth`` or ``bayer_noisy.pth``: a list of tensors, number of steps and depth. Weight norm is folded.

    Raises:
        ZooError: missing, unreadable, or other tensors.
    """
    content = _read_torch(path)
    if not isinstance(content, list) or len(content) != 3 or not isinstance(content[0], dict):
        raise ZooError(f"{path}: is not a Deep Demosaick file: it holds no list of weights, steps and depth")
    tensors, steps, depth = content
    found: dict[str, Tensor] = {"alpha": tensors.pop("alpha", None), "extrapolation": tensors.pop("w", None)}
    names = {"conv1": "denoiser.enter", "conv_out": "denoiser.leave"}
    for key, tensor in tensors.items():
        *scope, layer, kind = key.removeprefix("model.").split(".")
        if scope:  # layer1.<pair>.conv<1 or 2>, layer1.<pair>.relu<1 or 2>
            index = 2 * int(scope[-1]) + int(layer[-1]) - 1
            if layer.startswith("relu"):
                found[f"denoiser.slopes.{index}"] = tensor
                continue
        name = f"denoiser.convolutions.{index}" if scope else names.get(layer, layer)
        if kind == "weight_v":
            length = tensor.flatten(1).norm(dim=1)[:, None, None, None]
            tensor = tensor * (tensors[key[:-1] + "g"] / length)
        if kind != "weight_g":
            found[f"{name}.{'weight' if kind == 'weight_v' else kind}"] = tensor
    return _filled(CascadeDemosaic(int(steps), int(depth)), found, path)


def load_pmrid(path: Path) -> nn.Module:
    """From ``torch_pretrained.ckp``, into the zoo's own PMRID.

    Raises:
        ZooError: missing, unreadable, or other tensors.
    """
    from zoo.models.pmrid import PMRID

    return _filled(PMRID(), read_tensors(path), path)


def read_tensors(path: Path) -> Tensors:
    """The tensors of a ``torch.save`` dictionary or an ``npz``, without unpickling anything else.

    Raises:
        ZooError: missing, unreadable, or no dictionary of tensors.
    """
    content: Any
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                content = {key: torch.from_numpy(archive[key]) for key in archive.files}
        except FileNotFoundError as error:
            raise _missing(path) from error
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ZooError(f"{path}: cannot be read as npz ({error}); fetch it again") from error
    else:
        content = _read_torch(path)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ZooError(f"{path}: is no dictionary of tensors; give the peer's own file")
    return content


def sha256(path: Path) -> str:
    """Hex sha256 of a peer's file.

    Raises:
        ZooError: missing or unreadable.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _missing(path) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise ZooError(f"{path}: cannot be read as weights ({str(error).splitlines()[0]}); fetch it again") from error


def _missing(path: Path) -> ZooError:
    return ZooError(f"{path}: no such file; --peers points at the folder of the peers' weights")


def _filled(net: Net, tensors: Tensors, path: Path) -> Net:
    """The network with these tensors, each of them used, in eval mode."""
    expected = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items() if tensor is not None}
    wrong = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
    if wrong:
        key = wrong[0]
        raise ZooError(f"{path}: holds another network: {key} is {given.get(key)} and not {expected.get(key)}")
    net.load_state_dict(dict(tensors))
    return net.eval()


def _weights(layers: Iterable[nn.Module]) -> int:
    """Multiply-accumulates of layers per position: their weights, biases not counted."""
    return sum(p.numel() for layer in layers for p in layer.parameters() if p.dim() == 4)


def _halves_product(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:]


def _mirrored(x: Tensor, pixels: int) -> Tensor:
    return F.pad(x, (pixels,) * 4, mode="reflect")


def _bilinear(mosaic: Tensor) -> Tensor:
    """Each colour's mean of its nearest pixels; what lies outside the picture counts as 0, as in training."""
    quad = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
    kernels = torch.stack([quad, cross, quad])[:, None].to(mosaic)
    return F.conv2d(mosaic, kernels, padding=1, groups=3)
