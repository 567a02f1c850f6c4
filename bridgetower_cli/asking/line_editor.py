"""Read lines from a terminal, with the `readline` of Python where it has one: editing, history, completion."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Self

from bridgetower_cli import render

_MOST_LINES = 1000  # of the history
_LONGEST_LINE = 1000  # characters; longer ones are not kept


class LineEditor:
    """A context in which lines are read."""

    def __init__(self, complete: Callable[[str, Sequence[str]], Sequence[str]], *, keeps_history: bool) -> None:
        """`complete` returns what a line may become, from its beginning and from the lines before it.

        `keeps_history`: whether a later session has these lines, too.
        """
        self._complete = complete
        self._lines: list[str] = []
        self._found: Sequence[str] = ()
        self._file = _history_file() if keeps_history else None
        try:
            import readline
        except ImportError:  # plain input, then
            self._readline: ModuleType | None = None
        else:
            self._readline = readline

    def __enter__(self) -> Self:
        try:
            self._lines = _kept_lines(self._file)
        except OSError as error:
            self._give_up(error)
        if self._readline is not None:
            for line in self._lines:
                self._remember(line)
            self._readline.set_auto_history(False)
            self._readline.set_completer_delims("")  # the whole line is completed
            self._readline.set_completer(self._completed)
            libedit = "libedit" in (self._readline.__doc__ or "")
            self._readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        return self

    def __exit__(self, *raised: object) -> None:
        if self._readline is not None:
            self._readline.set_completer(None)
            self._readline.set_auto_history(True)
            self._readline.clear_history()

    def read(self, prompt: str) -> str | None:
        """Return a line; None at the end, Ctrl-D. Ctrl-C raises KeyboardInterrupt."""
        try:
            line = input(prompt)
        except EOFError:
            render.verbatim("\n")
            return None
        if line.strip() and line not in self._lines[-1:] and len(line) <= _LONGEST_LINE:
            self._lines.append(line)
            self._remember(line)
            if self._file is not None:
                try:
                    _append(self._file, line)
                except OSError as error:
                    self._give_up(error)
        return line

    def _remember(self, line: str) -> None:
        """Let the keys of a terminal bring a line back, if its characters are some of this locale."""
        if self._readline is not None:
            with suppress(ValueError):
                self._readline.add_history(line)

    def _give_up(self, error: OSError) -> None:
        """Keep no history in the file from now on."""
        render.say(f"note: {self._file}: no history is kept there: {error.strerror or error}")
        self._file = None

    def _completed(self, begun: str, place: int) -> str | None:
        """Return one of the ways to complete a line, as `readline` asks for them."""
        if place == 0:
            self._found = self._complete(begun, self._lines)
        return self._found[place] if place < len(self._found) else None


def _history_file() -> Path | None:
    """Return the file of the history; None without a home."""
    import platformdirs

    with suppress(RuntimeError):
        folder = Path(platformdirs.user_state_dir("bridgetower", appauthor=False))
        return folder / "history" if folder.is_absolute() else None
    return None


def _kept_lines(file: Path | None) -> list[str]:
    """Return the last lines of the history, and cut the file down to them where it has become long. Raises OSError."""
    if file is None or not file.exists():
        return []
    lines = file.read_text("utf-8", "surrogateescape").splitlines()
    if len(lines) > _MOST_LINES:
        lines = lines[-_MOST_LINES // 2 :]  # so that this is not done at each start
        shorter = file.with_suffix(".partial")
        shorter.unlink(missing_ok=True)
        _append(shorter, *lines)
        os.replace(shorter, file)
    return lines


def _append(file: Path, *lines: str) -> None:
    """Add lines to a file that only this user may read. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as opened:
        if os.name == "posix":
            os.fchmod(opened.fileno(), 0o600)
        opened.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
