"""`make test-samples`: write one file of each kind with the encoders that people use, read it, and compare.

    python tests/samples/encoders.py --only JXL

The kinds are those of encoders.txt. Each file is written from a drawn picture, its twin. The difference is that of all
values, 0 to 255, of the decoded picture and of the twin. Where the limit is at most 2, as for lossless files, the
greatest must be within it; of lossy files and of HDR, 99 % of the values must be. Half a level more is allowed, as the
twin is not rounded. A file may also have to be refused, with a reason that begins as given. Tools that are not
installed are named, and their kinds passed over. Ends with 1 if a kind is wrong.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image

from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode
from tests.raws import developed, dng, linear, mosaic
from tests.unit.pictures.test_colour import hlg_light, in_srgb, pq_light, shown, srgb_light

WIDTH, HEIGHT = 160, 120

TABLE = Path(__file__).with_suffix(".txt")


class Kind(NamedTuple):
    """A kind of files."""

    name: str
    twin: str  # a picture of `twins`
    limit: float | None  # None where it must be refused
    reason: str | None  # None where it must be read
    encoder: list[str]  # a command that writes OUT.<extension>, or the package of `in_python`


def kinds() -> Iterator[Kind]:
    for row in TABLE.read_text("utf-8").splitlines():
        if row.startswith("#"):
            continue
        name, twin, expected, encoder = (part.strip() for part in row.split(";"))
        limit, _, reason = expected.partition("!")
        command = shlex.split(encoder.replace("FLOAT", "-define quantum:format=floating-point"))
        yield Kind(name, twin, float(limit) if limit else None, reason or None, command)


def levels() -> np.ndarray:
    """A smooth picture without strong colours or symmetry, float [H, W, 3] in [0, 1]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH
    return 0.15 + 0.5 * (x + y)[..., None] / 1.75 + 0.15 * np.stack([x, y, 1 - x], axis=-1)


def fade() -> np.ndarray:
    """Transparency, float [H, W]."""
    return np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))


def flat() -> np.ndarray:
    """Rectangles of the greys 0, 85, 170 and 255, uint8 [H, W, 3]."""
    picture = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for step, grey in enumerate((170, 85, 0)):
        picture[20 * step : 60 + 10 * step, 30 * step + 10 : 90 + 20 * step] = grey
    return np.repeat(picture[..., None], 3, axis=2)


def twins() -> dict[str, np.ndarray]:
    """Pictures that must come out, float [H, W, 3] in 0 to 255, by name."""
    level, plane = levels(), flat().astype(float)
    grey, alpha = level[..., 1:2], fade()[..., None]
    part = np.full_like(plane, 255)
    part[30:90, 40:120] = plane[30:90, 40:120]
    found = {
        "colour": level * 255,
        "grey": grey * 255,
        "two": np.where(plane > 127, 255, 0),
        "flat": plane,
        "part": part,
        "crop": level[20:100, 16:136] * 255,
        "turned": np.rot90(level, -1) * 255,
        "colour alpha": level * 255 * alpha + 255 * (1 - alpha),
        "grey alpha": grey * 255 * alpha + 255 * (1 - alpha),
        "flat alpha": np.where(alpha < 0.5, 255, plane),
        "P3": in_srgb(srgb_light(level), "P3"),
        "BT.2020": in_srgb(srgb_light(level), "BT.2020"),
        "linear": in_srgb(level, "sRGB"),
        "PQ": shown(pq_light(level)),
        "HLG": shown(hlg_light(level)),
        "raw": developed(linear(WIDTH, HEIGHT)).astype(float),
    }
    return {name: np.broadcast_to(twin, (*twin.shape[:2], 3)) for name, twin in found.items()}


