#!/usr/bin/env bash
# pylibjxl 0.5.0 writes lossy JPEG XL in the original colours instead of XYB, which its `distance` is made for. So files
# asked to be nearer to the original (0.1 in place of 1) are larger than lossless ones, and not nearer. imagecodecs
# 2026.3.6, on the same libjxl 0.11.2, writes XYB, and does what is asked.
#
# Seen, on a drawn picture of 384 x 256 pixels, bytes and mean difference of a value: pylibjxl at distance 1: 21763, 1.74;
# at 0.1: 24313, 1.84; lossless: 7997. imagecodecs at distance 1: 11616, 0.51; at 0.1: 19539, 0.11; lossless: 7997.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
	pylibjxl==0.5.0 imagecodecs==2026.3.6 numpy==2.4.6
cat > "$work/look.py" <<'PYTHON'
from importlib.metadata import version

import imagecodecs
import numpy as np
import pylibjxl

y, x = np.mgrid[0:256, 0:384]
picture = np.stack([40 + x * 0.5, 60 + y * 0.6, 90 + (x + y) * 0.2], axis=-1)
for step in range(12):  # discs of flat colours, as drawings have
    inside = (x - 30 * step - 20) ** 2 + (y - 20 * step - 10) ** 2 < (20 + 3 * step) ** 2
    picture[inside] = np.random.default_rng(step).integers(0, 256, 3)
picture = picture.astype(np.uint8)


def by_pylibjxl(distance: float) -> bytes:
    return bytes(pylibjxl.encode(picture, distance=distance) if distance else pylibjxl.encode(picture, lossless=True))


def by_imagecodecs(distance: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(picture, distance=distance, lossless=not distance, effort=7))


print("pylibjxl", version("pylibjxl"), "imagecodecs", imagecodecs.__version__, imagecodecs.jpegxl_version())
seen = {}
for encode in (by_pylibjxl, by_imagecodecs):
    for distance in (1.0, 0.5, 0.1, 0.0):
        data = encode(distance)
        difference = np.abs(imagecodecs.jpegxl_decode(data).astype(int) - picture).mean()
        seen[encode, distance] = len(data), difference
        print(f"{encode.__name__:15} distance {distance}: {len(data):6} bytes, mean difference {difference:.2f}")
size, far = seen[by_pylibjxl, 0.1]
assert size > seen[by_pylibjxl, 0.0][0] and far > 0.8 * seen[by_pylibjxl, 1.0][1]
assert seen[by_imagecodecs, 0.1][1] < 0.5 * seen[by_imagecodecs, 1.0][1]
PYTHON
"$work/venv/bin/python" "$work/look.py" || { echo "this has changed" >&2; exit 1; }
echo "as it was"
