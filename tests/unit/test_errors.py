"""Errors cross processes: they are pickled and copied whole."""

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import bridgetower
from bridgetower import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.BridgeTowerError)]
VALUES = {"directory": Path("index"), "path": Path("a.jpg"), "log": Path("log"), "lost": 2}  # else a text


def made(kind: type[errors.BridgeTowerError]) -> errors.BridgeTowerError:
    if "__init__" not in {name for base in kind.__mro__[:-3] for name in vars(base)}:
        return kind("what failed")
    return kind(*[VALUES.get(name, "a text") for name in inspect.signature(kind).parameters])


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_pickled_and_copied_whole(
    kind: type[errors.BridgeTowerError], again: Callable[[errors.BridgeTowerError], errors.BridgeTowerError]
) -> None:
    error = made(kind)
    error.add_note("a note")
    other = again(error)
    assert type(other) is kind
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_every_error_can_be_imported_from_the_package() -> None:
    assert {kind.__name__ for kind in KINDS} == {name for name in bridgetower.__all__ if name.endswith("Error")}
