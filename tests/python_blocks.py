"""The Python examples in the documents: run them, and compare what they print with the lines `# > ...` at their end."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_BLOCK = re.compile(r"^```python\n(.*?)((?:^# > [^\n]*\n)*)^```$", re.MULTILINE | re.DOTALL)
_END = "-- the end of an example --"


def programs(page: str) -> list[str]:
    """The programs of the examples, in order."""
    return [program for program, _ in _BLOCK.findall(page)]


def outputs(page: str) -> list[list[str]]:
    """The lines that each example prints, as the page says."""
    return [[line.removeprefix("# > ") for line in said.splitlines()] for _, said in _BLOCK.findall(page)]


def with_outputs(page: str, printed: Sequence[Sequence[str]]) -> str:
    """The page with these outputs of its examples in place of those that it has."""
    new = iter(printed)

    def replaced(block: re.Match[str]) -> str:
        return "".join(["```python\n", block[1], *(f"# > {line}\n" for line in next(new)), "```"])

    return _BLOCK.sub(replaced, page)


def run(examples: Sequence[str], folder: Path) -> list[list[str]]:
    """Run these programs one after another, in one process in `folder`; the lines that each prints."""
    program = "".join(f"{example}\nprint({_END!r})\n" for example in examples)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # litellm fetches it else
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode or done.stderr:
        raise RuntimeError(done.stderr)
    return [printed.splitlines() for printed in done.stdout.split(f"{_END}\n")[:-1]]
