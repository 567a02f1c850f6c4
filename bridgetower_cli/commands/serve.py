"""`bt serve`."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import BridgeTowerError, InputError, ResourceError, UsageError
from bridgetower.serving.http.config import DEFAULT_HOST, DEFAULT_PORT, TOKEN, Config, is_installed
from bridgetower.serving.local.client import NoServer, look, model_id
from bridgetower.serving.local.client import stop as stop_server
from bridgetower.serving.local.place import NotOffered, file_name, holder
from bridgetower_cli import interrupts, render
from bridgetower_cli.libraries import engine_options, say_defect
from bridgetower_cli.settings import (
    Device,
    FeaturesCache,
    FeaturesDir,
    Index,
    IndexModel,
    InLibrary,
    Precision,
    Quiet,
    Settings,
    StorePasswordFile,
    duration,
    named_path,
    settle,
    whole,
)

_IDLE_S = 15 * 60.0
_START_S = 60.0  # in which a server in the background must answer
_LOOK_EVERY_S = 0.1
_LARGEST_LOG = 1_000_000  # bytes, from which it begins again
_LONGEST_TOKEN = 4096  # bytes of its file that are read


def serve(
    idle: Annotated[
        float | None,
        typer.Option(
            metavar="TIME",
            parser=duration,
            help="Let the weights go after this time without a request: 15m, 2h. [default: 15m]",
        ),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Return when it answers, and leave it running.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the server of the index, when it has answered what it is asked.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="The address or name to listen at; any but this machine's own needs --token-file. "
            f"[default: {DEFAULT_HOST}]",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            parser=whole(DEFAULT_PORT, least=0, most=65_535),
            metavar="N",
            help=f"The port; 0 is any free one. [default: {DEFAULT_PORT}, or the next one that is free]",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=named_path,
            help="Want the token in this file of each request: `Authorization: Bearer TOKEN`.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name under which it is asked, as behind a proxy. Repeatable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A site whose pages may ask it, as https://photos.example. Repeatable."),
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave out the page for people at `/`.")] = False,
    features_cache: FeaturesCache = None,
    features_dir: FeaturesDir = None,
    store_password_file: StorePasswordFile = None,
    index: Index = None,
    in_library: InLibrary = None,
    model: IndexModel = None,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Keep the model of an index in memory, so that commands answer at once, and answer HTTP.

    While it runs, bt search, fill, match and rerank ask it instead of loading the model, where it serves the same
    index, model and precision. They give the same answer. It sees what `bt index` adds without a restart.

    The page at its address searches in a browser.

    Programs ask it by HTTP, as in `curl 'http://127.0.0.1:7860/search?text=two+cats'`; /openapi.json describes it.

    SIGTERM and Ctrl-C end it when what it is asked is answered.
    """
    if background and stop:
        raise UsageError("--background starts a server, --stop ends one: choose one")
    asked = Http(host, port, token_file, tuple(allow_host or ()), tuple(allow_origin or ()), not no_page)
    if stop and asked != Http():
        raise UsageError("--stop ends the server of an index, wherever it listens: give it without an address")
    settings = settle(
        index=index,
        library=in_library,
        model=model,
        device=device,
        precision=precision,
        features_cache=features_cache,
        features_dir=features_dir,
        store_password_file=store_password_file,
    )
    idle = _IDLE_S if idle is None else idle
    if stop:
        _stop(settings.index)
    elif background:
        asked.config()  # so that a mistake is told here
        _start(settings, idle, asked)
    else:
        _serve(settings, idle, asked)


@dataclass(frozen=True, slots=True)
class Http:
    """The options for HTTP, as they are given."""

    host: str | None = None
    port: int | None = None
    token_file: Path | None = None
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    page: bool = True

    def config(self) -> Config | None:
        """Return where to listen; None, after a note, if the extra is missing and no option asks for HTTP.

        Raises UsageError, InputError if the token cannot be read.
        """
        if not is_installed():
            from bridgetower import how_to_install

            missing = f"HTTP needs the extra serve: {how_to_install('serve')}"
            if self != Http():
                raise UsageError(missing)
            render.say(f"note: only commands are answered: {missing}")
            return None
        token = None if self.token_file is None else _token(self.token_file)
        return Config(self.host or DEFAULT_HOST, self.port, token, self.allow_host, self.allow_origin, page=self.page)

    def options(self) -> list[object]:
        """Return the options as a command takes them."""
        options: list[object] = []
        token_file = None if self.token_file is None else os.path.abspath(self.token_file)
        for name, value in (("--host", self.host), ("--port", self.port), ("--token-file", token_file)):
            options += [] if value is None else [name, value]
        for name, values in (("--allow-host", self.allow_host), ("--allow-origin", self.allow_origin)):
            options += [part for value in values for part in (name, value)]
        return options + ([] if self.page else ["--no-page"])


