"""The compact family and what is derived from its layers."""

from typing import Any

import pytest
import torch

from zoo import list_models
from zoo.errors import ZooError
from zoo.models.analysis import count_macs, receptive_field
from zoo.models.contracts import bayer_vst
from zoo.models.registry import create_model, derive_spec, get_spec
from zoo.models.utnet import CompactUtNet

# GMAC per sensor megapixel; the last two a tenth of DemosaicNet's.
BUDGET = {"utnet-n": 1.0, "utnet-s": 2.0, "utnet-m": 4.0, "utnet-l": 14.3, "utnet-demosaic": 14.3}


@pytest.mark.parametrize("name", list(BUDGET))
def test_budget_and_catalogue(name: str) -> None:
    spec = derive_spec(name)
    assert spec.gmac_per_mp <= BUDGET[name]
    assert get_spec(name) == spec, "run python -m zoo.models.catalogue"
    assert spec.params < 1_000_000  # int8 artefacts under 1 MB


def test_list_models_filters() -> None:
    assert list_models("utnet-*") == ["utnet-demosaic", "utnet-l", "utnet-m", "utnet-n", "utnet-s"]


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ZooError, match="did you mean 'utnet-m'"):
        create_model("utnet_m")


def test_only_operators_that_every_delegate_has() -> None:
    kinds = {type(m).__name__ for m in create_model("utnet-m").modules() if not list(m.children())}
    assert kinds <= {"Conv2d", "ConvTranspose2d", "ModuleList"}


def test_macs_by_hand() -> None:
    model = CompactUtNet((16,), (1,), (), head_width=8)
    skip, stem, body = 9 * 12 * 8, 12 * 16 * 4 / 4, 9 * 16 * 16 / 4
    expand, head = 16 * 8, 9 * 8 * 12
    assert count_macs(model, bayer_vst.IN_CHANNELS) == skip + stem + body + expand + head


def test_halo_bounds_what_an_output_depends_on() -> None:
    torch.manual_seed(0)
    model = create_model("utnet-n")
    halo, multiple = receptive_field(model, bayer_vst.IN_CHANNELS)
    model = model.double()
    assert multiple == 8
    x = torch.randn(1, 12, 96, 96, dtype=torch.float64)
    # What lies further than the halo from the centre must not matter to it ...
    far = torch.ones(96, 96, dtype=torch.bool)
    far[48 - halo : 48 + multiple + halo, 48 - halo : 48 + multiple + halo] = False
    changed = torch.where(far, torch.randn_like(x), x)
    centre = (..., slice(48, 48 + multiple), slice(48, 48 + multiple))
    with torch.no_grad():
        assert torch.equal(model(x)[centre], model(changed)[centre])
        # ... and some input exactly that far from an output does (with positive weights nothing cancels).
        for parameter in model.parameters():
            parameter.fill_(0.05 if parameter.dim() > 1 else 0)
        zeros = torch.zeros_like(x)
        reached = []
        for row in range(48, 48 + multiple):
            lit = zeros.clone()
            lit[..., row, :] = 1.0
            rows = model(lit).abs().sum((0, 1, 3)).nonzero().flatten()
            reached += [row - int(rows.min()), int(rows.max()) - row]
    assert max(reached) == halo


@pytest.mark.parametrize(
    "larger",
    [
        ((16, 24), (0, 1), (0,), 8, 1),
        ((16, 32), (1, 2), (1,), 12, 3),  # more of all but levels
        ((24, 24), (0, 2), (0,), 8, 2),
    ],
)
def test_a_network_grown_from_a_smaller_one_computes_what_that_does(larger: tuple[Any, ...]) -> None:
    torch.manual_seed(0)
    small, grown = CompactUtNet((16, 24), (0, 1), (0,), 8, 1), CompactUtNet(*larger)
    grown.grow(small.state_dict())
    x = torch.randn(1, 12, 32, 32)
    y = grown(x)
    with torch.no_grad():
        assert torch.allclose(y, small(x), atol=1e-5)
    # New channels and layers are no dead ends: what reads them learns.
    y.square().sum().backward()
    for name, parameter in grown.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad is not None and (parameter.grad.flatten(2).abs().sum(2) > 0).float().mean() > 0.5, (
                name
            )


def test_what_is_no_smaller_network_does_not_grow() -> None:
    with pytest.raises(RuntimeError, match="larger network"):
        CompactUtNet((16, 24), (0, 1), (0,), 8).grow(CompactUtNet((16, 32), (0, 1), (0,), 8).state_dict())
    with pytest.raises(RuntimeError, match="another form"):
        CompactUtNet((16, 24, 32), (0, 1, 1), (0, 0), 8).grow(CompactUtNet((16, 24), (0, 1), (0,), 8).state_dict())
