"""Networks of others: what their layers say of them, and a bad one beside the zoo's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from zoo.cli import main
from zoo.errors import ZooError
from zoo.models import registry
from zoo.models.registry import get_spec, list_models, register_model


class Own(nn.Module):
    """Two 3x3 convolutions, the second behind a gain that starts at zero, and whatever ``norm`` is between them."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.norm = norm or nn.Identity()
        self.gain, self.level = nn.Parameter(torch.zeros(1, 12, 1, 1)), nn.Parameter(torch.full((1,), -0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        return y + self.gain * self.second(y) + self.level + torch.zeros(x.shape)


def own() -> nn.Module:
    return Own()


def own_grouped() -> nn.Module:
    return Own(nn.GroupNorm(3, 12))


def own_broken() -> nn.Module:
    return Own(nn.Conv2d(5, 12, 1))


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    registry.registered()  # the zoo's own register once, when they are imported
    before = dict(registry._ENTRY_POINTS)
    registry._sound.cache_clear()
    yield register_model
    registry._ENTRY_POINTS.clear()
    registry._ENTRY_POINTS.update(before)


def test_parameters_beside_layers_are_examined_too(register: Callable[..., None]) -> None:
    register(own)
    state = torch.random.get_rng_state()
    spec = get_spec("own")
    assert (spec.halo, spec.tile_multiple) == (
        2 + 1,
        1,
    )  # of both convolutions, the gain's zero notwithstanding; the demosaic's
    assert spec.gmac_per_mp == pytest.approx(2 * 9 * 12 * 12 * 0.25e-3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert "own" in list_models()


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (own_grouped, "own-grouped: .*GroupNorm, see all of it"),
        (own_broken, "own-broken: its layers cannot be examined"),
    ],
)
def test_a_bad_network_is_refused_in_one_line_and_hides_no_other(
    builder: Callable[[], nn.Module], message: str, register: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    names = list_models()
    register(builder)
    with pytest.raises(ZooError, match=message) as raised:
        get_spec(builder.__name__.replace("_", "-"))
    assert "\n" not in str(raised.value)
    capsys.readouterr()
    for warnings in (1, 0):  # told once
        assert main(["list"]) == 0
        out, err = capsys.readouterr()
        assert err.count("\n") == warnings
        assert "utnet-m" in out
    assert list_models() == names
