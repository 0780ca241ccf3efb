"""The page in a real browser: it asks for nothing, fits a phone, and its sliders move."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest

from zoo.report.build import write_report

EVIDENCE = Path(__file__).parents[2] / "evidence"
PHONE, DESKTOP = 390, 1280  # CSS pixels


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    html, _ = write_report(tmp_path_factory.mktemp("report"), EVIDENCE)
    return html


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    program = browser.find()
    if program is None:
        pytest.skip("no Chromium to look at the page with; apt-get install chromium")
    with browser.Browser(program) as running:
        yield running


def test_page_names_no_address_to_load(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"""(?:src|href|action|data)\s*=\s*["'](?!data:|#)""", text)
    assert not re.findall(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_is_asked_for_and_nothing_complains(width: int, page: Path, chromium: browser.Browser) -> None:
    chromium.show(page, width)
    assert [r for r in chromium.requests if not r.startswith("data:")] == [page.resolve().as_uri()]
    assert any(r.startswith("data:image/webp") for r in chromium.requests)
    assert chromium.errors == []
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert chromium.value(broken) == 0 and chromium.value("document.images.length") > 0


@pytest.mark.parametrize("width", [320, PHONE, 768, DESKTOP])
def test_page_does_not_scroll_sideways(width: int, page: Path, chromium: browser.Browser) -> None:
    chromium.show(page, width)
    chromium.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg') && "
    wide += "e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    assert chromium.value(wide) == []
    assert chromium.value("document.documentElement.scrollWidth") == width == chromium.value("innerWidth")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_labels_of_charts_can_be_read_and_stay_inside(width: int, page: Path, chromium: browser.Browser) -> None:
    chromium.show(page, width)
    small = "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    assert chromium.value(small) >= 10
    outside = "[...document.querySelectorAll('svg text')].filter(t => { const a = t.getBoundingClientRect(), "
    outside += "b = t.closest('svg').getBoundingClientRect(); return a.left < b.left - 2 || a.right > b.right + 2 || "
    outside += "a.bottom > b.bottom + 2 }).map(t => t.textContent)"
    assert chromium.value(outside) == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_sliders_move(width: int, page: Path, chromium: browser.Browser) -> None:
    chromium.show(page, width)
    count = chromium.value("document.querySelectorAll('.frame').length")
    assert count > 0
    for i in range(count):
        frame = f"document.querySelectorAll('.frame')[{i}]"
        chromium.value(f"{frame}.scrollIntoView({{block: 'center'}})")
        box = chromium.value(f"(r => [r.left, r.top, r.width, r.height])({frame}.getBoundingClientRect())")
        left, top, w, h = box
        middle = top + h / 2
        chromium.drag((left + w / 2, middle), (left + w * 0.2, middle))
        assert float(chromium.value(f"{frame}.style.getPropertyValue('--x')").rstrip("%")) == pytest.approx(20, abs=2)
        clip = chromium.value(f"getComputedStyle({frame}.querySelector('.before')).clipPath")
        assert float(clip.split()[1].rstrip("%")) == pytest.approx(80, abs=2)


def test_dark_scheme_has_a_dark_ground(page: Path, chromium: browser.Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    chromium.show(page, DESKTOP, scheme="dark")
    dark = chromium.value(ground)
    chromium.show(page, DESKTOP, scheme="light")
    assert max(dark) < 60 and min(chromium.value(ground)) > 240


def test_the_watch_sees_a_request(tmp_path: Path, chromium: browser.Browser) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png"><div style="width:2000px">wide</div>')
    chromium.show(bad, PHONE)
    assert "http://127.0.0.1:9/x.png" in chromium.requests
    assert chromium.value("document.documentElement.scrollWidth") > PHONE
    chromium.errors.clear()
