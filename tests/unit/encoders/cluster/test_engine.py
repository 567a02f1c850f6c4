"""The engine and the part of it that runs on workers, in this process: no Ray."""

from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from pickle import PicklingError
from typing import ClassVar, Self

import numpy as np
import pytest

from bridgetower import EngineChoice, Library, Model, ModelError, PictureError, Progress, UsageError
from bridgetower.encoders.cluster import ray_engine
from bridgetower.encoders.cluster.actor import CheckpointLoader, Loaded, NotLoaded, Worker
from bridgetower.encoders.cluster.batches import Done, Lost, Sent
from bridgetower.encoders.cluster.messages import Failed, Start, messages, write
from bridgetower.encoders.cluster.ray_engine import RayEngine, authentication
from bridgetower.encoders.protocol import Embedded
from bridgetower.files.captions.captioned import Captioned
from bridgetower.models import model as models
from bridgetower.pictures.decode_pool import DecodePool, Square
from bridgetower.records import FileContent, Refused, Say, quiet
from bridgetower.retrieval.evaluation import evaluate
from tests.fakes import DecodePoolHere, FakeEncoder, paint

STEPS = 40
_RayPool = ray_engine._RayPool  # the one with a process


class Workers:
    """Two workers that answer in this process; the second is always first."""

    left: ClassVar[list["Workers"]] = []  # those whose run is over

    def __init__(self, start: Start, say: Say) -> None:
        self.size = 2
        self._start = start
        self._batches: deque[tuple[int, Sequence[Sent]]] = deque()

    def __enter__(self) -> Self:
        self._workers = [Worker("cpu", 1, self._start.max_pixels) for _ in range(self.size)]
        for place, worker in enumerate(self._workers):
            assert isinstance(worker.load(self._start.load, f"{worker.host()}-{place}"), Loaded)
        return self

    def __exit__(self, *raised: object) -> None:
        self.left.append(self)

    def submit(self, ticket: int, batch: Sequence[Sent]) -> None:
        self._batches.append((ticket, batch))

    def wait(self) -> list[Done | Lost]:
        ticket, batch = self._batches.pop()
        return [Done(ticket, self._workers[ticket % 2].embed(batch))]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_RayPool", Workers)
    monkeypatch.setattr(Workers, "left", [])
    for module in ("encoders.local_engine", "encoders.cluster.ray_engine", "encoders.cluster.actor"):
        monkeypatch.setattr(f"bridgetower.{module}.DecodePool", HerePool)


