"""An empty path, to Python the current folder, is refused by every command."""

import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridgetower.errors import UsageError
from bridgetower_cli import parser
from tests.cli.conftest import Bt


def path_parameters() -> Iterator[tuple[str, Any]]:
    """Each parameter of a command that is a path or a pattern, or a list of them, and how it is parsed."""
    for command in [*parser.app.registered_commands, *parser.model.registered_commands]:
        callback = command.callback
        assert callback is not None
        for name, annotation in typing.get_type_hints(callback, include_extras=True).items():
            if typing.get_origin(annotation) is not typing.Annotated:
                continue
            parameter = annotation.__metadata__[0]
            if "Path" in str(annotation.__origin__) or parameter.metavar == "PATH":
                yield f"{command.name or callback.__name__} {name}", parameter.parser


PARAMETERS = dict(path_parameters())


def test_the_paths_of_the_commands_are_found() -> None:
    assert {
        "index paths",
        "search under",
        "search not_under",
        "export folder",
        "convert folder",
        "status index",
    } <= PARAMETERS.keys()
    assert all(inspect.isfunction(parse) for parse in PARAMETERS.values()), PARAMETERS


@pytest.mark.parametrize("parse", PARAMETERS.values(), ids=PARAMETERS)
def test_an_empty_path_is_wrong_usage(parse: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="empty path"):
        parse("")


def test_a_model_is_not_converted_into_the_current_folder_by_an_empty_path(bt: Bt, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = bt("model", "convert", "demo", "")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "empty path" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
