"""Whole-photo timings: python tools/photos.py [MEGAPIXELS ...]. Writes evidence/photos/*.json.

Makes synthetic 12-bit DNGs, runs `zoo denoise` on each in a process of its own, and keeps what it reports. Sizes up to 48 MP
show whether memory grows with the photo.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from export.benchmark import host
from zoo.data.scene import synthetic_raw
from zoo.raw import write_dng
from zoo.record import write_record

RUNTIMES = {"litert": "int8", "executorch": "int8", "torch": "fp32"}


def write_photo(path: Path, megapixels: float) -> tuple[int, int]:
    """A DNG of the synthetic scene, 4:3, tiled from one of 1.5 MP."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5 / 2) * 2
    width = round(height * 4 / 3 / 2) * 2
    raw = synthetic_raw(1060, 1414)
    repeats = (-(-height // 1060), -(-width // 1414))
    mosaic = np.tile(raw.mosaic, repeats)[:height, :width]
    write_dng(
        path,
        mosaic,
        cfa=raw.cfa,
        black=raw.black,
        white=raw.white,
        wb=raw.wb,
        xyz_to_cam=raw.xyz_to_cam,
        iso=800,
        noise=raw.noise,
    )
    return height, width


def main() -> None:
    """Time every size on every runtime."""
    sizes = [float(a) for a in sys.argv[1:]] or [3.0, 12.0, 24.0, 48.0]
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            photo = Path(folder) / "photo.dng"
            height, width = write_photo(photo, size)
            for runtime, precision in RUNTIMES.items():
                if runtime != "litert" and size not in (3.0, 12.0):
                    continue
                # In that folder, since the report names files as the command does.
                command = [sys.executable, "-m", "zoo", "denoise", photo.name, "-o", "out.tif", "--runtime", runtime]
                result = subprocess.run(
                    [*command, "--threads", "2", "--json"], capture_output=True, text=True, check=True, cwd=folder
                )
                report = json.loads(result.stdout)
                (done,) = report["files"]
                megapixels = height * width / 1e6
                record = {
                    "megapixels": megapixels,
                    "runtime": f"{runtime} {precision}",
                    "threads": 2,
                    "seconds": done["seconds"],
                    "seconds_per_mp": done["seconds"] / megapixels,
                    "peak_rss_mb": done["peak_rss_mb"],
                    "machine": host(),
                    "report": report,
                }
                write_record(Path("evidence/photos") / f"{runtime}-{size:g}mp.json", "photo", record)
                print(f"{megapixels:.1f} MP {runtime}: {done['seconds']:.1f} s, {done['peak_rss_mb']:.0f} MB")


if __name__ == "__main__":
    main()
