"""Copy or link files into a folder, and replace nothing there."""

import errno
import filecmp
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from bridgetower import inputs
from bridgetower.errors import OutputError, PictureError
from bridgetower.files.atomic import create_file, remove_abandoned_new
from bridgetower.files.content import unreadable_picture
from bridgetower.files.os_errors import writing
from bridgetower.files.regular_files import is_in_cloud, open_regular
from bridgetower.inputs import AnyPath

_PIECE = 1 << 20  # bytes
_LONGEST_NAME = 255  # bytes, on nearly every file system


@dataclass(frozen=True, slots=True)
class Placed:
    """The result for one file: a new copy or link, or one that was there already, or the reason why there is none."""

    file: Path
    target: Path | None  # the copy or link
    is_new: bool
    reason: str | None = None


def place_files(
    files: Iterable[AnyPath], folder: AnyPath, *, links: bool = False, dry_run: bool = False
) -> Iterator[Placed]:
    """Copy files into a folder, or make `links` to them, one by one, and yield what became of each.

    The folder is made if need be, and nothing in it is replaced: a name that is taken gets "-2", "-3" and so on. A file
    is not placed again where the folder has its content, or a link to it, under one of these names. Copies keep the
    time of their file, and appear when they are whole; links are absolute. A file that is gone, or whose content is in
    the cloud only, is yielded with the reason. With `dry_run` nothing is written. Raises UsageError at once,
    OutputError where the folder takes no file.
    """
    links, dry_run = inputs.flag("links", links), inputs.flag("dry_run", dry_run)
    return _placed(inputs.list_of_paths(files), inputs.path(folder), links, dry_run)


def _placed(files: list[Path], folder: Path, links: bool, dry_run: bool) -> Iterator[Placed]:
    with writing(folder, OutputError):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned_new(folder)
    planned: dict[Path, Path] = {}  # in a dry run: each target, and its file
    for file in files:
        try:
            yield _place(file, folder, planned, links=links, dry_run=dry_run)
        except PictureError as error:
            yield Placed(file, None, False, error.reason)


def _place(file: Path, folder: Path, planned: dict[Path, Path], *, links: bool, dry_run: bool) -> Placed:
    """Copy or link one file. Raises PictureError where it cannot be read, OutputError."""
    _require_file(file, opens=not links)
    for target in _names(folder, file):
        with writing(target, OutputError):
            if target in planned:
                if _are_same(planned[target], file, links=links):
                    return Placed(file, target, False)
            elif os.path.lexists(target):
                if _leads_to(target, file) if links else _has_content_of(target, file):
                    return Placed(file, target, False)
            elif dry_run:
                planned[target] = file
                return Placed(file, target, True)
            elif _made(file, target, links=links):
                return Placed(file, target, True)
    raise AssertionError("names never end")


def _names(folder: Path, file: Path) -> Iterator[Path]:
    """Yield the names that a file may get: cat.jpg, cat-2.jpg, cat-3.jpg, ... A long one is cut before its number."""
    yield folder / file.name
    stem = file.stem
    for number in count(2):
        end = f"-{number}{file.suffix}"
        while len(os.fsencode(stem + end)) > _LONGEST_NAME:
            stem = stem[:-1]
        yield folder / (stem + end)


def _made(file: Path, target: Path, *, links: bool) -> bool:
    """Make a link or a copy; return False if another process has just taken the name. Raises OSError, PictureError."""
    try:
        if links:
            os.symlink(os.path.abspath(file), target)
        else:
            create_file(target, lambda unfinished: _copy(file, unfinished))
    except FileExistsError:
        return False
    return True


def _copy(file: Path, unfinished: Path) -> None:
    """Raises PictureError where the file cannot be read, OSError where the copy cannot be written."""
    try:
        source = open_regular(file)
    except OSError as error:
        raise unreadable_picture(file, error) from error
    with source:
        with open(unfinished, "wb") as target:
            while piece := _piece(source, file):
                target.write(piece)
        status = os.fstat(source.fileno())
    os.utime(unfinished, ns=(status.st_atime_ns, status.st_mtime_ns))


def _piece(source: BinaryIO, file: Path) -> bytes:
    try:
        return source.read(_PIECE)
    except OSError as error:
        raise unreadable_picture(file, error) from error


def _require_file(file: Path, *, opens: bool) -> None:
    """Raise PictureError where no file is there, or its content, if it is to be opened, is in the cloud only."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise unreadable_picture(file, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(file, "not a file any more")
    if opens and is_in_cloud(status):
        raise PictureError(file, "in the cloud only: not opened, as that would download it")


def _are_same(one: Path, other: Path, *, links: bool) -> bool:
    return os.path.abspath(one) == os.path.abspath(other) or (not links and _has_content_of(one, other))


def _leads_to(target: Path, file: Path) -> bool:
    return os.path.islink(target) and os.readlink(target) == os.path.abspath(file)


def _has_content_of(target: Path, file: Path) -> bool:
    """Whether a file, and no link, has the content of another."""
    try:
        return stat.S_ISREG(os.lstat(target).st_mode) and filecmp.cmp(target, file, shallow=False)
    except OSError:
        return False