def scaled(level: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(level * (2**bits - 1)).astype("u1" if bits <= 8 else "u2" if bits <= 16 else "u4")


def write_sources(folder: Path) -> None:
    """Write what the encoders read."""
    level, alpha = levels(), fade()[..., None]
    for bits in (8, 16):
        sources = {"colour": level, "grey": level[..., 1], "colouralpha": np.dstack([level, alpha])}
        for name, values in sources.items():
            (folder / f"{name}{bits}.png").write_bytes(imagecodecs.png_encode(scaled(values, bits)))
        for name, magic in (("colour.ppm", "P6"), ("grey.pgm", "P5")):
            stem, _, suffix = name.partition(".")
            values = scaled(sources[stem], bits)
            head = f"{magic}\n{WIDTH} {HEIGHT}\n{2**bits - 1}\n".encode()
            (folder / f"{stem}{bits}.{suffix}").write_bytes(head + values.astype(f">u{bits // 8}").tobytes())
    (folder / "c.raw").write_bytes(scaled(level, 12).astype(">u2").transpose(2, 0, 1).tobytes())
    plane = Image.fromarray(flat())
    white = Image.new("RGB", plane.size, "white")
    white.save(folder / "white.png")
    black = Image.new("RGB", plane.size)
    black.save(folder / "moving.png", save_all=True, append_images=[plane], duration=100)
    plane.save(folder / "flat.png")
    plane.crop((40, 30, 120, 90)).save(folder / "part.png")
    plane.putalpha(Image.fromarray((fade() >= 0.5).astype(np.uint8) * 255))
    plane.save(folder / "flatalpha.png")
    colour = Image.open(folder / "colour8.png")
    colour.save(folder / "colour8.tif")
    colour.save(folder / "colour95.jpg", quality=95, subsampling=0)
    colour.save(folder / "turned.jpg", quality=95, subsampling=0, exif=TURNED)


TURNED = Image.Exif()
TURNED[274] = 6


def in_python(kind: str, folder: Path) -> bytes:
    """Write a file with a library of Python."""
    level = levels()
    with_alpha = np.dstack([level[..., 1:2], fade()])
    hdr = {"color_primaries": 9, "matrix_coefficients": 9}
    functions: dict[str, Callable[[], bytes]] = {
        "JPEG 12 bits": lambda: bytes(imagecodecs.jpeg_encode(scaled(level, 12), level=95, bitspersample=12)),
        "APNG": lambda: (folder / "moving.png").read_bytes(),
        "HEIC turned": lambda: heif(8, exif=TURNED.tobytes()),
        "HEIC P3": lambda: heif(8, color_primaries=12),
        "HEIC HLG, 10 bits": lambda: heif(16, transfer_characteristics=18, **hdr),
        "HEIC PQ, 10 bits": lambda: heif(16, transfer_characteristics=16, **hdr),
        "TIFF float, grey": lambda: tiff(level[..., 1].astype("f4"), compression="zlib"),
        "TIFF half floats": lambda: tiff(level.astype("f2")),
        "TIFF 32 bits, colour": lambda: tiff(scaled(level, 32)),
        "TIFF of JPEG XL": lambda: tiff(scaled(level, 8), compression="jpegxl"),
        "TIFF grey, alpha, 16": lambda: tiff(scaled(with_alpha, 16), extrasamples=["unassalpha"]),
        "BigTIFF, big-endian": lambda: tiff(scaled(level, 8), {"byteorder": ">", "bigtiff": True}, compression="lzw"),
        "DNG LinearRaw": lambda: dng(linear(WIDTH, HEIGHT)),
        "DNG Bayer": lambda: dng(mosaic(linear(WIDTH, HEIGHT))),
    }
    return functions[kind]()


def heif(bits: int, **options: Any) -> bytes:
    mode = "RGB" if bits == 8 else "RGB;16"
    file = pillow_heif.from_bytes(mode, (WIDTH, HEIGHT), scaled(levels(), bits).tobytes())
    buffer = BytesIO()
    file.save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, form: dict[str, Any] | None = None, **options: Any) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer, **(form or {})) as writer:
        colours = "rgb" if values.shape[2:] == (3,) else "minisblack"
        writer.write(values, photometric=colours, metadata=None, **options)
    return buffer.getvalue()


def version_of(encoder: str) -> str | None:
    """Return the version of a tool or of a package of Python; None if the tool is not installed."""
    if encoder in ("Pillow", "imagecodecs", "pillow-heif", "tifffile"):
        return version(encoder)
    if shutil.which(encoder) is None:
        return None
    option = {"convert": "-version", "cjpeg": "-version", "heif-enc": "-h", "opj_compress": "-h", "tiffcp": "-h"}
    command = ["cwebp", "-version"] if encoder in ("cwebp", "img2webp") else [encoder, option.get(encoder, "--version")]
    ran = subprocess.run(command, capture_output=True, text=True)
    if encoder == "convert" and "ImageMagick" not in ran.stdout:
        return None
    numbers = (word.strip("v,.()") for word in (ran.stdout + ran.stderr).split())
    return next((number for number in numbers if number[:1].isdigit() and "." in number), "?")


def made(kind: Kind, folder: Path) -> bytes:
    """Return a file of this kind. Raises CalledProcessError."""
    if len(kind.encoder) == 1:
        return in_python(kind.name, folder)
    subprocess.run(kind.encoder, cwd=folder, check=True, capture_output=True, timeout=120)
    return (folder / next(word for word in kind.encoder if "OUT" in word).rpartition(":")[2]).read_bytes()


def judged(kind: Kind, data: bytes, twin: np.ndarray) -> tuple[bool, str]:
    """Return whether the file is read or refused as expected, and what was seen."""
    try:
        found = np.asarray(decode(data, Path(kind.name)).image).astype(float)
    except PictureError as error:
        return kind.reason is not None and error.reason.startswith(kind.reason), f"refused: {error.reason}"
    if kind.limit is None or found.shape != twin.shape:
        return False, f"read as {found.shape[1]} x {found.shape[0]}"
    difference = np.abs(found - twin)
    most, nearly = difference.max(), np.percentile(difference, 99)
    right = bool((most if kind.limit <= 2 else nearly) <= kind.limit + 0.5)
    return right, f"greatest difference {most:.1f}, 99 % within {nearly:.1f}, limit {kind.limit:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", default="", help="kinds whose names begin so")
    only = parser.parse_args().only
    all_right, pictures = True, twins()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sources(folder)
        for kind in kinds():
            if not kind.name.startswith(only):
                continue
            encoder = kind.encoder[0]
            number = version_of(encoder)
            if number is None:
                print(f"absent  {kind.name:24}  {encoder} is not installed")
                continue
            try:
                right, saw = judged(kind, made(kind, folder), pictures[kind.twin])
            except subprocess.CalledProcessError as error:
                said = error.stderr.decode(errors="replace").strip().splitlines() or ["?"]
                print(f"absent  {kind.name:24}  {encoder} {number} does not write it: {said[-1]}")
                continue
            all_right &= right
            print(f"{'right' if right else 'WRONG'}   {kind.name:24}  {f'{encoder} {number}':22}  {saw}", flush=True)
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
