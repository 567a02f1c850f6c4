"""An index whose recall is in a real database: the same answers as from files, and kills on every side."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bridgetower.errors import StoreError
from bridgetower.index.check import check_index
from bridgetower.index.maintenance import move, prune
from bridgetower.index.reader import IndexReader
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.writer import IndexWriter
from tests.cluster.conftest import Database
from tests.indexes import FINGERPRINT, PRELUDE, add, assert_answers, image, path_of
from tests.tables import wait_until

GALLERY = sorted(Path("examples/gallery").resolve().glob("*.jpg"))
QUERY = image(-1 % 2**32).vector


class Place(NamedTuple):
    """Where the database is, and what it wants."""

    url: str
    password: str
    database: Database

    @property
    def store(self) -> NamedStore:
        return NamedStore(self.password)


@pytest.fixture
def place(database: Database) -> Iterator[Place]:
    yield Place(database.url, database.password, database)
    database.start_again()


def bt(place: Place, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bridgetower_cli", *map(str, arguments)],
        env={**os.environ, "BT_STORE_PASSWORD": place.password, "BT_SERVER": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_line_answers_as_from_files(place: Place, tmp_path: Path) -> None:
    for picture in GALLERY[:60]:
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(picture, tmp_path / "photos")
    index = ("--index", tmp_path / "index")
    done = bt(place, "index", tmp_path / "photos", "--model", "demo", *index, "--store", place.url)
    assert done.returncode == 0, done.stderr
    searches = [
        ("two cats on a couch", "--json", "--top", 60),
        ("a dog", "--json", "--under", "*snow*"),
        ("a dog", "--json", "--no-rerank", "--top", 60, "--exact"),
    ]
    from_database = [bt(place, "search", *search, *index) for search in searches]
    assert [done.returncode for done in from_database] == [0, 0, 0], from_database
    assert bt(place, "verify", *index).returncode == 0
    status = json.loads(bt(place, "status", "--json", *index).stdout)
    assert status["store"]["address"] == place.url and status["tuning"]["recall"] == 1.0

    (tmp_path / "photos" / GALLERY[0].name).unlink()
    assert "removed 1" in bt(place, "index", tmp_path / "photos", *index).stderr
    assert json.loads(bt(place, "prune", "--json", *index).stdout)["pictures"] == 1
    assert bt(place, "verify", *index).returncode == 0
    shutil.copy(GALLERY[0], tmp_path / "photos")
    assert "indexed 1" in bt(place, "index", tmp_path / "photos", *index).stderr

    done = bt(place, "index", "--store", "faiss", *index)
    assert done.stderr == "FAISS recalls for 60 pictures\n"
    assert [bt(place, "search", *search, *index).stdout for search in searches] == [
        done.stdout for done in from_database
    ]
    everything = [done.stdout + done.stderr for done in from_database]
    assert not any(place.password in said for said in everything)


def test_a_database_that_was_killed_is_named_at_once(place: Place, tmp_path: Path) -> None:
    begin(tmp_path / "index", place, 20)
    place.database.kill()
    started = time.monotonic()
    done = bt(place, "index", tmp_path, "--index", tmp_path / "index")
    assert time.monotonic() - started < 20  # 5 s on an idle machine
    assert done.returncode == 5 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {place.url}: no answer (")
    assert done.stderr.endswith("or go back to files with `bt index --store faiss`\n")
    done = bt(place, "index", "--store", "faiss", "--index", tmp_path / "index")
    assert done.returncode == 0 and "drop it there by hand" in done.stderr
    with IndexReader.open(tmp_path / "index") as store:
        assert_answers(store, QUERY, *range(20))


def begin(directory: Path, place: Place, number: int) -> None:
    """An index of so many pictures, in the database."""
    with IndexWriter.open(directory, FINGERPRINT, recall_store=place.store) as writer:
        add(writer, *range(number))
        assert move(writer, place.store, place.url) is None


def assert_whole(directory: Path, place: Place, *numbers: int) -> None:
    """The index finds exactly these pictures, without damage, and both sides agree."""
    with IndexReader.open(directory, place.store) as store:
        assert_answers(store, QUERY, *numbers)
        assert store.damage is None
    assert list(check_index(directory, recall_store=place.store)) == []


# Publishes 100 pictures more at a time, five rows a batch, until it is ended.
PUBLISHING = (
    PRELUDE
    + """
