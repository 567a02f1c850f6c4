"""`--store`, `--store-password-file` and `--exact`, with a database in memory in the place of a real one."""

import json
from pathlib import Path

import pytest

from bridgetower.index.catalog.rows import StoreRow
from bridgetower.index.stores.named import NamedStore
from tests.cli.conftest import Bt
from tests.fakes import paint
from tests.tables import MemoryDatabase, MemoryTable

ADDRESS = "postgresql://me@db.example:5432/photos"
AWAY = f"error: {ADDRESS}: no answer (refused): start it, or go back to files with `bt index --store faiss`\n"


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> MemoryDatabase:
    """The one database that there is; `asked` begins with "connect PASSWORD"."""
    database = MemoryDatabase()

    def connect(row: StoreRow, dim: int, password: str | None) -> MemoryTable:
        database.asked.append(f"password {password}")
        return database.connect(row, dim, password)

    monkeypatch.setattr("bridgetower.library.NamedStore", lambda password: NamedStore(password, connect))
    return database


def test_an_index_is_begun_in_a_database(bt: Bt, photos: Path, database: MemoryDatabase) -> None:
    done = bt("index", photos, "--store", "postgres://me@db.example/photos")
    assert done.exit_code == 0, done.stderr
    [(name, table)] = database.tables.items()
    assert len(table.vectors) == 4
    paths = bt("search", "red", "--paths").stdout
    assert paths.startswith(f"{photos / 'red.png'}\n")
    assert bt("search", "red", "--paths", "--exact").stdout == paths

    status = bt("status", "-v").stdout
    assert f"{ADDRESS}, table {name}" in status
    assert "100.0% of the true 100 nearest" in status
    assert "rows in memory" in status
    shown = json.loads(bt("status", "--json").stdout)
    assert shown["store"] == {"address": ADDRESS, "table": name, "arrangement": "rows in memory"}
    assert shown["exact"] is False

    (photos / "red.png").unlink()
    paint(photos / "new.png", (250, 0, 0))
    assert "indexed 1, reused 0, unchanged 3, removed 1" in bt("index", photos).stderr
    assert bt("prune").exit_code == 0
    assert len(database.tables[name].vectors) == 4
    assert bt("verify").exit_code == 0


def test_no_index_is_made_where_its_store_does_not_answer(
    bt: Bt, photos: Path, database: MemoryDatabase, tmp_path: Path
) -> None:
    database.away = "refused"
    done = bt("index", photos, "--store", ADDRESS, "--index", tmp_path / "new")
    assert done.exit_code == 5
    assert done.stderr.endswith(
        f"error: {ADDRESS}: no answer (refused): nothing was changed; start it, or mend the address\n"
    )
    assert not (tmp_path / "new").exists()


def test_a_store_is_changed_without_a_path(bt: Bt, library: Path, database: MemoryDatabase) -> None:
    before = bt("search", "red", "--json").stdout
    done = bt("index", "--store", ADDRESS)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"{ADDRESS} recalls for 4 pictures\n"
    assert not list((library.parent / "index").glob("vectors-*"))
    assert bt("search", "red", "--json").stdout == before
    done = bt("index", "--store", "FAISS")
    assert (done.exit_code, done.stderr) == (0, "FAISS recalls for 4 pictures\n")
    assert not database.tables and list((library.parent / "index").glob("vectors-*"))
    assert bt("search", "red", "--json").stdout == before


@pytest.mark.parametrize("option", ["--watch", "--json"])
def test_an_option_for_a_run_wants_one(bt: Bt, library: Path, database: MemoryDatabase, option: str) -> None:
    done = bt("index", "--store", ADDRESS, option)
    assert (done.exit_code, done.stdout) == (2, "") and "give one beside --store" in done.stderr
    assert not database.tables


def test_nothing_to_index_is_wrong_usage(bt: Bt, library: Path) -> None:
    done = bt("index")
    assert done.exit_code == 2
    assert done.stderr == "error: nothing to index: give a folder or a file, as in `bt index ~/Pictures`\n"


def test_without_an_index_there_is_none_to_move(bt: Bt, photos: Path, database: MemoryDatabase) -> None:
    done = bt("index", "--store", ADDRESS)
    assert done.exit_code == 5 and "no index at" in done.stderr


