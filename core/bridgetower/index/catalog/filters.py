"""SQL conditions that select files: at or below a path, or passing a filter."""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bridgetower.records import LARGEST, Filter, Place

# A folder and all paths below it, as one range of the primary key: `path >= root AND path < after`. The last condition
# excludes neighbours such as "photos-old", which sort between "photos" and "photos/". Parameters: see `range_of`.
_UNDER = "path >= :root{0} AND path < :after{0} AND (path = :root{0} OR path >= :below{0})"
UNDER = _UNDER.format("")


class Times(NamedTuple):
    """Conditions on the time of pictures."""

    of_many: str  # on `files`; reads the indexes of times, because rows of images are large
    of_one: str  # on `files` joined with `images`


_BY_IMAGE = """(image IN (SELECT id FROM images WHERE taken_at >= :since AND taken_at < :before)
    OR mtime_ns >= :since_ns AND mtime_ns < :before_ns AND image IN (SELECT id FROM images WHERE taken_at IS NULL))"""
_OF_ONE = """CASE WHEN {0} IS NULL THEN mtime_ns >= :since_ns AND mtime_ns < :before_ns
    ELSE {0} >= :since AND {0} < :before END"""
TIMES = Times(
    f"(files.taken_at >= :since AND files.taken_at < :before OR files.taken_at IS NULL AND {_BY_IMAGE})",
    _OF_ONE.format("coalesce(files.taken_at, images.taken_at)"),
)
TIMES_3 = Times(_BY_IMAGE, _OF_ONE.format("images.taken_at"))  # of the formats before 4


def range_of(root: Path, name: object = "") -> dict[str, bytes]:
    """Return the parameters of `UNDER` or, with `name`, of a copy of it whose parameter names end with `name`."""
    path, separator = os.fsencode(root), os.fsencode(os.sep)
    below = path if path.endswith(separator) else path + separator
    return {f"root{name}": path, f"below{name}": below, f"after{name}": below[:-1] + bytes([below[-1] + 1])}


def where(filter: Filter, time: str) -> str:
    """Return the condition of a filter on the table `files`; its parameters: see `limits`."""
    conditions = [_any(filter.under, "in")] if filter.under else ["true"]
    if filter.since is not None or filter.before is not None:
        conditions.append(time)
    if filter.not_under:
        conditions.append(f"NOT {_any(filter.not_under, 'out')}")
    return " AND ".join(conditions)


def _any(places: Sequence[Place], name: str) -> str:
    """Return the condition that a file is in one of `places`; globs need a function `fits(glob, path)` in SQL."""
    alternatives = (
        f"fits(:{name}{number}, path)" if isinstance(place, str) else f"({_UNDER.format(f'{name}{number}')})"
        for number, place in enumerate(places)
    )
    return f"({' OR '.join(alternatives)})"


def limits(filter: Filter) -> dict[str, Any]:
    """Return the parameters of `where`."""
    since = -LARGEST if filter.since is None else filter.since
    before = LARGEST if filter.before is None else filter.before
    found: dict[str, Any] = {
        "since": since,
        "before": before,
        "since_ns": _instant(since) * 10**9,
        "before_ns": _instant(before) * 10**9,
    }
    found = {name: max(-LARGEST, min(limit, LARGEST)) for name, limit in found.items()}
    for name, places in (("in", filter.under), ("out", filter.not_under)):
        for number, place in enumerate(places):
            one = f"{name}{number}"
            found |= {one: os.fsencode(place)} if isinstance(place, str) else range_of(place, one)
    return found


def _instant(shown: int) -> int:
    """Return the unix seconds of the moment when the local clock shows `shown` seconds since 1970."""
    try:
        return int((datetime(1970, 1, 1) + timedelta(seconds=shown)).timestamp())
    except (ValueError, OverflowError, OSError):  # so far from now that the zone does not matter
        return shown
