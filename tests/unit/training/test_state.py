"""The state of a run on the disk: nothing but its own is taken, and damage is told."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bridgetower.errors import ModelError, OutputError, UsageError
from bridgetower.training.state import RunState
from bridgetower.training.validation import Validation


def learner(width: int = 8) -> tuple[nn.Linear, torch.optim.AdamW]:
    model = nn.Linear(width, width)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, width)).sum().backward()
    optimiser.step()
    return model, optimiser


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    state = RunState(tmp_path / "run" / "state.pt", "mine", Validation(5, 60.0, 70.0, 10, 12), 6)
    state.save(*learner(), 7)
    return state.file


def test_all_of_it_comes_back(saved: Path) -> None:
    model, optimiser = learner()
    state = RunState(saved, "mine")
    assert state.load(model, optimiser) == 7
    assert (state.best, state.validated) == (Validation(5, 60.0, 70.0, 10, 12), 6)
    state.save(model, optimiser, 8)
    other, other_optimiser = learner()
    assert RunState(saved, "mine").load(other, other_optimiser) == 8
    assert torch.equal(other.weight, model.weight)
    for name in ("exp_avg", "exp_avg_sq", "step"):
        first, second = (o.state[m.weight][name] for o, m in ((optimiser, model), (other_optimiser, other)))
        assert torch.equal(first, second)


def test_without_a_file_a_run_begins(tmp_path: Path) -> None:
    assert RunState(tmp_path / "state.pt").load(*learner()) == 0


def test_what_a_killed_process_left_unfinished_is_removed(saved: Path) -> None:
    left = saved.with_name(".state.pt.0123abcd.partial")
    left.write_bytes(b"half")
    mine = saved.with_name("state.pt.partial")
    mine.write_bytes(b"mine")
    RunState(saved, "mine").load(*learner())
    assert not left.exists()
    assert mine.exists()


def test_the_state_of_another_run_is_refused(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"state\.pt: the state of a run with other settings or other data; give"):
        RunState(saved, "another").load(*learner())


def test_the_state_of_another_network_is_refused(saved: Path) -> None:
    with pytest.raises(ModelError, match=r"state\.pt: the state of another network; give"):
        RunState(saved, "mine").load(*learner(9))


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "other"])
def test_a_damaged_state_is_told_and_never_used(saved: Path, kind: str) -> None:
    content = bytearray(saved.read_bytes())
    if kind == "cut":
        del content[len(content) // 2 :]
    elif kind == "empty":
        content.clear()
    elif kind == "text":
        content[:] = b"hello"
    saved.write_bytes(content)
    if kind == "other":
        torch.save({"step": 3}, saved)
    with pytest.raises(ModelError, match=r"state\.pt: damaged: put a copy of it back, or remove it to begin again"):
        RunState(saved, "mine").load(*learner())


def test_every_bit_of_a_tensor_counts(saved: Path) -> None:
    """PyTorch itself reads a file with other bits in its tensors, and says nothing."""
    model, optimiser = learner()
    state = RunState(saved, "mine")
    state.load(model, optimiser)
    content = saved.read_bytes()
    where = content.find(model.weight.detach().numpy().tobytes())
    assert where > 0
    for place in (where, where + 131, where + 255):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ModelError, match="damaged"):
            state.load(model, optimiser)


def test_a_full_disk_leaves_the_last_state(saved: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limit on files on Windows")
    signal = pytest.importorskip("signal")
    before = saved.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"state\.pt: cannot be written: File too large; make room"):
            RunState(saved, "mine").save(*learner(), 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["state.pt"]


def test_a_state_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.fstat(file).st_ino))
    RunState(tmp_path / "state.pt").save(*learner(), 1)
    assert (tmp_path / "state.pt").stat().st_ino in synced


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_a_state_is_read_without_a_copy_and_not_held_open(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped: list[bool] = []

    def is_mapped() -> bool:
        return str(saved) in Path("/proc/self/maps").read_text()

    model, optimiser = learner()
    load = optimiser.load_state_dict

    def watched(state: dict[str, Any]) -> None:
        mapped.append(is_mapped())
        load(state)

    monkeypatch.setattr(optimiser, "load_state_dict", watched)
    RunState(saved, "mine").load(model, optimiser)
    assert [*mapped, is_mapped()] == [True, False]
