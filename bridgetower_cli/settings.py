"""Options that commands share: paths, model and device. Flag > environment > file of settings > default."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from bridgetower.errors import InputError, UsageError
from bridgetower.records import DEFAULT_MODEL as DEFAULT_MODEL
from bridgetower.records import DEVICES, PRECISIONS
from bridgetower.records import PREPROCESSINGS as PREPROCESSINGS
from bridgetower_cli import render
from bridgetower_cli.config import keys
from bridgetower_cli.config.completion import completing as completing
from bridgetower_cli.config.completion import libraries, models
from bridgetower_cli.config.file import SettingsFile, place, read
from bridgetower_cli.config.keys import Key, environment, look_up
from bridgetower_cli.config.places import library_folder, library_name
from bridgetower_cli.config.values import byte_size as byte_size
from bridgetower_cli.config.values import cosine as cosine
from bridgetower_cli.config.values import duration as duration
from bridgetower_cli.config.values import features_folder as features_folder
from bridgetower_cli.config.values import index_folder as index_folder
from bridgetower_cli.config.values import model_name as model_name
from bridgetower_cli.config.values import named_path as named_path
from bridgetower_cli.config.values import named_place as named_place
from bridgetower_cli.config.values import one_of as one_of
from bridgetower_cli.config.values import pixel_count as pixel_count
from bridgetower_cli.config.values import positive as positive
from bridgetower_cli.config.values import probability as probability
from bridgetower_cli.config.values import secret_file
from bridgetower_cli.config.values import share as share
from bridgetower_cli.config.values import whole as whole
from bridgetower_cli.terminal import hyperlinks

_LONGEST_SECRET = 4096  # bytes; more is not read

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved options of a command; the library itself does not read these variables."""

    index: Path  # absolute; it need not exist
    model: str  # the model where no index gives one
    named_model: str | None  # the value of --model, which alone overrides the model of an index
    given_model: str | None  # the value of --model, or of the setting
    device: str
    precision: str
    named_precision: str | None  # the value of --precision, which alone an index may refuse
    features_cache: int | None  # bytes; None as the index says
    features_dir: Path | None  # its folder, if not in the index
    server_off: str | None  # the option or setting by which no server is asked
    verbose: bool  # whether to say who answers
    store_password_file: Path | None  # absolute
    file: SettingsFile  # for `chosen`

    def store_password(self) -> str | None:
        """Return the password of the database that recalls: of the file, else BT_STORE_PASSWORD. Raises InputError."""
        if self.store_password_file is None:
            return environment("BT_STORE_PASSWORD")
        return _secret_in(self.store_password_file)

    def chosen(self, key: Key[_T], given: _T | None) -> _T:
        """Return the value of an option that not every command has: as given, or by its setting. Raises UsageError."""
        return _chosen(key, given, self.file)


def settle(
    *,
    index: Path | None = None,
    library: str | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    features_cache: int | None = None,
    features_dir: Path | None = None,
    no_server: bool = False,
    verbose: bool = False,
    store_password_file: Path | None = None,
    needs_index: bool = True,
) -> Settings:
    """Resolve the options of a command; None is an option not given; `index` is absolute.

    Raises UsageError; NoIndexError if the command `needs_index` and names a library that does not exist.
    """
    file = read(place())
    for line in keys.unknown(file):
        render.say(f"note: {line}")
    hyperlinks.by_setting = _chosen(keys.HYPERLINKS, None, file)
    render.index_option = _index_option(index, library)
    by_setting = look_up(keys.MODEL, file)
    given_model = model or (None if by_setting is None else by_setting.value)
    return Settings(
        index=_index(index, library, file, must_exist=needs_index),
        model=given_model or DEFAULT_MODEL,
        named_model=model,
        given_model=given_model,
        device=_chosen(keys.DEVICE, device, file),
        precision=_chosen(keys.PRECISION, precision, file),
        named_precision=precision,
        features_cache=_chosen(keys.FEATURES_CACHE, features_cache, file),
        features_dir=_chosen(keys.FEATURES_DIR, features_dir, file),
        server_off="--no-server"
        if no_server
        else _server_off(file) or ("--store-password-file" if store_password_file else None),
        verbose=verbose,
        store_password_file=_chosen(keys.STORE_PASSWORD_FILE, store_password_file, file),
        file=file,
    )


def _chosen(key: Key[_T], given: _T | None, file: SettingsFile) -> _T:
    if given is not None:
        return given
    found = look_up(key, file)
    return key.default() if found is None else found.value


def _index(index: Path | None, library: str | None, file: SettingsFile, *, must_exist: bool) -> Path:
    """Return the folder of the index: the first place that names one, by folder or by library, counts."""
    if index is not None and library is not None:
        raise UsageError("--index and --library both name an index: choose one")
    if index is not None:
        return index
    if library is None:
        index, library = keys.index_or_library(file)
    if library is not None:
        return library_folder(library, file, must_exist=must_exist)
    return keys.INDEX.default() if index is None else index


