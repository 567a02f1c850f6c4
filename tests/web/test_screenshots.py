"""Write pictures of the page: `pytest --web --screenshots FOLDER tests/web/test_screenshots.py`.

docs/page.md shows those of the search, of a picture and of words, from docs/images.
"""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import Visit
from tests.web.large import GALLERY
from tests.web.test_page import CATS, NARROW, drop, first, search, status

MOST_BYTES = 250_000
PLACE = "/home/me/Pictures"
WINDOW = {"width": 1100, "height": 720}


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    if (given := request.config.option.screenshots) is None:
        pytest.skip("writes pictures: give --screenshots FOLDER")
    folder = Path(given)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def visit_home(visit: Visit, album: Path) -> Any:
    """Open the page with the album at the place where people have theirs."""

    def visit_it(**options: Any) -> Page:
        page = visit("/healthz", **{"viewport": WINDOW, **options})

        def moved(route: Route) -> None:
            given = route.request.post_data_buffer
            answer = route.fetch(post_data=given and given.replace(PLACE.encode(), str(album).encode()))
            route.fulfill(response=answer, body=answer.text().replace(str(album), PLACE))

        for path in ("search", "status", "folders"):
            page.route(f"**/{path}*", moved)
        page.goto(page.url.replace("/healthz", "/"))
        return page

    return visit_it


def shoot(page: Page, file: Path) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # until no tile moves
    with Image.open(BytesIO(page.screenshot())) as image:  # of 256 colours, which takes a third of the bytes
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < MOST_BYTES


def test_search(folder: Path, visit_home: Any) -> None:
    page = visit_home()
    search(page, CATS)
    shoot(page, folder / "page-search.png")


def test_picture(folder: Path, visit_home: Any) -> None:
    page = visit_home(color_scheme="dark")
    search(page, CATS)
    first(page).click()
    expect(page.locator("#large")).to_be_visible()
    shoot(page, folder / "page-picture.png")


def test_words(folder: Path, visit_home: Any) -> None:
    page = visit_home()
    page.locator("#text").fill("a <mask> looking out")
    page.keyboard.press("Enter")
    expect(page.locator(".word").first).to_be_visible()
    shoot(page, folder / "page-words.png")


def test_drop(folder: Path, visit_home: Any) -> None:
    page = visit_home()
    drop(page, sorted(GALLERY.glob("*.jpg"))[20], "dragenter")
    shoot(page, folder / "page-drop.png")


def test_by_a_picture(folder: Path, visit_home: Any) -> None:
    page = visit_home()
    drop(page, sorted(GALLERY.glob("*.jpg"))[20])
    expect(status(page)).to_contain_text("none verified")
    shoot(page, folder / "page-by-picture.png")


def test_no_match(folder: Path, visit_home: Any) -> None:
    page = visit_home()
    search(page, "an aeroplane")
    shoot(page, folder / "page-no-match.png")


def test_filters(folder: Path, visit_home: Any) -> None:
    page = visit_home()
    search(page, CATS)
    page.locator("#since").fill("2024-05-02")
    page.locator("#folders summary").click()
    page.locator("#tree input").first.check()
    expect(status(page)).to_contain_text(re.compile("[1-9] pictures verified in"))
    shoot(page, folder / "page-filters.png")


@pytest.mark.parametrize("name", ["start", "search", "picture", "words"])
def test_narrow(folder: Path, visit_home: Any, name: str) -> None:
    page = visit_home(viewport=NARROW)
    if name == "words":
        page.locator("#text").fill("a <mask> looking out")
        page.keyboard.press("Enter")
        expect(page.locator(".word").first).to_be_visible()
    elif name != "start":
        search(page, CATS)
    if name == "picture":
        first(page).click()
        expect(page.locator("#large")).to_be_visible()
    shoot(page, folder / f"page-narrow-{name}.png")
