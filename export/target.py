"""What the target files share: checks of what a caller hands in, staged writing, the runner, the shape of an audit.

A target is a file with the same four functions, so that the verbs and the tests can be written once for all of them:

* ``write(net, *, precision, tile, metadata, path)`` converts and saves,
* ``read_metadata(path)`` gives back what was embedded,
* ``runner(path, threads=1)`` runs the saved file,
* ``audit(path)`` tells from the saved file alone which operators compute in which type, and which are delegated.

Input and output are float32 at every precision, ``[1, in_channels, tile, tile]`` and ``[1, out_channels, tile, tile]`` as the
contract says that the metadata name (:mod:`zoo.models.contracts`; ``bayer_vst_v1`` if they name none), called ``input`` and
``output`` where the format has names: artefacts of one model swap by swapping the file. The halves of a compressor have latents
at one end, see :func:`shapes_in`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export import PRECISIONS
from zoo.errors import ZooError
from zoo.models.contracts import DEFAULT_CONTRACT, Contract, get_contract

METADATA_KEY = "zoo_metadata"
# What :func:`shapes_in` reads: a file written to be compared with another needs no more.
SHAPE_KEYS = ("contract", "half", "latent_channels", "latents", "stride")


@runtime_checkable
class Quantized(Protocol):
    """What the ``int8`` precision is written from: ``quantize`` makes it."""

    def graph(self, fold: bool) -> torch.fx.GraphModule:
        """The converted PT2E graph: int8 weights if ``fold``, else float ones that are quantised and dequantised."""


@dataclass(frozen=True)
class Node:
    """One operator of a saved file, as an audit sees it.

    Attributes:
        op: the format's own name, such as ``Conv2d`` or ``CONV_2D``.
        dtype: type it computes in: ``int8``, ``fp16``, ``fp32``; ``int8,w=fp32`` where the weights' type differs;
            ``fp32->int8`` for a conversion.
        conv: whether it is a convolution of any kind (where the work is).
        delegated: whether the accelerating delegate runs it; None where the file does not say.
    """

    op: str
    dtype: str
    conv: bool = False
    delegated: bool | None = True

    @property
    def is_float(self) -> bool:
        """Whether it computes in floating point: conversions do not count."""
        return "fp" in self.dtype and "->" not in self.dtype


def audit_report(target: str, path: Path, nodes: Iterable[Node], delegates: int | None) -> dict[str, Any]:
    """The JSON-able audit that every target returns.

    Args:
        target: name of the target file.
        path: the saved file or folder.
        nodes: all its operators.
        delegates: number of delegated subgraphs, None where the format has none.

    Returns:
        ``nodes``, ``delegated_share`` (0 to 1, or None), ``delegates``, ``not_delegated`` and ``float_ops`` (sorted
        ``"op:dtype"``), ``ops`` (histogram of the same), ``conv_total``, ``conv_int8`` (those the delegate has, if
        there is one), ``size_bytes``.
    """
    nodes = list(nodes)
    known = all(n.delegated is not None for n in nodes)
    return {
        "target": target,
        "size_bytes": size_bytes(path),
        "nodes": len(nodes),
        "delegates": delegates,
        "delegated_share": sum(bool(n.delegated) for n in nodes) / len(nodes) if known and nodes else None,
        "not_delegated": sorted({f"{n.op}:{n.dtype}" for n in nodes if n.delegated is False}),
        "ops": dict(sorted(Counter(f"{n.op}:{n.dtype}" for n in nodes).items())),
        "conv_total": sum(n.conv for n in nodes),
        "conv_int8": sum(n.conv and n.dtype == "int8" and n.delegated is not False for n in nodes),
        "float_ops": sorted({f"{n.op}:{n.dtype}" for n in nodes if n.is_float}),
    }


class Half(nn.Module):
    """A network in half precision behind a float32 interface."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.half()).float()


