"""The page of `bt serve`, as a person uses it in a browser."""

import base64
import json
import os
import re
import shutil
import statistics
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from tests.web.conftest import COPIES, DATED, MakeServer, Visit, Watched, WebServer, write_index
from tests.web.large import GALLERY

CATS = "two cats on a couch"
MARKUP = "<img src=x onerror=alert(1)>"
TOKEN = "a-token-of-the-tests"
NARROW = {"width": 360, "height": 740}
MOST_RECALL_MS = 600  # of a machine that is shared; 150 is wanted of one that is not


def tiles(page: Page) -> Any:
    return page.locator(".tile")


def first(page: Page) -> Any:
    return page.locator('.tile[aria-posinset="1"]')


def status(page: Page) -> Any:
    return page.locator("#status")


def search(page: Page, text: str) -> None:
    """Type a text, and wait until it is verified."""
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("verified in")


def asked(watched: Watched, path: str) -> list[dict[str, Any]]:
    """The bodies of the requests to a path, of those that are JSON."""
    posts = [one for one in watched.requests if urlsplit(one.url).path == path and one.post_data]
    return [json.loads(one.post_data or "") for one in posts if (one.post_data or "").startswith("{")]


def refuse(route: Route, code: int, word: str, **headers: str) -> None:
    body = json.dumps({"error": {"code": word, "message": "a message of the tests"}})
    route.fulfill(status=code, body=body, content_type="application/json", headers=headers)


def drop(page: Page, picture: Path, event: str = "drop", *, text: str | None = None, onto: str = "body") -> bool:
    """Drop a file on the page, or paste it, with a text beside it. Return whether the browser does its own part."""
    data = base64.b64encode(picture.read_bytes()).decode()
    is_left: bool = page.evaluate(
        """([data, event, text, onto]) => {
            const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
            const given = new DataTransfer();
            given.items.add(new File([bytes], "a.jpg", { type: "image/jpeg" }));
            if (text !== null) given.setData("text/plain", text);
            const made = event === "paste"
                ? new ClipboardEvent("paste", { clipboardData: given, bubbles: true, cancelable: true })
                : new DragEvent(event, { dataTransfer: given, bubbles: true, cancelable: true });
            return document.querySelector(onto).dispatchEvent(made);
        }""",
        [data, event, text, onto],
    )
    return is_left


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that gets the arguments of `xdg-open`, which is in a folder beside it."""
    folder = tmp_path_factory.mktemp("opener")
    (folder / "bin").mkdir()
    opener = folder / "bin" / "xdg-open"
    opener.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{folder / "opened"}"\n')
    opener.chmod(0o755)
    return folder / "opened"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures in a folder; markup is the name of the folder and of one of them."""
    photos = tmp_path_factory.mktemp("photos")
    (photos / MARKUP).mkdir()
    for name, picture in zip(("other", MARKUP), sorted(GALLERY.glob("*.jpg")), strict=False):
        shutil.copy(picture, photos / MARKUP / f"{name}.jpg")
    return photos


@pytest.fixture(scope="module")
def own(make_server: MakeServer, home: Path, photos: Path, opened: Path) -> WebServer:
    """A server of `photos` that opens folders."""
    write_index(photos.parent / "own-index", home, photos)
    environment = {"DISPLAY": ":99", "PATH": f"{opened.parent / 'bin'}:{os.environ['PATH']}"}
    return make_server(of=photos.parent / "own-index", environment=environment)


# Texts


def test_typing_recalls_and_a_pause_verifies(visit: Visit, watched: Watched) -> None:
    page = visit()
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#count")).to_contain_text("150 pictures")
    page.keyboard.type(CATS, delay=30)
    expect(status(page)).to_contain_text("20 pictures verified in")
    expect(first(page)).to_have_attribute("aria-label", re.compile("two-cats-on-a-couch.*match [6-9]"))
    assert [body.get("depth") for body in asked(watched, "/search")][-2:] == [0, None]
    expect(page.locator(".tile.open").first).to_contain_text("unverified")
    matches = page.evaluate("[...document.querySelectorAll('.tile:not(.open)')].map((one) => one.hit.match)")
    assert len(matches) > 5
    expect(first(page).locator("img.there")).to_be_visible()


