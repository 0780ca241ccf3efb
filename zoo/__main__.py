"""``python -m zoo``: for ``torchrun -m zoo train``, and where the console script is not installed."""

import sys

from zoo.cli import main

sys.exit(main())
