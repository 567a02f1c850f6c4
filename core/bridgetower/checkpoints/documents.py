"""Read the small files of a checkpoint: only regular files, and only up to a size limit."""

import json
from pathlib import Path
from typing import Any

from bridgetower.errors import ModelError
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular

MOST_BYTES = 10_000_000


def read_document(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a file. Raises ModelError if it has more than `most`, is not regular, or is unreadable."""
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise unreadable(path, error, ModelError, no_file="fetch it again", advice="check its permissions") from error
    if len(content) > most:
        raise ModelError(f"{path}: larger than {most // 1_000_000} MB, which no such file is; fetch it again")
    return content


def read_json(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ModelError as `read_document` does, and for any other content."""
    try:
        content = json.loads(read_document(path, most).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 text; fetch it again") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: it holds no JSON object; fetch it again")
    return content
