"""Where a runtime spends its time: each one's own profiler, reached from Python.

* onnxruntime writes a trace.
* LiteRT's Python interpreter has no profiler. The library beside it has (``libLiteRt.so``; C interface of LiteRT 2.3.0,
  ``litert/c/litert_profiler.h``), and reports XNNPACK's operators one by one.
* ExecuTorch's wheel is built without an event tracer: ETDump stays empty. But it exports XNNPACK's functions. A process of its
  own preloads some lines of C that set XNNPACK's profiling flag when the delegate makes its runtime, and keep that runtime, which
  then tells what ETDump would have held. Kernels outside the delegate are not seen.

Both of the latter give whole microseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.target import last_words, quiet
from zoo.errors import ZooError

METHODS = {
    "executorch": "xnn_get_runtime_profiling_info of the wheel's own XNNPACK, flag set by a preloaded shim",
    "litert": "LiteRtGetProfilerEvents of the wheel's libLiteRt.so",
    "onnx": "onnxruntime's own profiler",
}


@dataclass
class Timed:
    """One operator of a run.

    Attributes:
        operator: the runtime's name of it.
        node: the layer it computes, where the file and the profiler say it (ONNX).
        microseconds: one per run.
    """

    operator: str
    node: str = ""
    microseconds: list[float] = field(default_factory=list)


@dataclass
class Trace:
    """What a profiler saw.

    Attributes:
        operators: in the order in which they ran, the same in all runs.
        wall_us: of each run, from outside, with the profiler on.
    """

    operators: list[Timed]
    wall_us: list[float]

    def add(self, run: list[tuple[str, str, float]]) -> None:
        """Add one run: operator, node and microseconds of each.

        Raises:
            ZooError: other operators than in the runs before.
        """
        if not self.operators:
            self.operators = [Timed(operator, node) for operator, node, _ in run]
        if [(t.operator, t.node) for t in self.operators] != [(o, n) for o, n, _ in run]:
            raise ZooError("the profiler named other operators in one run than in another; try again")
        for timed, (_, _, microseconds) in zip(self.operators, run, strict=True):
            timed.microseconds.append(microseconds)


def trace(target: str, path: Path, x: np.ndarray, threads: int, warmup_runs: int, num_runs: int) -> Trace:
    """Profile an artefact.

    Args:
        target: ``executorch``, ``litert`` or ``onnx``.
        path: the file.
        x: float32 input of the file's shape.
        threads: CPU threads of the runtime.
        warmup_runs: runs before anything is kept.
        num_runs: runs that are kept.

    Raises:
        ZooError: another target, or this system lacks what its profiler needs.
    """
    method_of(target, path)
    return {"executorch": _executorch, "litert": _litert, "onnx": _onnx}[target](
        path, x, threads, warmup_runs, num_runs
    )


def method_of(target: str, path: Path) -> str:
    """How operators of a target are timed.

    Raises:
        ZooError: they are not.
    """
    if target not in METHODS:
        known = ", ".join(METHODS)
        raise ZooError(f"{path.name}: operators can be timed for {known}; Core ML needs Xcode's Instruments")
    return METHODS[target]


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e6


def _onnx(path: Path, x: np.ndarray, threads: int, warmup_runs: int, num_runs: int) -> Trace:
    from export import onnx

    with tempfile.TemporaryDirectory() as folder:
        session = onnx.session(path, threads, profile=Path(folder) / "trace")
        walls = [_timed(lambda: session.run(None, {"input": x})) for _ in range(warmup_runs + num_runs)]
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    kernels.sort(key=lambda e: e["ts"])
    if not kernels or len(kernels) % len(walls):
        raise ZooError(f"{path.name}: onnxruntime's trace has {len(kernels)} kernels in {len(walls)} runs")
    size = len(kernels) // len(walls)
    result = Trace([], walls[warmup_runs:])
    layer = onnx.layers_by_name(path)
    for run in range(warmup_runs, len(walls)):
        part = kernels[run * size : (run + 1) * size]
        # Optimised nodes are called after the old node or its output, with such additions.
        names = [re.sub(r"^InsertedPrecisionFreeCast_|(_token_\d+)?_kernel_time$", "", e["name"]) for e in part]
        layers = [layer.get(name.removesuffix("_nchwc"), "") for name in names]
        result.add([(e["args"]["op_name"], of, float(e["dur"])) for e, of in zip(part, layers, strict=True)])
    return result


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_size_t), ("in_use", ctypes.c_size_t), ("private", ctypes.c_size_t))


class _Event(ctypes.Structure):
    """``ProfiledEventData`` of litert/c/litert_profiler_event.h."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("before", _Memory),
        ("after", _Memory),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


