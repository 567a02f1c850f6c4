"""`bt index` on folders of the same 12-megapixel pictures as JPEG, HEIC and JPEG XL, whole process.

    python benchmarks/formats.py --photos 16

The demo model is small, so that decoding decides; with --size base or large, the network does. JPEG files are decoded
at a fraction of their size, which neither HEIC nor JPEG XL allows.
"""

import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
from PIL import Image

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, command_line, take_turns
from benchmarks.pictures import photo_folder
from bridgetower.index.reader import IndexReader

LEAST = 0.99  # cosine of a vector and that of the same picture as JPEG
Encode = Callable[[Image.Image], bytes]


def heic(image: Image.Image) -> bytes:
    buffer = BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=85)
    return buffer.getvalue()


def jxl(image: Image.Image) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(np.asarray(image), distance=1.0, lossless=False, effort=3))


ENCODERS: dict[str, Encode] = {"heic": heic, "jxl": jxl}


def converted(jpegs: Path, kind: str) -> Path:
    """Return a folder beside `jpegs` with the same pictures in another format; it is written if it is not there."""
    folder = jpegs.with_name(f"{jpegs.name}-{kind}")
    folder.mkdir(exist_ok=True)
    for jpeg in sorted(jpegs.iterdir()):
        file = folder / f"{jpeg.stem}.{kind}"
        if not file.exists():
            unfinished = file.with_suffix(".unfinished")
            with Image.open(jpeg) as image:
                unfinished.write_bytes(ENCODERS[kind](image))
            unfinished.rename(file)
    return folder


def index(photos: Path, model: Path, out: Path) -> None:
    processes.run([processes.BT, "index", str(photos), "--model", str(model), "--index", str(out)])


def start(photos: Path, model: Path, scratch: Path) -> None:
    """Index into a folder of its own."""
    index(photos, model, Path(tempfile.mkdtemp(dir=scratch)) / "index")


def vectors(photos: Path, model: Path, out: Path) -> np.ndarray:
    """Return the vectors of a folder, float32 [N, E], by name."""
    index(photos, model, out)
    with IndexReader.open(out) as store:
        stored = {entry.hash: np.frombuffer(entry.vector, "<f2") for entry in store.catalog.entries()}
    hashes = [hashlib.sha256(file.read_bytes()).digest() for file in sorted(photos.iterdir())]
    return np.stack([stored[hash] for hash in hashes]).astype(np.float32)


def main() -> None:
    options = command_line(__doc__, sizes=["demo"], rounds=5)
    options.add_argument("--photos", type=int, help="how many (16)")
    args = options.parse_args()
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for size in args.size:
            width, height = (640, 480) if size == "tiny" else (4000, 3000)  # "tiny" only shows that everything works
            jpegs = photo_folder(args.work, args.photos or (4 if size == "tiny" else 16), width, height)
            model = checkpoint(size, args.work).absolute()
            folders = {"jpeg": jpegs, **{kind: converted(jpegs, kind) for kind in ENCODERS}}
            found = {kind: vectors(photos, model, scratch / f"{size}-{kind}") for kind, photos in folders.items()}
            least = {kind: float((found[kind] * found["jpeg"]).sum(axis=1).min()) for kind in folders}
            if min(least.values()) < LEAST:
                raise SystemExit(f"the same pictures have other vectors: {least}")
            number = len(found["jpeg"])
            times = take_turns(
                {kind: partial(start, photos, model, scratch) for kind, photos in folders.items()}, args.rounds
            )
            for kind, measured in times.items():
                report.add(
                    measured,
                    size=size,
                    contender=kind,
                    pictures_per_s=number / measured.median,
                    x_jpeg=times["jpeg"].median / measured.median,
                    least_cosine=least[kind],
                )


if __name__ == "__main__":
    main()
