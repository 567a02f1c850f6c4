"""Turn an upright RGB picture into the pixels of the vision tower: float32 [3, H, W], normalised, H = W = `crop_size`.

    hf     short side to `shortest_edge`, long side to at most 1333/800 of it, both floored to multiples of
           `size_divisor`, bicubic -> central square of `crop_size`, padded with black -> (x/255 - mean) / std
    plain  central square of the picture -> `crop_size`, bicubic -> (x/255 - mean) / std

`hf` is the default, because all other programs run the published weights with it. As 294 is no multiple of 32, it gives
every picture of the large checkpoints a black frame of 3 pixels, and wide pictures black bars. `plain` adds no black;
those weights were trained with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from bridgetower.errors import ModelError

if TYPE_CHECKING:  # it takes longer to import than the rest, and decode workers do not need it
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from bridgetower.pictures.decode import Decoded

PREPROCESSING_VERSION = 1  # raise it with any change that alters pixels: stored vectors are then refused, not mixed

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

LONG_SIDE_LIMIT = 1333 / 800  # of the short side, in `hf`

# A short side this many times as long as after resizing is enough. Decoding at a fraction of the size then changes
# vectors less than bf16 does, so it needs no other version (docs/decisions/2026-11-21-jpeg-draft.md).
OVERSAMPLING = 2

_BICUBIC = 3  # `PIL.Image.Resampling.BICUBIC`; a search that decodes nothing imports no Pillow

# Keys that the reference image processor uses, with the only value that we support. Other keys in such a file belong to
# other programs (the published files contain whole training configurations) and change no pixel.
_REQUIRED: dict[str, object] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": _BICUBIC,
}
_RESCALE_FACTOR = 1 / 255
_MOST_PX = 4096  # larger than for any vision tower, so that a typing error does not exhaust the memory
_MOST_MEAN = 1000  # of image_mean, and of image_std and its inverse, so that pixels do not overflow


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preprocessing of one checkpoint; all lengths are in pixels of the resized picture."""

    shortest_edge: int
    crop_size: int  # H and W of the result
    name: str = "hf"  # or "plain", which uses only crop_size, mean and std
    size_divisor: int = 32
    mean: tuple[float, float, float] = CLIP_MEAN  # of RGB in [0, 1]
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        if self.name not in ("hf", "plain"):
            raise ModelError(f'preprocessing "{self.name}" is unknown; there are "hf" and "plain"')
        if min(self.shortest_edge, self.crop_size, self.size_divisor) < 1:
            raise ModelError("preprocessing: size, crop_size and size_divisor must be at least 1 pixel")
        # These comparisons are false for NaN, too.
        if not all(abs(x) <= _MOST_MEAN for x in self.mean) or not all(
            1 / _MOST_MEAN <= x <= _MOST_MEAN for x in self.std
        ):
            raise ModelError(
                f"preprocessing: image_mean must be from -{_MOST_MEAN} to {_MOST_MEAN}, "
                f"image_std from {1 / _MOST_MEAN} to {_MOST_MEAN}"
            )

    def named(self, name: str) -> Self:
        """Return these settings with the name "hf" or "plain". Raises ModelError for another name."""
        return replace(self, name=name)

    @property
    def min_side(self) -> int:
        """The short side, in pixels, that is enough for any picture: the `min_side` of `decode`.

        For elongated pictures, whose short side `hf` makes smaller, it is more than enough.
        """
        return OVERSAMPLING * (self.crop_size if self.name == "plain" else self.shortest_edge)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], image_size: int, source: str = "preprocessor_config.json") -> Self:
        """Read a `preprocessor_config.json`, or a `processor_config.json` that holds one as "image_processor".

        `image_size` is the side of the pixels of the vision tower; `source` names the file in messages.
        Raises ModelError if the file has settings that we do not support.
        """
        nested = data.get("image_processor", data)
        if not isinstance(nested, Mapping):
            raise _wrong(source, '"image_processor" must be an object')
        given = {key: value for key, value in nested.items() if value is not None}

        for key, required in _REQUIRED.items():
            if given.get(key, required) != required:
                raise _wrong(source, f"{key} = {given[key]} is not supported, only {required}")
        factor = given.get("rescale_factor", _RESCALE_FACTOR)  # a fraction, so never an int
        if not isinstance(factor, float) or not math.isclose(factor, _RESCALE_FACTOR, rel_tol=1e-6):
            raise _wrong(source, f"rescale_factor = {factor} is not supported, only 1/255")

        shortest_edge = _edge(given.get("size", image_size), "size", source)
        crop_size = _edge(given.get("crop_size", shortest_edge), "crop_size", source)
        if crop_size != image_size:
            raise _wrong(source, f"pictures come out at {crop_size} px but the network takes {image_size} px")
        return cls(
            shortest_edge=shortest_edge,
            crop_size=crop_size,
            name=given.get("preprocessing", "hf"),
            size_divisor=_whole(given.get("size_divisor", 32), "size_divisor", source),
            mean=_triple(given.get("image_mean", CLIP_MEAN), "image_mean", source),
            std=_triple(given.get("image_std", CLIP_STD), "image_std", source),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of a `preprocessor_config.json`. `transformers` reads it, too, but always applies `hf`."""
        return {
            "image_processor_type": "BridgeTowerImageProcessor",
            "preprocessing": self.name,
            **_REQUIRED,
            "rescale_factor": _RESCALE_FACTOR,
            "do_pad": True,
            "size": {"shortest_edge": self.shortest_edge},
            "crop_size": {"shortest_edge": self.crop_size},
            "size_divisor": self.size_divisor,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


@runtime_checkable
class PictureSource(Protocol):
    """A picture that makes its own pixels, wherever it comes from."""

    @property
    def name(self) -> Path:
        """The name of the picture in messages and results; no file of this name is opened."""
        ...

    def pixels(self, preprocessing: Preprocessing) -> "npt.NDArray[np.float32]":
        """Return preprocessed pixels [3, H, W]. Raises PictureError."""
        ...


@runtime_checkable
class FileSource(PictureSource, Protocol):
    """A picture that knows the content of its file, too."""

    def content_hash(self) -> bytes:
        """Return the SHA-256 of the file; called after `pixels`."""
        ...


def preprocess(picture: "Image.Image | Decoded", spec: Preprocessing) -> "npt.NDArray[np.float32]":
    """Turn one upright RGB picture of any size into float32 [3, H, W], contiguous, H = W = `spec.crop_size`.

    A picture that was decoded at a fraction of its size gets the crop of the whole picture.
    """
    from bridgetower.pictures.decode import Decoded

    decoded = picture if isinstance(picture, Decoded) else Decoded(picture, picture.width, picture.height, None)
    return normalise(square(decoded, spec).tobytes(), spec)


def square(decoded: "Decoded", spec: Preprocessing) -> "Image.Image":
    """Resize, crop and convert to sRGB of `spec.crop_size` x `spec.crop_size`."""
    from bridgetower.pictures.colour import to_srgb

    if decoded.image.mode != "RGB":
        raise ValueError(f"preprocess takes RGB, not {decoded.image.mode}")
    resized = _plain_square(decoded, spec.crop_size) if spec.name == "plain" else _hf_square(decoded, spec)
    return to_srgb(resized, decoded.profile, decoded.cicp)


def normalise(rgb: bytes | bytearray, spec: Preprocessing) -> "npt.NDArray[np.float32]":
    """Normalise the bytes of a `square`, uint8 [H, W, 3] -> float32 [3, H, W]."""
    import numpy as np

    # One pass to reorder and widen, two in place: the fastest of the ways measured, within 3e-7 of dividing twice.
    mean, std = np.array(spec.mean)[:, None, None], np.array(spec.std)[:, None, None]
    stored = np.frombuffer(rgb, np.uint8).reshape(spec.crop_size, spec.crop_size, 3)
    pixels: npt.NDArray[np.float32] = stored.transpose(2, 0, 1).astype(np.float32, order="C")  # [3, H, W]
    pixels *= (_RESCALE_FACTOR / std).astype(np.float32)
    pixels -= (mean / std).astype(np.float32)
    return pixels


def _hf_square(picture: "Decoded", spec: Preprocessing) -> "Image.Image":
    # Use the size of the whole picture: the rounded sides of a smaller copy could change it by 32 pixels.
    size = _hf_size(picture.width, picture.height, spec)
    resized = picture.image.resize(size, _BICUBIC, box=picture.box)
    left, top = (resized.width - spec.crop_size) // 2, (resized.height - spec.crop_size) // 2
    # Offsets may be negative, as `crop` gives black outside the picture: it also adds frame and bars.
    return resized.crop((left, top, left + spec.crop_size, top + spec.crop_size))


def _hf_size(width: int, height: int, spec: Preprocessing) -> tuple[int, int]:
    """Width and height after the `hf` resize.

    For a picture thinner than about 15:1 (5:1 if `shortest_edge` is 96), the short side would be floored to 0, and the
    reference fails; we then do not floor it, and use at least 1 pixel.
    """
    limit = int(LONG_SIDE_LIMIT * spec.shortest_edge)
    scale = spec.shortest_edge / min(width, height)
    # The short side is set, not multiplied, and the two scales are applied one after the other, so that rounding equals
    # the reference: a difference of 1 pixel before flooring can become 32.
    sides = [float(spec.shortest_edge) if side == min(width, height) else scale * side for side in (width, height)]
    if max(sides) > limit:
        shrink = limit / max(sides)
        sides = [shrink * side for side in sides]
    rounded = [int(side + 0.5) for side in sides]
    new_width, new_height = (side // spec.size_divisor * spec.size_divisor or max(side, 1) for side in rounded)
    return new_width, new_height


def _plain_square(picture: "Decoded", crop_size: int) -> "Image.Image":
    left, top, right, bottom = picture.box or (0, 0, *picture.image.size)
    side = min(right - left, bottom - top)
    left, top = (left + right - side) / 2, (top + bottom - side) / 2
    box = (left, top, left + side, top + side)
    return picture.image.resize((crop_size, crop_size), _BICUBIC, box=box)


def _wrong(source: str, what: str) -> ModelError:
    return ModelError(f"{source}: {what}; use the file that belongs to this checkpoint")


def _edge(value: object, key: str, source: str) -> int:
    """Return the side of a square, or the short side, from any of the spellings in saved files."""
    if isinstance(value, Mapping):
        if set(value) == {"height", "width"} and value["height"] == value["width"]:
            value = value["height"]
        elif set(value) == {"shortest_edge"}:
            value = value["shortest_edge"]
        else:
            raise _wrong(source, f'{key} = {dict(value)} is not supported, only {{"shortest_edge": pixels}}')
    return _whole(value, key, source)


def _whole(value: object, key: str, source: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_PX:
        raise _wrong(source, f"{key} = {value} must be a whole number of pixels, from 1 to {_MOST_PX}")
    return value


def _triple(value: object, key: str, source: str) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(x, int | float) for x in value):
        raise _wrong(source, f"{key} = {value} must be three numbers, for red, green and blue")
    try:
        red, green, blue = map(float, value)
    except OverflowError:
        raise _wrong(source, f"{key} holds too large a number") from None
    return red, green, blue