class HerePool(DecodePoolHere):
    def square(self, content: bytes) -> Square | Refused:
        found = self.decode(content)
        if isinstance(found, Refused):
            return found
        spec = self._preprocessing
        scaled = (found.pixels * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]) * 255
        rgb = np.rint(scaled).astype(np.uint8).transpose(1, 2, 0).tobytes()
        return Square(found.width, found.height, found.taken_at, found.since, rgb)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for step in range(STEPS):
        paint(tmp_path / "photos" / f"r{step}.png", (6 * step, 252 - 6 * step, 0))
    (tmp_path / "photos" / "r5.bad.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def load(device: str) -> FakeEncoder:
    return FakeEncoder()


def engine(**options: object) -> RayEngine:
    fake = FakeEncoder()
    return RayEngine(fake.preprocessing, 4, load, fake.fingerprint, **options)  # type: ignore[arg-type]


def rows(directory: Path) -> list[tuple[object, ...]]:
    with Library(directory) as library:
        skipped = [(skip.path, skip.reason) for skip in library.skipped()]
        with library._readers.lend() as store:
            return [*store.catalog.entries(), *skipped]


@pytest.mark.parametrize("shared_paths", [False, True])
def test_an_index_equals_that_of_this_process(photos: Path, tmp_path: Path, shared_paths: bool) -> None:
    told: list[Progress] = []
    fake = FakeEncoder()
    with Library(tmp_path / "far", Model.from_parts(fake, engine=engine(shared_paths=shared_paths))) as library:
        report = library.index([photos], on_progress=told.append)
    with Library(tmp_path / "local", Model.from_parts(fake)) as library:
        library.index([photos])
    assert rows(tmp_path / "far") == rows(tmp_path / "local")
    assert len(rows(tmp_path / "local")) == STEPS + 1
    assert report.encoded == sum(told[-1].workers.values()) == STEPS
    assert len(told[-1].workers) == 2
    assert told[0].workers == {}


def contents(photos: Path) -> Iterator[FileContent]:
    for path in sorted(photos.glob("r?.png")):
        data = path.read_bytes()
        yield FileContent(data, path, sha256(data).digest())


def test_a_file_that_has_changed_since_it_was_read_is_tried_again_by_the_next_run(photos: Path) -> None:
    given = [*contents(photos)]
    paint(given[1].path, "blue")
    given[2].path.unlink()
    said: list[str] = []
    results = [*engine(shared_paths=True, say=said.append).embed(given)]
    changed, absent = results[1:3]
    assert changed == Refused("it was changed while it was read", lasting=False)
    assert absent == Refused("no such file", lasting=False)
    assert all(isinstance(result, Embedded) for result in (results[0], *results[3:]))
    [line] = said  # for each worker one
    assert line.endswith("it has another content there")


def test_a_worker_whose_file_is_another_one_gets_the_content(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [*contents(photos)]
    monkeypatch.setattr("bridgetower.encoders.cluster.actor.read", lambda path: b"another file of that name")
    results = [*engine(shared_paths=True).embed(given)]
    expected = [*engine().embed(given)]
    vectors = [
        [found.vector.tobytes() for found in some if isinstance(found, Embedded)] for some in (results, expected)
    ]
    assert vectors[0] == vectors[1] and len(vectors[0]) == len(given)


def test_pixels_that_are_sent_lose_nothing(photos: Path) -> None:
    spec = FakeEncoder().preprocessing
    with DecodePool(spec) as pool:
        for content in contents(photos):
            square, picture = pool.square(content.data), pool.decode(content.data)
            assert isinstance(square, Square) and not isinstance(picture, Refused)
            assert np.array_equal(square.normalised(spec).pixels, picture.pixels)
            assert len(square.rgb) * 4 == picture.pixels.nbytes
        assert pool.square(b"no picture") == pool.decode(b"no picture")


def test_a_model_that_is_not_there_is_an_answer_of_the_worker(tmp_path: Path) -> None:
    found = Worker("cpu", 1, None).load(CheckpointLoader(str(tmp_path / "absent"), "fp32", "hf"), "node-1")
    assert isinstance(found, NotLoaded) and isinstance(found.error, ModelError) and "absent" in str(found.error)


def test_an_engine_evaluates(photos: Path) -> None:
    fake = FakeEncoder()
    captioned = [
        Captioned(path, ("red" if step else "green",)) for step, path in enumerate(sorted(photos.glob("r?.png")))
    ]
    told: list[tuple[int, int]] = []
    [alone] = evaluate(fake, None, captioned, depths=())
    [far] = evaluate(fake, None, captioned, depths=(), engine=engine(), on_progress=lambda *at: told.append(at))
    assert far == alone
    assert told == [(step + 1, 10) for step in range(10)]
    captioned[3] = Captioned(photos / "r5.bad.png", ("red",))
    with pytest.raises(PictureError, match=r"r5\.bad\.png: "):
        list(evaluate(fake, None, captioned, depths=(), engine=engine()))


def test_an_evaluation_that_fails_has_left_the_cluster(photos: Path) -> None:
    captioned = [Captioned(path, ("red",)) for path in sorted(photos.glob("r?.png"))]

    def broken(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as told:
        list(evaluate(FakeEncoder(), None, captioned, depths=(), engine=engine(), on_progress=broken))
    assert len(Workers.left) == 1, f"not closed, and held by {told.tb}"
    captioned[3] = Captioned(photos / "r5.bad.png", ("red",))
    with pytest.raises(PictureError) as refused:
        list(evaluate(FakeEncoder(), None, captioned, depths=(), engine=engine()))
    assert len(Workers.left) == 2, f"not closed, and held by {refused.tb}"


def test_an_indexing_that_fails_has_left_the_cluster(photos: Path, tmp_path: Path) -> None:
    def broken(progress: Progress) -> None:
        if progress.encoded:
            raise ZeroDivisionError

    with Library(tmp_path / "far", Model.from_parts(FakeEncoder(), engine=engine())) as library:
        with pytest.raises(ZeroDivisionError) as told:
            library.index([photos], on_progress=broken)
        assert len(Workers.left) == 1, f"not closed, and held by {told.tb}"


def test_a_token_of_the_user_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert authentication() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    assert authentication() == {"RAY_AUTH_MODE": "token"}
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert authentication() == {"RAY_AUTH_MODE": "token"}


def test_an_engine_that_cannot_be_sent_leaves_no_process() -> None:
    fake = FakeEncoder()
    pool = _RayPool(Start(None, lambda device: fake, fake.fingerprint, "cpu", None, None, 1.0), quiet)
    with pytest.raises((AttributeError, PicklingError)), pool:
        pass
    assert pool._driver.poll() is not None


def test_messages_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "messages"
    sent = [Done(1, [Refused("no", lasting=True)]), Failed(ModelError("another model"))]
    with open(file, "wb") as to:
        for message in sent:
            write(message, to)
        to.write(b"\x80")  # the process died as it wrote
    with open(file, "rb") as source:
        done, failed = messages(source)
    assert done == sent[0]
    assert isinstance(failed.error, ModelError) and str(failed.error) == "another model"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Ray",
        "ray:",
        "ray://",
        "ray://host",
        "ray://host:port",
        "host:10001",
        "ray://a:1/",
        "ray://a:0",
        "ray://a:99999",
    ],
)
def test_an_engine_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"an engine is local, ray, or ray://HOST:PORT|a port is from 1 to 65535"):
        EngineChoice(name)


@pytest.mark.parametrize(
    ("name", "address"), [("ray", None), ("ray://a.b-c:1", "ray://a.b-c:1"), ("ray://[::1]:1", "ray://[::1]:1")]
)
def test_an_engine_is_named(name: str, address: str | None) -> None:
    choice = EngineChoice(name, 2, shared_paths=True)
    assert choice.is_ray and choice.address == address


def test_what_does_not_go_together_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="shared paths are for the workers of a cluster"):
        EngineChoice(shared_paths=True)
    with pytest.raises(UsageError, match="0 workers"):
        EngineChoice("ray", 0)
    with pytest.raises(UsageError, match="an engine is given by its name"):
        Library(tmp_path / "index", engine=3)  # type: ignore[arg-type]
    monkeypatch.setattr(models, "find_spec", lambda name: object())
    fake = Model.from_parts(FakeEncoder())
    with pytest.raises(UsageError, match="a model that is ready has its engine"):
        Library(tmp_path / "index", fake, engine="ray")
    with Library(tmp_path / "index", "demo", engine="ray") as library, pytest.raises(UsageError, match="no features"):
        library.index([tmp_path], keep_features=1000)


def test_a_missing_extra_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^--engine ray needs the extra ray: .*pip install .*\[ray\]"):
        Library(tmp_path / "index", engine="ray")
