"""The one exception that users see."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class ZooError(Exception):
    """A mistake of the caller's that one line explains; the CLI prints it and exits with code 2."""


@contextmanager
def one_line() -> Iterator[None]:
    """For programs beside the CLI: a :class:`ZooError` becomes ``error: ...`` on stderr and exit code 2."""
    try:
        yield
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
