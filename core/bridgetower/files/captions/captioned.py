"""A picture and the texts that belong to it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridgetower.errors import UsageError
from bridgetower.inputs import lasting, list_of_texts


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
