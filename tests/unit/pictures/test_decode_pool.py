"""Pictures in processes of their own: the same pixels, and whatever becomes of a process, one file at most."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from bridgetower.errors import PictureError, ProcessError, ResourceError
from bridgetower.pictures import decode_pool as pool_module
from bridgetower.pictures import decode_worker
from bridgetower.pictures.decode import decode
from bridgetower.pictures.decode_pool import DecodePool, GuardedDecoder, Picture
from bridgetower.pictures.preprocess import Preprocessing, preprocess
from bridgetower.records import Refused
from tests.fakes import HOSTILE, handles_left
from tests.pictures import encoded, noise, png_header

SPEC = Preprocessing(64, 64)
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


@contextmanager
def hostile(folder: Path, **options: float) -> Iterator[DecodePool]:
    """Decoders that do what the content says; each writes down its number in `folder`."""
    with DecodePool(SPEC, command=[*HOSTILE, str(folder)], time_limit=options.get("time_limit", 60.0)) as decoders:
        yield decoders


def started(folder: Path) -> list[int]:
    """The numbers of the processes that were started, the oldest first."""
    return [int(line) for line in (folder / "pids").read_text().split()] if (folder / "pids").exists() else []


def runs(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def picture(shade: int = 7) -> bytes:
    return encoded(Image.new("RGB", (40, 32), (shade, 80, 0)), "PNG")


def upside_down() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1969:06:05 04:03:02"
    return exif


CONTENTS = {
    "jpeg": lambda: encoded(Image.fromarray(noise(1285, 643)), "JPEG", exif=upside_down()),
    "png": lambda: encoded(Image.fromarray(noise(90, 70, 4)), "PNG"),
    "deep": lambda: encoded(Image.fromarray(noise(90, 70, 1).astype(np.uint16) * 257), "TIFF"),
    "float": lambda: encoded(Image.fromarray(noise(90, 70, 1).astype(np.float32)), "TIFF"),
    "webp": lambda: encoded(Image.fromarray(noise(90, 70)), "WEBP"),
    "gif": lambda: encoded(Image.fromarray(noise(500, 40, 1)), "GIF"),
}


@pytest.mark.parametrize("name", ["hf", "plain"])
def test_pixels_are_the_same_to_the_bit(name: str) -> None:
    spec = Preprocessing(96, 64, name)
    with DecodePool(spec) as decoders:
        for kind, make in CONTENTS.items():
            expected, found = decode(make(), Path(), min_side=spec.min_side), decoders.decode(make())
            assert isinstance(found, Picture), (kind, found)
            np.testing.assert_array_equal(found.pixels, preprocess(expected, spec))
            sizes = (expected.width, expected.height, expected.taken_at)
            assert (found.width, found.height, found.taken_at) == sizes
    assert decode(CONTENTS["jpeg"](), Path()).taken_at is not None


@pytest.mark.parametrize("content", [b"", b"no picture", picture()[:60], b"\xff\xd8\xff\xe0" * 9])
def test_reasons_are_the_same(content: bytes) -> None:
    with pytest.raises(PictureError) as error:
        decode(content, Path())
    with DecodePool(SPEC) as decoders:
        assert decoders.decode(content) == Refused(error.value.reason, lasting=True)


def test_what_is_larger_than_allowed_is_refused_with_the_option_that_raises_it() -> None:
    with DecodePool(SPEC) as decoders:
        found = decoders.decode(png_header(14_000, 14_000))
        assert found == Refused("196 megapixels, more than the limit of 179; --max-pixels raises it", lasting=True)
    with DecodePool(SPEC, max_pixels=195_000_000) as decoders:
        found = decoders.decode(png_header(14_000, 14_000))
        assert found == Refused("196 megapixels, more than the limit of 195; --max-pixels raises it", lasting=True)
    with DecodePool(SPEC, max_pixels=196_000_000) as decoders:
        assert decoders.decode(png_header(14_000, 14_000)) == Refused("the file is truncated", lasting=True)


@posix
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"die 11", "signal SIGSEGV"),
        (b"die 6", "signal SIGABRT"),
        (b"exit 3", "exit status 3"),
        (b"stack", "exit status 1" if sys.version_info >= (3, 12) else "SIG"),  # a RecursionError since 3.12
        (b"mute", "no answer"),
    ],
)
def test_a_process_that_dies_costs_its_file_only(tmp_path: Path, content: bytes, status: str) -> None:
    with hostile(tmp_path) as decoders:
        assert isinstance(decoders.decode(picture()), Picture)
        found = decoders.decode(content)
        assert isinstance(found, Refused) and found.lasting
        assert found.reason.startswith("the decoder died on it (") and status in found.reason
        assert isinstance(decoders.decode(picture()), Picture)
    assert len(started(tmp_path)) == 2


@posix
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"die 9", "its decoder was ended (signal SIGKILL), as when memory runs out"),
        (b"die 15", "its decoder was ended (signal SIGTERM), as when memory runs out"),
        (b"exit 71", "not enough memory to decode it"),
    ],
)
def test_what_ends_a_process_from_outside_is_no_fault_of_its_picture(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with hostile(tmp_path) as decoders:
        assert decoders.decode(content) == Refused(reason, lasting=False)
        assert isinstance(decoders.decode(picture()), Picture)


@posix
def test_a_picture_that_takes_too_much_processor_time_is_refused_for_now(tmp_path: Path) -> None:
    with hostile(tmp_path, time_limit=0.7) as decoders:
        assert isinstance(decoders.decode(picture()), Picture)
        found = decoders.decode(b"spin")
        assert found == Refused("took longer than 0.7 s of processor time to decode", lasting=False)
        assert isinstance(decoders.decode(picture()), Picture)
    assert len(started(tmp_path)) == 2


def test_a_picture_that_takes_far_too_long_by_the_clock_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_CLOCK_FACTOR", 2)
    with hostile(tmp_path, time_limit=0.9) as decoders:
        assert isinstance(decoders.decode(picture()), Picture)
        assert decoders.decode(b"sleep") == Refused("took longer than 1.8 s to decode", lasting=False)
        assert isinstance(decoders.decode(picture()), Picture)
    assert len(started(tmp_path)) == 2


@posix
def test_a_picture_that_waits_for_a_busy_machine_is_decoded(tmp_path: Path) -> None:
    """It takes longer than the limit by the clock, and computes for less."""
    with hostile(tmp_path, time_limit=0.7) as decoders:
        began = time.monotonic()
        assert isinstance(decoders.decode(b"wait" + picture()), Picture)
        assert time.monotonic() - began > 0.7
        assert isinstance(decoders.decode(b"wait" + picture()), Picture)
    assert len(started(tmp_path)) == 1


def test_a_large_file_may_take_longer() -> None:
    assert decode_worker.allowed(60, 100) == pytest.approx(60, abs=0.001)
    assert decode_worker.allowed(60, 150_000_000) == pytest.approx(210)


def test_what_a_library_prints_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders:
        assert decoders.decode(b"print") == Refused("not a picture, or of an unknown kind", lasting=True)
        assert isinstance(decoders.decode(picture()), Picture)


@posix
def test_a_picture_that_takes_too_much_memory_is_refused() -> None:
    content = encoded(Image.new("1", (10_000, 10_000)), "PNG")  # 400 MB as RGB
    with DecodePool(SPEC, memory_limit=300_000_000) as decoders:
        found = decoders.decode(content)
        assert found == Refused("takes more than 0.3 GB of memory to decode", lasting=True)
        assert isinstance(decoders.decode(picture()), Picture)


@posix
def test_too_little_memory_from_outside_is_no_fault_of_the_picture() -> None:
    limited = "import resource as r, runpy; r.setrlimit(r.RLIMIT_AS, (3 * 10**8, 3 * 10**8));"
    command = [
        sys.executable,
        "-c",
        f"{limited} runpy.run_module('bridgetower.pictures.decode_worker', run_name='__main__')",
    ]
    with DecodePool(SPEC, command=command) as decoders:
        found = decoders.decode(encoded(Image.new("1", (10_000, 10_000)), "PNG"))
        assert found == Refused("not enough memory to decode it", lasting=False)
        assert decoders.decode(bytes(4 * 10**8)) == Refused("not enough memory to decode it", lasting=False)
        assert isinstance(decoders.decode(picture()), Picture)


@posix
def test_a_process_for_which_there_is_no_handle_is_an_error_of_the_machine(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders, handles_left(2), pytest.raises(ResourceError, match="too many open files"):
        decoders.decode(picture())


def test_there_are_no_more_processes_than_are_needed(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders:
        assert started(tmp_path) == []
        for shade in range(5):
            decoders.decode(picture(shade))
        assert len(started(tmp_path)) == 1


def test_many_uploads_share_few_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "COMMAND", [*HOSTILE, str(tmp_path)])
    monkeypatch.setattr(pool_module, "_MOST_GUARDED", 2)
    decoder = GuardedDecoder()
    pictures = [decoder.picture(b"wait" + picture(shade), Path(f"{shade}.png")) for shade in range(5)]
    with ThreadPoolExecutor(len(pictures)) as threads:
        pixels = list(threads.map(lambda one: one.pixels(SPEC), pictures))
    assert all(one.shape == (3, 64, 64) for one in pixels)
    assert len(started(tmp_path)) == 2
    decoder.close()
    assert not any(runs(pid) for pid in started(tmp_path))


def test_they_all_end_with_the_pool(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders:
        decoders.decode(picture())
    assert not any(runs(pid) for pid in started(tmp_path))
    with pytest.raises(ProcessError):
        decoders.decode(picture())


@pytest.mark.process
def test_leaving_does_not_wait_for_what_hangs(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def call(decoders: DecodePool) -> None:
        try:
            decoders.decode(b"sleep")
        except ProcessError as error:
            raised.append(error)

    with hostile(tmp_path) as decoders:
        caller = threading.Thread(target=call, args=[decoders])
        caller.start()
        assert eventually(lambda: len(started(tmp_path)) == 1)
    caller.join(5)
    assert not caller.is_alive() and len(raised) == 1
    assert not any(runs(pid) for pid in started(tmp_path))


@posix
def test_one_that_ended_with_nothing_to_do_is_replaced_and_no_picture_blamed(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders:
        decoders.decode(picture())
        [pid] = started(tmp_path)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not runs(pid))
        assert isinstance(decoders.decode(picture()), Picture)


@posix
def test_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders:
        decoders.decode(picture())
        os.kill(started(tmp_path)[0], signal.SIGINT)
        assert isinstance(decoders.decode(picture()), Picture)
        assert len(started(tmp_path)) == 1


@posix
def test_a_signal_to_the_group_of_the_parent_does_not_end_a_process_that_starts(tmp_path: Path) -> None:
    with hostile(tmp_path) as decoders:
        decoders.decode(picture())
        assert os.getpgid(started(tmp_path)[0]) != os.getpgid(0)


@pytest.mark.parametrize(
    ("command", "why"),
    [(["/nowhere/python"], "No such file"), ([sys.executable, "-c", "raise SystemExit(3)"], "exit status 3")],
)
def test_a_process_that_cannot_be_started_is_an_error(command: list[str], why: str) -> None:
    with DecodePool(SPEC, command=command) as decoders, pytest.raises(ProcessError, match=why) as error:
        decoders.decode(picture())
    assert "\n" not in str(error.value)


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "json", "bridgetower"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with DecodePool(SPEC) as decoders:
        assert isinstance(decoders.decode(picture()), Picture)


def test_starting_takes_no_numpy() -> None:
    program = "import sys, bridgetower.pictures.decode_worker; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Has one process that waits, and one that is computing for ever.
PARENT = """
import sys, threading
from pathlib import Path
from bridgetower.pictures.decode_pool import DecodePool
from bridgetower.pictures.preprocess import Preprocessing

decoders = DecodePool(Preprocessing(64, 64), command=sys.argv[1:], time_limit=2)
decoders._enforce_time_limit = lambda: None
threading.Thread(target=decoders.decode, args=[b"spin"]).start()
decoders.decode(Path(sys.argv[-1], "picture.png").read_bytes())
print("ready", flush=True)
"""


@posix
def test_none_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(picture())
    command = [sys.executable, "-c", PARENT, *HOSTILE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=pool_module.environment()) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        assert eventually(lambda: len(started(tmp_path)) == 2)
        assert all(runs(pid) for pid in started(tmp_path))
        parent.kill()
    assert eventually(lambda: not any(runs(pid) for pid in started(tmp_path)))
