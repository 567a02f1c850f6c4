"""Ask a person on a terminal for queries, again and again, with the models loaded once."""

import math
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import typer

from bridgetower.errors import InputError, UsageError
from bridgetower_cli import interrupts, render
from bridgetower_cli.asking.answer import Query, answer
from bridgetower_cli.asking.completion import Completion
from bridgetower_cli.asking.line_editor import LineEditor
from bridgetower_cli.config.keys import HISTORY, MIN_MATCH
from bridgetower_cli.config.values import probability
from bridgetower_cli.libraries import AskLibrary, open_library
from bridgetower_cli.live_table import LiveTable
from bridgetower_cli.settings import Settings, named_path, named_place, whole
from bridgetower_cli.terminal.tables import Column

if TYPE_CHECKING:
    from bridgetower import Library
    from bridgetower.serving.local.client import RemoteLibrary

_T = TypeVar("_T")

_PROMPT = "bt> "


def converse(common: Query, settings: Settings, *, sort: str, open_picture: Callable[[Path], object]) -> None:
    """Ask until the person leaves. `common` holds the arguments that all queries begin with.

    Raises StoreError, ModelError and ResourceError; other errors are said, and end only a query.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise UsageError("-i asks on a terminal: elsewhere `bt search --texts-from -` reads queries, one a line")
    keeps_history = settings.chosen(HISTORY, None) != "off"
    render.say("note: type what the pictures should show; /help tells more, Ctrl-D leaves")
    with (
        open_library(settings) as ask_library,
        Completion(settings, COMMANDS) as completion,
        LineEditor(completion.of, keeps_history=keeps_history) as editor,
        interrupts.breaking_off(),
    ):
        session = _Session(common, settings, ask_library, sort, open_picture)
        while session.goes_on:
            try:
                line = editor.read(_PROMPT)
                if line is None:
                    return
                session.take(line)
            except interrupts.Terminated:
                raise
            except KeyboardInterrupt:
                render.verbatim("\n")
            except typer.Exit:  # a query without a hit
                pass
            except (UsageError, InputError) as error:
                render.error(str(error), error.exit_code)
            except Exception:
                if interrupts.asked is None:  # else a library turned Ctrl-C into an error of its own
                    raise
                render.verbatim("\n")
            interrupts.forget()


class _Session:
    """The limits of the next query, as the commands have set them."""

    def __init__(
        self,
        common: Query,
        settings: Settings,
        ask_library: AskLibrary,
        sort: str,
        open_picture: Callable[[Path], object],
    ) -> None:
        self.goes_on = True
        self._query = dict(common)
        self._settings, self._ask_library, self._sort = settings, ask_library, sort
        self._open_picture = open_picture
        self._live = LiveTable("verifying", "pictures")
        self._files: dict[int, Path] = {}  # of the last answer, by their ranks
        if common["depth"] != 0:
            self._query["min_match"] = settings.chosen(MIN_MATCH, common["min_match"])

    def take(self, line: str) -> None:
        """Obey a command, or answer a query."""
        name, _, value = line.strip().partition(" ")
        if (command := COMMANDS.get(name)) is not None:
            command.obey(self, value.strip())
        elif (file := _existing_file(line)) is not None:
            self.ask_image(file)
        elif name.startswith("/"):
            raise UsageError(f"{name} is no command, and no file: /help shows the commands")
        elif name:
            self._answer(text=[line], min_similarity=None)

    def set_top(self, value: str) -> None:
        self._query["top"] = whole(10)(value)

    def set_min_match(self, value: str) -> None:
        self._query["min_match"] = probability(value) if value else None

    def set_under(self, value: str) -> None:
        self._query["under"] = [named_place(value)] if value else None

    def set_without(self, value: str) -> None:
        self._query["without"] = [value] if value else []

    def ask_image(self, value: str) -> None:
        image = named_path(_existing_file(value) or os.path.expanduser(value))
        self._answer(image=[image], min_match=None, budget=math.inf)

    def open(self, value: str) -> None:
        rank = whole(1)(value)
        if rank not in self._files:
            raise UsageError(f"/open {rank}: the last answer has no picture of that rank")
        self._open_picture(self._files[rank])

    def help(self, value: str) -> None:
        rows = [[f"{name} {command.argument}", command.does] for name, command in COMMANDS.items()]
        render.table([Column(""), Column("")], rows, header=False)

    def quit(self, value: str) -> None:
        self.goes_on = False

    def _answer(self, **own: Any) -> None:
        self._files = {}
        query = {**self._query, **own}
        _, hits = answer(query, self._ask_newest, self._settings.index, sort=self._sort, live=self._live)
        self._files = {rank: hit.path for rank, hit in hits}

    def _ask_newest(self, ask: "Callable[[Library | RemoteLibrary], _T]", /) -> _T:
        """Ask the index as it is now."""

        def refreshed(searched: "Library | RemoteLibrary") -> _T:
            searched.refresh()
            return ask(searched)

        return self._ask_library(refreshed)


class _Command(NamedTuple):
    """A line that begins with its name, and that is no query."""

    argument: str
    does: str
    obey: Callable[[_Session, str], object]  # raises UsageError for a wrong argument


COMMANDS = {
    "/top": _Command("N", "show at most N pictures", _Session.set_top),
    "/min-match": _Command(
        "P", "only pictures that a text describes with at least this probability; alone: all", _Session.set_min_match
    ),
    "/under": _Command(
        "PLACE", "only pictures in this folder, or that fit this pattern; alone: all", _Session.set_under
    ),
    "/not": _Command("TEXT", "a text that must not be true of the pictures; alone: none", _Session.set_without),
    "/image": _Command("FILE", "pictures like this one; the path of a file alone does the same", _Session.ask_image),
    "/open": _Command("N", "open the picture of rank N in the viewer of the desktop", _Session.open),
    "/help": _Command("", "show this", _Session.help),
    "/quit": _Command("", "leave, as Ctrl-D does", _Session.quit),
}


def _existing_file(line: str) -> str | None:
    """Return the path of a file that is all of a line: as it is, or as a shell or a file manager quotes it."""
    ways = [line.strip()]
    with suppress(ValueError):  # an apostrophe
        ways += [words[0] for words in [shlex.split(line)] if len(words) == 1]
    return next((path for way in ways if way and os.path.isfile(path := os.path.expanduser(way))), None)
