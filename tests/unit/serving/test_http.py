"""The HTTP server, driven in process: refusals, limits, the routes and their forms."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from bridgetower import Hit, Model
from bridgetower.errors import ModelError, StoreError, UnreachableStoreError, UsageError
from bridgetower.records import Head
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.http import bodies
from bridgetower.serving.http.config import Config
from bridgetower.serving.http.routes import state
from bridgetower.serving.places import places
from bridgetower.serving.request_queue import RequestQueue
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.unit.serving.http_server import TOKEN, Server, colours_served, data_url, names, png, refused, serving

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with colours_served(tmp_path_factory.mktemp("http")) as server:
        yield server


# Who may ask


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "a b", ""])
def test_another_host_is_misdirected(server: Server, host: str) -> None:
    refused(server.client.get("/healthz", headers={"Host": host}), 421, "misdirected")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8765"])
def test_own_names_are_answered(server: Server, host: str) -> None:
    assert server.client.get("/healthz", headers={"Host": host}).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_pages_of_other_sites_are_refused(server: Server, headers: dict[str, str]) -> None:
    refused(server.client.post("/search", json={"text": "red"}, headers=headers), 403, "cross_origin")


def test_own_page_may_ask(server: Server) -> None:
    headers = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert names(server.client.post("/search", json={"text": "red"}, headers=headers))[0] == "red"


def test_own_page_behind_a_proxy_with_tls(server: Server) -> None:
    with serving(server.engine, Config(names=("photos.example",))) as client:
        for host in ("photos.example", "photos.example:8443"):
            headers = {"Host": host, "Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"}
            assert names(client.post("/search", json={"text": "red"}, headers=headers))[0] == "red"
        for origin in ("https://photos.example:1", "https://evil.example", "https://127.0.0.1:8765"):
            headers = {"Host": "photos.example", "Origin": origin}
            refused(client.post("/search", json={"text": "red"}, headers=headers), 403, "cross_origin")


def test_token_and_origins(server: Server) -> None:
    config = Config("0.0.0.0", token=TOKEN, names=("photos.example",), allow_origins=("https://a.example",))
    with serving(server.engine, config) as client:
        assert client.get("/healthz", headers={"Host": "photos.example"}).status_code == 200
        for given in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"):
            answer = client.get("/status", headers={b"Authorization": given.encode("latin-1")})
            refused(answer, 401, "no_token")
            assert answer.headers["www-authenticate"].startswith("Bearer") and TOKEN not in answer.text
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/status", headers=bearer).status_code == 200
        page = {"Origin": "https://a.example", "Sec-Fetch-Site": "cross-site"}
        assert (
            client.get("/status", headers=bearer | page).headers["access-control-allow-origin"] == "https://a.example"
        )
        preflight = client.options("/search", headers=page | {"Access-Control-Request-Method": "POST"})
        allowed = set(preflight.headers["access-control-allow-headers"].split(", "))
        assert preflight.status_code == 204 and {"Authorization", "If-Range", "Range"} <= allowed
        exposed = client.get("/status", headers=bearer | page).headers["access-control-expose-headers"]
        assert set(exposed.split(", ")) == {"Content-Range", "ETag", "Retry-After"}
        other = client.options(
            "/search", headers={"Origin": "https://b.example", "Access-Control-Request-Method": "GET"}
        )
        refused(other, 403, "cross_origin")


@pytest.mark.parametrize(
    "given",
    [
        {"host": "0.0.0.0"},
        {"host": "192.168.1.2"},
        {"token": "short"},
        {"token": "with spaces in it, and long"},
        {"names": ("http://a",)},
        {"allow_origins": ("*",)},
    ],
)
def test_config_that_is_not_safe(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Config(**given)
    assert TOKEN not in repr(Config(token=TOKEN))


def test_headers_of_every_answer(server: Server) -> None:
    for answer in (
        server.client.get("/healthz"),
        server.client.get("/no"),
        server.client.get("/", headers={"Host": "x"}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


# One form of error


def test_unknown_paths_and_methods(server: Server) -> None:
    refused(server.client.get("/no"), 404, "not_found")
    refused(server.client.get("/docs"), 404, "not_found")
    refused(server.client.get("/search/"), 404, "not_found")
    answer = server.client.delete("/search")
    refused(answer, 405, "method_not_allowed")
    assert "allow" in answer.headers


def test_defect_tells_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(server.engine, "pages", broken)
    monkeypatch.setattr(server.engine, "summary", broken)
    for answer in (server.client.get("/search?text=red"), server.client.get("/status")):
        assert "secret" not in refused(answer, 500, "defect")
        assert answer.headers["x-frame-options"] == "DENY"
    assert "a secret" in caplog.text


def test_fault_of_the_index_names_no_folder(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StoreError("/home/me/index cannot be read")

    monkeypatch.setattr(server.engine, "pages", broken)
    answer = server.client.get("/search?text=red")
    assert "/home" not in refused(answer, 503, "index") and answer.headers["retry-after"] == "60"


def test_model_without_a_head_is_not_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEncoder(frozenset({Head.ITC}))
    monkeypatch.setattr(server.engine, "fake", Model.from_parts(fake, fake))
    answer = server.client.post("/fill", json={"text": "a <mask>", "images": [{"data": data_url(png())}]})
    refused(answer, 422, "no_head")
    assert "retry-after" not in answer.headers

    def absent() -> None:
        raise ModelError("/home/me/model is not there")

    monkeypatch.setattr(server.engine, "_model", absent)
    answer = server.client.post("/fill", json={"text": "a <mask>", "images": [{"data": data_url(png())}]})
    assert "/home" not in refused(answer, 503, "model") and answer.headers["retry-after"] == "60"


def test_a_database_that_is_away_is_no_fault_of_the_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object, **options: object) -> None:
        raise UnreachableStoreError("postgresql://db.example:5432/photos", "refused")

    monkeypatch.setattr("bridgetower.index.vectors.faiss.store.FaissView.scored", away)
    answer = server.client.get("/search?text=red")
    assert "db.example" not in refused(answer, 503, "store") and answer.headers["retry-after"] == "5"
    assert server.client.get("/search?text=red&exact=true").status_code == 200


def test_no_index(tmp_path: Path) -> None:
    engine = Engine(Options(tmp_path / "none"))
    with serving(engine) as client:
        assert client.get("/status").json()["index"] is None
        refused(client.get("/search?text=red"), 503, "no_index")
        refused(client.get(f"/images/{'0' * 64}"), 503, "no_index")
    engine.close()


def test_full_queue_and_draining(server: Server) -> None:
    queue = RequestQueue(running=1, waiting=0)
    with serving(server.engine, queue=queue) as client:
        from threading import Event

        go = Event()
        running = queue.submit(go.wait)
        for headers in ({}, STREAM):
            answer = client.get("/search?text=red", headers=headers)
            refused(answer, 429, "busy")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/status").json()["queue"] == {"running": 1, "waiting": 0, "refused": 2}
        go.set()
        running.result(10)
        queue.drain()
        answer = client.get("/search?text=red")
        refused(answer, 503, "draining")
        assert answer.headers["retry-after"] == "5"


# Limits


def test_large_heads(server: Server) -> None:
    refused(server.client.get("/healthz", headers={"X": "x" * 33_000}), 431, "too_large")
    refused(server.client.get(f"/search?text={'x' * 33_000}"), 431, "too_large")


def test_too_large_bodies(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_BODY", 10_000)
    refused(server.client.post("/search", json={"text": "a" * 10_001}), 413, "too_large")
    pieces = (b"x" * 1_000 for _ in range(20))  # without a Content-Length
    headers = {"Content-Type": "application/json"}
    refused(server.client.post("/search", content=pieces, headers=headers), 413, "too_large")
    refused(server.client.post("/search", files={"image": bytes(11_000)}), 413, "too_large")


def test_too_large_picture(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_PICTURE", 50)
    refused(server.client.post("/search", files={"image": png()}), 413, "too_large")
    refused(server.client.post("/search", json={"images": [{"data": data_url(png())}]}), 413, "too_large")


def test_all_bodies_share_a_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_ROOM", 100)
    answer = server.client.post("/search", json={"text": "a" * 101})
    refused(answer, 429, "busy")
    assert answer.headers["retry-after"] == "5"
    assert names(server.client.post("/search", json={"text": "red"}))  # the room of the refused body is free again


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "nothing to search for"),
        ({"text": "red", "no": 1}, "there is no field 'no'"),
        ({"text": "a" * 10_001}, "text"),
        ({"text": 1}, "text"),
        ({"text": "red", "top": 0}, "top"),
        ({"text": "red", "top": 1_001}, "top"),
        ({"text": "red", "top": "5"}, "top"),
        ({"text": "red", "top": True}, "top"),
        ({"text": "red", "depth": -1}, "depth"),
        ({"text": "red", "min_match": 1.5}, "min_match"),
        ({"text": "red", "since": "soon"}, "soon"),
        ({"text": "red", "under": ["photos"]}, "absolute"),
        ({"text": "red", "under": ["~/photos"]}, "home"),
        ({"text": "red", "under": ["../*"]}, "home"),
        ({"images": [{}]}, "an id, or data"),
        ({"images": [{"id": "../../etc/passwd"}]}, "id"),
        ({"images": [{"path": "/etc/passwd"}]}, "there is no field 'path'"),
        ({"images": [{"data": "http://127.0.0.1/"}]}, "no other URL is opened"),
        ({"images": [{"data": "data:image/png;base64,%%%%"}]}, "no base64"),
        ({"images": [{"data": data_url(b"no picture")}]}, "image 0"),
        ({"images": [{"data": data_url(png()[:60])}]}, "image 0"),
        ({"cursor": "x", "text": "red"}, "alone"),
    ],
)
def test_unusable_fields(server: Server, fields: dict[str, Any], word: str) -> None:
    message = refused(
        server.client.post("/search", json=fields),
        422,
        "unreadable_picture" if word == "image 0" else "invalid",
    )
    assert word in message and "/tmp" not in message


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_request"),
        (b"\xff", "application/json", 400, "bad_request"),
        (b'{"text": NaN}', "application/json", 400, "bad_request"),
        (b"[" * 100_000, "application/json", 400, "bad_request"),
        (b"[1]", "application/json", 422, "invalid"),
        (b"text=red", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"text=red", "", 415, "unsupported_media_type"),
        (b"--x\r\nno form", "multipart/form-data; boundary=x", 400, "bad_request"),
        (b"", "multipart/form-data", 400, "bad_request"),
    ],
)
def test_bodies_that_cannot_be_read(server: Server, content: bytes, kind: str, status: int, code: str) -> None:
    refused(server.client.post("/search", content=content, headers={"Content-Type": kind}), status, code)


def test_damaged_uploads(server: Server) -> None:
    for content in (b"", b"GIF89a", png()[:50], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        refused(server.client.post("/search", files={"image": ("a.png", content)}), 422, "unreadable_picture")


def test_too_many_pixels(server: Server) -> None:
    file = BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    refused(server.client.post("/search", files={"image": file.getvalue()}), 413, "too_many_pixels")


def test_too_many_pairs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"texts": ["a"] * 100, "images": [{"id": server.ids["red"]}] * 11}
    assert "1000 pairs" in refused(server.client.post("/match", json=fields), 422, "invalid")


# The routes


def test_search_in_each_form(server: Server) -> None:
    red = server.ids["red"]
    answers = [
        server.client.get("/search", params={"text": "red", "top": 2}),
        server.client.get("/search", params={"image": red, "top": 2, "keep_self": True}),
        server.client.post("/search", json={"text": "red", "top": 2}),
        server.client.post("/search", json={"images": [{"id": red}], "top": 2, "keep_self": True}),
        server.client.post("/search", json={"images": [{"data": data_url(png())}], "top": 2, "keep_self": True}),
        server.client.post("/search", data={"top": "2", "keep_self": "1"}, files={"image": ("../x.png", png())}),
        server.client.post("/search", data={"top": "2", "text": "red", "keep_self": "1"}, files={"image": png()}),
    ]
    for answer in answers:
        assert len(names(answer)) == 2 and names(answer)[0] == "red"
    [hit, _] = answers[2].json()["hits"]
    assert hit["id"] == red and hit["rank"] == 1 and hit["verified"] and 0.5 < hit["match"] <= 1
    assert hit["paths"] == [str(server.photos / "red.png")] and (hit["width"], hit["height"]) == (40, 32)


def test_several_texts_weights_and_what_must_not_be_true(server: Server) -> None:
    asked: dict[str, Any] = {"text": ["red", "white"], "not": ["red", "blue"], "weights": [9, 1]}
    answers = [
        server.client.post("/search", json=asked),
        server.client.get("/search", params=asked),
        server.client.post("/search", files=[(name, (None, str(one))) for name, some in asked.items() for one in some]),
    ]
    for answer in answers:
        found = answer.json()
        assert set(names(answer)[-2:]) == {"red", "blue"} and found["ruled_out"] == 2
        [red] = [hit for hit in found["hits"] if hit["id"] == server.ids["red"]]
        assert red["ruled_out"] and red["match"] == min(red["matches"]) and red["against"][0] == red["matches"][0]
        assert [len(hit["against"]) for hit in found["hits"]] == [2] * len(COLOURS)
        assert found == answers[0].json()
    kept = server.client.post("/search", json={"text": "red", "not": ["red"], "min_match": 0.5})
    assert names(kept) == []
    for wrong in ({"text": "red", "not": ["a"] * 11}, {"text": ["a"] * 11}, {"text": "red", "weights": [1, 2]}):
        refused(server.client.post("/search", json=wrong), 422, "invalid")
    assert "there is no field 'without'" in refused(
        server.client.post("/search", json={"text": "red", "without": ["a"]}), 422, "invalid"
    )


def test_a_given_picture_is_no_hit_of_its_own(server: Server) -> None:
    for image in ({"id": server.ids["red"]}, {"data": data_url(png())}):
        assert set(names(server.client.post("/search", json={"images": [image]}))) == {*COLOURS} - {"red"}


def test_pictures_of_one_view_are_one_hit(tmp_path: Path, decode_here: None) -> None:
    with colours_served(tmp_path) as server:
        larger = paint(server.photos / "larger.png", "red", (80, 64))
        server.engine.colours.index([server.photos])
        first, second = server.client.get("/search", params={"text": "red", "top": 2}).json()["hits"]
        assert {first["path"], second["path"]} == {str(larger), str(server.photos / "red.png")}
        assert (first["like"], second["like"]) == ([], [])
        for answer in (
            server.client.get("/search", params={"text": "red", "top": 2, "unique": True}),
            server.client.post("/search", json={"text": "red", "top": 2, "unique": True}),
        ):
            one, other = answer.json()["hits"]
            assert (one["path"], one["like"]) == (first["path"], [second["path"]])
            assert (other["rank"], other["like"]) == (2, [])
        following = server.client.post("/search", json={"cursor": answer.json()["cursor"]}).json()["hits"]
        assert [hit["rank"] for hit in following] == [3, 4]
        assert {second["path"]}.isdisjoint(hit["path"] for hit in following)


def test_places_of_the_index(server: Server) -> None:
    def found(**places: list[str]) -> set[str]:
        return set(names(server.client.post("/search", json={"text": "red", **places})))

    photos = str(server.photos)
    assert found(under=[photos]) == set(COLOURS)
    assert found(under=[f"{photos}/red.png"]) == {"red"}
    assert found(under=["*.png"], not_under=[f"{photos}/b*"]) == set(COLOURS) - {"blue"}
    assert found(under=["/etc"]) == set()


def test_places_ask_no_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("stat", "lstat", "getcwd", "readlink", "scandir"):
        monkeypatch.setattr(f"os.{name}", asked)
    given = ["/etc/a b ", "/a\\b", "/", "/a/../b", "**/c*", "/[ab]"]
    assert [place.glob for place in places(given)] == ["/etc/a b\\ ", "/a\\\\b", "/*", "/b", "**/**/c*", "/[ab]"]
    assert all(place.path is None for place in places(given))
    with pytest.raises(UsageError):
        places(["/a[\0]"])


def events(answer: Any) -> list[tuple[str, Any]]:
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_stream(server: Server) -> None:
    answer = server.client.post("/search", json={"text": "red", "top": 2}, headers=STREAM)
    told = events(answer)
    (first, *middle, last), _ = zip(*told, strict=True)
    assert (first, set(middle), last) == ("recalled", {"verified"}, "result")
    assert told[0][1]["hits"][0]["match"] is None
    assert told[-1][1]["hits"] == server.client.get("/search?text=red&top=2").json()["hits"]
    refused(server.client.post("/search", json={"top": 2}, headers=STREAM), 422, "invalid")


def test_stream_that_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: object, on_hits: Callable[[tuple[Hit, ...]], object], **_: object) -> Iterator[Any]:
        on_hits(())
        raise RuntimeError("a secret")
        yield

    monkeypatch.setattr(server.engine, "pages", broken)
    answer = server.client.get("/search?text=red", headers=STREAM)
    name, told = events(answer)[-1]
    assert (name, told["error"]["code"]) == ("error", "defect") and "secret" not in answer.text


def test_pages_by_cursor(server: Server) -> None:
    first = server.client.post("/search", json={"text": "red", "top": 3, "depth": 1})
    cursor = first.json()["cursor"]
    second = server.client.get("/search", params={"cursor": cursor})
    assert sorted(names(first) + names(second)) == sorted(COLOURS)
    assert [hit["rank"] for hit in second.json()["hits"]] == [4] and second.json()["cursor"] is None
    assert server.client.post("/search", json={"cursor": cursor}).json() == second.json()  # sent again
    refused(server.client.get("/search?cursor=unknown"), 410, "unknown_cursor")
    refused(server.client.get("/search?cursor=unknown", headers=STREAM), 410, "unknown_cursor")


def test_all_pages_come_from_one_state_of_the_index(tmp_path: Path) -> None:
    with colours_served(tmp_path) as server:
        fields = {"images": [{"data": data_url(png())}], "text": "red", "top": 1, "depth": 1, "keep_self": True}
        first = server.client.post("/search", json=fields).json()
        server.engine.colours.forget([server.photos / "blue.png", server.photos / "green.png"])
        found, cursor = [first["hits"][0]["path"]], first["cursor"]
        while cursor is not None:
            page = server.client.post("/search", json={"cursor": cursor}).json()
            found += [hit["path"] for hit in page["hits"]]
            cursor = page["cursor"]
        assert sorted(Path(path).stem for path in found) == sorted(COLOURS)
        assert sorted(names(server.client.get("/search?text=red"))) == ["red", "white"]


def test_sleep_ends_the_searches_that_wait_for_a_page(tmp_path: Path) -> None:
    with colours_served(tmp_path) as server:
        cursor = server.client.get("/search?text=red&top=1").json()["cursor"]
        assert cursor is not None and server.engine.sleep()
        refused(server.client.get("/search", params={"cursor": cursor}), 410, "unknown_cursor")


def test_match(server: Server) -> None:
    fields = {"texts": ["red", "blue"], "images": [{"id": server.ids["blue"]}, {"data": data_url(png())}]}
    scores = server.client.post("/match", json=fields).json()["scores"]
    assert [(one["image"], one["text"]) for one in scores] == [
        (server.ids["blue"], "red"), (server.ids["blue"], "blue"), (1, "red"), (1, "blue"),
    ]  # fmt: skip
    assert [one["match"] > 0.5 for one in scores] == [False, True, True, False]
    form = server.client.post("/match", data={"texts": ["red", "blue"]}, files={"image": png()})
    assert [one["match"] > 0.5 for one in form.json()["scores"]] == [True, False]
    refused(server.client.post("/match", json={"texts": ["red"]}), 422, "invalid")


def test_fill(server: Server) -> None:
    fields = {"text": "a <mask> picture", "images": [{"data": data_url(png("green"))}], "top": 1}
    [word] = server.client.post("/fill", json=fields).json()["words"]
    assert (word["token"], word["mask"], word["rank"], word["images"]) == ("green", 0, 1, [0])
    assert (word["count"], word["ids"]) == (1, [])
    refused(server.client.post("/fill", json={**fields, "text": "none"}), 422, "invalid")
    refused(server.client.post("/fill", json={**fields, "depth": 3}), 422, "invalid")


def test_fill_from_the_index_names_its_pictures(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.engine, "_warmed", lambda: SimpleNamespace(library=server.engine.colours))
    answer = server.client.post("/fill", json={"text": "a green <mask>", "top": 2}).json()
    first, second = answer["words"]
    assert (first["token"], first["ids"][0]) == ("green", server.ids["green"])
    names = [server.ids[Path(path).stem] for path in first["images"]]
    assert first["ids"] == names and first["count"] == second["count"] == 1


def test_status(server: Server) -> None:
    told = server.client.get("/status").json()
    assert told["index"]["pictures"] == len(COLOURS) and told["index"]["roots"] == [str(server.photos)]
    assert told["awake"] is False and told["queue"]["running"] == 0


def test_folders(server: Server) -> None:
    def told(answer: Any) -> list[tuple[str, str, int]]:
        assert answer.status_code == 200 and answer.json()["more"] is False
        return [(one["path"], one["name"], one["files"]) for one in answer.json()["folders"]]

    photos = server.photos
    names = [b"new", b"100%41_a+b&c", "\xe9".encode(), *([] if sys.platform == "darwin" else [b"\xff"])]
    folders = sorted(photos / os.fsdecode(name) for name in names)
    for folder in folders:
        folder.mkdir()
        shutil.copy(photos / "red.png", folder)
    server.engine.colours.index([photos])
    try:
        count = len(COLOURS) + len(folders)
        assert told(server.client.get("/folders")) == [(str(photos), photos.name, count)]
        answer = server.client.get("/folders", params={"under": str(photos)})
        below = [(str(folder), folder.name, 1) for folder in sorted(folders, key=os.fsencode)]
        assert told(answer) == below and answer.json()["under"] == str(photos)
        for folder in folders:  # as bytes: not each name is UTF-8
            answer = server.client.get("/folders?under=" + quote(os.fsencode(folder)))
            assert told(answer) == [] and answer.json()["under"] == str(folder)
        assert told(server.client.get("/folders?under=" + quote(os.fsencode(photos) + b"/new/..//"))) == below
        assert told(server.client.get("/folders?under=/nowhere")) == []
        for under in ("", "photos", "~", "/a%00b", "/" + "a" * 4096):
            refused(server.client.get(f"/folders?under={under}"), 422, "invalid")
    finally:
        for folder in folders:
            shutil.rmtree(folder)
        server.engine.colours.index([photos])


def test_more_folders_than_an_answer_has(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MOST_FOLDERS", 0)
    assert server.client.get("/folders").json() == {"under": None, "folders": [], "more": True}
    monkeypatch.setattr(state, "MOST_FOLDERS", 1)
    assert server.client.get("/folders").json()["more"] is False


def test_document_has_every_status(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    assert {name.rpartition("/")[2] for name in text.split('"') if name.startswith("#/components/")} <= set(schemas)
    found = {
        f"{method} {path}": set(route["responses"])
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    }
    done = {"post /images/{id}/reveal": "204"}
    assert all(done.get(route, "200") in statuses for route, statuses in found.items())
    assert all({"401", "403", "405", "421", "500", "503"} <= statuses for statuses in found.values())
    asked = {"400", "404", "408", "413", "415", "422", "429"}
    for route in ("get /search", "post /search", "post /match", "post /fill"):
        assert asked <= found[route]
    assert "410" in found["post /search"] and {"206", "304", "404", "413", "416", "422"} <= found["get /images/{id}"]
    assert "HTTPValidationError" not in text


def test_page_names_every_route_field_and_status(server: Server) -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    document = server.client.get("/openapi.json").json()
    routes = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    named = {route.partition("?")[0] for route in re.findall(r"`((?:GET|HEAD|POST) /[^`]*)`", page)}
    assert named == routes | {"GET /", "GET /openapi.json"}
    fields = set(document["components"]["schemas"]["SearchFields"]["properties"])
    table = page.partition("| field | is |")[2].partition("\n\n")[0]
    assert {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])} == fields
    statuses = {status for path in document["paths"].values() for verb in path.values() for status in verb["responses"]}
    table = page.partition("| status | when |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| (\d+) ", table, re.MULTILINE)) == statuses - {"200", "204", "206", "304", "405", "500"}
