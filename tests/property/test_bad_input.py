"""Whatever lies in a folder, `bt index` gets through it: each file is indexed, or named with its reason.

FUZZ_EXAMPLES=1000 pytest -k damaged tests/property/test_bad_input.py     # a long run, of about ten minutes
"""

import os
import random
import resource
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bridgetower.files.ignore import Rules
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.retrieval.indexing import IndexReport, index
from tests.fakes import FakeEncoder, paint
from tests.pictures import noise, png_header

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
MAX_PIXELS = 20_000_000  # for speed: damaged headers ask for as much as there may be
COUNTED_IN = 1 if sys.platform == "darwin" else 1024  # bytes, by getrusage
RULES = Rules(follow_symlinks=True)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX names, pipes and limits")


def memory() -> int:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * COUNTED_IN // 1000**2


def run(folder: Path, directory: Path, max_pixels: int = MAX_PIXELS) -> IndexReport:
    encoder = FakeEncoder()
    with IndexWriter.open(directory, encoder.fingerprint) as writer:
        return index([folder], writer, lambda: Model.from_parts(encoder), RULES, max_pixels=max_pixels)


def met(folder: Path) -> set[Path]:
    """All that is no folder in `folder`, however deep."""
    return {Path(parent, name) for parent, _, names in os.walk(folder) for name in names}


def indexed(directory: Path) -> set[Path]:
    with IndexReader.open(directory) as store:
        images = [neighbour.image for neighbour in store.recall(FakeEncoder().embed_texts(["red"]), 10_000)[0]]
        return {path for image in images for path in store.catalog.paths_of(image)}


def gets_through(folder: Path, directory: Path, max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """Index a folder twice; the reasons of what was skipped, by name."""
    before = memory()
    report = run(folder, directory, max_pixels)
    assert memory() - before < 500
    skipped = {skip.path: skip.reason for skip in report.skipped}
    there = indexed(directory)
    assert there.isdisjoint(skipped)
    assert there | set(skipped) == met(folder)
    for reason in skipped.values():
        assert reason and reason.isprintable() and len(reason) < 500
        assert "exit status" not in reason, "an exception of ours"
    with (
        patch("bridgetower.files.content.read", side_effect=AssertionError("a file was opened again")),
        patch("bridgetower.pictures.decode_pool._Process", side_effect=AssertionError("a process was started again")),
    ):
        again = run(folder, directory, max_pixels)
    assert (again.files, again.encoded, again.removed) == (report.files, 0, 0)
    assert set(again.skipped) == set(report.skipped)
    return {path.name: reason for path, reason in skipped.items()}


# --- files of every kind, damaged in every way


@cache
def sound() -> dict[str, bytes]:
    """A small picture in every format and mode that Pillow can write, by their names."""
    Image.init()
    found = {}
    square = Image.fromarray(noise(24, 20))
    for mode in (
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "LA",
        "PA",
        "La",
        "RGBa",
        "I;16",
    ):
        for kind in sorted({*Image.SAVE, *Image.SAVE_ALL}):
            buffer = BytesIO()
            try:
                square.convert("L" if mode == "I;16" else "RGB").convert(mode).save(buffer, kind)
            except Exception:  # noqa: BLE001  most formats take few modes, and each says so in its own way
                continue
            found[f"{kind} {mode}"] = buffer.getvalue()
    variants: dict[str, dict[str, Any]] = {
        "JPEG progressive": {"progressive": True},
        "WEBP lossless": {"lossless": True},
        **{f"TIFF {name}": {"compression": name} for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")},
    }
    for name, options in variants.items():
        buffer = BytesIO()
        square.save(buffer, name.split()[0], **options)
        found[name] = buffer.getvalue()
    return found


DAMAGE = ["cut", "flip", "flips", "splice", "repeat", "drop", "number", "number"]


def damaged(seed: int) -> bytes:
    """One of the sound pictures, damaged. The seed says all: drawn one by one, most places would be the beginning."""
    chance = random.Random(seed)
    name, other = chance.choice(sorted(sound())), chance.choice(sorted(sound()))
    kind, at, number = chance.choice(DAMAGE), chance.random(), chance.randrange(1024)
    if chance.random() < 0.3:  # the header, where it matters most
        kind, at = chance.choice(["flip", "number"]), at / 10
    data = bytearray(sound()[name])
    place = int(at * (len(data) - 1))
    if kind == "cut":
        del data[place:]
    elif kind == "flip":
        data[place] ^= 1 << number % 8
    elif kind == "flips":
        for step in range(8):
            data[(place + number * step) % len(data)] ^= 1 << (number + step) % 8
    elif kind == "splice":
        rest = sound()[other]
        data[place:] = rest[int(at * len(rest)) :]
    elif kind == "repeat":
        data[place:place] = data[place : place + 64] * (number % 100)
    elif kind == "drop":
        del data[place : place + number % 32 + 1]
    elif kind == "number":  # sizes, offsets and counts are of these widths
        value = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[number % 8]
        field = struct.pack(">I" if number & 8 else "<I", value)
        data[place : place + 4] = field[-2:] + data[place + 2 : place + 4] if number & 16 else field
    return bytes(data)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=40, max_size=100))
