"""Pictures of the index by HTTP: their files, their thumbnails, and the figures of the server."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from bridgetower.serving.http.config import Config
from bridgetower.serving.thumbnails.store import Thumbnails, side_of
from tests.fakes import COLOURS
from tests.unit.serving.http_server import TOKEN, Server, colours_served, names, refused, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with colours_served(tmp_path_factory.mktemp("http")) as server:
        yield server


def test_image_by_id(server: Server) -> None:
    red = server.ids["red"]
    answer = server.client.get(f"/images/{red}")
    assert answer.content == (server.photos / "red.png").read_bytes()
    assert answer.headers["content-type"] == "image/png" and "immutable" in answer.headers["cache-control"]
    known = server.client.get(f"/images/{red}", headers={"If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304 and not known.content
    refused(server.client.get(f"/images/{'0' * 64}"), 404, "not_found")
    for name in ("red.png", red.upper(), "..%2f..%2fetc%2fpasswd"):
        assert server.client.get(f"/images/{name}").status_code in (404, 422)


def test_heads_are_those_of_the_answers(server: Server) -> None:
    red = server.ids["red"]
    for path in (f"/images/{red}", f"/thumbs/{red}?w=100"):
        whole, head = server.client.get(path), server.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == whole.headers and int(head.headers["content-length"]) == len(whole.content)
        assert server.client.head(path, headers={"If-None-Match": head.headers["etag"]}).status_code == 304
    assert server.client.head(f"/images/{red}", headers={"Range": "bytes=0-1"}).status_code == 200
    for path in (f"/images/{'0' * 64}", f"/thumbs/{'0' * 64}"):
        assert server.client.head(path).status_code == 404
    assert set(server.client.delete(f"/images/{red}").headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("Bytes = 5 - 9", 5, 9),
        ("bytes=10-", 10, None),
        ("bytes=-7", -7, None),
        ("bytes=-99999999", 0, None),
        ("bytes=3-99999999", 3, None),
    ],
)
def test_range_of_an_image(server: Server, given: str, first: int, last: int | None) -> None:
    red = server.ids["red"]
    content = (server.photos / "red.png").read_bytes()
    first = first % len(content)
    last = len(content) - 1 if last is None else last
    answer = server.client.get(f"/images/{red}", headers={"Range": given})
    assert (answer.status_code, answer.content) == (206, content[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
    assert answer.headers["content-length"] == str(last - first + 1)
    assert answer.headers["content-type"] == "image/png" and answer.headers["etag"] == f'"{red}"'


@pytest.mark.parametrize(
    "given",
    [
        "",
        "bytes=",
        "bytes=-",
        "bytes=9-5",
        "bytes=a-b",
        "bytes=0-1,4-5",
        "lines=0-1",
        "bytes=+1-2",
        f"bytes={'9' * 5000}-",
    ],
)
def test_what_is_no_single_range_gets_the_image(server: Server, given: str) -> None:
    answer = server.client.get(f"/images/{server.ids['red']}", headers={"Range": given})
    assert (answer.status_code, answer.content) == (200, (server.photos / "red.png").read_bytes())
    assert answer.headers["accept-ranges"] == "bytes" and "content-range" not in answer.headers


def test_range_that_an_image_does_not_have(server: Server) -> None:
    red = server.ids["red"]
    size = (server.photos / "red.png").stat().st_size
    for given in (f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=-0"):
        answer = server.client.get(f"/images/{red}", headers={"Range": given})
        assert str(size) in refused(answer, 416, "no_such_range")
        assert answer.headers["content-range"] == f"bytes */{size}" and answer.headers["cache-control"] == "no-store"


def test_range_of_a_file_of_which_the_client_has_a_part(server: Server) -> None:
    red, part = server.ids["red"], {"Range": "bytes=1-2"}
    for given, status in (
        (f'"{red}"', 206),
        (f'W/"{red}"', 200),
        ('"another"', 200),
        ("Sun, 01 Jan 2023 00:00:00 GMT", 200),
    ):
        answer = server.client.get(f"/images/{red}", headers={**part, "If-Range": given})
        assert answer.status_code == status
    known = server.client.get(f"/images/{red}", headers={**part, "If-None-Match": f'"{red}"'})
    assert known.status_code == 304


# Folders on the desktop


@pytest.fixture
def opened_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A desktop whose file manager writes down its arguments; returns those of the newest call, once they are there."""
    told = tmp_path / "told"
    for name in ("xdg-open", "open"):
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{told}.part'; mv '{told}.part' '{told}'\n")
        program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=os.pathsep)
    monkeypatch.setenv("DISPLAY", ":0")

    def wait() -> list[str]:
        until = time.monotonic() + 20
        while not told.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        lines = told.read_text(errors="surrogateescape").splitlines()
        told.unlink()
        return lines

    return wait


