"""`bt prune`, `bt forget`, `bt verify`."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bridgetower.index.writer import IndexWriter
from tests.cli.conftest import Bt


def damage(path: Path, what: bytes) -> None:
    """Flip a bit in the middle of `what`."""
    content = bytearray(path.read_bytes())
    content[content.index(what) + len(what) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_index_is_well(bt: Bt, library: Path) -> None:
    done = bt("verify")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "all is well: 4 pictures, 4 files\n"


def test_what_is_damaged_is_named_mended_and_read_again(bt: Bt, library: Path) -> None:
    before = bt("search", "red", "--json").stdout
    with closing(sqlite3.connect(library.parent / "index" / "manifest.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE files SET size = size + 1 WHERE path = ?", (str(library / "green.png").encode(),))
    done = bt("verify")
    assert (done.exit_code, done.stdout) == (
        5,
        f"files: the file's row is not as it was written ({library / 'green.png'})\n",
    )
    assert done.stderr == f"error: {library.parent / 'index'}: 1 finding: mend it with `bt verify --repair`\n"
    assert json.loads(bt("verify", "--json").stdout) == {
        "part": "files",
        "problem": "the file's row is not as it was written",
        "path": str(library / "green.png"),
        "image": None,
        "derived": False,
    }
    assert bt("search", "red").exit_code == 5

    done = bt("verify", "--repair")
    assert done.exit_code == 0, done.stderr
    assert "dropped photos/green.png\n" in done.stderr
    assert done.stderr.endswith("all is well: 4 pictures, 3 files\n")
    assert "indexed 0, reused 1, unchanged 3, " in bt("index", library).stderr
    assert bt("search", "red", "--json").stdout == before


def test_a_folder_that_is_dropped_is_named_to_be_given_again(bt: Bt, library: Path) -> None:
    with closing(sqlite3.connect(library.parent / "index" / "manifest.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE roots SET scanned_at = scanned_at + 1")
    assert bt("verify").stdout == f"roots: the folder's row is not as it was written ({library})\n"
    assert bt("index", library).exit_code == bt("status").exit_code == 5
    done = bt("verify", "--repair")
    assert done.exit_code == 0, done.stderr
    assert "dropped photos from the folders of the index: give it to `bt index` again\n" in done.stderr
    assert "unchanged 4" in bt("index", library).stderr
    assert bt("verify").exit_code == 0


def test_a_manifest_that_sqlite_cannot_read_is_restored(bt: Bt, library: Path) -> None:
    before = bt("search", "red", "--json").stdout
    damage(library.parent / "index" / "manifest.sqlite", str(library / "green.png").encode())
    assert bt("verify").stdout.startswith("manifest: ")
    done = bt("verify", "--repair")
    assert done.exit_code == 0, done.stderr
    assert "restored the copy of 20" in done.stderr
    assert ": 4 pictures, 4 files; the damaged manifest is kept as index/manifest.sqlite.damaged-" in done.stderr
    assert "reads again what is missing now, and forgotten pictures that it meets\n" in done.stderr
    assert bt("search", "red", "--json").stdout == before
    assert "indexed 0, reused 0, unchanged 4, " in bt("index", library).stderr
    done = bt("verify")
    assert done.exit_code == 0 and ".damaged-" in done.stderr


def test_what_was_forgotten_stays_forgotten(bt: Bt, library: Path) -> None:
    catalog = library.parent / "index" / "manifest.sqlite"
    assert bt("forget", library / "green.png").exit_code == 0
    catalog.write_bytes(b"this is not SQLite" * 4000)
    assert "restored the copy" in bt("verify", "--repair").stderr
    assert "green.png" not in bt("search", "green", "--json").stdout
    assert "4 pictures, 3 files" in bt("verify").stderr


def test_a_damaged_copy_is_made_again(bt: Bt, library: Path) -> None:
    copied = library.parent / "index" / "manifest.backup.sqlite"
    copied.write_bytes(b"this is not SQLite" * 4000)
    assert bt("search", "red").exit_code == 0
    done = bt("verify", "--json")
    assert done.exit_code == 5
    assert json.loads(done.stdout) == {
        "part": "backup",
        "problem": "file is not a database",
        "path": str(copied),
        "image": None,
        "derived": True,
    }
    assert bt("verify", "--repair").exit_code == 0
    assert bt("verify").stderr == "all is well: 4 pictures, 4 files\n"
    copied.unlink()
    assert bt("verify").stderr == "all is well: 4 pictures, 4 files\n"  # as an index that had none yet
    assert bt("verify", "--repair").exit_code == 0 and copied.exists()


@pytest.mark.parametrize("damaged_copy", [False, True])
def test_a_damaged_manifest_without_a_copy_is_left_as_it_is(bt: Bt, library: Path, damaged_copy: bool) -> None:
    catalog = library.parent / "index" / "manifest.sqlite"
    copied = catalog.with_name("manifest.backup.sqlite")
    if damaged_copy:
        copied.write_bytes(b"nor is this" * 4000)
    else:
        copied.unlink()
    catalog.write_bytes(b"this is not SQLite" * 4000)
    assert bt("verify").exit_code == 5
    done = bt("verify", "--repair")
    assert done.exit_code == 5
    assert done.stderr.startswith("error: ") and "no copy can be restored" in done.stderr
    assert catalog.read_bytes() == b"this is not SQLite" * 4000
    names = {path.name for path in catalog.parent.iterdir()}
    assert names <= {"manifest.sqlite", "manifest.backup.sqlite", "vectors-1.faiss", "writer.lock"}
    for path in (catalog, copied):  # as it says
        if path.exists():
            path.rename(library.parent / path.name)
    assert "indexed 4" in bt("index", library).stderr
    assert bt("verify").exit_code == 0


def test_what_is_not_of_the_index_is_named(bt: Bt, library: Path) -> None:
    (library.parent / "index" / "notes.txt").touch()
    done = bt("verify")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "note: index/notes.txt is not part of the index\n" in done.stderr
    assert "notes.txt" in bt("verify", "--repair").stderr
    assert (library.parent / "index" / "notes.txt").exists()


@pytest.mark.parametrize(
    "command", [["verify"], ["verify", "--repair"], ["prune"], ["prune", "--dry-run"], ["forget", "a"]]
)
def test_without_an_index(bt: Bt, photos: Path, command: list[str]) -> None:
    done = bt(*command)
    assert (done.exit_code, done.stdout) == (5, "")
    assert done.stderr.startswith("error: no index at ")
    assert not (photos.parent / "index").exists()


def test_prune(bt: Bt, library: Path) -> None:
    (library / "red.png").unlink()
    done = bt("prune", "--dry-run")
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()[:2]] == [
        ["files", "that", "are", "gone", "1"],
        ["pictures", "without", "a", "file", "1"],
    ]
    assert json.loads(bt("status", "--json").stdout)["files"] == 4
    pruned = json.loads(bt("prune", "--json").stdout)
    assert (pruned["files"], pruned["pictures"], pruned["absent"], pruned["dry_run"]) == (1, 1, [], False)
    status = json.loads(bt("status", "--json").stdout)
    assert (status["files"], status["orphans"]) == (3, 0)
    assert "indexed 0, reused 0, unchanged 3, removed 0" in bt("index", library).stderr


def test_prune_keeps_what_may_be_on_an_absent_disk(bt: Bt, library: Path) -> None:
    library.rename(library.parent / "elsewhere")
    done = bt("prune")
    assert done.exit_code == 0
    assert "note: nothing found in photos, so what the index has of it is kept" in done.stderr
    assert json.loads(bt("status", "--json").stdout)["files"] == 4


def test_forget(bt: Bt, library: Path) -> None:
    done = bt("forget", library / "red.png", "photos/blue.png", "--json")
    assert done.exit_code == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"path": str(library / "red.png"), "files": 1, "dry_run": False},
        {"path": str(library / "blue.png"), "files": 1, "dry_run": False},
    ]
    assert done.stderr == "forgot 2 files; the vectors of 2 pictures without a file are kept until `bt prune`\n"
    assert "indexed 0, reused 2, unchanged 2" in bt("index", library).stderr


def test_forget_says_before_what_it_would_do(bt: Bt, library: Path) -> None:
    (library / "copy.png").write_bytes((library / "red.png").read_bytes())
    (library / "bad.png").write_bytes(b"no picture")
    bt("index", library)
    paths = (library / "red.png", library / "blue.png", library / "bad.png")
    catalog = library.parent / "index" / "manifest.sqlite"
    before = catalog.read_bytes()
    with IndexWriter.resume(library.parent / "index"):  # which holds the lock
        dry = bt("forget", *paths, "photos", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.stderr
    assert (
        dry.stderr == "would forget 6 files; the vectors of 4 pictures without a file would be kept until `bt prune`\n"
    )
    dry = bt("forget", *paths, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "")
    assert (
        dry.stderr == "would forget 3 files; the vectors of 1 picture without a file would be kept until `bt prune`\n"
    )
    assert catalog.read_bytes() == before
    dry = bt("forget", *paths, "--dry-run", "--json")
    wet = bt("forget", *paths, "--json")
    assert dry.stdout.replace("true", "false") == wet.stdout and wet.stdout.count('"files": 1') == 3
    assert dry.stderr.replace("would forget", "forgot").replace("would be", "are") == wet.stderr
    assert bt("forget", library / "rde.png", "--dry-run").exit_code == 6


def test_forget_what_is_not_there(bt: Bt, library: Path) -> None:
    done = bt("forget", library / "rde.png")
    assert (done.exit_code, done.stdout) == (6, "")
    assert done.stderr.startswith(f"error: {library / 'rde.png'}: the index knows nothing there; did you mean ")