def test_a_database_that_is_away_is_an_error_with_the_way_back(bt: Bt, library: Path, database: MemoryDatabase) -> None:
    assert bt("index", "--store", ADDRESS).exit_code == 0
    database.away = "refused"
    for command in (("search", "red"), ("index", library), ("fill", "a <mask>"), ("verify",)):
        done = bt(*command)
        assert (done.exit_code, done.stdout, done.stderr) == (5, "", AWAY)
    assert bt("search", "red", "--exact").exit_code == 0
    assert bt("status", "-v").exit_code == 0
    assert bt("forget", library / "red.png").exit_code == 0
    done = bt("prune")
    assert done.exit_code == 0
    assert f"note: {ADDRESS}: no answer (refused): searches leave out what was removed" in done.stderr
    done = bt("index", "--store", "faiss")
    assert done.exit_code == 0
    assert "is not used any more: drop it there by hand\n" in done.stderr
    assert done.stderr.endswith("FAISS recalls for 3 pictures\n")
    assert bt("search", "green").exit_code == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hunter2@db/photos", "postgresql://: a password in a URL ends up in lists of processes"),
        ("postgresql://db/photos?password=hunter2", "postgresql://: a password in a URL"),
        ("postgresql://me:hunter2/word@db/photos", "postgresql://: a password in a URL"),
        ("postgresql://me:1234/hunter2@db", "postgresql://: a password in a URL"),
        ("postgresql://me:hunter2?x@db/photos", "postgresql://: a password in a URL"),
        ("milvus://me:hunter2#x@db", "milvus://: a password in a URL"),
        ("postgresql://db:hunter2/photos", "postgresql://: its host or port is none: give faiss, postgresql://USER@"),
        (
            "mysql://me:hunter2@db",
            "--store: this is no address of a store: give faiss, postgresql://USER@HOST/DATABASE or milvus://HOST:PORT",
        ),
        (
            "hunter2",
            "--store: this is no address of a store: give faiss, postgresql://USER@HOST/DATABASE or milvus://HOST:PORT",
        ),
        ("postgresql://db/photos?options=hunter2", "?options= is none of sslmode, sslrootcert, host"),
        ("postgresql://db/photos/hunter2", "a name of a database has no /"),
    ],
)
def test_an_address_is_no_place_for_a_password(bt: Bt, library: Path, url: str, said: str) -> None:
    done = bt("index", library, "--store", url)
    assert done.exit_code == 2
    assert said in done.stderr and "hunter2" not in done.stderr and done.stderr.count("\n") == 1


def test_a_password_is_in_a_file_or_in_the_environment(
    bt: Bt, library: Path, database: MemoryDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(*arguments: object) -> str:
        database.asked.clear()
        done = bt(*arguments)
        assert done.exit_code == 0, done.stderr
        return next(asked for asked in database.asked if asked.startswith("password"))

    assert given("index", "--store", ADDRESS) == "password None"
    (tmp_path / "secret").write_text("from a file\r\n\n")
    (tmp_path / "other").write_text("from another file")
    monkeypatch.setenv("BT_STORE_PASSWORD", "from the environment")
    assert given("search", "red") == "password from the environment"
    monkeypatch.setenv("BT_STORE_PASSWORD_FILE", str(tmp_path / "other"))
    assert given("search", "red") == "password from another file"
    for command in (("search", "red"), ("fill", "a <mask>"), ("index", library), ("verify",)):
        assert given(*command, "--store-password-file", tmp_path / "secret") == "password from a file"
    manifest = library.parent / "index" / "manifest.sqlite"
    assert all(b"from a" not in path.read_bytes() for path in manifest.parent.iterdir() if path.is_file())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the password cannot be read: No such file or directory"),
        (b"", "a file with one line is wanted, the password"),
        (b"\0" * 5000, "a file with one line is wanted, the password"),
        (b"one\ntwo\n", "a file with one line is wanted, the password"),
        (b"\xff\xfe", "no text: a file with a password and nothing else is wanted"),
    ],
)
def test_a_file_without_a_password_is_refused(
    bt: Bt, library: Path, database: MemoryDatabase, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert bt("search", "red", "--store-password-file", tmp_path / "secret").exit_code == 0  # no database is asked
    assert bt("index", "--store", ADDRESS).exit_code == 0
    done = bt("search", "red", "--store-password-file", tmp_path / "secret")
    assert done.exit_code == 6 and said in done.stderr and done.stderr.count("\n") == 1
