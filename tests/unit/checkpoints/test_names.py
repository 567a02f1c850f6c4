"""Checkpoints are found by name."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from bridgetower.checkpoints import find
from bridgetower.checkpoints.find import available, resolve
from bridgetower.errors import ModelError
from bridgetower.pictures.preprocess import Preprocessing
from tests.tiny import ALL_HEADS, tiny_checkpoint, tiny_config
from tests.unit.checkpoints.conftest import refusal, run


def test_a_folder_by_any_of_its_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    names = (str(folder), "checkpoint", "./checkpoint", f"../{folder.parent.name}/checkpoint")
    for checkpoint in map(resolve, names):
        assert checkpoint.name == str(folder)
        assert checkpoint.revision == "local"
        assert checkpoint.heads == ALL_HEADS
        assert checkpoint.config == tiny_config()
        assert checkpoint.preprocessing == Preprocessing(96, 96)
        assert checkpoint.tokenizer().encode("two cats").ids[0] == 0


@pytest.mark.usefixtures("cache")
def test_the_demo_model_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(find, "DEMO_FOLDER", folder)
    checkpoint = resolve("demo")
    assert (checkpoint.name, checkpoint.folder, checkpoint.revision) == ("demo", folder, "bundled")
    assert [(model.name, model.heads) for model in available()] == [("demo", ALL_HEADS)]
    monkeypatch.setattr(find, "DEMO_FOLDER", tmp_path / "gone")
    assert "install it again" in refusal("demo")
    assert available() == []


def test_wrong_names(folder: Path, tmp_path: Path) -> None:
    assert "no such folder" in (message := refusal("no-such-thing")) and "demo" in message
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "this is a file" in refusal(folder / "config.json")
    assert "no such folder" in refusal("~nobody-of-that-name/model/x")
    assert "no such folder" in refusal("x" * 300)
    assert "no such folder" in refusal(f"owner/{'x' * 300}")


@pytest.mark.parametrize(
    "name", ["foo/bar--baz", "foo/bar.git", "foo/a..b", f"foo/{'x' * 97}", "-foo/bar", "foo/bar-", "foo/", "/", "a/b/c"]
)
def test_names_that_the_hub_does_not_allow(name: str) -> None:
    assert "no such folder, and no repository id either" in refusal(name) or name == "/"


def test_a_name_out_of_an_index_leads_to_no_folder_of_the_current_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    (tmp_path / "planted").mkdir()
    folder.rename(tmp_path / "planted" / "model")
    monkeypatch.chdir(tmp_path)
    for name in ("planted/model", "./planted/model", "~/planted/model"):
        assert resolve(name).folder == tmp_path / "planted" / "model"
        with pytest.raises(ModelError, match="say where it is with --model"):
            resolve(name, fetch=False)
    assert resolve(str(tmp_path / "planted" / "model"), fetch=False).heads == ALL_HEADS
    assert resolve("demo", fetch=False).name == "demo"


@pytest.mark.parametrize("name", ["x" * 10**6, "/" + "x" * 10**6, "a\nb", "a/b\x1b[31m", ""])
def test_a_name_out_of_an_index_cannot_fill_the_screen(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(name, fetch=False)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


FORBIDDEN = """
import os, sys
from bridgetower.checkpoints.find import resolve
if os.geteuid() == 0:
    os.setuid(65534)  # root may read anything
for name in sys.argv[1:]:
    try:
        resolve(name)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of a folder mean something else on Windows")
def test_a_folder_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as place:  # those of pytest are closed to others
        os.chmod(place, 0o755)
        below = Path(place) / "closed" / "model"
        tiny_checkpoint(below)
        for closed in (below, below.parent):
            closed.chmod(0)
            try:
                [message] = run(FORBIDDEN, below).splitlines()
            finally:
                closed.chmod(0o755)
            assert message.startswith(f"ModelError {below}: cannot be read: Permission denied")
