"""JPEG files -> what the network reads, one after the other: decoded in full, and at a fraction of their size.

    python benchmarks/decoding.py                          # drawn pictures of 12 megapixels
    python benchmarks/decoding.py ~/Pictures/2024          # your own
    python benchmarks/decoding.py FOLDER --short-side 3000 # made that large first

"2x" leaves the short side at least twice as many pixels as it is resized to; the margin that `bt` itself uses is
OVERSAMPLING in bridgetower/pictures/preprocess.py, and the run fails where that gives other vectors. `error` is 1 -
cosine to the vector of the picture decoded in full, `pixel max` and `pixel mean` are the difference of what the network
reads, in steps of 1/255: each of the worst picture.
"""

import argparse
import os
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Array, Report, command_line, take_turns
from benchmarks.pictures import photo_folder
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.files.content import read
from bridgetower.files.walk import scan
from bridgetower.pictures.decode import decode
from bridgetower.pictures.preprocess import OVERSAMPLING, Preprocessing, preprocess
from bridgetower.records import WalkedFile

FULL = "in full"
LIMIT = 1e-3  # of the error at the margin that `bt` uses
QUALITY = 92  # of the JPEG files that --short-side makes

Contents = dict[Path, bytes]


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["demo"], rounds=3)
    options.add_argument("photos", nargs="*", type=Path, help="files and folders (drawn pictures)")
    options.add_argument("--model", metavar="NAME", help="a checkpoint of yours, in place of --size")
    options.add_argument("--margins", nargs="+", type=int, default=[1, 2, 3, 4], help="(%(default)s)")
    options.add_argument("--short-side", type=int, metavar="PX", help="resize the pictures to this, and save as JPEG")
    return options


def contents_for(size: str, args: argparse.Namespace) -> Contents:
    """Drawn pictures have 12 megapixels, but for "tiny", which only shows that everything works."""
    drawn = (4, 640, 480) if size == "tiny" else (8, 4000, 3000)
    found = scan(args.photos or [photo_folder(args.work, *drawn)])
    files = [Path(os.fsdecode(item.path)) for item in found if isinstance(item, WalkedFile)]
    contents = {path: read(path) for path in files}
    if not contents:
        raise SystemExit("no pictures there")
    if args.short_side is None:
        return contents
    return {path: resized(data, path, args.short_side) for path, data in contents.items()}


def resized(data: bytes, path: Path, short_side: int) -> bytes:
    """The content of a JPEG file with the same picture at another size, chroma at half the resolution as cameras do."""
    image = decode(data, path).image
    scale = short_side / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    buffer = BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return buffer.getvalue()


def prepare(contents: Contents, preprocessing: Preprocessing, min_side: int | None) -> Array:
    """Pixels [N, 3, H, W]."""
    decoded = (decode(data, path, min_side=min_side) for path, data in contents.items())
    return np.stack([preprocess(picture, preprocessing) for picture in decoded])


def measure(report: Report, size: str, args: argparse.Namespace) -> None:
    contents = contents_for(size, args)
    encoder = TorchEncoder(resolve(args.model or str(checkpoint(size, args.work))), choose_runtime("cpu", "fp32"))
    spec = encoder.preprocessing
    min_sides = {FULL: None} | {f"{margin}x": margin * spec.min_side // OVERSAMPLING for margin in args.margins}
    runs = {name: partial(prepare, contents, spec, min_side) for name, min_side in min_sides.items()}

    pixels = {name: run() for name, run in runs.items()}
    vectors = {name: encoder.embed_images(found) for name, found in pixels.items()}
    errors = {name: 1 - float((found * vectors[FULL]).sum(axis=1).min()) for name, found in vectors.items()}
    steps = np.array(spec.std)[:, None, None] * 255
    times = take_turns(runs, args.rounds)
    for name, measured in times.items():
        difference = np.abs(pixels[name] - pixels[FULL]) * steps  # [N, 3, H, W]
        report.add(
            measured,
            size=size,
            contender=name,
            error=errors[name],
            pixel_max=float(difference.max()),
            pixel_mean=float(difference.mean(axis=(1, 2, 3)).max()),
            ms_per_picture=1000 * measured.median / len(contents),
            x_full=times[FULL].median / measured.median,
        )
    used = f"{OVERSAMPLING}x"
    if not errors.get(used, 0) <= LIMIT:
        raise SystemExit(f"{size}: {used} is wrong: a vector is {errors[used]:.1e} from that of the picture {FULL}")


def main() -> None:
    args = parser().parse_args()
    with Report(Path(__file__).stem, args) as report:
        for size in [args.model] if args.model else args.size:
            measure(report, size, args)


if __name__ == "__main__":
    main()
