"""The toy network of :mod:`toy_net`, made and quantised once per session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_net import ABOUT, TILE, Quantised, Toy, quantised

from export import target_module


@pytest.fixture(scope="session")
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy().eval()


@pytest.fixture(scope="session")
def toy_int8(toy: Toy) -> Quantised:
    return quantised(toy)


@pytest.fixture(scope="session")
def nets(toy: Toy, toy_int8: Quantised) -> dict[str, nn.Module | Quantised]:
    """What to write each precision from."""
    return {"fp32": toy, "fp16": toy, "int8": toy_int8}


@pytest.fixture(scope="session")
def leaky_int8() -> Quantised:
    """A net that looks quantised and is not: XNNPACK and Core ML have no integer form of LeakyReLU."""
    return quantised(Toy(nn.LeakyReLU(0.1)).eval())


@pytest.fixture(scope="session")
def toy_file(
    nets: dict[str, nn.Module | Quantised], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """The toy as a file of a target, in a precision; written when it is first asked for."""

    @cache
    def written(target: str, precision: str) -> Path:
        module = target_module(target)
        path = tmp_path_factory.mktemp(target) / f"toy_{precision}.{module.SUFFIX}"
        module.write(nets[precision], precision=precision, tile=TILE, metadata=ABOUT, path=path)
        return path

    return written


@pytest.fixture(scope="session")
def pte_int8(toy_file: Callable[[str, str], Path]) -> Path:
    """The toy for ExecuTorch, which other targets' int8 is compared with."""
    return toy_file("executorch", "int8")
