"""Check an index against what was written, and repair it.

    check    reads one committed state in full and changes nothing
    repair   makes derived files again; takes rows that a disk has altered from the copy of the manifest, or drops them,
             so that the next `bt index` reads their files again

The check reads the manifest some rows at a time, and the vector file as a whole, as a search does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridgetower.errors import DamagedIndexError, DamagedLogError
from bridgetower.files.regular_files import is_own
from bridgetower.index.catalog.connection import backup_of
from bridgetower.index.catalog.rows import ImageRow
from bridgetower.index.catalog.schema import HASH_BYTES
from bridgetower.index.catalog.write_ahead_log import log_of
from bridgetower.index.directory import MANIFEST
from bridgetower.index.reader import IndexReader
from bridgetower.index.recovery.backup import Restored, damage, is_later, keep_log, restore, take_back
from bridgetower.index.vectors.float16 import unpack
from bridgetower.index.vectors.protocol import RecallStore
from bridgetower.index.writer import IndexWriter
from bridgetower.records import OnProgress, quiet

_DERIVED = ("counts", "vectors", "features", "backup")  # parts


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of an index."""

    part: str  # of the manifest: a table, "counts", "log", "manifest"; or "backup", "vectors", "features"
    problem: str
    path: Path | None = None  # of the picture, or of the file in the index, that has the fault
    image: int | None = None  # id

    @property
    def derived(self) -> bool:
        """Whether the part can be made again from the rest of the index; what is lost of others must be read again."""
        return self.part in _DERIVED


@dataclass(frozen=True, slots=True)
class Repaired:
    """The result of a repair."""

    findings: tuple[Finding, ...]
    dropped: tuple[Path, ...]  # files that the next `bt index` reads again
    roots: tuple[Path, ...]  # dropped ones, which must be given to `bt index` again
    log: Path | None  # where the damaged log is kept
    restored: Restored | None  # the copy that replaced the manifest
    left: tuple[Finding, ...]  # faults that a check still finds after it
    note: str | None = None  # why the new copy of the manifest could not be made


def check_index(
    directory: Path, *, recall_store: RecallStore | None = None, on_progress: OnProgress = quiet
) -> Iterator[Finding]:
    """Yield the faults of the index in `directory`.

    Raises NoIndexError if there is no index; StoreError if it cannot be read for a reason other than damage.
    """
    yield from _look_at_all(directory, recall_store, on_progress)
    copied = backup_of(directory / MANIFEST)
    if is_own(copied):  # a new index has no copy yet
        yield from (Finding("backup", found, copied) for found in damage(copied, rows=True))


def _look_at_all(directory: Path, recall_store: RecallStore | None, on_progress: OnProgress) -> Iterator[Finding]:
    catalog = directory / MANIFEST
    try:
        reader = IndexReader.open(directory, recall_store)
    except DamagedLogError as error:
        yield Finding("log", error.damage, log_of(catalog))
        return
    except DamagedIndexError as error:
        yield Finding("manifest", error.damage, catalog)
        return
    with reader:
        comparable = True
        for look in (
            _look_at_structure,
            _look_at_images,
            _look_at_files,
            _look_at_parts,
            _look_at_roots,
            _look_at_queries,
            _look_at_counts,
            _look_at_vectors,
        ):
            if look is _look_at_vectors and not comparable:  # rows are damaged, or the counts are wrong
                continue
            try:
                for finding in look(reader, on_progress):
                    comparable = comparable and finding.part not in ("images", "counts")
                    yield finding
            except DamagedIndexError as error:
                yield Finding("manifest", error.damage, reader.catalog.path)
        yield from _look_at_features(reader)


# Each check takes the reader and a function that is called with the progress.


