"""`bt model info`, `bt model remove`."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bridgetower.checkpoints.find import DEMO_FOLDER
from bridgetower.index.writer import IndexWriter
from bridgetower_cli.parser import app
from tests.indexes import FINGERPRINT

COMMIT = "1" * 40
NAME = "some/tiny"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a repository in the cache of the Hub: the demo model under another name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--some--tiny"
    shutil.copytree(DEMO_FOLDER, folder / "snapshots" / COMMIT)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["model", *arguments], prog_name="bt")


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_a_model_is_described_for_people(storage: Path) -> None:
    done = run("info", NAME)
    assert (done.exit_code, done.stderr) == (0, "")
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    facts = dict(rows)
    assert (facts["model"], facts["revision"], facts["licence"]) == (NAME, COMMIT, "apache-2.0")
    assert facts["folder"] == str(storage / "snapshots" / COMMIT)
    assert (facts["heads"], facts["parameters"], facts["vectors"]) == ("ITC ITM MLM", "4.7 million", "of length 128")
    files = [value for name, value in rows if name == "file"]
    assert "config.json (1.31 kB)" in files and len(files) == len(list(DEMO_FOLDER.iterdir()))


def test_a_model_is_described_for_programs(storage: Path) -> None:
    facts = json.loads(run("info", NAME, "--json").stdout)
    assert facts["bytes"] == size_of(DEMO_FOLDER) == sum(file["bytes"] for file in facts["files"])
    assert facts["heads"] == ["itc", "itm", "mlm"] and facts["copies"] == []
    assert facts["towers"]["cross_modal"] == {"layers": 3, "width": 128}
    assert (facts["preprocessing"]["name"], facts["image_size"], facts["dim"]) == ("hf", 96, 128)


def test_what_a_training_run_keeps_beside_its_model_is_told(tmp_path: Path) -> None:
    shutil.copytree(DEMO_FOLDER, tmp_path / "mine")
    kept = tmp_path / "mine" / "run"
    (kept / "tensorboard").mkdir(parents=True)
    (kept / "tensorboard" / "curves").write_bytes(bytes(5000))
    assert json.loads(run("info", str(tmp_path / "mine"), "--json").stdout)["run_bytes"] == 0
    (kept / "settings.json").write_text("{}")
    assert json.loads(run("info", str(tmp_path / "mine"), "--json").stdout)["run_bytes"] == 5002
    assert f"run         5 kB, in {kept}\n" in run("info", str(tmp_path / "mine")).stdout


@pytest.mark.parametrize("command", ["info", "remove"])
def test_a_model_that_is_not_here(command: str, storage: Path) -> None:
    done = run(command, "some/other")
    assert (done.exit_code, done.stdout) == (4, "")
    way_out = "fetch it with `bt model pull some/other`" if command == "info" else "`bt model list` shows the models"
    assert done.stderr.startswith(f"error: some/other is not on this machine: {way_out}")


def test_a_removal_says_what_it_frees_and_a_dry_run_changes_nothing(storage: Path) -> None:
    planned = run("remove", NAME, "--dry-run", "--json")
    assert (planned.exit_code, planned.stderr) == (0, "")
    expected = {"name": NAME, "revisions": 1, "copies": [], "bytes": size_of(DEMO_FOLDER)}
    assert json.loads(planned.stdout) == {**expected, "dry_run": True}
    assert "would free" in run("remove", NAME, "--dry-run").stdout and storage.is_dir()
    done = run("remove", NAME, "--yes", "--json")
    assert json.loads(done.stdout) == {**expected, "dry_run": False}
    assert not storage.exists()


def test_without_a_terminal_nobody_is_asked(storage: Path) -> None:
    done = run("remove", NAME)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {NAME}: nobody can be asked here: give --yes to remove 9.56 MB\n"
    assert storage.is_dir()


@pytest.mark.parametrize(
    ("answer", "removed"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)],
)
def test_on_a_terminal_a_person_is_asked(
    answer: str, removed: bool, storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("bridgetower_cli.render.talks_to_terminal", lambda: True)
    with pytest.raises(SystemExit) as end:
        app(["model", "remove", NAME], prog_name="bt")
    assert end.value.code == 0
    said = capsys.readouterr()
    assert f"Remove {NAME} from this machine, which frees 9.56 MB? [y/N] " in said.err
    assert ("freed" in said.out, "nothing was removed" in said.err) == (removed, not removed)
    assert storage.exists() is not removed


def test_what_is_not_ours_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(DEMO_FOLDER, tmp_path / "mine")
    for name in (str(tmp_path / "mine"), "demo"):
        done = run("remove", name, "--yes")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "is never removed" in done.stderr
    assert size_of(tmp_path / "mine") == size_of(DEMO_FOLDER)


def test_the_libraries_that_were_made_with_a_model_are_named(storage: Path, tmp_path: Path) -> None:
    made = tmp_path / "home" / "data" / "bridgetower" / "libraries"
    for library, model in {"holidays": NAME, "scans": "some/other"}.items():
        IndexWriter.open(made / library, replace(FINGERPRINT, model=model)).close()
    said = run("remove", NAME, "--dry-run").stderr
    assert said == f"note: the library holidays was made with {NAME}: to search it then takes `bt model pull {NAME}`\n"
