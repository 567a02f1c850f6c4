"""The console sessions in the documents: each runs, and prints what its page says; `make docs` rewrites them."""

import shutil
import tempfile
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.console_blocks import ROOT, agrees, blocks, rewrite, rewritten, run
from tests.warm_bt import warm_bt

PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SESSIONS = {page.relative_to(ROOT).as_posix(): blocks(page.read_text("utf-8")) for page in PAGES}
NOT_RUN = {  # how many blocks of a page: each says why, in a comment above it
    "docs/benchmarks.md": 2,
    "docs/cluster.md": 2,
    "docs/commands.md": 1,
}
TOOLS = ("curl", "jq")  # that a machine may lack

in_a_shell = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets in it."""
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def bt(scratch: Path) -> Iterator[Path]:
    with warm_bt(scratch) as program:
        yield program


@in_a_shell
@pytest.mark.process
@pytest.mark.parametrize(
    "name", [name for name, session in SESSIONS.items() if any(block.not_run is None for block in session)]
)
def test_a_page_shows_what_is_printed(name: str, scratch: Path, bt: Path, request: pytest.FixtureRequest) -> None:
    session = [block for block in SESSIONS[name] if block.not_run is None]
    commands = [(block, command) for block in session for command in block.commands]
    for tool in TOOLS:
        if shutil.which(tool) is None and any(tool in command.text.split() for _, command in commands):
            pytest.skip(f"needs {tool}")
    printed = run(session, scratch / Path(name).with_suffix("").as_posix().replace("/", "-"), bt)
    differ = [(*one, lines) for one, lines in zip(commands, printed, strict=True) if not agrees(one[1].output, lines)]
    if request.config.getoption("--rewrite"):
        rewrite(ROOT / name, differ)
        return
    said = [line for _, command, _ in differ for line in (f"$ {command.text}", *command.output)]
    real = [line for _, command, lines in differ for line in (f"$ {command.text}", *lines)]
    assert said == real, "\n".join(unified_diff(said, real, name, "printed", lineterm=""))


def test_no_block_is_left_out_silently() -> None:
    left_out = {name: [block for block in session if block.not_run is not None] for name, session in SESSIONS.items()}
    assert {name: len(some) for name, some in left_out.items() if some} == NOT_RUN
    assert all(block.not_run for some in left_out.values() for block in some)


PAGE = """
<!-- first:
cd photos
bt index .
-->

    $ bt search "a b" \\
        --top 1
    0.626  a.jpg

    $ bt status
    $ cd ..

<!-- not run: takes hours -->

```console
$ bt index /
indexed 1
```

A line of text, and an example that shows no output:

    bt search "two cats"
"""


def test_blocks_are_found_with_their_commands_outputs_and_comments() -> None:
    search, status, hours = blocks(PAGE)
    assert search.first == "cd photos\nbt index .\n"
    assert [(one.text, one.output) for one in search.commands] == [
        ('bt search "a b" \\\n    --top 1', ["0.626  a.jpg"])
    ]
    assert [(one.text, one.output) for one in status.commands] == [("bt status", []), ("cd ..", [])]
    assert [block.not_run for block in (search, status, hours)] == [None, None, "takes hours"]
    assert [(one.text, one.output) for one in hours.commands] == [("bt index /", ["indexed 1"])]


@pytest.mark.parametrize("below", ["A line of text.", "    bt search 'two cats'", "```\n{}\n```", ""])
def test_a_comment_must_stand_above_a_session(below: str) -> None:
    with pytest.raises(ValueError, match="a comment stands"):
        blocks(f"    $ bt status\n\n<!-- first: cd photos -->\n\n{below}\n")


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("0.626  a.jpg", "0.6272   a.jpg"),
        ("150 files in 0.7 s", "150 files in 12.3 s"),
        ("(format 6, 3.57 MB)", "(format 6, 812 kB)"),
        ("updated 2026-11-21 11:40:05", "updated 2027-01-01 00:00:00"),
        ("process 12 serves at http://127.0.0.1:7860;", "process 3456 serves at http://127.0.0.1:7861;"),
        ('"cursor": "NtPRR6b3"', '"cursor": "paHqBZoU"'),
        ("one ... three", "one two and three"),
        ("one\n...\nfour", "one\ntwo\nthree\nfour"),
        ("...", ""),
    ],
)
def test_outputs_that_agree(said: str, printed: str) -> None:
    assert agrees(said.splitlines(), printed.splitlines())


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("0.626  a.jpg", "0.629  a.jpg"),
        ("0.626  a.jpg", "0.626  b.jpg"),
        ("indexed 150", "indexed 151"),
        ("150 files in 0.7 s", "151 files in 0.7 s"),
        ("a\nb", "a"),
        ("a", "a\nb"),
        ("one ... three", "one two"),
        ("one\n...\nfour", "one\ntwo\nthree"),
    ],
)
def test_outputs_that_differ(said: str, printed: str) -> None:
    assert not agrees(said.splitlines(), printed.splitlines())


def test_a_page_is_rewritten_where_it_differs_and_elided_as_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, "utf-8")
    search, _, hours = blocks(PAGE)
    rewrite(page, [(search, search.commands[0], ["no match"]), (hours, hours.commands[0], ["indexed 2", "skipped 1"])])
    assert page.read_text("utf-8") == PAGE.replace("0.626  a.jpg", "no match").replace(
        "indexed 1", "indexed 2\nskipped 1"
    )
    assert rewritten(["a", "...", "y", "z"], list("abcdefgh")) == ["a", "...", "g", "h"]
    assert rewritten(["one ... three"], ["one and two and four"]) == ["one ... four"]
