"""Several processes, one run: ``torchrun --nproc-per-node N -m zoo train ...`` starts the same loop N times.

Every process draws its own raws, gradients are averaged, so all hold the same weights; process 0 validates, logs and writes. The
few collectives that this takes are here; alone, each of them does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the other processes if torchrun started this one (it says so in ``WORLD_SIZE``); leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield
        dist.barrier()  # process 0 still writes when the others are done, which had better not close their connections yet
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(tensors: Iterable[Tensor]) -> None:
    """Give all processes the tensors of process 0, in place."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over all processes, in place; one message for all of them."""
    if size() > 1:
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        flat /= size()
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in any process: all leave the loop, or save, in the same step."""
    if size() == 1:
        return flag
    raised = torch.tensor(float(flag), device=device)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return bool(raised)


def gathered(state: Tensor, device: torch.device) -> list[Tensor]:
    """A CPU tensor of every process (all of one shape), in their order."""
    if size() == 1:
        return [state]
    own = state.to(device)
    everyone = [torch.empty_like(own) for _ in range(size())]
    dist.all_gather(everyone, own)
    return [t.cpu() for t in everyone]
