"""Which of several processes this one is, told by the variables of torchrun."""

import pytest

from bridgetower.errors import UsageError
from bridgetower.torchrun import place

TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, (1, 2)),
        ({"RANK": "0"}, (0, 2)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": None, "RANK": "3"}, (0, 1)),
        ({"WORLD_SIZE": "abc"}, None),
        ({"WORLD_SIZE": "-2"}, None),
        ({"RANK": "2"}, None),
        ({"RANK": None}, None),
        ({"MASTER_ADDR": None}, None),
        ({"LOCAL_RANK": None}, None),
    ],
)
def test_the_place_is_that_of_torchrun_or_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], found: tuple[int, int] | None
) -> None:
    for name, value in {**TORCHRUN, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    if found is not None:
        assert place() == found
        return
    with pytest.raises(UsageError, match="unset them, or start the command with torchrun"):
        place()
