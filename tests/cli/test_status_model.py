"""`bt status`, `bt model`."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import bridgetower.checkpoints.find
from bridgetower.checkpoints.find import LocalModel
from bridgetower.index.writer import IndexWriter
from bridgetower.records import File, Head
from bridgetower_cli.parser import app
from tests.cli.conftest import Bt
from tests.fakes import paint


def test_status_as_json(bt: Bt, library: Path) -> None:
    (library / "bad.jpg").write_bytes(b"no picture")
    bt("index", library)
    done = bt("status", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    status = json.loads(done.stdout)
    expected = {
        "index": str(library.parent / "index"),
        "model": "fake",
        "pictures": 4,
        "files": 4,
        "skipped": 1,
        "dim": 3,
    }
    assert {name: status[name] for name in expected} == expected
    [root] = status["roots"]
    assert (root["path"], root["files"]) == (str(library), 4)
    assert "device" not in status


def test_status_for_people(bt: Bt, library: Path) -> None:
    done = bt("status")
    assert done.exit_code == 0
    assert str(library.parent / "index") in done.stdout
    assert "4, in 4 files" in done.stdout
    assert "precision" not in done.stdout


def test_status_shows_kept_features(bt: Bt, library: Path) -> None:
    status = json.loads(bt("status", "--json").stdout)
    assert (status["keep_features"], status["kept"]) == (0, None)
    assert "kept features" not in bt("status").stdout
    done = bt("index", library, "--keep-features", "30kB")
    assert done.exit_code == 0 and "kept the features of 2 pictures, 24.6 kB" in done.stderr
    status = json.loads(bt("status", "--json").stdout)
    assert status["keep_features"] == 30_000
    assert status["kept"] == {"pictures": 2, "bytes": 24608, "precision": None, "under": None}
    [row] = [line for line in bt("status").stdout.splitlines() if line.startswith("kept features")]
    assert row.split(maxsplit=2)[2] == "of 2 of 4 pictures, newest first: 24.6 kB of at most 30 kB"
    bt("index", library, "--keep-features", "1MB", "--keep-under", library / "red.png")
    assert json.loads(bt("status", "--json").stdout)["kept"]["under"] == str(library / "red.png")
    assert f"under {library / 'red.png'}" in bt("status").stdout


def test_the_cache_of_a_search_is_as_large_as_the_index_says(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached() -> int:
        return len(list((library.parent / "index" / "features").glob("*.features")))

    bt("index", library, "--keep-features", "40kB", "--keep-under", library / "red.png")
    bt("search", "red")
    assert cached() == 2
    bt("search", "red", "--features-cache", "30kB")
    assert cached() == 1
    monkeypatch.setenv("BT_FEATURES_CACHE", "1MB")
    bt("search", "red")
    assert cached() == 3
    assert json.loads(bt("status", "--json").stdout)["kept"]["pictures"] == 1


def test_a_place_to_keep_without_room_is_wrong_usage(bt: Bt, library: Path) -> None:
    done = bt("index", library, "--keep-under", library)
    assert done.exit_code == 2 and "no room for them" in done.stderr


def test_kept_features_are_counted_in_json(bt: Bt, library: Path) -> None:
    counts = json.loads(bt("index", library, "--json", "--keep-features", "1MB").stdout)
    assert (counts["kept"], counts["kept_bytes"]) == (4, 49216)


def test_status_names_the_skipped_files_when_asked(bt: Bt, library: Path) -> None:
    (library / "bad.jpg").write_bytes(b"no picture")
    (library / "link.jpg").symlink_to("nowhere")  # may lead somewhere tomorrow: skipped by each run, and not remembered
    assert "skipped 2:" in bt("index", library, "--follow-symlinks").stderr
    [row] = [line for line in bt("status", "-v").stdout.splitlines() if line.startswith("skipped file")]
    assert row.split(maxsplit=2)[2] == f"{library / 'bad.jpg'}: not a picture, or of an unknown kind"
    status = json.loads(bt("status", "-v", "--json").stdout)
    assert status["skipped"] == 1
    assert status["skipped_files"] == [
        {"path": str(library / "bad.jpg"), "reason": "not a picture, or of an unknown kind"}
    ]
    assert "bad.jpg" not in bt("status").stdout
    assert "skipped_files" not in json.loads(bt("status", "--json").stdout)


def test_status_tells_files_from_folders(bt: Bt, library: Path) -> None:
    named = [paint(library.parent / "alone" / f"{number}.png", (9, 9, number)) for number in range(7)]
    bad = library.parent / "alone" / "bad.jpg"
    bad.write_bytes(b"no picture")
    bt("index", *named, bad)
    rows = [line.split(maxsplit=2) for line in bt("status").stdout.splitlines()]
    assert [row[1] for row in rows if row[0] == "folder"] == [str(library)]
    assert [row[1] for row in rows if row[0] == "file"] == [str(path) for path in named[:5]]
    assert rows[-2] == ["and", "3", "other files"]
    listed = bt("status", "-v").stdout
    assert [str(path) in listed for path in named] == [True] * 7
    assert f"{bad} (skipped, scanned " in listed
    roots = json.loads(bt("status", "--json").stdout)["roots"]
    assert [(root["path"], root["is_file"]) for root in roots][-2:] == [(str(bad), True), (str(library), False)]


def test_reasons_that_differ_in_their_figures_are_one(bt: Bt, library: Path) -> None:
    reasons = [f"{1000 + number} x {number:,} pixels, more than 179" for number in range(900, 1100)]
    reasons += ["empty", "empty", "empty chunk N", "empty chunk 5", *(f"{letter} 7" for letter in "abcdefgh")]
    with IndexWriter.resume(library.parent / "index") as writer:
        writer.commit(skipped=[(File(library / f"{n}.jpg", 1, 1), reason) for n, reason in enumerate(reasons)])
    told = json.loads(bt("status", "--json").stdout)["reasons"]
    assert list(told.items())[:3] == [("N x N pixels, more than 179", 200), ("empty", 2), ("a 7", 1)]
    assert len(told) == 10
    lines = [line.split(maxsplit=2) for line in bt("status").stdout.splitlines()]
    start = lines.index(["skipped", "212", "files"]) + 1
    assert lines[start] == ["200", "x", "N x N pixels, more than 179"]
    assert lines[start + 5] == ["7", "x", "other reasons"] and lines[start + 6][0] == "updated"


def test_pictures_without_a_file_are_called_so(bt: Bt, library: Path) -> None:
    bt("forget", library / "red.png")
    assert "without a file  1 picture, whose vectors are kept until `bt prune`\n" in bt("status").stdout


def test_status_gives_the_reason_of_its_choice(bt: Bt, library: Path) -> None:
    said = bt("status", "-v", "--precision", "fp32").stdout
    assert "fp32: as asked" in said and ", fp32 or bf16, preprocessing" in said
    status = json.loads(bt("status", "--verbose", "--json", "--precision", "fp32").stdout)
    assert (status["device"], status["precision"]) == ("cpu", "fp32")


def test_status_of_no_index(bt: Bt, photos: Path) -> None:
    done = bt("status")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "bt index" in done.stderr


MODELS = [
    LocalModel("demo", Path("/demo"), 9_000_000, frozenset(Head), None),
    LocalModel("some/pickle", Path("/hub/some"), 3_700_000_000, None, None),
    LocalModel("some/broken", Path("/hub/broken"), 12, None, "config.json is damaged"),
]


@pytest.fixture
def some_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridgetower.checkpoints.find, "available", lambda: MODELS)


@pytest.mark.usefixtures("some_models")
def test_model_list(bt: Bt) -> None:
    done = bt("model", "list")
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1] == ["demo", "ITC", "ITM", "MLM", "9", "MB", "/demo"]
    assert rows[2] == ["some/pickle", "-", "3.7", "GB", "/hub/some"]
    assert "some/broken cannot be used: config.json is damaged" in done.stderr
    assert "bt model pull BridgeTower/bridgetower-large-itm-mlm-itc" in done.stderr


@pytest.mark.usefixtures("some_models")
def test_model_list_as_json(bt: Bt) -> None:
    rows = [json.loads(line) for line in bt("model", "list", "--json").stdout.splitlines()]
    assert rows[0] == {
        "name": "demo",
        "folder": "/demo",
        "bytes": 9_000_000,
        "heads": ["itc", "itm", "mlm"],
        "problem": None,
    }
    assert rows[1]["heads"] is None
    assert rows[2]["problem"] == "config.json is damaged"


def test_model_pull_prints_the_folder(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def pull(name: str, *, progress: bool, say: Callable[[str], None]) -> SimpleNamespace:
        asked.append((name, progress))
        say("asking the Hub")
        return SimpleNamespace(name=name, folder=Path("/hub/folder"), revision="abc")

    monkeypatch.setattr(bridgetower.checkpoints.find, "pull", pull)
    done = bt("model", "pull", "some/model")
    assert (done.exit_code, done.stdout) == (0, "/hub/folder\n")
    assert "some/model" in done.stderr
    assert "asking the Hub" in done.stderr
    bt("model", "pull")
    assert asked == [("some/model", False), ("fake", False)]  # BT_MODEL; no bars, as stderr is no terminal


def test_model_convert_into_a_folder_that_is_taken(bt: Bt, photos: Path) -> None:
    done = bt("model", "convert", "demo", photos)
    assert (done.exit_code, done.stdout) == (2, "")
    assert str(photos) in done.stderr


@pytest.mark.parametrize("name", ["foo/bar--baz", "foo/bar.git", f"foo/{'x' * 97}", "x" * 300, "no-such-folder"])
def test_model_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    for arguments in (["pull", name], ["convert", name, str(tmp_path / "new")]):
        done = CliRunner().invoke(app, ["model", *arguments])
        assert (done.exit_code, done.stdout) == (4, "")
        assert (
            done.stderr
            == f'error: {name}: no such folder, and no repository id either (owner/name); give one of them, or "demo"\n'
        )


def test_model_pull_announces_the_hub_and_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    done = CliRunner().invoke(app, ["model", "pull", "some/model"])
    assert (done.exit_code, done.stdout) == (4, "")
    announced, error = done.stderr.splitlines()
    assert announced == "asking the Hub for some/model ..."
    assert error.startswith("error: some/model is not on this machine and the Hub cannot be reached (")


def test_status_of_an_index_that_was_written_at_an_impossible_time(bt: Bt, library: Path) -> None:
    with IndexWriter.resume(library.parent / "index") as writer, writer.catalog.transaction():
        writer.catalog._set_state(updated_at=1 << 60)
    done = bt("status")
    assert done.exit_code == 0
    assert f"{1 << 60} s after 1970" in done.stdout
