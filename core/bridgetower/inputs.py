"""Texts, dates and lists as people give them -> what the stages take, where they enter the public interface."""

import os
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from pathlib import Path

from bridgetower.errors import UsageError

AnyPath = str | os.PathLike[str]
Moment = str | date | datetime  # "2024", "2024-05", "2024-05-17", "2024-05-17T18:30", a date, or a datetime

_WRITTEN = re.compile(r"(\d{4})(-\d\d)?(-\d\d)?(?:[T ](\d\d:\d\d))?")


def normalised(text: str) -> str:
    """A text with single spaces between its words and none around them; tabs and no-break spaces are spaces.

    The tokenizer keeps every blank, and a blank too many changes a probability: no person means that.
    """
    if not isinstance(text, str):
        raise UsageError(f"{text!r:.40}: a text is wanted")
    return " ".join(text.split())


def list_of_texts(texts: Iterable[str]) -> list[str]:
    """Each text normalised. Raises UsageError for a single text, whose letters nobody means."""
    if isinstance(texts, str):
        raise UsageError(f"a list of texts is wanted, not the text {texts!r:.40}")
    return [normalised(text) for text in texts]


def list_of_paths(paths: Iterable[AnyPath]) -> list[Path]:
    """Raises UsageError for a single path."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise UsageError(f"a list of paths is wanted, not the path {os.fspath(paths)!r:.200}")
    return [Path(path) for path in paths]


def list_of_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Raises UsageError for a single pattern."""
    if isinstance(patterns, str):
        raise UsageError(f"a list of patterns is wanted, not the pattern {patterns!r:.40}")
    return tuple(patterns)


def moment(when: Moment) -> int:
    """Seconds on a clock on the wall since it showed 1970; see `Filter`.

    A datetime is taken by what it shows, whatever its zone. Raises UsageError.
    """
    if isinstance(when, datetime):
        shown = when.replace(tzinfo=UTC)
    elif isinstance(when, date):
        shown = datetime.combine(when, time(), UTC)
    else:
        shown = _written(when)
    return int(shown.timestamp())


def _written(text: str) -> datetime:
    found = _WRITTEN.fullmatch(str(text).strip())
    try:
        if found is None:
            raise ValueError
        year, month, day, clock = found.groups()
        return datetime.fromisoformat(f"{year}{month or '-01'}{day or '-01'}T{clock or '00:00'}").replace(tzinfo=UTC)
    except ValueError as error:
        raise UsageError(f"{text!r} is no date: write it as 2024, 2024-05, 2024-05-17 or 2024-05-17T18:30") from error