def test_first_pictures_are_there_soon_after_the_last_key(visit: Visit, watched: Watched) -> None:
    page = visit()
    search(page, "a dog")
    took = []
    for text in ("one brown cat", "two small dogs", "a red kite", "an ant", "three crowns", "a bee", "two owls"):
        assert not [body for body in asked(watched, "/search") if body.get("text") == text]
        page.locator("#text").fill("")
        expect(tiles(page)).to_have_count(0)
        took.append(
            page.evaluate(
                """(text) => new Promise((resolve) => {
                    const box = document.getElementById("text"), began = performance.now();
                    box.value = text;
                    box.dispatchEvent(new InputEvent("input"));
                    const look = () => {
                        const image = document.querySelector(".tile img.there");
                        if (image !== null) image.decode().then(() => resolve(performance.now() - began));
                        else requestAnimationFrame(look);
                    };
                    look();
                })""",
                text,
            )
        )
    print(f"\nfrom the last key to the first pictures: {statistics.median(took):.0f} ms of {sorted(map(round, took))}")
    assert statistics.median(took) < MOST_RECALL_MS


def test_order_moves_as_pictures_are_verified(visit: Visit) -> None:
    page = visit()
    page.evaluate(
        """() => {
            window.moved = 0;
            document.addEventListener("transitionrun", (event) => event.target.matches?.(".tile") && window.moved++);
        }"""
    )
    search(page, CATS)
    assert page.evaluate("window.moved") > 0
    still = visit(reduced_motion="reduce")
    still.evaluate("document.addEventListener('transitionrun', () => (window.moved = true))")
    search(still, CATS)
    assert still.evaluate("window.moved") is None


def test_no_match_is_an_answer(visit: Visit) -> None:
    page = visit()
    search(page, "a penguin")
    expect(page.locator("#answer")).to_have_text(re.compile(r"^No picture is probably this: the best has \d+ %\.$"))
    assert tiles(page).count() > 10
    search(page, CATS)
    expect(page.locator("#answer")).to_be_hidden()


def test_back_and_reload(visit: Visit) -> None:
    page = visit()
    search(page, CATS)
    page.locator("#least").fill("40")
    page.locator("#since").fill("2024-05-02")
    expect(status(page)).to_contain_text("verified in")
    page.reload()
    expect(page.locator("#text")).to_have_value(CATS)
    expect(page.locator("#least")).to_have_value("40")
    expect(page.locator("#since")).to_have_value("2024-05-02")
    expect(status(page)).to_contain_text("verified in")
    page.locator("#clear").click()
    search(page, "a dog")
    page.go_back()
    expect(page.locator("#text")).to_have_value(CATS)
    expect(page.locator("#since")).to_have_value("")
    page.go_forward()
    expect(page.locator("#text")).to_have_value("a dog")


def test_texts_are_no_html(visit: Visit, own: WebServer) -> None:
    page = visit(at=own)
    page.on("dialog", lambda dialog: _fail(dialog))
    search(page, MARKUP)
    tile = page.locator(".tile", has_text=MARKUP)
    expect(tile).to_have_attribute("title", re.compile(re.escape(f"/{MARKUP}/{MARKUP}.jpg")))
    page.locator("#folders summary").click()
    page.locator("#tree button").first.click()
    expect(page.locator("#tree label", has_text=MARKUP)).to_be_visible()
    page.locator("#tree label", has_text=MARKUP).click()
    expect(page.locator("#chosen")).to_have_text(f": {MARKUP}")
    page.keyboard.press("Escape")
    expect(status(page)).to_contain_text("verified in")
    tile.click()
    expect(page.locator("#name")).to_have_text(f"{MARKUP}.jpg")
    expect(page.locator("#paths span")).to_contain_text(f"/{MARKUP}/{MARKUP}.jpg")
    page.keyboard.press("Escape")

    def noted(route: Route) -> None:
        word = {"mask": 0, "rank": 1, "token": MARKUP, "probability": 0.5, "images": [], "count": 0, "ids": []}
        route.fulfill(json={"words": [word], "best_match": 0.9, "skipped": [], "gone": 0, "notes": [MARKUP]})

    page.route("**/fill", noted)
    page.locator("#text").fill("a <mask>")
    page.keyboard.press("Enter")
    expect(page.locator(".word b")).to_have_text(MARKUP)
    expect(page.locator("#notes")).to_contain_text(MARKUP)
    assert page.locator("img[src=x]").count() == 0


