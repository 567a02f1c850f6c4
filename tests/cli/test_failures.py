"""Every way in which `bt` can end that is not success."""

import errno
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridgetower import __version__
from bridgetower_cli.parser import app
from tests.cli.conftest import Bt, Models
from tests.fakes import FakeEncoder, paint


def test_a_defect_shows_its_traceback_and_asks_for_a_report(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("bridgetower.queries.search", broken)
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

    monkeypatch.setattr("bridgetower.queries.search", exhausted)
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
    assert "Did you mean 'search'?" in done.stderr


@pytest.mark.parametrize("command", ["search", "rerank", "fill"])
def test_a_text_without_quotes_gets_a_hint(bt: Bt, command: str) -> None:
    done = bt(command, "two\x1b", "cats")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(f'(cats): a text of several words needs quotes, as in bt {command} "two\\x1b ..."\n')
    assert "quotes" not in bt("status", "two", "cats").stderr


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["search", "red", "--top", "\u202ex"], "'--top'"),  # a value
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
    assert bt("search", flag).stdout.startswith("Usage: bt search")
