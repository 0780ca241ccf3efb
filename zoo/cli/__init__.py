"""The command line: ``zoo VERB ...``; one module per verb, see :mod:`zoo.cli.main`.

Nothing else belongs here: the modules of verbs such as ``list`` become names of this package and shadow the builtins.
"""

from zoo.cli.main import main

__all__ = ["main"]