def _fail(dialog: Dialog) -> None:
    raise AssertionError(dialog.message)


# Masks


def test_words_of_a_mask(visit: Visit) -> None:
    page = visit()
    page.locator("#text").fill("a <mask> looking out")
    page.keyboard.press("Enter")
    word = page.locator(".word").first
    expect(word).to_contain_text(re.compile(r"\w+ +\d+ %"))
    name = word.locator("b").inner_text()
    expect(page.locator("#grid")).to_be_hidden()
    word.click()
    expect(page.locator("#text")).to_have_value(f"a {name} looking out")
    expect(status(page)).to_contain_text("verified in")
    expect(page.locator("#facets")).to_be_hidden()
    page.go_back()
    expect(page.locator(".word").first).to_be_visible()


def test_counts_and_pictures_of_words(visit: Visit, server: WebServer) -> None:
    page = visit()
    search(page, "a cat")
    ids = page.evaluate("[...document.querySelectorAll('.tile')].slice(0, 2).map((tile) => tile.hit.id)")
    words = [
        {"mask": mask, "rank": 1, "token": token, "probability": 0.5, "images": ["/a", "/b"], "count": 7, "ids": ids}
        for mask, token in enumerate(("red", "cat"))
    ]
    answer = {"words": words, "best_match": 0.9, "skipped": [], "gone": 0, "in_cloud": 0, "notes": []}
    page.route("**/fill", lambda route: route.fulfill(json=answer))
    page.locator("#text").fill("a <mask> <mask> here")
    page.keyboard.press("Enter")
    expect(page.locator(".blank")).to_have_count(2)
    expect(page.locator(".word").first).to_contain_text("50 % · 7 pictures")
    expect(page.locator(".word").first.locator("img[src^=blob]")).to_have_count(2)
    page.locator(".word", has_text="cat").click()
    expect(page.locator("#text")).to_have_value("a <mask> cat here")


# Pictures


def expect_like(page: Page, picture: Path) -> None:
    """Expect the pictures that are like one of the index, which is not among them."""
    expect(status(page)).to_contain_text("none verified")
    expect(first(page)).to_be_visible()
    expect(page.locator(f'.tile[aria-label^="{picture.name}"]')).to_have_count(0)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_searched_by(visit: Visit, event: str, album: Path) -> None:
    page = visit()
    picture = sorted((album / "others").iterdir())[10]
    if event == "drop":
        drop(page, picture, "dragenter")
        expect(page.locator("#drop")).to_be_visible()
    drop(page, picture, event)
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.locator(".given img")).to_be_visible()
    expect_like(page, picture)
    page.locator("#text").fill("two cats")  # words refine it
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("verified in")
    page.locator(".given").click()
    expect(page.locator(".given")).to_have_count(0)
    expect(first(page)).to_have_attribute("aria-label", re.compile("^two-cats"))


def test_what_is_done_before_the_server_has_answered_stays(visit: Visit) -> None:
    page = visit("/healthz")
    held: list[Route] = []
    page.route("**/status", lambda route: held.append(route), times=1)
    page.goto(page.url.replace("/healthz", "/"))
    drop(page, min(GALLERY.glob("*.jpg")))
    expect(page.locator(".given")).to_have_count(1)
    page.wait_for_timeout(200)
    for route in held:
        route.continue_()
    expect(page.locator("#grid")).to_be_visible()
    expect(page.locator(".given")).to_have_count(1)


