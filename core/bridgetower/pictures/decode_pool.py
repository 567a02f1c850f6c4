"""Decode in worker processes, so that a decoder that crashes or hangs loses one file, not the run.

If a codec crashes, hangs or takes all memory, its file is refused with the reason, and its process is replaced.
`multiprocessing` is not used, because it imports the main program again, or forks while threads run.
"""

import hashlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self, TypeVar

import numpy as np
import numpy.typing as npt

from bridgetower.errors import MissingExtraError, PictureError, PixelLimitError, ProcessError
from bridgetower.pictures.decode import MAX_PIXELS
from bridgetower.pictures.decode_worker import (
    HEADER,
    KEEPS_TIME,
    LENGTH,
    LONGEST_REASON,
    NO_MEMORY,
    NO_TIME,
    OVER_LIMIT,
    PICTURE,
    READY,
    REFUSED,
    allowed,
)
from bridgetower.pictures.extras.extra import needed
from bridgetower.pictures.preprocess import Preprocessing, normalise
from bridgetower.records import MAX_PICTURE_BYTES, Refused
from bridgetower.resources import shortage

TIME_LIMIT = 60.0  # seconds of processor time for a picture; more for a large file, see `decode_worker.allowed`
# Limit by the clock, as a multiple of the processor time: large, because a busy machine slows every picture. It ends a
# decoder that waits for ever without computing. Without timers of processor time (Windows) it is the only limit.
_CLOCK_FACTOR = 10 if KEEPS_TIME else 1

# Address space of a process. The largest need measured, for TIFF files of four doubles a
# pixel, is 42 bytes per pixel. Some plugins copy the file. The rest is for Python and libraries.
_BYTES_PER_PIXEL = 48
_BYTES_FIXED = 2 * MAX_PICTURE_BYTES + 1024**3

# Processes of a `GuardedDecoder`: each may take gigabytes for a small file of many pixels.
_MOST_GUARDED = min(4, max(2, os.cpu_count() or 1))

_Answer = TypeVar("_Answer")

_EXIT_TIMEOUT = 1.0  # seconds to wait for a process to end by itself
_TICKS = 60  # ticks per time limit
# Signals that end a process for an error of its own code; others come from outside, as when memory runs out.
_CRASH_SIGNALS = frozenset(
    -number
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
    if (number := getattr(signal, name, None)) is not None
)
COMMAND = (sys.executable, "-P", "-m", "bridgetower.pictures.decode_worker")  # -P: nothing from the current folder


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, ready for the encoder."""

    width: int  # upright pixels
    height: int
    taken_at: int | None
    since: int  # first version of the decoding that gives these pixels
    pixels: npt.NDArray[np.float32]  # [3, H, W]


@dataclass(frozen=True, slots=True)
class Square:
    """A decoded picture that is not normalised yet: a quarter of the bytes, without loss."""

    width: int  # upright pixels of the whole picture
    height: int
    taken_at: int | None
    since: int  # first version of the decoding that gives these pixels
    rgb: bytes  # uint8 [H, W, 3]

    def normalised(self, spec: Preprocessing) -> Picture:
        """Return the picture for the encoder; the same wherever it is computed."""
        return Picture(self.width, self.height, self.taken_at, self.since, normalise(self.rgb, spec))


class WorkerPool:
    """Processes that make something of the contents of files, started on demand: as many as there are concurrent
    calls."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        max_pixels: int | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Set the limits; no process is started yet.

        A picture may have at most `max_pixels` (default MAX_PIXELS) and take `time_limit` seconds of processor time
        (default TIME_LIMIT), more for a large file. A process may have `memory_limit` bytes of address space; the
        default suffices for `max_pixels`. `command` starts a process.
        """
        self._preprocessing, self._time_limit = preprocessing, time_limit or TIME_LIMIT
        self._command = tuple(command or COMMAND)
        max_pixels = max_pixels or MAX_PIXELS
        settings = {
            "preprocessing": asdict(preprocessing),
            "max_pixels": max_pixels,
            "time_limit": self._time_limit,
            "memory_limit": memory_limit or _BYTES_PER_PIXEL * max_pixels + _BYTES_FIXED,
        }
        self._settings = json.dumps(settings).encode() + b"\n"
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = threading.Event()
        self._timer: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all processes; calls in progress raise ProcessError."""
        with self._lock:
            self._closed.set()
            for process in (*self._busy, *self._idle):
                process.kill()
            idle, self._idle = self._idle, []
        for process in idle:  # the calls in progress end the busy ones
            process.end()

    def ask(self, content: bytes, read: "Callable[[IO[bytes]], _Answer | Refused]") -> "_Answer | Refused":
        """Send content to a process; `read` reads its answer. Threads may call it.

        Raises ProcessError if no process can be started, ResourceError if there are no handles left.
        """
        seconds = allowed(self._time_limit, len(content))
        process = self._take(_CLOCK_FACTOR * seconds)
        answer: _Answer | Refused | None = None
        try:
            answer = process.ask(content, read)
        finally:
            with self._lock:
                self._busy.discard(process)
                keeps = answer is not None and not process.expired and not self._closed.is_set()
                if keeps:
                    self._idle.append(process)
            status = None if keeps else process.end()
        if answer is not None:
            return answer
        if self._closed.is_set():
            raise ProcessError("pictures are no longer decoded: the run has ended")
        if not process.ready:
            raise ProcessError(_start_failure(f"it ended with {_status_in_words(status)}", self._command))
        return _refusal(status, seconds, expired=process.expired)

    def _take(self, seconds: float) -> "_Process":
        """Return an idle process, or start one, and mark it as busy for at most `seconds` by the clock."""
        ended = []
        with self._lock:
            if self._closed.is_set():
                raise ProcessError("pictures are no longer decoded: the run has ended")
            process = None
            while self._idle and process is None:
                process = self._idle.pop()
                if process.has_ended():  # while it was idle, so no picture caused it
                    ended.append(process)
                    process = None
            if process is None:
                try:
                    process = _Process(self._command, self._settings)
                except (OSError, ValueError) as error:
                    raise shortage(error) or ProcessError(_start_failure(str(error), self._command)) from error
            process.ticks = math.ceil(seconds / self._time_limit * _TICKS)
            self._busy.add(process)
            if self._timer is None:
                self._timer = threading.Thread(
                    target=self._enforce_time_limit, name="time limit of decoders", daemon=True
                )
                self._timer.start()
        for one in ended:
            one.end()
        return process

    def _enforce_time_limit(self) -> None:
        """Kill processes that take too long. Counting ticks excludes the time in which this process was stopped."""
        while not self._closed.wait(self._time_limit / _TICKS):
            with self._lock:
                for process in self._busy:
                    process.ticks -= 1
                    if process.ticks < 0:
                        process.expired = True
                        process.kill()


