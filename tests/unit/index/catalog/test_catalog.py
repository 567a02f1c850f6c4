"""The SQLite file: what it keeps, what it refuses, and that the documented layout is the real one."""

import contextlib
import os
import re
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridgetower
from bridgetower.errors import StoreError
from bridgetower.index.catalog.changed_files import Sweep
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.catalog.rows import Image, Known
from bridgetower.index.catalog.schema import FORMAT_VERSION, SCHEMA, SUMMED, crc32_of
from bridgetower.index.catalog.writer import CatalogWriter
from bridgetower.records import DECODING_VERSION, File, Filter, Fingerprint, WalkedFile

FINGERPRINT = Fingerprint("some/model", "abc123", "f" * 64, "c" * 64, "hf", 1, "float", 4)
FORMAT_PAGE = Path(__file__).parents[4] / "docs" / "index-format.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifest.sqlite"


@pytest.fixture
def catalog(path: Path) -> Iterator[CatalogWriter]:
    catalog = CatalogWriter.open(path, FINGERPRINT)
    yield catalog
    catalog.close()


def photo(path: str | Path, size: int = 1, mtime_ns: int = 2, decoding: int | None = None) -> File:
    return File(Path(path), size, mtime_ns, decoding=decoding)


def fill(catalog: CatalogWriter, *paths: str | Path, content: bytes = b"c") -> None:
    hash = content * 32
    with catalog.transaction():
        catalog.add_image(hash, 3, 2, None, DECODING_VERSION, b"vector")
        for path in paths:
            catalog.put_file(photo(path), hash)


def folders(catalog: Catalog, folder: str | Path, most: int = 99) -> dict[str, int]:
    return {os.fsdecode(one.path): one.files for one in catalog.folders_in(Path(folder), most)}


def test_folders_directly_below_one(catalog: CatalogWriter) -> None:
    fill(catalog, "/p/x/1", "/p/x/deep/er/2", "/p/x-old/3", "/p/x.jpg", "/p/x0/4", "/p/y", "/px/5", "/p0", "/z/6")
    catalog.put_skipped(photo("/p/skipped/7"), "no picture")
    assert folders(catalog, "/p") == {"/p/x": 2, "/p/x-old": 1, "/p/x0": 1}
    assert list(folders(catalog, "/p")) == ["/p/x", "/p/x-old", "/p/x0"]  # by name, though "/p/x-" < "/p/x/"
    assert folders(catalog, "/p/x") == {"/p/x/deep": 1} and folders(catalog, "/p/x/deep/er") == {}
    assert folders(catalog, "/") == {"/p": 6, "/px": 1, "/z": 1}
    for none in ("/p/x/1", "/p/y", "/p/", "/p/x/d", "/q", "/p/skipped"):
        assert folders(catalog, none) == (folders(catalog, "/p") if none == "/p/" else {})
    assert len(folders(catalog, "/p", 2)) == 2


@pytest.mark.skipif(os.name == "nt", reason="such names are of POSIX")
def test_folders_of_odd_names(catalog: CatalogWriter) -> None:
    names = [
        b"%",
        b"%41",
        b"_",
        b"a_c",
        b"abc",
        b"\\",
        b"a\\b",
        b"\xff\xfe",
        b"\xff",
        "é".encode(),
        b"a\nb",
        b"*",
        b"'",
        b"~",
    ]
    fill(catalog, *(Path(os.fsdecode(b"/p/" + name + b"/" + name)) for name in names))
    assert folders(catalog, "/p") == {os.fsdecode(b"/p/" + name): 1 for name in sorted(names)}
    for name in names:
        assert folders(catalog, os.fsdecode(b"/p/" + name)) == {}
    fill(catalog, Path(os.fsdecode(b"/p/\xff/\xfe/1")), content=b"d")
    assert folders(catalog, os.fsdecode(b"/p/\xff")) == {os.fsdecode(b"/p/\xff/\xfe"): 1}