def test_a_file_that_is_chosen(visit: Visit) -> None:
    page = visit()
    picture = sorted(GALLERY.glob("*.jpg"))[20]
    page.locator("#file").set_input_files(picture)
    expect_like(page, picture)


def test_a_file_that_is_no_picture(visit: Visit, watched: Watched, tmp_path: Path) -> None:
    watched.may_be_refused = True
    page = visit()
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    page.locator("#file").set_input_files(tmp_path / "a.jpg")
    expect(status(page)).to_contain_text("This picture cannot be read: not a picture")
    expect(tiles(page)).to_have_count(0)
    expect(status(page)).to_have_class("trouble")


def test_another_picture_starts_at_the_top(visit: Visit, watched: Watched) -> None:
    page = visit()
    page.evaluate(
        """() => {
            const revoke = URL.revokeObjectURL;
            window.revoked = [];
            URL.revokeObjectURL = (url) => {
                window.revoked.push(url);
                revoke.call(URL, url);
            };
        }"""
    )
    for picture in sorted(GALLERY.glob("*.jpg"))[20:22]:
        drop(page, picture)
        expect_like(page, picture)
        assert page.evaluate("scrollY") == 0
        page.evaluate("scrollTo(0, 900)")
        page.wait_for_timeout(200)
    url = page.locator(".given img").get_attribute("src")
    assert url not in page.evaluate("window.revoked")
    page.locator(".given").dispatch_event("click")
    expect(page.locator(".given")).to_have_count(0)
    assert len([one for one in page.evaluate("window.revoked") if one == url]) == 1


@pytest.mark.parametrize("onto", ["#text", "body"])
def test_a_text_that_is_pasted_with_a_picture(visit: Visit, onto: str) -> None:
    page = visit()
    expect(page.locator("#count")).to_be_visible()
    is_left = drop(page, min(GALLERY.glob("*.jpg")), "paste", text="two cats", onto=onto)
    assert is_left == (onto == "#text")
    expect(page.locator(".given")).to_have_count(0 if onto == "#text" else 1)


def test_a_picture_that_is_wanted_again_at_once(visit: Visit) -> None:
    page = visit()
    search(page, CATS)
    got = page.evaluate(
        """async () => {
            const { picture } = await import("/page/pictures.js");
            const real = window.fetch;
            window.fetch = async (...given) => {
                await new Promise((resolve) => setTimeout(resolve, 300));
                return real(...given);
            };
            const id = [...document.querySelectorAll(".tile")].at(-1).hit.id;
            const away = picture(id, 500, () => {});
            await new Promise((resolve) => setTimeout(resolve, 100));
            away();
            return await new Promise((resolve) => {
                picture(id, 500, resolve);
                setTimeout(() => resolve("nothing"), 5000);
            });
        }"""
    )
    assert got.startswith("blob:")


# Filters


def test_folders(visit: Visit, album: Path) -> None:
    page = visit()
    search(page, "a dog")
    page.locator("#folders summary").click()
    page.locator(f'#tree input[value="{album / "cats"}"]').check()
    expect(page.locator("#chosen")).to_have_text(": cats")
    expect(status(page)).to_contain_text("verified in")
    expect(page.locator('.tile[title*="/others/"]')).to_have_count(0)
    assert tiles(page).count() > 5
    page.keyboard.press("Escape")
    expect(page.locator("#tree")).to_be_hidden()
    expect(page.locator("#folders summary")).to_be_focused()
    page.locator("#clear").click()
    expect(page.locator('.tile[title*="/others/"]').first).to_be_visible()


def test_folders_inside(visit: Visit) -> None:
    page = visit()

    def folders(route: Route) -> None:
        if "under=" not in route.request.url:
            given = [{"path": "/a", "name": "a", "files": 3}]
        else:
            given = [{"path": "/a/b", "name": "b", "files": 2}]
        route.fulfill(json={"under": None, "folders": given, "more": False})

    page.route("**/folders*", folders)
    page.locator("#folders summary").click()
    page.get_by_role("button", name="Folders in /a").click()
    expect(page.locator('#tree input[value="/a/b"]')).to_be_visible()
    expect(page.locator("#tree")).to_contain_text("2")


