"""Make the library or the model of a command from its settings: that of a running server, or one of this process.

A command that is itself a server gets its options."""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from bridgetower.records import LOCAL, EngineChoice, Say
from bridgetower.serving.local.client import INDEX, PICTURES, NoServer, RemoteLibrary, RemoteModel, Server, Wanted
from bridgetower_cli import render
from bridgetower_cli.settings import Settings

if TYPE_CHECKING:
    from bridgetower.library import Library, Model
    from bridgetower.serving.engine import Options

_T = TypeVar("_T")


def ask_library(settings: Settings, ask: "Callable[[Library | RemoteLibrary], _T]") -> _T:
    """Return what `ask` gets from the library of a server, or of this process if no server answers: then it is called
    again."""

    def own(say: Say) -> _T:
        with library(settings, say=say) as asked:
            return ask(asked)

    return _answer(settings, INDEX, lambda server, say: ask(RemoteLibrary(server, say)), own)


class AskLibrary(Protocol):
    """Return what a function gets from a library; the function may be called twice, as `ask_library` does."""

    def __call__(self, ask: "Callable[[Library | RemoteLibrary], _T]", /) -> _T: ...


@contextmanager
def open_library(settings: Settings) -> Iterator[AskLibrary]:
    """Provide `ask_library` for many calls: once a server has not answered, one library of this process answers all.

    Each note is said once.
    """
    with ExitStack() as stack:
        kept: Library | None = None
        said = ""  # which process answers
        heard: set[str] = set()

        def once(say: Say, line: str) -> None:
            if line not in heard:
                heard.add(line)
                say(line)

        def say_who(line: str) -> None:
            nonlocal said
            if line != said:
                render.say(line)
            said = line

        def own(say: Say) -> "Library":
            nonlocal kept
            kept = stack.enter_context(library(settings, say=partial(once, say)))
            return kept

        def ask_each(ask: "Callable[[Library | RemoteLibrary], _T]") -> _T:
            if kept is not None:
                return ask(kept)
            return _answer(
                settings,
                INDEX,
                lambda server, say: ask(RemoteLibrary(server, partial(once, say))),
                lambda say: ask(own(say)),
                say_who,
            )

        yield ask_each


def ask_model(settings: Settings, ask: "Callable[[Model | RemoteModel], _T]") -> _T:
    """Return what `ask` gets from the model of a server, or of this process, as `ask_library` does."""
    return _answer(
        settings,
        PICTURES,
        lambda server, say: ask(RemoteModel(server, say)),
        lambda say: ask(model(settings, say=say)),
    )


def _answer(
    settings: Settings,
    pictures: str,
    served: Callable[[Server, Say], _T],
    own: Callable[[Say], _T],
    say_who: Say = render.say,
) -> _T:
    told: Counter[str] = Counter()  # lines of a server that was lost; they are not said twice

    def first(line: str) -> None:
        told[line] += 1
        render.say(line)

    def again(line: str) -> None:
        if told[line]:
            told[line] -= 1
        else:
            render.say(line)

    try:
        with _server(settings, pictures) as server:
            if settings.verbose:
                say_who(f"served by {server}")
            return served(server, first)
    except NoServer as why:
        if settings.verbose:
            say_who(f"no server: {why}")
    return own(again)


def _server(settings: Settings, pictures: str) -> Server:
    """Connect to the server that answers as this process would. Raises NoServer."""
    if settings.server_off is not None:
        raise NoServer(settings.server_off)
    return Server(wanted(settings), pictures)


def wanted(settings: Settings) -> Wanted:
    """Return what a server must have to answer as this process would."""
    return Wanted(
        settings.index,
        settings.named_model,
        settings.model,
        settings.device,
        settings.precision,
        settings.features_cache,
        settings.features_dir,
    )


def engine_options(settings: Settings) -> "Options":
    """Return the index and the model of a server with these settings."""
    from bridgetower.serving.engine import Options

    return Options(
        settings.index,
        settings.named_model,
        settings.device,
        settings.named_precision,
        settings.given_model,
        settings.precision if settings.named_precision is None else "auto",
        settings.features_cache,
        settings.features_dir,
        settings.store_password,
    )


def say_defect(error: BaseException) -> None:
    """Write an error that is a defect to stderr; a server goes on after it."""
    if sys.stderr is not None:
        traceback.print_exception(error, file=sys.stderr)


def library(
    settings: Settings, *, preprocessing: str | None = None, engine: EngineChoice = LOCAL, say: Say = render.say
) -> "Library":
    """Return the library for the index, model and device of the settings. Nothing is read or fetched yet."""
    from bridgetower.library import Library

    return Library(
        settings.index,
        settings.named_model,
        device=settings.device,
        precision=settings.named_precision,
        preprocessing=preprocessing,
        default_model=settings.given_model,
        default_precision=settings.precision if settings.named_precision is None else "auto",
        features_cache=settings.features_cache,
        features_dir=settings.features_dir,
        store_password=settings.store_password,
        engine=engine,
        progress=render.talks_to_terminal(),
        say=say,
    )


def model(settings: Settings, *, engine: EngineChoice = LOCAL, say: Say = render.say) -> "Model":
    """Return the model of the settings, fetched if need be, for commands without an index. Reads no weights yet."""
    from bridgetower.library import Model

    return Model(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        engine=engine,
        progress=render.talks_to_terminal(),
        say=say,
    )
