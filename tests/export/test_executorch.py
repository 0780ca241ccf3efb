"""The ExecuTorch target on a toy network: numbers, metadata and what the audit sees inside the delegate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_net import TILE, Quantised, Toy, tile_input

from export import PRECISIONS, executorch
from zoo.errors import ZooError


@pytest.fixture(scope="module")
def files(toy_file: Callable[[str, str], Path]) -> dict[str, Path]:
    return {precision: toy_file("executorch", precision) for precision in PRECISIONS}


def test_int8_file_is_within_one_level_of_the_graph(files: dict[str, Path], toy_int8: Any) -> None:
    x = tile_input()
    graph = toy_int8.graph(fold=True)
    output = next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes[0]
    error = np.abs(executorch.runner(files["int8"])(x) - graph(torch.from_numpy(x)).detach().numpy())
    assert error.max() < 1.01 * output.args[1]  # the scale: float and integer arithmetic may round a tie differently
    assert (error > 0).mean() < 0.01


def test_int8_audit_finds_all_delegated(files: dict[str, Path]) -> None:
    audit = executorch.audit(files["int8"])
    assert audit["not_delegated"] == []
    assert (audit["delegates"], audit["delegated_share"]) == (1, 1.0)
    assert audit["ops"]["Convert:fp32->int8"] == audit["ops"]["Convert:int8->fp32"] == 1
    assert audit["size_bytes"] < 0.5 * executorch.audit(files["fp32"])["size_bytes"]


def test_fp16_audit_tells_casts_outside_and_float32_weights(files: dict[str, Path]) -> None:
    audit = executorch.audit(files["fp16"])
    assert audit["ops"]["Conv2d:fp16,w=fp32"] == 5
    assert len(audit["not_delegated"]) == 2
    assert all("_to_dim_order_copy" in op for op in audit["not_delegated"])


def test_audit_catches_float_inside_the_delegate(leaky_int8: Quantised, tmp_path: Path) -> None:
    executorch.write(leaky_int8, precision="int8", tile=TILE, metadata={}, path=tmp_path / "bad.pte")
    audit = executorch.audit(tmp_path / "bad.pte")
    assert audit["delegated_share"] == 1.0  # which is why the share alone says nothing
    assert audit["float_ops"] == ["LeakyReLU:fp32"]


def test_audit_catches_what_is_not_delegated(tmp_path: Path) -> None:
    bad = Toy(nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.MaxPool2d(2))).eval()
    executorch.write(bad, precision="fp32", tile=TILE, metadata={}, path=tmp_path / "bad.pte")
    audit = executorch.audit(tmp_path / "bad.pte")
    assert audit["delegates"] == 2
    assert any("upsample_nearest2d" in op for op in audit["not_delegated"])


def test_programs_that_load_and_cannot_run_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["int8"].read_bytes()
    name = whole.index(b"XnnpackBackend")  # the delegate's
    (tmp_path / "odd.pte").write_bytes(whole[:name] + b"Nobody" + whole[name + 6 :])
    with pytest.raises(ZooError, match=r"odd\.pte is not a readable ExecuTorch program"):
        executorch.runner(tmp_path / "odd.pte")