def test_a_folder_whose_name_is_no_utf_8(visit: Visit) -> None:
    page = visit()
    given = [{"path": f"/a/{name}", "name": name, "files": 2} for name in ("\udcff", "\U0001f600")]
    answer = json.dumps({"under": None, "folders": given, "more": False})
    page.route("**/folders*", lambda route: route.fulfill(body=answer, content_type="application/json"))
    page.locator("#folders summary").click()
    expect(page.locator("#tree input")).to_have_count(2)
    expect(page.locator("#tree input").first).to_be_disabled()
    expect(page.locator("#tree label").first).to_have_attribute("title", re.compile("not UTF-8"))
    expect(page.locator("#tree input").last).to_be_enabled()
    page.locator("#tree button").first.click()  # those inside can be seen
    expect(page.locator("#tree input")).to_have_count(4)


def test_dates(visit: Visit) -> None:
    page = visit()
    search(page, "cats")
    page.locator("#since").fill("2024-05-02")
    page.locator("#before").fill("2024-05-04")
    expect(status(page)).to_contain_text("2 pictures")
    expect(tiles(page)).to_have_count(2)
    page.locator("#since").fill("2020-01-01")
    page.locator("#before").fill("2020-02-01")
    expect(page.locator("#answer")).to_have_text("No picture passes these filters.")
    page.locator("#before").fill("2024-06-01")
    expect(tiles(page)).to_have_count(DATED)


def test_least_match(visit: Visit) -> None:
    page = visit()
    search(page, CATS)
    page.locator("#least").fill("50")
    expect(page.locator("#leastvalue")).to_have_text("50 %")
    expect(tiles(page)).to_have_count(1)
    expect(status(page)).to_contain_text("1 picture shown; hidden are 19 below 50 % and 130 unverified")
    page.locator("#least").fill("0")
    expect(status(page)).to_contain_text("150 pictures")


# The large view


def test_keyboard_alone(visit: Visit) -> None:
    page = visit()
    page.keyboard.type(CATS)
    expect(status(page)).to_contain_text("verified in")
    page.keyboard.press("ArrowDown")
    expect(first(page)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('.tile')].map((one) => one.where.split(',')[0])).size"
    )
    expect(page.locator(f'.tile[aria-posinset="{columns + 2}"]')).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    expect(dialog).to_be_visible()
    expect(page.locator("#place")).to_have_text(f"{columns + 2} of 150")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#place")).to_have_text(f"{columns} of 150")
    expect(page.locator("#large")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(f'.tile[aria-posinset="{columns}"]')).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator('.tile[aria-posinset="150"]')).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#start")).to_be_visible()


def test_all_is_reached_by_tab(visit: Visit) -> None:
    page = visit()
    search(page, CATS)
    reached: list[str] = []
    while not (reached and reached[-1].startswith("tile")):
        assert len(reached) < 25, reached
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if reached[-1] not in ("since", "before"):  # the browser shows the focus on a part of them
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
    assert {"file", "since", "before", "least"} <= set(reached)


def test_copies(visit: Visit) -> None:
    page = visit()
    search(page, "a cat")
    tile = page.locator(".tile", has_text=f"+{COPIES - 1}")
    while tile.count() == 0:
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(100)
    tile.click()
    expect(page.locator("#paths li")).to_have_count(COPIES)
    expect(page.locator("#facts")).to_contain_text("3 of the same content")


def test_facts_of_a_picture(visit: Visit, album: Path) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    search(page, "cats")
    page.locator("#since").fill("2024-05-02")
    page.locator("#before").fill("2024-05-03")
    expect(tiles(page)).to_have_count(1)
    tiles(page).click()
    expect(page.locator("#facts")).to_contain_text("2 May 2024, 12:30")
    expect(page.locator("#facts")).to_contain_text(re.compile(r"Match.* %.*Similarity0\.\d+.*\d+ × \d+ pixels"))
    path = page.locator("#paths span").inner_text()
    assert Path(path).parent == album / "cats"
    page.locator("#paths button").click()
    expect(page.locator("#said")).to_have_text("The path is copied.")
    assert page.evaluate("navigator.clipboard.readText()") == path
    href = page.locator("#original").get_attribute("href")
    assert page.evaluate("async (url) => (await (await fetch(url)).blob()).size", href) == Path(path).stat().st_size
    expect(page.locator("#reveal")).to_be_hidden()


