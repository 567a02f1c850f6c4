"""The rows of a captions file, whatever its form: a picture, some of its texts, and where that stands."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Names for the picture and for its text, of a column or a field, in the order in which they are looked for. Those after
# the first are of the tables of open_clip and of folders of Hugging Face data sets.
IMAGE_NAMES = ("image", "filepath", "file_name")
CAPTION_NAMES = ("caption", "title", "text")


@dataclass(frozen=True, slots=True)
class Row:
    """A picture, as the file names it, and at least one of its texts."""

    place: str  # in the file, for people: "line 3"
    image: str
    captions: tuple[str, ...]


def row(place: str, image: Any, captions: Iterable[Any], *, of: tuple[str, str]) -> Row:
    """Return a checked row; `of` are the names of the two fields. Raises ValueError with a reason for people."""
    if not isinstance(image, str) or not _is_path(image):
        raise ValueError(f'"{of[0]}" is not a path')
    texts = tuple(captions)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f'"{of[1]}" holds something that is no text, or an empty one')
    return Row(place, image, texts)


def _is_path(text: str) -> bool:
    """Whether the file system could have a file of this name."""
    try:
        return b"\0" not in os.fsencode(text) and text != ""
    except UnicodeEncodeError:
        return False