from bridgetower.errors import BridgeTowerError
from bridgetower.index.catalog import connection
from bridgetower.index.stores.named import NamedStore
from bridgetower.index.vectors import catalog_vectors
catalog_vectors._ROWS = connection.ROWS = 5
first = int(sys.argv[3])
try:
    with IndexWriter.open(Path(sys.argv[1]), FINGERPRINT, recall_store=NamedStore(sys.argv[2])) as writer:
        for start in range(first, first + 10_000, 100):
            numbers = range(start, start + 100)
            writer.commit(images=[image(n) for n in numbers], files=[file(n) for n in numbers])
            print(start, flush=True)
            writer.publish()
except BridgeTowerError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
)


def publish_until(
    directory: Path, place: Place, first: int, end: Callable[["subprocess.Popen[str]"], object]
) -> tuple[int, str, int]:
    """Let a process publish pictures from `first` on, and call `end` in the middle of one; return its exit status,
    stderr and how many pictures are committed now."""
    command = [sys.executable, "-c", PUBLISHING, str(directory), place.password, str(first)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        time.sleep(float(np.random.default_rng(first).uniform(0.0, 0.3)))
        end(process)
        _, stderr = process.communicate(timeout=200)
    with IndexReader.open(directory, place.store) as store:
        return process.returncode, stderr, store.catalog.last_image()


@pytest.mark.parametrize("first", [1000, 2000])
def test_a_killed_run_goes_on(place: Place, tmp_path: Path, first: int) -> None:
    begin(tmp_path / "index", place, 20)
    status, _, last = publish_until(tmp_path / "index", place, first, lambda process: process.kill())
    assert status == -signal.SIGKILL
    numbers = [*range(20), *range(first, first + last - 20)]
    with IndexReader.open(tmp_path / "index", place.store) as store:
        assert_answers(store, QUERY, *numbers)
    with IndexWriter.open(tmp_path / "index", FINGERPRINT, recall_store=place.store) as writer:
        writer.finish()
    assert_whole(tmp_path / "index", place, *numbers)


def test_a_run_whose_database_is_killed_ends_with_one_line_and_goes_on(place: Place, tmp_path: Path) -> None:
    begin(tmp_path / "index", place, 20)
    status, stderr, last = publish_until(tmp_path / "index", place, 1000, lambda process: place.database.kill())
    assert status == 5 and stderr.startswith(f"{place.url}: ") and stderr.count("\n") == 1
    assert place.password not in stderr
    numbers = [*range(20), *range(1000, 1000 + last - 20)]
    place.database.start_again()
    with IndexReader.open(tmp_path / "index", place.store) as store:
        assert_answers(store, QUERY, *numbers)
    with IndexWriter.open(tmp_path / "index", FINGERPRINT, recall_store=place.store) as writer:
        writer.finish()
    assert_whole(tmp_path / "index", place, *numbers)


def test_each_answer_beside_a_writer_is_of_one_committed_state(place: Place, tmp_path: Path) -> None:
    """Readers open the index again and again, and keep old states, while pictures come and go in the one table."""
    directory = tmp_path / "index"
    begin(directory, place, 20)
    states = [frozenset(range(20))]
    wrong: list[BaseException] = []
    ended = threading.Event()
    answers = committed = 0  # committed: the place of the last state that is surely there

    def ask() -> None:
        nonlocal answers
        try:
            while not ended.is_set():
                least = committed
                with IndexReader.open(directory, place.store) as store:
                    for _ in range(3):  # the writer goes on meanwhile
                        [found] = store.recall(QUERY[None], 1000)
                        names = frozenset(int(store.catalog.paths_of(one.image)[0].stem) for one in found)
                        assert names in states[least:]
                        answers += 1
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(8):
        new = range(100 * (step + 1), 100 * (step + 1) + 7)
        gone = sorted(states[-1])[:3]
        with IndexWriter.open(directory, FINGERPRINT, recall_store=place.store) as writer:
            states.append(states[-1] | {*new})
            add(writer, *new)
            committed = len(states) - 1
            writer.finish()
            states.append(states[-1] - {*gone})
            writer.forget(*map(path_of, gone))
            committed = len(states) - 1
            prune(writer)
        wait_until(lambda enough=answers + 3: answers >= enough or bool(wrong))  # type: ignore[misc]
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_whole(directory, place, *states[-1])


def test_a_wrong_password_says_what_to_do(place: Place, tmp_path: Path) -> None:
    begin(tmp_path / "index", place, 20)
    wrong = place._replace(password="wrong horse")
    with IndexReader.open(tmp_path / "index", wrong.store) as store, pytest.raises(StoreError) as raised:
        store.recall(QUERY[None], 5)
    assert "--store-password-file" in str(raised.value) and "horse" not in str(raised.value)
