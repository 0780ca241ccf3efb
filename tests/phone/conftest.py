"""A phone that is none, adb with a server of its own, and a small artefact to run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_phone import AdbServer, FakePhone, connected

TILE = 32

# Keeps a runner's command line and answers with an output that was computed beforehand, so that no test waits for a network.
# It is pushed with that output; the input has to be the one that belongs to it. WORDS replaces what it prints.
_RUNNER = """#!/usr/bin/env python3
import json, os, sys, time
model, *rest = sys.argv[1:]
options = dict(zip(rest[::2], rest[1::2], strict=True))
if not os.path.getsize(model) or open(options["--input"], "rb").read() != open("known_input", "rb").read():
    sys.exit("another input")
ms, end = [], time.time() + float(options.get("--seconds", 0))
while len(ms) < int(options["--runs"]) or time.time() < end:
    time.sleep(0.002)
    ms.append(2.0 + len(ms) % 3)
open(options["--output"], "wb").write(open("known_output", "rb").read())
print(json.dumps({"runtime": "known " + options["--threads"], "load_ms": 7.5, "first_ms": 9.5, "ms": ms}))
"""


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small int8 file for ExecuTorch: the nano model's weights in a tile of 32."""
    from export import describe, executorch, load_source
    from zoo.models.registry import get_spec

    path = tmp_path_factory.mktemp("artifact") / "utnet-n-executorch-int8-32.pte"
    source, digest = load_source("utnet-n", "int8")
    words = describe(get_spec("utnet-n"), digest, "int8", "executorch")
    executorch.write(source, precision="int8", tile=TILE, metadata=words, path=path)
    return path


@pytest.fixture(scope="session")
def runner(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a runner that knows the artefact's output."""
    from export import executorch
    from export.benchmark import input_of

    folder = tmp_path_factory.mktemp("runner")
    host = executorch.runner(artifact)
    x = input_of(host)
    (folder / "known_input").write_bytes(np.ascontiguousarray(x, "<f4").tobytes())
    (folder / "known_output").write_bytes(np.ascontiguousarray(host(x), "<f4").tobytes())
    (folder / "runner").write_text(_RUNNER)
    (folder / "runner").chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed (Debian: apt install adb)")
    server = AdbServer(tmp_path_factory.mktemp("home"))
    yield server
    server.close()


@pytest.fixture
def adb(server: AdbServer, monkeypatch: pytest.MonkeyPatch) -> AdbServer:
    """The server, for programs of this process too."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    # Nothing of this test may ask for a phone that another one left.
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    assert "ANDROID_ADB_SERVER_PORT" in os.environ
    return server


@pytest.fixture
def phone(adb: AdbServer, tmp_path: Path) -> Iterator[FakePhone]:
    """The only phone that adb sees."""
    with connected(adb, FakePhone(tmp_path / "phone")) as phone:
        yield phone
