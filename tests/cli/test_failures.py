"""Every way in which `bt` can end that is not success."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bridgetower import __version__
from bridgetower_cli import usage
from bridgetower_cli.parser import app
from tests.cli.conftest import Bt, Models
from tests.fakes import FakeEncoder, paint


def test_a_defect_shows_its_traceback_and_asks_for_a_report(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("bridgetower.queries.pages", broken)
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (70, "")
    assert "Traceback" in done.stderr and "ZeroDivisionError: of ours" in done.stderr
    assert "please report it" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory: close other programs, or raise the limit"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: close other programs, or raise the"),
        (RuntimeError("can't start new thread"), "no thread can be started: raise the limit of memory or of processes"),
    ],
    ids=repr,
)
def test_want_of_memory_or_handles_is_no_defect(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def exhausted(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("bridgetower.queries.pages", exhausted)
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (71, "")
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1


def test_want_of_memory_for_a_picture_that_is_needed_is_no_fault_of_the_picture(
    bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(image: object) -> None:
        raise MemoryError

    monkeypatch.setattr("bridgetower.pictures.decode.to_rgb", exhausted)
    done = bt("match", photos / "red.png", "--text", "red")
    assert (done.exit_code, done.stdout) == (71, "")
    assert done.stderr == f"error: {photos / 'red.png'}: not enough memory to decode it\n"


def test_nor_is_it_that_of_the_pictures_that_a_search_verifies(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(image: object) -> None:
        raise MemoryError

    monkeypatch.setattr("bridgetower.pictures.decode.to_rgb", exhausted)
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (71, "")
    assert done.stderr.startswith("error: ") and done.stderr.endswith(": not enough memory to decode it\n")
    assert done.stderr.count("\n") == 1


class Interrupted(FakeEncoder):
    def embed_images(self, pixels: object) -> object:  # type: ignore[override]
        raise KeyboardInterrupt


def test_ctrl_c_says_one_line(bt: Bt, photos: Path, models: Models) -> None:
    models.encoder_type = Interrupted
    done = bt("index", photos)
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted: everything committed is kept, the same command goes on from there\n"


def test_a_model_that_is_not_there(bt: Bt, photos: Path) -> None:
    done = bt("index", photos, "--model", "some/model")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == "error: some/model is not on this machine\n"


def test_a_current_folder_that_was_removed(bt: Bt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paint(tmp_path / "gone" / "a.png", "red").parent)
    shutil.rmtree(tmp_path / "gone")
    for arguments in (["index", "."], ["search", "red"], ["status", "--index", "here"]):
        done = bt(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == "error: the current folder is gone: change into one that is there\n"


def test_version(bt: Bt) -> None:
    assert bt("--version").stdout == f"bt {__version__}\n"


def test_an_unknown_command(bt: Bt) -> None:
    done = bt("serch", "red")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: serch is no command of bt: did you mean bt search, or bt serve?\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("find red", "find is no command of bt: did you mean bt search?"),
        ("update photos", "update is no command of bt: did you mean bt index?"),
        ("info", "info is no command of bt: did you mean bt status?"),
        ("pull demo", "pull is no command of bt: did you mean bt model pull?"),
        ("model ls", "ls is no command of bt model: did you mean bt model list?"),
        ("frobnicate", "frobnicate is no command of bt: `bt --help` shows all"),
        ("search red --limit 3", "--limit is no option of bt search: did you mean --top?"),
        ("search red -n 3", "-n is no option of bt search: did you mean --dry-run, or --top?"),
        ("search red --threshold=0.5", "--threshold is no option of bt search: did you mean --min-match, or "),
        ("search red --path photos", "--path is no option of bt search: did you mean --under, or --paths?"),
        ("search red --folder photos", "--folder is no option of bt search: did you mean --under?"),
        ("search red --dept 3", "--dept is no option of bt search: did you mean --depth?"),
        ("status --top 3", "--top is no option of bt status: `bt status --help` shows all"),
        ("prune -n", "-n is no option of bt prune: did you mean --dry-run?"),
        ("search red --top", "--top needs a value"),
        ("index", "nothing to index: give a folder or a file, as in `bt index ~/Pictures`"),
        ("match photos/red.png", "--text is missing: `bt match --help` shows how it is given"),
        ("search -", '"-" is no text: `bt search --texts-from -` reads many from stdin, one a line'),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_may_be_meant(bt: Bt, arguments: str, said: str) -> None:
    done = bt(*arguments.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1


def test_options_that_may_be_meant_exist() -> None:
    commands: Any = typer.main.get_command(app)
    options = [{name for option in one.params for name in option.opts} for one in commands.commands.values()]
    assert set(usage._OPTIONS) <= set().union(*options)
    pairs = [(option, word) for option, words in usage._OPTIONS.items() for word in words.split()]
    never_meant = [(option, word) for option, word in pairs if all(word in has for has in options if option in has)]
    assert never_meant == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("search red --top 0", "--top: '0': a whole number of at least 1 is wanted, as 10"),
        ("search red --depth -1", "--depth: '-1': a whole number of at least 0 is wanted, as 20"),
        ("rerank red --top many", "--top: 'many': a whole number of at least 1 is wanted, as 10"),
        ("eval captions.jsonl --depth 1.5", "--depth: '1.5': a whole number of at least 1 is wanted, as 20"),
        ("search red --min-match 50%", "--min-match: '50%': a probability is between 0 and 1, as 0.5"),
        ("rerank red --min-match nan", "--min-match: 'nan': a probability is between 0 and 1, as 0.5"),
        (
            "search --image red.png --min-similarity 80",
            "--min-similarity: '80': a similarity is between -1 and 1, as 0.8",
        ),
        (
            "search red --features-cache 2",
            "--features-cache: '2' is no size: write it as 500MB or 2GB, or 0 for none",
        ),
        ("fill a<mask> --device gpu", "--device: 'gpu' is unknown: choose one of auto, cpu, cuda, mps"),
    ],
)
def test_a_value_that_cannot_be_says_how_it_is_written(bt: Bt, arguments: str, said: str) -> None:
    done = bt(*arguments.split())
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"error: {said}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "search red --top 3 --top 5",
        "search red --since 2020 --since 2024",
        "rerank red --min-match 0.5 --min-match=0.5",
        "index photos --model a --model b",
        "fill a<mask> --index a --index b",
    ],
)
def test_an_option_of_one_value_is_given_once(bt: Bt, arguments: str) -> None:
    done = bt(*arguments.split())
    option = next(word for word in arguments.split() if word.startswith("--"))
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"error: {option} was given twice: give it once\n")


def test_a_flag_may_be_given_again(bt: Bt, library: Path) -> None:
    assert bt("search", "red", "--json", "--json").exit_code == 0


def test_help_is_as_wide_as_the_terminal() -> None:
    for width in (60, 150):
        command = [sys.executable, "-m", "bridgetower_cli", "search", "--help"]
        environment = os.environ | {"COLUMNS": str(width)}
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True).stdout
        text, _, _ = shown.partition("Examples:")
        assert width - 10 <= max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("command", ["rerank", "fill"])
def test_a_text_without_quotes_gets_a_hint(bt: Bt, command: str) -> None:
    done = bt(command, "two\x1b", "cats")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(f'(cats): a text of several words needs quotes, as in bt {command} "two\\x1b ..."\n')
    assert "quotes" not in bt("status", "two", "cats").stderr


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["search", "red", "--top", "\u202ex"], "'\\u202ex': a whole number"),  # a value
        (["search", "red", "--since", "\x1b[31m"], "'\\x1b[31m' is no date"),
        (["search", "red", "--\u202eno"], "--\\u202eno"),  # an option
        (["search", "red", "--top\u2066=1"], "--top\\u2066"),
        (["search\u202e", "red"], "search\\u202e"),  # a command
        (["model", "pull\x1b[2J"], "pull\\x1b[2J"),
        (["status", "one\u202etwo"], "one\\u202etwo"),  # an argument too many
        (["index", "--preprocessing", "\u202ehf", "photos"], "\\u202ehf"),
    ],
)
def test_what_was_typed_cannot_steer_the_terminal_from_within_an_error(
    bt: Bt, arguments: list[str], shown: str
) -> None:
    done = bt(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert shown in done.stderr.splitlines()[-1]
    assert all(line.isprintable() for line in done.stderr.splitlines())


def test_the_name_of_a_model_cannot_steer_the_terminal() -> None:
    done = CliRunner().invoke(app, ["model", "pull", "a\u202eb"])
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith("error: a\\u202eb: no such folder")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(bt: Bt, flag: str) -> None:
    assert bt("search", flag).stdout.startswith("Usage: bt search [OPTIONS] [TEXT]...\n")
