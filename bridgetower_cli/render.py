"""Write all output of `bt`: results, and nothing else, to stdout; messages to stderr.

For people there are tables, fitted to a terminal and uncut elsewhere. For programs there are JSON lines in ASCII, and
bare paths, byte for byte as in the file system. File names are escaped for people, so that they cannot steer the
terminal.
"""

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from bridgetower.errors import NoIndexError, OutputError
from bridgetower.records import INT8, Skipped
from bridgetower_cli.terminal import tables
from bridgetower_cli.terminal.tables import UNKNOWN as UNKNOWN
from bridgetower_cli.terminal.tables import Column

_DIGITS = 6  # of numbers in JSON
# Control characters, line separators, changes of writing direction, and bytes that are not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(name: str) -> str:
    """Return a name on one line; all that could steer a terminal is escaped as in Python: \\n, \\x1b, \\u202e.

    A backslash is always doubled, so that a name with a backslash and an n differs from one with a line feed. Where it
    separates folders, no name has one.
    """
    return harmless(name if os.sep == "\\" else name.replace("\\", "\\\\"))


def harmless(text: str) -> str:
    """Escape a whole text. Its names are `visible` already, or raw in an error of the library."""
    return _UNSAFE.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def short(path: Path) -> str:
    """Return a path for people: relative if it is below the current folder."""
    with suppress(ValueError, OSError):  # the path is not below it; or the folder is gone
        path = path.relative_to(Path.cwd())
    return visible(str(path))


# Results


def json_line(row: Mapping[str, Any], *, given: Mapping[str, Any] | None = None) -> None:
    """Write one JSON object; floats have six digits, but for the fields that the user has `given`, which come first.

    In a path, bytes that are not UTF-8 become \\udc80 to \\udcff, as in Python: `os.fsencode` restores them.
    """
    _write(json.dumps({**(given or {}), **_rounded(row)}, allow_nan=False).encode("ascii") + b"\n")


def csv_line(cells: Iterable[Any], *, header: Sequence[str] | None = None) -> None:
    """Write one record of comma-separated values (RFC 4180), in UTF-8; nothing without cells. A `header` comes first.

    Values are as in JSON; None is an empty cell. Bytes of a path that are not UTF-8 become \\udc80 to \\udcff.
    Cells are escaped only on a terminal.
    """
    import csv
    from io import StringIO

    text = StringIO(newline="")
    values = _rounded(list(cells))
    if _is_terminal(sys.stdout):
        values = [harmless(value) if isinstance(value, str) else value for value in values]
    csv.writer(text).writerows(record for record in (header, values) if record)
    _write(text.getvalue().encode("utf-8", "backslashreplace"))


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(_rounded(row), allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def paths(found: Iterable[Path | str], end: bytes = b"\n") -> None:
    """Write bare paths, each followed by `end`; they are escaped only on a terminal."""
    plain = end == b"\n" and _is_terminal(sys.stdout)
    for path in found:
        _write((_encoded(visible(str(path))) if plain else os.fsencode(path)) + end)


def line(text: str) -> None:
    """Write one line of results for people."""
    _write(_encoded(harmless(text) + "\n"))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, header: bool = True) -> None:
    """Write a table without borders. On a terminal long cells are wrapped; elsewhere nothing is cut or folded."""
    _write(_encoded("".join(line + "\n" for line in table_lines(columns, rows, header=header))))


def table_lines(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, header: bool = True, indent: int = 0
) -> list[str]:
    """Return the lines of a table as `table` writes them, fitted to what an `indent` leaves of a terminal."""
    return tables.table_lines(columns, rows, on_terminal=_is_terminal(sys.stdout), header=header, indent=indent)


def verbatim(text: str | bytes) -> None:
    """Write to stdout as it is; control characters steer a terminal."""
    _write(text if isinstance(text, bytes) else _encoded(text))


def score(value: float | None) -> str:
    """Return a score or probability for a table."""
    return UNKNOWN if value is None else f"{value:.3f}"


