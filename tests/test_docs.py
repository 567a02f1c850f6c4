"""The documents say what the program does: every command and option, no example that would not parse, no dead link."""

import ast
import importlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

# Typer carries its own copy of click, private to it: commands are looked at, not named by type.
Command = Any


def commands() -> dict[str, Command]:
    """Every command and group by its full name, as "bt", "bt search", "bt model", "bt model pull"."""
    from bridgetower_cli.parser import app

    def walk(name: str, command: Command) -> Iterator[tuple[str, Command]]:
        yield name, command
        for child, subcommand in getattr(command, "commands", {}).items():
            if not subcommand.hidden:
                yield from walk(f"{name} {child}", subcommand)

    return dict(walk("bt", typer.main.get_command(app)))


def is_group(command: Command) -> bool:
    return hasattr(command, "commands")


def options(command: Command) -> set[str]:
    """All spellings of its options, short and long."""
    named = (parameter for parameter in command.params if parameter.param_type_name == "option")
    return {"--help"} | {spelling for option in named for spelling in (*option.opts, *option.secondary_opts)}


def help_text(command: Command) -> str:
    return f"{command.help or ''}\n{command.epilog or ''}"


def examples(text: str) -> list[list[str]]:
    """The words of every call of `bt` in the lines of `text`, also behind a prompt, a pipe or an assignment."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ")
        if not re.search(r"(?:^|[|;&] *)(?:\w+=\S+ +)*bt(?: |$)", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split = True
        for operator, words in itertools.groupby(lexer, key=lambda word: set(word) <= set("|;&<>")):
            call = list(itertools.dropwhile(lambda word: re.match(r"\w+=", word), words))
            if not operator and call and call[0] == "bt":
                found.append(call)
    return found


def code_blocks(text: str) -> list[str]:
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^(?: {4}.*\n?)+", text, flags=re.MULTILINE)
    return [*fenced, *indented]


def named_command(call: list[str], known: dict[str, Command]) -> tuple[str, list[str]]:
    """The full name of the command that `call` calls, and the words after it."""
    name, *rest = call
    while rest and f"{name} {rest[0]}" in known:
        name = f"{name} {rest.pop(0)}"
    return name, rest


def mistakes(text: str, known: dict[str, Command]) -> list[str]:
    """What the examples in `text` use that does not exist."""
    found = []
    for call in examples(text):
        name, rest = named_command(call, known)
        if is_group(known[name]) and rest and not rest[0].startswith("-"):
            found.append(f"{name} {rest[0]}: no such command")
            continue
        used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z0-9]", word)}
        found += [f"{name} {option}: no such option" for option in sorted(used - options(known[name]))]
    return found


def sections() -> dict[str, str]:
    """The headings of docs/commands.md that name a command, with the text down to the next heading."""
    parts = re.split(r"^#+ +(.*)$", COMMANDS.read_text("utf-8"), flags=re.MULTILINE)
    headings = [heading.replace("`", "").strip() for heading in parts[1::2]]
    return {name: text for name, text in zip(headings, parts[2::2], strict=True) if re.match(r"bt\b", name)}


def test_every_command_says_what_it_does() -> None:
    assert [name for name, command in commands().items() if not help_text(command).strip()] == []


def test_every_command_has_an_example_in_its_help() -> None:
    known = commands()
    leaves = {name for name, command in known.items() if not is_group(command)}
    assert leaves
    for name in leaves:
        assert name in [named_command(call, known)[0] for call in examples(help_text(known[name]))]


def test_every_option_says_what_it_does() -> None:
    for name, command in commands().items():
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, f"{name} {parameter.opts}"


def test_commands_page_has_a_section_for_every_command_and_no_other() -> None:
    assert set(sections()) == set(commands()) - {"bt"}


def test_commands_page_names_every_long_option() -> None:
    written = sections()
    for name, command in commands().items():
        if name != "bt" and not is_group(command):
            named = set(re.findall(r"--[a-z0-9][a-z0-9-]*", written[name]))
            unnamed = {option for option in options(command) if option.startswith("--")} - named
            assert unnamed <= {"--help", "--quiet"}, name  # these two are among the rules for all commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_in_the_documents_use_what_exists(document: Path) -> None:
    known = commands()
    assert [mistake for block in code_blocks(document.read_text("utf-8")) for mistake in mistakes(block, known)] == []


def test_examples_in_the_help_use_what_exists() -> None:
    known = commands()
    assert [mistake for command in known.values() for mistake in mistakes(help_text(command), known)] == []


def test_mistakes_in_examples_are_seen() -> None:
    known = commands()
    assert mistakes("bt serch cats", known) == ["bt serch: no such command"]
    assert mistakes("$ bt model polish", known) == ["bt model polish: no such command"]
    assert mistakes('bt search "--depht" --depht 5 | head -3', known) == ["bt search --depht: no such option"]
    assert mistakes("find . | BT_MODEL=demo bt search --depht=5", known) == ["bt search --depht: no such option"]
    assert mistakes("bt search cats --json  # --not-an-option\nbtrfs check --force", known) == []


def test_examples_are_found_in_the_lines_of_a_text() -> None:
    text = "The tool bt searches:\n  $ bt index \\\n ./a\nls | bt fill 'a | b' > out && bt status\nbtrfs check"
    assert examples(text) == [["bt", "index", "./a"], ["bt", "fill", "a | b"], ["bt", "status"]]


def test_readme_names_the_main_commands_and_the_two_make_targets() -> None:
    text = README.read_text("utf-8")
    for needed in ("bt index", "bt search", "bt fill", "bt match", "bt rerank", "bt eval", "bt status", "bt model"):
        assert needed in text
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text("utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_in_the_documents_imports_what_exists(document: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "bridgetower":
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_changelog_names_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert any(re.match(rf"\[?{re.escape(version)}\b", heading) for heading in headings)


def test_every_file_that_contributing_names_is_there() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("| … |")[2].partition("\n## ")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines()[2:] if line.startswith("|")]
    named = [
        (top, name)
        for row in rows
        for top, cell in zip(("core/bridgetower", "tests"), row, strict=True)
        for name in re.findall("`([^`]+)`", cell)
    ]
    assert len(named) > 40
    places = [ROOT / name if name.startswith("docs/") else ROOT / top / name for top, name in named]
    assert [place for place in places if not place.exists()] == []


def test_every_decision_is_listed_with_its_status() -> None:
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text("utf-8")
    pages = [path.name for path in (ROOT / "docs" / "decisions").glob("20*.md")]
    assert [page for page in pages if f"]({page})" not in listed] == []
    assert all(line.rstrip("| ").rsplit("| ", 1)[1] for line in listed.splitlines() if line.startswith("| 20"))


def test_the_service_of_systemd_starts_a_command_that_exists() -> None:
    [line] = re.findall(r"^ExecStart=%h/.local/bin/(bt .*)$", (ROOT / "docs" / "serving.md").read_text(), re.MULTILINE)
    assert mistakes(f"    {line}\n", commands()) == []
    assert mistakes(f"    {line} --prot 7860\n", commands()) != []
