"""A folder of small pictures to evaluate on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from small_pictures import SCORED, picture


@pytest.fixture
def pictures_dir(tmp_path: Path) -> Path:
    """Two pictures of set kodak, one of mcmaster, one of set "mine"."""
    folder = tmp_path / "pictures"
    (folder / "mine").mkdir(parents=True)
    for seed, name in enumerate(("kodak_01.png", "kodak_02.png", "mcm_01.png", "mine/holiday.png")):
        Image.fromarray(picture(seed, *SCORED)).save(folder / name)
    return folder
