#!/usr/bin/env bash
# pylibjxl 0.5.0 (libjxl 0.11.2) decodes a lossy JPEG XL with an Adobe RGB profile to linear light of sRGB, and returns
# the profile of the original beside these pixels, to which it does not apply. imagecodecs 2026.3.6 returns the same
# pixels, and no profile. A lossless file with the same profile comes in the colours of the profile.
#
# Seen: (200, 60, 60) in Adobe RGB is (231, 57, 57) in sRGB. The lossy file gives (204, 10, 10), of which the profile
# makes (238, 3, 3), and the curve of sRGB alone (231, 56, 56). Nothing that pylibjxl returns tells the two files apart.
# The file was written by cjxl 0.7.0 -d 0.1 from a PNG of 8 x 8 pixels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
	pylibjxl==0.5.0 imagecodecs==2026.3.6 numpy==2.4.6 pillow==13.0.0
cat > "$work/look.py" <<'PYTHON'
from importlib.metadata import version
from io import BytesIO

import imagecodecs
import numpy as np
import pylibjxl
from PIL import Image, ImageCms

LOSSY = bytes.fromhex(
    "ff0a41400a9d1e90300f10cd1ccd21e0d66da9e6930fb64c36ee22d853b30caa0c34bb5a8fa1d3f8167c2df4a7c51eabe391e936c219"
    "e47e52e2227c96a64140cbe8a7c29a8d0cec23be6cbcca4e7ebc0600138800e000ffffaa020050a132cab8c1cbb99e2f3f74584cdbb8"
    "ced056db1696248a8c639374028724b1226c5c80000c06006030735b66df1d085a4902"
)
STORED = np.array([200, 60, 60])


def converted(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """The first pixel in sRGB, by littlecms."""
    image = Image.fromarray(pixels)
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    return np.array(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB")))[4, 4].astype(int)


print("pylibjxl", version("pylibjxl"), "imagecodecs", imagecodecs.__version__, imagecodecs.jpegxl_version())
pixels, metadata = pylibjxl.decode(LOSSY, metadata=True)
profile = metadata["icc_profile"]
lossless = pylibjxl.encode(np.full((8, 8, 3), STORED, np.uint8), lossless=True, icc=profile)
right = converted(pylibjxl.decode(lossless), profile)
light = pixels[4, 4] / 255
curve = np.rint(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255).astype(int)
wrong = converted(pixels, profile)
print("stored", STORED, "lossless", pylibjxl.decode(lossless)[4, 4], "in sRGB", right)
print("lossy", pixels[4, 4], "and a profile of", len(profile), "bytes, which makes of it", wrong)
print("lossy with the curve of sRGB instead of the profile:", curve)
same = (imagecodecs.jpegxl_decode(LOSSY) == pixels).all()
assert same and abs(curve - right).max() <= 3 and abs(wrong - right).max() > 40
PYTHON
"$work/venv/bin/python" "$work/look.py" || { echo "this has changed" >&2; exit 1; }
echo "as it was"
