"""JSON lines: an object for each picture, with all its texts or with one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridgetower.files import jsonl
from bridgetower.files.captions.rows import CAPTION_NAMES, IMAGE_NAMES, Row, row

FORM = '{"image": "path", "captions": ["text", ...]}'


def read(file: Path) -> Iterator[Row]:
    """Yield the rows of a file. Raises InputError that names the line."""
    return jsonl.lines(file, _parsed, form=FORM, blanks=True)


def _parsed(number: int, found: Any) -> Row:
    """Parse one line. Raises ValueError with a reason for people."""
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    image = next((name for name in IMAGE_NAMES if name in found), None)
    if image is None:
        raise ValueError('"image" is missing')
    if "captions" in found:
        captions = found["captions"]
        if not isinstance(captions, list) or not captions:
            raise ValueError('"captions" is not a list of at least one text')
        return row(f"line {number}", found[image], captions, of=(image, "captions"))
    caption = next((name for name in CAPTION_NAMES if name in found), None)
    if caption is None:
        raise ValueError('"captions" is missing')
    return row(f"line {number}", found[image], [found[caption]], of=(image, caption))
