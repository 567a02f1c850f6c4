"""Search an index, and put the pictures on one sheet, each with its match.

python examples/contact_sheet.py photos.index "two cats on a couch" sheet.webp --top 6
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from bridgetower import BridgeTowerError, Hit, Library

SIDE, LINE, GAP, COLUMNS = 240, 30, 12, 3  # pixels: a picture, the line below it, the space around it
FORMATS = (".webp", ".png", ".jpg", ".jpeg")


def contact_sheet(hits: Sequence[Hit]) -> Image.Image:
    """Lay out pictures in rows; the line below each has its match and its name. Pillow must be able to read them."""
    width, height = SIDE + GAP, SIDE + LINE + GAP
    sheet = Image.new("RGB", (COLUMNS * width + GAP, -(-len(hits) // COLUMNS) * height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, hit in enumerate(hits):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        with Image.open(hit.path) as picture:
            small = ImageOps.contain(ImageOps.exif_transpose(picture).convert("RGB"), (SIDE, SIDE))
        sheet.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
        line = f"{'unverified' if hit.match is None else f'{hit.match:.3f}'}  {hit.path.stem}"
        while draw.textlength(line, font) > SIDE:
            line = line[:-2] + "…"
        draw.text((left, top + SIDE + 6), line, "black", font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description="Search an index, and put the pictures on one sheet.")
    parser.add_argument("index", help="the folder of the index; bt status names it")
    parser.add_argument("text")
    parser.add_argument("sheet", type=Path, help="a new file, such as sheet.webp; nothing is replaced")
    parser.add_argument("--top", type=int, default=12)
    parser.add_argument("--precision", help="fp32, bf16 or int8; by itself what suits the processor")
    arguments = parser.parse_args()
    path: Path = arguments.sheet
    for is_wrong, reason in (
        (path.suffix.lower() not in FORMATS, f"its name should end with one of {', '.join(FORMATS)}"),
        (path.exists(), "is there already; choose another name"),
        (not path.parent.is_dir(), "its folder is not there; make it first"),
    ):
        if is_wrong:
            parser.exit(2, f"error: {path}: {reason}\n")
    try:
        with Library(arguments.index, precision=arguments.precision) as library:
            found = library.search(arguments.text, top=arguments.top)
        if not found:
            parser.exit(1, "no picture was found\n")
        contact_sheet(found.hits).save(path, quality=80)
    except BridgeTowerError as error:
        parser.exit(error.exit_code, f"error: {error}\n")
    except (OSError, ValueError) as error:  # a picture that Pillow cannot read; a sheet that is too high, a full disk
        parser.exit(74, f"error: {path}: {error}\n")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{len(found)} pictures on {path}")


if __name__ == "__main__":
    main()
