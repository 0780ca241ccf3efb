"""Bilinear, Menon's and Malvar's demosaicers, and the catalogue of baselines."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zoo.baselines import get_baseline, list_baselines
from zoo.baselines.demosaic import bilinear, malvar, menon
from zoo.errors import ZooError

WB = (2.0, 1.0, 1.7)
CLEAN = (0.0, 0.0, 0.0)


def grey_ramp(height: int, width: int) -> np.ndarray:
    """A neutral scene as an unbalanced RGGB mosaic."""
    scene = np.linspace(0.1, 0.9, width, dtype=np.float32)[None].repeat(height, 0)
    raw = scene.copy()
    raw[0::2, 0::2] /= WB[0]
    raw[1::2, 1::2] /= WB[2]
    return raw


@pytest.mark.parametrize("method", [menon, malvar, bilinear])
def test_constant_colour_is_reproduced(method):
    mosaic = np.full((20, 22), 0.5, np.float32)
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = 0.2, 0.8
    rgb = method(mosaic)
    assert rgb.shape == (3, 20, 22) and rgb.dtype == np.float32
    inner = rgb[:, 6:-6, 6:-6]
    assert np.allclose(inner, np.array([0.2, 0.5, 0.8])[:, None, None], atol=1e-6)


@pytest.mark.parametrize("method", [menon, malvar, bilinear])
def test_nothing_is_clipped(method):
    rgb = method(np.full((20, 20), -0.25, np.float32))
    assert np.allclose(rgb[:, 6:-6, 6:-6], -0.25)
    assert np.allclose(method(np.full((20, 20), 1.5, np.float32))[:, 6:-6, 6:-6], 1.5)


@pytest.mark.parametrize("size", [(32, 40), (31, 40), (32, 41), (31, 41)])
@pytest.mark.parametrize("name", ["menon", "malvar", "bilinear"])
def test_grey_stays_grey_at_any_size(name, size):
    rgb = get_baseline(name)(grey_ramp(*size), WB, CLEAN, CLEAN)
    assert rgb.shape == (3, *size)
    inner = rgb[:, 6:-6, 6:-6]
    assert np.abs(inner - inner.mean(0)).max() < 1e-3
    assert np.allclose(inner[1], np.linspace(0.1, 0.9, size[1])[6:-6], atol=1e-3)


def test_input_is_left_alone():
    raw = grey_ramp(32, 32)
    before = raw.copy()
    get_baseline("menon")(raw, WB, CLEAN, CLEAN)
    assert (raw == before).all()


@pytest.mark.parametrize("method", [menon, malvar, bilinear])
def test_missing_library_says_how_to_install_it(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "colour_demosaicing", None)
    with pytest.raises(ZooError, match=r"pip install 'raw-zoo\[baselines\]'"):
        method(np.zeros((8, 8), np.float32))


def test_bilinear_is_the_mean_of_the_nearest():
    raw = np.random.default_rng(0).random((12, 14), np.float32)
    rgb = bilinear(raw)
    assert (rgb[0, 4, 6], rgb[1, 4, 7], rgb[2, 5, 7]) == pytest.approx((raw[4, 6], raw[4, 7], raw[5, 7]))
    assert rgb[1, 4, 6] == pytest.approx((raw[3, 6] + raw[5, 6] + raw[4, 5] + raw[4, 7]) / 4)
    assert rgb[2, 4, 6] == pytest.approx(raw[3:6:2, 5:8:2].mean())
    assert rgb[0, 4, 7] == pytest.approx((raw[4, 6] + raw[4, 8]) / 2)


def test_catalogue():
    demosaicers = ["bilinear", "malvar", "menon", "libraw-ahd", "libraw-dht", "libraw-aahd"]
    combined = [f"{denoiser}+{name}" for denoiser in ("nlm", "bm3d") for name in demosaicers]
    assert list_baselines() == demosaicers + combined
    assert set(get_baseline("menon").versions()) == {"colour-demosaicing"}
    assert set(get_baseline("nlm+libraw-dht").versions()) == {"rawpy"}
    with pytest.raises(ZooError, match="bilinear, malvar, menon"):
        get_baseline("mennon")


@pytest.mark.parametrize("name", list_baselines())
def test_a_result_says_what_it_is_made_of_and_on_what_terms(name):
    method = get_baseline(name)
    assert method.name == name and "demosaic" in method.settings
    assert ("denoise" in method.settings) == (method.denoise is not None) == ("+" in name)
    assert ("non-commercial" in method.licence) == name.startswith("bm3d")
    assert ("LibRaw" in method.licence) == ("libraw" in name) == ("rawpy" in method.packages)
    if "+" in name:
        assert "unbiased inverse" in method.settings["transform"]


def test_any_denoiser_goes_with_any_demosaicer():
    raw = grey_ramp(32, 40)
    noise = ((5e-3,) * 3, (1.9e-4,) * 3)
    denoised = get_baseline("nlm+bilinear").denoise(raw, *noise)
    for name in ("bilinear", "libraw-ahd"):
        assert (get_baseline(f"nlm+{name}")(raw, WB, *noise) == get_baseline(name)(denoised, WB, CLEAN, CLEAN)).all()


def test_missing_package_is_named_before_anything_runs(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from zoo.baselines import catalogue

    def version(package: str) -> str:
        if package == "bm3d":
            raise PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(catalogue, "version", version)
    assert get_baseline("menon").versions() == {"colour-demosaicing": "1"}
    assert get_baseline("libraw-ahd").versions() == {"rawpy": "1"}
    with pytest.raises(ZooError, match=r"'bm3d\+menon' needs bm3d: pip install 'raw-zoo\[bm3d\]' .*non-commercial"):
        get_baseline("bm3d+menon").versions()
