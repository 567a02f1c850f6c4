"""Flag > environment > default."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bridgetower.errors import UsageError
from bridgetower_cli.settings import DEFAULT_MODEL, features_folder, index_folder, settle
from tests.cli.conftest import Bt, Models
from tests.fakes import COLOURS, paint


def test_defaults(tmp_path: Path) -> None:
    settings = settle()
    assert settings.index == tmp_path / "home" / "data" / "bridgetower" / "index"
    assert (settings.model, settings.named_model, settings.given_model) == (DEFAULT_MODEL, None, None)
    assert (settings.device, settings.precision) == ("auto", "auto")
    assert not settings.index.exists()


def test_environment_goes_before_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"INDEX": "there", "MODEL": "demo", "DEVICE": "cpu", "PRECISION": "bf16"}.items():
        monkeypatch.setenv(f"BT_{name}", value)
    settings = settle()
    assert settings.index == tmp_path / "there"
    assert (settings.model, settings.named_model, settings.given_model) == ("demo", None, "demo")
    assert (settings.device, settings.precision) == ("cpu", "bf16")


def test_flags_go_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("INDEX", "MODEL", "DEVICE", "PRECISION"):
        monkeypatch.setenv(f"BT_{name}", "nonsense")
    settings = settle(index=tmp_path / "here", model="mine", device="cuda", precision="fp32")
    assert settings.index == tmp_path / "here"
    assert (settings.model, settings.named_model, settings.given_model) == ("mine", "mine", "mine")
    assert (settings.device, settings.precision) == ("cuda", "fp32")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INDEX", "MODEL", "DEVICE", "PRECISION"):
        monkeypatch.setenv(f"BT_{name}", "")
    assert settle().model == DEFAULT_MODEL


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert index_folder("~/pictures.index") == tmp_path / "home" / "pictures.index"
    assert index_folder("./~") == tmp_path / "~"


@pytest.mark.parametrize("folder", [index_folder, features_folder])
def test_a_home_folder_that_nobody_knows_is_refused(folder: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match=r"'~nosuchuser/x': .* write the path"):
        folder("~nosuchuser/x")


def test_without_a_home_there_is_no_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=r"no home folder .* --index DIR"):
        settle()
    assert settle(index=tmp_path).index == tmp_path


def test_nonsense_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_DEVICE", "abacus")
    with pytest.raises(UsageError, match=r"abacus.*auto, cpu, cuda, mps"):
        settle()


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "photos", "--model", ""],
        ["search", "red", "--model", " "],
        ["fill", "a <mask>", "--model", ""],
        ["match", "photos/red.png", "--text", "red", "--model", ""],
        ["rerank", "red", "--model", ""],
        ["eval", "captions.jsonl", "--model", ""],
        ["model", "pull", ""],
        ["model", "convert", "", "there"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_model_without_a_name_is_wrong_usage(bt: Bt, library: Path, models: Models, arguments: list[str]) -> None:
    models.resolved.clear()
    done = bt(*arguments)
    assert (done.exit_code, done.stdout, models.resolved) == (2, "", [])
    option = "--model: " if "--model" in arguments else ""
    assert done.stderr.startswith(f"error: {option}an empty name is no model")


@pytest.mark.parametrize("command", [["index", ".", "--keep-features"], ["search", "red", "--features-cache"]])
def test_a_size_beyond_any_disk_is_wrong_usage(command: list[str], bt: Bt) -> None:
    done = bt(*command, "99999999TB")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1 and "'99999999TB' is more than any disk has" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "spark"], "an engine is local, ray, or ray://HOST:PORT"),
        (["--engine", "ray://host"], "an engine is local, ray, or ray://HOST:PORT"),
        (["--shared-paths"], "shared paths are for the workers of a cluster"),
        (["--workers", "0"], "a whole number of at least 1 is wanted"),
    ],
)
@pytest.mark.parametrize("command", ["index", "eval"])
def test_an_engine_that_is_none_is_wrong_usage(
    command: str, options: list[str], said: str, bt: Bt, models: Models, tmp_path: Path
) -> None:
    (tmp_path / "captions.jsonl").touch()
    result = bt(command, tmp_path / "captions.jsonl", "--model", "demo", *options)
    assert result.exit_code == 2 and said in result.stderr
    assert not models.resolved


def test_a_number_of_processes_decodes(bt: Bt, tmp_path: Path) -> None:
    photos = tmp_path / "more"
    for colour in COLOURS:
        paint(photos / f"{colour}.png", colour)
    result = bt("index", photos, "--engine", "local", "--workers", 3, "--index", tmp_path / "other", "--model", "demo")
    assert result.exit_code == 0, result.stderr
    assert f"indexed {len(COLOURS)}" in result.stderr
