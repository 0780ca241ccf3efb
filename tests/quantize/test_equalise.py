"""Cross-layer equalisation: the same network, its channels alike."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantize.equalise import equalise
from zoo.models.bayer_codec import Decoder, Encoder
from zoo.models.registry import create_model
from zoo.models.utnet import CompactUtNet


class Branches(nn.Module):
    """A sum, a concatenation and a pooling, which no factor may pass."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2, bias=False)
        self.wide, self.free, self.last = nn.Conv2d(11, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = F.relu(self.one(x) + self.two(x))
        up = F.relu(self.up(both))
        joined = torch.cat([up, F.interpolate(both, scale_factor=2.0)], 1)
        return self.last(F.relu(self.free(F.avg_pool2d(F.relu(self.wide(joined)), 2))))


class Grouped(nn.Module):
    """Depthwise and grouped layers among others, whose channels are left as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.free, self.some = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.some(F.relu(self.free(F.relu(self.deep(F.relu(self.first(x))))))))
        return self.last(F.relu(self.up(y)))


def spread(model: nn.Module, seed: int = 0) -> nn.Module:
    """Its channels made unlike by factors from 1/4 to 4, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                factor = 4 ** (2 * torch.rand(layer.weight.shape[axis], generator=generator) - 1)
                layer.weight.mul_(factor.view(-1, *(1,) * (3 - axis)))
    return model


def widths(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """How far each channel that a layer reads reaches."""
    seen: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    hook.remove()
    return seen[0].abs().amax((0, 2, 3))


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: create_model("utnet-n"), 12),
        (lambda: create_model("utnet-l"), 12),
        (lambda: Encoder(CompactUtNet((8, 8), (1, 1), (1,), 4), 16), 12),
        (lambda: Decoder(16, 8, (4, 4)), 16),
        (Branches, 3),
        (Grouped, 3),
    ],
    ids=["utnet-n", "utnet-l", "encoder", "decoder", "branches", "grouped"],
)
def test_a_network_computes_what_it_did(make: object, channels: int) -> None:
    torch.manual_seed(0)
    model = spread(make())  # type: ignore[operator]
    x = torch.randn(2, channels, 32, 32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    equal = equalise(model, [x])
    with torch.no_grad():
        want, got = model(x), equal(x)
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the model itself was changed"
    assert any(not torch.equal(v, before[k]) for k, v in equal.state_dict().items())


def test_channels_reach_as_far_as_the_widest() -> None:
    torch.manual_seed(0)
    model, x = spread(create_model("utnet-n")), torch.randn(2, 12, 64, 64)
    equal = equalise(model, [x])
    for layer in ("fine.0", "fine.1", "head", "encoder.1.0"):
        before, after = widths(model, layer, x), widths(equal, layer, x)
        # A thousandth of the values may lie beyond, so maxima are alike but for those; no tensor becomes wider.
        assert (after.max() / after.min()) < 0.7 * (before.max() / before.min())
        assert after.max() < 1.5 * before.max()


@pytest.mark.parametrize("layer", [slice(0, 1), slice(0, None)], ids=["channel", "layer"])
def test_what_never_speaks_is_left_in_bounds(layer: slice) -> None:
    torch.manual_seed(0)
    model = create_model("utnet-n")
    with torch.no_grad():
        model.get_submodule("fine.0").bias[layer] = -1e3  # type: ignore[index, union-attr]
    equal = equalise(model, [torch.randn(1, 12, 32, 32)])
    ratio = equal.get_submodule("fine.0").weight[0] / model.get_submodule("fine.0").weight[0]  # type: ignore[index, union-attr]
    assert ratio.max() < 8 * 8 + 1e-3
    assert all(torch.isfinite(v).all() for v in equal.state_dict().values())
