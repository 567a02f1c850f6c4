"""What the file system refuses is said in one form, with what to do about it."""

import errno
import os
from pathlib import Path

import pytest

from bridgetower.errors import InputError, OutputError, ResourceError
from bridgetower.files.os_errors import unreadable, unwritable, writing
from bridgetower.files.regular_files import NotAFileError


def refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_file_that_cannot_be_read() -> None:
    error = unreadable("a.jpg", refused(errno.EACCES))
    assert isinstance(error, InputError)
    assert str(error) == "a.jpg: cannot be read: Permission denied; check the name and its permissions"


def test_what_is_no_file_has_a_reason_of_its_own() -> None:
    assert str(unreadable("a", NotAFileError(0, "a folder"))) == "a: a folder; give a file"


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room, or choose another place"), (errno.EROFS, "choose another place")],
)
def test_room_is_made_only_where_there_is_none(number: int, advice: str) -> None:
    with pytest.raises(OutputError) as raised, writing(Path("out"), OutputError):
        raise refused(number)
    assert str(raised.value) == f"out: cannot be written: {os.strerror(number)}; {advice}"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_want_of_a_resource_blames_no_file(number: int) -> None:
    for error in (unreadable("a", refused(number)), unwritable("a", refused(number), OutputError)):
        assert isinstance(error, ResourceError)
