"""The manifest of a folder of artefacts: whole whoever writes it, and left alone where it is something else."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import export as exporting
from export import MANIFEST, export
from zoo.errors import ZooError


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
    with exporting._alone(tmp_path):
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
