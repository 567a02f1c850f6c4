"""The Python page: its examples run one after another, and print what it says that they print."""

import re
from pathlib import Path

import pytest

from tests.python_blocks import outputs, programs, run, with_outputs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"


def test_the_examples_run_in_order_and_print_what_the_page_says(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text("utf-8")
    assert sum(map(len, outputs(page))) > 20
    assert not any("# > " in program for program in programs(page))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    printed = run(programs(page), tmp_path)
    if request.config.getoption("--rewrite"):
        PAGE.write_text(with_outputs(page, printed), "utf-8")
    else:
        assert printed == outputs(page)


def test_outputs_are_found_and_replaced() -> None:
    page = "A text.\n```python\nprint(1)\n# > 1\n```\n```python\nx = 2\n```\n"
    assert programs(page) == ["print(1)\n", "x = 2\n"]
    assert outputs(page) == [["1"], []]
    assert with_outputs(page, [["3", "4"], []]) == page.replace("# > 1\n", "# > 3\n# > 4\n")


def test_the_page_names_every_public_method() -> None:
    from bridgetower import Library, Model

    words = set(re.findall(r"\w+", PAGE.read_text("utf-8")))
    public = {name for kind in (Library, Model) for name in vars(kind) if not name.startswith("_")}
    assert public - words <= {"tell_truncated", "engine_with_features", "has_one_pass"}
