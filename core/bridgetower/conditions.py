"""Which files a query is about, as SQL: those at or below a path, those that pass a filter."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bridgetower.records import Filter

LARGEST = 2**63 - 1  # that SQLite holds

# A folder and all below it, as one range of the primary key: `path >= root`, `path < after`, and of these not the
# neighbours such as "photos-old" that sort between "photos" and "photos/". Parameters: see `range_of`.
UNDER = "path >= :root AND path < :after AND (path = :root OR path >= :below)"
# The time of a picture. Over all files it comes from the index of times alone, as images are large rows.
TIME = """(image IN (SELECT id FROM images WHERE taken_at >= :since AND taken_at < :before)
    OR mtime_ns >= :since_ns AND mtime_ns < :before_ns AND image IN (SELECT id FROM images WHERE taken_at IS NULL))"""
TIME_OF_ONE = """CASE WHEN taken_at IS NULL THEN mtime_ns >= :since_ns AND mtime_ns < :before_ns
    ELSE taken_at >= :since AND taken_at < :before END"""


def range_of(root: Path) -> dict[str, bytes]:
    """The parameters of `UNDER`."""
    path, separator = os.fsencode(root), os.fsencode(os.sep)
    below = path if path.endswith(separator) else path + separator
    return {"root": path, "below": below, "after": below[:-1] + bytes([below[-1] + 1])}


def where(filter: Filter, time: str) -> str:
    """The condition of a filter on `files`; parameters: see `limits`."""
    under = f"({UNDER})" if filter.under is not None else "true"
    return under if filter.since is filter.before is None else f"{under} AND {time}"


def limits(filter: Filter) -> dict[str, Any]:
    """The parameters of `where`."""
    since = -LARGEST if filter.since is None else filter.since
    before = LARGEST if filter.before is None else filter.before
    found = {
        "since": since,
        "before": before,
        "since_ns": _instant(since) * 10**9,
        "before_ns": _instant(before) * 10**9,
    }
    found = {name: max(-LARGEST, min(limit, LARGEST)) for name, limit in found.items()}
    return found if filter.under is None else found | range_of(filter.under)


def _instant(shown: int) -> int:
    """Unix seconds of the moment when this machine's clock shows so many since 1970."""
    try:
        return int((datetime(1970, 1, 1) + timedelta(seconds=shown)).timestamp())
    except (ValueError, OverflowError, OSError):  # too far away for a zone to matter
        return shown
