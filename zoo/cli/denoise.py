"""``zoo denoise``: raw photos in, pictures out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.record import peak_rss_mb


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "denoise",
        help=help,
        description="Denoise and demosaic raw photos. With several inputs, or a folder of raws, OUT is a folder.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="IN", help="raw files or folders of them")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="picture (.tiff .png .jpeg .dng) or folder")
    add("--model", metavar="NAME", help="registered model, or an exported .pte, .tflite or .onnx (default: utnet-m)")
    add("--runtime", metavar="NAME", help="torch (default), integer, executorch, litert or onnx")
    add("--precision", metavar="P", help="fp32, fp16 or int8; default: what the runtime is best at")
    add("--format", metavar="F", help="tiff, png, jpeg or dng; default: by OUT's suffix, tiff in a folder")
    add("--linear", action="store_true", help="16-bit TIFF in linear light instead of developed")
    add("--exposure", type=float, default=0.0, metavar="EV", help="brighten a developed picture by EV")
    add("--noise-scale", type=float, default=1.0, metavar="X", help="above 1 smooths more, below 1 keeps more")
    add("--tile", type=int, metavar="N", help="packed side of the tiles; changes memory and speed, not the picture")
    add("--threads", type=int, metavar="N", help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> int:
    from zoo.inference.output import check_options

    if str(args.output) == "-":
        raise ZooError("-o -: pictures do not go to the standard output; name a file or a folder")
    with reachable():
        files = _expand(args.inputs)
        format, targets = _targets(args, files)
    check_options(format, args.linear, args.exposure)

    from zoo.cli.runtimes import open_runner
    from zoo.inference.restore import check_tile
    from zoo.models.registry import DEFAULT_MODEL, get_spec

    check_tile(args.tile)
    model, runner = open_runner(args.model or DEFAULT_MODEL, args.runtime, args.precision, args.tile, args.threads)
    spec = get_spec(model)
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    for file, target in zip(files, targets, strict=True):
        try:
            done.append(_one(file, target, format, runner, spec, args))
        except Exception as error:  # the other photos of a folder are none the worse for it
            if len(files) == 1:
                raise
            if args.debug:
                traceback.print_exc()
            failed.append(_line(file, error))
            print("error:", failed[-1], file=sys.stderr)
            continue
        if not args.json:
            _tell(done[-1])
    if args.json:
        about = {"model": model, "runtime": runner.target, "precision": runner.precision}
        print(json.dumps(about | {"files": done, "errors": failed}, indent=1))
    if failed:
        raise ZooError(f"{len(failed)} of {len(files)} files failed")
    return 0


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Turns what the system says of a name that is too long, or lies in a folder that may not be entered.

    Raises:
        ZooError: it is such a name.
    """
    try:
        yield
    except OSError as error:
        fix = "check its permissions" if isinstance(error, PermissionError) else "choose another name"
        raise ZooError(f"{error.filename}: cannot be opened ({error.strerror}); {fix}") from error


def _line(file: Path, error: Exception) -> str:
    """What went wrong with a file, as :func:`zoo.cli.main.main` would say it of the only one."""
    bug = f"{file}: {type(error).__name__}: {error}; this is a bug, --debug shows where"
    return " ".join((str(error) if isinstance(error, ZooError) else bug).split())


def _expand(inputs: list[Path]) -> list[Path]:
    """Inputs with folders replaced by the raw files in them (not in their subfolders), sorted by name."""
    from zoo.raw import RAW_SUFFIXES

    files = []
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in RAW_SUFFIXES and p.is_file())
            if not found:
                raise ZooError(f"{path}: holds no raw files; give the folder they lie in")
            files += found
        elif not path.exists() and len(inputs) == 1:
            raise ZooError(f"{path}: no such file; check the path")  # before the model is loaded
        else:
            files.append(path)
    seen: set[Path] = set()
    for path in files:
        if path.absolute() in seen:
            raise ZooError(f"{path}: is given twice; leave one of them out")
        seen.add(path.absolute())
    return files


def _targets(args: argparse.Namespace, files: list[Path]) -> tuple[str, list[Path]]:
    """The format, and where each file's picture goes.

    Raises:
        ZooError: OUT does not fit the inputs, or two inputs would become one file.
    """
    from zoo.inference.output import SUFFIXES, format_of

    out: Path = args.output
    single = len(files) == 1 and not args.inputs[0].is_dir()
    if single and not out.is_dir() and out.suffix:
        if not out.parent.is_dir():
            raise ZooError(f"{out}: there is no folder {out.parent}; make it first")
        return format_of(out, args.format), [out]
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise ZooError(f"{out}: several photos need a folder, not one file; give a folder")
    if out.exists() and not out.is_dir():
        raise ZooError(f"{out}: is a file, not a folder; give another name")
    format = format_of(Path(f"x.{args.format or 'tiff'}"), args.format)
    targets = [out / f"{file.stem}.{args.format or format}" for file in files]
    owners: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        if target in owners:
            raise ZooError(f"{owners[target]} and {file} would both become {target}; do them into two folders")
        owners[target] = file
    return format, targets


def _one(file: Path, target: Path, format: str, runner: Any, spec: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Denoise one photo; returns what the summary tells of it."""
    from zoo.inference.output import save
    from zoo.inference.restore import restore
    from zoo.raw import read_raw

    start = time.perf_counter()
    raw = read_raw(file)
    megapixels = raw.mosaic.size / 1e6
    with Bar(file.name, megapixels, hidden=args.json) as progress:
        bands = restore(raw, runner, spec, tile=args.tile, noise_scale=args.noise_scale, progress=progress)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"{target.parent}: cannot be made ({error.strerror}); choose another folder") from error
        save(target, bands, raw, format=format, linear=args.linear, exposure=args.exposure)
    seconds = time.perf_counter() - start
    return {
        "input": str(file),
        "output": str(target),
        "width": raw.mosaic.shape[1],
        "height": raw.mosaic.shape[0],
        "iso": raw.iso,
        "noise": {"shot": raw.noise.shot, "read": raw.noise.read, "source": raw.noise.source},
        "white_balance": raw.metadata.get("wb_source"),
        "seconds": round(seconds, 3),
        "seconds_per_mp": round(seconds / megapixels, 4),
        "peak_rss_mb": peak_rss_mb(),
    }


def _tell(facts: dict[str, Any]) -> None:
    print(
        f"{facts['input']} -> {facts['output']}: {facts['width'] * facts['height'] / 1e6:.1f} MP,"
        f" {facts['seconds']:.1f} s ({facts['seconds_per_mp']:.2f} s/MP), peak memory {facts['peak_rss_mb']:.0f} MB"
    )


class Bar:
    """A progress bar on stderr, gone when done; none where nobody watches."""

    def __init__(self, name: str, megapixels: float, hidden: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._megapixels, self._start = megapixels, time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tiles {task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=None, speed="")

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _update(self, done: int, total: int) -> None:
        speed = self._megapixels * done / total / (time.perf_counter() - self._start)
        self._bar.update(self._task, completed=done, total=total, speed=f"{speed:.1f} MP/s")
