"""The log of a run: a line for each event, and after a kill no step twice."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bridgetower.errors import OutputError
from bridgetower.training.run import log
from bridgetower.training.run.log import RunLog


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_events_are_lines(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run" / "log.jsonl", tmp_path / "curves", 0, 0) as run:
        run.write("start", {"step": 0})
        run.write("step", {"step": 1, "itc": 0.5})
        assert lines(tmp_path / "run" / "log.jsonl") == [  # at once, not at the end
            {"event": "start", "step": 0},
            {"event": "step", "step": 1, "itc": 0.5},
        ]


def test_what_a_killed_process_did_beyond_the_state_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with RunLog(file, tmp_path / "curves", 0, 0) as run:
        for step in range(1, 6):
            run.write("step", {"step": step})
            run.write("validation", {"step": step})
    with file.open("ab") as torn:
        torn.write(b'{"event": "step", "st')
    with RunLog(file, tmp_path / "curves", 3, 2) as run:
        run.write("validation", {"step": 3})
    assert [line["step"] for line in lines(file) if line["event"] == "step"] == [1, 2, 3]
    assert [line["step"] for line in lines(file) if line["event"] == "validation"] == [1, 2, 3]


def test_curves_are_written_where_tensorboard_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "curves")
            assert purge_step == 4  # curves beyond the state are cut off, too

        def add_scalar(self, name: str, value: float, step: int) -> None:
            points.append((name, value, step))

        def close(self) -> None:
            points.append(("closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    monkeypatch.setattr(log, "_writer", log._writer.__wrapped__)
    with RunLog(tmp_path / "log.jsonl", tmp_path / "curves", 3, 3) as run:
        run.write("start", {"step": 3, "time": 1.5})
        run.write("step", {"step": 4, "itc": 0.5, "pairs": 6, "mlm": None})
        run.write("validation", {"step": 4, "ir1": 60.0, "kept": True})
    assert points == [("step/itc", 0.5, 4), ("validation/ir1", 60.0, 4), ("closed", 0.0, 0)]


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"log\.jsonl: cannot be written"):
        RunLog(tmp_path / "log.jsonl", tmp_path / "curves", 0, 0)


def test_a_broken_tensorboard_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise TypeError("Descriptors cannot be created directly")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Broken("torch.utils.tensorboard"))
    monkeypatch.setattr(log, "_writer", log._writer.__wrapped__)
    assert not log.has_tensorboard()
    with RunLog(tmp_path / "log.jsonl", tmp_path / "curves", 0, 0) as run:
        run.write("step", {"step": 1, "itc": 0.5})
    assert not (tmp_path / "curves").exists()


def test_curves_that_cannot_be_closed_hide_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "_writer", lambda: Full)
    with pytest.raises(OutputError), RunLog(tmp_path / "log.jsonl", tmp_path / "curves", 0, 0):
        pass
    with pytest.raises(ZeroDivisionError), RunLog(tmp_path / "log.jsonl", tmp_path / "curves", 0, 0):
        raise ZeroDivisionError
