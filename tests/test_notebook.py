"""The notebook: its cells run, one after another, and give the outputs that it was saved with."""

import ast
import io
import json
import re
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.console_blocks import HOME, agrees

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tour.ipynb"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells as they are now, as Jupyter would save them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            cell = {**cell, "execution_count": number, "outputs": outputs("".join(cell["source"]), names, number)}
        cells.append(cell)
    return {**notebook, "cells": cells}


def outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run a cell; what it prints, and its last expression."""
    statements = ast.parse(source).body
    last = statements.pop() if isinstance(statements[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(ast.Module(statements, []), "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        shown = {"text/html": lines(value._repr_html_())} if hasattr(value, "_repr_html_") else {}
        shown["text/plain"] = lines(repr(value))
        found.append({"data": shown, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return found


def lines(text: str) -> list[str]:
    return text.replace(str(ROOT), f"{HOME}/bt").splitlines(keepends=True)


def text_of(notebook: dict[str, Any]) -> list[str]:
    """The notebook as lines of JSON, without the bytes of its pictures."""
    return re.sub(r"(?<=;base64,)[\w+/=]+", "", json.dumps(notebook, indent=1)).splitlines()


def test_its_cells_give_the_outputs_that_it_was_saved_with(request: pytest.FixtureRequest) -> None:
    saved = json.loads(NOTEBOOK.read_text("utf-8"))
    with chdir(NOTEBOOK.parent):
        now = executed(saved)
    agree = agrees(text_of(saved), text_of(now))
    if not agree and request.config.getoption("--rewrite"):
        NOTEBOOK.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", "utf-8")
    else:
        assert agree
        assert sum("<img src=" in line for line in text_of(saved)) >= 2  # pictures are seen where it is only read


def test_it_is_small() -> None:
    assert NOTEBOOK.stat().st_size < 300_000