def test_damaged_files_are_indexed_or_named(seeds: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photos")
        folder.mkdir()
        for seed in seeds:
            (folder / f"{seed}.jpg").write_bytes(damaged(seed))
        gets_through(folder, Path(name, "index"))


def test_every_format_that_can_be_written_is_indexed_or_named(tmp_path: Path) -> None:
    for name, content in sound().items():
        paint(tmp_path / "photos" / "a.png", "red")
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(content)
    skipped = gets_through(tmp_path / "photos", tmp_path / "index")
    assert len(sound()) > 100
    assert {name.split()[0] for name in skipped} <= {"EPS", "PDF", "PALM", "BUFR", "GRIB", "HDF5", "WMF"}


# --- sizes


def absurd() -> Iterator[tuple[str, bytes]]:
    """Headers that ask for more than there is."""
    for side in (0, 1, 13_000, 30_000, 65_535, 2**31 - 1, 2**32 - 1):
        yield f"png {side}", png_header(side, side)
        yield f"ppm {side}", b"P6 %d %d 255\n" % (side, side)
        yield f"pfm {side}", b"Pf\n%d %d\n-1.0\n" % (side, side)
        yield f"bmp {side}", b"BM" + struct.pack("<IIIIIIHHIIIIII", 54, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
        yield f"qoi {side}", b"qoif" + struct.pack(">IIBB", side, side, 4, 0)
        yield f"psd {side}", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, side, side, 8, 3) + bytes(14)
        yield f"dds {side}", b"DDS " + struct.pack("<IIII", 124, 0x1007, side, side) + bytes(108)
        yield f"sgi {side}", struct.pack(">HBBHHHH", 474, 0, 1, 3, *(2 * [side & 0xFFFF]), 3) + bytes(500)
        yield f"tga {side}", bytes([0, 0, 2]) + bytes(9) + struct.pack("<HHBB", *(2 * [side & 0xFFFF]), 24, 0)
        yield (
            f"gif {side}",
            b"GIF89a" + struct.pack("<HH", *(2 * [side & 0xFFFF])) + b"\0\0\0,\0\0\0\0" + b"\xff\xff" * 2 + b"\0\2\0;",
        )
        yield (
            f"jpeg {side}",
            b"\xff\xd8\xff\xc0\0\x11\x08"
            + struct.pack(">HH", *(2 * [side & 0xFFFF]))
            + b"\3\1\x22\0\2\x11\1\3\x11\1\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0?\0",
        )
        yield f"webp {side}", b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (side & 0xFFFFFF).to_bytes(3, "little") * 2
        tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (278, side), (279, side)]
        yield (
            f"tiff {side}",
            b"II*\0\x08\0\0\0"
            + struct.pack("<H", len(tags))
            + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
            + bytes(4),
        )
    text = b"zTXtkey\0\0" + zlib.compress(bytes(50_000_000), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    yield "text", png_header(10, 10)[:33] + 100 * chunk  # 5 MB of it, which are 5 GB


def test_sizes_that_a_header_only_claims_take_neither_time_nor_memory(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, content in absurd():
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(content)
    began = time.monotonic()
    skipped = gets_through(tmp_path / "photos", tmp_path / "index", max_pixels=179_000_000)
    assert time.monotonic() - began < 60
    assert len(skipped) > 60
    assert not [reason for reason in skipped.values() if "died" in reason or "took" in reason]


def test_frames_by_the_thousand_are_one_picture(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    frames = [Image.new("RGB", (8, 6), (n % 256, n // 256, 0)) for n in range(1000)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        some = frames if kind != "WEBP" else frames[:200]
        some[0].save(tmp_path / "photos" / f"many.{kind.lower()}", kind, save_all=True, append_images=some[1:])
    assert gets_through(tmp_path / "photos", tmp_path / "index") == {}


# --- what a name, and what a file, may be


def test_names_of_all_kinds_are_indexed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "photos")
    names = [
        b"new\nline", b"'single'", b'"double"', b"back\\slash", "\N{CAT}".encode(), b"caf\xe9", b"\xff\xfe", b"-rf",
        b"--help", b"$(touch x)", b"a;b", b"%s%n", b" ", b"\x1b[31m", b"tab\t", b"x" * 251, "e\u0301\u202e".encode(),
    ]  # fmt: skip
    content = paint(tmp_path / "one.png", "red").read_bytes()
    os.mkdir(folder)
    for number, name in enumerate(names):
        place = os.path.join(folder, name if number % 2 else b"")
        os.makedirs(place, exist_ok=True)
        Path(os.fsdecode(os.path.join(place, name + b".png"))).write_bytes(content)
    assert gets_through(tmp_path / "photos", tmp_path / "index") == {}
    assert len(indexed(tmp_path / "index")) == len(names)


@contextmanager
def deeper(folder: Path, levels: int, name: str) -> Iterator[None]:
    """Make folders in folders, deeper than a path can say, and stay in the deepest."""
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir(name)
            os.chdir(name)
        yield
    finally:
        os.chdir(here)


def test_paths_that_are_too_long_are_named_and_the_rest_is_indexed(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    with deeper(tmp_path / "photos", 25, "d" * 200):
        Path("deep.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    try:
        report = run(tmp_path / "photos", tmp_path / "index")
        assert [skip.reason for skip in report.skipped] == ["the folder cannot be read: File name too long"]
        assert indexed(tmp_path / "index") == {tmp_path / "photos" / "a.png"}
    finally:
        shutil.rmtree(tmp_path / "photos")


def test_what_is_no_file_and_files_of_any_size_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    paint(folder / "folder.jpg" / "a.png", "red")
    (folder / "empty.jpg").touch()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "nothing.jpg").symlink_to(folder / "gone.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(10 * 1000**3)
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(100 * 1000**2)
    monkeypatch.chdir(folder)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        before = memory()
        report = run(folder, tmp_path / "index")
    assert memory() - before < 300
    reasons = {skip.path.name: skip.reason for skip in report.skipped}
    assert set(reasons) == {f"{name}.jpg" for name in "empty pipe loop nothing zero huge large socket".split()}
    assert reasons["huge.jpg"] == "10.0 GB, more than the limit of 2 GB"
    assert indexed(tmp_path / "index") == {folder / "folder.jpg" / "a.png"}


def test_files_that_change_all_the_time_are_indexed_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    contents = [paint(folder / f"{number}.png", (number * 9, 9, 9), size=(99, 99)).read_bytes() for number in range(20)]
    done = threading.Event()

    def churn() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            path = folder / f"{turn % 20}.png"
            if turn % 3:
                path.write_bytes(contents[turn * 7 % 20] * (turn % 2) + contents[turn % 20][: turn % 200])
            else:
                path.unlink(missing_ok=True)
            time.sleep(0.001)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(3):
            run(folder, tmp_path / "index")
    finally:
        done.set()
        thread.join()
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    run(folder, tmp_path / "index")
    assert gets_through(folder, tmp_path / "index") == {}
    assert len(indexed(tmp_path / "index")) == 20