def test_folders_are_found_without_reading_the_files_below_them(catalog: CatalogWriter) -> None:
    """Each is found by a search in the key; with a scan the steps of the first query grow with the files."""
    steps = []
    for start in (0, 2000):
        fill(catalog, *(f"/p/{n % 2}/{n}" for n in range(start, start + 2000)), content=b"c" if start == 0 else b"d")
        asked: list[str] = []
        catalog._db.set_trace_callback(asked.append)
        assert folders(catalog, "/p") == {"/p/0": start // 2 + 1000, "/p/1": start // 2 + 1000}
        catalog._db.set_trace_callback(None)
        steps.append(len(asked))
        [plan] = catalog._db.execute(f"EXPLAIN QUERY PLAN {asked[0]}")
        assert "PRIMARY KEY (path>? AND path<?)" in plan[3] and "SCAN" not in plan[3]
    assert steps == [5, 5]  # three searches, two counts


def test_the_documented_schema_is_the_real_one() -> None:
    (page,) = re.findall(r"```sql\n(.*?)```", FORMAT_PAGE.read_text("utf-8"), flags=re.DOTALL)
    documented = re.sub(r"--.*", "", page)
    assert documented.split() == (";\n".join(SCHEMA) + ";").split()
    assert f"Format version **{FORMAT_VERSION}**" in FORMAT_PAGE.read_text("utf-8")


def test_the_sum_of_a_row_is_the_documented_one(catalog: CatalogWriter) -> None:
    written = b"bpath" + b"i\xfe" + b"\xff" * 7 + b"r" + struct.pack("<d", 1.0) + b"n" + b"t\xc3\xa9"
    assert crc32_of(b"path", -2, 1.0, None, "\xe9") == zlib.crc32(written)
    fill(catalog, "/a")
    for table, columns in SUMMED.items():
        rows = f"{table} JOIN images ON id = image" if table in ("files", "parts") else table
        for *row, crc32 in catalog._db.execute(f"SELECT {columns}, {table}.crc32 FROM {rows}"):
            assert crc32_of(*row) == crc32, table
    assert [sql.split()[2] for sql in SCHEMA if "crc32" in sql] == list(SUMMED)


def test_a_new_manifest_says_what_it_is(catalog: CatalogWriter, path: Path) -> None:
    assert catalog.fingerprint() == FINGERPRINT
    state = catalog.state()
    assert (state.generation, state.covered, state.vectors_sha256) == (0, 0, None)
    assert state.created_at == state.updated_at > 1_600_000_000
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA application_id").fetchone() == (0x42546978,)
    assert db.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_any_path_and_any_reason_survive(catalog: CatalogWriter, path: Path) -> None:
    names = [
        b"plain.jpg",
        b"new\nline.jpg",
        b"quo'te\".jpg",
        "ünï 😀.jpg".encode(),
        b"\xff\xfe not utf-8.jpg",
        b"%2f?#.jpg",
    ]
    paths = [Path(os.fsdecode(b"/photos/" + name)) for name in names]
    fill(catalog, *paths)
    bad = Path(os.fsdecode(b"/photos/bad\xff.jpg"))
    with catalog.transaction():
        catalog.put_skipped(photo(bad, 5, 6), f"{bad.name}: not a picture")
    reader = Catalog.read(path)
    assert reader.paths_of(1) == tuple(sorted(paths, key=os.fsencode))
    assert all(reader.known(p) == Known(photo(p), 1, None) for p in paths)
    assert reader.known(bad) == Known(photo(bad, 5, 6, DECODING_VERSION), None, "bad\\udcff.jpg: not a picture")
    assert [skipped.path for skipped in reader.skipped()] == [bad]
    assert reader.known(Path("/photos/none.jpg")) is None
    reader.close()


def test_times_and_sizes_keep_every_digit(catalog: CatalogWriter) -> None:
    fill(catalog)
    large = File(
        Path("/a"), 2**52 + 1, 1_700_000_000_123_456_789, 2**63 - 1, 1_700_000_000_987_654_321, 2**40, 2**32 - 1, 7
    )
    small = File(Path("/b"), 0, -1, 0, -1, -1, 0, 0)  # a clock before 1970
    with catalog.transaction():
        catalog.put_file(large, b"c" * 32)
        catalog.put_file(small, b"c" * 32)
    assert catalog.known(Path("/a")) == Known(large, 1, None)
    assert catalog.known(Path("/b")) == Known(small, 1, None)


def test_a_file_either_has_an_image_or_a_reason(catalog: CatalogWriter, path: Path) -> None:
    fill(catalog, "/a")
    with catalog.transaction():
        catalog.put_skipped(photo("/a"), "no more")
    assert catalog.known(Path("/a")) == Known(photo("/a", decoding=DECODING_VERSION), None, "no more")
    fill(catalog, "/a")
    assert catalog.known(Path("/a")) == Known(photo("/a"), 1, None)
    with pytest.raises(sqlite3.IntegrityError), catalog.transaction():
        catalog._db.execute("INSERT INTO files VALUES (x'00', 1, 1, 0, 0, NULL, 0, 0, 1, 1, 'both', 0)")
    with pytest.raises(sqlite3.IntegrityError), catalog.transaction():
        catalog._db.execute(
            "INSERT INTO files VALUES (x'00', 1, 1, 0, 0, NULL, 0, 0, NULL, 77, NULL, 0)"
        )  # no such image


def test_equal_content_is_one_image_and_keeps_its_vector(catalog: CatalogWriter) -> None:
    fill(catalog, "/a", "/copy")
    with catalog.transaction():
        catalog.add_image(b"c" * 32, 9, 9, None, DECODING_VERSION, b"another vector")
    assert next(catalog.vectors()) == [(1, b"vector")]
    assert catalog.counts() == (2, 1, 0, 0)


def test_an_older_program_leaves_the_decoding_of_a_newer_one(catalog: CatalogWriter) -> None:
    with catalog.transaction():
        catalog.add_image(b"c" * 32, 9, 9, None, DECODING_VERSION + 1, b"vector")
        catalog.confirm(b"c" * 32, 7, DECODING_VERSION)
    assert catalog.image_of(b"c" * 32) == Image(1, 7, DECODING_VERSION + 1)
    assert [row.whole for rows in catalog.image_rows() for row in rows] == [True]


def test_an_image_id_is_never_used_again(catalog: CatalogWriter) -> None:
    fill(catalog, content=b"a")
    fill(catalog, content=b"b")
    with catalog.transaction():
        catalog._db.execute("DELETE FROM images WHERE id = 2")
    fill(catalog, content=b"d")
    assert [id for rows in catalog.vectors() for id, _ in rows] == [1, 3]


def test_a_file_cannot_have_content_that_was_never_added(catalog: CatalogWriter) -> None:
    with pytest.raises(ValueError, match="not added"), catalog.transaction():
        catalog.put_file(photo("/a"), b"x" * 32)


def add_then_fail(catalog: CatalogWriter) -> None:
    with catalog.transaction():
        catalog.add_image(b"a" * 32, 1, 1, None, DECODING_VERSION, b"v")
        catalog.put_file(photo("/a"), b"a" * 32)
        catalog.put_file(photo("/b"), b"b" * 32)


def test_a_transaction_that_a_signal_broke_off_as_it_began_leaves_nothing(catalog: CatalogWriter, path: Path) -> None:
    """And takes none that comes after it along."""
    catalog._db.execute("BEGIN IMMEDIATE")  # as after a signal that arrives when this is done
    with pytest.raises(StoreError), catalog.transaction():
        pass
    with catalog.transaction(), catalog.transaction():
        catalog.add_root(Path("/photos"))
    with contextlib.closing(Catalog.read(path)) as reader:
        assert [root for root, _ in reader.roots()] == [Path("/photos")]


def test_a_failed_transaction_leaves_nothing(catalog: CatalogWriter) -> None:
    with pytest.raises(ValueError, match="not added"):
        add_then_fail(catalog)
    assert catalog.counts() == (0, 0, 0, 0)
    fill(catalog, "/a")  # and the next one works
    assert catalog.counts() == (1, 1, 0, 0)


TREE = ["/p", "/p/a", "/p/b/c", "/p-old/a", "/p.jpg", "/p0/a", "/q/a"]


@pytest.mark.parametrize(
    ("root", "gone"),
    [("/p", ["/p", "/p/a", "/p/b/c"]), ("/p/b", ["/p/b/c"]), ("/p.jpg", ["/p.jpg"]), ("/", TREE), ("/none", [])],
)
def test_forget_takes_a_folder_and_all_below_it_and_no_neighbour(
    catalog: CatalogWriter, root: str, gone: list[str]
) -> None:
    fill(catalog, *TREE)
    with catalog.transaction():
        catalog.add_root(Path("/p"))
        catalog.add_root(Path("/p-old"))
        assert catalog.forget(Path(root)) == len(gone)
    assert [path for path in TREE if catalog.known(Path(path)) is None] == gone
    left = {"/p": ["/p-old"], "/": []}.get(root, ["/p", "/p-old"])
    assert [path.as_posix() for path, _ in catalog.roots()] == left


def swept(catalog: CatalogWriter, root: str, *unread: str) -> Sweep:
    with catalog.transaction():
        return catalog.sweep(Path(root), [Path(folder) for folder in unread])


def test_sweep_removes_what_was_not_met_under_that_root_only(catalog: CatalogWriter) -> None:
    fill(catalog, *TREE)
    with catalog.transaction():
        catalog.add_root(Path("/p"))
    catalog.meet([WalkedFile(os.fsencode(Path("/p/a")), 1, 1)])
    assert swept(catalog, "/p") == Sweep(removed=2, kept=0)
    assert [path for path in TREE if catalog.known(Path(path)) is None] == ["/p", "/p/b/c"]
    ((_, scanned_at),) = catalog.roots()
    assert scanned_at is not None


def test_sweep_keeps_what_could_not_be_listed(catalog: CatalogWriter) -> None:
    fill(catalog, "/p/a", "/p/b/c", "/p/b/d/e", "/p/bb")
    catalog.meet([WalkedFile(os.fsencode(Path("/p/a")), 1, 1)])
    assert swept(catalog, "/p", "/p/b") == Sweep(removed=1, kept=0)
    assert catalog.known(Path("/p/bb")) is None
    assert catalog.known(Path("/p/b/d/e")) is not None


def test_what_one_sweep_spares_does_not_count_as_met_for_the_next(catalog: CatalogWriter) -> None:
    fill(catalog, "/p/a", "/p/b/c")
    catalog.meet([WalkedFile(os.fsencode(Path("/p/a")), 1, 1)])
    assert swept(catalog, "/p", "/p/b") == Sweep(removed=0, kept=0)
    assert swept(catalog, "/p/b") == Sweep(removed=0, kept=1)


def test_sweep_of_a_root_where_nothing_was_met_keeps_all_and_says_so(catalog: CatalogWriter) -> None:
    fill(catalog, "/p/a", "/p/b", "/q/a")
    with catalog.transaction():
        catalog.add_root(Path("/p"))
    catalog.meet([WalkedFile(os.fsencode(Path("/q/a")), 1, 1)])
    assert swept(catalog, "/p") == Sweep(removed=0, kept=2)
    assert list(catalog.roots()) == [(Path("/p"), None)]
    assert swept(catalog, "/empty") == Sweep(removed=0, kept=0)


def test_sweep_remembers_more_marks_than_it_buffers(catalog: CatalogWriter) -> None:
    paths = [f"/p/{number:05d}" for number in range(5000)]
    fill(catalog, *paths)
    for path in paths[:-3]:
        catalog.meet([WalkedFile(os.fsencode(Path(path)), 1, 1)])
    assert swept(catalog, "/p") == Sweep(removed=3, kept=0)
    assert catalog.counts().files == 4997


def test_reasons_are_counted_most_frequent_first(catalog: CatalogWriter) -> None:
    with catalog.transaction():
        for number, reason in enumerate(["empty", "b", "empty", "a"]):
            catalog.put_skipped(photo(f"/{number}"), reason)
    assert catalog.reasons() == (("empty", 2), ("a", 1), ("b", 1))
    assert catalog.counts() == (0, 0, 0, 4)


def test_a_reader_keeps_its_state_while_the_writer_goes_on(catalog: CatalogWriter, path: Path) -> None:
    fill(catalog, "/a")
    before = Catalog.read(path)
    fill(catalog, "/b", content=b"b")
    with catalog.transaction():
        catalog.forget(Path("/a"))
    after = Catalog.read(path)
    assert before.known(Path("/a")) is not None and before.known(Path("/b")) is None
    assert after.known(Path("/a")) is None and after.known(Path("/b")) is not None
    before.close()
    after.close()


def test_an_interrupt_while_globs_are_compared_is_no_damage(
    catalog: CatalogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.transaction():
        catalog.add_image(b"h" * 32, 1, 1, None, 1, b"v" * 32)
        catalog.put_file(File(Path("/photos/a.jpg"), 1, 1), b"h" * 32)
    assert len(list(catalog.images_within(Filter(under=("**/*.jpg",))))) == 1

    def interrupted(path: bytes) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridgetower.index.catalog.reader.fitting", lambda line: interrupted)
    for query in (lambda filter: list(catalog.images_within(filter)), lambda filter: catalog.content(1, filter)):
        with pytest.raises(KeyboardInterrupt):
            query(Filter(under=("**/*.jpg",)))


def test_an_absent_or_unfinished_manifest_is_no_index(path: Path) -> None:
    with pytest.raises(StoreError, match=r"no index at .*: index pictures there first"):
        Catalog.read(path)
    with pytest.raises(StoreError, match="no index at"):
        Catalog.read(path / "below a file that is not there")
    path.touch()  # what a crash in the middle of creating leaves
    with pytest.raises(StoreError, match="no index at"):
        Catalog.read(path)
    CatalogWriter.open(path, FINGERPRINT).close()
    Catalog.read(path).close()


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (a)")
    db.close()
    before = path.read_bytes()
    for open_it in (lambda: Catalog.read(path), lambda: CatalogWriter.open(path, FINGERPRINT)):
        with pytest.raises(StoreError, match="another program"):
            open_it()
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_and_left_alone(catalog: CatalogWriter, path: Path) -> None:
    catalog._db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    catalog.close()
    before = path.read_bytes()
    for open_it in (lambda: Catalog.read(path), lambda: CatalogWriter.open(path, FINGERPRINT)):
        with pytest.raises(
            StoreError, match=f"index format {FORMAT_VERSION + 1}, this bt reads formats 2 to 6: update bt"
        ):
            open_it()
    assert path.read_bytes() == before


def test_a_damaged_manifest_is_named_and_left_alone(catalog: CatalogWriter, path: Path) -> None:
    fill(catalog, *(f"/{number}" for number in range(500)))
    catalog.close()
    good = path.read_bytes()
    for bad in (b"this is not SQLite" * 100, good[:5000], good[:4096] + b"\xaa" * (len(good) - 4096)):
        path.write_bytes(bad)
        for open_it in (lambda: Catalog.read(path), lambda: CatalogWriter.open(path, FINGERPRINT)):
            with pytest.raises(StoreError, match=rf"{re.escape(str(path))}: damaged .* `bt verify --repair`"):
                open_it().counts()
        assert path.read_bytes() == bad


def add_much(catalog: CatalogWriter) -> None:
    with catalog.transaction():
        for number in range(2000):
            catalog.add_image(number.to_bytes(32, "big"), 1, 1, None, DECODING_VERSION, b"v" * 2000)


def test_a_full_disk_is_named_and_loses_nothing_committed(catalog: CatalogWriter, path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits on file sizes on this system")
    fill(catalog, "/before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"manifest\.sqlite: .*room"):
            add_much(catalog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fill(catalog, "/after")
    assert catalog.counts() == (2, 1, 0, 0)


def test_a_lock_that_does_not_go_away_is_named(catalog: CatalogWriter, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    catalog._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError, match="in use by another program"):
        fill(catalog, "/a")
    other.close()
    fill(catalog, "/a")


def test_looking_at_a_manifest_needs_neither_numpy_nor_faiss() -> None:
    code = "import sys, bridgetower.index.catalog.reader; assert not {'numpy', 'faiss'} & set(sys.modules)"
    core = str(Path(bridgetower.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": core})
