"""Records name the command as it can be typed again; programs beside the CLI fail in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ZooError, one_line

PROGRAM = "from pathlib import Path\nfrom zoo.record import write_record\nwrite_record(Path('r.json'), 'x', {'a': 1})\n"


@pytest.mark.parametrize("words", [["-m", "mine.tool"], ["mine/tool.py"]], ids=["module", "script"])
def test_the_command_can_be_repeated(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "tool.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, *words, "--b", "c d"], cwd=tmp_path, check=True, env=environment)
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["kind"], record["a"]) == ("x", 1)
    assert record["command"] == f"python {' '.join(words)} --b 'c d'"


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, one_line():
        raise ZooError("x.dng: no such file; check the path")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: x.dng: no such file; check the path\n"