class Runner(ABC):
    """A saved file ready to run: float32 tile in, float32 tile out, shapes as in the metadata (:func:`shapes_in`).

    Attributes:
        target: name of the target file that made it.
        precision: ``fp32``, ``fp16`` or ``int8``, from the file's metadata.
        tile: height and width of the input, packed pixels (latent positions of a decoder), from the file's metadata.
        contract: from the file's metadata.
        half: ``encoder`` or ``decoder`` of a compressor, else empty.
        shapes: of input and output, ``[C, h, w]``.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.contract = contract_in(metadata)
        self.target = metadata["target"]
        self.precision = metadata["precision"]
        self.tile = int(metadata["tile"])
        self.half = metadata.get("half", "")
        self.shapes = shapes_in(metadata, self.tile)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one tile.

        Args:
            x: float32, by default ``[1, in_channels, tile, tile]``.

        Returns:
            float32, by default ``[1, out_channels, tile, tile]``, the caller's own copy.

        Raises:
            ZooError: another shape or type.
        """
        expected = (1, *self.shapes[0])
        if not isinstance(x, np.ndarray) or x.shape != expected or x.dtype != np.float32:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
            raise ZooError(f"this {self.target} file takes float32 {list(expected)}, not {got}")
        self._feed(np.require(x, requirements=["C", "W"]))
        self.invoke()
        y = self._fetch()
        expected = (1, *self.shapes[1])
        if y.shape != expected:
            raise ZooError(f"this {self.target} file gives {list(y.shape)}, not {list(expected)}")
        return y

    @abstractmethod
    def invoke(self) -> None:
        """Run again on the last input, copying nothing in or out: what a latency measurement times."""

    @abstractmethod
    def _feed(self, x: NDArray[np.float32]) -> None:
        """Put a checked, contiguous, writable input where :meth:`invoke` finds it."""

    @abstractmethod
    def _fetch(self) -> NDArray[np.float32]:
        """A copy of the output of the last :meth:`invoke`."""


def check_request(net: Any, precision: str, tile: int, path: Path, suffix: str) -> None:
    """Refuse what ``write`` cannot do, before a converter turns it into a page of traceback.

    Raises:
        ZooError: unknown precision, a network of the wrong kind for it, a bad tile, suffix or folder.
    """
    if precision not in PRECISIONS:
        raise ZooError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    if precision == "int8":
        if isinstance(net, nn.Module) or not isinstance(net, Quantized):
            raise ZooError(f"int8 is written from a quantised model with graph(fold), not from {type(net).__name__}")
    elif not isinstance(net, nn.Module):
        raise ZooError(f"{precision} is written from a torch module, not from {type(net).__name__}")
    elif net.training:
        raise ZooError("the network is in training mode; call net.eval() before exporting it")
    if not isinstance(tile, int) or tile < 1:
        raise ZooError(f"the tile is a positive number of packed pixels, not {tile!r}")
    if path.suffix != f".{suffix}":
        raise ZooError(f"{path} should end in .{suffix}")
    if not path.parent.is_dir():
        raise ZooError(f"there is no folder {path.parent} to write to")


def contract_in(metadata: Mapping[str, str]) -> Contract:
    """The contract that metadata name; the default one if they name none.

    Raises:
        ZooError: an unknown one.
    """
    return get_contract(metadata.get("contract", DEFAULT_CONTRACT))


