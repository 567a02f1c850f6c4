"""Pictures of the index by HTTP: their files, their thumbnails, and the figures of the server."""

import os
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from bridgetower.serving.thumbnails.store import Thumbnails, side_of
from tests.fakes import COLOURS
from tests.unit.serving.http_server import Server, colours_served, names, refused


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
