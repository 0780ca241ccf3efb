"""The command line: ``zoo VERB ...``.

Every verb is a module with ``add_parser(subparsers, help)``, which returns its parser, and ``run(args)``, which returns
an exit code or None for 0. Only the module of the verb in use is imported; so its line of help is kept here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from zoo.errors import ZooError

_UNWINDING_S = 5.0  # that removing half-written files is given
# verb -> (module, one line of help)
VERBS = {
    "list": ("zoo.cli.list", "list the models: size, cost, precisions"),
    "show": ("zoo.cli.show", "show all that is known of one model, or of one file"),
    "train": ("zoo.cli.train", "train a model; stop it at any time and run it again to go on"),
    "quantize": ("zoo.cli.quantize", "quantise a trained model to int8, once for all targets"),
    "publish": ("zoo.cli.publish", "make weights with a card of a finished run, for --weights"),
    "doctor": ("zoo.cli.doctor", "name what a target would run in float, outside the delegate, or not at all"),
    "export": ("zoo.cli.export", "write a model for Core ML, ExecuTorch, LiteRT or ONNX and verify the file"),
    "verify": ("zoo.cli.verify", "run an artefact against its reference and check its gates"),
    "benchmark": ("zoo.cli.benchmark", "time an artefact: ms, ms per megapixel, memory, int8 against fp32"),
    "estimate": ("zoo.cli.estimate", "estimate the int8 latency on a phone's chip: a range, not a measurement"),
    "evaluate": ("zoo.cli.evaluate", "measure quality beside classical methods, or rank what was measured"),
    "report": ("zoo.cli.report", "write what was measured as one HTML file and as Markdown"),
    "denoise": ("zoo.cli.denoise", "denoise and demosaic raw photos"),
    "compress": ("zoo.cli.compress", "denoise raw photos into small .rzc files"),
    "decompress": ("zoo.cli.decompress", "make pictures of .rzc files, or of a part of one"),
}


# Those that take weights by a model's name.
WEIGHED = (
    "list",
    "show",
    "train",
    "quantize",
    "export",
    "verify",
    "benchmark",
    "evaluate",
    "doctor",
    "denoise",
    "compress",
    "decompress",
)


class _Parser(argparse.ArgumentParser):
    """Reports mistakes the way the rest of the program does: one line."""

    def error(self, message: str) -> NoReturn:
        raise ZooError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: arguments without the program's name; None for the process's own.

    Returns:
        Exit code: 0 success, 1 a bug (of `zoo doctor`: findings), 2 a mistake that one line on stderr explains,
        130 interrupted, 128 + its number when a signal asked to stop.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _unwinding() as asked:
            args = _parser(arguments).parse_args(arguments)
            _check_threads(args)
            with _weights(args):
                code = importlib.import_module(VERBS[args.verb][0]).run(args) or 0
        if asked:  # and a library has swallowed what that raised
            raise _Stopped(asked[0])
        return code
    except ZooError as error:
        return _complain(str(error), 2, debug)
    except KeyboardInterrupt:
        return _complain("interrupted", 130, debug)
    except _Stopped as stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone
            _complain(f"stopped by {stopped.signal.name}", 0, debug)
        return 128 + stopped.signal
    except BrokenPipeError:  # `zoo list | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _complain(f"{type(error).__name__}: {error}; this is a bug, --debug shows where", 1, debug)


class _Stopped(BaseException):
    """What SIGTERM and SIGHUP become, as SIGINT becomes KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def _unwinding() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP raise :class:`_Stopped`, so that half-written files are removed on the way out; gives what came."""
    taken: list[int] = []
    asked: list[int] = []
    free = -math.inf

    def stop(number: int, _: object) -> None:
        nonlocal free
        # One that comes while files are removed must not keep them; later, what the first one raised was swallowed.
        if (now := time.monotonic()) >= free:
            free = now + _UNWINDING_S
            asked.append(number)
            raise _Stopped(number)

    if threading.current_thread() is threading.main_thread():
        known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        # Others are nohup's, or of a program that calls main().
        taken += [number for number in known if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield asked
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _weights(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Weights of ``--weights DIR`` in front of those that ship."""
    folder = getattr(args, "weights", None)
    # Of `zoo quantize` it can be a file, which is looked at there.
    if folder is None or (args.verb == "quantize" and not folder.is_dir()):
        return contextlib.nullcontext()
    from zoo.weights import using_weights

    if args.verb == "quantize":
        args.weights = None
    return using_weights(folder, *_models(args))


def _models(args: argparse.Namespace) -> list[str]:
    """What a verb runs. Weights that are of none of it would have no effect, without a word."""
    from zoo.models.registry import DEFAULT_COMPRESSOR, DEFAULT_MODEL

    if args.verb == "train":  # from whose weights, and towards whose, stands in its configuration
        return []
    default = {"export": DEFAULT_MODEL, "denoise": DEFAULT_MODEL, "compress": DEFAULT_COMPRESSOR}
    first = getattr(args, "name", None) or getattr(args, "model", None) or default.get(args.verb)
    several = args.artifact if args.verb == "benchmark" else getattr(args, "names", None)
    named = [first, getattr(args, "denoiser", None), *(several or [])]
    return [name for name in named if name]


def _check_threads(args: argparse.Namespace) -> None:
    threads = getattr(args, "threads", None)
    if isinstance(threads, int):  # `zoo benchmark` takes a list
        from zoo.inference.runner import check_threads

        check_threads(threads, "--threads")


def _complain(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("error:", " ".join(text.split()), file=sys.stderr)
    return code


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser, with the options of the verb that ``arguments`` name; the other verbs only by name and help.

    Raises:
        ZooError: unknown verb.
    """
    from zoo import __version__
    from zoo.models.registry import nearest

    parser = _Parser(prog="zoo", description="Compact joint denoise + demosaic networks for raw photos.")
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    if chosen is not None and chosen not in VERBS:
        raise ZooError(f"unknown verb '{chosen}'{nearest(chosen, VERBS)}; choose from {', '.join(VERBS)}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (module, help) in VERBS.items():
        if verb == chosen:
            own = importlib.import_module(module).add_parser(subparsers, help)
            if verb in WEIGHED and verb != "quantize":  # which takes files too
                own.add_argument(
                    "--weights", type=Path, metavar="DIR", help="weights of `zoo publish`, before those that ship"
                )
            own.add_argument("--json", action="store_true", help="print JSON")
            own.add_argument("--debug", action="store_true", help="show the traceback of an error")
        else:
            subparsers.add_parser(verb, help=help)
    return parser