def _look_at_structure(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    return (Finding("manifest", damage, reader.catalog.path) for damage in reader.catalog.damage())


def _look_at_images(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    total, done = reader.catalog.count_images(), 0
    for rows in reader.catalog.image_rows():
        for row in _not_whole(rows, reader.fingerprint.dim):
            files = reader.catalog.paths_of(row[0].id)
            yield Finding("images", row[1], files[0] if files else None, row[0].id)
        done += len(rows)
        on_progress(done, total)


def _not_whole(rows: list[ImageRow], dim: int) -> Iterator[tuple[ImageRow, str]]:
    try:
        unpack([row.vector for row in rows if row.whole], dim)
        good = True
    except ValueError:
        good = False
    for row in rows:
        if not row.whole:
            yield row, "the picture's row is not as it was written"
        elif len(row.hash) != HASH_BYTES:
            yield row, f"the picture's hash has {len(row.hash)} bytes, not {HASH_BYTES}"
        elif not good:
            try:
                unpack([row.vector], dim)
            except ValueError as error:
                yield row, str(error)


def _look_at_files(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    for rows in reader.catalog.file_rows():
        for path, whole in rows:
            if not whole:
                yield Finding("files", "the file's row is not as it was written", path)


def _look_at_parts(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    for image, part, whole in reader.catalog.part_rows():
        if not whole:
            files = reader.catalog.paths_of(image)
            yield Finding("parts", f"the row of its part {part} is not as it was written", files[0] if files else None)


def _look_at_roots(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    for path, _, whole in reader.catalog.root_rows():
        if not whole:
            yield Finding("roots", "the folder's row is not as it was written", path)


def _look_at_queries(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    if lost := reader.catalog.count_lost_queries():
        yield Finding("queries", f"{lost} of the texts by which recall is measured are not as they were written")


def _look_at_counts(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    return (Finding("counts", wrong) for wrong in reader.catalog.miscounted())


def _look_at_vectors(reader: IndexReader, on_progress: OnProgress) -> Iterator[Finding]:
    differences = list(reader.recall_store.differences(reader.directory, reader.catalog))
    if not differences:
        return
    path = next(iter(reader.vector_files()), None)  # a store need not keep files
    with IndexReader.open(reader.directory, reader.recall_store) as now:
        if _published(now) == _published(reader):  # else a writer has just put others in their place
            yield from (Finding("vectors", found, path) for found in differences)


def _published(reader: IndexReader) -> tuple[int, list[Path]]:
    return reader.catalog.state().generation, reader.vector_files()


def _look_at_features(reader: IndexReader) -> Iterator[Finding]:
    for file in reader.features().files():
        if file.is_damaged():
            yield Finding("features", "what was kept of a picture is not as it was written", file.path)


def repair_index(
    directory: Path, *, recall_store: RecallStore | None = None, on_progress: OnProgress = quiet
) -> Repaired:
    """Repair the faults that `check_index` finds. The next `bt index` on its folders adds the files that were dropped.

    If SQLite cannot read the manifest, or it is missing, its copy replaces it, and the damaged manifest is kept beside
    it. If the log has lost commits, the log is kept too, and its readable commits go into the manifest, unless the copy
    is later than these. Raises NoIndexError if there is no index; StoreError if another writer is at work, the disk
    refuses a write, or there is no copy to restore.
    """
    findings: list[Finding] = []
    now: list[Finding] = []  # faults of the manifest that is repaired in place
    restored: Restored | None = None
    log: Path | None = None

    def look(catalog: Path) -> None:
        nonlocal restored, log

        def look_again() -> None:
            now[:] = check_index(catalog.parent, recall_store=recall_store, on_progress=on_progress)
            findings.extend(finding for finding in now if finding not in findings)

        look_again()
        if _of("log", now):
            log = keep_log(catalog)
            look_again()
        if damaged := _of("manifest", now):
            restored = restore(catalog, damaged[0].problem)
        elif log is not None and is_later(catalog):
            restored = restore(catalog, "the log of it was")
        if restored is not None:
            look_again()

    with IndexWriter.resume(directory, mend=look, recall_store=recall_store) as writer:
        images = [finding.image for finding in _of("images", now) if finding.image is not None]
        lost = {*images} - take_back(writer.catalog, images)
        lost -= writer.take_back(lost)
        files, roots = _paths("files", now), _paths("roots", now)
        dropped = sorted({*files, *(path for image in sorted(lost) for path in writer.catalog.paths_of(image))})
        if any(_of(part, now) for part in ("images", "files", "parts", "roots", "queries", "counts")):
            writer.mend(files, sorted(lost), roots)
        if log or restored or any(_of(part, now) for part in ("images", "files", "counts", "vectors")):
            writer.publish_from_scratch()
        damaged = {*_paths("features", now)}
        for file in writer.features().files():
            if file.path in damaged:
                file.remove()
        writer.remove_strays()
        note = writer.back_up() if _of("backup", now) else writer.back_up_if_behind()
    left = tuple(check_index(directory, recall_store=recall_store, on_progress=on_progress))
    return Repaired(tuple(findings), tuple(dropped), tuple(roots), log, restored, left, note)


def _of(part: str, findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.part == part]


def _paths(part: str, findings: list[Finding]) -> list[Path]:
    return [finding.path for finding in _of(part, findings) if finding.path is not None]
