"""Writes zoo/data/held_out.txt: what may never be trained on. Usage: python tools/held_out.py ../shared/data"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from zoo.data.pool import PICTURES, difference_hash, read_srgb
from zoo.raw import srgb_decode


def main(root: Path) -> None:
    """Hash every evaluation picture (file and look) and every raw (file)."""
    lines = ["# Evaluation files: sha256 of the file; for pictures also a 256-bit difference hash (zoo.data.pool)."]
    for path in sorted([*(root / "eval_rgb").iterdir(), *(root / "raw").iterdir()]):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix in PICTURES:
            bits = difference_hash(srgb_decode(read_srgb(path)))
            digest += " " + np.packbits(bits).tobytes().hex()
        lines.append(digest)
    Path("zoo/data/held_out.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
