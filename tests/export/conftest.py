"""The toy network of :mod:`toy_net`, made and quantised once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from toy_net import TILE, Quantised, Toy, quantised

from export import executorch


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
def pte_int8(toy_int8: Quantised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy for ExecuTorch, which LiteRT's int8 is compared with."""
    path = tmp_path_factory.mktemp("pte") / "toy_int8.pte"
    executorch.write(toy_int8, precision="int8", tile=TILE, metadata={"model": "toy, ä"}, path=path)
    return path
