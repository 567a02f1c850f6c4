"""Write a picture as a JPEG file of few bytes."""

import math
from io import BytesIO

from PIL import Image

_QUALITIES = (85, 75, 65, 50, 35)
_SHRINK = 0.8  # of the side, where no quality is enough


def in_few_bytes(picture: Image.Image, most: int) -> bytes:
    """Return a JPEG file of at most `most` bytes: in the best quality that fits, else of a smaller picture."""
    while True:
        for quality in _QUALITIES:
            file = BytesIO()
            picture.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= most:
                return file.getvalue()
        size = (math.ceil(picture.width * _SHRINK), math.ceil(picture.height * _SHRINK))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
