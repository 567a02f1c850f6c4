"""Change a picture a little, so that no caption becomes false.

    crop      90 to 100% of the side, anywhere, resized back
    light     brightness and contrast, each by up to a tenth
    flip      left and right, for half of the pictures without a caption that tells sides or signs

Colours are not shifted, since captions name them; nothing is cropped so far that a thing in the caption goes missing.
"""

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
from PIL import Image

LEAST_SIDE = 0.9  # of the crop
MOST_CHANGE = 0.1  # of brightness and of contrast

# Words after which a mirrored picture could be told from the caption: sides and turns, and what is written. A digit, a
# quotation and a letter outside ASCII, as of most other languages, count, too. Many more words than must be, as a flip
# that is left out costs little.
_TOLD = re.compile(
    # Inside other words, too: lefthand, northeast; but not in leftover, bright, upright, least, Easter or lowest.
    r"(?<!c)left(?!over)|(?<![bfw])(?<!al)(?<!up)(?<!out)(?<!down)(?<!forth)(?<!birth)right(?!eous|ful)"
    r"|(?<![bflry])east(?!er(?:s|tide)?\b)|(?<![eo])west"
    r"|\b(?:(?:counter|anti)?-?clockwise|o['’]clock|(?:half|quarter|minutes) (?:past|to)|southpaws?"
    r"|starboard|port[ -]?(?:side|bow|wing|quarter)"
    # German and Dutch, French, Spanish, Portuguese, Italian, Polish, Danish, Indonesian, in words of ASCII letters
    r"|link(?:s\w*|e[nrms]?)|recht(?:s\w*|e[nrms]?)|gauches?|droite?s?|ouest|izquierd[ao]s?|derech[ao]s?|oeste"
    r"|esquerd[ao]s?|direit[ao]s?|sinistr[aeio]|destr[aeio]|ovest|lew[aeoy]\w*|praw[aeoy]\w*|venstre|kiri|kanan"
    r"|(?:letter|lettering|number|numeral|digit|word|text|sign|signage|label|logo|licen[cs]e|alphabet|initial)s?"
    r"|(?:billboard|poster|placard|banner|plaque|inscription|headline|newspaper|advert|advertisement|map|flag)s?"
    r"|says?|saying|reads?|reading|spell(?:s|ed|ing)?|spelt|stat(?:es|ed|ing)|\w*writ(?:e|es|ing|ten)|(?:im)?print(?:s|ed)?"
    r"|labell?ed|numbered|(?:en|sub)?titled?|named?|names|called|inscribed|engraved|embossed|graffiti|calligraphy)\b"
    r"|(?-i:\b[LR]\b)|[0-9\"“”„«»]|(?<!\w)['‘]\w|[^\W\x00-\x7f]",
    re.IGNORECASE,
)


def may_flip(captions: Iterable[str]) -> bool:
    """Whether all captions of a picture stay true when it is mirrored.

    English captions are understood, and the commonest words for sides in some other languages.
    """
    # Composed, so that a letter with a mark is one outside ASCII.
    return not any(_TOLD.search(unicodedata.normalize("NFC", caption)) for caption in captions)


def augmented(rgb: bytes, side: int, draw: np.random.Generator, *, flips: bool) -> bytes:
    """Return another square of the same size: uint8 [side, side, 3]; mirrored only where `flips` allows it.

    Black at the edges, as a frame of the preprocessing, stays where it is, because it is always there at inference.
    """
    share, x, y, brightness, contrast, mirrored = draw.random(6)
    whole = Image.frombytes("RGB", (side, side), rgb)
    content = whole.getbbox()  # of all that is not black
    if content is None:
        return rgb
    image = whole.crop(content)
    mean = float(np.asarray(image).mean())
    if flips and mirrored < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    kept = 1 - (1 - LEAST_SIDE) * share
    width, height = kept * image.width, kept * image.height
    left, top = (image.width - width) * x, (image.height - height) * y
    image = image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    values = (np.arange(256) - mean) * _factor(contrast) + mean
    table = np.clip(np.rint(values * _factor(brightness)), 0, 255).astype(np.uint8)
    whole.paste(image.point([*table.tolist()] * 3), content)
    return whole.tobytes()


def _factor(drawn: float) -> float:
    """Return a factor around 1 for a number in [0, 1)."""
    return 1 + MOST_CHANGE * (2 * drawn - 1)