def test_more_like_this(visit: Visit, watched: Watched) -> None:
    page = visit()
    search(page, "a dog")
    label = first(page).get_attribute("aria-label")
    first(page).click()
    page.locator("#like").click()
    expect(page.locator("dialog")).to_be_hidden()
    expect(page.locator(".given img")).to_be_visible()
    expect(page.locator("#text")).to_have_value("")
    expect(first(page)).to_have_attribute("aria-label", re.compile(f"^{re.escape((label or '').split(',')[0])}"))
    page.reload()
    expect(page.locator(".given")).to_have_count(1)


def test_back_closes_it(visit: Visit) -> None:
    page = visit()
    search(page, CATS)
    search(page, "a dog")
    first(page).click()
    expect(page.locator("dialog")).to_be_visible()
    page.go_back()
    expect(page.locator("dialog")).to_be_hidden()
    expect(page.locator("#text")).to_have_value(CATS)
    expect(first(page)).to_have_attribute("aria-label", re.compile("^two-cats"))


def test_it_acts_on_the_picture_that_is_shown(visit: Visit) -> None:
    page = visit()
    search(page, "a dog")
    first(page).click()
    shown = page.locator("#original").get_attribute("href") or ""
    page.evaluate(  # another list comes behind the view, without the picture
        """() => {
            document.getElementById("since").value = "2024-05-02";
            document.getElementById("before").value = "2024-05-04";
            document.getElementById("ask").requestSubmit();
        }"""
    )
    expect(tiles(page)).to_have_count(2)
    page.locator("#like").click()
    expect(page).to_have_url(re.compile(f"image={shown.removeprefix('/images/')}"))


def test_a_folder_is_opened(visit: Visit, own: WebServer, photos: Path, opened: Path) -> None:
    page = visit(at=own)
    search(page, "a cat")
    first(page).click()
    page.locator("#reveal").click()
    expect(page.locator("#said")).to_have_text("The folder is opened on this machine.")
    for _ in range(100):  # the server does not wait for the program
        if opened.exists():
            break
        page.wait_for_timeout(50)
    assert opened.read_text() == f"{photos / MARKUP}\n"


def test_the_answer_to_open_the_folder(visit: Visit, watched: Watched) -> None:
    page = visit("/healthz")
    page.route("**/status", lambda route: route.fulfill(json={**route.fetch().json(), "reveals": True}))
    page.route("**/reveal", lambda route: route.fulfill(status=204))
    page.goto(page.url.replace("/healthz", "/"))
    search(page, "a dog")
    first(page).click()
    page.locator("#reveal").click()
    expect(page.locator("#said")).to_have_text("The folder is opened on this machine.")
    [request] = [one for one in watched.requests if one.url.endswith("/reveal")]
    assert request.method == "POST" and re.search("/images/[0-9a-f]{64}/reveal$", request.url)


# States


