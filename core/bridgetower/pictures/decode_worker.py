"""A process that decodes pictures: `python -m bridgetower.pictures.decode_worker`, started and ended by `decode_pool`.

Over stdin comes a JSON line of settings, then pictures: a length (8 bytes) and that many of content. Over stdout goes
one byte, once everything is imported, then for each picture a header and what it announces: the bytes of the square
that the network reads, or a reason. Nothing is pickled.

It ends when stdin does, which is also when its parent is no more; or by a crash, which costs its picture only. It
imports no more than it needs, so that it starts in a tenth of a second: above all, not numpy.
"""

import json
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bridgetower.errors import PictureError, PixelLimitError
from bridgetower.pictures.decode import decode, let_pass
from bridgetower.pictures.preprocess import Preprocessing, square

LENGTH = struct.Struct("<Q")
HEADER = struct.Struct("<cQQqQ")  # kind, width, height, time taken, bytes that follow
READY = b"!"
PICTURE, REFUSED, TRY_AGAIN = b"p", b"r", b"t"  # kinds
NO_TIME = -(2**63)
LONGEST_REASON = 1000  # bytes
NO_MEMORY = 71  # exit status
KEEPS_TIME = hasattr(signal, "setitimer")  # of its own work; not on Windows


def allowed(seconds: float, size: int) -> float:
    """How much processor time the content of a file may take to decode. JPEG 2000, the slowest codec, takes a second
    for 1 to 2 MB: what is large by itself gets more time, what only claims to be does not."""
    return seconds * (1 + size / 60e6)


def serve() -> None:
    """Decode what comes over stdin until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the parent decides
    to = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # what libraries print must not get between
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
        _set_clock(allowed(settings["time_limit"], size))
        content = source.read(size)
        to.write(answer(content, preprocessing, settings["max_pixels"], memory_limit))
        del content
        to.flush()


def answer(content: bytes, preprocessing: Preprocessing, max_pixels: int, memory_limit: int | None) -> bytes:
    """What goes back for the content of one file."""
    try:
        decoded = decode(content, Path(), max_pixels=max_pixels, min_side=preprocessing.min_side)
        rgb = square(decoded, preprocessing).tobytes()
    except PixelLimitError as error:
        kind, reason = REFUSED, f"{error.reason}; --max-pixels raises it"
    except PictureError as error:
        kind, reason = REFUSED, error.reason
        if isinstance(error.__cause__, MemoryError):
            kind, reason = _out_of_memory(error.reason, memory_limit)
    except MemoryError:
        kind, reason = _out_of_memory("not enough memory to decode it", memory_limit)
    else:
        taken_at = NO_TIME if decoded.taken_at is None else decoded.taken_at
        return HEADER.pack(PICTURE, decoded.width, decoded.height, taken_at, len(rgb)) + rgb
    written = reason.encode(errors="replace")[:LONGEST_REASON]
    return HEADER.pack(kind, 0, 0, NO_TIME, len(written)) + written


def _out_of_memory(reason: str, limit: int | None) -> tuple[bytes, str]:
    """With a limit it was the limit, which is far above what a well made picture takes: so it is the picture."""
    if limit is None:
        return TRY_AGAIN, reason
    return REFUSED, f"takes more than {limit / 1e9:.2g} GB of memory to decode"


def _limit_memory(limit: int) -> int | None:
    """Let this process have no more address space than this; None where it has no limit, or one that is not ours.

    Where the system as a whole runs out, this process goes first: its file is lost, and nothing else.
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
    except (OSError, ValueError):  # macOS has limits that cannot be set; nor can one above what was set from outside
        return None
    return limit


def _set_clock(seconds: float) -> None:
    """Before each picture: after this much processor time, of all threads of a codec, SIGPROF ends this process.

    How long it takes by the clock says little: on a busy machine any picture takes long.
    """
    if KEEPS_TIME:
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    try:
        serve()
    except MemoryError:
        os._exit(NO_MEMORY)
