"""Captions files: a line of JSON for each picture, with its texts.

    {"image": "cat.jpg", "captions": ["a cat", "a cat on a couch"]}

Paths are relative to the file.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgetower.errors import InputError
from bridgetower.files import jsonl
from bridgetower.inputs import AnyPath, path

_FORM = '{"image": "path", "captions": ["text", ...]}'


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture and the texts that belong to it."""

    image: Path
    captions: tuple[str, ...]


def read_captions(file: AnyPath) -> list[Captioned]:
    """Read a captions file. Several lines for one picture are merged into one item.

    Raises InputError that names the line.
    """
    file = path(file)
    pictures: dict[str, Captioned] = {}  # by real path: a picture listed twice would compete with itself
    for read in jsonl.lines(file, lambda number, row: _captioned(row, file.parent), form=_FORM, blanks=True):
        place = os.path.realpath(read.image)
        known = pictures.get(place, Captioned(read.image, ()))
        pictures[place] = Captioned(known.image, known.captions + read.captions)
    if not pictures:
        raise InputError(f"{file}: no captions in it; give one line for each picture: {_FORM}")
    return list(pictures.values())


def _captioned(row: Any, folder: Path) -> Captioned:
    """Parse one line. Raises ValueError with a reason for people."""
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in ("image", "captions"):
        if name not in row:
            raise ValueError(f'"{name}" is missing')
    image, captions = row["image"], row["captions"]
    if not isinstance(image, str) or not _is_path(image):
        raise ValueError('"image" is not a path')
    if not isinstance(captions, list) or not captions:
        raise ValueError('"captions" is not a list of at least one text')
    if not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise ValueError('"captions" holds something that is no text, or an empty one')
    return Captioned(folder / image, tuple(captions))


def _is_path(text: str) -> bool:
    """Whether the file system could have a file of this name."""
    try:
        return b"\0" not in os.fsencode(text) and text != ""
    except UnicodeEncodeError:
        return False
