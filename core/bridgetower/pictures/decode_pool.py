"""The content of picture files -> pixels, in processes of their own: what no decoder does to one of them is done to the
run.

A codec that crashes, hangs or takes all memory costs its process and its file; the file is refused with the reason, the
process replaced. Not by `multiprocessing`: it imports the program that calls it once more, or forks where threads run.
"""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from bridgetower.errors import ProcessError
from bridgetower.pictures.decode import MAX_PIXELS
from bridgetower.pictures.decode_worker import (
    HEADER,
    KEEPS_TIME,
    LENGTH,
    LONGEST_REASON,
    NO_MEMORY,
    NO_TIME,
    PICTURE,
    READY,
    REFUSED,
    allowed,
)
from bridgetower.pictures.preprocess import Preprocessing, normalise
from bridgetower.records import MAX_PICTURE_BYTES, Refused
from bridgetower.resources import shortage

TIME_LIMIT = (
    60.0  # seconds of processor time for a picture, and again for each 60 MB of it: see `decode_worker.allowed`
)
# How many times as long it may take by the clock: far longer, as a busy machine is no fault of a picture. This ends
# a decoder that waits for ever and computes nothing. Where processor time is not kept, this is all that there is.
_PATIENCE = 10 if KEEPS_TIME else 1

# Address space of a process. The greediest that were met, JPEG 2000 and floating point numbers on their way to grey,
# take 27 bytes a pixel. Some plugins copy the file. The rest is Python and libraries.
_BYTES_A_PIXEL = 48
_BYTES_BESIDES = 2 * MAX_PICTURE_BYTES + 1024**3

_MOMENT = 1.0  # seconds from the last word of a process to its end
_TICKS = 60  # of the watch in a time limit
# By which a process ends when its own code goes wrong; others come from outside, as when memory runs out.
_CRASHES = frozenset(
    -number
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
    if (number := getattr(signal, name, None)) is not None
)
COMMAND = (sys.executable, "-P", "-m", "bridgetower.pictures.decode_worker")  # -P: not what lies in the current folder


@dataclass(frozen=True, slots=True)
class Picture:
    """New content, ready for the encoder."""

    width: int  # upright pixels
    height: int
    taken_at: int | None
    pixels: npt.NDArray[np.float32]  # [3, H, W]


