"""Two optimisers side by side: Muon for the kernels of convolutions, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Muon's steps are as large where a gradient says little as where it says much: without decay kernels grow like a random walk.
KERNEL_DECAY = 0.1


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


class KernelMuon(torch.optim.Muon):
    """Muon (Jordan 2024, "Muon: An optimizer for hidden layers in neural networks") for convolutions.

    A kernel ``[out, in, kh, kw]`` is the matrix ``[out, in*kh*kw]`` (of a transposed convolution ``[in, out*kh*kw]``) that
    maps a patch to a pixel; its update is that matrix's momentum with all singular values set to about 1, scaled to AdamW's
    usual size (Liu et al. 2025, "Muon is scalable for LLM training"). All kernels get it, first and last too: 1,500 steps of
    utnet-m gave 35.19 dB, with those two and the stem left to AdamW 34.83, and AdamW alone 34.12 after 2,500
    (docs/training-log.md).
    """

    def __init__(self, kernels: list[Tensor], lr: float, weight_decay: float) -> None:
        self._kernels = kernels
        # torch's Muon takes matrices only, and a kernel in channels_last has no matrix that shares its memory.
        matrices = [torch.nn.Parameter(k.detach().flatten(1).clone()) for k in kernels]
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self._matrices = matrices
        self.param_groups[0]["peak"] = lr

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the kernels from their gradients."""
        moved = [(k, m) for k, m in zip(self._kernels, self._matrices, strict=True) if k.grad is not None]
        for kernel, matrix in moved:
            assert kernel.grad is not None
            matrix.copy_(kernel.flatten(1))
            matrix.grad = kernel.grad.flatten(1)
        super().step()
        for kernel, matrix in moved:
            kernel.copy_(matrix.view(kernel.shape))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of kernels and matrices."""
        super().zero_grad(set_to_none)
        for kernel in self._kernels:
            kernel.grad = None
