"""`bt index --watch`: a real process, told by what it says on stderr and by what the index holds."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from tests.fakes import FakeEncoder, paint

ROOT = Path(__file__).parents[2]
WATCH = """
from types import SimpleNamespace
import bridgetower.encoders.torch_encoder, bridgetower.files.watch, bridgetower.checkpoints.find
from tests.fakes import FakeEncoder

fake = FakeEncoder()
bridgetower.files.watch.QUIET_S, bridgetower.files.watch.LOOK_S = 0.2, 0.3
checkpoint = SimpleNamespace(name="fake", heads=fake.heads, preprocessing=fake.preprocessing)
checkpoint.with_preprocessing = lambda name: checkpoint
bridgetower.checkpoints.find.resolve = lambda name, **options: checkpoint
bridgetower.encoders.torch_encoder.fingerprint_of = lambda checkpoint, precision: fake.fingerprint
bridgetower.encoders.torch_encoder.TorchEncoder = lambda checkpoint, runtime, **options: fake
from bridgetower_cli.app import main
main()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class Watching:
    """`bt index --watch` at work."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.index, self.log = folder / "index", folder / "log"
        command = [sys.executable, "-c", WATCH, "index", folder / "photos", "--watch", "--index", self.index, *options]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "core")])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command], env={**os.environ, "PYTHONPATH": paths}, stderr=log
            )

    def said(self) -> str:
        return self.log.read_text()

    def holds(self, number: int) -> bool:
        with IndexReader.open(self.index) as store:
            return store.summary().files == number

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    begun: list[Watching] = []

    def begin(*options: object, folder: Path = tmp_path) -> Watching:
        paint(folder / "photos" / "a.png", "red")
        begun.append(Watching(folder, *options))
        begun[-1].until(lambda: "watching 1 path" in begun[-1].said())
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()


def test_it_follows_what_is_added_changed_and_deleted_until_it_is_stopped(
    watching: Callable[..., Watching], tmp_path: Path
) -> None:
    bt, photos = watching(), tmp_path / "photos"
    assert "indexed 1, reused 0, unchanged 0" in bt.said()

    paint(photos / "new" / "b.png", "green")  # in a folder that was not there
    bt.until(lambda: bt.said().count("indexed 1, reused 0, removed 0, skipped 0") == 1)
    paint(photos / "a.png", "blue", size=(50, 50))
    bt.until(lambda: bt.said().count("indexed 1, reused 0, removed 0, skipped 0") == 2)
    (photos / "new" / "b.png").unlink()
    bt.until(lambda: "indexed 0, reused 0, removed 1, skipped 0" in bt.said())
    for number in range(50):
        paint(photos / f"{number}.png", (number, 5 * number, 99))
    bt.until(lambda: bt.holds(51))
    (photos / "bad.jpg").write_text("no picture")
    bt.until(lambda: "indexed 0, reused 0, removed 0, skipped 1" in bt.said())
    assert bt.stop(signal.SIGINT) == 130
    *lines, last = bt.said().splitlines()
    assert last.startswith("interrupted")
    assert sum("removed" in line for line in lines) <= 25, bt.said()  # the fifty came in bursts
    assert sum(line.startswith("skipped ") and "bad.jpg" in line for line in lines) == 1


def test_what_a_walk_passes_over_starts_nothing(watching: Callable[..., Watching], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "no").mkdir(parents=True)
    bt = watching("--exclude", "no/")
    with IndexWriter.open(bt.index, FakeEncoder().fingerprint):  # a run would say that it cannot have it
        for name in ("notes.txt", ".hidden.png", "no/x.png", ".dir/x.png"):
            (photos / name).parent.mkdir(exist_ok=True)
            shutil.copy(photos / "a.png", photos / name)
        (bt.index / "scratch.png").write_bytes(b"x")
        (photos / "notes.txt").unlink()
        time.sleep(1.5)
        assert "waiting until it ends" not in bt.said()
        paint(photos / "b.png", "green")
        bt.until(lambda: "waiting until it ends" in bt.said())
        time.sleep(1.5)
    bt.until(lambda: bt.holds(2))
    assert bt.said().count("waiting until it ends") == 1
    paint(photos / "c.png", "blue")
    bt.until(lambda: bt.holds(3))
    assert bt.stop(signal.SIGTERM) == 143


def test_a_folder_that_goes_and_comes_back_ends_nothing(watching: Callable[..., Watching], tmp_path: Path) -> None:
    bt, photos = watching(), tmp_path / "photos"
    paint(photos / "2024.05" / "b.png", "green")
    bt.until(lambda: bt.holds(2))
    (photos / "2024.05").rename(tmp_path / "elsewhere")
    bt.until(lambda: bt.holds(1))
    photos.rename(tmp_path / "gone")
    bt.until(lambda: "photos, so what the index has of it is kept" in bt.said())
    assert bt.holds(1)
    paint(tmp_path / "gone" / "c.png", "blue")
    (tmp_path / "gone").rename(photos)
    bt.until(lambda: bt.holds(2))
    paint(photos / "d.png", "white")
    bt.until(lambda: bt.holds(3))
    assert bt.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("parent", [b".", b"caf\xe9"])
def test_names_that_are_no_utf8_end_nothing(watching: Callable[..., Watching], tmp_path: Path, parent: bytes) -> None:
    """In the folder that is watched, or above it."""
    bt = watching(folder=tmp_path / os.fsdecode(parent))
    photos, odd = bt.index.with_name("photos"), os.fsdecode(b"odd \xff")
    paint(photos / f"{odd}.png", "green")
    bt.until(lambda: bt.holds(2))
    paint(photos / odd / "c.png", "blue")
    bt.until(lambda: bt.holds(3))
    paint(photos / "d.png", "white")
    bt.until(lambda: bt.holds(4))
    (photos / f"{odd}.png").unlink()
    bt.until(lambda: bt.holds(3))
    photos.rename(photos.with_name("gone"))
    bt.until(lambda: "photos, so what the index has of it is kept" in bt.said())
    photos.with_name("gone").rename(photos)
    paint(photos / odd / "e.png", (1, 2, 3))
    bt.until(lambda: bt.holds(4))
    assert bt.stop(signal.SIGTERM) == 143
    assert "error" not in bt.said()
