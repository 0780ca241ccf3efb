"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
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

    It is made at once, so that a folder that refuses it is known before any work.

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
        temporary.touch()
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror or error}); {fix}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
