"""The thread that listens for changes passes on what goes wrong in it: who waits for a burst would wait for ever."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridgetower.files.watch
from bridgetower.errors import BridgeTowerError, InputError, ResourceError
from bridgetower.files.ignore import USUAL_RULES, Rules
from bridgetower.files.watch import watching
from bridgetower.index.reader import IndexReader
from bridgetower.retrieval.contents import sidecars_of
from bridgetower.retrieval.updating import may_hold

NO_TEXT = RuntimeError("Unable to decode path")  # from here on walks are compared


def next_burst(folder: Path) -> set[Path]:
    watch = watching([folder], USUAL_RULES, apart=folder / "index", holds=lambda path: True, sidecars_of=sidecars_of)
    with watch as bursts:
        return next(bursts)


def no_handles(*arguments: object, **options: object) -> Iterator[object]:
    raise ResourceError("too many open files")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ResourceError, "too many open files: close"),
        (RuntimeError("Too many open files (os error 24)"), ResourceError, "too many open files: close"),
        (RuntimeError("no inotify here"), InputError, "cannot be watched: no inotify here; run bt index without"),
        (ResourceError("too many open files"), ResourceError, "too many open files"),
        (KeyError("a defect"), KeyError, "a defect"),
    ],
    ids=repr,
)
def test_what_goes_wrong_while_it_listens_reaches_who_waits(
    error: Exception, kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*roots: Path, **options: object) -> Iterator[object]:
        raise error

    monkeypatch.setattr(bridgetower.files.watch, "watch", fails)
    with pytest.raises(kind, match=said):
        next_burst(tmp_path)


def test_so_does_want_of_handles_while_a_change_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.setattr(
        bridgetower.files.watch, "watch", lambda *roots, **options: iter([{(1, str(tmp_path / "a.png"))}])
    )
    monkeypatch.setattr(bridgetower.files.watch, "passes_over", no_handles)
    with pytest.raises(ResourceError):
        next_burst(tmp_path)


def test_so_does_want_of_handles_while_walks_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*roots: Path, **options: object) -> Iterator[object]:
        raise NO_TEXT

    monkeypatch.setattr(bridgetower.files.watch, "watch", fails)
    monkeypatch.setattr(bridgetower.files.watch, "scan", no_handles)
    with pytest.raises(ResourceError):
        next_burst(tmp_path)


@pytest.mark.parametrize("error", [ResourceError("too many open files"), InputError("no"), BridgeTowerError("no")])
def test_an_index_that_cannot_be_asked_may_hold_anything(
    error: BridgeTowerError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> IndexReader:
        raise error

    monkeypatch.setattr(IndexReader, "open", fails)
    assert may_hold(tmp_path / "index", tmp_path / "gone")


@pytest.mark.parametrize(
    ("changed", "is_reported"),
    [
        ("a.png", True),
        ("sub/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", False),
        ("#recycle/a.png", False),
        ("no/a.png", False),
        ("no/.nomedia", True),
        ("sub/.noimage", True),  # removed: it is not there
        (".nomedia", False),  # the folder is a root: taken as it is
        ("#recycle/deep/.nomedia", False),
        ("sub/.other", False),
    ],
)
def test_changes_in_what_is_left_out_by_default_are_not_reported_but_those_of_marks_are(
    tmp_path: Path, changed: str, is_reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no").mkdir()
    for name in ("no/.nomedia", "b.png"):
        (tmp_path / name).touch()
    bursts = ({(1, str(tmp_path / name))} for name in (changed, "b.png"))
    monkeypatch.setattr(bridgetower.files.watch, "watch", lambda *roots, **options: bursts)
    with watching(
        [tmp_path], USUAL_RULES, apart=tmp_path / "index", holds=lambda path: False, sidecars_of=sidecars_of
    ) as found:
        assert (tmp_path / changed in next(found)) == is_reported


def test_without_default_excludes_marks_are_hidden_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("sub/.nomedia", "@eaDir/a.png")
    bursts = ({(1, str(tmp_path / name))} for name in names)
    monkeypatch.setattr(bridgetower.files.watch, "watch", lambda *roots, **options: bursts)
    rules = Rules(default_excludes=False)
    with watching(
        [tmp_path], rules, apart=tmp_path / "index", holds=lambda path: False, sidecars_of=sidecars_of
    ) as found:
        assert next(found) == {tmp_path / "@eaDir" / "a.png"}


@pytest.mark.parametrize(
    "error", [PermissionError("no"), OSError('Permission denied (os error 13) about ["/photos/private"]')]
)
def test_a_folder_that_may_not_be_read_ends_no_watch(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on walks are compared."""

    def fails(*roots: Path, **options: object) -> Iterator[object]:
        raise error

    monkeypatch.setattr(bridgetower.files.watch, "watch", fails)
    assert next_burst(tmp_path) == {tmp_path}


def test_a_sidecar_of_a_picture_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "a.xmp", "b.xmp", "package.json", ".hidden/a.png", ".hidden/a.xmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ("b.xmp", "package.json", ".hidden/a.xmp", "a.xmp", "a.png.json")  # the last one is gone
    changes = [{(1, str(tmp_path / name)) for name in names}]
    monkeypatch.setattr(bridgetower.files.watch, "watch", lambda *roots, **options: iter(changes))
    assert next_burst(tmp_path) == {tmp_path / "a.xmp", tmp_path / "a.png.json"}


def test_a_sidecar_is_a_change_where_walks_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*roots: Path, **options: object) -> Iterator[object]:
        raise NO_TEXT

    monkeypatch.setattr(bridgetower.files.watch, "watch", fails)
    monkeypatch.setattr(bridgetower.files.watch, "LOOK_S", 0.1)
    (tmp_path / "a.png").touch()
    watch = watching(
        [tmp_path], USUAL_RULES, apart=tmp_path / "index", holds=lambda path: True, sidecars_of=sidecars_of
    )
    with watch as bursts:
        assert next(bursts) == {tmp_path}
        (tmp_path / "a.xmp").touch()
        assert next(bursts) == {tmp_path}
