"""The room on the disk that a run needs: for two states and the model."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridgetower.errors import OutputError
from bridgetower.training.recipe import Freeze
from bridgetower.training.run.folder import RunFolder
from bridgetower.training.run.room import require_room

SHAPES = {"text_tower.word.weight": (1000, 1000), "vision_tower.position": (1000, 3000), "itm_head.weight": (1000, 500)}
WEIGHTS = 4 * 4_500_000  # bytes


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "model", {})
    folder.make()
    return folder


def has_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize(
    ("freeze", "learning"), [("none", 4_500_000), ("text", 3_500_000), ("vision", 1_500_000), ("towers", 500_000)]
)
def test_a_run_needs_room_for_two_states_and_the_model(
    folder: RunFolder, freeze: Freeze, learning: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * WEIGHTS + 4 * 4 * learning
    has_free(monkeypatch, needed)
    require_room(folder, SHAPES, freeze)
    has_free(monkeypatch, needed - 1)
    with pytest.raises(OutputError, match=f"needs {needed / 1e9:.3g} GB more .* are free: make room, or give a folder"):
        require_room(folder, SHAPES, freeze)


def test_what_the_run_has_written_already_counts(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, 7 * WEIGHTS - 300)
    for file, size in ((folder.state, 200), (folder.out / "model.safetensors", 100)):
        with pytest.raises(OutputError):
            require_room(folder, SHAPES, "none")
        file.write_bytes(bytes(size))
    require_room(folder, SHAPES, "none")


def test_a_finished_run_needs_none(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, 0)
    folder.finish({"step": 1, "best": None})
    require_room(folder, SHAPES, "none")
