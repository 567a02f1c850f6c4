"""Read texts and queries, one a line, from a file or from stdin: plain text, or JSON lines with "text"."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from bridgetower.errors import BridgeTowerError, InputError, UsageError
from bridgetower.inputs import normalised

STDIN = Path("-")
_LONGEST_LINE = 1_000_000  # bytes
_Kinds = tuple[type[BridgeTowerError], ...]


class Lines:
    """The lines of a file, or of stdin as they come in. Blank lines are passed over."""

    def __init__(self, file: Path, option: str, *, at_terminal: str) -> None:
        """`option` names the file on the command line. Raises UsageError, which ends with `at_terminal`, for one."""
        self.is_stdin = file == STDIN
        self.name = "stdin" if self.is_stdin else str(file)
        self.folder = Path() if self.is_stdin else file.parent  # of the paths in it
        self._file = file
        if self.is_stdin and (sys.stdin is None or sys.stdin.isatty()):
            raise UsageError(f"{option} - reads from a pipe or a file: {at_terminal}")

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of each line, and its object; a line of plain text is one with "text". Raises InputError."""
        with self._opened() as opened:
            for number, line in enumerate(iter(partial(opened.readline, _LONGEST_LINE + 1), b""), start=1):
                with self.named(number):
                    if (row := _parsed(line)) is not None:
                        yield number, row

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self.is_stdin:
            yield sys.stdin.buffer
            return
        try:
            with open(self._file, "rb") as opened:
                yield opened
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from error

    @contextmanager
    def named(self, number: int, *, kinds: _Kinds = (InputError, UsageError)) -> Iterator[None]:
        """Turn errors of these kinds into an InputError that names the line."""
        try:
            yield
        except kinds as error:
            raise InputError(f"{self.name}, line {number}: {error}") from error


def texts_in(file: Path) -> list[str]:
    """Return all texts of a file or of stdin. Raises InputError for a wrong line, and where there is none."""
    lines, texts = Lines(file, "--texts", at_terminal="name a file, or give each text with --text"), []
    for number, row in lines:
        with lines.named(number):
            texts.append(normalised(text_of(row)))
    if not texts:
        raise InputError(f"{lines.name}: no texts in it: give one a line")
    return texts


def text_of(row: dict[str, Any]) -> str:
    """Return the text of a line. Raises InputError."""
    if "text" not in row:
        raise InputError('"text" is missing')
    if not isinstance(row["text"], str):
        raise InputError('"text" is no text')
    return row["text"]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line; None for a blank one. Raises InputError."""
    if len(line) > _LONGEST_LINE:
        raise InputError(f"longer than {_LONGEST_LINE / 1e6:g} MB")
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8") from error
    if not text.startswith("{"):
        return {"text": text} if text else None
    try:
        row: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON from column {error.colno} on") from error
    except (ValueError, RecursionError) as error:
        raise InputError("a number too long, or brackets too deep, to be read") from error
    return row
