"""The one exception that users see."""


class ZooError(Exception):
    """A mistake of the caller's that one line explains; the CLI prints it and exits with code 2."""
