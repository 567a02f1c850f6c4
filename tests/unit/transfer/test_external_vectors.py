"""Foreign vectors: npy files of any kind, a path for each, and an index that says so."""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridgetower.errors import InputError, ResourceError, StoreError, UsageError
from bridgetower.files import npy
from bridgetower.files.npy import read_vector
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter, NewImage
from bridgetower.records import FOREIGN, Fingerprint
from bridgetower.transfer import external_vectors, import_index
from bridgetower.transfer.import_index import import_vectors
from tests.fakes import COLOURS, FakeEncoder, handles_left, paint

E = 5
VECTORS = np.random.default_rng(0).normal(size=(len(COLOURS), E)) * 3
Given = Callable[..., tuple[Path, Path]]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Write both files: vectors, and a line for each of the painted pictures or for what is said instead."""
    for colour in COLOURS:
        paint(tmp_path / "photos" / f"{colour}.png", colour)

    def write(vectors: Any = VECTORS, lines: list[Any] | None = None) -> tuple[Path, Path]:
        if lines is None:
            lines = [f"photos/{colour}.png" for colour in COLOURS]
        np.save(tmp_path / "x.npy", vectors)
        (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / "x.npy", tmp_path / "x.jsonl"

    return write


def stored(directory: Path) -> dict[str, np.ndarray]:
    with IndexReader.open(directory) as store:
        return {
            photo.path.stem: np.frombuffer(entry.vector, "<f2")
            for entry in store.catalog.entries()
            for photo in entry.files
        }


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f4", "<f8"])
def test_vectors_of_any_kind_are_made_as_long_as_1(kind: str, given: Given, tmp_path: Path) -> None:
    report = import_vectors(*given(VECTORS.astype(kind)), "clip", tmp_path / "index")
    assert (report.images, report.files, report.skipped) == (4, 4, ())
    found = stored(tmp_path / "index")
    for colour, vector in zip(COLOURS, VECTORS, strict=True):
        np.testing.assert_allclose(found[colour], vector / np.linalg.norm(vector), atol=2e-3)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_numbers_may_be_as_small_and_as_large_as_they_like(scale: float, given: Given, tmp_path: Path) -> None:
    import_vectors(*given(VECTORS / 10 * scale), "clip", tmp_path / "index")
    assert stored(tmp_path / "index")["red"].astype(np.float32) @ VECTORS[0] / np.linalg.norm(VECTORS[0]) > 0.999


def test_the_index_says_that_its_vectors_are_foreign_and_knows_its_pictures(given: Given, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif.get_ifd(0x8769)[0x9003] = "2021:06:05 12:00:00"
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "side.jpg", exif=exif)
    import_vectors(*given(VECTORS[:1], [{"path": "photos/side.jpg", "id": 7}]), "clip", tmp_path / "index")
    with IndexReader.open(tmp_path / "index") as store:
        assert store.fingerprint == Fingerprint("clip", FOREIGN, "clip", FOREIGN, FOREIGN, 0, FOREIGN, E)
        assert store.summary().roots == ()
        [entry] = store.catalog.entries()
        assert (entry.width, entry.height, entry.taken_at) == (30, 40, 1622894400)
        [photo] = entry.files
        status = (tmp_path / "photos" / "side.jpg").stat()
        assert (photo.path, photo.size, photo.mtime_ns) == (
            tmp_path / "photos" / "side.jpg",
            status.st_size,
            status.st_mtime_ns,
        )


def test_relative_absolute_moved_and_odd_paths(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "photos")  # relative paths are below the file, not below here
    odd = tmp_path / "photos" / os.fsdecode(b"\xff\n.png")
    os.rename(tmp_path / "photos" / "white.png", odd)
    lines = ["photos/../photos/red.png", str(tmp_path / "photos" / "green.png"), "/srv/x/blue.png", str(odd)]
    report = import_vectors(*given(lines=lines), "clip", tmp_path / "index", moves={"/srv/x": tmp_path / "photos"})
    assert (report.images, report.unused) == (4, ())
    assert set(stored(tmp_path / "index")) == {"red", "green", "blue", odd.stem}


def test_what_is_absent_or_no_picture_is_skipped_with_the_reason(given: Given, tmp_path: Path) -> None:
    (tmp_path / "photos" / "red.png").unlink()
    (tmp_path / "photos" / "blue.png").write_bytes(b"no picture")
    report = import_vectors(*given(), "clip", tmp_path / "index")
    assert [(skip.path.name, skip.reason) for skip in report.skipped] == [
        ("red.png", "no such file"),
        ("blue.png", "not a picture, or of an unknown kind"),
    ]
    assert set(stored(tmp_path / "index")) == {"green", "white"}
    with IndexReader.open(tmp_path / "index") as store:
        assert [skip.path.name for skip in store.catalog.skipped()] == ["blue.png"]

    paint(tmp_path / "photos" / "red.png", "red")  # it came back
    report = import_vectors(*given(), "clip", tmp_path / "index")
    assert (report.images, report.known, [skip.path.name for skip in report.skipped]) == (1, 2, ["blue.png"])


def test_an_import_may_be_repeated_and_opens_nothing_again(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_vectors(*given(), "clip", tmp_path / "index")
    monkeypatch.setattr(external_vectors, "read", lambda path: pytest.fail(f"opened {path}"))
    report = import_vectors(*given(), "clip", tmp_path / "index")
    assert (report.images, report.known, report.differing, report.files) == (0, 4, 0, 4)


def test_copies_share_a_vector_and_other_vectors_are_told(given: Given, tmp_path: Path) -> None:
    for copy in ("same", "other"):
        (tmp_path / "photos" / f"{copy}.png").write_bytes((tmp_path / "photos" / "red.png").read_bytes())
    lines = ["photos/red.png", "photos/same.png", "photos/other.png"]
    vectors = np.stack([VECTORS[0], VECTORS[0] * 2, VECTORS[1]])
    report = import_vectors(*given(vectors, lines), "clip", tmp_path / "index")
    assert (report.images, report.known, report.differing, report.files) == (1, 2, 1, 3)
    report = import_vectors(*given(vectors[::-1], lines), "clip", tmp_path / "index")
    assert (report.images, report.known, report.differing) == (0, 3, 1)
    assert len({vector.tobytes() for vector in stored(tmp_path / "index").values()}) == 1


def test_vectors_of_texts_are_kept_up_to_a_number(given: Given, tmp_path: Path) -> None:
    np.save(tmp_path / "texts.npy", np.random.default_rng(1).normal(size=(300, E)))
    report = import_vectors(*given(), "clip", tmp_path / "index", queries=tmp_path / "texts.npy")
    with IndexReader.open(tmp_path / "index") as store:
        queries = np.frombuffer(b"".join(store.catalog.queries()), "<f2").reshape(-1, E).astype(np.float32)
    assert report.queries == len(queries) == 256
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=2e-3)
    np.save(tmp_path / "texts.npy", np.ones((3, E + 1)))
    with pytest.raises(InputError, match=r"texts\.npy: vectors of length 6, those of the pictures have 5"):
        import_vectors(*given(), "clip", tmp_path / "index", queries=tmp_path / "texts.npy")


def test_models_are_told_apart_by_name_and_length(given: Given, tmp_path: Path) -> None:
    import_vectors(*given(), "clip", tmp_path / "index")
    with pytest.raises(StoreError, match=r"made by model clip.*--index NEW"):
        import_vectors(*given(), "siglip", tmp_path / "index")
    with pytest.raises(StoreError, match="vector length 5, not 6"):
        import_vectors(*given(np.ones((4, E + 1))), "clip", tmp_path / "index")
    with IndexWriter.open(tmp_path / "own", FakeEncoder().fingerprint) as writer:
        writer.commit(images=[NewImage(b"h" * 32, 1, 1, None, np.array([1, 0, 0], np.float32))])
    with pytest.raises(StoreError, match="precision family float, not foreign"):
        import_vectors(*given(np.ones((4, 3))), "clip", tmp_path / "own")
    with pytest.raises(StoreError, match="its vectors are foreign"):
        IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint)
    for name in ("", " ", "a\nb", "\udc80"):
        with pytest.raises(UsageError, match="names no model"):
            import_vectors(*given(), name, tmp_path / "index")


def test_a_refused_import_leaves_an_index_without_images_as_it_was(given: Given, tmp_path: Path) -> None:
    own = FakeEncoder().fingerprint
    IndexWriter.open(tmp_path / "index", own).close()
    before = (tmp_path / "index" / "manifest.sqlite").read_bytes()
    with pytest.raises(InputError):
        import_vectors(*given(lines=["photos/red.png"]), "clip", tmp_path / "index")
    assert (tmp_path / "index" / "manifest.sqlite").read_bytes() == before
    with IndexWriter.resume(tmp_path / "index") as writer:
        assert writer.catalog.fingerprint() == own
    import_vectors(*given(), "clip", tmp_path / "index")
    with IndexReader.open(tmp_path / "index") as store:
        assert store.fingerprint.model == "clip"


def test_a_read_error_amid_the_pictures_loses_nothing_committed(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_index, "FOREIGN_BATCH_FILES", 2)
    done = []

    def stop(row: int, total: int) -> None:
        done.append((row, total))
        if row == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(IndexWriter, "publish", lambda writer: pytest.fail("it took its time"))
    with pytest.raises(KeyboardInterrupt):
        import_vectors(*given(), "clip", tmp_path / "index", on_progress=stop)
    assert done == [(row, 8) for row in range(1, 8)]  # each is checked, then added
    assert 0 < len(stored(tmp_path / "index")) < 4
    monkeypatch.undo()
    import_vectors(*given(), "clip", tmp_path / "index")
    assert len(stored(tmp_path / "index")) == 4


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["photos/red.png"] * 3, r"x\.jsonl, line 2: the same path as in line 1"),
        (["a", "b", "photos/../a"], r"x\.jsonl, line 3: the same path as in line 1"),
        (["a", "b"], r"x\.jsonl: ends after 2 lines; .*x\.npy has 3 rows"),
        (["a", "b", "c", "d"], r"x\.jsonl: goes on after 3 lines; .*x\.npy has 3 rows"),
        ([], r"x\.jsonl: ends after 0 lines"),
        (["a", 7, "c"], r'x\.jsonl, line 2: not a JSON object with "path"'),
        (["a", {"image": "b"}, "c"], r'x\.jsonl, line 2: "path" is not text'),
        (["a", {"path": None}, "c"], r'x\.jsonl, line 2: "path" is not text'),
        (["a", "", "c"], r"x\.jsonl, line 2: the path is empty"),
        (["a", "b\0", "c"], r"x\.jsonl, line 2: the path .* cannot be one of a file"),
        (["a", "\ud83d", "c"], r"x\.jsonl, line 2: the path .* cannot be one of a file"),
    ],
)
def test_a_wrong_line_is_named(lines: list[Any], message: str, given: Given, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        import_vectors(*given(VECTORS[:3], lines), "clip", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_bytes_that_are_no_text_are_named(given: Given, tmp_path: Path) -> None:
    vectors, paths = given()
    paths.write_bytes(b'\xef\xbb\xbf"a"\n"\xff"\n')
    with pytest.raises(InputError, match=r"x\.jsonl, line 2: not UTF-8"):
        import_vectors(vectors, paths, "clip", tmp_path / "index")


def with_number(number: float) -> np.ndarray:
    vectors = VECTORS.copy()
    vectors[2, 1] = number
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (with_number(np.nan), "row 2 holds a number that is not finite"),
        (np.full((4, E), 0x7C01, np.uint16).view(np.float16), "row 0 holds a number that"),  # signalling NaN
        (with_number(-np.inf), "row 2 holds a number that is not finite"),
        (VECTORS * [[1], [1], [0], [1]], "row 2 is zero"),
        (VECTORS[0], r"has the shape \[5\]"),
        (VECTORS[None], r"has the shape \[1, 4, 5\]"),
        (np.zeros((4, 0)), r"has the shape \[4, 0\]"),
        (np.float32(1), r"has the shape \[\]"),
        (np.ones((4, E), int), "holds int64; give an array of float16"),
        (np.ones((4, E), complex), "holds complex128"),
        (np.ones((4, E), bool), "holds bool"),
        (np.ones(4, [("a", float)]), "holds "),
        (np.asfortranarray(VECTORS), "is stored by columns"),
    ],
    ids=str,
)
def test_wrong_vectors_are_named(vectors: Any, message: str, given: Given, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"x\.npy: {message}"):
        import_vectors(*given(vectors), "clip", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_pickle_is_never_opened(given: Given, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    vectors, paths = given(np.array([[Trap()]], dtype=object))
    with pytest.raises(InputError, match="holds object"):
        import_vectors(vectors, paths, "clip", tmp_path / "index")
    assert not (tmp_path / "sprung").exists()


def test_every_cut_and_many_changes_of_an_npy_file_are_refused_in_one_line_or_read(
    given: Given, tmp_path: Path
) -> None:
    vectors, paths = given()
    whole = vectors.read_bytes()
    generator = np.random.default_rng(3)
    for cut in range(len(whole)):
        vectors.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"^[^\n]*x\.npy[^\n]*$"):
            import_vectors(vectors, paths, "clip", tmp_path / "index")
    refused = 0
    for _ in range(300):
        changed = bytearray(whole)
        changed[generator.integers(128)] = generator.integers(256)
        vectors.write_bytes(bytes(changed))
        with suppress(InputError, StoreError):
            import_vectors(vectors, paths, "clip", tmp_path / "index")
            refused -= 1
        refused += 1
    assert 100 < refused <= 300


def test_files_that_are_not_there_are_named(given: Given, tmp_path: Path) -> None:
    vectors, paths = given()
    for pair in (
        (tmp_path / "no.npy", paths),
        (vectors, tmp_path / "no.jsonl"),
        (tmp_path, paths),
        (vectors, tmp_path),
    ):
        with pytest.raises(InputError, match=r"cannot be read: No such file|not a file but a folder; give a file"):
            import_vectors(*pair, "clip", tmp_path / "index")


def test_a_vector_that_would_fill_the_memory_is_refused(given: Given, tmp_path: Path) -> None:
    vectors, paths = given()
    header = npy.header(1, 10**9)
    with vectors.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2 * 10**9)  # sparse: takes no room
    with pytest.raises(InputError, match=r"x\.npy: vectors of 1000000000 numbers, more than the limit of 1000000"):
        import_vectors(vectors, paths, "clip", tmp_path / "index")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
def test_want_of_handles_is_no_fault_of_vectors_or_pictures(given: Given, tmp_path: Path) -> None:
    vectors, paths = given()
    with handles_left(0):
        with pytest.raises(ResourceError, match="too many open files"):
            import_vectors(vectors, paths, "clip", tmp_path / "index")
        with pytest.raises(ResourceError, match="too many open files"):
            external_vectors.see((tmp_path / "photos" / "red.png", VECTORS[0].astype(np.float32), None))


# One vector, to search with


def saved(array: Any) -> BytesIO:
    file = BytesIO()
    np.save(file, array)
    file.seek(0)
    return file


@pytest.mark.parametrize("array", [VECTORS[0], VECTORS[:1], VECTORS[0].astype(np.float16), VECTORS[:1].astype(">f4")])
def test_a_vector_to_search_with(array: Any) -> None:
    vector = read_vector(saved(array), "q.npy")
    assert vector.shape == (E,) and vector.dtype == np.float32
    np.testing.assert_allclose(vector, VECTORS[0] / np.linalg.norm(VECTORS[0]), rtol=2e-3)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (saved(VECTORS), "has the shape [4, 5]"),
        (saved(np.zeros((0, 5))), "has the shape [0, 5]"),
        (saved(np.zeros(0)), "has the shape [0]"),
        (saved(np.float32(1)), "has the shape []"),
        (saved(np.zeros(E)), "is zero"),
        (saved(np.array([1, 1, 1, 1, np.nan])), "not finite"),
        (saved(np.array([1, 2])), "holds int64"),
        (BytesIO(npy.header(1, 10**15)), "a vector of 1000000000000000 numbers, more than the limit of 1000000"),
        (BytesIO(b""), "no npy file"),
        (BytesIO(b"[0.1, 0.2]"), "no npy file"),
        (BytesIO(saved(VECTORS[0]).read()[:-1]), "is cut off"),
    ],
)
def test_what_is_no_vector_is_refused(file: BytesIO, message: str) -> None:
    with pytest.raises(InputError, match=rf"^q\.npy: .*{re.escape(message)}"):
        read_vector(file, "q.npy")


def test_a_header_that_would_fill_the_memory_is_not_read() -> None:
    class Watched(BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    file = Watched(b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100_000))
    with pytest.raises(InputError, match="no npy file"):
        read_vector(file, "q.npy")
    assert file.most < 100
