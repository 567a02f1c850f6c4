"""Pictures for agents that see: a numbered contact sheet of many, and single ones in few bytes.

They are made of the JPEG files of `serving.thumbnails`, which are upright and in sRGB, and were decoded in guarded
processes.
"""

import math
from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from bridgetower.serving.thumbnails.jpeg import in_few_bytes

MOST_SHEET = 300_000  # bytes
THUMBNAIL = 256  # pixels, the side of the thumbnails of a sheet

_WIDE = 4  # columns, of a sheet with room for large thumbnails
_WIDEST = 1536  # pixels
_GAP, _LABEL = 6, 24  # pixels: between cells, and of the line above each picture
_PAPER, _INK, _BLANK = "white", "black", "#d0d0d0"


def contact_sheet(thumbnails: Sequence[bytes | None], first: int, most: int = MOST_SHEET) -> bytes:
    """Return a JPEG file of thumbnails in rows, numbered from `first`, of at most `most` bytes.

    A picture that cannot be shown is None, or no whole JPEG file, and leaves a grey field that says so.
    """
    columns = min(len(thumbnails), max(_WIDE, math.isqrt(len(thumbnails) - 1) + 1))
    side = min(THUMBNAIL, _WIDEST // columns - _GAP)
    rows = -(-len(thumbnails) // columns)
    wide, high = side + _GAP, side + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * wide + _GAP, rows * high + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LABEL - 4)
    for place, thumbnail in enumerate(thumbnails):
        left, top = _GAP + place % columns * wide, _GAP + place // columns * high
        draw.text((left + 2, top), str(first + place), fill=_INK, font=font)
        top += _LABEL
        picture = _opened_or_none(thumbnail)
        if picture is None:
            draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_BLANK)
            draw.text((left + 8, top + 8), "cannot be shown", fill=_INK, font=ImageFont.load_default(16))
            continue
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
    return in_few_bytes(sheet, most)


def reduced(thumbnail: bytes, side: int, most: int) -> bytes:
    """Return a JPEG file of at most `side` pixels long and wide, and of at most `most` bytes. Raises OSError."""
    picture = _opened(thumbnail)
    if max(picture.size) <= side and len(thumbnail) <= most:
        return thumbnail
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return in_few_bytes(picture, most)


def _opened_or_none(thumbnail: bytes | None) -> Image.Image | None:
    try:
        return None if thumbnail is None else _opened(thumbnail)
    except OSError:
        return None


def _opened(thumbnail: bytes) -> Image.Image:
    return Image.open(BytesIO(thumbnail), formats=("JPEG",)).convert("RGB")
