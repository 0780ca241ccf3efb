"""Networks whose latency on phones is published, as far as their layers go: shapes and sizes, no weights that matter.

From the papers and reference implementations: U-Net (Ronneberger 2015, milesial's variant with transposed convolutions),
MobileNetV2 (Sandler 2018), ResNet-50 (He 2016, stride in the 3x3), SRVGGNetCompact of Real-ESRGAN (x4v3: 32 convolutions),
QuickSRNet-Medium (Berger 2023) and XLSR (Ayazoglu 2021). ``SHAPES`` are the inputs of the published measurements.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPES = {
    "unet": (3, 640, 1280),
    "mobilenet-v2": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "realesrgan-x4v3": (3, 128, 128),
    "quicksrnet-medium": (3, 128, 128),
    "xlsr": (3, 128, 128),
}


def conv(a: int, b: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False)


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + (self.shortcut(x) if self.shortcut is not None else x)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [64, 128, 256, 512, 1024]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.first = nn.Sequential(conv(3, 64), conv(64, 64))
        self.down = nn.ModuleList(nn.Sequential(conv(a, b), conv(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
        self.join = nn.ModuleList(nn.Sequential(conv(b, a), conv(a, a)) for a, b in reversed(pairs))
        self.last = conv(64, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.first(x)]
        for block in self.down:
            kept.append(block(nn.functional.max_pool2d(kept[-1], 2)))
        x = kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        return self.last(x)


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 32, stride=2)]
    width = 32
    for expand, out, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(count):
            inner, step = width * expand, stride if i == 0 else 1
            body = [conv(width, inner, 1)] if expand > 1 else []
            body += [conv(inner, inner, 3, step, groups=inner), conv(inner, out, 1)]
            block = nn.Sequential(*body)
            layers.append(Residual(block, None) if step == 1 and width == out else block)
            width = out
    return nn.Sequential(*layers, conv(320, 1280, 1), nn.AdaptiveAvgPool2d(1), conv(1280, 1000, 1))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for inner, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            step = stride if i == 0 else 1
            body = nn.Sequential(conv(width, inner, 1), conv(inner, inner, 3, step), conv(inner, 4 * inner, 1))
            layers.append(Residual(body, conv(width, 4 * inner, 1, step) if i == 0 else None))
            width = 4 * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), conv(2048, 1000, 1))


class Xlsr(nn.Module):
    """Three blocks of grouped 3x3 and dense 1x1 convolutions on 32 channels, beside a 3x3 branch of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.side, self.first = conv(3, 16), conv(3, 32)
        self.body = nn.Sequential(*(nn.Sequential(conv(32, 32, groups=4), conv(32, 32, 1)) for _ in range(3)))
        self.narrow = conv(32, 16)
        self.join, self.last = conv(32, 32, 1), conv(32, 27)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.narrow(self.body(self.first(x)))
        return self.last(self.join(torch.cat([inside, self.side(x)], 1)))


def plain(width: int, middle: int, out: int) -> nn.Module:
    return nn.Sequential(conv(3, width), *(conv(width, width) for _ in range(middle)), conv(width, out))


NETS = {
    "unet": UNet,
    "mobilenet-v2": mobilenet_v2,
    "resnet50": resnet50,
    "realesrgan-x4v3": lambda: plain(64, 32, 48),
    "quicksrnet-medium": lambda: plain(32, 5, 27),
    "xlsr": Xlsr,
}
