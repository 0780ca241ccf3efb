"""The operators of the micro-operator matrix: each as the smallest network that a target can be asked for.

Every network speaks ``bayer_vst_v1`` (float32 ``[1, 12, t, t]`` in and out), so that the project's own export code takes it like
any model. A convolution stands in front of the operator and one behind it: quantisation then has something to hand over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.balle import GDN
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS
from zoo.models.layers import BilinearUp

WIDTH = 16


@dataclass(frozen=True)
class Operator:
    """One row of the matrix.

    Attributes:
        title: what it is, in a few words.
        build: makes the layers under test.
        resize: what they do to height and width: 1, 2 or 1/2; the convolutions around undo it.
        out: channels that they give, from :data:`WIDTH` (from ``4 * WIDTH`` where ``wide``).
        wide: whether they take ``4 * WIDTH`` channels.
    """

    title: str
    build: Callable[[], nn.Module]
    resize: float = 1
    out: int = WIDTH
    wide: bool = False

    def network(self) -> nn.Module:
        """Convolution, operator, convolution, in eval mode; weights are drawn from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _Around(self).eval()


def network_sha256(network: nn.Module, tile: int) -> str:
    """Of a network's exported graph and its parameters: cells of another network are measured again."""
    graph = torch.export.export(network, (torch.zeros(1, IN_CHANNELS, tile, tile),)).graph
    total = hashlib.sha256(str(graph).encode())
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode() + tensor.numpy().tobytes())
    return total.hexdigest()


class _Around(nn.Module):
    def __init__(self, operator: Operator) -> None:
        super().__init__()
        width = 4 * WIDTH if operator.wide else WIDTH
        up, down = operator.resize == 2, operator.resize == 0.5
        self.before = nn.Conv2d(IN_CHANNELS, width, 2, 2) if up else nn.Conv2d(IN_CHANNELS, width, 3, padding=1)
        self.operator = operator.build()
        self.behind: nn.Module = nn.Conv2d(operator.out, OUT_CHANNELS, 3, padding=1)
        if down:
            self.behind = nn.ConvTranspose2d(operator.out, OUT_CHANNELS, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.operator(self.before(x)))


class _Function(nn.Module):
    """A function of one tensor as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Join(nn.Module):
    """A function of two tensors, both out of 1x1 convolutions."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.left(x), self.right(x))


class _Padded(nn.Module):
    """A 3x3 convolution behind an explicit pad of one pixel."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode, self.conv = mode, nn.Conv2d(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (1, 1, 1, 1), mode=self.mode))


class _FrozenGDN(nn.Module):
    """GDN as it is deployed: beta and gamma of :class:`zoo.models.balle.GDN` stored in a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Conv2d(WIDTH, WIDTH, 1)
        with torch.no_grad():
            self.norm.weight.copy_(0.1 * torch.eye(WIDTH)[:, :, None, None])
            self.norm.bias.fill_(1.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(self.norm(x * x))


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, as restoration transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ChannelGate(nn.Module):
    """Mean over the picture, 1x1 convolution, sigmoid, product: squeeze and excitation (Hu et al., CVPR 2018), one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(F.adaptive_avg_pool2d(x, 1)))


class _ChannelAttention(nn.Module):
    """Softmax attention between channels (transposed attention of Restormer, Zamir et al., CVPR 2022), one head, no norms."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(1, 2) / k.shape[2], dim=-1)
        return (weights @ v).view_as(x)


def _conv(kernel: int, **options: int) -> Callable[[], nn.Module]:
    padding = options.get("dilation", 1) * (kernel // 2)
    return lambda: nn.Conv2d(WIDTH, WIDTH, kernel, padding=padding, **options)  # type: ignore[arg-type]


def _transposed(kernel: int, **options: int) -> Callable[[], nn.Module]:
    return lambda: nn.ConvTranspose2d(WIDTH, WIDTH, kernel, 2, **options)  # type: ignore[arg-type]


def _layer(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: _Function(function)


def _join(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: _Join(function)


OPERATORS: dict[str, Operator] = {
    "conv3x3": Operator("convolution 3x3", _conv(3)),
    "conv1x1": Operator("convolution 1x1", _conv(1)),
    "conv5x5_s2": Operator("convolution 5x5, stride 2", _conv(5, stride=2), 0.5),
    "conv_depthwise": Operator("depthwise convolution 3x3", _conv(3, groups=WIDTH)),
    "conv_grouped": Operator("grouped convolution 3x3, 4 groups", _conv(3, groups=4)),
    "conv_dilated": Operator("dilated convolution 3x3, dilation 2", _conv(3, dilation=2)),
    "tconv_k2": Operator("transposed convolution k2 s2", _transposed(2), 2),
    "tconv_k4": Operator("transposed convolution k4 s2 p1", _transposed(4, padding=1), 2),
    "tconv_output_padding": Operator(
        "transposed convolution k5 s2 p2, output padding 1", _transposed(5, padding=2, output_padding=1), 2
    ),
    "tconv_grouped": Operator("transposed convolution k2 s2, 4 groups", _transposed(2, groups=4), 2),
    "pixel_shuffle": Operator("pixel shuffle x2", lambda: nn.PixelShuffle(2), 2, wide=True),
    "pixel_unshuffle": Operator("pixel unshuffle x2", lambda: nn.PixelUnshuffle(2), 0.5, 4 * WIDTH),
    "resize_nearest": Operator("nearest resize x2", lambda: nn.Upsample(scale_factor=2, mode="nearest"), 2),
    "resize_bilinear": Operator("bilinear resize x2", BilinearUp, 2),
    "max_pool": Operator("max pool 2x2", lambda: nn.MaxPool2d(2), 0.5),
    "avg_pool": Operator("average pool 2x2", lambda: nn.AvgPool2d(2), 0.5),
    "relu": Operator("ReLU", nn.ReLU),
    "relu6": Operator("ReLU6", nn.ReLU6),
    "leaky_relu": Operator("LeakyReLU", lambda: nn.LeakyReLU(0.1)),
    "prelu": Operator("PReLU", lambda: nn.PReLU(WIDTH)),
    "silu": Operator("SiLU", nn.SiLU),
    "hardswish": Operator("Hardswish", nn.Hardswish),
    "gelu": Operator("GELU", nn.GELU),
    "sigmoid": Operator("sigmoid", nn.Sigmoid),
    "pad_zero": Operator("zero pad before a convolution", lambda: _Padded("constant")),
    "pad_reflect": Operator("reflect pad before a convolution", lambda: _Padded("reflect")),
    "pad_replicate": Operator("replicate pad before a convolution", lambda: _Padded("replicate")),
    "concat": Operator("concatenation", _join(lambda a, b: torch.cat([a, b], 1)), out=2 * WIDTH),
    "add": Operator("addition", _join(lambda a, b: a + b)),
    "mul": Operator("product of two tensors", _join(lambda a, b: a * b)),
    "scalar_mul": Operator("product with a constant", _layer(lambda x: x * 0.5)),
    "channel_slice": Operator("slice of channels", _layer(lambda x: x[:, : WIDTH // 2]), out=WIDTH // 2),
    "gdn": Operator("GDN", lambda: GDN(WIDTH)),
    "gdn_frozen": Operator("GDN with stored weights", _FrozenGDN),
    "layer_norm": Operator("layer norm over channels", _ChannelNorm),
    "channel_gate": Operator("mean over the picture, sigmoid, product", _ChannelGate),
    "softmax_attention": Operator("softmax attention between channels", _ChannelAttention),
}
