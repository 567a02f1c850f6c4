"""A process that decodes pictures: `python -m bridgetower.pictures.decode_worker`, started and ended by `decode_pool`.

It reads from stdin a JSON line of settings, then pictures: a length (8 bytes) and as many bytes of content. It writes
to stdout one byte, when everything is imported, then for each picture a header followed by the RGB bytes of the square
that the network reads, or by the reason of a refusal. Nothing is pickled.

It ends when stdin ends, also because its parent has died; a crash loses only the current picture. It starts in a tenth
of a second, because it imports little, and not numpy.
"""

import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bridgetower.errors import PictureError, PixelLimitError
from bridgetower.pictures.decode import Decoded, decode, let_pass
from bridgetower.pictures.preprocess import Preprocessing, square
from bridgetower.pictures.versions import recorded

# Returns an answer for the content of a file, the preprocessing, the most pixels, and the limit of memory in bytes.
Answer = Callable[[bytes, Preprocessing, int, int | None], bytes]

LENGTH = struct.Struct("<Q")
HEADER = struct.Struct("<cQQqHQ")  # kind, width, height, time taken, version of its pixels, bytes that follow
READY = b"!"
PICTURE, REFUSED, TRY_AGAIN = b"p", b"r", b"t"  # kinds
NO_TIME = -(2**63)
OVER_LIMIT = "; --max-pixels raises it"  # end of the reason for a picture of more pixels than the limit
LONGEST_REASON = 1000  # bytes
NO_MEMORY = 71  # exit status
KEEPS_TIME = hasattr(signal, "setitimer")  # whether it can limit its processor time; not on Windows


def allowed(seconds: float, size: int) -> float:
    """Return the seconds of processor time in which `size` bytes must be decoded. JPEG 2000, the slowest codec, takes a
    second for 1 to 2 MB. The bytes count, not the pixels, because a small file may declare any number of pixels."""
    return seconds * (1 + size / 60e6)


def serve(make: Answer | None = None) -> None:
    """Answer pictures from stdin until it is closed. `make` returns an answer; None for the pixels of `answer`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent handles it
    to = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # output of libraries must not mix with answers
        os.dup2(nowhere.fileno(), 1)
    source = sys.stdin.buffer
    line = source.readline()
    if not line:
        return
    settings: dict[str, Any] = json.loads(line)
    preprocessing = Preprocessing(**settings["preprocessing"])
    let_pass(settings["max_pixels"])
    memory_limit = _limit_memory(settings["memory_limit"])
    to.write(READY)
    to.flush()
    while len(length := source.read(LENGTH.size)) == LENGTH.size:
        (size,) = LENGTH.unpack(length)
        _limit_processor_time(allowed(settings["time_limit"], size))
        content = source.read(size)
        to.write((make or answer)(content, preprocessing, settings["max_pixels"], memory_limit))
        del content
        to.flush()


def answer(content: bytes, preprocessing: Preprocessing, max_pixels: int, memory_limit: int | None) -> bytes:
    """Return the bytes of the answer for the content of one file."""

    def pixels() -> tuple[Decoded, bytes]:
        decoded = decode(content, Path(), max_pixels=max_pixels, min_side=preprocessing.min_side, convert=False)
        return decoded, square(decoded, preprocessing).tobytes()

    return answered(pixels, memory_limit)


def answered(make: Callable[[], tuple[Decoded, bytes]], memory_limit: int | None) -> bytes:
    """Return the bytes of an answer: what `make` returns, or the reason why it raises."""
    try:
        with recorded() as since:
            decoded, made = make()
    except PixelLimitError as error:
        kind, reason = REFUSED, error.reason + OVER_LIMIT
    except PictureError as error:
        kind, reason = REFUSED, error.reason
        if isinstance(error.__cause__, MemoryError):
            kind, reason = _out_of_memory(error.reason, memory_limit)
    except MemoryError:
        kind, reason = _out_of_memory("not enough memory to decode it", memory_limit)
    else:
        taken_at = NO_TIME if decoded.taken_at is None else decoded.taken_at
        return HEADER.pack(PICTURE, decoded.width, decoded.height, taken_at, since.version, len(made)) + made
    written = reason.encode(errors="replace")[:LONGEST_REASON]
    return HEADER.pack(kind, 0, 0, NO_TIME, 0, len(written)) + written


def _out_of_memory(reason: str, limit: int | None) -> tuple[bytes, str]:
    """Return kind and reason of a refusal. A limit is far above the need of a valid picture, so then it is lasting."""
    if limit is None:
        return TRY_AGAIN, reason
    return REFUSED, f"takes more than {limit / 1e9:.2g} GB of memory to decode"


def _limit_memory(limit: int) -> int | None:
    """Limit the address space of this process, and return the limit, or None if it cannot be set.

    Also let the system kill this process first when memory runs out, because that loses only one file.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        import resource
    except ImportError:  # Windows
        return None
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS refuses some limits; limits above the hard limit are refused everywhere
        return None
    return limit


def _limit_processor_time(seconds: float) -> None:
    """Let SIGPROF end this process after `seconds` of processor time of all its threads; call it for each picture.

    The limit is not by the clock, because on a busy machine any picture takes long.
    """
    if KEEPS_TIME:
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    try:
        serve()
    except MemoryError:
        os._exit(NO_MEMORY)
