"""The page of `bt search --html`, opened as a file in a browser."""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from bridgetower.records import Hit
from bridgetower_cli.showing import page as results
from bridgetower_cli.showing.question import Question
from tests.fakes import paint
from tests.web.large import GALLERY
from tests.web.test_accessibility import LOOKS, faults

NAMES = ["<b>bold.png", "\"'quoted#%?.png", "a-" + "very-long-name" * 12 + ".png", os.fsdecode(b"\xff.png")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of drawn pictures, of one that is gone, and of odd names."""
    folder = tmp_path_factory.mktemp("results")
    odd = [paint(folder / "a.png", "red").rename(folder / name) for name in NAMES]
    hits = [Hit(path, 0.9, 0.5, True) for path in [*odd, *sorted(GALLERY.glob("*.jpg"))[:20]]]
    hits.append(Hit(folder / "gone.png", None, 0.1, False))
    question = Question("two cats <on> a couch", "demo in fp32", 20, limits={"--under": ["x" * 200]})
    results.write(folder / "page.html", question, hits)
    return folder / "page.html"


def opened(browser: Browser, file: Path, **options: Any) -> tuple[Page, list[str], list[str]]:
    """The page, what its console says, and what it asks for besides itself."""
    page = browser.new_context(**options).new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return page, said, [url for url in asked if url != file.as_uri() and not url.startswith("data:")]


@pytest.mark.parametrize("look", LOOKS)
def test_no_look_has_a_fault(browser: Browser, file: Path, look: str) -> None:
    page, said, asked = opened(browser, file, **LOOKS[look])
    assert page.locator("li").count() == len(NAMES) + 21
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 30)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert faults(page) == []
    assert said == [] and asked == []
    page.context.close()


def test_links_lead_to_the_files(browser: Browser, file: Path) -> None:
    page, said, _ = opened(browser, file)
    links = page.locator("li a")
    assert [links.nth(place).evaluate("a => a.href") for place in range(2)] == [
        (file.parent / name).as_uri() for name in NAMES[:2]
    ]
    links.nth(3).click()  # the name that is not UTF-8
    page.wait_for_url("file:///**/%FF.png")
    assert said == []
    page.context.close()


def test_no_card_is_split_in_print(browser: Browser, file: Path) -> None:
    page, _, _ = opened(browser, file, color_scheme="dark")
    page.emulate_media(media="print")
    styles = page.evaluate(
        "[getComputedStyle(document.querySelector('li')).breakInside, getComputedStyle(document.body).backgroundColor]"
    )
    assert styles == ["avoid", "rgb(255, 255, 255)"]
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.context.close()
