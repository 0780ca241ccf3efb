"""``python -m zoo``, which ``torchrun -m zoo train`` needs."""

import sys

from zoo.cli import main

sys.exit(main())
