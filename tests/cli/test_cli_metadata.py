"""What a picture tells of its photo, from a camera's file to the file that the CLI writes."""

from __future__ import annotations

import exifread
import pytest
from PIL import Image

from zoo.inference.output import is_foreign

MODEL = "utnet-n"


@pytest.mark.parametrize("name", ["a.tiff", "a.jpeg", "a.dng"])
def test_a_camera_photo_keeps_its_exposure(zoo, shipped, data_dir, tmp_path, name):
    path = tmp_path / name
    code, _, err = zoo("denoise", data_dir / "raw" / "canon_d30.crw", "-o", path, "--model", MODEL)
    assert code == 0, err
    with path.open("rb") as file:
        tags = exifread.process_file(file)
    expected = {
        "Image Make": "Canon", "Image Model": "Canon EOS D30", "Image Artist": "Peter Wemmert/Kameratrollet",
        "Image Software": "raw zoo", "EXIF DateTimeOriginal": "2018:01:01 13:03:32", "EXIF ISOSpeedRatings": "100",
        "EXIF FocalLength": "31",
    }  # fmt: skip
    assert {key: str(tags[key]) for key in expected} == expected
    assert float(tags["EXIF ExposureTime"].values[0]) == pytest.approx(4.97, abs=0.01)
    assert float(tags["EXIF FNumber"].values[0]) == pytest.approx(5.6, abs=0.01)
    if name != "a.dng":  # which Pillow does not open
        assert Image.open(path).size == (2160, 1440)
    assert not is_foreign(path)
