"""The float references: sizes and costs as published, exact halos, sound starts."""

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.models.analysis import receptive_field
from zoo.models.contracts.bayer_vst import linear_demosaic
from zoo.models.demosaic_cnn import DemosaicCnn
from zoo.models.layers import LinearDemosaic, fold_norms
from zoo.models.pmrid import PMRID, DecoderStage, EncoderBlock
from zoo.models.registry import check_int8, create_model, get_spec
from zoo.models.utnet2 import UtNet2, UtNet2FullResolution
from zoo.models.xtrans_unet import XTransUNet

# Parameters and GMAC per sensor megapixel, counted from the originals' layers.
PUBLISHED = {
    "utnet2": (7_760_748, 46.2),
    "utnet2-48": (17_457_948, 103.7),
    "utnet2-64": (31_033_036, 184.1),
    "utnet2-rgb": (7_760_163, 184.3),
    "utnet2-preupsample": (7_760_451, 184.5),
    "utnet3": (10_137_740, 640.0),
    "passthrough": (0, 0.0),
    "demosaic-cnn": (123_011, 122.75),
    "xtrans-unet": (31_038_339, 735.7),
    "xtrans-unet-32": (7_763_395, 184.5),
    "xtrans-unet-16": (1_942_755, 46.4),
    "pmrid": (1_031_908, 3.74),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_sizes_and_costs_are_those_published(name: str) -> None:
    """The catalogue's figures; that it is current, tests/cli holds."""
    spec, (params, cost) = get_spec(name), PUBLISHED[name]
    assert spec.params == params
    assert spec.gmac_per_mp == pytest.approx(cost, rel=2e-3)
    assert not spec.int8


def test_pmrid_has_the_checkpoint_s_names() -> None:
    """Names and shapes by which the published weights load; a sample of the 141."""
    state = {name: tuple(value.shape) for name, value in PMRID().state_dict().items()}
    assert len(state) == 141
    assert state["enc1.0.conv1.depthwise.weight"] == (16, 1, 5, 5)
    assert state["enc4.3.conv2.pointwise.weight"] == (512, 128, 1, 1)
    assert state["dec2.upsample.weight"] == (64, 32, 2, 2)
    assert state["out0.conv1.pointwise.bias"] == (16,)


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        (UtNet2(4), 12),
        (UtNet2FullResolution(4, demosaic=True), 12),
        (UtNet2FullResolution(4, demosaic=False), 12),
        (XTransUNet(4), 16),
        (DemosaicCnn(8), 12),
        (nn.Sequential(EncoderBlock(4, 16, 2), nn.ConvTranspose2d(16, 4, 2, 2)), 4),
    ],
    ids=["packed", "demosaiced", "upsampled", "xtrans", "cnn", "separable"],
)
def test_halo_bounds_what_an_output_depends_on(model: nn.Module, channels: int) -> None:
    halo, multiple = receptive_field(model.eval(), channels)
    torch.manual_seed(0)
    size = -(-(2 * halo + 3 * multiple) // multiple) * multiple
    at = halo + multiple - halo % multiple
    x = torch.randn(1, channels, size, size, dtype=torch.float64)
    near = slice(at - halo, at + multiple + halo)
    changed = torch.randn_like(x)
    changed[..., near, near] = x[..., near, near]
    model = model.double()
    core = (..., slice(at, at + multiple), slice(at, at + multiple))
    with torch.no_grad():
        assert torch.equal(model(x)[core], model(changed)[core])
        # A pixel less would not do: of all phases, some input exactly that far from an output matters to it.
        for parameter in model.parameters():
            parameter.fill_(1 / max(1, parameter[0].numel()) if parameter.dim() > 1 else float(parameter.mean() > 0.9))
        dark = torch.zeros_like(x)
        reached = []
        for row in range(at, at + multiple):
            lit = dark.clone()
            lit[..., row, :] = 1
            rows = (model(lit) - model(dark)).abs().sum((0, 1, 3)).nonzero().flatten()
            reached += [row - int(rows.min()), int(rows.max()) - row]
    assert max(reached) == halo


def test_demosaic_layer_is_the_contract_s_but_for_the_border() -> None:
    x = torch.rand(1, 4, 9, 8)
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(LinearDemosaic()(x)[inner], linear_demosaic(x)[inner], atol=1e-6)
    assert not LinearDemosaic().state_dict()


def test_cnn_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    model, x = DemosaicCnn(), torch.rand(1, 12, 16, 16) - 0.6
    model.last.weight.data[:, 6:] = 0  # the random rest, which starts small
    assert torch.allclose(model(x), x, atol=1e-5)


def test_the_unets_start_as_almost_no_correction() -> None:
    torch.manual_seed(0)
    for model, channels in ((UtNet2(8), 12), (XTransUNet(8), 16)):
        with torch.no_grad():
            assert model.eval()(torch.rand(1, channels, 16, 16)).abs().mean() < 0.2


def test_folded_norms_compute_the_same() -> None:
    torch.manual_seed(0)
    model = XTransUNet(8).train()
    for _ in range(3):
        model(torch.randn(2, 16, 16, 16))  # statistics other than 0 and 1
    folded, x = fold_norms(model), torch.randn(1, 16, 16, 16)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        assert torch.allclose(folded(x), model.eval()(x), atol=1e-5)


def test_passthrough_needs_no_weights_and_corrects_nothing() -> None:
    model = create_model("passthrough", pretrained=True)
    assert model(torch.randn(1, 12, 4, 4)).abs().max() == 0


def test_other_references_need_weights_and_say_so() -> None:
    with pytest.raises(ZooError, match=r"utnet3: no weights ship with this version; make them with `zoo train`"):
        create_model("utnet3", pretrained=True)


def test_int8_is_refused_with_a_reason() -> None:
    check_int8("utnet-n")
    with pytest.raises(ZooError, match=r"utnet2 is a float reference .*quantise a compact model") as raised:
        check_int8("utnet2")
    assert "\n" not in str(raised.value)
    with pytest.raises(ZooError, match="unknown model"):
        check_int8("utnet-x")


def test_decoder_stage_adds_the_projected_skip() -> None:
    stage = DecoderStage(8, 4, 6)
    x, skip = torch.rand(1, 8, 4, 4), torch.rand(1, 4, 8, 8)
    with torch.no_grad():
        stage.upsample.weight.zero_()
        stage.upsample.bias.zero_()
        assert torch.equal(stage(x, skip), torch.relu(stage.proj_conv.pointwise(stage.proj_conv.depthwise(skip))))
