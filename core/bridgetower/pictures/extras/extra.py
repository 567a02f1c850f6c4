"""Formats that need an optional library: which extra of the distribution brings it, and how to install that extra."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

DISTRIBUTION = "bridgetower-cli"


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


def _python(environment: Path) -> str:
    """Return how to call pip of this environment: by its name where the environment is active, or is the only one."""
    active = os.environ.get("VIRTUAL_ENV")
    if sys.prefix == sys.base_prefix or (active is not None and Path(active).resolve() == environment.resolve()):
        return ""
    return f"{sys.executable} -m "


CheckPixels = Callable[[int], None]  # raises PixelLimitError for too many pixels


@cache
def how_to_install(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    pip notes in direct_url.json from which folder or file a distribution came; there is none where it came from an
    index of packages. pipx and uv note their own installations in a file of the environment.
    """
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").exists():
        install, pins = "pipx install --force", "--pip-args='-c constraints.txt' "
    elif (environment / "uv-receipt.toml").exists():
        install, pins = "uv tool install --force", "-c constraints.txt "
    else:
        install, pins = f"{_python(environment)}pip install", "-c constraints.txt "
    try:
        written = distribution(DISTRIBUTION).read_text("direct_url.json")
        if written is None:
            return f"{install} '{DISTRIBUTION}[{extra}]'"
        folder = url2pathname(urlsplit(str(json.loads(written)["url"])).path)
        clone = folder if (Path(folder) / "constraints.txt").is_file() else "the clone"
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        clone = "the clone"
    return f"{install} {pins}'.[{extra}]', in {clone}"
