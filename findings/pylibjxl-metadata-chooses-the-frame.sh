#!/usr/bin/env bash
# pylibjxl 0.5.0 decodes an animated JPEG XL to its first frame, but to its last one where metadata=True asks for the
# metadata beside the pixels. Its plugin for Pillow asks, and shows the last.
#
# Seen, of three frames of the greys 10, 20 and 30: decode(data) gives 10, decode(data, metadata=True) gives 30, Image.open
# after register_pillow() gives 30 and n_frames 1. imagecodecs 2026.3.6 gives all three.
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
from PIL import Image

print("pylibjxl", version("pylibjxl"), "imagecodecs", version("imagecodecs"), imagecodecs.jpegxl_version())
frames = np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in (10, 20, 30)])
data = bytes(imagecodecs.jpegxl_encode(frames))
alone = int(pylibjxl.decode(data)[0, 0, 0])
with_metadata = int(pylibjxl.decode(data, metadata=True)[0][0, 0, 0])
pylibjxl.register_pillow()
with Image.open(BytesIO(data)) as image:
    by_pillow, count = image.getpixel((0, 0))[0], getattr(image, "n_frames", 1)
every = [int(frame[0, 0, 0]) for frame in imagecodecs.jpegxl_decode(data)]
print("decode(data):", alone, "decode(data, metadata=True):", with_metadata)
print("Pillow plugin:", by_pillow, "n_frames", count, "imagecodecs:", every)
assert (alone, with_metadata, by_pillow, count, every) == (10, 30, 30, 1, [10, 20, 30])
PYTHON
"$work/venv/bin/python" "$work/look.py" || { echo "this has changed" >&2; exit 1; }
echo "as it was"
