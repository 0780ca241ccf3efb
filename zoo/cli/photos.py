"""What ``zoo denoise``, ``compress`` and ``decompress`` share: from their inputs to photos, one after the other.

One file goes to a file or into a folder; several, or a folder of them, go into a folder. There, what an earlier run has
made is left as it is, so that a run that was interrupted goes on where it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.files import check_folder

if TYPE_CHECKING:
    from zoo.raw import RawImage

Facts = dict[str, Any]


@dataclass(frozen=True)
class Output:
    """``-o OUT`` as it was written: a path forgets the slash at its end.

    Attributes:
        path: file or folder.
        folder: it ends in a slash, so a folder is meant, whatever dots its name has.
    """

    path: Path
    folder: bool

    @classmethod
    def parse(cls, text: str) -> Output:
        """Of a command line."""
        return cls(Path(text), text.endswith(tuple(filter(None, ("/", os.sep, os.altsep)))))


@dataclass(frozen=True)
class Photos:
    """What a command line asks for.

    Attributes:
        sources: files to read.
        target: the file that the only one becomes; None where results go into a folder.
        folder: that folder.
        several: there are several, or a folder was given.
    """

    sources: list[Path]
    target: Path | None
    folder: Path
    several: bool

    def jobs(self, suffix: str) -> list[tuple[Path, Path]]:
        """Each file with what it becomes.

        Args:
            suffix: of results in a folder, with its dot.

        Raises:
            ZooError: two files would become one.
        """
        if self.target is not None:
            return [(self.sources[0], self.target)]
        named = list(zip(self.sources, (self.folder / f"{name}{suffix}" for name in _names(self.sources)), strict=True))
        owners: dict[Path, Path] = {}
        for source, target in named:
            if target in owners:
                raise ZooError(f"{owners[target]} and {source} would both become {target}; do them into two folders")
            owners[target] = source
        return named


@dataclass
class Place:
    """Where a run stands, for its progress bars.

    Attributes:
        total: photos of the run.
        number: of the photo at work, from 1 on.
        worked: photos done so far, without those that were there already.
        begun: when the run was (``time.perf_counter``).
        photo_begun: when the one at work was.
        noted: what has been said once already.
    """

    total: int
    number: int = 0
    worked: int = 0
    begun: float = 0.0
    photo_begun: float = 0.0
    noted: set[str] = field(default_factory=set)

    def left(self) -> float | None:
        """Seconds to go, if the photos to come take as long as those done; None before there is one."""
        if not self.worked:
            return None
        each = (self.photo_begun - self.begun) / self.worked
        return max(0.0, each * (self.total - self.number + 1) - (time.perf_counter() - self.photo_begun))


def note_shading(raw: RawImage, place: Place, *, kept: bool = True) -> None:
    """Say on stderr, once in a run, that a photo's lens shading is not corrected, as that of all of a camera would be.

    Args:
        raw: the photo.
        place: in the run.
        kept: False where a file is written without a thumbnail, which loses the shading, and how bright a DNG is meant to be.
    """
    why = ""
    if raw.metadata.get("gain_map"):
        why = "its lens shading correction (GainMap) is damaged or not of a whole picture, and not applied: corners stay darker"
    elif not kept:
        lost = ["lens shading correction"] * (raw.shading is not None)
        lost += ["BaselineExposure"] * bool(raw.metadata.get("baseline_exposure"))
        why = f"--no-thumbnail loses its {' and '.join(lost)}" if lost else ""
    if why and "shading" not in place.noted:
        place.noted.add("shading")
        others = "" if place.total == 1 else " (said once for all such photos)"
        print(f"note: {raw.path}: {why}{others}", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser, metavar: str, inputs: str, output: str) -> None:
    """Inputs, ``-o`` and ``--overwrite``.

    Args:
        parser: of the verb.
        metavar: of the inputs.
        inputs, output: their help.
    """
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar=metavar, help=inputs)
    add("-o", "--output", required=True, type=Output.parse, metavar="OUT", help=output)
    add(
        "--overwrite",
        action="store_true",
        help="replace files that raw zoo did not write (but no DNGs), and make anew what a folder holds already",
    )


def gather(args: argparse.Namespace, reads: Collection[str], kind: str, writes: Collection[str]) -> Photos:
    """Find the photos, and say whether OUT is a file or a folder. Nothing is made yet.

    Args:
        args: with ``inputs`` and ``output``.
        reads: suffixes of what is taken from a folder.
        kind: what they are, for messages.
        writes: suffixes of the files that OUT may be.

    Raises:
        ZooError: inputs that are missing, given twice or none at all; an OUT that does not fit them or cannot be written to.
    """
    out: Path = args.output.path
    if str(out) == "-":
        raise ZooError("-o -: results do not go to the standard output; name a file or a folder")
    with reachable():
        sources = _expand(args.inputs, out, reads, kind)
        several = len(sources) > 1 or args.inputs[0].is_dir()
        is_folder = args.output.folder or out.is_dir()
        if not several and not is_folder and out.suffix:
            if not out.parent.is_dir():
                raise ZooError(f"{out}: there is no folder {out.parent}; make it first")
            return Photos(sources, out, out.parent, several)
        if out.suffix.lower() in writes and not is_folder:
            raise ZooError(f"{out}: several photos need a folder, not one file; give a folder")
        if out.exists() and not out.is_dir():
            raise ZooError(f"{out}: is a file, not a folder; give another name")
    check_folder(out, "-o")
    return Photos(sources, None, out, several)


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


def _expand(inputs: list[Path], out: Path, reads: Collection[str], kind: str) -> list[Path]:
    """Inputs with folders replaced by the files in them that are read (not in their subfolders), sorted by name."""
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            files += _found(path, out, reads, kind)
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


def _found(folder: Path, out: Path, reads: Collection[str], kind: str) -> list[Path]:
    # Names with a dot in front are what systems leave beside photos: ._A.dng has a raw's suffix, and no raw in it.
    there = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    found = [p for p in there if p.suffix.lower() in reads]
    if out.is_dir() and out.samefile(folder):  # what an earlier run has put beside the raws is none
        found = [p for p in found if not _is_our_dng(p)]
    if not found:
        others = Counter(p.suffix.lower() or "no suffix" for p in there)
        left = f" among its {len(there)} files ({', '.join(sorted(others))})" if there else ""
        raise ZooError(f"{folder}: holds no {kind}{left}; give the folder they lie in")
    return found


def _is_our_dng(path: Path) -> bool:
    """Whether a file is a picture of ours, though it has a raw's suffix."""
    from zoo.inference.output import is_foreign

    return path.suffix.lower() == ".dng" and path.stat().st_size > 0 and not is_foreign(path)


