"""Whole-photo timings: python tools/photos.py [MEGAPIXELS ...]. Writes evidence/photos/*.json.

Makes synthetic 12-bit DNGs, runs `zoo denoise`, `compress` and `decompress` on each in processes of their own, and keeps what
they report. Sizes up to 48 MP show whether memory grows with the photo.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from export.benchmark import host
from zoo import weights
from zoo.codec.container import parse, read_tile
from zoo.codec.entropy import encode_latents, prior_map
from zoo.codec.tables import load_tables
from zoo.data.scene import synthetic_raw
from zoo.raw import write_dng
from zoo.record import write_record

RUNTIMES = {"litert": "int8", "executorch": "int8", "torch": "fp32"}
COMPRESSOR = "bayer-codec-m"
DENOISER = "utnet-m"  # that goes before it
_COMPARED = (3.0, 12.0)  # sizes that all runtimes are timed at


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
    """Time every size on every runtime, and the compressor's two halves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=float, metavar="MEGAPIXELS", help="default: 3 12 24 48")
    sizes = parser.parse_args().sizes or [3.0, 12.0, 24.0, 48.0]
    # In a process of its own, as all below: Linux counts what a parent took before it started a child as the child's.
    encoder, decoder = (
        Path("artifacts", f["path"]).resolve() for f in _zoo(".", "export", COMPRESSOR, "--target", "litert")
    )
    (denoiser,) = (Path("artifacts", f["path"]).resolve() for f in _zoo(".", "export", DENOISER, "--target", "litert"))
    with tempfile.TemporaryDirectory() as folder:
        # Commands run in that folder, since reports name files as commands do; artefacts are those of this one.
        (Path(folder) / "artifacts").symlink_to(Path("artifacts").resolve())
        for size in sizes:
            photo = Path(folder) / "photo.dng"
            height, width = write_photo(photo, size)
            megapixels = height * width / 1e6
            for runtime, precision in RUNTIMES.items():
                if runtime == "litert" or size in _COMPARED:
                    report = _run(folder, "denoise", photo.name, "-o", "out.tif", "--runtime", runtime)
                    _record(f"{runtime}-{size:g}mp", f"{runtime} {precision}", megapixels, report["files"][0], report)
            if size in _COMPARED or size == max(sizes):
                packed = ("compress", photo.name, "-o", "out.rzc", "--model", str(encoder))
                for name, words in {
                    f"compress behind {DENOISER}": (*packed, "--denoiser", str(denoiser)),
                    "compress": packed,
                    "decompress": ("decompress", "out.rzc", "-o", "out.tif", "--decoder", str(decoder)),
                }.items():
                    report = _run(folder, *words)
                    if name == "decompress":
                        report |= {"entropy": _entropy(Path(folder) / "out.rzc")}
                    file = f"{name.replace(' ', '-')}-{size:g}mp"
                    _record(file, f"{name}, {COMPRESSOR}, litert int8", megapixels, report, report)


def _entropy(file: Path) -> dict[str, float]:
    """Seconds that a file's tiles take to decode and to code again, in one thread and without any network. Choosing priors is
    a part of rounding (:func:`zoo.codec.rounding.quantise`), which does it twice, and is timed by itself.
    """
    stream = parse(file)
    tables, _ = load_tables(weights.verified_tables(stream.header.model))
    taken = {"decode": 0.0, "choose": 0.0, "encode": 0.0}
    tiles = range(stream.header.tiles.count)
    read_tile(stream, 0, tables)  # what is made of tables at first use is not counted
    start = time.perf_counter()
    latents = [read_tile(stream, tile, tables) for tile in tiles]
    taken["decode"] = time.perf_counter() - start
    for y in latents:
        start = time.perf_counter()
        priors = prior_map(y, tables)
        taken["choose"] += time.perf_counter() - start
        start = time.perf_counter()
        encode_latents(y, tables, priors)
        taken["encode"] += time.perf_counter() - start
    symbols = sum(y.size for y in latents)
    return {
        "symbols": symbols,
        **{f"{verb}_seconds": round(s, 4) for verb, s in taken.items()},
        **{f"{verb}_million_symbols_per_second": round(symbols / s / 1e6, 1) for verb, s in taken.items()},
    }


def _run(folder: str, *words: str) -> dict[str, Any]:
    return _zoo(folder, *words, "--threads", "2")


def _zoo(folder: str, *words: str) -> Any:
    command = [sys.executable, "-m", "zoo", *words, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout)


def _record(name: str, runtime: str, megapixels: float, done: dict[str, Any], report: dict[str, Any]) -> None:
    record = {
        "megapixels": megapixels,
        "runtime": runtime,
        "threads": 2,
        "seconds": done["seconds"],
        "seconds_per_mp": done["seconds"] / megapixels,
        "peak_rss_mb": done["peak_rss_mb"],
        "machine": host(),
        "report": report,
    }
    write_record(Path("evidence/photos") / f"{name}.json", "photo", record)
    print(f"{megapixels:.1f} MP {runtime}: {done['seconds']:.1f} s, {done['peak_rss_mb']:.0f} MB")


if __name__ == "__main__":
    main()