def shapes_in(metadata: Mapping[str, str], tile: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Input and output ``[C, h, w]`` of a file by its metadata.

    ``half`` says ``encoder`` (packed mosaic -> ``latent_channels``, one position per ``stride`` sensor pixels each way) or
    ``decoder`` (latents -> the contract's output) of a compressor; without it both ends are packed tiles.

    Raises:
        ZooError: a half that does not say how many channels its latents have.
    """
    contract = contract_in(metadata)
    packed_in, packed_out = contract.in_channels, contract.out_channels
    if "half" not in metadata:
        return (packed_in, tile, tile), (packed_out, tile, tile)
    count = metadata.get("latent_channels", metadata.get("latents", ""))  # the second in files of earlier versions
    if not count.isdecimal() or not metadata.get("stride", "").isdecimal():
        raise ZooError(f"this {metadata['half']} does not say how many channels its latents have; export it anew")
    latents, step = int(count), int(metadata["stride"]) // 2
    if metadata["half"] == "encoder":
        return (packed_in, tile, tile), (latents, tile // step, tile // step)
    side = tile * step // contract.out_cell
    return (latents, tile, tile), (packed_out, side, side)


def example_input(tile: int, metadata: Mapping[str, str]) -> torch.Tensor:
    """What the network is traced with: float32 zeros, by default ``[1, in_channels, tile, tile]``."""
    return torch.zeros(1, *shapes_in(metadata, tile)[0])


def stamp(metadata: Mapping[str, str], target: str, precision: str, tile: int) -> dict[str, str]:
    """The caller's metadata with what a runner needs to know added to it.

    Raises:
        ZooError: a value that is no string, or one that contradicts what is being written.
    """
    stamped = {"target": target, "precision": precision, "tile": str(tile)}
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ZooError(f"metadata is text to text; {key!r} has {value!r}")
        if stamped.setdefault(key, value) != value:
            raise ZooError(f"metadata says {key} = {value}, but the file being written has {stamped[key]}")
    return stamped


def parse_metadata(text: str | bytes | None, path: Path) -> dict[str, str]:
    """Metadata from the JSON embedded in a file.

    Raises:
        ZooError: there is none, or it is not what ``write`` embeds.
    """
    try:
        metadata = json.loads(text or "")
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or not {"target", "precision", "tile"} <= metadata.keys():
        raise ZooError(f"{path} carries no metadata of this zoo; was it written by 'zoo export'?")
    return metadata


def existing(path: Path | str, suffix: str) -> Path:
    """The path, if an artefact with this suffix is there.

    Raises:
        ZooError: nothing there, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise ZooError(f"{path} does not exist")
    if path.suffix != f".{suffix}":
        raise ZooError(f"{path} is not a .{suffix} file")
    return path


@contextlib.contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Whatever fails within is the file's fault: parsers meet damaged bytes with any exception that there is.

    Args:
        path: what is being read.
        kind: what it should be, such as ``"LiteRT model"``.

    Raises:
        ZooError: something failed.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        raise ZooError(
            f"{path} is not a readable {kind}; it may be cut off: copy it again, or write it anew with `zoo export`"
        ) from error


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process failed: its last line on stderr, or how it ended, since what is killed says nothing."""
    if lines := done.stderr.strip().splitlines():
        return lines[-1]
    if done.returncode >= 0:
        return f"ended with status {done.returncode}"
    try:
        name = signal.Signals(-done.returncode).name
    except ValueError:
        name = f"signal {-done.returncode}"
    return f"was ended by {name}" + ", perhaps for want of memory" * (name == "SIGKILL")


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files)


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """:func:`zoo.files.replacing` for a folder: it is made by the caller, and its temporary name keeps the suffix.

    A folder cannot be replaced in one step: the old one is removed just before the rename.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that stop the program take effect at the end: some imports swallow whatever is raised within."""
    held: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        handlers = {number: handler for number in known if callable(handler := signal.getsignal(number))}
    # Not masked: a signal that another thread takes still raises in this one.
    for number in handlers:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            handlers[held[0]](held[0], None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what a library prints and warns; show it after all if the library fails and no :class:`ZooError` says why.

    The converters report progress, versions and CPU probing on both streams, partly from C++: hence the descriptors.
    """
    with tempfile.TemporaryFile() as held, contextlib.ExitStack() as undo:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            saved = os.dup(number)
            undo.callback(os.close, saved)
            undo.callback(os.dup2, saved, number)
            undo.callback(stream.flush)
            os.dup2(held.fileno(), number)
        # In a notebook or a test, Python's own streams do not end in those descriptors.
        words = undo.enter_context(os.fdopen(os.dup(held.fileno()), "w", errors="replace"))
        undo.enter_context(contextlib.redirect_stdout(words))
        undo.enter_context(contextlib.redirect_stderr(words))
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            yield
        except ZooError:
            raise
        except Exception:  # who stops it asked for no page about it
            undo.close()
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
