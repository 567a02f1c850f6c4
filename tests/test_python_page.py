"""The Python page: its examples run one after another, and print what it says that they print."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"


def test_the_examples_run_in_order_and_print_what_the_page_says(tmp_path: Path) -> None:
    program = "".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    said = re.findall(r"^# > (.*)$", program, re.MULTILINE)
    assert len(said) > 20
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said
    assert done.stderr == ""


def test_the_page_names_every_public_method() -> None:
    from bridgetower import Library, Model

    words = set(re.findall(r"\w+", PAGE.read_text("utf-8")))
    public = {name for kind in (Library, Model) for name in vars(kind) if not name.startswith("_")}
    assert public - words <= {"tell_truncated", "engine_with_features", "has_one_pass"}