def _token(file: Path) -> str:
    """Return the token in a file. Raises InputError."""
    try:
        with open(file, "rb") as source:
            if os.fstat(source.fileno()).st_mode & 0o077 and os.name == "posix":
                render.say(f"note: {file}: other users may read the token: `chmod 600` keeps it from them")
            token = source.read(_LONGEST_TOKEN).decode("ascii").strip()
    except OSError as error:
        raise InputError(
            f"{file}: the token cannot be read: {error.strerror or error}; check the name and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: this is no token: it has signs beyond ASCII; `openssl rand -hex 32` makes one"
        ) from error
    if not TOKEN.fullmatch(token):
        raise InputError(
            f"{file}: this is no token, which is 16 to 512 letters, digits and signs without spaces: "
            "`openssl rand -hex 32` makes one"
        )
    return token


def _serve(settings: Settings, idle: float, asked: Http) -> None:
    from bridgetower.serving.process import serve as run

    http = asked.config()
    ended = threading.Event()
    interrupts.hand_over(lambda _: ended.set())
    run(engine_options(settings), http, ended, idle=idle, say=render.say, defect=say_defect)


def _start(settings: Settings, idle: float, asked: Http) -> None:
    """Start a server in the background, and wait until it answers."""
    try:
        running = look(settings.index)
    except NoServer:
        pass
    else:
        at = f" at {running.url}" if running.url else ""
        already = f"process {running.pid} serves {settings.index} already{at}"
        if asked != Http():
            raise UsageError(f"{already}: `bt serve --stop` ends it, so that another can have these options")
        render.say(already)
        return
    log = _log(settings.index)
    options = ["--index", settings.index, "--idle", f"{idle:.3f}s"]
    options += ["--device", settings.device, "--precision", settings.precision]
    if settings.named_model is not None:
        options += ["--model", model_id(settings.named_model)]
    if settings.features_cache is not None:
        options += ["--features-cache", f"{settings.features_cache}B"]
    if settings.features_dir is not None:
        options += ["--features-dir", settings.features_dir]
    if settings.store_password_file is not None:
        options += ["--store-password-file", settings.store_password_file]
    options += asked.options()
    begin = log.stat().st_size if log.exists() else 0
    with open(log, "wb" if begin > _LARGEST_LOG else "ab") as stderr:
        begin = stderr.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bridgetower_cli", "serve", *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            cwd="/",
        )
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            said = log.read_bytes()[begin:].decode("utf-8", "replace")
            lines = said.strip().splitlines() or ["it said nothing"]
            error = BridgeTowerError(f"the server ended at once: {lines[-1].removeprefix('error: ')}")
            error.exit_code = process.returncode
            raise error
        try:
            running = look(settings.index)
        except NoServer:
            time.sleep(_LOOK_EVERY_S)
            continue
        process.returncode = 0  # it is left running: Python need not warn of that
        at = f" at {running.url}" if running.url else ""
        render.say(f"process {running.pid} serves {settings.index}{at}; it writes to {log}")
        return
    raise ResourceError(f"process {process.pid} does not answer after {_START_S:g} s: {log} says more")


def _log(index: Path) -> Path:
    """Return the file to which the server of an index writes in the background."""
    import platformdirs

    folder = Path(platformdirs.user_log_dir("bridgetower", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{folder}: no log can be written there: {error.strerror or error}; make the folder writable"
        ) from error
    return folder / f"serve-{file_name(index)}.log"


def _stop(index: Path) -> None:
    """Ask the server of an index to end, and wait until it has."""
    try:
        running = stop_server(index)
    except NoServer as why:
        if (hung := _holder(index)) is not None:
            raise ResourceError(
                f"process {hung} serves {index}, but {why}: end it with `kill {hung}`, or with `kill -9 {hung}`"
            ) from why
        render.say(f"nothing to stop: {why}")
        return
    from bridgetower.serving.process import END_S

    until = time.monotonic() + END_S
    while time.monotonic() < until:
        if not _is_running(running.pid):
            render.say(f"process {running.pid} has ended")
            return
        time.sleep(_LOOK_EVERY_S)
    raise ResourceError(f"process {running.pid} has not ended after {END_S:g} s: end it with `kill {running.pid}`")


def _holder(index: Path) -> int | None:
    try:
        return holder(index)
    except NotOffered:
        return None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    try:  # a child of a process that does not wait for it
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return sys.platform != "linux"
