"""The shell completes commands, options and values, by the protocol of typer, without loading anything heavy."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridgetower_cli.config.keys import KEYS
from bridgetower_cli.parser import app
from tests.test_startup import bt as bt_alone

BASH = shutil.which("bash")


def completed(line: str) -> list[str]:
    """Return the words that bash offers for a command line, of which the last word is begun."""
    words = line.split(" ")
    environment = {"_BT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = CliRunner().invoke(app, [], prog_name="bt", env=environment)
    assert (done.exit_code, done.stderr) == (0, ""), line
    return done.stdout.split()


@pytest.fixture(autouse=True)
def hub_of_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the Hub with a BridgeTower and another model."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, kind in {"some--tower": "bridgetower", "some--bert": "bert"}.items():
        snapshot = tmp_path / "hub" / f"models--{name}" / "snapshots" / "1"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))


def test_commands_and_options() -> None:
    assert completed("bt se") == ["search", "serve"]
    assert completed("bt model re") == ["remove"]
    assert completed("bt config ") == ["show", "set", "unset"]
    assert completed("bt search --lib") == ["--library"]
    assert completed("bt search --ind") == ["--index"]


@pytest.mark.parametrize("line", ["bt search --device ", "bt index --device ", "bt config set device "])
def test_devices(line: str) -> None:
    assert completed(line) == ["auto", "cpu", "cuda", "mps"]
    assert completed(f"{line}c") == ["cpu", "cuda"]


def test_precisions() -> None:
    assert completed("bt train --precision ") == ["auto", "fp32", "bf16"]
    assert completed("bt search --precision f") == completed("bt config set precision f") == ["fp32"]


@pytest.mark.parametrize("line", ["bt index --model ", "bt model pull ", "bt model info ", "bt config set model "])
def test_models_that_are_here_and_those_that_are_published(line: str) -> None:
    found = completed(line)
    assert found[:2] == ["demo", "some/tower"] and "some/bert" not in found
    assert "BridgeTower/bridgetower-large-itm-mlm-itc" in found


def test_towers_heads_and_the_model_to_train() -> None:
    assert completed("bt train --freeze t") == ["towers", "text"]
    assert completed("bt train --new-head ") == ["itc", "itm", "mlm"]
    assert completed("bt train --init ")[:2] == ["demo", "some/tower"]


def test_only_what_can_be_removed() -> None:
    assert completed("bt model remove ") == ["some/tower"]


def test_libraries_and_settings(tmp_path: Path) -> None:
    (tmp_path / "home" / "data" / "bridgetower" / "libraries" / "holidays").mkdir(parents=True)
    for line in ("bt search --library ", "bt index --library ", "bt config set library "):
        assert completed(line) == ["default", "holidays"]
    assert completed("bt config set ") == [*KEYS, "library.holidays"]
    assert completed("bt config unset library") == ["library", "library.holidays"]
    assert completed("bt config set top ") == []


def test_a_damaged_file_of_settings_completes_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("top = \n")
    assert completed("bt search --library ") == []


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("zsh", '_arguments \'*: :(("cpu"\n"cuda"))\'\n'), ("fish", "cpu\ncuda\n")],
)
def test_other_shells(shell: str, expected: str) -> None:
    environment = {"_BT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "bt search --device c"}
    environment["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    done = CliRunner().invoke(app, [], prog_name="bt", env=environment)
    assert (done.exit_code, done.stdout) == (0, expected)


@pytest.mark.parametrize(
    ("line", "light"),
    [
        ("bt search --device ", set()),
        ("bt search --library ", set()),
        ("bt config set ", set()),
        ("bt model remove ", {"huggingface_hub", "platformdirs"}),
    ],
)
def test_completion_loads_nothing_heavy(
    line: str, light: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_BT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    done, loaded = bt_alone([], tmp_path)
    assert done.returncode == 0, done.stderr
    assert loaded <= light


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_asks_the_program_by_the_script_that_it_shows(tmp_path: Path) -> None:
    script = CliRunner().invoke(app, [], prog_name="bt", env={"_BT_COMPLETE": "source_bash"})
    assert script.exit_code == 0
    (tmp_path / "bt").write_text('#!/bin/sh\nprintf "%s|" "$COMP_WORDS" "$COMP_CWORD" "$_BT_COMPLETE"\n')
    (tmp_path / "bt").chmod(0o755)
    line = (
        f'{script.stdout}\nCOMP_WORDS=(bt search --device c) COMP_CWORD=3\n_bt_completion bt\necho "${{COMPREPLY[@]}}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([str(BASH), "-c", line], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "bt search --device c|3|complete_bash|\n"
