"""Files that appear whole or not at all; folders that can take them, and one process at a time."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str],
    fix: str = "choose a folder with space that you may write to",
    *,
    parents: bool = False,
) -> Iterator[Path]:
    """A temporary file next to ``path``, which takes its place at the end and is removed on failure.

    It is made at once, so that a folder that refuses it is known before any work. What processes that were killed have left
    of the same file goes first.

    Args:
        path: the file, in a folder that exists.
        fix: what the error advises.
        parents: make that folder where it is missing.

    Raises:
        ZooError: the system refuses it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        temporary.touch()
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror or error}); {fix}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _remove_stale(path: Path) -> None:
    """Remove temporaries of ``path``, and spools that writers put beside them, whose process is no more.

    Only names that :func:`replacing` gives: ``.NAME.PID.tmp``, and ``.NAME.PID.spool`` made of it.
    """
    if os.name != "posix":  # elsewhere signal 0 is not a mere question
        return
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d*)\.(tmp|spool)", re.ASCII)
    with (
        contextlib.suppress(OSError),
        os.scandir(path.parent) as entries,
    ):  # what is wrong with the folder, writing says
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and not _alive(int(match[1])) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):  # another process may have removed it too
                    Path(entry.path).unlink()


def _alive(pid: int) -> bool:
    """Whether a process of this machine has the number, or may have it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's; a number that none has, so the name is not of ours
        return True
    return True


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time changes a folder; the others wait. The lock is the folder's own: no file is left.

    A folder that is not there is made. What is wrong with it, writing says.
    """
    import fcntl

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a network's folder may know no locks; one process by itself needs none
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def check_folder(folder: Path, option: str = "--output-dir") -> None:
    """Refuse a folder that cannot be written to, or not be made, before any work; it is not made yet.

    Args:
        folder: as it was given.
        option: by which, for the error's advice.

    Raises:
        ZooError: such a folder, or a file.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if there.is_dir():
            with tempfile.TemporaryFile(dir=there):
                return
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written to ({error.strerror}); give another {option}") from error
    raise ZooError(f"{there}: is a file, not a folder; give another {option}")
