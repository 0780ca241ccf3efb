"""A folder of artefacts: its manifest is whole whoever writes it, and what is there is taken if its weights are today's."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import export as exporting
from export import MANIFEST, export, exported, weights_digest
from zoo.errors import ZooError
from zoo.files import alone


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Exports write a byte and find nothing wrong with it; set when one has come so far."""
    event = threading.Event()

    def write(source: Any, *, path: Path, **_: Any) -> None:
        path.write_bytes(b"x")

    module = SimpleNamespace(
        SUFFIX="x", write=write, audit=lambda path: {"size_bytes": 1}, read_metadata=lambda path: {}
    )
    monkeypatch.setattr(exporting, "target_module", lambda target: module)
    monkeypatch.setattr("export.verify.verify", lambda path, data: {})
    monkeypatch.setattr("export.verify.check_gates", lambda *_: event.set())
    return event


def test_an_export_waits_for_the_folder_and_keeps_what_others_wrote(verified: threading.Event, tmp_path: Path) -> None:
    other = {"artifacts": {"other.pte": {"model": "other"}}}
    (tmp_path / "other.pte").write_bytes(b"x")
    request = {"target": "onnx", "precision": "fp32", "output_dir": tmp_path}
    thread = threading.Thread(target=export, args=("passthrough",), kwargs=request)
    with alone(tmp_path):
        thread.start()
        assert verified.wait(60)
        thread.join(1)
        assert thread.is_alive()
        (tmp_path / MANIFEST).write_text(json.dumps(other))
    thread.join(60)
    entries = json.loads((tmp_path / MANIFEST).read_text())["artifacts"]
    assert list(entries) == ["other.pte", "passthrough-onnx-fp32-256.x"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [MANIFEST, *entries]


@pytest.mark.parametrize("text", ["{}", "[]", '{"artifacts": []}', "half a {"])
def test_what_is_no_manifest_is_left_alone(verified: threading.Event, text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ZooError, match=r"manifest\.json: cannot be read as a manifest of `zoo export`; move it away"):
        export("passthrough", target="onnx", precision="fp32", output_dir=tmp_path)
    assert not verified.is_set()
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]
    assert (tmp_path / MANIFEST).read_text() == text


@pytest.mark.parametrize("made_from", ["these", "older", "none"])
def test_only_what_is_missing_or_old_is_exported(
    made_from: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the network is not built to find out."""
    module = SimpleNamespace(SUFFIX="x", read_metadata=lambda path: {"weights_sha256": path.read_text()})
    requests, announced = [], []
    monkeypatch.setattr(exporting, "target_module", lambda target: module)
    monkeypatch.setattr(exporting, "load_source", None)
    monkeypatch.setattr(exporting, "export", lambda name, **request: requests.append((name, request)))
    path = tmp_path / "utnet-n-onnx-int8-64.x"
    if made_from != "none":
        path.write_text(weights_digest("utnet-n", "int8") if made_from == "these" else "0" * 64)
    request = {"target": "onnx", "precision": "int8", "tile": 64, "output_dir": tmp_path, "half": ""}
    assert exported("utnet-n", **request, announce=announced.append) == path  # type: ignore[arg-type]
    assert requests == ([] if made_from == "these" else [("utnet-n", request)])
    assert announced == [path] * len(requests)
