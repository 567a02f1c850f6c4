"""Options that commands share: paths, model and device. Flag > environment > default, resolved once."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import InputError, UsageError
from bridgetower.records import DEFAULT_MODEL as DEFAULT_MODEL
from bridgetower.records import DEVICES, LARGEST, MOST_PIXELS, PRECISIONS
from bridgetower.records import PREPROCESSINGS as PREPROCESSINGS
from bridgetower_cli import render
from bridgetower_cli.terminal.hyperlinks import SETTINGS as HYPERLINKS

_LONGEST_SECRET = 4096  # bytes; more is not read
_SERVER = ("auto", "off")  # values of BT_SERVER


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved options of a command; the library itself does not read these variables."""

    index: Path  # absolute; it need not exist
    model: str  # the model where no index gives one
    named_model: str | None  # the value of --model, which alone overrides the model of an index
    given_model: str | None  # the value of --model or BT_MODEL
    device: str
    precision: str
    named_precision: str | None  # the value of --precision, which alone an index may refuse
    features_cache: int | None  # bytes; None as the index says
    features_dir: Path | None  # its folder, if not in the index
    server_off: str | None  # the option or variable by which no server is asked
    verbose: bool  # whether to say who answers
    store_password_file: Path | None  # absolute

    def store_password(self) -> str | None:
        """Return the password of the database that recalls: of the file, else BT_STORE_PASSWORD. Raises InputError."""
        if self.store_password_file is None:
            return _environment("BT_STORE_PASSWORD")
        return _secret_in(self.store_password_file)


def settle(
    *,
    index: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    features_cache: int | None = None,
    features_dir: Path | None = None,
    no_server: bool = False,
    verbose: bool = False,
    store_password_file: Path | None = None,
) -> Settings:
    """Resolve the options of a command; None is an option not given; `index` is absolute. Raises UsageError."""
    given_model = model or _environment("BT_MODEL")
    is_off = _one_of(_SERVER, "BT_SERVER", _environment("BT_SERVER")) == "off"
    _one_of(HYPERLINKS, "BT_HYPERLINKS", _environment("BT_HYPERLINKS"))
    return Settings(
        index=index or index_folder(_environment("BT_INDEX") or _default_index()),
        model=given_model or DEFAULT_MODEL,
        named_model=model,
        given_model=given_model,
        device=_one_of(DEVICES, "device", device or _environment("BT_DEVICE")),
        precision=_one_of(PRECISIONS, "precision", precision or _environment("BT_PRECISION")),
        named_precision=precision,
        features_cache=(
            byte_size(named)
            if features_cache is None and (named := _environment("BT_FEATURES_CACHE"))
            else features_cache
        ),
        features_dir=features_dir or (features_folder(named) if (named := _environment("BT_FEATURES_DIR")) else None),
        server_off=_first(
            no_server and "--no-server", is_off and "BT_SERVER=off", store_password_file and "--store-password-file"
        ),
        verbose=verbose,
        store_password_file=store_password_file or _named_file("BT_STORE_PASSWORD_FILE"),
    )


def _first(*reasons: object) -> str | None:
    return next((str(reason) for reason in reasons if reason), None)


def _environment(name: str) -> str | None:
    return os.environ.get(name) or None  # set but empty is not set


def _named_file(variable: str) -> Path | None:
    named = _environment(variable)
    return None if named is None else secret_file(named)


