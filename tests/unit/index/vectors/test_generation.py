"""The derived vector files, held open: one that is not there is done without, but not for want of handles."""

import os
from pathlib import Path

import pytest

from bridgetower.errors import ResourceError
from bridgetower.index.check import check_index
from bridgetower.index.vectors.faiss.generation import Generation, codes_path, vectors_path
from bridgetower.index.vectors.faiss.scalar_codes import ScalarCodes
from tests.fakes import handles_left
from tests.faults.small import build

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits, and pipes with names")


def test_what_is_absent_is_done_without(tmp_path: Path) -> None:
    assert not Generation(tmp_path, 1, coded=True).whole


@posix
def test_what_became_a_pipe_is_done_without_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(vectors_path(tmp_path, 1))
    assert not Generation(tmp_path, 1, coded=False).whole


@posix
def test_want_of_handles_is_not_taken_for_absence_or_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "index")
    for path in (vectors_path(tmp_path, 1), codes_path(tmp_path, 1)):
        path.touch()
    with handles_left(0):
        with pytest.raises(ResourceError, match="too many open files"):
            Generation(tmp_path, 1, coded=False)
        with pytest.raises(ResourceError, match="too many open files"):
            ScalarCodes.open(codes_path(tmp_path, 1))

    def exhausted(path: Path) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("bridgetower.index.vectors.faiss.generation.open_own", exhausted)
    with pytest.raises(ResourceError, match="too many open files"):
        list(check_index(tmp_path / "index"))
