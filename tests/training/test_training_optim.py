"""The optimisers: what Muon does to kernels, and what is left to AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.training.optim import KERNEL_DECAY, KernelMuon, is_kernel, make_optimizers, orthogonalised


def singular_values(kernel: Tensor) -> Tensor:
    return torch.linalg.svdvals(kernel.flatten(1))


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(12, 16, 3), nn.Conv2d(24, 8, 2), nn.ConvTranspose2d(32, 16, 2), nn.Conv2d(16, 40, 1)]
)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_an_update_has_singular_values_of_about_one(layer: nn.Module, memory: torch.memory_format) -> None:
    kernel: Tensor = layer.to(memory_format=memory).weight  # type: ignore[call-overload,union-attr,assignment]
    before = kernel.detach().clone()
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0)) * 1e-6
    KernelMuon([kernel], lr=0.1, weight_decay=0.0).step()
    scale = 0.1 * 0.2 * max(kernel.flatten(1).shape) ** 0.5
    values = singular_values(before - kernel.detach()) / scale
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    # Downhill, and as large an update as AdamW's usual one.
    assert float(((before - kernel.detach()) * kernel.grad).sum()) > 0
    assert 0.1 * 0.1 < float((before - kernel.detach()).square().mean().sqrt()) < 0.1 * 0.4


def test_kernels_decay_and_biases_do_not() -> None:
    layer = nn.Conv2d(4, 8, 3)
    kernel, bias = (p.detach().clone() for p in (layer.weight, layer.bias))  # type: ignore[union-attr]
    for optimizer in make_optimizers(dict(layer.named_parameters()), lr=0.1, kernel_lr=0.2, weight_decay=0.0):
        for parameter in layer.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert torch.allclose(layer.weight, kernel * (1 - 0.2 * KERNEL_DECAY), atol=1e-6)
    assert torch.equal(layer.bias, bias)  # type: ignore[arg-type]


def test_channels_last_changes_nothing() -> None:
    one, two = nn.Conv2d(8, 12, 3), nn.Conv2d(8, 12, 3)
    two.load_state_dict(one.state_dict())
    two.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in (one, two):
        optimizer = KernelMuon([layer.weight], lr=1e-2, weight_decay=0.1)
        for step in range(3):
            layer.weight.grad = torch.randn(12, 8, 3, 3, generator=torch.Generator().manual_seed(step))
            optimizer.step()
    assert torch.equal(one.weight, two.weight)


def test_only_kernels_that_mix_channels_are_muons() -> None:
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    plain = nn.Conv2d(8, 4, 3)
    assert is_kernel(plain.weight) and not is_kernel(depthwise.weight)
    assert not any(is_kernel(p) for p in (plain.bias, nn.Linear(4, 4).weight))  # type: ignore[arg-type]
    parameters = dict(nn.Sequential(plain, depthwise).named_parameters())
    adam, muon = make_optimizers(parameters, 1e-3, 4e-3, 1e-4)
    assert sum(p.numel() for g in muon.param_groups for p in g["params"]) == plain.weight.numel()
    assert {g["peak"] for g in adam.param_groups} == {1e-3} and muon.param_groups[0]["peak"] == 4e-3
    (alone,) = make_optimizers(parameters, 1e-3, 0.0, 1e-4)
    assert sum(p.numel() for g in alone.param_groups for p in g["params"]) == sum(map(torch.numel, parameters.values()))


def test_models_keep_kernels_from_muon() -> None:
    layers = nn.ModuleDict({"picture": nn.Conv2d(8, 4, 3), "stack": nn.Conv2d(8, 4, 1)})
    parameters = dict(layers.named_parameters())
    _, muon = make_optimizers(parameters, 1e-3, 4e-3, 1e-4, adamw=("stack.",))
    assert [m.numel() for g in muon.param_groups for m in g["params"]] == [parameters["picture.weight"].numel()]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_muons_steps_come_out_in_float32_and_orthogonal(precision: torch.dtype) -> None:
    matrix = torch.randn(24, 90, generator=torch.Generator().manual_seed(0))
    step = orthogonalised(matrix, precision)
    assert step.dtype == torch.float32
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.6 and values.max() < 1.25
