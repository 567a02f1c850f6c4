"""Files whose content is in the cloud only: their statuses say so as on macOS and Windows, and opening one fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DATALESS = {"st_flags": 0x40000000}  # macOS
RECALLED = {"st_file_attributes": 0x400000}  # Windows


class Told:
    """A status or a folder entry with some attributes of its own."""

    def __init__(self, real: object, **own: object) -> None:
        self.__dict__.update(own)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def evict(monkeypatch: pytest.MonkeyPatch, *paths: Path, flags: dict[str, int] = DATALESS) -> None:
    """Let the content of these files be in the cloud only, until `monkeypatch.undo`."""
    remote = {os.fsencode(path) for path in paths}
    stat, scandir, open_descriptor = os.stat, os.scandir, os.open

    def told_stat(path: Any, *arguments: Any, **options: Any) -> Any:
        status = stat(path, *arguments, **options)
        return Told(status, **flags) if not isinstance(path, int) and os.fsencode(path) in remote else status

    def told_entry(entry: Any) -> Any:
        if os.fsencode(entry.path) not in remote:
            return entry
        return Told(entry, stat=lambda **options: Told(entry.stat(**options), **flags))

    @contextmanager
    def told_scandir(folder: Any) -> Iterator[Iterator[Any]]:
        with scandir(folder) as entries:
            yield map(told_entry, entries)

    def open_local(path: Any, *arguments: Any, **options: Any) -> int:
        assert os.fsencode(path) not in remote, f"{path} was downloaded"
        return open_descriptor(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", told_stat)
    monkeypatch.setattr(os, "scandir", told_scandir)
    monkeypatch.setattr(os, "open", open_local)


def leave_stub(path: Path) -> Path:
    """Replace a file by the stub that older systems leave of a file in iCloud."""
    stub = path.with_name(f".{path.name}.icloud")
    stub.write_bytes(b"bplist00")
    path.unlink(missing_ok=True)
    return stub
