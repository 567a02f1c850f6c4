"""Vectors that were made elsewhere -> index: what `export` wrote, or those of another model, each with a path.

Everything is checked before anything is written. Then it is committed batch by batch: killing the process loses the
batch in flight, and the same import goes on from there. What the index has already, it keeps.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bridgetower import npy
from bridgetower.ahead import ahead, workers
from bridgetower.decode import decode, read
from bridgetower.directory import made_by
from bridgetower.errors import InputError, PictureError, UsageError
from bridgetower.exporting import FORMAT, IMAGES, INDEX, QUERIES, SKIPPED, VECTORS, VERSION
from bridgetower.manifest import Known
from bridgetower.npy import Rows
from bridgetower.records import FOREIGN, Fingerprint, Photo, Skipped
from bridgetower.vectors import LENGTH_TOLERANCE
from bridgetower.writer import NewImage, Writer

BATCH_FILES = 1024  # that are committed together; of foreign vectors, whose pictures must be read, fewer:
FOREIGN_BATCH_FILES = 128
MAX_QUERIES = 256
SAME = 0.99  # cosine above which two vectors of one picture count as the same: that of int8 with fp32

_LARGEST = 2**63 - 1
_FORM = 'a path in quotes, or {"path": "photos/cat.jpg"}'

_T = TypeVar("_T")
Report = Callable[[int, int], None]
Moves = Mapping[str, Path]  # paths that begin with the one lie on this machine below the other


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did."""

    images: int  # that the index did not have
    known: int  # that it had: these keep their vectors
    differing: int  # of those that it had, how many came with quite another vector
    files: int  # that lead to an image
    unused: tuple[str, ...]  # of the moves, those with which no path begins
    skipped: tuple[Skipped, ...] = ()  # files of foreign vectors that are not there, or no pictures
    queries: int = 0  # vectors of texts that were taken


def import_folder(
    folder: Path, directory: Path, *, moves: Moves | None = None, on_progress: Report = lambda done, total: None
) -> ImportReport:
    """Add what `export` wrote into `folder` to the index in `directory`, or make it there.

    A path that begins with a key of `moves` begins with its value here. `on_progress(done, total)` counts rows, and
    each twice: it is checked, then added. Raises InputError, with file and line or row, before anything is written;
    StoreError where the index was made by another model, or cannot be written.
    """
    exported = _Export(folder, _Moved(moves or {}))
    return _import(directory, exported.fingerprint, exported, on_progress)


def import_vectors(
    vectors: Path,
    paths: Path,
    name: str,
    directory: Path,
    *,
    queries: Path | None = None,
    moves: Moves | None = None,
    on_progress: Report = lambda done, total: None,
) -> ImportReport:
    """Add vectors of the model `name`, any model, to the index in `directory`, or make it there.

    `vectors` is an npy file [N, E], whose rows are made as long as 1; `paths` has a line of JSON for each row, the path
    of its picture, or an object with it as "path"; a relative one is below the folder of `paths`. `queries` [Q, E] are
    vectors of texts, of which MAX_QUERIES are kept. `moves` and `on_progress` as above, and what is raised; UsageError
    for an empty name.
    """
    if not name.strip() or not name.isprintable():
        raise UsageError(f"{name!r} names no model: vectors of different models are told apart by the name")
    foreign = _Foreign(Rows(vectors), paths, None if queries is None else Rows(queries), _Moved(moves or {}))
    fingerprint = Fingerprint(name, FOREIGN, name, FOREIGN, FOREIGN, 0, FOREIGN, foreign.vectors.dim)
    return _import(directory, fingerprint, foreign, on_progress)


