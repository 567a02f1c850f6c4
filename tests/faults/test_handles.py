"""Too few file handles: said as that, and never as a finding about a file that is sound."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bridgetower.errors import ResourceError
from bridgetower.files.walk import scan
from bridgetower.index.check import check_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from tests.fakes import handles_left
from tests.faults.small import FINGERPRINT, answer, build


@pytest.mark.parametrize(
    "look",
    [
        lambda directory: list(check_index(directory)),
        answer,
        lambda directory: IndexWriter.open(directory, FINGERPRINT).close(),
        lambda directory: list(scan([directory])),
    ],
    ids=["verify", "search", "write", "walk"],
)
def test_the_want_of_handles_is_no_fault_of_a_file(tmp_path: Path, look: Callable[[Path], object]) -> None:
    build(tmp_path / "index")
    look(tmp_path / "index")  # what is imported on the way takes handles, too
    told = ""
    for left in range(12):
        with handles_left(left):
            try:
                look(tmp_path / "index")
            except ResourceError as error:
                told = str(error)
                continue
        assert left > 0
        break
    assert "too many open files" in told
    with IndexReader.open(tmp_path / "index") as store:
        assert len(store) == 60
