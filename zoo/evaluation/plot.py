"""The leaderboard as a picture: quality against computation, and against time on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation.leaderboard import CLASSICAL, PEER, Leaderboard, Row

SUFFIXES = (".png", ".svg")
_PANELS = (("gmac_per_mp", "GMAC per sensor megapixel"), ("ms_per_mp", "ms per megapixel on the host"))
_COLOURS = {"int8": "#c23b22", "float": "#1f5fa8", "peer": "#7a4ea3", "classical": "#5a5a5a"}
_KINDS = {"int8": "this zoo, int8", "float": "this zoo, float", "peer": "peers, own weights", "classical": "classical"}


def plot(board: Leaderboard, path: Path) -> None:
    """Draw mean noisy PSNR against cost, logarithmic; frontiers as lines, dominated points hollow.

    Args:
        board: what to draw; rows without a cost or without all noisy levels are left out.
        path: PNG or SVG to write; its folder is made.

    Raises:
        ZooError: another suffix, matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure(path, (11, 5))
    axes: Any = figure.subplots(1, 2, sharey=True)
    for axis, (cost, title) in zip(axes, _PANELS, strict=True):
        _panel(axis, board, cost)
        axis.set_xlabel(title)
    axes[0].set_ylabel(f"mean PSNR over the noisy levels, dB (pictures: {len(board.pictures)})")
    drawn = {_kind(row) for row in board.rows}
    handles = [axes[0].plot([], [], "o", color=_COLOURS[k], label=text)[0] for k, text in _KINDS.items() if k in drawn]
    handles.append(axes[0].plot([], [], "o", mfc="white", color="black", label="dominated")[0])
    axes[0].legend(handles=handles, fontsize=8, loc="lower right")
    save(figure, path)


def check_suffix(path: Path) -> None:
    """Refuse a plot that is neither PNG nor SVG.

    Raises:
        ZooError: it is neither.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ZooError(f"{path}: plots are {' or '.join(SUFFIXES)}; choose one of these suffixes")


def new_figure(path: Path, inches: tuple[float, float]) -> Any:
    """An empty figure for a file, 100 pixels per inch.

    Raises:
        ZooError: another suffix, or matplotlib is not installed.
    """
    check_suffix(path)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ZooError("plots need matplotlib: pip install 'raw-zoo[report]'") from error
    return Figure(figsize=inches, dpi=100, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write a figure; its folder is made.

    Raises:
        ZooError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror}); choose another --plot") from error


def _panel(axis: Any, board: Leaderboard, cost: str) -> None:
    frontier = board.frontier(cost)
    axis.set_xscale("log")
    axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    line = [(getattr(row, cost), row.noisy_mean("psnr", board.own(row))) for row in frontier]
    if line:
        axis.plot(*zip(*line, strict=True), color="#bbbbbb", linewidth=1.2, zorder=1)
    for row in board.rows:
        x, y = getattr(row, cost), row.noisy_mean("psnr", board.own(row))
        if x is None or y is None:
            continue
        colour = _COLOURS[_kind(row)]
        axis.plot([x], [y], "o", color=colour, mfc=colour if row in frontier else "white", markersize=6, zorder=2)
        # int8 lies just below its float twin: so do their labels.
        offset = (6, -9) if _kind(row) == "int8" else (6, 3)
        axis.annotate(row.label, (x, y), xytext=offset, textcoords="offset points", fontsize=7, color=colour)
    axis.margins(x=0.25, y=0.08)
    axis.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, position: "")


def _kind(row: Row) -> str:
    if row.target in (CLASSICAL, PEER):
        return {CLASSICAL: "classical", PEER: "peer"}[row.target]
    return "int8" if row.precision.startswith("int8") else "float"
