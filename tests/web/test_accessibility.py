"""The page has no fault that axe-core finds."""

from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import Visit
from tests.web.test_page import CATS, NARROW, first, search

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": NARROW},
    "forced colours": {"forced_colors": "active"},
}


def faults(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("(rules) => axe.run(document, rules)", RULES)
    assert len(found["passes"]) > 10
    return [
        f"{one['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("look", LOOKS)
def test_axe(visit: Visit, look: str) -> None:
    page = visit(**LOOKS[look])
    expect(page.locator("#count")).to_be_visible()
    assert faults(page) == []
    search(page, CATS)
    page.wait_for_timeout(400)  # until no tile moves
    assert faults(page) == []
    page.locator("#folders summary").click()
    expect(page.locator("#tree input").first).to_be_visible()
    assert faults(page) == []
    page.keyboard.press("Escape")
    first(page).click()
    expect(page.locator("#large")).to_be_visible()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.locator("#text").fill("a <mask> looking out")
    page.keyboard.press("Enter")
    expect(page.locator(".word").first).to_be_visible()
    assert faults(page) == []
