"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.files import check_folder, replacing


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    with replacing(file, parents=True) as temporary:
        temporary.write_text("whole")
        assert not file.exists()
    assert file.read_text() == "whole" and list(file.parent.iterdir()) == [file]


def test_what_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(file) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    said = r"a\.txt: cannot be written \(No such file or directory\); mend it"
    with pytest.raises(ZooError, match=said), replacing(tmp_path / "none" / "a.txt", "mend it"):
        pass


def test_folders_are_looked_at_before_work(tmp_path: Path) -> None:
    check_folder(tmp_path / "to" / "be" / "made")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"file: is a file, not a folder; give another --record"):
        check_folder(tmp_path / "file" / "in", "--record")
    with pytest.raises(ZooError, match="cannot be written to"):
        check_folder(Path("/proc/none"))