def test_token(visit: Visit, make_server: MakeServer, watched: Watched, tmp_path: Path) -> None:
    watched.may_be_refused = True
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    page = visit(at=make_server("--token-file", str(tmp_path / "token")))
    page.locator("#key").fill("not-the-token-at-all")
    page.keyboard.press("Enter")
    expect(page.locator("#wrong")).to_be_visible()
    page.locator("#key").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#token")).to_be_hidden()
    search(page, CATS)
    expect(first(page).locator("img.there")).to_be_visible()
    assert TOKEN not in page.url
    first(page).click()
    expect(page.locator("#large")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#original").click()
    assert download.value.path().stat().st_size > 1000
    page.reload()  # the token is kept while the window is open
    expect(status(page)).to_contain_text("verified in")
    expect(page.locator("#token")).to_be_hidden()
    page.evaluate("(token) => sessionStorage.setItem('bt-token', token)", TOKEN.replace("-", "\N{EN DASH}"))
    page.reload()
    expect(page.locator("#wrong")).to_be_visible()
    page.locator("#key").fill(TOKEN.replace("-", "\N{EN DASH}"))
    page.keyboard.press("Enter")
    assert page.locator("#key").evaluate("(key) => key.matches(':invalid') && key.title") == (
        "16 to 512 letters, digits and signs of ASCII, without spaces"
    )
    page.locator("#key").fill(f"{TOKEN} ")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("verified in")


def test_a_server_that_is_lost(visit: Visit, make_server: MakeServer, watched: Watched) -> None:
    watched.may_be_refused = True
    own = make_server()
    page = visit(at=own)
    search(page, CATS)
    own.stop()
    page.locator("#text").fill("a dog")
    expect(status(page)).to_contain_text("The server does not answer: asking again in 2 s")
    assert tiles(page).count() > 0  # those of before stay
    own.start()
    expect(status(page)).to_contain_text("verified in", timeout=60_000)
    expect(first(page)).to_have_attribute("aria-label", re.compile("dog"))


def test_a_busy_server(visit: Visit, watched: Watched) -> None:
    watched.may_be_refused = True
    page = visit()
    # Twice, as on a slow machine the page may have asked before Enter is pressed.
    page.route("**/search", lambda route: refuse(route, 429, "busy", **{"Retry-After": "2"}), times=2)
    page.locator("#text").fill(CATS)
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text("The server is busy: asking again in 2 s.")
    expect(status(page)).to_contain_text("verified in")


def test_names_that_are_no_utf_8_are_asked_for(visit: Visit) -> None:
    page = visit()
    written = page.evaluate("import('/page/words.js').then((words) => words.inUrl('/ä/\\udcff \\u{1f600}'))")
    assert written == "%2F%C3%A4%2F%ff%20%F0%9F%98%80"


def test_a_model_that_sleeps(visit: Visit) -> None:
    page = visit()
    page.route("**/status", lambda route: route.fulfill(json={**route.fetch().json(), "awake": False}))
    held: list[Route] = []
    page.route("**/search", lambda route: held.append(route), times=1)
    page.locator("#text").fill(CATS)
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("The model is being read")
    page.wait_for_timeout(300)
    expect(status(page)).to_contain_text("The model is being read")  # until it answers
    for route in held:
        route.continue_()
    expect(status(page)).to_contain_text("verified in")


def test_a_model_without_the_head(visit: Visit, watched: Watched) -> None:
    watched.may_be_refused = True
    page = visit()

    def search_only(route: Route) -> None:
        if json.loads(route.request.post_data or "{}").get("depth") == 0:
            route.continue_()
        else:
            refuse(route, 422, "no_head")

    page.route("**/search", search_only)
    page.locator("#text").fill(CATS)
    page.keyboard.press("Enter")
    expect(page.locator("#notes")).to_contain_text("The model has no matching head")
    expect(first(page)).to_contain_text("unverified")
    page.unroute("**/search")  # the server is started again, with another model
    page.route("**/search", lambda route: refuse(route, 503, "draining", **{"Retry-After": "1"}))
    page.locator("#text").fill("a dog")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("asking again in 1 s")
    page.unroute("**/search")
    expect(status(page)).to_contain_text("verified in")
    expect(page.locator("#notes")).not_to_contain_text("no matching head")


def test_notes_of_the_server(visit: Visit) -> None:
    page = visit()
    search(page, CATS)
    expect(page.locator("#notes")).to_contain_text("The demo model knows drawn scenes only")


def test_dates_that_leave_nothing(visit: Visit, watched: Watched) -> None:
    watched.may_be_refused = True
    page = visit("/#text=cats&since=2024-05-02&before=2024-05-01")
    expect(status(page)).to_have_class("trouble")
    expect(tiles(page)).to_have_count(0)
    page.locator("#since").fill("2024-05-01")
    page.locator("#before").fill("2024-05-03")
    expect(tiles(page)).to_have_count(2)
    expect(status(page)).not_to_have_class("trouble")


def test_an_index_that_is_away(
    visit: Visit, make_server: MakeServer, home: Path, watched: Watched, tmp_path: Path
) -> None:
    watched.may_be_refused = True
    (tmp_path / "photos").mkdir()
    write_index(tmp_path / "index", home, tmp_path / "photos")
    server = make_server(of=tmp_path / "index")
    shutil.move(server.index, tmp_path / "away")
    page = visit(at=server)
    expect(page.locator("#lack")).to_have_text("There is no index in the folder that is served: its disk may be away")


def test_a_slash_is_no_word(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("9/10")
    expect(page.locator("#text")).to_have_value("9/10")


def test_an_empty_index(visit: Visit, make_server: MakeServer, home: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write_index(tmp_path / "index", home, tmp_path / "photos")
    server = make_server(of=tmp_path / "index")
    page = visit(at=server)
    expect(page.locator("#empty")).to_contain_text("There are no pictures in the index yet")
    expect(page.locator("#empty")).to_contain_text("bt index ~/Pictures")
    page.locator("#text").fill("a dog")
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text("")
    expect(page.locator("#empty")).to_be_visible()
    other = visit(at=server)
    expect(other.locator("#empty")).to_be_visible()
    shutil.copy(min(GALLERY.glob("*.jpg")), tmp_path / "photos")
    write_index(server.index, home, tmp_path / "photos")
    expect(first(page)).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()
    expect(other.locator("#count")).to_have_text("1 picture")
    expect(other.locator("#empty")).to_be_hidden()


def test_without_the_page(visit: Visit, make_server: MakeServer, watched: Watched) -> None:
    watched.may_be_refused = True
    page = visit(at=make_server("--no-page"))
    assert "not_found" in page.content()


def test_a_link_of_another_site(visit: Visit, server: WebServer, watched: Watched) -> None:
    page = visit()
    link = f'<a href="{server.url}/#text=cats">cats</a>'
    page.route("http://elsewhere.example/", lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto("http://elsewhere.example/")
    page.locator("a").click()
    expect(page.locator("#text")).to_have_value("cats")
    expect(status(page)).to_contain_text("verified in")
    assert watched.elsewhere == ["http://elsewhere.example/"]
    watched.elsewhere.clear()


# Windows


def test_a_narrow_window(visit: Visit) -> None:
    page = visit(viewport=NARROW)
    search(page, CATS)
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    assert (
        page.evaluate("new Set([...document.querySelectorAll('.tile')].map((one) => one.where.split(',')[0])).size")
        == 2
    )
    first(page).click()
    expect(page.locator("#large")).to_be_visible()
    box = page.locator("#like").bounding_box()
    assert box is not None and box["x"] + box["width"] <= NARROW["width"]


def test_a_cursor_that_has_gone(visit: Visit, watched: Watched) -> None:
    watched.may_be_refused = True
    page = visit(viewport={"width": 1280, "height": 300})
    said = []
    page.expose_function("heard", lambda line: said.append(line))
    page.evaluate(
        """new MutationObserver(() => window.heard(document.getElementById("status").textContent))
            .observe(document.getElementById("status"), { childList: true, characterData: true, subtree: true })"""
    )
    gone: list[dict[str, Any]] = []

    def shorter(route: Route) -> None:
        body = json.loads(route.request.post_data or "{}")
        if "cursor" in body and not gone:
            gone.append(body)
            refuse(route, 410, "unknown_cursor")
        else:
            route.continue_(post_data=json.dumps({**body, "top": 40} if "top" in body else body))

    page.route("**/search", shorter)
    page.locator("#text").fill(CATS)
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("first")
    tiles(page).first.focus()
    for _ in range(4):
        page.keyboard.press("End")
        page.wait_for_timeout(500)
    expect(status(page)).to_contain_text(re.compile(r"\. 150 pictures"))
    assert gone and any("expired" in line for line in said)
