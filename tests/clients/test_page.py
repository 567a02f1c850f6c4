"""The page of the clients: its examples run, and print what it says that they print."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gallery_server import ROOT, Served, gallery_served

PAGE = ROOT / "docs" / "clients.md"
SECTIONS = re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
EXAMPLES = {name: "".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.DOTALL)) for name, text in SECTIONS}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gallery_served(tmp_path_factory.mktemp("page"), token=None) as served:
        yield served


@pytest.mark.parametrize("name", [name for name, program in EXAMPLES.items() if program])
def test_an_example_prints_what_the_page_says(name: str, served: Served, tmp_path: Path) -> None:
    if name == "litellm" and find_spec("litellm") is None:
        pytest.skip("litellm is not installed: make test-clients")
    program = EXAMPLES[name].replace("http://127.0.0.1:7860", served.url)
    said = re.findall(r"^# > (.*)$", program, re.MULTILINE)
    assert said and served.url in program
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said


def test_every_client_has_an_example() -> None:
    assert [name for name, program in EXAMPLES.items() if program] == [
        "OpenAI", "Cohere", "Jina and vLLM", "text-embeddings-inference", "litellm",
    ]  # fmt: skip
