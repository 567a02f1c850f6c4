"""`bt prune`, `bt forget`, `bt verify`."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bridgetower.writer import Writer
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


def test_a_manifest_that_sqlite_cannot_read_is_made_anew(bt: Bt, library: Path) -> None:
    before = bt("search", "red", "--json").stdout
    damage(library.parent / "index" / "manifest.sqlite", str(library / "green.png").encode())
    assert bt("verify").stdout.startswith("manifest: ")
    done = bt("verify", "--repair")
    assert done.exit_code == 0, done.stderr
    assert (
        "saved 4 of 4 pictures and 3 files; the damaged manifest is kept as index/manifest.sqlite.damaged-"
        in done.stderr
    )
    assert "indexed 0, reused 1, unchanged 3, " in bt("index", library).stderr
    assert bt("search", "red", "--json").stdout == before
    done = bt("verify")
    assert done.exit_code == 0 and ".damaged-" in done.stderr


@pytest.mark.parametrize("counted", [True, False])
def test_a_manifest_of_which_no_picture_can_be_read_is_not_well(bt: Bt, library: Path, counted: bool) -> None:
    manifest = library.parent / "index" / "manifest.sqlite"
    with closing(sqlite3.connect(manifest, isolation_level=None)) as db:
        if not counted:
            db.execute("DELETE FROM state")
            db.execute("CREATE TABLE much AS SELECT zeroblob(1000000)")
        [root] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'images'").fetchone()
        [size] = db.execute("PRAGMA page_size").fetchone()
    with open(manifest, "r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes(size))
    done = bt("verify", "--repair")
    assert done.exit_code == 5
    assert "saved 0" in done.stderr and "the damaged manifest is kept as" in done.stderr
    assert "none of the pictures that it held could be read" in done.stderr and "all is well" not in done.stderr
    assert list(manifest.parent.glob("manifest.sqlite.damaged-*"))
    assert "indexed 4" in bt("index", library).stderr
    assert bt("verify", "--repair").exit_code == 0


def test_a_manifest_that_is_not_one_cannot_be_saved(bt: Bt, library: Path) -> None:
    manifest = library.parent / "index" / "manifest.sqlite"
    manifest.write_bytes(b"this is not SQLite" * 4000)
    assert bt("verify").exit_code == 5
    done = bt("verify", "--repair")
    assert done.exit_code == 5
    assert done.stderr.startswith("error: ") and "nothing can be saved of it" in done.stderr
    assert manifest.read_bytes() == b"this is not SQLite" * 4000
    assert {path.name for path in manifest.parent.iterdir()} <= {"manifest.sqlite", "vectors-1.faiss", "writer.lock"}


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
    manifest = library.parent / "index" / "manifest.sqlite"
    before = manifest.read_bytes()
    with Writer.resume(library.parent / "index"):  # which holds the lock
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
    assert manifest.read_bytes() == before
    dry = bt("forget", *paths, "--dry-run", "--json")
    wet = bt("forget", *paths, "--json")
    assert dry.stdout.replace("true", "false") == wet.stdout and wet.stdout.count('"files": 1') == 3
    assert dry.stderr.replace("would forget", "forgot").replace("would be", "are") == wet.stderr
    assert bt("forget", library / "rde.png", "--dry-run").exit_code == 6


def test_forget_what_is_not_there(bt: Bt, library: Path) -> None:
    done = bt("forget", library / "rde.png")
    assert (done.exit_code, done.stdout) == (6, "")
    assert done.stderr.startswith(f"error: {library / 'rde.png'}: the index knows nothing there; did you mean ")
