"""Files with a line of JSON for each row (jsonl): read a line at a time, and said what is wrong with them."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bridgetower.errors import InputError
from bridgetower.npy import unreadable
from bridgetower.schema import LARGEST

_T = TypeVar("_T")


def lines(file: Path, parse: Callable[[int, Any], _T]) -> Iterator[_T]:
    """What `parse(number, row)` makes of each line of JSON, numbered from 1. Its ValueErrors become InputErrors."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                try:
                    yield parse(number, _json(line))
                except ValueError as error:
                    raise InputError(f"{file}, line {number}: {error}") from error
    except OSError as error:
        raise unreadable(file, error) from error


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON from column {error.colno} on") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise ValueError("not JSON that could be meant") from error


def field(row: Any, name: str, kind: type[_T]) -> _T:
    """The value of a field: str, int, list or dict, as `kind` says. Raises ValueError for anything else."""
    if not isinstance(row, dict):
        raise ValueError(f'not a JSON object with "{name}"')
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "text", int: "a whole number", list: "a list", dict: "an object"}
        raise ValueError(f'"{name}" is not {names[kind]}')
    return value


def integer(row: Any, name: str, *, least: int = 0) -> int:
    """A whole number from `least` to LARGEST. Raises ValueError for anything else."""
    value = field(row, name, int)
    if not least <= value <= LARGEST:
        raise ValueError(f'"{name}" is out of range')
    return value


def require_once(
    file: Path, lines: Callable[[], Iterable[Iterable[tuple[str, bytes]]]], report: Callable[[int], None]
) -> None:
    """Raise InputError where a key, (what it is, its bytes), stands twice in the lines of a file.

    Takes 8 bytes of memory for each; where two digests are equal, the lines are read again to see whether the keys are.
    `report` is told the number of each line.
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
