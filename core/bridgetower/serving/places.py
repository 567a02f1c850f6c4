"""Places of an index as a client writes them: compared with its names, never looked up in a file system."""

import os
import posixpath
import re
import unicodedata
from typing import Any

from bridgetower.errors import UsageError
from bridgetower.files.patterns import glob, parse
from bridgetower.inputs import ResolvedPlace


def places(given: list[str]) -> list[Any]:
    """Return absolute folders, files and globs as ResolvedPlaces of globs. Raises UsageError."""
    return [ResolvedPlace(None, _line(text)) for text in given]


def _line(text: str) -> str:
    """Return a line of a .gitignore file in the root of the file system."""
    if "\0" in text or text.partition("/")[0] in ("~", ".", ".."):
        raise UsageError("a place is an absolute folder or a glob; the server knows no home and no current folder")
    if re.search(r"[*?[]", text):
        line = glob(text)
    elif not os.path.isabs(text):
        raise UsageError("a place without a wildcard is an absolute folder or file")
    else:
        name = posixpath.normpath(text.replace(os.sep, "/")).lstrip("/")
        escaped = re.sub(r"\\| $", r"\\\g<0>", unicodedata.normalize("NFC", name))
        line = f"/{escaped}" if name else "/*"
    try:
        if line is not None and parse(line) is not None:
            return line
    except ValueError:
        pass
    raise UsageError("a place is no valid glob")
