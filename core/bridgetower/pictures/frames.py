"""Load the frame that stands for an opened picture, as a viewer shows it before the ground is chosen."""

from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageChops

from bridgetower.pictures.tiff import load_webp
from bridgetower.pictures.to_rgb import is_blank, most_frames
from bridgetower.pictures.versions import changed_in

if TYPE_CHECKING:  # a plugin is imported with the first file of its format
    from PIL import ImageFile
    from PIL.PngImagePlugin import PngImageFile


_ALPHA, _ANIMATED = 0x10, 0x02  # flags of a WebP file


def readable_webp(data: bytes) -> bytes:
    """Return the content of an animated WebP file with the flag of transparency, and other content as it is.

    Without the flag, Pillow gives black where the first frame does not cover the canvas.
    """
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) > 20 and data[20] & _ANIMATED:
        if not data[20] & _ALPHA:
            changed_in(1)
        return data[:20] + bytes([data[20] | _ALPHA]) + data[21:]
    return data


def load(opened: "ImageFile.ImageFile", data: bytes) -> Image.Image:
    """Load and return the first frame of an animation that is not blank, or the whole of another picture.

    `data` is the content of the file. What the frames leave out of the canvas is transparent. The frame is `opened`
    itself, where that is right as Pillow loads it. A frame of one colour is blank; if there is no other, the first one
    is returned. Raises what Pillow raises on damage of the first frame; a later one that is damaged ends the search.
    """
    first = _seek_first(opened)
    covered = cover = _cover(opened, None)
    frame = _load_frame(opened, data, cover)
    # TIFF files have pages instead. That a GIF file is no animation, Pillow knows only after reading it all.
    may_move = opened.format in ("PNG", "WEBP", "AVIF") and getattr(opened, "is_animated", False)
    if not (may_move or opened.format == "GIF") or not is_blank(frame):
        return frame
    with suppress(EOFError, OSError, SyntaxError, ValueError):  # EOFError: no more frames
        for number in range(first + 1, most_frames(opened.width, opened.height)):
            opened.seek(number)
            later = _load_frame(opened, data, covered := _cover(opened, covered))
            if not is_blank(later):
                changed_in(1)
                return later
    opened.seek(0)
    _seek_first(opened)
    return _load_frame(opened, data, cover)


def _seek_first(opened: "ImageFile.ImageFile") -> int:
    """Seek the first frame of the animation and return its number.

    An image of an APNG file that is no frame stands before it, for programs that show no animation.
    """
    if opened.format != "PNG" or not opened.info.get("default_image"):
        return 0
    try:
        opened.seek(1)
    except (EOFError, OSError, SyntaxError):  # cut before the first frame
        opened.seek(0)
        opened.info.pop("default_image")
        return 0
    changed_in(1)
    cast("PngImageFile", opened).blend_op = 0  # nothing is beneath it to be blended with
    return 1


def _cover(opened: "ImageFile.ImageFile", covered: Image.Image | None) -> Image.Image | None:
    """Return the mask of what the frames have covered of the canvas up to this one, before it is loaded.

    Return None where Pillow begins with a transparent canvas: not in GIF files, and in APNG files not where an image
    that is no frame stands before the first.
    """
    if opened.format != "GIF" and not opened.info.get("default_image"):
        return None
    mask = Image.new("L", opened.size)
    if covered is not None:
        mask.paste(covered)
    for tile in opened.tile:
        mask.paste(255, tile.extents)
    return mask


def _load_frame(opened: "ImageFile.ImageFile", data: bytes, covered: Image.Image | None) -> Image.Image:
    """Load the current frame; what is not `covered` becomes transparent."""
    if opened.format == "PNG" and opened.mode == "RGB" and isinstance(opened.info.get("transparency"), tuple):
        return _with_key_of_16_bits(opened, data) if _raw_mode(opened) == "RGB;16B" else _loaded(opened)
    if webp := load_webp(opened):
        return webp
    _loaded(opened)
    if covered is None or covered.getextrema() == (255, 255):
        return opened
    changed_in(1)
    rgba = opened.convert("RGBA")
    rgba.putalpha(ImageChops.multiply(rgba.getchannel("A"), covered))
    rgba.info.pop("transparency", None)
    return rgba


def _loaded(opened: "ImageFile.ImageFile") -> "ImageFile.ImageFile":
    opened.load()
    return opened


def _raw_mode(opened: "ImageFile.ImageFile") -> object:
    return opened.tile[0].args if opened.tile else None


def _with_key_of_16_bits(opened: "ImageFile.ImageFile", data: bytes) -> Image.Image:
    """Load a PNG file of 3 x 16 bits in which one colour is transparent.

    Pillow keeps the high bytes only, and compares them with all 16 bits of the key. Asked for the pixels in the other
    byte order, it keeps the low bytes.
    """
    key = opened.info["transparency"]
    with Image.open(BytesIO(data), formats=["PNG"]) as low:
        low.tile = [low.tile[0]._replace(args="RGB;16L")]
        low.load()
        opened.load()
        clear = Image.new("L", opened.size, 255)
        for image, shift in ((opened, 8), (low, 0)):
            for channel, value in enumerate(key):
                table = [255 if level == value >> shift & 255 else 0 for level in range(256)]
                clear = ImageChops.multiply(clear, image.getchannel(channel).point(table))
    changed_in(1)
    rgba = opened.copy()
    rgba.info.pop("transparency")
    rgba.putalpha(ImageChops.invert(clear))
    return rgba