_OPERATOR, _DELEGATED_OPERATOR = 2, 8  # tflite::Profiler::EventType
_LITERT_CPU = 1  # kLiteRtHwAcceleratorCpu


class _LiteRt:
    """The C functions of ``libLiteRt.so`` that a profile takes. Objects live as long as the process."""

    def __init__(self) -> None:
        import ai_edge_litert

        assert ai_edge_litert.__file__ is not None
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))
        self._c = ctypes.CDLL(None)
        self._c.strdup.restype = ctypes.c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        """A function that returns a status."""
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise ZooError(
                f"LiteRT's profiler: {name} failed with status {status}; it was written for ai-edge-litert 2.3"
            )

    def get(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function puts into its last argument, a pointer."""
        result = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(result))
        return result

    def set_option(self, options: ctypes.c_void_p, topic: str, text: str) -> None:
        """Options of a topic, as TOML; the library frees the text with the function that it is given."""
        payload = ctypes.c_void_p(self._c.strdup(text.encode()))
        self.call("AddOpaqueOptions", options, self.get("CreateOpaqueOptions", topic.encode(), payload, self._c.free))


def _litert(path: Path, x: np.ndarray, threads: int, warmup_runs: int, num_runs: int) -> Trace:
    zero, one, null = ctypes.c_size_t(0), ctypes.c_size_t(1), ctypes.c_void_p()
    with quiet():
        api = _LiteRt()
        environment = api.get("CreateEnvironment", 0, null)
        model = api.get("CreateModelFromFile", environment, str(path).encode())
        options = api.get("CreateOptions")
        api.call("SetOptionsHardwareAccelerators", options, _LITERT_CPU)
        api.set_option(options, "runtime_options_string", "enable_profiling = true\n")
        api.set_option(options, "xnnpack", f"num_threads = {threads}\n")
        compiled = api.get("CreateCompiledModel", environment, model, options)
        signature = api.get("GetModelSignature", model, zero)

        def buffer(end: str) -> ctypes.c_void_p:
            kind = ctypes.create_string_buffer(512)  # a LiteRtRankedTensorType, which only passes through
            api.call("GetRankedTensorType", api.get(f"GetSignature{end}TensorByIndex", signature, zero), kind)
            needs = api.get(f"GetCompiledModel{end}BufferRequirements", compiled, zero, zero)
            return api.get("CreateManagedTensorBufferFromRequirements", environment, kind, needs)

        source, destination = buffer("Input"), buffer("Output")
        memory = ctypes.c_void_p()
        api.call("LockTensorBuffer", source, ctypes.byref(memory), 1)  # 1: to write
        ctypes.memmove(memory, np.ascontiguousarray(x).ctypes.data, x.nbytes)
        api.call("UnlockTensorBuffer", source)
        profiler = api.get("CompiledModelGetProfiler", compiled)

        def run() -> None:
            ends = ctypes.byref(source), one, ctypes.byref(destination)
            api.call("RunCompiledModel", compiled, zero, one, *ends)

        for _ in range(warmup_runs):
            run()
        result = Trace([], [])
        for _ in range(num_runs):
            api.call("ResetProfiler", profiler)
            api.call("StartProfiler", profiler)
            result.wall_us.append(_timed(run))
            api.call("StopProfiler", profiler)
            count = ctypes.c_int()
            api.call("GetNumProfilerEvents", profiler, ctypes.byref(count))
            events = (_Event * count.value)()
            api.call("GetProfilerEvents", profiler, count, events)
            kept = [e for e in events if e.type == _DELEGATED_OPERATOR or (e.type == _OPERATOR and e.source != 0)]
            result.add([(e.tag.decode(), "", float(e.elapsed_us)) for e in kept])
    return result


_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
static void *newest;
void *zoo_newest_runtime(void) { return newest; }
/* enum xnn_status xnn_create_runtime_v4(subgraph, weights_cache, workspace, threadpool, flags, runtime_out) */
int xnn_create_runtime_v4(void *s, void *w, void *k, void *t, uint32_t flags, void **out) {
  static int (*real)(void *, void *, void *, void *, uint32_t, void **);
  if (!real) *(void **)&real = dlsym(dlopen(getenv("ZOO_XNNPACK"), RTLD_NOW | RTLD_NOLOAD), "xnn_create_runtime_v4");
  int status = real(s, w, k, t, flags | 8u, out); /* XNN_FLAG_BASIC_PROFILING */
  newest = *out;
  return status;
}
"""
_COUNT, _NAMES, _TIMES = 0, 1, 2  # enum xnn_profile_info


def _executorch(path: Path, x: np.ndarray, threads: int, warmup_runs: int, num_runs: int) -> Trace:
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise ZooError(f"{path.name}: timing ExecuTorch's operators needs Linux and a C compiler called cc")
    from importlib.util import find_spec

    extension = find_spec("executorch.extension.pybindings._portable_lib")
    assert extension is not None and extension.origin is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shim.c").write_text(_SHIM)
        build = [compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
        built = subprocess.run(build, check=False, capture_output=True, text=True)
        if built.returncode:
            raise ZooError(f"{path.name}: cannot be profiled, since {compiler} fails: {last_words(built)}")
        np.save(folder / "x.npy", x)
        code = "import sys; from export.profilers import _executorch_child; _executorch_child(*sys.argv[1:])"
        arguments = [str(path), str(folder), str(threads), str(warmup_runs), str(num_runs)]
        environment = os.environ | {"LD_PRELOAD": str(folder / "shim.so"), "ZOO_XNNPACK": extension.origin}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ZooError(f"{path.name}: cannot be profiled: {last_words(done)}")
        saved = json.loads((folder / "trace.json").read_text())
    return Trace([Timed(**t) for t in saved["operators"]], saved["wall_us"])


def _executorch_child(path: str, folder: str, threads: str, warmup_runs: str, num_runs: str) -> None:
    """The process with the shim: runs the file and leaves ``trace.json``."""
    from export import executorch

    runner = executorch.runner(Path(path), int(threads))
    runner(np.load(Path(folder) / "x.npy"))
    shim, xnnpack = ctypes.CDLL(str(Path(folder) / "shim.so")), ctypes.CDLL(os.environ["ZOO_XNNPACK"])
    shim.zoo_newest_runtime.restype = ctypes.c_void_p
    runtime = shim.zoo_newest_runtime()
    if runtime is None:
        raise ZooError("no XNNPACK delegate was loaded")

    def told(what: int) -> bytes:
        size = ctypes.c_size_t(0)
        arguments = ctypes.c_void_p(runtime), ctypes.c_int(what)
        # Without room it says how much it needs.
        xnnpack.xnn_get_runtime_profiling_info(*arguments, ctypes.c_size_t(0), None, ctypes.byref(size))
        room = ctypes.create_string_buffer(size.value)
        if xnnpack.xnn_get_runtime_profiling_info(*arguments, size, room, ctypes.byref(size)):
            raise ZooError("XNNPACK keeps no profile; the profiler was written for executorch 1.4")
        return room.raw

    for _ in range(int(warmup_runs)):
        runner.invoke()
    count = int(np.frombuffer(told(_COUNT), np.uint64)[0])
    names = [n.decode() for n in told(_NAMES).split(b"\0")[:count]]
    result = Trace([], [])
    for _ in range(int(num_runs)):
        result.wall_us.append(_timed(runner.invoke))
        times = np.frombuffer(told(_TIMES), np.uint64)[:count]
        result.add([(name, "", float(t)) for name, t in zip(names, times, strict=True)])
    (Path(folder) / "trace.json").write_text(json.dumps(asdict(result)))
