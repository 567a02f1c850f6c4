"""The settings that last, each declared once: its name in the file, its variable, its parser and its default."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from bridgetower.errors import UsageError
from bridgetower.records import DEFAULT_MODEL, DEVICES, PRECISIONS
from bridgetower_cli.config import values
from bridgetower_cli.config.file import LIBRARIES, SettingsFile
from bridgetower_cli.config.places import LIBRARY_PREFIX, default_index, library_name
from bridgetower_cli.terminal import hyperlinks

_T = TypeVar("_T")
_SWITCH = ("auto", "off")


@dataclass(frozen=True, slots=True)
class Key(Generic[_T]):
    """A setting: NAME in the file, BT_NAME in the environment; its option goes before both."""

    name: str
    parse: Callable[[str], _T]  # raises UsageError
    default: Callable[[], _T]
    words: tuple[str, ...] = ()  # the values that it may have, if they are few
    is_path: bool = False
    is_number: bool = False

    @property
    def variable(self) -> str:
        return f"BT_{self.name.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class Value(Generic[_T]):
    """The value of a setting, and where it is from."""

    value: _T
    text: str  # as it was written
    origin: str  # "environment" or "file"
    where: str  # the variable, or the path and the line


def _none() -> None:
    return None


def _word(name: str, known: tuple[str, ...]) -> Key[str]:
    return Key(name, values.one_of(known), lambda: known[0], words=known)


INDEX: Key[Path] = Key("index", values.index_folder, lambda: values.index_folder(default_index()), is_path=True)
LIBRARY: Key[str | None] = Key("library", library_name, _none)
MODEL: Key[str] = Key("model", values.model_name, lambda: DEFAULT_MODEL)
DEVICE, PRECISION, SERVER = _word("device", DEVICES), _word("precision", PRECISIONS), _word("server", _SWITCH)
HYPERLINKS, HISTORY = _word("hyperlinks", hyperlinks.SETTINGS), _word("history", _SWITCH)
MIN_MATCH: Key[float | None] = Key("min-match", values.probability, _none, is_number=True)
TOP: Key[int] = Key("top", values.whole(10), lambda: 10, is_number=True)
DEPTH: Key[int | None] = Key("depth", values.whole(20, least=0), _none, is_number=True)
FEATURES_CACHE: Key[int | None] = Key("features-cache", values.byte_size, _none)
FEATURES_DIR: Key[Path | None] = Key("features-dir", values.features_folder, _none, is_path=True)
STORE_PASSWORD_FILE: Key[Path | None] = Key("store-password-file", values.secret_file, _none, is_path=True)
KEYS: dict[str, Key[Any]] = {
    key.name: key
    for key in (
        *(INDEX, LIBRARY, MODEL, DEVICE, PRECISION, MIN_MATCH, TOP, DEPTH, SERVER),
        *(FEATURES_CACHE, FEATURES_DIR, STORE_PASSWORD_FILE, HYPERLINKS, HISTORY),
    )
}


def environment(name: str) -> str | None:
    """Return the value of a variable; one that is set but empty is not set."""
    return os.environ.get(name) or None


def look_up(key: Key[_T], file: SettingsFile) -> Value[_T] | None:
    """Return the value of a setting by the environment, else by the file, else None. Raises UsageError."""
    return in_environment(key) or in_file(key, file)


def in_environment(key: Key[_T]) -> Value[_T] | None:
    """Return the value that the variable has, or None. Raises UsageError."""
    text = environment(key.variable)
    return None if text is None else Value(parsed(key, text, key.variable), text, "environment", key.variable)


def in_file(key: Key[_T], file: SettingsFile) -> Value[_T] | None:
    """Return the value that the file has, or None; an empty text is none. Raises UsageError."""
    found = file.values.get(key.name)
    if found is None or found == "":
        return None
    where = file.where(key.name)
    if key is LIBRARY and isinstance(found, dict):
        raise UsageError(f"{where}: the table of libraries is called [{LIBRARIES}]: rename it")
    if not isinstance(found, str | int | float):
        raise UsageError(
            f"{where}: {key.name}: a text or a number is wanted: `bt config set {key.name} VALUE` writes it"
        )
    text = str(found).lower() if isinstance(found, bool) else str(found)
    return Value(parsed(key, file.folder(text) if key.is_path else text, f"{where}: {key.name}"), text, "file", where)


def index_or_library(file: SettingsFile) -> tuple[Path | None, str | None]:
    """Return the folder or the library that the environment names, else the file. Raises UsageError."""
    for look in (in_environment, partial(in_file, file=file)):
        index, library = _named_index(look)
        if index is not None or library is not None:
            return index, library
    return None, None


def _named_index(look: Callable[[Key[Any]], Value[Any] | None]) -> tuple[Path | None, str | None]:
    """Return the folder or the library that one place names, by `look`. Raises UsageError if it names both."""
    index, library = look(INDEX), look(LIBRARY)
    if index is not None and library is not None:
        raise UsageError(f"{index.where} and {library.where} both name an index: remove one of them")
    return None if index is None else index.value, None if library is None else library.value


def parsed(key: Key[_T], text: str, name: str) -> _T:
    """Return the value of a text. Raises UsageError that begins with `name`."""
    try:
        return key.parse(text)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def key_of(name: str) -> Key[Any]:
    """Return the setting of a name. Raises UsageError, which names the nearest."""
    if name in KEYS:
        return KEYS[name]
    advice = f"a library is set as {LIBRARY_PREFIX}NAME" if name.startswith(LIBRARIES) else _nearest(name)
    raise UsageError(f"{name!r} is no setting: {advice}")


def unknown(file: SettingsFile) -> Iterator[str]:
    """Yield a line for each key of the file that is no setting."""
    for name in file.values:
        if name not in KEYS and name != LIBRARIES:
            yield f"{file.where(name)}: {name!r} is no setting and has no effect: {_nearest(name)}"


def _nearest(name: str) -> str:
    near = get_close_matches(name, [*KEYS, f"{LIBRARY_PREFIX}NAME", LIBRARIES], n=1)
    return f"did you mean {near[0]}?" if near else "`bt config show` lists all"