@pytest.mark.skipif(os.name == "nt", reason="the file manager of the test is a script of POSIX")
def test_reveal(server: Server, opened_folders: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    red = server.ids["red"]
    for platform, shown in (("linux", [str(server.photos)]), ("darwin", ["-R", str(server.photos / "red.png")])):
        monkeypatch.setattr(sys, "platform", platform)
        assert server.client.get("/status").json()["reveals"] is True
        answer = server.client.post(f"/images/{red}/reveal")
        assert (answer.status_code, answer.content) == (204, b"")
        assert opened_folders() == shown
    refused(server.client.post(f"/images/{'0' * 64}/reveal"), 404, "not_found")
    assert server.client.post("/images/..%2f..%2fetc/reveal").status_code in (404, 422)
    path = f"/images/{red}/reveal"
    refused(server.client.post(path, headers={"Sec-Fetch-Site": "cross-site"}), 403, "cross_origin")
    refused(server.client.post(path, headers={"Origin": "null"}), 403, "cross_origin")
    assert server.client.get(path).status_code == 405


@pytest.mark.skipif(os.name == "nt", reason="the file manager of the test is a script of POSIX")
def test_reveal_in_a_folder_of_an_odd_name(
    server: Server, opened_folders: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    folder = server.photos / f"a; touch $(echo {tmp_path.name}) & 'b' \"c\" %41 é"
    folder.mkdir()
    Image.new("RGB", (50, 40), (9, 8, 7)).save(folder / "a.png")
    server.engine.colours.index([server.photos])
    try:
        id = sha256((folder / "a.png").read_bytes()).hexdigest()
        assert server.client.post(f"/images/{id}/reveal").status_code == 204
        assert opened_folders() == [str(folder)]
    finally:
        (folder / "a.png").unlink()
        folder.rmdir()
        server.engine.colours.index([server.photos])


@pytest.mark.skipif(os.name == "nt", reason="the file manager of the test is a script of POSIX")
@pytest.mark.usefixtures("opened_folders")
def test_reveal_by_a_program_that_does_not_start(server: Server, tmp_path: Path) -> None:
    for name in ("xdg-open", "open"):
        (tmp_path / "programs" / name).write_text("#!/no/such/shell\n")
    path = f"/images/{server.ids['red']}/reveal"
    assert "copy the path" in refused(server.client.post(path), 403, "not_local")


@pytest.mark.skipif(os.name == "nt", reason="the file manager of the test is a script of POSIX")
def test_reveal_of_a_file_that_has_changed(server: Server, opened_folders: Callable[[], list[str]]) -> None:
    white = server.photos / "white.png"
    before = white.read_bytes()
    try:
        white.write_bytes(b"another")
        refused(server.client.post(f"/images/{server.ids['white']}/reveal"), 404, "not_found")
    finally:
        white.write_bytes(before)


@pytest.mark.usefixtures("opened_folders")
@pytest.mark.parametrize(
    ("config", "client"),
    [
        (Config(), "192.0.2.7"),
        (Config(), "testclient"),
        (Config(names=("photos.example",)), "127.0.0.1"),
        (Config(allow_origins=("https://a.example",)), "127.0.0.1"),
        (Config("0.0.0.0", token=TOKEN), "127.0.0.1"),
    ],
)
def test_reveal_is_for_this_machine_alone(server: Server, config: Config, client: str) -> None:
    headers = {} if config.token is None else {"Authorization": f"Bearer {config.token}"}
    with serving(server.engine, config, client=client) as asking:
        assert asking.get("/status", headers=headers).json()["reveals"] is False
        refused(asking.post(f"/images/{server.ids['red']}/reveal", headers=headers), 403, "not_local")


@pytest.mark.usefixtures("opened_folders")
@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"])
def test_reveal_is_not_for_clients_of_a_proxy(
    server: Server, opened_folders: Callable[[], list[str]], header: str
) -> None:
    passed_on = {header: "198.51.100.7"}
    assert server.client.get("/status", headers=passed_on).json()["reveals"] is False
    refused(server.client.post(f"/images/{server.ids['red']}/reveal", headers=passed_on), 403, "not_local")
    assert server.client.post(f"/images/{server.ids['red']}/reveal").status_code == 204
    opened_folders()


@pytest.mark.parametrize("lacking", ["DISPLAY", "PATH"])
def test_reveal_needs_a_desktop(server: Server, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv(lacking, "")
    assert server.client.get("/status").json()["reveals"] is False
    refused(server.client.post(f"/images/{server.ids['red']}/reveal"), 403, "not_local")
    if lacking == "DISPLAY":
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
        assert server.client.get("/status").json()["reveals"] is True


def test_image_whose_file_has_changed(server: Server, tmp_path: Path) -> None:
    white, secret = server.photos / "white.png", tmp_path / "secret"
    before = white.read_bytes()
    secret.write_text("a secret")
    try:
        white.unlink()
        refused(server.client.get(f"/images/{server.ids['white']}"), 404, "not_found")
        white.symlink_to(secret)
        refused(server.client.get(f"/images/{server.ids['white']}"), 404, "not_found")
        answer = server.client.post("/search", json={"images": [{"id": server.ids["white"]}]})
        refused(answer, 404, "not_found")
    finally:
        white.unlink()
        white.write_bytes(before)


def test_picture_whose_first_file_has_changed(server: Server) -> None:
    first, copy = server.photos / "a.png", server.photos / "b.png"
    Image.new("RGB", (50, 40), (1, 2, 3)).save(first)
    content, id = first.read_bytes(), sha256(first.read_bytes()).hexdigest()
    copy.write_bytes(content)
    server.engine.colours.index([server.photos])
    try:
        first.write_bytes((server.photos / "red.png").read_bytes())
        assert server.client.get(f"/images/{id}").content == content
        assert opened(server.client.get(f"/thumbs/{id}").content).size == (50, 40)
        assert names(server.client.post("/search", json={"images": [{"id": id}]}))
        copy.unlink()
        refused(server.client.get(f"/images/{id}"), 404, "not_found")
    finally:
        first.unlink()
        copy.unlink(missing_ok=True)
        server.engine.colours.index([server.photos])


# Thumbnails


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


def test_thumbnail(server: Server) -> None:
    red = server.ids["red"]
    answer = server.client.get(f"/thumbs/{red}?w=20")
    image = opened(answer.content)
    assert (image.format, image.size) == ("JPEG", (40, 32))  # never enlarged
    assert answer.headers["content-type"] == "image/jpeg" and "immutable" in answer.headers["cache-control"]
    assert np.abs(np.asarray(image)[16, 20].astype(int) - COLOURS["red"]).max() < 15
    known = server.client.get(f"/thumbs/{red}?w=100", headers={"If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304  # the two widths share a file
    refused(server.client.get(f"/thumbs/{'0' * 64}"), 404, "not_found")
    for wide in ("15", "2049", "x", "-1"):
        refused(server.client.get(f"/thumbs/{red}?w={wide}"), 422, "invalid")


def test_thumbnail_is_upright_small_and_kept(server: Server, tmp_path: Path) -> None:
    turned = Image.new("RGB", (1000, 400), "red")
    turned.paste("blue", (0, 0, 500, 400))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    exif[0x010E] = "a secret place"
    path = server.photos / "turned.jpg"
    turned.save(path, exif=exif)
    server.engine.colours.index([server.photos])
    [hit] = server.client.post("/search", json={"text": "red", "under": [str(path)]}).json()["hits"]
    first = server.client.get(f"/thumbs/{hit['id']}?w=200").content
    image = opened(first).convert("RGB")
    assert image.size == (102, 256) and b"secret" not in first
    rgb = np.asarray(image)
    assert rgb[20, 51, 2] > 200 and rgb[230, 51, 0] > 200  # blue above red
    path.unlink()
    assert server.client.get(f"/thumbs/{hit['id']}?w=256").content == first  # though the file is away
    refused(server.client.get(f"/thumbs/{hit['id']}?w=500"), 404, "not_found")
    server.engine.colours.index([server.photos])
    refused(server.client.get(f"/thumbs/{hit['id']}?w=256"), 404, "not_found")  # the index has it no longer


def test_sides() -> None:
    assert [side_of(wanted) for wanted in (16, 128, 129, 1025, 2048)] == [128, 128, 256, 2048, 2048]


@pytest.fixture
def thumbnails(tmp_path: Path) -> Iterator[Thumbnails]:
    thumbnails = Thumbnails(tmp_path / "thumbnails", most_bytes=3000)
    yield thumbnails
    thumbnails.close()


def noise(seed: int) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def never() -> bytes:
    raise AssertionError("it is kept")


def test_least_recently_used_thumbnails_go(thumbnails: Thumbnails, tmp_path: Path) -> None:
    def files() -> set[str]:
        return {file.name[:1] for file in (tmp_path / "thumbnails").rglob("*.jpg")}

    ids = [digit * 64 for digit in "0123456789"]
    for place, id in enumerate(ids):
        assert len(thumbnails.get(id, 128, lambda place=place: noise(place + 1), Path("a"))) > 500  # type: ignore[misc]
        for file in (tmp_path / "thumbnails").rglob(f"{id}*"):
            os.utime(file, (place, place) if id[0] != "0" else None)  # the first one is in use
    sizes = [file.stat().st_size for file in (tmp_path / "thumbnails").rglob("*.jpg")]
    assert sum(sizes) <= 3000 and "0" in files() and "9" in files() and "1" not in files()
    assert thumbnails.get(ids[0], 128, never, Path("a"))


def test_servers_share_the_room_of_thumbnails(tmp_path: Path) -> None:
    both = [Thumbnails(tmp_path / "thumbnails", most_bytes=40_000) for _ in range(2)]
    for place in range(64):
        both[place % 2].get(f"{place:064x}"[::-1], 128, lambda place=place: noise(place), Path("a"))  # type: ignore[misc]
    sizes = [file.stat().st_size for file in (tmp_path / "thumbnails").rglob("*.jpg")]
    assert len(sizes) < 64 and sum(sizes) <= 44_000
    for one in both:
        one.close()


@pytest.mark.skipif(os.name == "nt", reason="modes of folders are of POSIX")
def test_folders_of_thumbnails_are_private(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "cache" / "thumbnails")
    thumbnails.get("0" * 64, 128, lambda: noise(1), Path("a"))
    folders = [tmp_path / "cache" / "thumbnails", *(tmp_path / "cache" / "thumbnails").rglob("*/")]
    assert [folder.stat().st_mode & 0o777 for folder in folders if folder.is_dir()] == [0o700] * 3
    thumbnails.close()


def test_thumbnails_without_a_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    thumbnails = Thumbnails(tmp_path / "file")
    assert opened(thumbnails.get("0" * 64, 128, lambda: noise(1), Path("a"))).size == (32, 24)
    thumbnails.close()


# Figures


def test_figures(server: Server) -> None:
    def figures() -> dict[tuple[str, ...], float]:
        answer = server.client.get("/metrics")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.text)
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    server.client.get("/healthz")
    before = figures()
    names(server.client.get("/search?text=red"))
    refused(server.client.get("/search"), 422, "invalid")
    refused(server.client.request("SECRET", "/no"), 404, "not_found")
    after = figures()

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("bt_http_requests_total", "GET", "/search", "200") == 1
    assert more("bt_http_requests_total", "GET", "/search", "422") == 1
    assert more("bt_http_requests_total", "other", "other", "404") == 1
    assert more("bt_http_requests_total", "GET", "/metrics", "200") == 1
    assert more("bt_http_request_seconds_count", "/search") == 2
    assert more("bt_stage_seconds_count", "recall") == more("bt_stage_seconds_count", "verify") == 1
    assert after["bt_queue_running",] == 0 and "secret" not in str(after).lower()
