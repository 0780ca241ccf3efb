"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_what_killed_processes_left_of_a_file_goes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead, alive = process.pid, os.getppid()
    stale = [f".a.tiff.{dead}.tmp", f".a.tiff.{dead}.spool"]
    kept = [
        f".a.tiff.{alive}.tmp",  # another's, at work
        f".b.tiff.{dead}.tmp",  # of another file
        f".axtiff.{dead}.tmp",
        f"a.tiff.{dead}.tmp",
        f".a.tiff.{dead}.tmp.bak",
        f".a.tiff.0{dead}.tmp",
        f".a.tiff.{10**30}.tmp",  # no process's number
        ".a.tiff.0.tmp",
        ".a.tiff.old.tmp",
        ".a.tiff.tmp",
    ]
    for name in stale + kept:
        (tmp_path / name).write_text("half")
    folder = tmp_path / f".a.tiff.{dead + 1}.tmp"
    folder.mkdir()
    with replacing(tmp_path / "a.tiff") as temporary:
        temporary.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, folder.name, "a.tiff"])


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
