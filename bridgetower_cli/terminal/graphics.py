"""Find out how the terminal shows pictures, by asking it once."""

import os
import re
import select
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

_ANSWERS_WITHIN_S = 1.0  # over a slow line, too; a terminal that draws answers at once
# A picture of one pixel for the protocol of Kitty, the size of a cell, and at last what every terminal answers: its
# attributes, so that no answer comes late and is taken for typed words.
_QUESTIONS = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_KITTY = b"\x1b_Gi=31;OK\x1b\\"
_SIXEL = b"4"  # among the attributes
_WOULD_PRINT_THEM = ("eterm", "linux", "screen")  # beginnings of TERM of terminals that may print the first question


class Protocol(StrEnum):
    """A way to show a picture on a terminal."""

    ITERM = "iterm"
    KITTY = "kitty"
    SIXEL = "sixel"
    HALF_CELLS = "half cells"  # of two colours, on every terminal


@dataclass(frozen=True, slots=True)
class Graphics:
    """The abilities of a terminal."""

    protocol: Protocol
    cell: tuple[int, int] | None = None  # pixels of a character, wide and high; None if it does not say


def ask(environment: Mapping[str, str] = os.environ) -> Graphics:
    """Return how the terminal of this process shows pictures. Nothing is asked where the environment tells."""
    program, term = environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")
    if not environment.get("TMUX") and (program == "iTerm.app" or environment.get("LC_TERMINAL") == "iTerm2"):
        return Graphics(Protocol.ITERM)
    if program == "Apple_Terminal" or (term.startswith(_WOULD_PRINT_THEM) and not environment.get("TMUX")):
        return Graphics(Protocol.HALF_CELLS)
    return _understood(_answers())


def _understood(answers: bytes) -> Graphics:
    """Return what the answers of a terminal say.

    Some terminals claim the protocol of Kitty without its placeholders, which a picture beside text needs. These have
    Sixel, which Kitty has not: so Sixel is asked for first.
    """
    attributes, size = _ATTRIBUTES.search(answers), _CELL.search(answers)
    cell = (int(size[2]), int(size[1])) if size is not None and int(size[1]) and int(size[2]) else None
    if attributes is not None and _SIXEL in attributes[1].split(b";"):
        return Graphics(Protocol.SIXEL, cell)
    return Graphics(Protocol.KITTY if _KITTY in answers else Protocol.HALF_CELLS, cell)


def _answers() -> bytes:
    """Return what the terminal answers to _QUESTIONS; nothing where it cannot be asked, as on Windows."""
    try:
        import termios
        import tty
    except ImportError:
        return b""
    answers = b""
    with suppress(OSError, termios.error):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)  # stdin may be a file
        try:
            before = termios.tcgetattr(terminal)
            tty.setcbreak(terminal, termios.TCSANOW)
            try:
                os.write(terminal, _QUESTIONS)
                until = time.monotonic() + _ANSWERS_WITHIN_S
                while not _ATTRIBUTES.search(answers):
                    left = until - time.monotonic()
                    if left <= 0 or not select.select([terminal], [], [], left)[0]:
                        break
                    answers += os.read(terminal, 1024)
            finally:
                termios.tcsetattr(terminal, termios.TCSANOW, before)
        finally:
            os.close(terminal)
    return answers
