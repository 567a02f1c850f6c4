#!/usr/bin/env bash
# textual-image 0.12.0 with rich 15.0.0: `import textual_image.renderable` writes questions to the terminal (device
# attributes, and a query of Kitty's graphics) and waits for answers, before any picture is shown. On a terminal that
# reports no columns, as one that a program has just opened, showing a picture raises ZeroDivisionError.
#
# Seen, on a terminal that answers nothing: the import writes ESC [ c and ESC _ G ... ESC \, and takes longer than it
# does without a terminal; a picture on a terminal of 0 columns and rows raises ZeroDivisionError.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
	textual-image==0.12.0 rich==15.0.0 pillow==13.0.0
cat > "$work/show.py" <<'PYTHON'
import sys

import textual_image.renderable

print("IMPORTED", flush=True)
from PIL import Image
from rich.console import Console

try:
    Console().print(textual_image.renderable.Image(Image.new("RGB", (40, 40), "red"), width=10))
except Exception as error:
    print("RAISED", type(error).__name__, flush=True)
PYTHON
cat > "$work/look.py" <<'PYTHON'
import os
import pty
import re
import select
import subprocess
import sys

python, show = sys.argv[1:]
ours, theirs = pty.openpty()  # of 0 rows and columns
child = subprocess.Popen([python, show], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
os.close(theirs)
written = b""
while select.select([ours], [], [], 60)[0]:
    try:
        part = os.read(ours, 65536)
    except OSError:
        break
    if not part:
        break
    written += part
child.wait()
before = written.partition(b"IMPORTED")[0]
raised = re.findall(rb"RAISED (\w+)", written)
print("written by the import:", before)
print("raised on a terminal of 0 columns:", raised)
assert b"\x1b[c" in before and b"\x1b_G" in before and raised == [b"ZeroDivisionError"]
PYTHON
"$work/venv/bin/python" "$work/look.py" "$work/venv/bin/python" "$work/show.py" || { echo "this has changed" >&2; exit 1; }
echo "as it was"
