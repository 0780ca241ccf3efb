"""``python -m zoo.cli``, for where the console script is not installed."""

import sys

from zoo.cli import main

sys.exit(main())
