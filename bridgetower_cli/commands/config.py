"""`bt config show`, `bt config set`, `bt config unset`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bridgetower.errors import UsageError
from bridgetower.inputs import model_name
from bridgetower_cli import render
from bridgetower_cli.config.completion import setting_values, settings
from bridgetower_cli.config.file import LIBRARIES, SettingsFile, place, read
from bridgetower_cli.config.keys import (
    INDEX,
    KEYS,
    LIBRARY,
    MODEL,
    Key,
    in_file,
    index_or_library,
    key_of,
    look_up,
    parsed,
    unknown,
)
from bridgetower_cli.config.places import LIBRARY_PREFIX, folder_in_file, library_folder, own_name
from bridgetower_cli.config.values import index_folder
from bridgetower_cli.settings import Json, Quiet
from bridgetower_cli.terminal.tables import Column

Name = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        autocompletion=settings,
        help="A setting, as `bt config show` lists them, or library.NAME for the folder of a library.",
    ),
]


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting as it is shown."""

    key: str
    value: Any
    origin: str  # "environment", "file", "default"; of an index also "library", which has it
    where: str | None  # the variable, or the path and the line
    problem: str | None = None  # why commands that need it refuse the value


def show_config(json: Json = False, quiet: Quiet = False) -> None:
    """Show each setting, its value, and where the value is from.

    An option of a command goes before the environment, that before the file, and that before the default.
    """
    file = read(place())
    shown = list(_shown(file))
    if json:
        for one in shown:
            render.json_line(
                {"key": one.key, "value": one.value, "origin": one.origin, "where": one.where, "problem": one.problem}
            )
    else:
        render.table(
            [Column("setting"), Column("value", path=True), Column("from", path=True)],
            [
                [
                    one.key,
                    render.UNKNOWN if one.value is None else render.visible(str(one.value)),
                    render.visible(one.where or one.origin),
                ]
                for one in shown
            ],
        )
    for one in shown:
        render.note(one.problem)
    for line in unknown(file):
        render.note(line)
    if file.path is not None:
        there = "" if file.path.exists() else ", which is not there yet"
        render.say(f"the file of settings is {render.visible(str(file.path))}{there}")


def set_config(
    name: Name,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", autocompletion=setting_values, help="As the option of that name takes it.")
    ],
    quiet: Quiet = False,
) -> None:
    """Keep a setting in the file of settings, for all commands from now on."""
    file = _writable()
    keys: tuple[str, ...] = (name,)
    written: str | float
    if name.startswith(LIBRARY_PREFIX):
        keys = (LIBRARIES, own_name(name.removeprefix(LIBRARY_PREFIX)))
        written = str(index_folder(value))
        _ = file.libraries  # refuses what is no table
    else:
        key = key_of(name)
        written = _written(key, value)
        _require_one_index(key, file)
    from bridgetower_cli.config.edit import change

    change(file, keys, written)
    render.say(f"{name} = {render.visible(str(written))} is kept in {render.visible(str(file.path))}")
    if name in KEYS and (variable := os.environ.get(KEYS[name].variable)):
        render.say(f"note: {KEYS[name].variable}={render.visible(variable)} goes before it")


def unset_config(name: Name, quiet: Quiet = False) -> None:
    """Take a setting out of the file of settings, so that its default counts again. A library keeps its folder."""
    file = _writable()
    keys: tuple[str, ...] = (name,)
    if name.startswith(LIBRARY_PREFIX):
        keys = (LIBRARIES, name.removeprefix(LIBRARY_PREFIX))
    elif name not in file.values or name == LIBRARIES:  # an unknown one may be taken out
        key_of(name)
    if keys[-1] not in (file.libraries if len(keys) > 1 else file.values):
        render.say(f"{render.visible(str(file.path))} says nothing about {name}")
        return
    from bridgetower_cli.config.edit import change

    change(file, keys, None)
    render.say(f"{name} is no longer set in {render.visible(str(file.path))}")


def _shown(file: SettingsFile) -> Iterator[Shown]:
    for key in KEYS.values():
        try:
            if key is INDEX and (library := index_or_library(file)[1]) is not None:
                folder = library_folder(library, file, must_exist=False)
                yield Shown(key.name, folder, "library", f"library {library}")
                continue
            found = look_up(key, file)
            value: Any = key.default() if found is None else found.value
        except UsageError as error:
            is_variable = bool(os.environ.get(key.variable))
            where = key.variable if is_variable else file.where(key.name)
            text = os.environ[key.variable] if is_variable else file.values.get(key.name)
            yield Shown(key.name, str(text), "environment" if is_variable else "file", where, str(error))
            continue
        if found is None:
            yield Shown(key.name, value, "default", None)
        else:
            exact = isinstance(value, Path) or key.is_number
            yield Shown(key.name, value if exact else found.text, found.origin, found.where)
    for name in file.libraries:
        where = file.where(LIBRARIES, name)
        try:
            yield Shown(LIBRARY_PREFIX + name, folder_in_file(name, file), "file", where)
        except UsageError as error:
            yield Shown(LIBRARY_PREFIX + name, str(file.libraries[name]), "file", where, str(error))


def _writable() -> SettingsFile:
    """Return the file that is to be changed. Raises UsageError."""
    file = read(place())
    if file.path is None:
        raise UsageError("there is no home folder to keep settings in: name a file for them with BT_CONFIG")
    return file


def _written(key: Key[Any], text: str) -> str | float:
    """Return a value as the file has it. Raises UsageError."""
    value = parsed(key, text, key.name)
    if key.is_number:
        number: float = value
        return number
    if key is MODEL:
        return model_name(text)  # a folder lasts, whatever the current one is
    return str(value) if key.is_path else text


def _require_one_index(key: Key[Any], file: SettingsFile) -> None:
    """Raise UsageError if the file would name an index twice, by folder and by library."""
    others: dict[str, Key[Any]] = {INDEX.name: LIBRARY, LIBRARY.name: INDEX}
    if (other := others.get(key.name)) is not None and in_file(other, file) is not None:
        raise UsageError(
            f"{file.where(other.name)}: {other.name} names an index already: first `bt config unset {other.name}`"
        )
