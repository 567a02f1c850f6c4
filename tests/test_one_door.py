"""The command line comes through one door: what it does, anyone who imports the library can do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridgetower

ROOT = Path(__file__).parents[1]
CLI = sorted((ROOT / "bridgetower_cli").rglob("*.py"))
# What is public beside the names of `bridgetower` itself: errors and how to tell them, and the records of the output.
DOORS = {"bridgetower.library", "bridgetower.errors", "bridgetower.records", "bridgetower.resources"}


def trespasses(source: str) -> Iterator[str]:
    """What `source` imports of the library past its public names, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            yield from (name for name in modules if name.startswith("bridgetower.") and name not in DOORS)
        elif isinstance(node, ast.ImportFrom) and node.module == "bridgetower":
            public = {*bridgetower.__all__, "__version__"}
            yield from (f"bridgetower.{alias.name}" for alias in node.names if alias.name not in public)
        elif isinstance(node, ast.ImportFrom) and f"{node.module}".startswith("bridgetower."):
            yield from [f"{node.module}"] if node.module not in DOORS else []


@pytest.mark.parametrize("path", CLI, ids=[str(path.relative_to(ROOT)) for path in CLI])
def test_the_command_line_uses_the_public_interface_only(path: Path) -> None:
    assert list(trespasses(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import bridgetower.index.reader", "bridgetower.index.reader"),
        ("from bridgetower.index import reader", "bridgetower.index.reader"),
        ("def run():\n    from bridgetower.index.reader import Store", "bridgetower.index.reader"),
        (
            "if TYPE_CHECKING:\n    from bridgetower.index.catalog.reader import Tuning",
            "bridgetower.index.catalog.reader",
        ),
    ],
)
def test_a_way_past_the_door_is_found(source: str, found: str) -> None:
    assert list(trespasses(source)) == [found]
