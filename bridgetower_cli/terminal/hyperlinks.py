"""Make paths in a table links (OSC 8), on terminals that are known to have them."""

import os
from collections.abc import Mapping
from pathlib import Path

AUTO, ON, OFF = "auto", "on", "off"  # values of BT_HYPERLINKS
SETTINGS = (AUTO, ON, OFF)
by_setting = AUTO  # the value that counts where the variable is not set

# Values of TERM_PROGRAM and beginnings of TERM of terminals that have links.
_PROGRAMS = frozenset(
    {"ghostty", "hyper", "iterm.app", "mintty", "rio", "tabby", "vscode", "warpterminal", "wezterm", "zed"}
)
_TERMS = ("alacritty", "contour", "foot", "rio", "wezterm", "xterm-ghostty", "xterm-kitty")
_OLDEST_VTE = 5002  # 0.50.2: older ones crash on some links
_OLDEST_KONSOLE = 201200
_OLDEST_TMUX = (3, 4)


class Linked(str):
    """The text of a cell, and the URL that it leads to."""

    __slots__ = ("url",)
    url: str


def linked(text: str, path: Path | str) -> Linked:
    """Return a text that is a link to a file, where links are shown. It is as wide as the text."""
    cell = Linked(text)
    cell.url = url_of(path, on_terminal=True)
    return cell


def url_of(path: Path | str, *, on_terminal: bool = False) -> str:
    """Return the file URL of a path, in which bytes that are not UTF-8, and all that is no plain letter, are escaped.

    That of a terminal names this machine: the terminal may be on another one, which has another file of this name.
    """
    import socket

    url = Path(os.path.abspath(path)).as_uri()
    host = socket.gethostname() if on_terminal else ""
    return url.replace("file:///", f"file://{host}/", 1) if host.isascii() else url


def around(text: str, url: str) -> str:
    """Return a text with the sequences that make it a link; the lines of one cell are one link by their `id`."""
    return f"\x1b]8;id={abs(hash(url)):x};{url}\x1b\\{text}\x1b]8;;\x1b\\"


def are_shown(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the terminal of stdout shows links, as far as the environment tells."""
    setting, term = environment.get("BT_HYPERLINKS") or by_setting, environment.get("TERM", "").lower()
    if setting != AUTO:
        return setting == ON
    if environment.get("NO_HYPERLINKS") or term in ("dumb", "linux", "unknown"):
        return False
    program = environment.get("TERM_PROGRAM", "").lower()
    if environment.get("TMUX"):
        return program == "tmux" and _version(environment.get("TERM_PROGRAM_VERSION", "")) >= _OLDEST_TMUX
    if term.startswith("screen"):  # the variables below are of the terminal around it
        return False
    return (
        program in _PROGRAMS
        or term.startswith(_TERMS)
        or _number(environment.get("VTE_VERSION")) >= _OLDEST_VTE
        or _number(environment.get("KONSOLE_VERSION")) >= _OLDEST_KONSOLE
        or bool(environment.get("WT_SESSION"))  # Windows Terminal
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _version(text: str) -> tuple[int, ...]:
    """ "3.4a" -> (3, 4)."""
    return tuple(_number("".join(filter(str.isdigit, part))) for part in text.split(".")[:2])