def _names(sources: Sequence[Path]) -> list[str]:
    """Names of results, without their suffix: stems, or whole names of those that others would collide with.

    All that collide are lengthened, so that a name does not depend on the order; so are those that then collide with a
    lengthened one. Capitals do not tell names apart, as they do not on many a disk.
    """
    whole: set[int] = set()
    while True:
        names = [source.name if i in whole else source.stem for i, source in enumerate(sources)]
        counts = Counter(name.casefold() for name in names)
        more = {i for i, name in enumerate(names) if counts[name.casefold()] > 1} - whole
        if not more:
            return names
        whole |= more


def work_through(
    jobs: list[tuple[Path, Path]],
    args: argparse.Namespace,
    work: Callable[[Path, Path, Place], Facts],
    tell: Callable[[Facts], str],
    *,
    resume: bool,
    about: Facts | None,
) -> None:
    """Do one photo after the other and report; one that fails is told of at once and does not keep the others.

    Args:
        jobs: see :meth:`Photos.jobs`.
        args: with ``overwrite``, ``json`` and ``debug``.
        work: from a file to another one; returns what is told of it, with ``input`` and ``output``.
        tell: makes a line of that.
        resume: leave what is there already and newer than its photo.
        about: of all photos, for JSON, where they are a list; None for the facts of the only one alone.

    Raises:
        ZooError: photos failed; the only one, for its own reason.
    """
    place = Place(len(jobs), begun=time.perf_counter())
    done: list[Facts] = []
    failed: list[str] = []
    for number, (source, target) in enumerate(jobs, 1):
        place.number, place.photo_begun = number, time.perf_counter()
        try:
            with reachable():
                _check_target(target, source, args.overwrite)
            if resume and not args.overwrite and _is_made(target, source):
                done.append({"input": str(source), "output": str(target), "skipped": True})
                continue
            done.append(work(source, target, place))
            place.worked += 1
        except Exception as error:  # the other photos of a folder are none the worse for it
            if len(jobs) == 1:
                raise
            if args.debug:
                traceback.print_exc()
            failed.append(_line(source, error))
            print("error:", failed[-1], file=sys.stderr)
            continue
        if not args.json:
            print(tell(done[-1]))
    if args.json:
        print(json.dumps(done[0] if about is None else about | {"files": done, "errors": failed}, indent=1))
    if skipped := sum("skipped" in facts for facts in done):
        print(f"{skipped} of {len(jobs)} were there already; --overwrite makes them anew", file=sys.stderr)
    if failed:
        raise ZooError(f"{len(failed)} of {len(jobs)} files failed")


