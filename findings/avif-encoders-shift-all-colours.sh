#!/usr/bin/env bash
# Pillow 13.0.0 (libavif 1.4.2) and imagecodecs 2026.3.6 shift all colours when they write AVIF of 8 bits, at the best
# quality and without subsampling, too: the chroma planes are half a level too low in the mean. Of 10 bits imagecodecs
# writes and reads them right, but Pillow shifts them as it reads the file.
#
# Seen, mean of red, green and blue minus the original, 4:4:4: 8 bits by Pillow (-0.8, +0.5, -1.0), read by either; by
# imagecodecs (-0.6, +0.5, -0.8); 10 bits by imagecodecs, read by Pillow (-0.6, +0.4, -0.6), read by itself (0, 0, 0.1).
# Small, but of one sign over the whole picture, which noise of 2 levels is not: a small vision network put 100 such
# pictures at a cosine of 0.989 at worst, and files of avifenc 0.11.1, whose mean is right, at 0.999.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
	imagecodecs==2026.3.6 numpy==2.4.6 pillow==13.0.0
cat > "$work/look.py" <<'PYTHON'
from io import BytesIO

import imagecodecs
import numpy as np
import PIL
from PIL import Image, features

y, x = np.mgrid[0:256, 0:256]
noise = np.random.default_rng(0).integers(-2, 3, (256, 256, 3))
picture = (np.stack([40 + x * 0.6, 60 + y * 0.5, 90 + (x + y) * 0.2], axis=-1) + noise).astype(np.uint8)


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def shift(values: np.ndarray) -> np.ndarray:
    return (values - picture).mean(axis=(0, 1)).round(1) + 0.0


buffer = BytesIO()
Image.fromarray(picture).save(buffer, "AVIF", quality=100, subsampling="4:4:4")
deep = np.rint(picture * (1023 / 255)).astype(np.uint16)
eight = bytes(imagecodecs.avif_encode(picture, 99, pixelformat="444", speed=8))
ten = bytes(imagecodecs.avif_encode(deep, 99, bitspersample=10, pixelformat="444", speed=8))
print("Pillow", PIL.__version__, "libavif", features.version("avif"), "imagecodecs", imagecodecs.__version__)
found = {
    "8 bits by Pillow, read by Pillow": shift(by_pillow(buffer.getvalue())),
    "8 bits by Pillow, read by imagecodecs": shift(imagecodecs.avif_decode(buffer.getvalue()).astype(float)),
    "8 bits by imagecodecs, read by imagecodecs": shift(imagecodecs.avif_decode(eight).astype(float)),
    "10 bits by imagecodecs, read by Pillow": shift(by_pillow(ten)),
    "10 bits by imagecodecs, read by imagecodecs": shift(imagecodecs.avif_decode(ten) * (255 / 1023)),
}
for name, colours in found.items():
    print(name, colours)
*shifted, right = found.values()
assert abs(right).max() <= 0.1
assert all(red <= -0.2 and green >= 0.2 and blue <= -0.2 for red, green, blue in shifted)
PYTHON
"$work/venv/bin/python" "$work/look.py" || { echo "this has changed" >&2; exit 1; }
echo "as it was"
