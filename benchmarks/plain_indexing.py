"""What indexing.py holds `bt index` against: decode with Pillow and embed, batch by batch, one after the other.

    python benchmarks/plain_indexing.py PHOTOS MODEL VECTORS.npy

The same network, preprocessing and batch size; no threads, no index. It is the loop that one writes first.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import BATCH_SIZE, choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.pictures.preprocess import preprocess


def main() -> None:
    photos, model, out = sys.argv[1:]
    encoder = TorchEncoder(resolve(model), choose_runtime())
    files = sorted(Path(photos).glob("*.jpg"))
    vectors = []
    for start in range(0, len(files), BATCH_SIZE):
        pictures = (Image.open(file).convert("RGB") for file in files[start : start + BATCH_SIZE])
        vectors.append(encoder.embed_images(np.stack([preprocess(p, encoder.preprocessing) for p in pictures])))
    np.save(out, np.concatenate(vectors))


if __name__ == "__main__":
    main()
