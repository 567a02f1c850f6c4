"""Write files atomically, also across a power cut: write a temporary file beside, fsync it, rename it."""

import errno
import json
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from bridgetower.errors import BridgeTowerError
from bridgetower.files.os_errors import writing
from bridgetower.files.regular_files import is_own

_ABANDONED_S = 24 * 3600
_NEW = "new"  # in the temporary names of `create_file`


def replace_file(path: Path, write: Callable[[Path], object], *, mode: int | None = None) -> None:
    """Have `write` fill a temporary file, then rename it to `path`, in one step that survives a power cut.

    `mode` holds its permissions, which are those of the umask by default. Raises OSError, and any error of `write`;
    `path` is then unchanged.
    """
    unfinished = _temporary_path(path)
    unfinished.touch(exist_ok=False)
    try:
        if mode is None:
            mode = unfinished.stat().st_mode  # from the umask: safetensors makes files that only the owner reads
        write(unfinished)
        unfinished.chmod(stat.S_IMODE(mode))
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    fsync_directory(path.parent)


def create_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary file, then give it the name `path`, in one step that survives a power cut.

    Raises FileExistsError where something has that name, and leaves it as it is; any other OSError, and any error of
    `write`. The temporary name is short, so that it fits wherever `path` does.
    """
    unfinished = _temporary_path(path.with_name(_NEW))
    unfinished.touch(exist_ok=False)
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        _rename_to_free(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    fsync_directory(path.parent)


def _rename_to_free(source: Path, path: Path) -> None:
    """Rename a file, but replace nothing: a link fails where the name is taken."""
    try:
        os.link(source, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, as that of a memory card
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(source, path)


def remove_abandoned_new(folder: Path) -> None:
    """Remove the temporary files that `create_file` left in a folder where it was killed, a day ago or earlier."""
    remove_abandoned(folder, _NEW)


@contextmanager
def new_folder(folder: Path, names: Sequence[str], kind: type[BridgeTowerError]) -> Iterator[Path]:
    """Yield a temporary folder for files of these `names`; at the end of the block it becomes `folder`, new or vacant.

    The block must fsync each file. A new `folder` appears in one step. An existing one gets the files in the order of
    `names`; the last file makes the others valid. If the block raises, all its files are removed, and all folders made
    on the way. Raises `kind` for an OSError outside the block.
    """
    with writing(folder, kind):
        was_there = folder.exists()
        made = [*takewhile(lambda parent: not parent.exists(), folder.parents)]
    # Inside an existing folder: its parent may be on another disk, or not writable.
    home = folder if was_there else folder.parent
    _remove_abandoned_folders(home, folder.name, names)
    unfinished = place = home / _temporary_path(folder).name
    try:
        with writing(folder, kind):
            unfinished.mkdir(parents=True)
        yield unfinished
        with writing(folder, kind):
            fsync_directory(unfinished)
            if was_there:
                _move_all(unfinished, folder, names)
            else:
                unfinished.rename(folder)
                place = folder
                fsync_directory(folder.parent)
    except BaseException:
        # Unlink by name: listing the folder needs a file handle, and none may be free.
        for name in names:
            with suppress(OSError):
                (place / name).unlink()
        for one in (place, *made):
            with suppress(OSError):  # not empty: another program wrote there
                one.rmdir()
        raise


def is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but temporary folders of `new_folder`. Raises OSError."""
    form = _temporary_form(re.escape(folder.name))
    return all(form.fullmatch(one.name) and _is_real_folder(one) for one in folder.iterdir())


def _move_all(source: Path, target: Path, names: Sequence[str]) -> None:
    """Move all existing files of these `names`, or none; the last one moves when the others are on the disk."""
    if not is_vacant(target):  # another process wrote there
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(target))
    moved: list[Path] = []
    try:
        for name in names:
            if (source / name).exists():
                if name == names[-1]:
                    fsync_directory(target)
                if os.path.lexists(target / name):  # another process made it: keep it
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(target / name))
                moved.append(target / name)
                (source / name).rename(target / name)
        fsync_directory(target)
        source.rmdir()
    except BaseException:
        for path in moved:
            with suppress(OSError):
                path.unlink()
        raise


# Temporary files of killed processes, which run no `finally`


def remove_abandoned(folder: Path, form: str, *, after_s: float = _ABANDONED_S) -> None:
    """Remove the temporary files of `replace_file` in a folder, for names that match `form`, a day old or older.

    `after_s` is another age in seconds; pass 0 if no other process writes such files. Raises nothing.
    A folder that is a link is left alone: nobody named the place that it leads to.
    """
    unfinished = _temporary_form(form)
    with suppress(OSError):
        for one in () if folder.is_symlink() else folder.iterdir():
            if unfinished.fullmatch(one.name) and is_own(one) and (not after_s or _is_abandoned(one, after_s)):
                one.unlink()


def _remove_abandoned_folders(home: Path, name: str, names: Sequence[str]) -> None:
    """Remove the old temporary folders of `new_folder` for a folder `name` with files of these `names`."""
    form = _temporary_form(re.escape(name))
    ours = re.compile("|".join(f"{re.escape(each)}|{_temporary_form(re.escape(each)).pattern}" for each in names))
    with suppress(OSError):
        for folder in home.iterdir():
            if form.fullmatch(folder.name) and _is_real_folder(folder):
                files = list(folder.iterdir())
                if all(map(_is_abandoned, (folder, *files))):
                    for file in files:
                        if ours.fullmatch(file.name) and is_own(file):
                            file.unlink()
                    with suppress(OSError):  # not empty: another program wrote there
                        folder.rmdir()


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _temporary_form(form: str) -> re.Pattern[str]:
    """Match the temporary name of a path whose name matches `form`."""
    return re.compile(rf"\.(?:{form})\.[0-9a-f]{{8}}\.partial")


def _is_abandoned(path: Path, after_s: float = _ABANDONED_S) -> bool:
    return time.time() - path.lstat().st_mtime > after_s


def _is_real_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, atomically. Raises OSError."""
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))


def fsync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable. Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
