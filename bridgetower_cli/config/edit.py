"""Change one setting in the file of settings; comments, order and all else stay as they are."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import tomlkit

from bridgetower.errors import InputError
from bridgetower.files.atomic import remove_abandoned, replace_file
from bridgetower_cli.config.file import SettingsFile


def change(file: SettingsFile, keys: Sequence[str], value: str | float | None) -> None:
    """Give the key in these tables a value, or remove it with None. Raises InputError if the file cannot be written."""
    assert file.path is not None
    document = tomlkit.parse(file.text)
    *tables, key = keys
    table: tomlkit.TOMLDocument | tomlkit.items.Table = document
    for name in tables:
        if name not in table:
            table[name] = tomlkit.table()
        table = table[name]  # a table: `SettingsFile.libraries` has refused all else
    if value is None:
        del table[key]
    else:
        table[key] = value
    _write(
        Path(os.path.realpath(file.path)), tomlkit.dumps(document)
    )  # a link may lead to a folder that is synchronised


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, re.escape(path.name))
        mode = path.stat().st_mode if path.exists() else None
        replace_file(path, lambda unfinished: unfinished.write_bytes(text.encode()), mode=mode)
    except OSError as error:
        raise InputError(
            f"{path}: the settings cannot be written: {error.strerror or error}: make the folder writable, or name "
            "another file with BT_CONFIG"
        ) from error
