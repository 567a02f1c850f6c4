"""Read files of JSON lines (jsonl) a line at a time; errors name the file and the line."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bridgetower.errors import InputError
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular
from bridgetower.records import LARGEST

# Bytes: an image with some 100,000 files. Parsing that takes half a second, in which Python handles no signal.
LONGEST_LINE = 16 * 1000**2

_T = TypeVar("_T")


def lines(
    file: Path, parse: Callable[[int, Any], _T], *, form: str | None = None, blanks: bool = False
) -> Iterator[_T]:
    """Yield `parse(number, row)` of each line of JSON, numbered from 1. Its ValueErrors become InputErrors.

    Their messages end with `form`, an example of a line. Blank lines are errors, or with `blanks` passed over.
    """
    try:
        with open_regular(file) as opened:
            for number, line in enumerate(iter(partial(opened.readline, LONGEST_LINE + 1), b""), start=1):
                try:
                    if len(line) > LONGEST_LINE:
                        raise ValueError(f"longer than {LONGEST_LINE / 1e6:g} MB")
                    text = line.decode("utf-8-sig")
                    if not blanks or text.strip():
                        yield parse(number, _json(text))
                except ValueError as error:
                    why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                    should = "" if form is None else f"; it should be {form}"
                    raise InputError(f"{file}, line {number}: {why}{should}") from error
    except OSError as error:
        raise unreadable(file, error) from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON from column {error.colno} on") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("a number too long, or brackets too deep, to be read") from error


def field(row: Any, name: str, kind: type[_T]) -> _T:
    """Return the value of a field of type `kind`: str, int, list or dict. Raises ValueError for anything else."""
    if not isinstance(row, dict):
        raise ValueError(f'not a JSON object with "{name}"')
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "text", int: "a whole number", list: "a list", dict: "an object"}
        raise ValueError(f'"{name}" is not {names[kind]}')
    return value


def integer(row: Any, name: str, *, least: int = 0) -> int:
    """Return a whole number from `least` to LARGEST. Raises ValueError for anything else."""
    value = field(row, name, int)
    if not least <= value <= LARGEST:
        raise ValueError(f'"{name}" is out of range')
    return value


def require_once(
    file: Path, lines: Callable[[], Iterable[Iterable[tuple[str, bytes]]]], report: Callable[[int], None]
) -> None:
    """Raise InputError where a key, (kind, bytes), occurs twice in the lines of a file.

    Keeps a digest of 8 bytes for each key; where two digests are equal, the lines are read again to compare the keys.
    `report` gets the number of each line.
    """
    seen = array("Q")
    for number, keys in enumerate(lines(), start=1):
        seen.extend(map(_digest, keys))
        report(number)
    digests, counts = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
    suspects = set(digests[counts > 1].tolist())
    first: dict[tuple[str, bytes], int] = {}
    for number, keys in enumerate(lines() if suspects else (), start=1):
        for key in keys:
            if key in first:
                raise InputError(f"{file}, line {number}: the same {key[0]} as in line {first[key]}; each stands once")
            if _digest(key) in suspects:
                first[key] = number


def _digest(key: tuple[str, bytes]) -> int:
    return int.from_bytes(hashlib.blake2b(key[1], digest_size=8, person=key[0].encode()).digest())
