"""The folders of indexes: the default one, and libraries, which are indexes that a person calls by a name."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from bridgetower.errors import NoIndexError, UsageError
from bridgetower_cli.config.file import LIBRARIES, SettingsFile, user_folder
from bridgetower_cli.config.values import index_folder

DEFAULT = "default"  # the name of the index that is used where none is named
LIBRARY_PREFIX = "library."  # before the name of a library among the settings
_NAME = re.compile(r"\w([\w.-]{0,62}\w)?")


def library_name(name: str) -> str:
    """Parse the name of a library. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a library: up to 64 letters, digits, '-', '_' and '.', with a letter or digit at "
            "both ends; a folder is named with --index"
        )
    return name


def own_name(name: str) -> str:
    """Parse the name that a person gives to a folder. Raises UsageError if it is none, or taken."""
    if name == DEFAULT:
        raise UsageError(f"{DEFAULT} is the index that is used where none is named: give another name, or set index")
    return library_name(name)


def default_index() -> str:
    """Return the folder of the index that is used where none is named. Raises UsageError without a home folder."""
    return os.path.join(_data_folder(), "index")


def libraries(file: SettingsFile) -> dict[str, Path]:
    """Return the folder of each library: the default one, those in the file, and those that `bt index` made.

    One that is wrong in the file is left out: `faults` names it. Raises UsageError.
    """
    found = {}
    for name in file.libraries:
        with suppress(UsageError):
            found[name] = folder_in_file(name, file)
    try:
        data = _data_folder()
    except UsageError:  # without a home folder there are those of the file
        return found
    found[DEFAULT] = index_folder(os.path.join(data, "index"))
    own = os.path.join(data, "libraries")
    with suppress(OSError):
        for entry in os.scandir(own):
            if entry.is_dir() and _NAME.fullmatch(entry.name):
                found.setdefault(entry.name, Path(entry.path))
    return dict(sorted(found.items()))


def faults(file: SettingsFile) -> Iterator[str]:
    """Yield a line for each library of the file that has no folder, or a name that is none. Raises UsageError."""
    for name in file.libraries:
        try:
            folder_in_file(name, file)
        except UsageError as error:
            yield str(error)


def library_folder(name: str, file: SettingsFile, *, must_exist: bool) -> Path:
    """Return the folder of a library. Raises UsageError; NoIndexError if it `must_exist` and does not."""
    if name in file.libraries:
        return folder_in_file(name, file)
    if name == DEFAULT:
        return index_folder(default_index())
    folder = Path(_data_folder(), "libraries", library_name(name))
    if must_exist and not folder.is_dir():
        near = get_close_matches(name, libraries(file))
        meant = f"did you mean {', or '.join(near)}? If not," if near else "`bt libraries` lists all;"
        raise NoIndexError(f"no library {name!r}: {meant} `bt index PHOTOS --library {name}` makes it")
    return folder


def folder_in_file(name: str, file: SettingsFile) -> Path:
    """Return the folder that the file gives to the name of a library. Raises UsageError."""
    where, folder = file.where(LIBRARIES, name), file.libraries[name]
    if not isinstance(folder, str) or not folder:
        raise UsageError(f'{where}: a folder is wanted: write it as {name} = "/home/me/{name}.index"')
    try:
        own_name(name)
        return index_folder(file.folder(folder))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _data_folder() -> str:
    folder = user_folder("data")
    if folder is None:
        raise UsageError("there is no home folder to keep an index in: name a place for it with --index DIR")
    return folder


def name_of(folder: Path, file: SettingsFile) -> str | None:
    """Return the name of the library in a folder, if it has one. Raises UsageError."""
    real = os.path.realpath(folder)
    return next((name for name, other in libraries(file).items() if os.path.realpath(other) == real), None)