def _import(directory: Path, fingerprint: Fingerprint, given: "_Export | _Foreign", report: Report) -> ImportReport:
    """An index with images says at once whether it takes such vectors; one without is bound or made after the check."""
    with ExitStack() as stack:
        writer = None
        if made_by(directory) is not None:
            writer = stack.enter_context(Writer.open(directory, fingerprint, imported=True))
        total = 2 * len(given.vectors)
        given.check(lambda row: report(row, total))
        writer = writer or stack.enter_context(Writer.open(directory, fingerprint, imported=True))
        try:
            return given.add(writer, lambda row: report(total // 2 + row, total))
        finally:
            writer.finish()


@dataclass(frozen=True, slots=True)
class _Image:
    """A line of images.jsonl."""

    hash: bytes
    width: int
    height: int
    taken_at: int | None
    photos: tuple[Photo, ...]


class _Export:
    """A folder that `export` wrote."""

    def __init__(self, folder: Path, moved: "_Moved") -> None:
        """Read what it says of itself. Raises InputError."""
        self._folder, self._moved = folder, moved
        index = folder / INDEX
        advice = "give a folder that `bt export` has written"
        try:
            described = json.loads(index.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{index}: no such file; {advice}") from error
        except OSError as error:
            raise npy.unreadable(index, error) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{index}: is not JSON; {advice}") from error
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise InputError(f"{index}: is not of an export; {advice}")
        if described.get("version") != VERSION:
            found = described.get("version")
            raise InputError(f"{index}: export of version {found!s:.9}, this bt reads version {VERSION}; update bt")
        try:
            moved.separator = _field(described, "separator", str)
            self.fingerprint = _fingerprint(_field(described, "fingerprint", dict))
            self._number = {name: _number(described, name) for name in ("images", "skipped", "queries")}
            self._roots = [Path(moved(_field(root, "path", str))) for root in _field(described, "roots", list)]
            self._sums = _field(described, "sha256", dict)
            needed = {VECTORS, IMAGES, SKIPPED} | ({QUERIES} if self._number["queries"] else set())
            if set(self._sums) != needed:
                raise ValueError(f'"sha256" does not name {", ".join(sorted(needed))}')
        except ValueError as error:
            raise InputError(f"{index}: {error}") from error
        self.vectors = self._array(VECTORS, self._number["images"])

    def _array(self, name: str, number: int) -> Rows:
        rows = Rows(self._folder / name)
        if (rows.number, rows.dim, rows.dtype) != (number, self.fingerprint.dim, np.dtype("<f2")):
            raise InputError(
                f"{rows.path}: holds {rows.dtype} [{rows.number}, {rows.dim}], not the float16 [{number}, "
                f"{self.fingerprint.dim}] that {INDEX} speaks of; copy all files of one export"
            )
        return rows

    def check(self, report: Callable[[int], None]) -> None:
        """Raise InputError for whatever is wrong."""
        for name, expected in self._sums.items():
            if _sha256(self._folder / name) != expected:
                raise InputError(f"{self._folder / name}: is not as it was exported; copy or export it again")
        _require_once(self._folder / IMAGES, lambda: (self._keys(image) for image, _ in self._rows()), report)
        skipped = sum(1 for _ in self._skipped())
        if skipped != self._number["skipped"]:
            raise InputError(f"{self._folder / SKIPPED}: {skipped} lines, not {self._number['skipped']}; export again")
        if self._number["queries"]:
            self._queries()

    def _keys(self, image: _Image) -> list[tuple[str, bytes]]:
        return [("content", image.hash), *(("path", os.fsencode(photo.path)) for photo in image.photos)]

    def _rows(self) -> Iterator[tuple[_Image, npt.NDArray[np.floating]]]:
        """Every image with its vector float16 [E]."""
        for row, (image, vector) in enumerate(zip_longest(self._images(), _stored(self.vectors))):
            if image is None or vector is None:
                how = f"ends after {row} lines" if image is None else f"goes on after {row} lines"
                raise InputError(
                    f"{self._folder / IMAGES}: {how}; {VECTORS} has {len(self.vectors)} rows, one for each"
                )
            yield image, vector

    def _images(self) -> Iterator[_Image]:
        return _lines(self._folder / IMAGES, self._image)

    def _image(self, number: int, row: Any) -> _Image:
        if _number(row, "row") != number - 1:
            raise ValueError(f'"row" is not {number - 1}')
        digits = _field(row, "hash", str)
        hash = bytes.fromhex(digits) if set(digits) <= set("0123456789abcdef") and len(digits) == 64 else None
        if hash is None:
            raise ValueError('"hash" is not a SHA-256 in 64 hexadecimal digits')
        taken_at = None if row.get("taken_at") is None else _number(row, "taken_at", least=-_LARGEST)
        photos = tuple(self._photo(file) for file in _field(row, "paths", list))
        return _Image(hash, _number(row, "width"), _number(row, "height"), taken_at, photos)

    def _photo(self, file: Any) -> Photo:
        path = Path(self._moved(_field(file, "path", str)))
        return Photo(path, _number(file, "size"), _number(file, "mtime_ns", least=-_LARGEST))

    def _skipped(self) -> Iterator[tuple[Photo, str]]:
        return _lines(self._folder / SKIPPED, lambda number, row: (self._photo(row), _field(row, "reason", str)))

    def _queries(self) -> npt.NDArray[np.floating]:
        return np.stack(list(_stored(self._array(QUERIES, self._number["queries"]))))

    def add(self, writer: Writer, report: Callable[[int], None]) -> ImportReport:
        """Add all to the index."""
        for root in self._roots:
            writer.add_root(root)
        batch = _Batch(writer, BATCH_FILES)
        for row, (image, vector) in enumerate(self._rows(), start=1):
            new = NewImage(image.hash, image.width, image.height, image.taken_at, vector)
            id = writer.image_id(image.hash)
            # What leads to this content already keeps the size and time that it has on this machine.
            photos = [photo for photo in image.photos if id is None or not _leads_to(id, writer.known(photo.path))]
            batch.add(new, photos)
            batch.files += len(image.photos) - len(photos)
            report(row)
        for photo, reason in self._skipped():
            known = writer.known(photo.path)
            if known is None or known.image is None:  # this machine could read it
                batch.skip(photo, reason)
        batch.commit()
        queries = 0
        if self._number["queries"] and not writer.has_queries():
            writer.set_queries(self._queries())
            queries = self._number["queries"]
        return batch.report(self._moved, queries=queries)


def _leads_to(image: int, known: Known | None) -> bool:
    return known is not None and known.image == image


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file to which a foreign vector belongs; exactly one of `image`, `known` and `reason` is not None."""

    photo: Photo
    vector: npt.NDArray[np.float32]  # [E]
    image: NewImage | None = None  # its content
    known: int | None = None  # the image that it leads to, as it did before
    reason: str | None = None  # why it was skipped
    lasting: bool = False  # it lies in the content, and was not known


class _Foreign:
    """Vectors of another model, and the paths of their pictures."""

    def __init__(self, vectors: Rows, paths: Path, queries: Rows | None, moved: "_Moved") -> None:
        self.vectors = vectors
        self._paths, self._queries, self._moved = paths, queries, moved

    def check(self, report: Callable[[int], None]) -> None:
        """Raise InputError for whatever is wrong, except with the pictures."""
        _require_once(self._paths, lambda: ([("path", os.fsencode(path))] for path, _ in self._rows()), report)
        self._texts()

    def _rows(self) -> Iterator[tuple[Path, npt.NDArray[np.float32]]]:
        """Every path with its unit vector [E]."""
        for row, (path, vector) in enumerate(zip_longest(_lines(self._paths, self._path), _units(self.vectors))):
            if path is None or vector is None:
                how = f"ends after {row} lines" if path is None else f"goes on after {row} lines"
                raise InputError(
                    f"{self._paths}: {how}; {self.vectors.path} has {len(self.vectors)} rows, one for each"
                )
            yield path, vector

    def _path(self, number: int, row: Any) -> Path:
        path = row if isinstance(row, str) else _field(row, "path", str)
        if not path:
            raise ValueError("the path is empty")
        return Path(self._moved(path, below=self._paths.parent))

    def _texts(self) -> list[npt.NDArray[np.float32]]:
        """Unit vectors [E]."""
        if self._queries is None:
            return []
        if self._queries.dim != self.vectors.dim:
            raise InputError(
                f"{self._queries.path}: vectors of length {self._queries.dim}, those of the pictures have "
                f"{self.vectors.dim}; give vectors of texts by the same model"
            )
        return [vector for vector, _ in zip(_units(self._queries), range(MAX_QUERIES), strict=False)]

    def add(self, writer: Writer, report: Callable[[int], None]) -> ImportReport:
        """Add what there is a picture of to the index."""
        batch = _Batch(writer, FOREIGN_BATCH_FILES)
        skipped: list[Skipped] = []
        known = ((path, vector, writer.known(path)) for path, vector in self._rows())
        with workers() as threads:
            for row, seen in enumerate(ahead(threads, _see, known, 2 * (os.cpu_count() or 1)), start=1):
                if seen.reason is not None:
                    skipped.append(Skipped(seen.photo.path, seen.reason))
                    if seen.lasting:
                        batch.skip(seen.photo, seen.reason)
                elif seen.known is not None:
                    batch.keep(seen.known, seen.vector)
                elif seen.image is not None:
                    batch.add(seen.image, [seen.photo])
                report(row)
        batch.commit()
        if texts := self._texts():
            writer.set_queries(np.stack(texts))
        return batch.report(self._moved, skipped=tuple(skipped), queries=len(texts))


def _see(row: tuple[Path, npt.NDArray[np.float32], Known | None]) -> _Seen:
    """Read a picture that is to have this vector, unless the index knows it."""
    path, vector, known = row
    photo = Photo(path, 0, 0)
    try:
        status = path.stat()
        photo = Photo(path, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        pass  # `read` says it better
    if known is not None and (known.size, known.mtime_ns) == (photo.size, photo.mtime_ns):
        return _Seen(photo, vector, known=known.image, reason=known.reason)
    try:
        data = read(path)
    except PictureError as error:
        return _Seen(photo, vector, reason=error.reason)
    try:
        decoded = decode(data, path, min_side=1)  # whether it is a picture, and how large
    except PictureError as error:
        lasting = not isinstance(error.__cause__, MemoryError)
        return _Seen(photo, vector, reason=error.reason, lasting=lasting)
    content = hashlib.sha256(data).digest()
    return _Seen(photo, vector, NewImage(content, decoded.width, decoded.height, decoded.taken_at, vector))


class _Batch:
    """What is committed together next, and the counts of it all."""

    def __init__(self, writer: Writer, size: int) -> None:
        self._writer, self._size = writer, size
        self._new: dict[bytes, NewImage] = {}  # by hash
        self._known: list[tuple[int, npt.NDArray[np.floating]]] = []  # images that the index has, as they came now
        self._files: list[tuple[Photo, bytes]] = []
        self._skipped: list[tuple[Photo, str]] = []
        self.images = self.known = self.differing = self.files = 0

    def add(self, image: NewImage, photos: Iterable[Photo]) -> None:
        """An image and files that lead to it; those alone where the index has the image."""
        self._files += ((photo, image.hash) for photo in photos)
        if (twin := self._new.get(image.hash)) is not None:
            self.known += 1
            self.differing += _differ(twin.vector, image.vector)
        elif (id := self._writer.image_id(image.hash)) is not None:
            self._know(id, image.vector)
        else:
            self._new[image.hash] = image
        self._commit_if_full()

    def keep(self, id: int, vector: npt.NDArray[np.floating]) -> None:
        """A file that leads to this image as before."""
        self.files += 1
        self._know(id, vector)
        self._commit_if_full()

    def skip(self, photo: Photo, reason: str) -> None:
        self._skipped.append((photo, reason))
        self._commit_if_full()

    def _know(self, id: int, vector: npt.NDArray[np.floating]) -> None:
        self.known += 1
        self._known.append((id, vector))

    def _commit_if_full(self) -> None:
        if len(self._new) + len(self._known) + len(self._files) + len(self._skipped) >= self._size:
            self.commit()

    def commit(self) -> None:
        stored = dict(self._writer.vectors([id for id, _ in self._known]))
        self.differing += sum(_differ(stored[id], vector) for id, vector in self._known)
        if self._new or self._files or self._skipped:
            self._writer.commit(images=self._new.values(), files=self._files, skipped=self._skipped)
        self.images += len(self._new)
        self.files += len(self._files)
        self._new, self._known, self._files, self._skipped = {}, [], [], []

    def report(self, moved: "_Moved", *, skipped: tuple[Skipped, ...] = (), queries: int = 0) -> ImportReport:
        unused = tuple(sorted(moved.unused))
        return ImportReport(self.images, self.known, self.differing, self.files, unused, skipped, queries)


def _differ(stored: npt.NDArray[np.floating], given: npt.NDArray[np.floating]) -> bool:
    return float(stored.astype(np.float32) @ given.astype(np.float32)) < SAME


class _Moved:
    """Paths as they are on this machine. Raises ValueError for what is no path here."""

    def __init__(self, moves: Moves) -> None:
        self._moves = sorted(moves.items(), key=lambda move: -len(move[0]))  # the longest one that fits counts
        self.unused = set(moves)
        self.separator = os.sep  # between the names of the paths that come

    def __call__(self, path: str, *, below: Path | None = None) -> str:
        """`path`, where `below` is the folder of relative ones; without it there are none."""
        here = path
        for old, new in self._moves:
            start = old.rstrip(self.separator)
            if path == start or path.startswith(start + self.separator):
                self.unused.discard(old)
                here = os.path.join(new, path[len(start) + 1 :].replace(self.separator, os.sep))
                break
        if below is not None:
            here = os.path.join(below, here)
        elif not os.path.isabs(here):
            raise ValueError(f"the path {path!r} is not absolute on this machine: say where it lies with --map OLD=NEW")
        try:
            os.fsencode(here)
        except UnicodeEncodeError as error:
            raise ValueError(f"the path {path!r} cannot be one of a file") from error
        if "\0" in here:
            raise ValueError(f"the path {path!r} cannot be one of a file")
        return os.path.abspath(here)


# Reading, and saying what is wrong


def _lines(file: Path, parse: Callable[[int, Any], _T]) -> Iterator[_T]:
    """What `parse(number, row)` makes of each line of JSON, numbered from 1. Its ValueErrors become InputErrors."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield parse(number, _json(line))
                except ValueError as error:
                    raise InputError(f"{file}, line {number}: {error}") from error
    except OSError as error:
        raise npy.unreadable(file, error) from error


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON from column {error.colno} on") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise ValueError("not JSON that could be meant") from error


def _field(row: Any, name: str, kind: type[_T]) -> _T:
    if not isinstance(row, dict):
        raise ValueError(f'not a JSON object with "{name}"')
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "text", int: "a whole number", list: "a list", dict: "an object"}
        raise ValueError(f'"{name}" is not {names[kind]}')
    return value


def _number(row: Any, name: str, *, least: int = 0) -> int:
    value = _field(row, name, int)
    if not least <= value <= _LARGEST:
        raise ValueError(f'"{name}" is out of range')
    return value


def _fingerprint(row: dict[str, Any]) -> Fingerprint:
    values = {field.name: _field(row, field.name, field.type) for field in fields(Fingerprint)}  # type: ignore[arg-type]
    for name, value in values.items():
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f'"{name}" is not plain text')
    if not (0 < values["dim"] <= _LARGEST and abs(values["preprocessing_version"]) <= _LARGEST):
        raise ValueError('a number in "fingerprint" is out of range')
    return Fingerprint(**values)


def _stored(rows: Rows) -> Iterator[npt.NDArray[np.floating]]:
    """Each row [E] of vectors as an index holds them. Raises InputError for one that is no unit vector."""
    first = 0
    for part in rows.parts():
        with np.errstate(invalid="ignore"):  # signalled for some kinds of NaN
            lengths = np.linalg.norm(part.astype(np.float64), axis=1)
        for row in np.flatnonzero(~(np.abs(lengths - 1) <= 2 * LENGTH_TOLERANCE))[:1]:
            raise InputError(f"{rows.path}: row {first + row} has length {lengths[row]:.4f}, not 1; export again")
        yield from part
        first += len(part)


def _units(rows: Rows) -> Iterator[npt.NDArray[np.float32]]:
    """Each row [E], made as long as 1. Raises InputError for one without a direction."""
    first = 0
    for part in rows.parts():
        yield from npy.unit(part, str(rows.path), first)
        first += len(part)


def _require_once(
    file: Path, lines: Callable[[], Iterable[Iterable[tuple[str, bytes]]]], report: Callable[[int], None]
) -> None:
    """Raise InputError where a key, (what it is, its bytes), stands twice in the lines of a file.

    Takes 8 bytes of memory for each; where two digests are equal, the lines are read again to see whether the keys are.
    `report` is told the number of each line.
    """
    seen = array("Q")
    for number, keys in enumerate(lines(), start=1):
        seen.extend(map(_digest, keys))
        report(number)
    digests, counts = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
    suspects = set(digests[counts > 1].tolist())
    first: dict[tuple[str, bytes], int] = {}
    for number, keys in enumerate(lines() if suspects else (), start=1):
        for key in keys:
            if key in first:
                raise InputError(f"{file}, line {number}: the same {key[0]} as in line {first[key]}; each stands once")
            if _digest(key) in suspects:
                first[key] = number


def _digest(key: tuple[str, bytes]) -> int:
    return int.from_bytes(hashlib.blake2b(key[1], digest_size=8, person=key[0].encode()).digest())


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise npy.unreadable(file, error) from error
