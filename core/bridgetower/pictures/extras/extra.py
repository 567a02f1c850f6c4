"""Formats that need an optional library, and which extra of the distribution brings it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.errors import MissingExtraError
from bridgetower.installation import how_to_install

if TYPE_CHECKING:
    from PIL import Image


class Extra(StrEnum):
    """An extra of the distribution, and the kind of pictures that its library reads."""

    HEIF = "heif"  # HEVC in a HEIF container: .heic, .heif, .hif
    JXL = "jxl"
    RAW = "raw"  # of cameras
    DEEP = "deep"  # TIFF, JPEG 2000 and JPEG of depths and compressions that Pillow does not read

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that must be there."""
        return {
            Extra.HEIF: ("pi_heif",),
            Extra.JXL: ("pylibjxl",),
            Extra.RAW: ("rawpy",),
            Extra.DEEP: ("tifffile", "imagecodecs"),
        }[self]

    @property
    def sign(self) -> str:
        """The beginning of the reason for which a file is skipped while the extra is missing."""
        return f"needs the extra {self}:"

    def is_installed(self) -> bool:
        """Return whether the modules can be found; they are not imported."""
        return all(find_spec(module) is not None for module in self.modules)

    def missing(self, path: Path) -> MissingExtraError:
        """Return the error of a picture that needs this extra."""
        return MissingExtraError(path, f"{self.sign} {how_to_install(self)}")


def needed(reason: str | None) -> Extra | None:
    """Return the extra that this reason, for which a file was skipped, names as missing; None for other reasons."""
    return next((extra for extra in Extra if reason is not None and reason.startswith(extra.sign)), None)


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture that a library of an extra has read."""

    image: "Image.Image"  # any mode, as stored
    width: int  # pixels of the whole picture, upright; `image` may be smaller
    height: int
    orientation: int = 1  # EXIF orientation that is still to be applied to `image`


CheckPixels = Callable[[int], None]  # raises PixelLimitError for too many pixels
