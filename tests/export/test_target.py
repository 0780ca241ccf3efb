"""What all targets share: refusals, staged writing, silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_net import TILE, Quantised, Toy

from export import TARGETS, mil, verify
from export.target import Node, audit_report, check_request, last_words, parse_metadata, quiet, staged, stamp
from zoo.errors import ZooError
from zoo.files import replacing

HEAVY = {"executorch", "coremltools", "ai_edge_litert", "litert_torch", "onnx", "onnxruntime", "torchao", "jax"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'; choose from fp32, fp16, int8"),
        ({"precision": "int8"}, "int8 is written from a quantised model .* not from Toy"),
        ({"net": Quantised(torch.fx.GraphModule({}, torch.fx.Graph()))}, "fp32 is written from a torch module"),
        ({"net": Toy()}, "training mode"),
        ({"tile": 0}, "positive number of packed pixels, not 0"),
        ({"path": Path("x.bin")}, "should end in .pte"),
        ({"path": Path("/nowhere/x.pte")}, "no folder /nowhere"),
    ],
)
def test_bad_requests_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    request = {"net": Toy().eval(), "precision": "fp32", "tile": TILE, "path": Path("x.pte"), "suffix": "pte"}
    check_request(**request)
    with pytest.raises(ZooError, match=message) as raised:
        check_request(**{**request, **changes})
    assert "\n" not in str(raised.value)


def test_metadata_is_stamped_and_may_not_contradict() -> None:
    assert stamp({"a": "b"}, "litert", "fp16", 64) == {"target": "litert", "precision": "fp16", "tile": "64", "a": "b"}
    with pytest.raises(ZooError, match="tile = 32, but the file being written has 64"):
        stamp({"tile": "32"}, "litert", "fp16", 64)
    with pytest.raises(ZooError, match="text to text"):
        stamp({"halo": 8}, "litert", "fp16", 64)  # type: ignore[dict-item]


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"tile": "32"}'])
def test_foreign_metadata_is_refused(text: str | None) -> None:
    with pytest.raises(ZooError, match="carries no metadata of this zoo"):
        parse_metadata(text, Path("x.pte"))


def test_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pte"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.pte"]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_failed_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.mlpackage"
    path.mkdir()
    (path / "file").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), staged(path) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("ne")
        raise RuntimeError("half way")
    assert (path / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.mlpackage"]
    with staged(path) as temporary:
        temporary.mkdir()
        (temporary / "other").write_text("new")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["x.mlpackage", "x.mlpackage/other"]


def test_audit_counts_only_delegated_int8_convolutions(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    nodes = [
        Node("QUANTIZE", "fp32->int8"),
        Node("CONV", "int8", conv=True),
        Node("CONV", "int8", conv=True, delegated=False),
        Node("CONV", "int8,w=fp32", conv=True),
    ]
    assert audit_report("t", tmp_path / "x", nodes, 1) == {
        "target": "t",
        "size_bytes": 4,
        "nodes": 4,
        "delegates": 1,
        "delegated_share": 0.75,
        "not_delegated": ["CONV:int8"],
        "ops": {"CONV:int8": 2, "CONV:int8,w=fp32": 1, "QUANTIZE:fp32->int8": 1},
        "conv_total": 3,
        "conv_int8": 1,
        "float_ops": ["CONV:int8,w=fp32"],
    }


def test_quiet_holds_back_all_but_failures(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(1, b"progress\n")
        os.write(2, b"from C++\n")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="broken"), quiet():
        os.write(2, b"the reason\n")
        raise ValueError("broken")
    assert capfd.readouterr() == ("", "the reason\n")
    with pytest.raises(ZooError), quiet():
        os.write(2, b"a page about it\n")
        raise ZooError("the reason in one line")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(KeyboardInterrupt), quiet():
        os.write(2, b"progress\n")
        raise KeyboardInterrupt
    assert capfd.readouterr() == ("", "")


def test_what_an_import_swallows_stops_the_program_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    swallowed = True\n"
    (tmp_path / "coremltools.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "coremltools", None)  # what is undone last: the real one, if any, comes back
    monkeypatch.delitem(sys.modules, "coremltools")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of pytest-xdist ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            mil.import_coremltools()
        assert not hasattr(sys.modules["coremltools"], "swallowed")
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("status", "stderr", "words"),
    [
        (1, "Traceback\nValueError: broken\n", "ValueError: broken"),
        (3, "\n", "ended with status 3"),
        (-9, "", "was ended by SIGKILL, perhaps for want of memory"),
        (-11, "", "was ended by SIGSEGV"),
    ],
)
def test_a_process_that_failed_says_why(status: int, stderr: str, words: str) -> None:
    assert last_words(subprocess.CompletedProcess([], status, "", stderr)) == words


@pytest.mark.parametrize("target", TARGETS)
def test_importing_a_target_imports_no_runtime(target: str) -> None:
    code = (
        f"import sys, export.{target}; "
        f"heavy = {HEAVY} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_inputs_are_moved_off_ties_and_nowhere_else() -> None:
    scale = np.float32(0.0144573)
    steps = np.arange(-100, 100, dtype=np.float32)
    ties, others = (steps + np.float32(0.5)) * scale, (steps + np.float32(0.3)) * scale
    moved = verify.off_ties(ties, float(scale))
    assert moved.dtype == np.float32
    assert np.abs(moved - ties).max() < 0.003 * scale
    distance = np.abs(moved / scale - np.floor(moved / scale) - 0.5)
    assert distance.min() > 9e-4
    assert np.array_equal(np.rint(moved / scale), np.rint(moved * (np.float32(1) / scale)))
    assert np.array_equal(verify.off_ties(others, float(scale)), others)


@pytest.mark.parametrize(
    ("of_file", "differing", "passes"),
    [
        ({"tile": "256"}, 3e-2, True),
        ({"tile": "256"}, 5e-2, False),
        ({"tile": "64"}, 5e-2, True),
        ({"tile": "64"}, 1e-1, False),
        ({"tile": "28", "half": "decoder", "stride": "16"}, 5e-2, False),  # 28 positions are 224 packed pixels
    ],
)
def test_core_ml_may_flip_more_where_a_flip_reaches_most_of_a_tile(
    of_file: dict[str, str], differing: float, passes: bool
) -> None:
    metadata, twin = {"precision": "int8"} | of_file, {"differing": differing, "max_steps": 3}
    parity = {"worst_psnr_db": 50.0, "worst_tile": "clean", "fp32_compute": twin}
    audit = {"target": "coreml", "conv_int8": 1, "conv_total": 1, "not_delegated": []}
    if passes:
        verify.check_gates("x.mlpackage", metadata, parity, audit)
    else:
        with pytest.raises(ZooError, match="gate failed: at fp32"):
            verify.check_gates("x.mlpackage", metadata, parity, audit)
