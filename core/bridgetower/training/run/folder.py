"""The folder of a run: the model in the Hugging Face layout, and in `run/` all that is needed to go on.

DIR/config.json, model.safetensors, ...   the model: the best by validation, or the last
DIR/run/settings.json                     what decides the result: settings, digests of data and model
DIR/run/state.pt                          weights and optimiser after the last step that was saved
DIR/run/log.jsonl, tensorboard/           what happened
DIR/run/tokenizer/                        that of the model that the run began with
DIR/run/pictures.jsonl                    what the check of the data found
DIR/run/result.json                       written last: the run is finished
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from bridgetower.errors import ModelError, OutputError, UsageError
from bridgetower.files.atomic import remove_abandoned, write_json
from bridgetower.files.lock import Lock
from bridgetower.files.os_errors import unreadable, writing
from bridgetower.files.regular_files import open_own

RUN, PICTURES, LOCK = "run", "pictures.jsonl", "lock"
_AS_TOLD = {"data": "the content of the data", "model": "the --init model"}


class RunFolder:
    """A folder that is new, vacant, or has a run in it. Raises UsageError for any other, ModelError for a damaged one.

    `settings` decide the result, by the names of their options: those of a run in the folder must be the same. A run
    of an earlier version has the `defaults` of options that came later.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self.out, self.run = out, out / RUN
        self.pictures, self.state, self.log = self.run / PICTURES, self.run / "state.pt", self.run / "log.jsonl"
        self.tensorboard, self.tokenizer = self.run / "tensorboard", self.run / "tokenizer"
        self._settings, self._defaults = settings, defaults or {}
        if (kept := self._read("settings.json")) is None:
            self._require_vacant()
        else:
            self._require_same({**self._defaults, **kept.get("settings", {})}, settings)

    def _require_vacant(self) -> None:
        """Raise UsageError unless the folder has nothing in it but what the check of the data leaves."""
        with writing(self.out, OutputError):
            if not self.out.is_dir():
                if os.path.lexists(self.out):
                    raise UsageError(f"{self.out}: this is a file; give a new folder with --out")
                return
            held = {path.name for path in (*self.out.iterdir(), *self.run.glob("*"))} - {RUN, PICTURES, LOCK}
        if any(not name.endswith(".partial") for name in held):  # a process was killed before the first step
            raise UsageError(
                f"{self.out}: there is something in it, but no run to go on with; give a new folder with --out"
            )

    def _require_same(self, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        names = [name for name in sorted(kept.keys() | wanted.keys()) if kept.get(name) != wanted.get(name)]
        if contents := [_AS_TOLD[name] for name in names if name in _AS_TOLD]:
            raise UsageError(f"{self.out}: changed since the run in it began: {' and '.join(contents)}; {_WAYS_OUT}")
        if names:
            told = " and ".join(f"{name} {_said(kept.get(name))}, not {_said(wanted.get(name))}" for name in names)
            raise UsageError(f"{self.out}: the run in it has {told}; {_WAYS_OUT}")

    def make(self) -> None:
        """Make the folder of the run, in which the check of the data keeps its notes. Raises OutputError."""
        with writing(self.run, OutputError):
            self.run.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from this run, and remove what a killed one left unfinished.

        Raises LockedError, OutputError.
        """
        lock = Lock(self.run / LOCK, "this run", OutputError)
        try:
            for folder in (self.out, self.run):
                remove_abandoned(folder, ".*", after_s=0)
            yield
        finally:
            lock.release()

    def last_writer(self) -> str:
        """Return what the process that last locked the folder wrote there; it tells folders of one name apart."""
        with suppress(OSError), open_own(self.run / LOCK) as opened:
            return opened.read().decode(errors="replace")
        return ""

    def begin(self, contents: Mapping[str, str], *, writes: bool, machine: Mapping[str, object] | None = None) -> str:
        """Compare an old run, or write the settings of a new one if `writes`; return what the state is known by.

        `contents` are digests of data and model. Raises UsageError if they are not those that the run began with.
        `machine` is what may change the last bits of numbers; it is written, and never compared here.
        """
        settings = self._settings
        if (kept := self._read("settings.json")) is not None:
            settings = kept.get("settings", {})  # also those of an earlier version name the same run
            self._require_same({**self._defaults, **settings}, self._settings)  # it may have begun meanwhile
            self._require_same(kept.get("contents", {}), contents)
        elif writes:
            with writing(self.run, OutputError):
                begun = {"settings": settings, "contents": contents, "machine": machine or {}}
                write_json(self.run / "settings.json", begun)
        decided = json.dumps({"settings": settings, "contents": contents}, sort_keys=True)
        return sha256(decided.encode()).hexdigest()

    def changed(self, machine: Mapping[str, object]) -> tuple[str, ...]:
        """Tell what of the machine is not as it was when the run began."""
        began = (self._read("settings.json") or {}).get("machine", {})
        return tuple(
            f"{name} {machine[name]}, not {began[name]}"
            for name in machine
            if began.get(name, machine[name]) != machine[name]
        )

    def result(self) -> dict[str, Any] | None:
        """Return what `finish` wrote, None for a run that is not finished."""
        return self._read("result.json")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished. Raises OutputError."""
        with writing(self.run, OutputError):
            write_json(self.run / "result.json", result)

    def _read(self, name: str) -> dict[str, Any] | None:
        file = self.run / name
        try:
            with open_own(file) as opened:
                found = json.loads(opened.read().decode())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(file, error, ModelError) from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{file}: damaged: put a copy of it back, or give a new folder with --out") from error
        if not isinstance(found, dict):
            raise ModelError(f"{file}: no JSON object: put a copy of it back, or give a new folder with --out")
        return found


_WAYS_OUT = "give the same to go on with it, or a new folder with --out (its model can be the --init of a new run, too)"


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, []) else json.dumps(value, ensure_ascii=False)
