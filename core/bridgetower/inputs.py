"""Arguments of the public interface: checked, and turned into what the stages take. All raise UsageError."""

import math
import operator
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from inspect import getattr_static
from pathlib import Path
from reprlib import Repr
from typing import NoReturn, TypeVar

from bridgetower.errors import UsageError
from bridgetower.records import Filter

AnyPath = str | os.PathLike[str]
Moment = str | date | datetime  # "2024", "2024-05", "2024-05-17", "2024-05-17T18:30", a date, or a datetime

MASK = "<mask>"

_T = TypeVar("_T")

_WRITTEN = re.compile(r"(\d{4})(-\d\d)?(-\d\d)?(?:[T ](\d\d:\d\d))?")


def short(value: object) -> str:
    """A value as Python writes it, on one line, at most some hundred characters."""
    shortened = Repr()
    shortened.maxstring, shortened.maxother = 100, 100
    return f"{' '.join(shortened.repr(value).split()):.200}"


def normalised(text: str) -> str:
    """A text with single spaces between its words and none around them; tabs and no-break spaces are spaces.

    The tokenizer keeps every blank, and a blank too many changes a probability: no person means that.
    """
    if not isinstance(text, str):
        raise UsageError(f"{short(text)}: a text is wanted")
    return " ".join(text.split())


def masked(text: str) -> str:
    """The same of a text that has a `<mask>`."""
    text = normalised(text)
    if MASK not in text:
        raise UsageError(
            f'there is no {MASK} in the text: write it where a word is wanted, as in "a {MASK} looking out"'
        )
    return text


def list_of_texts(texts: Iterable[str]) -> list[str]:
    """Each text normalised; a single text is refused, as nobody means its letters."""
    if isinstance(texts, str):
        raise UsageError(f"a list of texts is wanted, not the text {short(texts)}")
    return [normalised(text) for text in _iterable(texts, "texts")]


def path(value: object) -> Path:
    """A path that a file could have."""
    name: object = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(name, str):
        raise UsageError(f"{short(value)}: a path is wanted")
    if not name:
        raise UsageError('an empty path names nothing; the current folder is "."')
    if "\0" in name:
        raise UsageError(f"{short(name)}: no path has a NUL character in it")
    return Path(name)


def list_of_paths(paths: Iterable[AnyPath]) -> list[Path]:
    """Each as a path; a single path is refused."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise UsageError(f"a list of paths is wanted, not the path {short(os.fspath(paths))}")
    return [path(one) for one in _iterable(paths, "paths")]


def list_of_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns as they are; a single pattern is refused."""
    if isinstance(patterns, str):
        raise UsageError(f"a list of patterns is wanted, not the pattern {short(patterns)}")
    found = tuple(_iterable(patterns, "patterns"))
    for pattern in found:
        if not isinstance(pattern, str):
            raise UsageError(f"{short(pattern)}: a pattern is wanted, as in .gitignore")
    return found


def list_of_depths(depths: Iterable[int]) -> list[int]:
    """Each once, in order, at least 1."""
    return list(dict.fromkeys(whole("depth", depth, least=1) for depth in _iterable(depths, "depths")))


def path_map(moves: Mapping[str, AnyPath] | None) -> dict[str, Path]:
    """Beginnings of paths and what is there in their place."""
    if moves is None:
        return {}
    if not isinstance(moves, Mapping):
        raise UsageError(f"{short(moves)}: a mapping of old paths to new ones is wanted")
    return {str(path(old)): path(new) for old, new in moves.items()}


def _iterable(values: Iterable[_T], kind: str) -> Iterable[_T]:
    if not isinstance(values, Iterable):
        raise UsageError(f"a list of {kind} is wanted, not {short(values)}")
    return values


def whole(name: str, value: object, *, least: int) -> int:
    """A whole number of any type but bool, at least `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"{name} {short(value)}: a whole number is wanted") from error
    if found < least:
        raise UsageError(f"{name} {found}: at least {least} is wanted")
    return found


def number(name: str, value: object, *, least: float, most: float = math.inf) -> float:
    """A real number of any type but bool, from `least` to `most`."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name} {short(value)}: a number is wanted") from error
    if not least <= found <= most:
        limits = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"{name} {found:g}: a number {limits} is wanted")
    return found


def require_limits(*, top: int, depth: int | None = None, min_match: float | None = None) -> None:
    """Raise UsageError unless `top` is at least 1, `depth` at least 0 and `min_match` in [0, 1]."""
    whole("top", top, least=1)
    if depth is not None:
        whole("depth", depth, least=0)
    if min_match is not None:
        number("min_match", min_match, least=0, most=1)


def missing_members(part: object, role: type) -> list[str]:
    """The members of a protocol that an object does not have. Properties that are there are not asked."""
    members = [name for name in vars(role) if not name.startswith("_")]
    return [name for name in members if getattr_static(part, name, None) is None and not hasattr(part, name)]


def require_part(part: object, role: type) -> None:
    """Raise UsageError unless an object has all members of the protocol `role`."""
    if isinstance(part, type):
        raise UsageError(f"{part.__name__} is a class: give an object of it")
    if missing := missing_members(part, role):
        raise UsageError(f"{short(part)} is no {role.__name__}: it lacks {', '.join(missing)}")


def moment(when: Moment) -> int:
    """Seconds on a clock on the wall since it showed 1970; see `Filter`. A datetime with a zone is refused."""
    if isinstance(when, datetime):
        if when.tzinfo is not None:
            raise UsageError(f"{when}: pictures are dated by the clock where they were taken; give a time without zone")
        shown = when.replace(tzinfo=UTC)
    elif isinstance(when, date):
        shown = datetime.combine(when, time(), UTC)
    elif isinstance(when, str):
        shown = _written(when)
    else:
        _no_date(when)
    return int(shown.timestamp())


def times(since: Moment | None, before: Moment | None) -> Filter:
    """Pictures from a time on, `before` another; that one is left out."""
    first = None if since is None else moment(since)
    after = None if before is None else moment(before)
    if first is not None and after is not None and first >= after:
        raise UsageError(
            "since must be earlier than before, which is left out itself: all of 2024 is since 2024, before 2025"
        )
    return Filter(None, first, after)


def _written(text: str) -> datetime:
    found = _WRITTEN.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        year, month, day, clock = found.groups()
        return datetime.fromisoformat(f"{year}{month or '-01'}{day or '-01'}T{clock or '00:00'}").replace(tzinfo=UTC)
    except ValueError:
        _no_date(text)


def _no_date(value: object) -> NoReturn:
    raise UsageError(f"{short(value)} is no date: write it as 2024, 2024-05, 2024-05-17 or 2024-05-17T18:30")
