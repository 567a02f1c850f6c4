"""Read the file of settings, a TOML file of the user. A file that is not there has no settings."""

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridgetower.errors import UsageError
from bridgetower.inputs import own_folder

VARIABLE = "BT_CONFIG"
LIBRARIES = "libraries"  # the table of names: NAME = "FOLDER"
_NAME = "bridgetower"
_FOLDERS = {"config": ("XDG_CONFIG_HOME", ".config"), "data": ("XDG_DATA_HOME", ".local/share")}
_MOST_BYTES = 1_000_000
_PART = re.compile(r""" "([^"]*)" | '([^']*)' | ([\w-]+) """, re.VERBOSE)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The content of the file, not checked against the settings that there are."""

    path: Path | None  # None where there is no home folder; the file need not exist
    text: str = ""
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def libraries(self) -> Mapping[str, object]:
        """The table of libraries. Raises UsageError if something else has its name."""
        table = self.values.get(LIBRARIES, {})
        if not isinstance(table, dict):
            raise UsageError(
                f'{self.where(LIBRARIES)}: a table is wanted: write [{LIBRARIES}], and below NAME = "FOLDER"'
            )
        return table

    def where(self, *keys: str) -> str:
        """Return the path and the line of a key in its tables, for people."""
        line = _line_of(self.text, list(keys))
        return str(self.path) if line is None else f"{self.path}:{line}"

    def folder(self, name: str) -> str:
        """Return a path that the file names: without a "/" or "~" before it, it begins at the folder of the file."""
        assert self.path is not None
        return name if name.startswith("~") else os.path.join(self.path.parent, name)


def user_folder(kind: str) -> str | None:
    """Return the folder of the user for settings ("config") or indexes ("data"), as platformdirs gives it.

    None without a home folder. On Linux the usual answers are found here, because to import platformdirs takes longer
    than all that is done with the answer.
    """
    variable, below_home = _FOLDERS[kind]
    named, home = os.environ.get(variable, ""), os.environ.get("HOME", "")
    if sys.platform == "linux" and not hasattr(sys, "getandroidapilevel"):
        if os.path.isabs(named):
            return os.path.join(named, _NAME)
        if not named and os.path.isabs(home):
            return os.path.join(home, below_home, _NAME)
    import platformdirs

    try:
        folder = {"config": platformdirs.user_config_dir, "data": platformdirs.user_data_dir}[kind](_NAME, False)
    except RuntimeError:
        return None
    return None if folder.startswith("~") else folder  # as older versions leave it


def place() -> Path | None:
    """Return the path of the file: by BT_CONFIG, else in the folder for settings. Raises UsageError."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.abspath(own_folder(named)))
    folder = user_folder("config")
    return None if folder is None else Path(folder, "config.toml")


def read(path: Path | None) -> SettingsFile:
    """Read the file. Raises UsageError if it is no readable TOML."""
    text = None if path is None else _text_of(path)
    if text is None:
        return SettingsFile(path)
    import tomllib

    try:
        return SettingsFile(path, text, tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        what, line = (found[1], found[2] or text.count("\n") + 1) if found else (type(error).__name__, 1)
        raise UsageError(f"{path}:{line}: this is no TOML ({what}): mend the line, or remove the file") from error


def _text_of(path: Path) -> str | None:
    """Return the text of the file, None if it is not there. Raises UsageError."""
    content = b""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: no regular file: move it away, or name another file with {VARIABLE}")
        if status.st_size > _MOST_BYTES:
            raise UsageError(f"{path}: larger than any file of settings: move it away, or name another with {VARIABLE}")
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{path}: the settings cannot be read: {why}: check the permissions of the file") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is no UTF-8 text: save the file as UTF-8") from error


def _line_of(text: str, wanted: list[str]) -> int | None:
    """Return the line that gives a key, or opens the table, by the look of it: tomllib does not tell."""
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+([^\[\]]+)\]", line):
            table = _parts(header[1])
            if table == wanted:
                return number
        elif assignment := re.match(r"([^=#]+)=", line):
            key = [*table, *_parts(assignment[1])]
            if key == wanted[: len(key)]:  # shorter where an inline table holds it
                return number
    return None


def _parts(key: str) -> list[str]:
    return ["".join(part) for part in _PART.findall(key)]
