"""Complete a line of a session: commands, folders of the index, former queries."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bridgetower.errors import BridgeTowerError
from bridgetower.records import quiet
from bridgetower_cli.libraries import library
from bridgetower_cli.settings import Settings

if TYPE_CHECKING:
    from bridgetower import Library

_UNDER = "/under "


class Completion:
    """A context that completes lines; the index is opened when a folder is asked for."""

    def __init__(self, settings: Settings, commands: Iterable[str]) -> None:
        self._settings, self._commands = settings, commands
        self._library: Library | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._library is not None:
            self._library.close()

    def of(self, begun: str, former: Sequence[str]) -> list[str]:
        """Return the lines that `begun` may become; of `former` ones the newest first."""
        if begun.startswith(_UNDER):
            return [_UNDER + folder for folder in self._folders(begun.removeprefix(_UNDER))]
        if begun.startswith("/"):
            found = [command for command in self._commands if command.startswith(begun)]
            if found:
                return found
        return list(dict.fromkeys(line for line in reversed(former) if line.startswith(begun)))

    def _folders(self, begun: str) -> list[str]:
        """Return the folders of the index whose paths begin so: roots, and those in the folder that is named."""
        if self._library is None:
            self._library = library(self._settings, say=quiet)
        try:
            self._library.refresh()
            found = self._library.folders()
            if (above := os.path.dirname(begun)) and Path(above).is_absolute():
                found += self._library.folders(above)
        except BridgeTowerError:  # the next query tells it
            return []
        return [path for path in dict.fromkeys(str(folder.path) for folder in found) if path.startswith(begun)]
