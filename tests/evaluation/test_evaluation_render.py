"""Tables come from evidence, and the README holds the present ones."""

import json
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.evaluation.render import TABLES, render

ROOT = Path(__file__).parents[2]


def test_readme_is_not_stale() -> None:
    text = (ROOT / "README.md").read_text()
    assert render(text, ROOT / "evidence") == text, "run python -m zoo.evaluation.render"
    assert text.count("<!-- table:") >= 5


def test_a_changed_number_changes_the_table(tmp_path: Path) -> None:
    source = ROOT / "evidence" / "latency"
    (tmp_path / "latency").mkdir()
    record = json.loads(next(source.glob("utnet-m-litert-int8-*-t1.json")).read_text())
    record["ms_per_megapixel"] = 12345.6
    (tmp_path / "latency" / "x.json").write_text(json.dumps(record))
    assert "12345.6" in TABLES["latency"](tmp_path)


def test_unknown_table_is_an_error() -> None:
    with pytest.raises(ZooError, match="no table 'nonsense'"):
        render("<!-- table:nonsense -->\n<!-- /table -->")
