"""Parts of a file that a request asks for: one range of bytes, as players and interrupted downloads do."""

import re

from starlette.datastructures import Headers

from bridgetower.serving.http.errors import Problem

_RANGE = re.compile(r"bytes *= *([0-9]{0,18}) *- *([0-9]{0,18}) *", re.IGNORECASE)


def wanted_range(headers: Headers, size: int, tag: str) -> range | None:
    """Return the bytes of a file of `size` bytes that a GET asks for; None for all of them.

    Several ranges, and all that is not valid, ask for all, by RFC 9110; so does an If-Range that is not `tag`, the ETag
    of the file. Raises Problem where the file has none of the bytes.
    """
    given = headers.getlist("range")
    found = _RANGE.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None or headers.get("if-range", tag).strip() != tag:
        return None
    first, last = found.groups()
    if first == last == "" or (first and last and int(last) < int(first)):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size:
        whole = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, "no_such_range", f"the file has {size} bytes: ask for some of these", whole)
    return range(start, end)
