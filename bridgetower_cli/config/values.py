"""Parse the values of options, variables and the file of settings; each parser raises UsageError."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bridgetower.errors import UsageError
from bridgetower.records import LARGEST, MOST_PIXELS


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


def share(value: object) -> float:
    """ "0.05" -> 0.05. Raises UsageError unless it is from 0 to 1."""
    return _between(0, 1, value, "a share is between 0 and 1, as 0.05")


def cosine(value: object) -> float:
    """ "0.8" -> 0.8. Raises UsageError unless it is from -1 to 1."""
    return _between(-1, 1, value, "a similarity is between -1 and 1, as 0.8")


def positive(example: str) -> Callable[[object], float]:
    """Return a parser of finite numbers above 0; its UsageError names an example."""

    def parse(value: object) -> float:
        return _between(sys.float_info.min, sys.float_info.max, value, f"a number above 0 is wanted, as {example}")

    return parse


def _between(least: float, most: float, value: object, wanted: str) -> float:
    try:
        found = float(str(value))
        if not least <= found <= most:
            raise ValueError
    except ValueError as error:
        raise UsageError(f"{str(value)!r}: {wanted}") from error
    return found


def model_name(name: str) -> str:
    """Parse the name of a model for typer. Raises UsageError if it is empty."""
    if not name.strip():
        raise UsageError('an empty name is no model: give a repository of the Hugging Face Hub, a folder, or "demo"')
    return name


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """Return a parser that takes these words only; its UsageError names them."""

    def parse(value: str) -> str:
        if value not in known:
            raise UsageError(f"{value!r} is unknown: choose one of {', '.join(known)}")
        return value

    return parse
