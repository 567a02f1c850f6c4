"""A process that makes grids of pictures: `python -m bridgetower.pictures.likeness.worker`.

It is started and ended by `grids`, and speaks as `decode_worker` does. Its square is the whole picture, not the middle,
so that what was cropped off at a side can be seen.
"""

import os
from pathlib import Path

from PIL import Image

from bridgetower.pictures.colour import to_srgb
from bridgetower.pictures.decode import Decoded, decode
from bridgetower.pictures.decode_worker import NO_MEMORY, answered, serve
from bridgetower.pictures.preprocess import Preprocessing


def answer(content: bytes, square: Preprocessing, max_pixels: int, memory_limit: int | None) -> bytes:
    """Return the bytes of the answer for the content of one file."""

    def grid() -> tuple[Decoded, bytes]:
        decoded = decode(content, Path(), max_pixels=max_pixels, min_side=square.min_side, convert=False)
        side = square.crop_size
        grid = decoded.image.resize((side, side), Image.Resampling.BILINEAR, box=decoded.box)
        return decoded, to_srgb(grid, decoded.profile, decoded.cicp).tobytes()

    return answered(grid, memory_limit)


if __name__ == "__main__":
    try:
        serve(answer)
    except MemoryError:
        os._exit(NO_MEMORY)
