"""Codecs against the anchors: what is compared, what is said where there is no number; table and plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.evaluation.rate_board import ANCHORS, REFERENCE, read_board
from zoo.evaluation.rate_plot import plot_rates
from zoo.evaluation.rate_records import Curve, RateRecord
from zoo.report.tables import render

MENON, BEST = ANCHORS
RATES = (0.1, 0.2, 0.4, 0.8, 1.6)


def write(
    folder: Path,
    name: str,
    rate: float = 1.0,
    quality: float = 0.0,
    level: str = "iso3200",
    pictures: int = 3,
    lossless: bool = False,
    runtime: tuple[str, str] = ("codec", "uint8"),
    **fields,
) -> None:
    """A codec that takes ``rate`` times the bits of a common curve for ``quality`` dB more; pictures differ a little."""
    images = {}
    for index in range(pictures):
        curve = Curve("kodak", "0" * 64, 0.5, 0.1, {})
        for step, bpp in enumerate(RATES):
            psnr = None if lossless else 22.0 + 3 * step + quality + index
            similarity = None if lossless else 1 - 0.1 * 0.5**step
            curve.add(
                quality=step,
                bytes=round(bpp * rate * 62500),
                bpp=bpp * rate,
                psnr=psnr,
                ssim=similarity,
                ms_ssim=similarity,
                encode_seconds=0.1,
                decode_seconds=None if lossless else 0.05,
            )
        images[f"kodak/{index}"] = curve
    settings = {"qualities": list(range(len(RATES)))} | fields.pop("settings", {})
    record = RateRecord(name, *runtime, level, *bed.LEVELS[level], settings=settings, images=images, **fields)
    record.save(folder)


def test_bd_rate_against_both_anchors(tmp_path):
    write(tmp_path, MENON, rate=2)
    write(tmp_path, BEST)
    write(tmp_path, "ours", rate=0.75)
    board = read_board(tmp_path)
    assert board.names == [MENON, BEST, "ours"] and board.levels("ours") == ["iso3200"]
    simple, best = (board.against("ours", anchor, "iso3200") for anchor in ANCHORS)
    assert simple.rate.value == pytest.approx(-62.5) and best.rate.value == pytest.approx(-25)
    assert best.mean == pytest.approx(-25) and (best.counted, best.pictures) == (3, 3)
    assert (best.text(), best.picture_text()) == ("-25 %", "-25 %")
    assert board.against("ours", MENON, "iso3200", "ms_ssim").rate.value == pytest.approx(-62.5)
    assert board.against("ours", MENON, "clean") is None and board.against(MENON, MENON, "iso3200") is None
    assert board.seconds_per_mp("ours", "iso3200", "encode") == pytest.approx(0.2)


def test_only_shared_pictures_count(tmp_path):
    write(tmp_path, BEST, pictures=3)
    write(tmp_path, "ours", pictures=2, rate=0.5)
    found = read_board(tmp_path).against("ours", BEST, "iso3200")
    # With the anchor's third picture, which is better than the two, its mean curve would lie higher and this be off.
    assert found.rate.value == pytest.approx(-50) and found.pictures == 2


def test_without_overlap_there_is_quality_at_equal_rate(tmp_path):
    write(tmp_path, MENON)
    write(tmp_path, "ours", quality=20)
    found = read_board(tmp_path).against("ours", MENON, "iso3200")
    assert found.rate.value is None and "lies above" in found.rate.reason and found.mean is None
    assert found.text() == "+20.0 dB*" and found.picture_text() == "-"


def test_pictures_without_a_number_of_their_own_are_counted(tmp_path):
    write(tmp_path, MENON)
    write(tmp_path, "ours", quality=10.9)
    path = next(tmp_path.glob("*ours*"))
    record = RateRecord.load(path)
    psnr = record.images["kodak/2"].points["psnr"]
    psnr[:] = [v + 3 for v in psnr]
    record.save(tmp_path)
    found = read_board(tmp_path).against("ours", MENON, "iso3200")
    assert (found.counted, found.pictures) == (2, 3) and found.picture_text().endswith(" (2 of 3)")


def test_older_versions_are_not_mixed_in(tmp_path):
    write(tmp_path, MENON, bed_version=0)
    write(tmp_path, BEST)
    assert read_board(tmp_path).names == [BEST]


def test_damaged_evidence_is_named(tmp_path):
    (tmp_path / "rate-distortion-x.json").write_text("{")
    with pytest.raises(ZooError, match=r"rate-distortion-x\.json: cannot be read as evidence"):
        read_board(tmp_path)


def test_lossless_rates_are_told_and_not_compared(tmp_path):
    write(tmp_path, BEST)
    write(tmp_path, "raw-ljpeg", lossless=True, level="clean")
    board = read_board(tmp_path)
    assert board.names == [BEST] and board.lossless == ["raw-ljpeg"]
    assert any(
        "0 / 1 / 2 / 3 / 4 bits a sample" in n and "clean 0.1 / 0.2 / 0.4 / 0.8 / 1.6" in n for n in board.notes()
    )
    rows = {r["name"]: r for r in board.to_json()}
    assert rows["raw-ljpeg"][f"psnr against {BEST}"] is None and json.dumps(rows, allow_nan=False)


def test_runtimes_are_compared_with_the_integer_reference(tmp_path):
    write(tmp_path, "ours", runtime=("torch", "fp32"))
    write(tmp_path, "ours", rate=1.1, runtime=("integer", "int8"))
    write(tmp_path, "ours", rate=1.1 * 1.002, quality=-0.01, pictures=2, runtime=("coreml", "int8"))
    lines = [line for line in read_board(tmp_path).notes() if line.startswith("ours")]
    assert lines == [
        "ours coreml int8 against the integer reference, at any level and quality: bytes within 0.20 %, PSNR within 0.010 dB",
        "ours integer int8 against the same in float: iso3200 +10 %",
    ]
    write(tmp_path, REFERENCE, rate=2.2, runtime=("torch", "fp32"))
    assert read_board(tmp_path).notes()[-1] == (
        f"ours integer int8 against {REFERENCE}, the full-size reference, in float: iso3200 -50 %"
    )


def test_levels_of_other_weights_are_left_out_and_named(tmp_path):
    for level in ("clean", "iso800"):
        write(tmp_path, "ours+x", level=level, settings={"source": {"weights_sha256": "1" * 64}})
    write(tmp_path, "ours+x", settings={"source": {"weights_sha256": "2" * 64}})
    board = read_board(tmp_path)
    assert board.levels("ours+x") == ["clean", "iso800"]
    assert board.notes()[-1] == "ours+x: iso3200 left out, measured with other weights; measure again"


def test_int8_is_compared_with_what_it_was_made_of(tmp_path):
    halves = {"codec": {"halves_sha256": ["3" * 64, "4" * 64]}}
    write(tmp_path, "ours", runtime=("torch", "fp32"), weights_sha256="1" * 64)
    for runtime in ("integer", "coreml"):
        write(tmp_path, "ours", runtime=(runtime, "int8"), weights_sha256="2" * 64, settings=halves)
    (line,) = [line for line in read_board(tmp_path).notes() if line.startswith("ours")]
    assert line.startswith("ours coreml int8 against the integer reference")
    write(
        tmp_path, "ours", runtime=("coreml", "int8"), weights_sha256="2" * 64, settings={"codec": {"halves_sha256": []}}
    )
    assert not [line for line in read_board(tmp_path).notes() if line.startswith("ours")]
    write(tmp_path, "ours", runtime=("torch", "fp32"), weights_sha256="2" * 64)
    assert "ours integer int8 against the same in float: iso3200 +0 %" in read_board(tmp_path).notes()


def test_jpeg_2000_comes_with_a_warning(tmp_path):
    write(tmp_path, BEST)
    assert not any("jpeg2k" in n for n in read_board(tmp_path).notes())
    write(tmp_path, "jpeg2k+menon")
    assert any(n.startswith("jpeg2k: its quality fixes the distortion") for n in read_board(tmp_path).notes())


def test_table_has_a_column_per_level(tmp_path):
    folder = tmp_path / "rate-distortion"
    for level in ("clean", "iso12800"):
        write(folder, MENON, rate=2, level=level)
        write(folder, BEST, level=level)
    write(folder, "ours", rate=0.75, level="clean")
    write(folder, "ours", quality=20, level="iso12800")
    lines = render("rate_distortion", tmp_path).splitlines()
    assert lines[0] == f"| BD-rate against {MENON} / {BEST} | clean | iso800 | iso3200 | iso12800 |"
    assert lines[2] == f"| {MENON} | - / +100 % | - | - | - / +100 % |"
    assert lines[4].startswith("| ours | -62 % / -25 % | - | - | +") and lines[4].endswith(r" dB\* / +20.0 dB\* |")
    assert "negative: fewer bits" in lines[6] and lines[7].startswith(r"\*: no BD-rate")


def test_table_without_evidence_is_a_row_of_dashes(tmp_path):
    assert render("rate_distortion", tmp_path).splitlines()[2:] == ["| - | - | - | - | - |"]


def test_table_without_anchors_is_dashes(tmp_path):
    write(tmp_path / "rate-distortion", "ours")
    assert render("rate_distortion", tmp_path).splitlines()[2] == "| ours | - | - | - | - |"


@pytest.mark.parametrize(("levels", "panels"), [(("clean",), 1), (("clean", "iso800", "iso3200"), 3)])
def test_plot_has_a_panel_per_level_and_a_line_per_codec(tmp_path, monkeypatch, levels, panels):
    from matplotlib.figure import Figure

    for level in levels:
        for name in (*ANCHORS, "ours", "bpg+other"):
            write(tmp_path / "e", name, level=level)
        write(tmp_path / "e", "raw-ljpeg", level=level, lossless=True)
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **how: (figures.append(figure), save(figure, path, **how))
    )
    plot_rates(read_board(tmp_path / "e"), tmp_path / "deep" / "x.png")
    drawn = [axis for axis in figures[0].axes if axis.get_visible()]
    assert len(drawn) == panels and "lossless raw: 0.1 bpp (0 bit)" in drawn[0].get_title()
    lines = {line.get_label(): line for line in drawn[-1].lines}
    assert lines.keys() == {*ANCHORS, "ours", "bpg+other"}
    assert list(lines["ours"].get_xdata()) == list(RATES) and list(lines["ours"].get_ydata()) == [23, 26, 29, 32, 35]
    assert {lines[n].get_linestyle() for n in (MENON, BEST, "bpg+other")} == {"--", "-", ":"}
    assert Image.open(tmp_path / "deep" / "x.png").size == (1200, 900)


def test_plots_are_png_or_svg(tmp_path):
    write(tmp_path, BEST)
    with pytest.raises(ZooError, match=r"x\.gif: plots are \.png or \.svg"):
        plot_rates(read_board(tmp_path), tmp_path / "x.gif")
    plot_rates(read_board(tmp_path), tmp_path / "x.svg")
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()
