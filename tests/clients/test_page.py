"""The page of the clients: its examples run, and print what it says that they print."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gallery_server import ROOT, Served, gallery_served
from tests.python_blocks import outputs, programs, run, with_outputs

PAGE = ROOT / "docs" / "clients.md"
SECTIONS = re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
EXAMPLES = [name for name, text in SECTIONS if programs(text)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gallery_served(tmp_path_factory.mktemp("page"), token=None) as served:
        yield served


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_the_page_says(
    name: str, served: Served, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "litellm" and find_spec("litellm") is None:
        pytest.skip("litellm is not installed: make test-clients")
    section = dict(SECTIONS)[name]
    examples = [program.replace("http://127.0.0.1:7860", served.url) for program in programs(section)]
    assert any(outputs(section)) and served.url in "".join(examples)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    printed = run(examples, tmp_path)
    if request.config.getoption("--rewrite"):
        page = PAGE.read_text("utf-8")
        PAGE.write_text(page.replace(section, with_outputs(section, printed)), "utf-8")
    else:
        assert printed == outputs(section)


def test_every_client_has_an_example() -> None:
    assert EXAMPLES == ["OpenAI", "Cohere", "Jina and vLLM", "text-embeddings-inference", "litellm"]
