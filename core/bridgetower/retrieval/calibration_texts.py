"""Calibration of recall: the recall of a large index is measured with texts such as people search with.

Vectors of texts lie apart from vectors of pictures: a search that finds the neighbours of pictures may miss the
neighbours of texts.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bridgetower.index.writer import IndexWriter

if TYPE_CHECKING:
    from bridgetower.encoders.protocol import Vectors

_SUBJECTS = (
    "a cat asleep",
    "two dogs playing",
    "a red car",
    "my grandmother smiling",
    "children laughing",
    "a birthday cake with candles",
    "an old map",
    "a screenshot of an error message",
    "a handwritten note",
    "a bride and groom",
    "a plate of pasta",
    "a cup of coffee",
    "flowers",
    "a bicycle leaning on a wall",
    "a crowd of people",
    "a lighthouse",
    "a train arriving",
    "an aeroplane",
    "a sailing boat",
    "a football match",
    "a guitar player",
    "a bowl of fruit",
    "a bird with blue feathers",
    "horses running",
    "a waterfall",
    "skyscrapers",
    "a church tower",
    "a bookshelf",
    "a receipt",
    "a baby in a pram",
    "three women talking",
    "a man with a beard",
)
_PLACES = (
    "",
    " at sunset",
    " in the snow",
    " on the beach",
    " in a kitchen",
    " at night, seen from above",
    " in black and white",
    " in the garden, out of focus",
)

TEXTS = tuple(what + where for what in _SUBJECTS for where in _PLACES)


def ensure_calibration(writer: IndexWriter, embed_texts: "Callable[[Sequence[str]], Vectors]") -> None:
    """Store vectors of texts to tune recall with, if the index is large, or soon will be, and has none."""
    if writer.wants_queries():
        writer.set_queries(embed_texts(TEXTS))