def _check_target(target: Path, source: Path, overwrite: bool) -> None:
    """Refuse a target that holds what is not ours, before any work on its photo.

    Raises:
        ZooError: it is the photo itself, a folder, another's DNG, or another's file that may not be replaced.
    """
    from zoo.inference.output import is_foreign

    if target.is_dir():
        raise ZooError(f"{target}: is a folder; choose another name")
    if not is_foreign(target):
        return
    if source.exists() and target.samefile(source):
        raise ZooError(f"{target}: is the raw itself and would be overwritten; choose another name or folder")
    if target.suffix.lower() == ".dng":  # perhaps the only copy of a raw: no option replaces it
        raise ZooError(
            f"{target}: is a DNG that raw-zoo did not write and would be overwritten; choose another name or folder"
        )
    if not overwrite:
        raise ZooError(f"{target}: exists and is not raw zoo's; --overwrite replaces it")


def _is_made(target: Path, source: Path) -> bool:
    """Whether a file of ours, as :func:`_check_target` has found, was made of the photo as it is now."""
    try:
        made = target.stat()
        return made.st_size > 0 and made.st_mtime_ns > source.stat().st_mtime_ns
    except OSError:  # one of them is not there
        return False


def make_folder(folder: Path) -> None:
    """Make the folder of a result, once there is one to lie in it.

    Raises:
        ZooError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def _line(file: Path, error: Exception) -> str:
    """What went wrong with a file, as :func:`zoo.cli.main.main` would say it of the only one."""
    bug = f"{file}: {type(error).__name__}: {error}; this is a bug, --debug shows where"
    return " ".join((str(error) if isinstance(error, ZooError) else bug).split())


class Bar:
    """A progress bar on stderr, gone when done; none where nobody watches. Of several photos, a second one counts them."""

    def __init__(self, name: str, megapixels: float, place: Place, hidden: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._megapixels, self._start, self._place = megapixels, time.perf_counter(), place
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),  # names may hold brackets
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
        )
        several = place.total > 1
        if several:
            self._all = self._bar.add_task("all", total=place.total, completed=place.number - 1, note=self._photos())
        label = f"[{place.number}/{place.total}] {name}" if several else name
        self._task = self._bar.add_task(label, total=None, note="tiles")

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _photos(self) -> str:
        left = self._place.left()
        return "photos" if left is None else f"photos, {_clock(left)} to go"

    def _update(self, done: int, total: int) -> None:
        seconds = max(time.perf_counter() - self._start, 1e-6)  # some clocks stand still for a while
        speed, left = self._megapixels * done / total / seconds, seconds * (total - done) / done
        note = f"tiles, {speed:.1f} MP/s, {_clock(left)} to go"
        self._bar.update(self._task, completed=done, total=total, note=note)
        if self._place.total > 1:
            self._bar.update(self._all, note=self._photos())


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as short as they may be."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
