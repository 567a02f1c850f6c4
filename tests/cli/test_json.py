"""JSON objects for programs: results on stdout; on stderr the error, or the lack of a match, that ends a command."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridgetower.library import Library
from tests.cli.conftest import Bt
from tests.fakes import paint


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


COUNTS = {
    "files": 5,
    "indexed": 4,
    "renewed": 0,
    "reused": 0,
    "unchanged": 0,
    "redated": 0,
    "removed": 0,
    "skipped_total": 1,
    "ignored": {".txt": 1},
    "unread": {},
    "excluded": 0,
    "links": 0,
    "absent": [],
    "note": None,
    "kept": None,
    "kept_bytes": None,
}


def test_an_index_run_prints_the_skipped_files_and_its_counts(bt: Bt, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "notes.txt").touch()
    done = bt("index", photos, "--json")
    assert (done.exit_code, done.stderr) == (3, "")
    skipped, counts = objects(done.stdout)
    assert skipped == {"skipped": str(photos / "bad.jpg"), "reason": "not a picture, or of an unknown kind"}
    assert counts.pop("seconds") >= 0
    assert counts == COUNTS
    shutil.rmtree(photos)
    photos.mkdir()
    done = bt("index", photos, "--json")
    assert objects(done.stdout)[0]["absent"] == [str(photos)] and done.stderr.startswith("note: nothing found in")


def test_a_watch_prints_each_run_that_changes_something(bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def watching(*_: object, **__: object) -> Iterator[Iterator[None]]:
        def bursts() -> Iterator[None]:
            yield
            (photos / "bad.jpg").write_bytes(b"no picture")
            paint(photos / "new.png", (9, 99, 199))
            yield

        yield bursts()

    monkeypatch.setattr("bridgetower.retrieval.updating.watching", watching)
    done = bt("index", photos, "--watch", "--json")
    first, skipped, second = objects(done.stdout)
    assert (first["indexed"], skipped["skipped"], second["indexed"]) == (4, str(photos / "bad.jpg"), 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("search red --json --top 0", 2, "'0': a whole number of at least 1"),
        ("search --json --limit 3", 2, "--limit is no option of bt search: did you mean --top?"),
        ("rerank --json", 2, "TEXT is missing"),
        ("search --json --image nowhere.png", 6, "nowhere.png: no such file"),
        ("index --json nowhere", 6, "nowhere"),
        ("search red --json --index nowhere", 5, "no index at "),
        ("index photos --json --index other --model no/model", 4, "no/model is not on this machine"),
    ],
)
def test_an_error_is_an_object(bt: Bt, library: Path, arguments: str, code: int, said: str) -> None:
    done = bt(*arguments.split())
    assert (done.exit_code, done.stdout) == (code, "")
    [error] = objects(done.stderr)
    assert set(error) == {"error", "code"} and error["code"] == code
    assert said in error["error"]


def test_a_defect_is_an_object_below_its_traceback(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Library, "search", broken)
    done = bt("search", "red", "--json")
    assert done.exit_code == 70 and "Traceback" in done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["code"] == 70


def test_json_as_a_text_is_none_of_the_options(bt: Bt, photos: Path) -> None:
    done = bt("search", "--", "--json")
    assert done.exit_code == 5 and done.stderr.startswith("error: no index")


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_no_match_is_an_object_with_the_best(bt: Bt, library: Path, quiet: list[str]) -> None:
    best = json.loads(bt("search", "red", "--json", "--top", 1).stdout)["match"]
    for done in (
        bt("search", "red", "--min-match", 0.99, "--json", *quiet),
        bt("rerank", "red", "--min-match", 0.99, "--json", *quiet, input="photos/red.png\nphotos/blue.png"),
    ):
        assert (done.exit_code, done.stdout) == (1, "")
        [none] = objects(done.stderr)
        number = 4 if none["verified"] == 4 else 2
        assert none == {
            "no_match": f"the best of {number} verified pictures has {best:.3f}",
            "best_match": pytest.approx(best, abs=1e-4),
            "best_similarity": None,
            "verified": number,
            "code": 1,
        }
    paint(library.parent / "query.png", (255, 255, 0))
    done = bt("search", "--image", "query.png", "--min-similarity", 1, "--json", *quiet)
    [none] = objects(done.stderr)
    assert (none["best_match"], none["verified"]) == (None, 0) and 0.5 < none["best_similarity"] < 1
