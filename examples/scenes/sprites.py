"""Draw the sprite sheets from the Noto Color Emoji font (needed only to change the set of things).

apt-get install fonts-noto-color-emoji
python examples/scenes/sprites.py [FONT]
"""

import sys

from PIL import Image, ImageDraw, ImageFont

from examples.scenes.pictures import CELL_PX, COLUMNS, SHEETS

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE_PX = 109  # the only bitmap size in the font


def sprite(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji, trimmed to what is drawn and fitted into a transparent square cell."""
    canvas = Image.new("RGBA", (2 * STRIKE_PX, 2 * STRIKE_PX))
    ImageDraw.Draw(canvas).text((20, 20), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise SystemExit(f"the font has no picture for {emoji!r}")
    drawn = canvas.crop(box)
    drawn.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (CELL_PX, CELL_PX))
    cell.paste(drawn, ((CELL_PX - drawn.width) // 2, CELL_PX - drawn.height))  # things stand on the lower edge
    return cell


def main() -> None:
    font = ImageFont.truetype(sys.argv[1] if len(sys.argv) > 1 else FONT, STRIKE_PX)
    for file, emojis in SHEETS.items():
        rows = -(-len(emojis) // COLUMNS)
        sheet = Image.new("RGBA", (COLUMNS * CELL_PX, rows * CELL_PX))
        for index, emoji in enumerate(emojis.values()):
            sheet.paste(sprite(emoji, font), (index % COLUMNS * CELL_PX, index // COLUMNS * CELL_PX))
        sheet.save(file, quality=92, method=6)
        sys.stderr.write(f"{file.name}: {len(emojis)} sprites, {file.stat().st_size // 1024} KiB\n")


if __name__ == "__main__":
    main()
