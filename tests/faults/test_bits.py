"""A disk that alters, loses or swaps what was written: an error that says so, or the same answer; never another one."""

import hashlib
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridgetower.errors import DamagedIndexError, StoreError
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.vectors.float16 import pack
from bridgetower.index.writer import IndexWriter
from tests.faults.small import (
    DIM,
    FINGERPRINT,
    KEPT,
    Answer,
    answer,
    bring_up_to_date,
    build,
    image,
    photo,
    searched,
)


@pytest.fixture(scope="module")
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Searched exactly, or as the parameter says."""
    directory = tmp_path_factory.mktemp("sound") / "index"
    way = getattr(request, "param", "exact")
    with searched(way):
        build(directory)
        assert list(check_index(directory)) == []
        assert (directory / "vectors-2.codes").exists() == (way == "lists")
        yield directory


either_way = pytest.mark.parametrize("sound", ["exact", "lists"], indirect=True)


@pytest.fixture
def directory(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "index")
    return tmp_path / "index"


def says(directory: Path) -> Answer | str:
    """The answer, or the error."""
    try:
        return answer(directory)
    except StoreError as error:
        return str(error)


def is_found(directory: Path) -> bool:
    try:
        return list(check_index(directory)) != []
    except StoreError:  # a format that is not known
        return True


def require_mended(directory: Path, expected: Answer) -> None:
    """All is repaired, or one run brings it back."""
    repaired = repair_index(directory)
    assert repaired.left == ()
    bring_up_to_date(directory)
    assert list(check_index(directory)) == []
    assert answer(directory) == expected


def require_harmless(directory: Path, expected: Answer) -> bool:
    """Damage is told, by a search or by `verify` or by both; or it changes nothing. Whether there is some to mend."""
    said = says(directory)
    if isinstance(said, str):
        assert "\n" not in said and str(directory) in said
    else:
        assert said == expected
    found = is_found(directory)
    assert found or said == expected
    return found


def flips(content: bytes, number: int) -> Iterator[bytes]:
    """`content` with a bit of it flipped, mostly where something is written."""
    numbers = random.Random(len(content))
    written = [place for place, byte in enumerate(content) if byte]
    for _ in range(number):
        flipped = bytearray(content)
        place = numbers.choice(written) if numbers.random() < 0.9 else numbers.randrange(len(content))
        flipped[place] ^= 1 << numbers.randrange(8)
        yield bytes(flipped)


@pytest.mark.parametrize(
    ("sound", "name", "number"),
    [
        ("exact", "manifest.sqlite", 120),
        ("exact", "vectors-2.faiss", 20),
        ("exact", "writer.lock", 20),
        ("exact", f"features/{KEPT}", 5),
        ("lists", "manifest.sqlite", 15),
        ("lists", "vectors-2.faiss", 10),
        ("lists", "vectors-2.codes", 20),
    ],
    indirect=["sound"],
)
def test_a_flipped_bit_never_changes_an_answer(directory: Path, sound: Path, name: str, number: int) -> None:
    expected, hopeless = answer(sound), 0
    for turn, content in enumerate(flips((sound / name).read_bytes(), number)):
        shutil.rmtree(directory)
        shutil.copytree(sound, directory)
        (directory / name).write_bytes(content)
        if require_harmless(directory, expected) and turn % 3 == 0:
            try:
                require_mended(directory, expected)
            except StoreError as error:  # a newer format is left alone
                if "index format" not in str(error):
                    raise
                hopeless += 1
    assert hopeless <= number // 50


@pytest.mark.parametrize("size", [0, 1, 100, 8192, 9000, 40_000, -8192, -1])
def test_a_manifest_that_was_cut_is_never_half_an_answer(directory: Path, sound: Path, size: int) -> None:
    content = (sound / "manifest.sqlite").read_bytes()[:size]
    (directory / "manifest.sqlite").write_bytes(content)
    said = says(directory)
    assert said == answer(sound) or "damaged" in said
    require_mended(directory, answer(sound))


@pytest.mark.parametrize("size", [0, 1, 100, 8192, 40_000])
def test_without_a_copy_a_manifest_that_was_cut_is_left_as_it_is(directory: Path, size: int) -> None:
    """One that is empty looks as a run leaves it that was killed when it made the index."""
    catalog = directory / "manifest.sqlite"
    content = catalog.read_bytes()[:size]
    catalog.write_bytes(content)
    (directory / "manifest.backup.sqlite").unlink()
    with pytest.raises(StoreError, match="no index at" if size < 2 else "no copy can be restored .* `bt index`"):
        repair_index(directory)
    assert catalog.read_bytes() == content


@pytest.mark.parametrize(
    ("sound", "name"),
    [
        *(("exact", name) for name in ("vectors-2.faiss", "writer.lock", f"features/{KEPT}", "features")),
        *(("lists", name) for name in ("vectors-2.faiss", "vectors-2.codes")),
    ],
    indirect=["sound"],
)
def test_what_is_derived_may_be_lost_or_cut(directory: Path, sound: Path, name: str) -> None:
    path = directory / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if require_harmless(directory, answer(sound)):
            require_mended(directory, answer(sound))
        for left in (path, *directory.glob("vectors-*")):
            left.unlink(missing_ok=True)
    if require_harmless(directory, answer(sound)):
        require_mended(directory, answer(sound))


@pytest.mark.parametrize(
    ("sound", "suffix"), [("exact", "faiss"), ("lists", "faiss"), ("lists", "codes")], indirect=["sound"]
)
def test_an_old_vector_file_in_the_place_of_the_new_one_changes_nothing(
    directory: Path, sound: Path, suffix: str
) -> None:
    old = (directory / f"vectors-2.{suffix}").read_bytes()
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(100)], files=[(photo(100), image(100).hash)])
        writer.publish()
    expected = answer(directory)
    (directory / f"vectors-3.{suffix}").write_bytes(old)
    assert answer(directory) == expected
    assert {finding.part for finding in check_index(directory)} == {"vectors"}
    assert repair_index(directory).left == ()
    assert answer(directory) == expected


@either_way
def test_an_old_manifest_in_the_place_of_the_new_one_is_the_old_index(directory: Path, sound: Path) -> None:
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(100)], files=[(photo(100), image(100).hash)])
        writer.publish()
    shutil.copy(sound / "manifest.sqlite", directory)
    assert answer(directory) == answer(sound)
    assert [finding.part for finding in check_index(directory)] == ["vectors"]
    require_mended(directory, answer(sound))


def test_a_lost_manifest_is_restored(directory: Path, sound: Path) -> None:
    (directory / "manifest.sqlite").unlink()
    ways = (answer, IndexWriter.resume, lambda place: IndexWriter.open(place, FINGERPRINT))
    for way in ways:
        with pytest.raises(DamagedIndexError, match="gone or empty, though its copy is there"):
            way(directory)
    assert [finding.part for finding in check_index(directory)] == ["manifest"]
    assert (restored := repair_index(directory).restored) is not None and restored.kept is None
    assert answer(directory) == answer(sound)


def test_a_lost_manifest_without_a_copy_is_no_index(directory: Path) -> None:
    (directory / "manifest.sqlite").unlink()
    (directory / "manifest.backup.sqlite").unlink()
    for look in (answer, lambda place: list(check_index(place)), repair_index):
        with pytest.raises(StoreError, match="no index at"):
            look(directory)


# A row that stands alone in its table: so few bytes that a flip of any seldom meets them

ROWS = {
    "fingerprint": rb"some/modelabc123f{64}c{64}hffloat.{5}",
    "state": rb".{11}%b.{4}",  # around the digest of the vector file
    "roots": rb"/photos(?!/).{4}",
}


@pytest.mark.parametrize("table", ROWS)
def test_a_flipped_bit_in_the_row_of_a_table_is_an_error(directory: Path, table: str) -> None:
    path = directory / "manifest.sqlite"
    content = path.read_bytes()
    digest = hashlib.sha256((directory / "vectors-2.faiss").read_bytes()).digest()
    pattern = ROWS[table].replace(b"%b", re.escape(digest))
    [row] = re.finditer(pattern, content, re.DOTALL)
    for place in range(*row.span()):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        said = says(directory)
        assert isinstance(said, str) and "damaged" in said, place - row.start()


# What a single flip seldom meets


def alter(directory: Path, sql: str) -> None:
    with IndexWriter.resume(directory) as writer, writer.catalog.transaction():
        writer.catalog._db.execute("PRAGMA defer_foreign_keys = ON")
        writer.catalog._db.execute(sql)


@either_way
@pytest.mark.parametrize(("more", "parts"), [(-1, {"vectors"}), (1000, set())])
def test_what_the_vector_file_covers_is_not_taken_on_trust(
    directory: Path, sound: Path, more: int, parts: set[str]
) -> None:
    with IndexWriter.resume(directory) as writer, writer.catalog.transaction():
        writer.catalog._set_state(covered=writer.catalog.state().covered + more)
    said = says(directory)
    assert said == answer(sound) or "damaged" in said
    assert {finding.part for finding in check_index(directory)} == parts


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("UPDATE state SET covered = covered - 1", "manifest"),
        ("UPDATE state SET generation = generation + 1", "manifest"),
        ("UPDATE state SET created_at = created_at + 1", "manifest"),
        ("UPDATE state SET images = images + 1", "counts"),
        ("UPDATE state SET images = -1", "manifest"),
        ("UPDATE orphans SET image = 20 WHERE image = 2", "counts"),
        ("UPDATE orphans SET image = 1000 WHERE image = 2", "counts"),
        ("DELETE FROM orphans WHERE image = 2", "counts"),
        ("INSERT INTO orphans VALUES (1000)", "counts"),
        ("UPDATE pruned SET image = 20", "counts"),
        ("DELETE FROM pruned", "vectors"),
        ("INSERT INTO pruned VALUES (0)", "vectors"),
        ("UPDATE files SET image = 20 WHERE path = CAST('/photos/0/001.jpg' AS BLOB)", "files"),
        ("UPDATE files SET mtime_ns = 8 WHERE path = CAST('/photos/0/001.jpg' AS BLOB)", "files"),
        ("UPDATE files SET reason = 'another' WHERE reason IS NOT NULL", "files"),
        ("UPDATE images SET width = 641 WHERE id = 20", "images"),
        ("UPDATE images SET vector = zeroblob(32) WHERE id = 20", "images"),
        ("UPDATE fingerprint SET preprocessing = 'hg'", "manifest"),
        ("UPDATE fingerprint SET dim = 17", "manifest"),
        ("UPDATE fingerprint SET model = 'another'", "manifest"),
        ("UPDATE roots SET path = CAST('/photps' AS BLOB)", "roots"),
        ("UPDATE roots SET scanned_at = 5", "roots"),
        ("UPDATE queries SET vector = zeroblob(32) WHERE id = 2", "queries"),
        ("INSERT INTO tuning VALUES (1, 1, 1, 1, 1, 1.0, 1, 1, 0)", "manifest"),
        ("DELETE FROM state", "manifest"),
        ("DROP TRIGGER file_gone", "manifest"),
        ("DROP INDEX files_by_image", "manifest"),
    ],
)
def test_what_is_not_as_it_was_written_is_found_and_mended(directory: Path, sound: Path, sql: str, part: str) -> None:
    expected = answer(sound)
    alter(directory, sql)
    said = says(directory)
    assert isinstance(said, str) or said == expected
    assert part in {finding.part for finding in check_index(directory)}
    require_mended(directory, expected)


@pytest.mark.parametrize("sound", ["lists"], indirect=True)
@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("UPDATE state SET covered = covered - 1", "manifest"),
        ("DELETE FROM orphans WHERE image = 2", "counts"),
        ("UPDATE pruned SET image = 20", "counts"),
        ("DELETE FROM pruned", "vectors"),
        ("INSERT INTO pruned VALUES (0)", "vectors"),
        ("UPDATE images SET width = 641 WHERE id = 20", "images"),
        ("UPDATE tuning SET lists = 8", "manifest"),
        ("UPDATE tuning SET effort = 1", "manifest"),
        ("UPDATE tuning SET candidates = 1", "manifest"),
        ("UPDATE tuning SET recall = 0.5", "manifest"),
        ("DELETE FROM tuning", "vectors"),
    ],
)
def test_what_lists_rest_on_is_checked_too(directory: Path, sound: Path, sql: str, part: str) -> None:
    test_what_is_not_as_it_was_written_is_found_and_mended(directory, sound, sql, part)


def test_a_writer_refuses_what_contradicts_itself(directory: Path) -> None:
    alter(directory, "UPDATE orphans SET image = 20 WHERE image = 2")
    for open_it in (lambda: IndexWriter.resume(directory), lambda: IndexWriter.open(directory, FINGERPRINT)):
        with pytest.raises(DamagedIndexError, match="an image with a file is in orphans"):
            open_it()


def without_copy(directory: Path) -> None:
    (directory / "manifest.backup.sqlite").unlink()


def test_repair_names_what_it_drops(directory: Path) -> None:
    without_copy(directory)
    alter(directory, "UPDATE images SET width = 641 WHERE id = 20")
    alter(directory, "UPDATE files SET size = 5 WHERE path = CAST('/photos/0/001.jpg' AS BLOB)")
    [lost] = [finding for finding in check_index(directory) if finding.part == "images"]
    assert lost.image == 20 and lost.path == photo(9).path
    repaired = repair_index(directory)
    assert (repaired.dropped, repaired.restored, repaired.left) == ((photo(1).path, photo(9).path), None, ())


@pytest.mark.parametrize(
    "sql", ["width = 641", "vector = zeroblob(32)", "hash = zeroblob(32), vector = zeroblob(7), taken_at = NULL"]
)
def test_a_damaged_image_is_taken_from_the_copy(directory: Path, sound: Path, sql: str) -> None:
    """One that is newer stays, and is not encoded again either."""
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(100)], files=[(photo(100), image(100).hash)])
    expected = answer(directory)
    alter(directory, f"UPDATE images SET {sql} WHERE id = 20")
    repaired = repair_index(directory)
    assert (repaired.restored, repaired.left) == (None, ())
    with IndexWriter.resume(directory) as writer:
        assert (writer.catalog.image_id(image(9).hash), writer.catalog.count_images()) == (20, 70)
    assert set(repaired.dropped) <= {photo(9).path}
    bring_up_to_date(directory)
    assert answer(directory) == expected


def test_what_another_image_has_become_is_not_taken_from_the_copy(directory: Path, sound: Path) -> None:
    alter(directory, "UPDATE images SET hash = zeroblob(32) WHERE id = 20")
    with IndexWriter.open(directory, FINGERPRINT) as writer:
        writer.commit(images=[image(9)], files=[(photo(9), image(9).hash)])
    assert repair_index(directory).left == ()
    with IndexWriter.resume(directory) as writer:
        assert (writer.catalog.image_id(image(9).hash), writer.catalog.count_images()) == (71, 69)
    require_mended(directory, answer(sound))


def test_repair_names_the_roots_that_it_drops(directory: Path) -> None:
    alter(directory, "UPDATE roots SET scanned_at = 5")
    with pytest.raises(DamagedIndexError, match="the row of the folder '/photos' is not"):
        answer(directory)
    repaired = repair_index(directory)
    assert (repaired.roots, repaired.dropped, repaired.left) == ((Path("/photos"),), (), ())
    with IndexWriter.resume(directory) as writer:
        assert list(writer.catalog.roots()) == []
        assert writer.catalog.holds(Path("/photos"))


def test_repair_keeps_the_queries_that_are_whole(directory: Path) -> None:
    alter(directory, "UPDATE queries SET vector = zeroblob(32) WHERE id = 2")
    assert repair_index(directory).left == ()
    with IndexWriter.resume(directory) as writer:
        assert writer.catalog.queries() == [pack(image(number).vector, DIM) for number in (200, 202)]


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_repair_leaves_what_has_taken_the_place_of_damaged_features(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory / "features" / KEPT
    path.write_bytes(b"damaged")

    def mend(_: IndexWriter, *__: object) -> None:
        path.unlink()
        path.symlink_to(directory.parent / "letter")

    alter(directory, "UPDATE queries SET vector = zeroblob(32) WHERE id = 2")  # so that there is something to mend
    monkeypatch.setattr(IndexWriter, "mend", mend)
    repair_index(directory)
    assert path.is_symlink()


def test_repair_removes_damaged_features(directory: Path) -> None:
    (directory / "features" / KEPT).write_bytes(b"damaged")
    assert repair_index(directory).left == ()
    assert not (directory / "features" / KEPT).exists()
