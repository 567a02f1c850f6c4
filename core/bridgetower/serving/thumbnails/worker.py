"""A process that makes small upright JPEG files of pictures: `python -m bridgetower.serving.thumbnails.worker`.

It is started and ended by `pool`, and speaks as `decode_worker`, but for six bytes before each content, the longest
side in pixels and the most bytes, and for a JPEG file in the answer.
"""

import os
import struct
from pathlib import Path

from PIL import Image

from bridgetower.pictures.decode import Decoded, decode
from bridgetower.pictures.decode_worker import NO_MEMORY, answered, serve
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.serving.thumbnails.jpeg import in_few_bytes

WANTED = struct.Struct("<HI")  # longest side in pixels, most bytes


def answer(sized: bytes, _: Preprocessing, max_pixels: int, memory_limit: int | None) -> bytes:
    """Return the bytes of the answer for what is wanted and the content of one file."""
    side, most = WANTED.unpack_from(sized)

    def jpeg() -> tuple[Decoded, bytes]:
        # A short side of the length of the long one is more than enough.
        decoded = decode(sized[WANTED.size :], Path(), max_pixels=max_pixels, min_side=side)
        decoded.image.thumbnail((side, side), Image.Resampling.LANCZOS)
        decoded.image.info.clear()  # no EXIF, no profile: it is upright sRGB
        return decoded, in_few_bytes(decoded.image, most)

    return answered(jpeg, memory_limit)


if __name__ == "__main__":
    try:
        serve(answer)
    except MemoryError:
        os._exit(NO_MEMORY)
