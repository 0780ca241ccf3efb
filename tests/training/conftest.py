"""The pictures that the tests of compressors train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data.pool import ImagePool
from zoo.data.scene import linear_scene
from zoo.raw import srgb_encode


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        picture = np.rint(srgb_encode(linear_scene(200, 200, seed=seed)) * 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def pool(pictures: Path) -> ImagePool:
    return ImagePool.from_folder(pictures, min_side=192)