def _index_option(index: Path | None, library: str | None) -> str:
    """Return the option that names the index, as a shell takes it behind a command; empty if none was given."""
    if index is not None:
        return f" --index {shlex.quote(str(index))}"
    return "" if library is None else f" --library {library}"


def _server_off(file: SettingsFile) -> str | None:
    """Return the setting by which no server is asked, if it is one."""
    found = look_up(keys.SERVER, file)
    if found is None or found.value != "off":
        return None
    return f"{found.where}=off" if found.origin == "environment" else f"{found.where}: server off"


def _secret_in(file: Path) -> str:
    """Return the secret in a file, without the line feeds at its end. Raises InputError."""
    try:
        with open(file, "rb") as source:
            secret = source.read(_LONGEST_SECRET).decode()
    except OSError as error:
        raise InputError(
            f"{file}: the password cannot be read: {error.strerror or error}; check the name and its permissions"
        ) from error
    except UnicodeDecodeError:
        raise InputError(f"{file}: no text: a file with a password and nothing else is wanted") from None
    secret = secret.rstrip("\r\n")
    if not secret or "\n" in secret or "\0" in secret:
        raise InputError(f"{file}: a file with one line is wanted, the password")
    return secret


def a_text(text: str) -> str:
    """Parse a text for typer. Raises UsageError if it is empty."""
    if not text.strip():
        raise UsageError("the text is empty; give at least one word")
    if text == "-":
        raise UsageError(
            '"-" is no text: `bt search --texts-from -` reads many from stdin, one a line, and loads the model once'
        )
    return text


Index = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=index_folder,
        help="The folder of the index. [env: BT_INDEX; default: in your data folder]",
    ),
]
InLibrary = Annotated[
    str | None,
    typer.Option(
        "--library",
        metavar="NAME",
        parser=library_name,
        autocompletion=libraries,
        help="Instead of --index: the index with this name, as `bt libraries` lists them. [env: BT_LIBRARY]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=model_name,
        autocompletion=models,
        help=f'A repository of the Hugging Face Hub, a folder, or "demo". [env: BT_MODEL; default: {DEFAULT_MODEL}]',
    ),
]
IndexModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=model_name,
        autocompletion=models,
        help="Where the model of the index is to be found now, if it has moved. [default: as the index was made]",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(DEVICES),
        parser=one_of(DEVICES),
        autocompletion=completing(DEVICES),
        help="What to compute on. [env: BT_DEVICE; default: auto, the best there is]",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PRECISIONS),
        parser=one_of(PRECISIONS),
        autocompletion=completing(PRECISIONS),
        help="How to compute; int8 is for x86 CPUs, a little less exact, and kept by an index that is begun in it. "
        "[env: BT_PRECISION; default: auto, bf16 where the hardware has it]",
    ),
]
FeaturesCache = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=byte_size,
        help="Disk space for what the model saw in pictures, so that the next search need not look again; 0 for none. "
        "What `bt index --keep-features` keeps is never removed for it. [env: BT_FEATURES_CACHE; default: 2GB, or as "
        "the index keeps]",
    ),
]
FeaturesDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=features_folder,
        help="Where to keep it, as on another disk; only files of its own are ever removed there. "
        "[env: BT_FEATURES_DIR; default: in the index]",
    ),
]
StorePasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=secret_file,
        help="A file with the password of the database that recalls, where the index has one. "
        "[env: BT_STORE_PASSWORD_FILE, or the password itself in BT_STORE_PASSWORD]",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="local|ray|ray://HOST:PORT",
        autocompletion=completing(("local", "ray", "ray://")),
        help="Where pictures become vectors: in this process, or on a Ray cluster (extra ray): docs/cluster.md.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        parser=whole(4),
        metavar="N",
        help="How many processes decode, or with ray how many workers there are at most. [default: one a processor, "
        "with ray one a GPU, or else a processor that Ray has]",
    ),
]
SharedPaths = Annotated[
    bool,
    typer.Option(
        "--shared-paths", help="With ray: the workers read and decode the files, which have the same paths there."
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(metavar="DIR", parser=named_path, help="Where the pictures lie. [default: beside CAPTIONS]"),
]
Split = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only this part of a Karpathy file; may be given several times."),
]
Top = Annotated[int, typer.Option(parser=whole(10), metavar="N", help="Show at most this many.")]
Depth = Annotated[
    int | None,
    typer.Option(
        parser=whole(20, least=0),
        metavar="N",
        help="Verify this many candidates with the full model. [env: BT_DEPTH; default: 20, on a GPU 100]",
    ),
]
MinMatch = Annotated[
    float | None,
    typer.Option(
        parser=probability,
        metavar="P",
        help="Keep only pictures that the text describes with at least this probability, 0 to 1. [env: BT_MIN_MATCH]",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=render.hush, is_eager=True, help="Say nothing on stderr but errors."),
]
NoServer = Annotated[
    bool,
    typer.Option(
        "--no-server", help="Ask no `bt serve` that is running; do the work in this process. [env: BT_SERVER=off]"
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr which process answers, and why.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
RequiredText = Annotated[str, typer.Argument(metavar="TEXT", parser=a_text, help="Your words, in quotes.")]