class DecodePool:
    """Processes that decode and preprocess, started as they are needed: as many as there are calls at one time."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        max_pixels: int | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start nothing yet.

        A picture has `max_pixels` (MAX_PIXELS) at most and takes `time_limit` seconds of processor time (TIME_LIMIT),
        more if the file is large, in a process of `memory_limit` bytes of address space, by default what `max_pixels`
        may need. `command` starts it.
        """
        self._preprocessing, self._time_limit = preprocessing, time_limit or TIME_LIMIT
        self._command = tuple(command or COMMAND)
        max_pixels = max_pixels or MAX_PIXELS
        settings = {
            "preprocessing": asdict(preprocessing),
            "max_pixels": max_pixels,
            "time_limit": self._time_limit,
            "memory_limit": memory_limit or _BYTES_A_PIXEL * max_pixels + _BYTES_BESIDES,
        }
        self._settings = json.dumps(settings).encode() + b"\n"
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes at once; calls that are under way fail with ProcessError."""
        with self._lock:
            self._closed.set()
            for process in (*self._busy, *self._idle):
                process.kill()
            idle, self._idle = self._idle, []
        for process in idle:  # the others are put away by who waits for them
            process.end()

    def decode(self, content: bytes) -> Picture | Refused:
        """Decode the content of one file, as `bridgetower.pictures.decode` and `preprocess` do; from any number of
        threads.

        Raises ProcessError where no process can be started, ResourceError where there is no handle left for one.
        """
        seconds = allowed(self._time_limit, len(content))
        process = self._take(_PATIENCE * seconds)
        answer: Picture | Refused | None = None
        try:
            answer = process.ask(content, self._preprocessing)
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
            raise ProcessError(_not_started(f"it ended with {_named(status)}", self._command))
        return _died(status, seconds, expired=process.expired)

    def _take(self, seconds: float) -> "_Process":
        """A process that waits for a picture, or a new one; it is busy from now on, for so long at most."""
        ended = []
        with self._lock:
            if self._closed.is_set():
                raise ProcessError("pictures are no longer decoded: the run has ended")
            process = None
            while self._idle and process is None:
                process = self._idle.pop()
                if process.has_ended():  # while it had nothing to do: no picture is to blame
                    ended.append(process)
                    process = None
            if process is None:
                try:
                    process = _Process(self._command, self._settings)
                except (OSError, ValueError) as error:
                    raise shortage(error) or ProcessError(_not_started(str(error), self._command)) from error
            process.ticks = math.ceil(seconds / self._time_limit * _TICKS)
            self._busy.add(process)
            if self._watch is None:
                self._watch = threading.Thread(target=self._keep_time, name="time limit of decoders", daemon=True)
                self._watch.start()
        for one in ended:
            one.end()
        return process

    def _keep_time(self) -> None:
        """Kill what takes too long. Time is counted in ticks: those in which this process was stopped are not."""
        while not self._closed.wait(self._time_limit / _TICKS):
            with self._lock:
                for process in self._busy:
                    process.ticks -= 1
                    if process.ticks < 0:
                        process.expired = True
                        process.kill()


class _Process:
    """One process, seen from here."""

    def __init__(self, command: Sequence[str], settings: bytes) -> None:
        """Start it. Raises OSError."""
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        assert self._popen.stdin is not None and self._popen.stdout is not None  # as both are pipes
        self._to: IO[bytes] = self._popen.stdin
        self._from: IO[bytes] = self._popen.stdout
        self._settings = settings
        self.ready = False  # it answered once
        self.ticks = 0  # that are left for its picture
        self.expired = False  # killed for the time that it took

    def ask(self, content: bytes, spec: Preprocessing) -> Picture | Refused | None:
        """Decode the content of a file; None where the process died on it."""
        try:
            if not self.ready:
                self._to.write(self._settings)
                self._to.flush()
                self.ready = self._from.read(1) == READY
                if not self.ready:
                    return None
            self._to.write(LENGTH.pack(len(content)))
            self._to.write(content)
            self._to.flush()
            return read_answer(self._from, spec)
        except (OSError, ValueError, struct.error):  # it broke off
            return None

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> int | None:
        """Wait for its end, a moment, and put it away; its exit status, negative where it was a signal.

        None where it does not end by itself.
        """
        status: int | None
        try:
            status = self._popen.wait(_MOMENT)
        except subprocess.TimeoutExpired:
            self.kill()
            self._popen.wait()
            status = None
        for pipe in (self._to, self._from):
            with suppress(OSError):  # what it did not take is lost
                pipe.close()
        return status


def read_answer(source: IO[bytes], spec: Preprocessing) -> Picture | Refused:
    """Read an answer that `decode_worker.answer` wrote. Raises struct.error or ValueError where it broke off."""
    kind, width, height, taken_at, length = HEADER.unpack(source.read(HEADER.size))
    if kind == PICTURE:
        pixels = normalise(source.read(3 * spec.crop_size**2), spec)
        return Picture(width, height, None if taken_at == NO_TIME else taken_at, pixels)
    return Refused(source.read(min(length, LONGEST_REASON)).decode(errors="replace"), lasting=kind == REFUSED)


def environment() -> dict[str, str]:
    """In which another Python finds the modules that this one does, whatever was done to its path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _died(status: int | None, seconds: float, *, expired: bool) -> Refused:
    """The refusal of content on which a process ended; it was allowed `seconds` of processor time."""
    if expired:
        return Refused(f"took longer than {_PATIENCE * seconds:.3g} s to decode", lasting=False)
    if KEEPS_TIME and status == -signal.SIGPROF:
        return Refused(f"took longer than {seconds:.3g} s of processor time to decode", lasting=False)
    if status == NO_MEMORY:
        return Refused("not enough memory to decode it", lasting=False)
    if status is not None and status < 0 and status not in _CRASHES:
        return Refused(f"its decoder was ended ({_named(status)}), as when memory runs out", lasting=False)
    return Refused(f"the decoder died on it ({_named(status)})", lasting=True)


def _named(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "no answer"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _not_started(why: str, command: Sequence[str]) -> str:
    return (
        f"no process to decode pictures in could be started: {why}; "
        f'"{" ".join(command)}" says more, and the limits of memory and of processes may be too low'
    )
