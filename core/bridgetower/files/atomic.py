"""Files that are there as a whole or not at all, also after a power cut: written beside, on the disk, then renamed."""

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
from bridgetower.files.regular import is_own

_ABANDONED_S = 24 * 3600


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a new file, then put it in the place of `path` in one step that survives a power cut.

    Raises OSError, and what `write` raises; then `path` is as it was.
    """
    unfinished = _unfinished(path)
    unfinished.touch(exist_ok=False)
    try:
        mode = unfinished.stat().st_mode  # as the umask has it; safetensors makes its file for the owner alone
        write(unfinished)
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    fsync_directory(path.parent)


@contextmanager
def new_folder(folder: Path, names: Sequence[str], kind: type[BridgeTowerError]) -> Iterator[Path]:
    """A folder to fill with files of these `names`, each on the disk when it is closed: for `folder`, new or vacant.

    When the block ends well, a new one takes its name in one step. One that was there stays, and gets the files in the
    order of `names`, the last of which makes them count. Where the block does not end well, nothing is left, neither
    files nor the folders that were made on the way. What the disk refuses here, outside the block, raises `kind`.
    """
    with writing(folder, kind):
        was_there = folder.exists()
        made = [*takewhile(lambda parent: not parent.exists(), folder.parents)]
    # Within the one that is there: it may be another disk, and the folder around it closed to us.
    home = folder if was_there else folder.parent
    _remove_abandoned_folders(home, folder.name, names)
    unfinished = place = home / _unfinished(folder).name
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
        # By their names, as listing them takes a file handle, and none may be left.
        for name in names:
            with suppress(OSError):
                (place / name).unlink()
        for one in (place, *made):
            with suppress(OSError):  # another program has put something there
                one.rmdir()
        raise


def is_vacant(folder: Path) -> bool:
    """Whether nothing is in a folder but what `new_folder` was making in it, or is. Raises OSError."""
    form = _unfinished_form(re.escape(folder.name))
    return all(form.fullmatch(one.name) and _is_real_folder(one) for one in folder.iterdir())


def _move_all(source: Path, target: Path, names: Sequence[str]) -> None:
    """Move the files of these names that are there, the last one when the others are on the disk, or none."""
    if not is_vacant(target):  # another process was faster
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(target))
    moved: list[Path] = []
    try:
        for name in names:
            if (source / name).exists():
                if name == names[-1]:
                    fsync_directory(target)
                if os.path.lexists(target / name):  # of another process: neither replaced nor removed
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


# What a process that was killed has left: no `finally` runs then


def remove_abandoned(folder: Path, form: str, *, after_s: float = _ABANDONED_S) -> None:
    """Remove what `replace_file` was writing in a folder for a file whose name has this form, a day ago or longer.

    `after_s` is another age in seconds; 0 is for a caller that alone writes such files. Raises nothing.
    A folder that is a link is left alone: it leads to a place that nobody has named for this.
    """
    unfinished = _unfinished_form(form)
    with suppress(OSError):
        for one in () if folder.is_symlink() else folder.iterdir():
            if unfinished.fullmatch(one.name) and is_own(one) and (not after_s or _is_abandoned(one, after_s)):
                one.unlink()


def _remove_abandoned_folders(home: Path, name: str, names: Sequence[str]) -> None:
    """The same of `new_folder`, which was filling a folder for `name` with files of these `names`."""
    form = _unfinished_form(re.escape(name))
    ours = re.compile("|".join(f"{re.escape(each)}|{_unfinished_form(re.escape(each)).pattern}" for each in names))
    with suppress(OSError):
        for folder in home.iterdir():
            if form.fullmatch(folder.name) and _is_real_folder(folder):
                files = list(folder.iterdir())
                if all(map(_is_abandoned, (folder, *files))):
                    for file in files:
                        if ours.fullmatch(file.name) and is_own(file):
                            file.unlink()
                    with suppress(OSError):  # somebody has put something there
                        folder.rmdir()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _unfinished_form(form: str) -> re.Pattern[str]:
    """Of the name of what is made for a path whose name has this form."""
    return re.compile(rf"\.(?:{form})\.[0-9a-f]{{8}}\.partial")


def _is_abandoned(path: Path, after_s: float = _ABANDONED_S) -> bool:
    return time.time() - path.lstat().st_mtime > after_s


def _is_real_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Raises OSError."""
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))


def fsync_directory(directory: Path) -> None:
    """Make what was renamed and removed in it durable; Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