def _secret_in(file: Path) -> str:
    """Return the secret in a file, without the line feeds at its end. Raises InputError."""
    try:
        with open(file, "rb") as source:
            secret = source.read(_LONGEST_SECRET).decode()
    except OSError as error:
        raise InputError(f"{file}: the password cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise InputError(f"{file}: no text: a file with a password and nothing else is wanted") from None
    secret = secret.rstrip("\r\n")
    if not secret or "\n" in secret or "\0" in secret:
        raise InputError(f"{file}: a file with one line is wanted, the password")
    return secret


def _default_index() -> str:
    import platformdirs

    try:
        folder = platformdirs.user_data_dir("bridgetower", appauthor=False)
    except RuntimeError:
        folder = "~"  # as older versions leave it
    if folder.startswith("~"):
        raise UsageError("there is no home folder to keep an index in: name a place for it with --index DIR")
    return os.path.join(folder, "index")


def index_folder(name: str) -> Path:
    """Return the absolute path of the folder of an index; "~" is a home. Raises UsageError."""
    from bridgetower.inputs import own_folder

    return Path(os.path.abspath(own_folder(name)))


def features_folder(name: str) -> Path:
    """Return the real path of a folder for features: the user named it, so a link is followed. Raises UsageError."""
    from bridgetower.inputs import own_folder

    return Path(os.path.realpath(own_folder(name)))


def secret_file(name: str) -> Path:
    """Parse the path of a file with a password for typer: absolute, as a server in the background reads it, too."""
    return Path(os.path.abspath(named_path(name)))


def named_path(name: str) -> Path:
    """Parse a path for typer. Raises UsageError if it is empty, which Python takes for the current folder.

    Typer's own parser would refuse unreadable paths, which the command reports itself.
    """
    if not name:
        raise UsageError('an empty path names nothing; the current folder is "."')
    return Path(name)


def named_place(name: str) -> str:
    """Parse a path or glob of an index for typer, which keeps "./" and "/". Raises UsageError if it is empty.

    A shell leaves "~" as it is behind "=" and in quotes.
    """
    named_path(name)
    return os.path.expanduser(name) if name.startswith("~/") else name


def byte_size(text: str) -> int:
    """ "2GB", "500MB", "0" -> bytes. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(B|kB|MB|GB|TB)?", text.strip(), re.IGNORECASE)
    if found is None or (found[2] is None and float(found[1]) != 0):
        raise UsageError(f"{text!r} is no size: write it as 500MB or 2GB, or 0 for none")
    size = int(float(found[1]) * 1000 ** ("b", "kb", "mb", "gb", "tb").index((found[2] or "B").lower()))
    if size > LARGEST:
        raise UsageError(f"{text!r} is more than any disk has: write it as 500MB or 2GB, or 0 for none")
    return size


def pixel_count(text: str) -> int:
    """ "200MP", "0.5MP", "50000000" -> pixels. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *MP|(\d+)", text.strip(), re.IGNORECASE | re.ASCII)
    pixels = 0 if found is None else int(found[2] or round(float(found[1]) * 1_000_000))
    if not 1 <= pixels <= MOST_PIXELS:
        raise UsageError(f"{text!r} is no number of pixels: write it as 200MP or 200000000, at most 10000MP")
    return pixels


def duration(text: str) -> float:
    """ "2s", "500ms", "1.5m" -> seconds. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(ms|s|m|h)", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no duration: write it as 500ms, 2s or 1m")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def whole(example: int, *, least: int = 1, most: int | None = None) -> Callable[[object], int]:
    """Return a parser of whole numbers from `least` to `most`; its UsageError names an example."""
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(value: object) -> int:
        found = re.fullmatch(r"[+-]?\d+", str(value).strip(), re.ASCII)
        if found is None or int(found[0]) < least or (most is not None and int(found[0]) > most):
            raise UsageError(f"{str(value)!r}: a whole number {wanted} is wanted, as {example}")
        return int(found[0])

    return parse


def probability(value: object) -> float:
    """ "0.5" -> 0.5. Raises UsageError unless it is from 0 to 1."""
    return _between(0, 1, value, "a probability is between 0 and 1, as 0.5")


def cosine(value: object) -> float:
    """ "0.8" -> 0.8. Raises UsageError unless it is from -1 to 1."""
    return _between(-1, 1, value, "a similarity is between -1 and 1, as 0.8")


def _between(least: float, most: float, value: object, wanted: str) -> float:
    try:
        found = float(str(value))
        if not least <= found <= most:
            raise ValueError
    except ValueError as error:
        raise UsageError(f"{str(value)!r}: {wanted}") from error
    return found


def least_match(given: float | None) -> float | None:
    """Return the value of --min-match, else of BT_MIN_MATCH, else None. Raises UsageError."""
    if given is not None or (default := _environment("BT_MIN_MATCH")) is None:
        return given
    try:
        return probability(default)
    except UsageError as error:
        raise UsageError(f"BT_MIN_MATCH: {error}") from error


def _one_of(known: Sequence[str], name: str, value: str | None) -> str:
    value = value or known[0]
    if value not in known:
        raise UsageError(f"{name} {value!r} is unknown: choose one of {', '.join(known)}")
    return value


def completing(words: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a function for shell completion of these words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def a_text(text: str) -> str:
    """Parse a text for typer. Raises UsageError if it is empty."""
    if not text.strip():
        raise UsageError("the text is empty; give at least one word")
    if text == "-":
        raise UsageError(
            '"-" is no text: `bt search --texts-from -` reads many from stdin, one a line, and loads the model once'
        )
    return text


def model_name(name: str) -> str:
    """Parse the name of a model for typer. Raises UsageError if it is empty."""
    if not name.strip():
        raise UsageError('an empty name is no model: give a repository of the Hugging Face Hub, a folder, or "demo"')
    return name


Index = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=index_folder,
        help="The folder of the index. [env: BT_INDEX; default: in your data folder]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=model_name,
        help=f'A repository of the Hugging Face Hub, a folder, or "demo". [env: BT_MODEL; default: {DEFAULT_MODEL}]',
    ),
]
IndexModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=model_name,
        help="Where the model of the index is to be found now, if it has moved. [default: as the index was made]",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(DEVICES),
        autocompletion=completing(DEVICES),
        help="What to compute on. [env: BT_DEVICE; default: auto, the best there is]",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PRECISIONS),
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
        help="Verify this many candidates with the full model. [default: 20, on a GPU 100]",
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
