"""Files that are there as a whole or not at all, also after a power cut: written beside, on the disk, then renamed."""

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a new file, then put it in the place of `path` in one step that survives a power cut.

    Raises OSError, and what `write` raises; then `path` is as it was.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        unfinished.touch(exist_ok=False)
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
def new_folder(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A folder to fill with files of these `names`, each on the disk when it is closed: for `folder`, new or empty.

    It takes that name in one step when the block ends well. Where it does not, nothing is left, neither files nor the
    folders that were made on the way. Raises OSError.
    """
    was_there = folder.exists()
    made = [*takewhile(lambda parent: not parent.exists(), folder.parents)]
    unfinished = place = folder.parent / f".{secrets.token_hex(8)}.partial"
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        fsync_directory(unfinished)
        if was_there:
            folder.rmdir()  # refused unless it is still empty
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
        if was_there:
            with suppress(OSError):  # it still is
                folder.mkdir()
        raise


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
