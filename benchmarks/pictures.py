"""Pictures with what photographs have: large shapes, edges, texture and grain. Drawn from a seed, no two alike."""

from pathlib import Path

import numpy as np
from PIL import Image

# Noise of this many cells across the picture, each blended over the coarser ones with this weight. At 12 megapixels
# and quality 85 it makes JPEG files of about 3 MB, as cameras do.
LAYERS = ((8, 1.0), (40, 0.5), (250, 0.35), (1500, 0.2))


def photo(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """An RGB picture."""
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height))
    for cells, weight in LAYERS:
        noise = random.integers(0, 256, (cells * height // width, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture = Image.blend(picture, layer, weight)
    return picture


def photo_folder(work: Path, count: int, width: int, height: int, *, suffix: str = "jpg", quality: int = 85) -> Path:
    """A folder with `count` JPEG files of this size, or of another format; written into `work` if it is not there."""
    folder = work / f"photos-{width}x{height}-{count}{'' if suffix == 'jpg' else f'-{suffix}'}"
    folder.mkdir(parents=True, exist_ok=True)
    kind = {"jpg": "JPEG", "webp": "WEBP"}[suffix]
    for seed in range(count):
        file = folder / f"{seed:04}.{suffix}"
        if not file.exists():
            unfinished = file.with_suffix(".unfinished")
            photo(seed, width, height).save(unfinished, kind, quality=quality)
            unfinished.rename(file)
    return folder
