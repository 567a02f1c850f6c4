"""The page for people: its files as the server sends them, without a browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridgetower.serving.http.config import Config
from bridgetower_cli.commands.serve import Http
from tests.unit.serving.http_server import TOKEN, Server, colours_served, refused, serving

PAGE = Path(__file__).parents[3] / "core" / "bridgetower" / "serving" / "http" / "page"
FILES = sorted(file.name for file in PAGE.iterdir())
MOST_BYTES = 100_000
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with colours_served(tmp_path_factory.mktemp("page")) as server:
        yield server


def test_document(server: Server) -> None:
    answer = server.client.get("/")
    assert answer.status_code == 200 and answer.content == (PAGE / "index.html").read_bytes()
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:"} <= set(policy)
    assert {"connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in str(policy)


@pytest.mark.parametrize("name", FILES)
def test_files(server: Server, name: str) -> None:
    answer = server.client.get(f"/page/{name}")
    assert answer.status_code == 200 and answer.content == (PAGE / name).read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == TYPES[Path(name).suffix]
    assert answer.headers["cache-control"] == "no-cache"
    known = server.client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304 and known.content == b""


@pytest.mark.parametrize("name", ["no.js", "..%2fapp.py", "%2e%2e%2fapp.py", "INDEX.HTML"])
def test_no_other_file(server: Server, name: str) -> None:
    refused(server.client.get(f"/page/{name}"), 404, "not_found")


def test_token_is_for_the_pictures_not_for_the_page(server: Server) -> None:
    with serving(server.engine, Config(token=TOKEN)) as client:
        assert client.get("/").status_code == 200
        for name in FILES:
            assert client.get(f"/page/{name}").status_code == 200
        for path in ("/status", "/search?text=red", f"/thumbs/{server.ids['red']}", "/page/no.js"):
            refused(client.get(path), 401, "no_token")


LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_of_another_site_opens_it(server: Server, site: str) -> None:
    given = {**LINK, "Sec-Fetch-Site": site}
    answer = server.client.get("/", headers=given)
    assert answer.status_code == 200 and answer.content == (PAGE / "index.html").read_bytes()
    head = server.client.head("/", headers=given)
    assert head.status_code == 200 and head.content == b""
    assert head.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Mode": None},
        {"Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Dest": "object"},
        {"Sec-Fetch-Dest": None},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_cannot_show_it(server: Server, changed: dict[str, str | None]) -> None:
    given = {name: value for name, value in {**LINK, **changed}.items() if value is not None}
    refused(server.client.get("/", headers=given), 403, "cross_origin")


def test_a_link_of_another_site_opens_nothing_else(server: Server) -> None:
    for path in ("/page/index.html", "/page/main.js", "/status", f"/images/{server.ids['red']}"):
        refused(server.client.get(path, headers=LINK), 403, "cross_origin")
    refused(server.client.post("/", headers=LINK), 403, "cross_origin")
    with serving(server.engine, Config(page=False)) as client:
        refused(client.get("/", headers=LINK), 403, "cross_origin")


def test_without_the_page(server: Server) -> None:
    with serving(server.engine, Config(page=False)) as client:
        for path in ("/", "/page/main.js"):
            refused(client.get(path), 404, "not_found")
    with serving(server.engine, Config(page=False, token=TOKEN)) as client:
        refused(client.get("/"), 401, "no_token")


def test_the_option_reaches_a_server_in_the_background() -> None:
    assert "--no-page" in Http(page=False).options() and "--no-page" not in Http().options()
    config = Http(page=False).config()
    assert config is not None and not config.page


def test_it_is_no_part_of_the_document_for_programs(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/page")]


def test_it_is_small_and_names_no_other_site() -> None:
    assert sum((PAGE / name).stat().st_size for name in FILES) <= MOST_BYTES
    for name in FILES:
        urls = re.findall(r"https?://[^\s'\"`)]+", (PAGE / name).read_text("utf-8"))
        assert set(urls) <= {"http://www.w3.org/2000/svg"}, name


def test_every_file_that_is_imported_is_there() -> None:
    for name in FILES:
        for path in re.findall(r"[\"']/page/([^\"']+)[\"']", (PAGE / name).read_text("utf-8")):
            assert path in FILES, f"{name} names {path}"
