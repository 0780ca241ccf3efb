"""Peers' architectures on random weights, and the loading of files in the form that they are published in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peers_nets as nets
import pytest
import torch
from torch import Tensor, nn

from zoo.errors import ZooError

TORCH_NAMES = {"pack": "pack_mosaic", "first": "conv1", "last": "conv15"} | {
    f"body.{i}": f"conv{i + 2}" for i in range(13)
}
TORCH_SCOPES = {name: f"main_processor.{old}" for name, old in TORCH_NAMES.items()} | {
    "residual": "residual_predictor",
    "unpack": "upsampler",
    "mix": "fullres_processor.post_conv",
    "output": "fullres_processor.output",
}
CAFFE_NAMES = TORCH_NAMES | {
    "pack": "pack_mosaick",
    "first": "preconv1",
    "unpack": "unpack_mosaick",
    "mix": "post_conv1",
}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with weights that keep the size of what goes through, biases too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        spread = 1.5 / parameter[0].numel() ** 0.5 if parameter.dim() == 4 else 0.1
        nn.init.normal_(parameter, 0, spread, generator=generator)
    return net.eval()


def demosaicnet(*, noise_aware: bool) -> nets.DemosaicNet:
    net = nets.DemosaicNet(noise_aware=noise_aware)
    randomised(net)
    return net


def mosaic(height: int, width: int, seed: int = 1) -> Tensor:
    """A random GRBG mosaic at its colours' places."""
    values = torch.rand((1, 1, height, width), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(1, 3, height, width)
    mask[:, 1, 0::2, 0::2] = mask[:, 0, 0::2, 1::2] = mask[:, 2, 1::2, 0::2] = mask[:, 1, 1::2, 1::2] = 1
    return values * mask


@pytest.mark.parametrize(("noise_aware", "parameters", "gmac"), [(False, 560_886, 142.7), (True, 564_406, 143.5)])
def test_demosaicnet_has_the_published_size(noise_aware, parameters, gmac):
    net = nets.DemosaicNet(noise_aware=noise_aware)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.gmac_per_mp == pytest.approx(gmac, abs=0.1)


@torch.inference_mode()
def test_demosaicnet_cost_is_what_its_layers_compute():
    net, total = nets.DemosaicNet(noise_aware=False), 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        positions = args[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += positions[0, 0].numel() * (module.weight.numel() if module.weight.dim() == 4 else 0)

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    side = 8192
    net.to("meta")(torch.zeros(1, 3, side, side, device="meta"))
    assert total / side**2 / 1e3 == pytest.approx(net.gmac_per_mp, rel=0.01)  # margins cost 0.4 %


@torch.inference_mode()
@pytest.mark.parametrize("noise_aware", [False, True])
def test_demosaicnet_moves_with_its_mosaic_and_sees_no_further_than_its_margin(noise_aware):
    net = demosaicnet(noise_aware=noise_aware).double()
    x = mosaic(96, 92).double()
    sigma = torch.full((1, 1, 48, 46), 0.05, dtype=torch.float64)

    def run(m: Tensor) -> Tensor:
        return net(m, sigma[..., : m.shape[2] // 2, : m.shape[3] // 2]) if noise_aware else net(m)

    y = run(x)
    assert y.shape == (1, 3, 34, 30)
    assert torch.allclose(run(x[..., 2:, 4:]), y[..., 2:, 4:], atol=1e-9)
    # A pixel that lies more than the margin and one (a packed pixel has two) from all of a part of the output.
    changed = x.clone()
    changed[..., 0, 0] += 1
    assert (run(changed)[..., 2:, 2:] == y[..., 2:, 2:]).all() and (run(changed) != y).any()


@torch.inference_mode()
def test_the_noise_aware_net_listens():
    net, x = demosaicnet(noise_aware=True), mosaic(80, 80)
    low, high = (net(x, torch.full((1, 1, 40, 40), s)) for s in (0.0, 0.08))
    assert (low - high).abs().max() > 1e-6
    with pytest.raises(ValueError, match="sigma"):
        net(x)


@torch.inference_mode()
def test_the_cascade_without_a_denoiser_is_bilinear_interpolation():
    from zoo.baselines.demosaic import bilinear

    net = nets.CascadeDemosaic(steps=3, depth=2)
    for parameter in net.denoiser.leave.parameters():
        nn.init.zeros_(parameter)
    raw = np.random.default_rng(0).random((32, 34), np.float32)
    mask = np.zeros((3, 32, 34), np.float32)
    mask[0, 0::2, 0::2] = mask[1, 0::2, 1::2] = mask[1, 1::2, 0::2] = mask[2, 1::2, 1::2] = 1
    made = net(torch.from_numpy(raw * mask * 255)[None], torch.from_numpy(mask)[None], 1.0)[0].numpy() / 255
    assert np.allclose(made[:, 2:-2, 2:-2], bilinear(raw)[:, 2:-2, 2:-2], atol=1e-5)


@torch.inference_mode()
def test_the_cascade_takes_away_no_more_than_the_noise():
    net = randomised(nets.CascadeDemosaic(steps=1, depth=2))
    assert isinstance(net, nets.CascadeDemosaic)
    net.alpha.data.fill_(0.5)
    # Everything is known, so that the step before the denoiser is the mosaic itself.
    x, mask = torch.full((1, 3, 40, 40), 128.0), torch.ones(1, 3, 40, 40)
    for sigma in (0.5, 2.0):
        taken = (net(x, mask, sigma) - x).pow(2).mean().sqrt()
        assert taken == pytest.approx(sigma * np.exp(0.5), rel=1e-3)


def test_the_denoiser_of_deep_demosaick_has_the_published_size_and_moves_with_its_input():
    net = randomised(nets.ResidualDenoiser()).double()
    assert sum(p.numel() for p in net.parameters()) == 379_587
    assert nets.CascadeDemosaic().gmac_per_mp == pytest.approx(7565, abs=1)
    x = torch.rand((1, 3, 64, 64), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        y, shifted = net(x), net(x[..., 3:, 5:])
    reach = 14  # 5x5, ten of 3x3, 5x5
    assert torch.allclose(shifted[..., reach:, reach:], y[..., 3 + reach :, 5 + reach :], rtol=1e-9, atol=1e-9)


def caffe_file(net: nets.DemosaicNet, path: Path) -> Path:
    arrays = {}
    for key, tensor in net.state_dict().items():
        layer, kind = key.rsplit(".", 1)
        arrays[f"{CAFFE_NAMES.get(layer, layer)}_{['weight', 'bias'].index(kind)}"] = tensor.numpy()
    np.savez(path, **arrays)
    return path


def torch_file(net: nets.DemosaicNet, path: Path) -> Path:
    state = net.state_dict().items()
    torch.save({f"{TORCH_SCOPES[k.rsplit('.', 1)[0]]}.{k.rsplit('.', 1)[1]}": v for k, v in state}, path)
    return path


@torch.inference_mode()
@pytest.mark.parametrize("noise_aware", [False, True])
def test_demosaicnet_files_load(noise_aware, tmp_path):
    net, x = demosaicnet(noise_aware=noise_aware), mosaic(72, 72)
    path = caffe_file(net, tmp_path / "w.npz") if noise_aware else torch_file(net, tmp_path / "w.pth")
    loaded = nets.load_demosaicnet(path)
    assert loaded.noise_aware == noise_aware
    sigma = torch.full((1, 1, 36, 36), 0.03) if noise_aware else None
    assert (loaded(x, sigma) == net(x, sigma)).all()


@torch.inference_mode()
def test_deep_demosaick_files_load_with_weight_norm_folded(tmp_path):
    generator = torch.Generator().manual_seed(3)
    steps, depth = 4, 2
    published = {"alpha": torch.rand(steps, generator=generator), "w": -torch.rand(steps, generator=generator)}
    expected = nets.CascadeDemosaic(steps, depth)
    expected.alpha.data, expected.extrapolation.data = published["alpha"], published["w"]
    layers = {"conv1": expected.denoiser.enter, "conv_out": expected.denoiser.leave}
    for i, layer in enumerate(expected.denoiser.convolutions):
        layers[f"layer1.{i // 2}.conv{i % 2 + 1}"] = layer
        slope = published[f"model.layer1.{i // 2}.relu{i % 2 + 1}.weight"] = torch.rand(64, generator=generator)
        expected.denoiser.slopes[i].data = slope
    for name, layer in layers.items():
        v = torch.randn(layer.weight.shape, generator=generator)
        # Any pair of direction and length: here lengths of 1/8 of the directions'.
        length = v.pow(2).sum((1, 2, 3), keepdim=True).sqrt()
        layer.weight.data, layer.bias.data = v / 8, torch.randn(layer.bias.shape, generator=generator)
        published |= {f"model.{name}.weight_v": 3 * v, f"model.{name}.weight_g": length / 8}
        published[f"model.{name}.bias"] = layer.bias.data
    torch.save([published, steps, depth], tmp_path / "w.pth")
    loaded = nets.load_deep_demosaick(tmp_path / "w.pth")
    for (name, a), b in zip(loaded.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7), name


def test_pmrid_files_load(tmp_path):
    from zoo.models.pmrid import PMRID

    net = randomised(PMRID())
    torch.save(net.state_dict(), tmp_path / "w.ckp")
    loaded = nets.load_pmrid(tmp_path / "w.ckp")
    assert sum(p.numel() for p in loaded.parameters()) == 1_031_908
    x = torch.rand((1, 4, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (loaded(x) == net(x)).all()


@pytest.mark.parametrize("load", [nets.load_demosaicnet, nets.load_deep_demosaick, nets.load_pmrid, nets.sha256])
def test_a_missing_file_says_where_to_point(load, tmp_path):
    with pytest.raises(ZooError, match=r"absent\.pth: no such file; --peers points at"):
        load(tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.npz"])
def test_damaged_and_foreign_files_are_named(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 not weights")
    for load in (nets.load_demosaicnet, nets.load_pmrid):
        with pytest.raises(ZooError, match=r"cannot be read as"):
            load(path)
    torch.save({"conv1.weight": torch.zeros(64, 4, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ZooError, match=r"holds another network: body\.0\.bias is None"):
        nets.load_demosaicnet(tmp_path / "other.pth")
    with pytest.raises(ZooError, match="no list of weights"):
        nets.load_deep_demosaick(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ZooError, match="no dictionary of tensors"):
        nets.load_pmrid(tmp_path / "list.pth")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    np.savez(tmp_path / "trap.npz", a=np.array([Trap()], object))
    for name in ("trap.pth", "trap.npz"):
        (tmp_path / "sprung").unlink(missing_ok=True)
        with pytest.raises(ZooError, match="cannot be read as"):
            nets.read_tensors(tmp_path / name)
        assert not (tmp_path / "sprung").exists()
