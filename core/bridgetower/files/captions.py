"""Captions files: a line of JSON for each picture, with its texts.

    {"image": "cat.jpg", "captions": ["a cat", "a cat on a couch"]}

Paths are relative to the file.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgetower.errors import InputError, UsageError
from bridgetower.files import jsonl
from bridgetower.inputs import AnyPath, lasting, list_of_texts, path
from bridgetower.records import Skipped

_FORM = '{"image": "path", "captions": ["text", ...]}'


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture and the texts that belong to it, at least one. Raises UsageError for other values.

    `image` is a path, kept absolute, or a picture in memory, as `Model.match` takes them. The texts are kept with
    single blanks.
    """

    image: Any
    captions: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "captions", tuple(list_of_texts(self.captions)))
        if not self.captions:
            raise UsageError("no captions: give a picture at least one text")
        if isinstance(self.image, str | os.PathLike):
            object.__setattr__(self, "image", lasting(self.image))


def read_captions(file: AnyPath, *, on_missing: Callable[[Skipped], object] | None = None) -> list[Captioned]:
    """Read a captions file. Several lines for one picture are merged into one item.

    With `on_missing`, a picture that is not there is left out, and `on_missing` gets it. Raises InputError that names
    the line, without `on_missing` also that of the first such picture.
    """
    file = path(file)
    pictures: dict[str, tuple[Path, list[str]]] = {}  # by real path: a picture listed twice would compete with itself
    missing: dict[Path, int] = {}  # the first line of each picture that is not there
    rows = jsonl.lines(file, lambda number, row: (number, *_captioned(row, file.parent)), form=_FORM, blanks=True)
    for number, image, captions in rows:
        pictures.setdefault(os.path.realpath(image), (image, []))[1].extend(captions)
        if not os.path.lexists(os.path.realpath(image)):
            missing.setdefault(image, number)
    if not pictures:
        raise InputError(f"{file}: no captions in it; give one line for each picture: {_FORM}")
    for image, number in missing.items():
        if on_missing is None:
            others = f", as {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                f"{file}, line {number}: {image}: no such file{others}; correct the path, or leave out what is missing "
                "with --skip-missing"
            )
        on_missing(Skipped(image, f"no such file, in line {number} of {file.name}"))
    there = [Captioned(image, captions) for image, captions in pictures.values() if image not in missing]
    if not there:
        raise InputError(f"{file}: none of its pictures is there; paths are relative to the file")
    return there


def _captioned(row: Any, folder: Path) -> tuple[Path, list[str]]:
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
    return folder / image, captions


def _is_path(text: str) -> bool:
    """Whether the file system could have a file of this name."""
    try:
        return b"\0" not in os.fsencode(text) and text != ""
    except UnicodeEncodeError:
        return False