class DecodePool(WorkerPool):
    """Processes that decode and preprocess."""

    def decode(self, content: bytes) -> Picture | Refused:
        """Decode the content of one file with `bridgetower.pictures.decode` and `preprocess`. Raises as `ask`."""
        return self.ask(content, lambda source: read_answer(source, self._preprocessing))

    def square(self, content: bytes) -> Square | Refused:
        """Decode the content of one file, and leave it to others to normalise it. Raises as `ask`."""
        return self.ask(content, lambda source: read_square(source, self._preprocessing))


@dataclass(frozen=True, slots=True)
class GuardedPicture:
    """The bytes of a picture from elsewhere, which a worker process decodes when its pixels are needed."""

    name: Path  # for messages and results; no file of this name is opened
    content: bytes
    decoder: "GuardedDecoder"

    def pixels(self, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
        """Return pixels [3, H, W], as `decode` and `preprocess` give them. Raises PictureError, ResourceError."""
        return self.decoder.pixels(self, preprocessing)

    def content_hash(self) -> bytes:
        """Return the SHA-256 of the bytes."""
        return hashlib.sha256(self.content).digest()


class GuardedDecoder:
    """Decodes pictures that nobody vouches for in worker processes, a few at a time. Threads may use it."""

    def __init__(self, *, max_pixels: int | None = None) -> None:
        """Set the most pixels of a picture (default MAX_PIXELS); a process starts with the first picture."""
        self._max_pixels = max_pixels
        self._pools: dict[Preprocessing, DecodePool] = {}
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(_MOST_GUARDED)

    def picture(self, content: bytes, name: Path) -> GuardedPicture:
        """Return a picture, to be given wherever one in memory can be given."""
        return GuardedPicture(name, content, self)

    def pixels(self, picture: GuardedPicture, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
        """Return the pixels [3, H, W] of a picture. Raises PictureError, ResourceError."""
        with self._turns:
            with self._lock:
                pool = self._pools.get(preprocessing)
                if pool is None:
                    pool = self._pools[preprocessing] = DecodePool(preprocessing, max_pixels=self._max_pixels)
            found = pool.decode(picture.content)
        if isinstance(found, Picture):
            return found.pixels
        raise error_of(found, picture.name)

    def close(self) -> None:
        """End the processes; the next picture starts others. Calls in progress raise ProcessError."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()


class _Process:
    """A worker process."""

    def __init__(self, command: Sequence[str], settings: bytes) -> None:
        """Start it. Raises OSError."""
        # In a group of its own, as a signal to the group of this process, such as Ctrl-C, would end one that starts.
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            process_group=0,
        )
        assert self._popen.stdin is not None and self._popen.stdout is not None  # both are pipes
        self._stdin: IO[bytes] = self._popen.stdin
        self._stdout: IO[bytes] = self._popen.stdout
        self._settings = settings
        self.ready = False  # whether it has answered once
        self.ticks = 0  # left for its picture
        self.expired = False  # whether it was killed at the time limit

    def ask(self, content: bytes, read: Callable[[IO[bytes]], _Answer]) -> _Answer | None:
        """Send content, and return the answer; None if the process died."""
        try:
            if not self.ready:
                self._stdin.write(self._settings)
                self._stdin.flush()
                self.ready = self._stdout.read(1) == READY
                if not self.ready:
                    return None
            self._stdin.write(LENGTH.pack(len(content)))
            self._stdin.write(content)
            self._stdin.flush()
            return read(self._stdout)
        except (OSError, ValueError, struct.error):  # the answer is incomplete
            return None

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> int | None:
        """Wait for its end, close its pipes, and return its exit status: negative for a signal.

        Returns None if it had to be killed, because it did not end within `_EXIT_TIMEOUT`.
        """
        status: int | None
        try:
            status = self._popen.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            self._popen.wait()
            status = None
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):  # unsent data is lost
                pipe.close()
        return status


def read_answer(source: IO[bytes], spec: Preprocessing) -> Picture | Refused:
    """Read an answer that `decode_worker.answer` wrote. Raises struct.error or ValueError if it is incomplete."""
    found = read_square(source, spec)
    return found if isinstance(found, Refused) else found.normalised(spec)


def read_square(source: IO[bytes], spec: Preprocessing) -> Square | Refused:
    """Read an answer without normalising it. Raises struct.error or ValueError if it is incomplete."""
    kind, width, height, taken_at, since, length = HEADER.unpack(source.read(HEADER.size))
    if kind != PICTURE:
        return read_refusal(source, kind, length)
    rgb = source.read(size := 3 * spec.crop_size**2)
    if len(rgb) != size:
        raise ValueError(f"{len(rgb)} of {size} bytes")
    return Square(width, height, None if taken_at == NO_TIME else taken_at, since, rgb)


def read_refusal(source: IO[bytes], kind: bytes, length: int) -> Refused:
    """Read the reason of `length` bytes that follows the header of a refusal."""
    return Refused(source.read(min(length, LONGEST_REASON)).decode(errors="replace"), lasting=kind == REFUSED)


def error_of(refused: Refused, name: Path) -> PictureError:
    """Return the error that tells a refusal of the picture `name`."""
    if refused.reason.endswith(OVER_LIMIT):
        return PixelLimitError(name, refused.reason.removesuffix(OVER_LIMIT))
    return (PictureError if needed(refused.reason) is None else MissingExtraError)(name, refused.reason)


def environment() -> dict[str, str]:
    """Return an environment in which a new Python process finds the same modules, even if `sys.path` was changed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _refusal(status: int | None, seconds: float, *, expired: bool) -> Refused:
    """Return the refusal of content on which a process ended; the limit was `seconds` of processor time."""
    if expired:
        return Refused(f"took longer than {_CLOCK_FACTOR * seconds:.3g} s to decode", lasting=False)
    if KEEPS_TIME and status == -signal.SIGPROF:
        return Refused(f"took longer than {seconds:.3g} s of processor time to decode", lasting=False)
    if status == NO_MEMORY:
        return Refused("not enough memory to decode it", lasting=False)
    if status is not None and status < 0 and status not in _CRASH_SIGNALS:
        return Refused(f"its decoder was ended ({_status_in_words(status)}), as when memory runs out", lasting=False)
    return Refused(f"the decoder died on it ({_status_in_words(status)})", lasting=True)


def _status_in_words(status: int | None) -> str:
    """Return an exit status in words."""
    if status is None:
        return "no answer"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _start_failure(why: str, command: Sequence[str]) -> str:
    return (
        f"no process to decode pictures in could be started: {why}; "
        f'"{" ".join(command)}" says more, and the limits of memory and of processes may be too low'
    )
