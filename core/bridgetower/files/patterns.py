"""Compile lines of a .gitignore file to regular expressions that cannot backtrack.

The rules are those of git. Matching takes time in proportion to name x line, whatever both hold: each wildcard stops at
the first place where the part after it fits, in an atomic group, and is never tried again. No match is lost: a later
place leaves less of the name for the rest of the line.

    a*b*c      (?>a (?>[^/]*?b) (?>[^/]*c(?=/|\\Z)) \\Z)    stars of a segment: the last one reaches to its end
    x/**/y/z   (?>x/) (?>(?:[^/]++/)*? y/z \\Z)             the part between two `**` begins at any segment

Lines and names are compared in their composed form (NFC): "ü" fits a name in which a Mac has written "ü".
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

LONGEST = 4096  # characters of a line; no path that a system takes is longer

_NOT_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # with the letter before, to which marks may belong
_LONGEST_NAME = 255  # characters
_NAMED_SET = re.compile(r"\[:([^]]*):\]")
_NAMED_SETS = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line, compiled to be compared with entries below its folder."""

    excludes: bool  # else it includes again
    folders_only: bool
    anywhere: bool  # compared with the name of the entry; else with its path
    expression: re.Pattern[str]

    def fits(self, path: str, name: str, *, is_folder: bool) -> bool:
        """Whether the line fits an entry; `path`, which ends with `name`, is relative to the line's folder.

        Both are in their composed form.
        """
        if self.folders_only and not is_folder:
            return False
        return self.expression.match(name if self.anywhere else path) is not None


def composed(text: str) -> str:
    """Return a text in NFC, in a time that grows with its length alone; a run that is too long for a name stays."""
    return text if text.isascii() else _NOT_ASCII.sub(_composed_run, text)


def _composed_run(found: re.Match[str]) -> str:
    # Sorting marks takes a time that grows with the square of their number.
    return unicodedata.normalize("NFC", found[0]) if len(found[0]) <= _LONGEST_NAME else found[0]


@lru_cache(4096)  # `passes_over` parses the same lines for many paths
def parse(line: str) -> Pattern | None:
    """Return the pattern of a line; None for a comment and for an empty line. Raises ValueError if it is invalid."""
    text = line.rstrip(" ")
    if len(text) < len(line) and (len(text) - len(text.rstrip("\\"))) % 2:  # `\ ` at the end is a space
        text += " "
    if not text or text.startswith("#"):
        return None
    if text == "!" or len(text) > LONGEST:
        raise ValueError("nothing to compare with, or too much")
    body = composed(text.removeprefix("!"))
    path = body.removesuffix("/")
    try:
        expression = re.compile(_expression(_segments(path.removeprefix("/"))))
    except (IndexError, KeyError, re.error) as error:
        raise ValueError("a set without an end, or of nothing, or a \\ before nothing") from error
    return Pattern(not text.startswith("!"), path != body, "/" not in path, expression)


def glob(text: str) -> str | None:
    """Return a glob as a line of a .gitignore file in the root of the file system, with composed letters (NFC).

    A glob that begins with `/`, `~/`, `./` or `../` is anchored there; any other may begin in every folder. None for
    a text without a wildcard, or that is no valid line.
    """
    if not re.search(r"[*?[]", text):
        return None
    text = text.replace(os.sep, "/")
    start, slash, rest = text.partition("/")
    if slash and start in ("~", ".", ".."):
        anchor = os.path.expanduser("~") if start == "~" else os.path.join(os.getcwd(), start)
        text = re.sub(r"[*?[\\]", r"\\\g<0>", anchor.replace(os.sep, "/")) + f"/{rest}"
    is_anchored = os.path.isabs(text)
    text = posixpath.normpath(text).lstrip("/")
    line = unicodedata.normalize("NFC", f"/{text}" if is_anchored else f"**/{text}")
    try:
        parse(line)
    except ValueError:
        return None
    return line


def fitting(line: str) -> Callable[[bytes], bool]:
    """Return a function that tells whether an absolute path fits a line of `glob`, or lies in a folder that does."""
    pattern = parse(line)
    assert pattern is not None  # `glob` writes no comment
    match, separator = pattern.expression.match, os.fsencode(os.sep)
    folders: dict[bytes, str | None] = {}  # as their names are compared; None for those that fit

    def fits(path: bytes) -> bool:
        folder, _, name = path.rpartition(separator)
        if folder not in folders:
            within = _composed(folder).replace(os.sep, "/").removeprefix("/")
            ends = [place for place, character in enumerate(within) if character == "/"]
            is_fitting = any(match(within[:end]) for end in (*ends, len(within)))
            folders[folder] = None if is_fitting else f"{within}/" if within else ""
        above = folders[folder]
        return above is None or match(above + _composed(name)) is not None

    return fits


def _composed(path: bytes) -> str:
    """Return a path as text in NFC."""
    return composed(os.fsdecode(path))


def _segments(path: str) -> list[list[str]]:
    """Split at the slashes: each character, or set of characters, becomes an expression; a run of stars stays as it is.

    Raises IndexError, KeyError.
    """
    segments: list[list[str]] = [[]]
    at = 0
    while at < len(path):
        begin, at = at, at + 1
        if path[begin] == "/":
            segments.append([])
            continue
        if path[begin] == "*":
            while path.startswith("*", at):
                at += 1
            part = path[begin:at]
        elif path[begin] == "?":
            part = "[^/]"
        elif path[begin] == "[":
            part, at = _set(path, at)
        else:
            character, at = _character(path, begin)
            part = re.escape(character)
        segments[-1].append(part)
    return segments


def _set(path: str, at: int) -> tuple[str, int]:
    """Return the expression of the set whose `[` is before `at`, and the place after its end."""
    excepted = path[at] in "!^"
    at += excepted
    parts: list[str] = []
    while not parts or path[at] != "]":  # a `]` that comes first is a member
        if named := _NAMED_SET.match(path, at):
            parts.append(_NAMED_SETS[named[1]])
            at = named.end()
            continue
        first, at = _character(path, at)
        last = first
        if path[at] == "-" and path[at + 1] != "]":
            last, at = _character(path, at + 1)
        parts.append(f"{re.escape(first)}-{re.escape(last)}")
    return f"(?!/)[{'^' if excepted else ''}{''.join(parts)}]", at + 1


def _character(path: str, at: int) -> tuple[str, int]:
    """Return the character at `at`, or after a backslash there, and the next place."""
    at += path[at] == "\\"
    return path[at], at + 1


def _expression(segments: list[list[str]]) -> str:
    """Join all segments, anchored at the end."""
    parts = []
    for place, segment in enumerate(segments, 1):
        is_last = place == len(segments)
        if len(segment) == 1 and segment[0].startswith("**"):
            parts.append("(?s:.+)" if is_last else ")(?>(?:[^/]++/)*?")
        else:
            parts.append(_segment(segment) + ("" if is_last else "/"))
    return rf"(?>{''.join(parts)}\Z)"


def _segment(parts: list[str]) -> str:
    """Join one segment: the part before the first star, then each star with the part after it."""
    fixed = [""]
    for part in parts:
        if part.startswith("*"):
            fixed.append("")
        else:
            fixed[-1] += part
    first, *others = fixed
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{text})" for text in middle) + rf"(?>[^/]*{last}(?=/|\Z))"
