"""Search an index, and put the pictures on one sheet, each with its match.

python examples/contact_sheet.py photos.index "two cats on a couch" sheet.webp --top 6
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from bridgetower import BridgeTowerError, Hit, Library

SIDE, LINE, GAP, COLUMNS = 240, 30, 12, 3  # pixels: a picture, the line below it, the space around it


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
    parser.add_argument("sheet", type=Path, help="the picture to write, such as sheet.webp")
    parser.add_argument("--top", type=int, default=12)
    parser.add_argument("--precision", help="fp32, bf16 or int8; by itself what suits the processor")
    arguments = parser.parse_args()
    try:
        with Library(arguments.index, precision=arguments.precision) as library:
            found = library.search(arguments.text, top=arguments.top)
    except BridgeTowerError as error:
        parser.error(str(error))
    if not found:
        raise SystemExit("no picture was found")
    contact_sheet(found.hits).save(arguments.sheet, quality=80)
    print(f"{len(found)} pictures on {arguments.sheet}")


if __name__ == "__main__":
    main()
