"""A picture and the texts that belong to it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    places: Sequence[str] = field(default=(), compare=False)  # in a file, as "line 3", for each caption; () without one

    def __post_init__(self) -> None:
        object.__setattr__(self, "captions", tuple(list_of_texts(self.captions)))
        if not self.captions:
            raise UsageError("no captions: give a picture at least one text")
        object.__setattr__(self, "places", tuple(list_of_texts(self.places)))
        if len(self.places) not in (0, len(self.captions)):
            raise UsageError(f"{len(self.places)} places of {len(self.captions)} captions: give each its own, or none")
        if isinstance(self.image, str | os.PathLike):
            object.__setattr__(self, "image", lasting(self.image))
