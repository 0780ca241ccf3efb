"""Two optimisers side by side: Muon for the kernels of convolutions, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.training.machine import computes_bf16

# Muon's steps are as large where a gradient says little as where it says much: without decay kernels grow like a random walk.
KERNEL_DECAY = 0.1
_MOMENTUM = 0.95  # Nesterov's
_QUINTIC = (3.4445, -4.775, 2.0315)


def make_optimizers(
    parameters: Mapping[str, Tensor], lr: float, kernel_lr: float, weight_decay: float, adamw: tuple[str, ...] = ()
) -> list[torch.optim.Optimizer]:
    """Optimisers of all ``parameters``; each group knows its peak learning rate as ``peak``.

    Args:
        parameters: by name.
        lr: peak learning rate of AdamW.
        kernel_lr: peak learning rate of Muon; 0 leaves the kernels to AdamW.
        weight_decay: AdamW's, of everything but vectors and scalars.
        adamw: starts of the names of kernels that AdamW trains all the same.
    """
    kernels = [p for n, p in parameters.items() if kernel_lr and is_kernel(p) and not n.startswith(adamw)]
    of_muon = {id(p) for p in kernels}
    rest = [p for p in parameters.values() if id(p) not in of_muon]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": weight_decay, "peak": lr},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0, "peak": lr},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))]
    if kernels:
        found.append(KernelMuon(kernels, kernel_lr, KERNEL_DECAY))
    return found


def is_kernel(parameter: Tensor) -> bool:
    """Whether a parameter is a convolution's kernel that mixes channels; a depthwise one is no matrix."""
    return parameter.dim() == 4 and parameter.shape[1] > 1


class KernelMuon(torch.optim.Optimizer):
    """Muon (Jordan 2024, "Muon: An optimizer for hidden layers in neural networks") for convolutions.

    A kernel ``[out, in, kh, kw]`` is the matrix ``[out, in*kh*kw]`` (of a transposed convolution ``[in, out*kh*kw]``) that
    maps a patch to a pixel; its update is that matrix's momentum with all singular values set to about 1, scaled to AdamW's
    usual size (Liu et al. 2025, "Muon is scalable for LLM training"). All kernels get it, first and last too: 1,500 steps of
    utnet-m gave 35.19 dB, with those two and the stem left to AdamW 34.83, and AdamW alone 34.12 after 2,500
    (docs/training-log.md).

    ``torch.optim.Muon`` takes matrices only, and always computes in bfloat16, which a CPU without AVX-512 emulates: 47 of the
    270 ms that a step of utnet-m took on one core, in float32 5. Here it is bfloat16 where that is computed (0.10 s of a step of
    balle-bayer-ps on one core of a Zen 5, in float32 0.40), float32 elsewhere.
    """

    def __init__(self, kernels: list[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(kernels, {"lr": lr, "peak": lr, "weight_decay": weight_decay})
        self._precision = torch.bfloat16 if computes_bf16(kernels[0].device) else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the kernels from their gradients."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                gradient = kernel.grad.flatten(1)
                momentum = self.state[kernel].setdefault("momentum_buffer", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - _MOMENTUM)
                update = orthogonalised(gradient.lerp(momentum, _MOMENTUM), self._precision)
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(gradient.shape) ** 0.5
                kernel.sub_(update.view(kernel.shape), alpha=group["lr"] * size)


def orthogonalised(matrix: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """``matrix`` with its singular values brought to about 1 (0.68 to 1.2) by five Newton-Schulz steps of a quintic.

    Coefficients of Jordan 2024. Those under a thousandth of the Frobenius norm do not get there: they end below a half.

    Args:
        matrix: float32.
        precision: of the steps; the result is float32.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = (wide / wide.norm().clamp_min(1e-7)).to(precision)
    a, b, c = _QUINTIC
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    wide = wide.float()
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
