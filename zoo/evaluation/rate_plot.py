"""Rate-distortion curves as a picture: PSNR against bits per sensor pixel, one panel per noise level."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation.rate_board import LEVELS, RateBoard
from zoo.files import replacing

SUFFIXES = (".png", ".svg")

# One colour per picture codec; compressors, ours, take what is left and a thicker line.
_COLOURS = {
    "jpeg": "#8c8c8c",
    "jpeg2k": "#b8860b",
    "webp": "#6aa84f",
    "heic": "#7a4ea3",
    "avif": "#1f5fa8",
    "jpegxl": "#111111",
    "bpg": "#c27ba0",
    "jpegxs": "#45818e",
}
_OURS = ("#c23b22", "#e69138", "#a61c5d", "#f1a7a0", "#7f6000", "#e06fb0", "#0f8b8d", "#56c1d6")
_DASHES = {"menon": "--", "utnet-m": "-"}  # of developers; others are dotted
_SHOWN = (0.06, 6.0)  # bits per pixel; of lossless raws only their label is, and JPEG 2000 goes down to 0.01


def plot_rates(board: RateBoard, path: Path) -> None:
    """Draw mean curves, each over all pictures that its codec was measured on.

    Args:
        board: what to draw.
        path: PNG or SVG to write; its folder is made.

    Raises:
        ZooError: another suffix, matplotlib is not installed, or the file cannot be written.
    """
    check_suffix(path)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ZooError("plots need matplotlib: pip install 'raw-zoo[report]'") from error
    figure: Any = Figure(figsize=(12, 9), dpi=100, layout="constrained")
    levels = [level for level in LEVELS if any(level in board.levels(n) for n in board.names)]
    grid: Any = figure.subplots(-(-len(levels) // 2), min(2, len(levels)), squeeze=False)
    styles = _styles(board.names)
    for axis, level in zip(grid.flat, levels, strict=False):
        heights = []
        for name in board.names:
            if level in board.levels(name):
                mean = board.mean(name, level, board.pictures(name, level))
                axis.plot(mean["bpp"], mean["psnr"], label=name, **styles[name])
                heights += [y for x, y in zip(mean["bpp"], mean["psnr"], strict=True) if _SHOWN[0] <= x <= _SHOWN[1]]
        axis.set_xscale("log")
        axis.set_xlim(*_SHOWN)
        if heights:
            axis.set_ylim(min(heights) - 0.5, max(heights) + 0.5)
        axis.grid(True, which="both", color="#e4e4e4", linewidth=0.6)
        axis.set_title(f"{level}{_lossless(board, level)}", fontsize=10)
        axis.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
        axis.set_xlabel("bits per sensor pixel")
        axis.set_ylabel("PSNR of developed sRGB, dB")
    for axis in list(grid.flat)[len(levels) :]:
        axis.set_visible(False)
    drawn = {
        label: handle for axis in grid.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=6, fontsize=8)
    with replacing(path, "choose another --plot", parents=True) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def check_suffix(path: Path) -> None:
    """Refuse a plot that is neither PNG nor SVG.

    Raises:
        ZooError: it is neither.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ZooError(f"{path}: plots are {' or '.join(SUFFIXES)}; choose one of these suffixes")


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """Keyword arguments of ``plot`` by name."""
    styles: dict[str, dict[str, Any]] = {}
    # A compressor behind a denoiser, "CODEC+DENOISER TARGET PRECISION", has the colour of the same alone.
    alone = {n: re.sub(r"\+\S+", "", n) for n in names if n.partition("+")[0] not in _COLOURS}
    ours = list(dict.fromkeys(alone.values()))
    for name in names:
        codec, _, developer = name.partition("+")
        if name in alone:
            colour = _OURS[ours.index(alone[name]) % len(_OURS)]
            marker = {"linewidth": 2.2, "marker": "s", "markersize": 4}
            if developer:
                marker = {"linewidth": 1.4, "marker": "D", "markersize": 3, "linestyle": "-."}
            styles[name] = {"color": colour, **marker}
        else:
            dash = _DASHES.get(developer, ":")
            styles[name] = {
                "color": _COLOURS[codec],
                "linewidth": 1.1,
                "linestyle": dash,
                "marker": "o",
                "markersize": 2.5,
            }
    return styles


def _lossless(board: RateBoard, level: str) -> str:
    """What raws take without loss, for a panel's title."""
    told = []
    for name in board.lossless:
        if level in board.levels(name):
            mean = board.mean(name, level, board.pictures(name, level))
            told += [f"{bpp:.1f} bpp ({q:g} bit)" for q, bpp in zip(mean["quality"], mean["bpp"], strict=True)]
    return f"; lossless raw: {', '.join(told)}" if told else ""