def _encoded(text: str) -> bytes:
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def _write(data: bytes) -> None:
    if sys.stdout is None:
        raise OutputError("the results cannot be written: stdout is closed; send them to a file or a terminal")
    rest = memoryview(data)
    try:
        while rest:  # an unbuffered stream (PYTHONUNBUFFERED) may take only a part
            written = sys.stdout.buffer.write(rest)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "its reader does not keep up")
            rest = rest[written:]
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the reader has stopped, as `head` does
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> OutputError:
    """Return the error for a failed write to stdout."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make room" if full else "send them to a file or a terminal"
    return OutputError(f"the results cannot be written: {error.strerror or error}: {advice} and run it again")


# Messages

_quiet = False  # whether the user wants errors only
_for_program = False  # whether the error that ends the command is a JSON object
index_option = ""  # the option that names the index, as a shell takes it behind a command, if one was given
set_aside: Callable[[], AbstractContextManager[object]] = nullcontext  # erases a live table while a message is written


def begin(arguments: Sequence[str]) -> None:
    """Begin a command with these arguments: say everything until `hush`, and the last error as they want it."""
    global _quiet, _for_program, index_option
    _quiet, _for_program = False, "--json" in takewhile(lambda word: word != "--", arguments)
    index_option = ""


def answer_program() -> None:
    """Write the error that ends the command as a JSON object, as for --json."""
    global _for_program
    _for_program = True


def hush(wanted: bool) -> None:
    """Say no more, and show no progress, if the user wants so: errors only."""
    global _quiet
    _quiet = _quiet or wanted


def say(message: str) -> None:
    """Write one line for people to stderr, unless they want errors only."""
    if not _quiet:
        last_word(message)


def error(message: str, code: int) -> None:
    """Write the error that ends a command to stderr, for people or as a JSON object."""
    if _for_program:
        _to_stderr(_json({"error": message, "code": code}))
    else:
        last_word(f"error: {message}")


def no_match(message: str, facts: Mapping[str, Any]) -> None:
    """Write to stderr that there is no result, for people or as a JSON object with `facts`."""
    if _for_program:
        _to_stderr(_json({"no_match": message, **facts}))
    else:
        say(f"no match: {message}")


def last_word(message: str) -> None:
    """Write one line to stderr, whatever the user wants to hear."""
    _to_stderr(harmless(message))


def _to_stderr(line: str) -> None:
    if sys.stderr is None:  # closed
        return
    with set_aside(), suppress(OSError):  # stderr is gone: no reason to stop the command
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def asked(question: str) -> bool:
    """Ask a person on the terminal; anything but a yes is a no, and so is the end of stdin."""
    if sys.stderr is not None:
        sys.stderr.write(f"{harmless(question)} [y/N] ")
        sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def note(text: str | None) -> None:
    """Say what could not be done beside the command, if anything."""
    if text:
        say(f"note: {text}")


def skipped(files: Iterable[Skipped]) -> None:
    """Name every file that was passed over, with the reason."""
    for skip in files:
        say(f"skipped {short(skip.path)}: {skip.reason}")


def moment(seconds: int) -> str:
    """Return a time, given in seconds since 1970, as local time."""
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):  # outside the calendar
        return f"{seconds} s after 1970"


def precisions(family: str) -> str:
    """Return the precisions that make vectors of a family."""
    return INT8 if family == INT8 else "fp32 or bf16"


def away(folder: Path) -> None:
    """Say that an indexed folder is missing or empty now."""
    from bridgetower import nothing_in

    say(f"note: {nothing_in(short(folder))}")


def passed_over(gone: int, barred: Sequence[Skipped], folders: Sequence[Path]) -> None:
    """Say how many pictures of an index were passed over because their files are gone, or cannot be accessed.

    `folders` are the indexed folders that were left out, as they are missing or empty now.
    """
    if gone:
        say(
            f"note: passed over {counted(gone, 'picture')} whose files are gone; `bt index` on their folders, or "
            "`bt prune`, brings the index up to date"
        )
    for folder in folders:
        away(folder)
    if barred:
        first = f"{short(barred[0].path)}: {barred[0].reason}"
        say(
            f"note: passed over {counted(len(barred), 'picture')} whose files cannot be looked at ({first}); "
            "the index keeps them"
        )


def in_cloud(pictures: int) -> None:
    """Say how many pictures were not opened, if any, because their content is in the cloud only."""
    if pictures:
        are, them = ("is", "it") if pictures == 1 else ("are", "them")
        say(f"note: {counted(pictures, 'picture')} {are} in the cloud only: not opened, as that would download {them}")


def empty_index(directory: Path) -> str:
    """Return why a search of an empty index shows nothing, with advice."""
    return f"the index in {short(directory)} is empty; fill it with `bt index PHOTOS{index_option}`"


def no_index(error: NoIndexError) -> str:
    """Return what an error says, with the command that makes the index, if one can be made there."""
    if error.directory is None:
        return str(error)
    return f"no index at {error.directory}: make one there with `bt index PHOTOS{index_option}`"


def how_far(verified: int, best: float | None) -> str:
    """Return why no verified picture is shown: the best match was too low."""
    if best is None:
        return "none of the pictures could be read"
    return f"the best of {counted(verified, 'verified picture')} has {best:.3f}"


def counted(number: int, noun: str) -> str:
    """ "1 picture", "2 pictures"; `noun` takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(bytes_: int) -> str:
    """Return a number of bytes for people, in powers of ten."""
    value, units = float(bytes_), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def talks_to_terminal() -> bool:
    """Whether stderr is a terminal that can show bars and colours, and the user wants to see them."""
    return _can_redraw(sys.stderr)


def shows_live_tables() -> bool:
    """Whether stdout is a terminal on which a table can be drawn again, and the user wants to see the progress."""
    return _can_redraw(sys.stdout)


def _can_redraw(stream: Any) -> bool:
    return not _quiet and _is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
