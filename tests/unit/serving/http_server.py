"""An HTTP server in process, for the tests of `bridgetower.serving.http`: its model sees colours alone."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from bridgetower import Library, Model
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.http.app import create_app
from bridgetower.serving.http.config import Config
from bridgetower.serving.request_queue import RequestQueue
from tests.fakes import COLOURS, FakeEncoder, paint

TOKEN = "a-token-of-the-tests"


class FakeEngine(Engine):
    """An engine over an index of colours, whose model sees colours alone."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Options(directory))
        fake = FakeEncoder()
        self.fake = Model.from_parts(fake, fake)
        self.colours = Library(directory, self.fake)

    def _model(self) -> Model:
        return self.fake

    def _library_for(self, request: Any) -> Library:
        self._refresh()
        return self.colours

    def close(self) -> None:
        self.colours.close()
        super().close()


@dataclass
class Server:
    engine: FakeEngine
    queue: RequestQueue
    client: TestClient
    photos: Path
    ids: dict[str, str] = field(default_factory=dict)


@contextmanager
def serving(
    engine: Engine, config: Config | None = None, queue: RequestQueue | None = None, client: str = "127.0.0.1"
) -> Iterator[TestClient]:
    """`client` is the address that asks."""
    queue = queue or RequestQueue(running=2, waiting=2)
    app = create_app(engine, queue, config or Config())
    with TestClient(app, base_url="http://127.0.0.1:8765", client=(client, 50_000)) as asking:
        yield asking
    queue.drain()
    assert queue.wait(10)


@contextmanager
def colours_served(folder: Path, config: Config | None = None) -> Iterator[Server]:
    """A server of pictures of one colour each, in a new index."""
    photos = folder / "photos"
    files = {name: paint(photos / f"{name}.png", name) for name in COLOURS}
    engine = FakeEngine(folder / "index")
    engine.colours.index([photos])
    queue = RequestQueue(running=2, waiting=2)
    with serving(engine, config or Config(thumbnails=folder / "thumbnails"), queue=queue) as client:
        ids = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        yield Server(engine, queue, client, photos, ids)
    engine.close()


def png(colour: str = "red", size: tuple[int, int] = (40, 32)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def refused(answer: Any, status: int, code: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert set(error) == {"code", "message"} and error["code"] == code
    message: str = error["message"]
    return message


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [Path(hit["path"]).stem for hit in answer.json()["hits"]]
