"""The folder of a run: new, vacant or with the same run in it; everything else stays as it is."""

import json
from pathlib import Path

import pytest

from bridgetower.errors import LockedError, ModelError, OutputError, UsageError
from bridgetower.training.run.folder import RunFolder

SETTINGS = {"--val-split": "val", "--lr": 5e-6, "--split": [], "augmentation": False}
CONTENTS = {"data": "d1", "model": "m1"}


def begun(out: Path) -> RunFolder:
    folder = RunFolder(out, SETTINGS)
    folder.make()
    folder.begin(CONTENTS, writes=True)
    return folder


def test_a_new_run_begins_and_the_same_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "model"
    first = RunFolder(out, SETTINGS)
    assert not out.exists()
    first.make()
    name = first.begin(CONTENTS, writes=True)
    assert RunFolder(out, SETTINGS).begin(CONTENTS, writes=True) == name
    assert RunFolder(tmp_path / "other", {**SETTINGS, "--lr": 1e-5}).begin(CONTENTS, writes=False) != name
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "--lr": 1e-5}, "the run in it has --lr 5e-06, not 1e-05; give the same to go on with it, or"),
        ({**SETTINGS, "--split": ["a"]}, 'the run in it has --split none, not ["a"]; '),
        ({"--lr": 1, "--split": [], "--val-split": "b"}, 'the run in it has --lr 5e-06, not 1 and --val-split "val", '),
        ({**SETTINGS, "augmentation": True}, "the run in it has augmentation off, not on; "),
    ],
)
def test_another_setting_is_refused_by_name(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        RunFolder(tmp_path, settings)
    assert str(caught.value).startswith(f"{tmp_path}: {message}")


@pytest.mark.parametrize(("name", "what"), [("data", "the content of the data"), ("model", "the --init model")])
def test_other_data_or_weights_are_refused(tmp_path: Path, name: str, what: str) -> None:
    begun(tmp_path)
    with pytest.raises(UsageError, match=f": changed since the run in it began: {what}"):
        RunFolder(tmp_path, SETTINGS).begin({**CONTENTS, name: "other"}, writes=True)


def test_a_run_of_an_earlier_version_has_the_defaults_of_later_options(tmp_path: Path) -> None:
    name = begun(tmp_path).begin(CONTENTS, writes=False)
    later, defaults = {**SETTINGS, "--later": 3}, {"--lr": 1.0, "--later": 3}
    assert RunFolder(tmp_path, later, defaults).begin(CONTENTS, writes=True) == name
    with pytest.raises(UsageError, match="has --later 3, not 4"):
        RunFolder(tmp_path, {**SETTINGS, "--later": 4}, defaults)


def test_another_machine_may_go_on_and_is_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.make()
    assert folder.changed({"torch": "2.9"}) == ()
    name = folder.begin(CONTENTS, writes=True, machine={"torch": "2.9", "threads": 4})
    assert folder.begin(CONTENTS, writes=True, machine={"torch": "2.10", "threads": 4}) == name
    assert folder.changed({"torch": "2.10", "threads": 4}) == ("torch 2.10, not 2.9",)


def test_the_notes_of_a_check_make_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pictures.jsonl").write_text("")
    (tmp_path / "run" / ".settings.json.0123abcd.partial").write_text("{")
    assert RunFolder(tmp_path, {**SETTINGS, "--lr": 1.0}).begin(CONTENTS, writes=True)


@pytest.mark.parametrize("name", ["config.json", "holiday.jpg", "run/notes.txt"])
def test_what_is_no_run_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="there is something in it, but no run to go on with; give a new folder"):
        RunFolder(tmp_path, SETTINGS)
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(UsageError, match="this is a file; give a new folder"):
        RunFolder(tmp_path / "model", SETTINGS)


@pytest.mark.parametrize("content", [b'{"settings', b"\xff\xfe", b"[1]"])
def test_damaged_settings_are_told(tmp_path: Path, content: bytes) -> None:
    begun(tmp_path)
    (tmp_path / "run" / "settings.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"settings\.json: .* put a copy of it back, or give a new folder with --out"):
        RunFolder(tmp_path, SETTINGS)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = begun(tmp_path), RunFolder(tmp_path, SETTINGS)
    with first.locked(), pytest.raises(LockedError, match="has been writing this run since"), second.locked():
        pass
    with second.locked():
        pass


def test_a_lock_that_cannot_be_written_is_no_fault_of_an_index(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    (tmp_path / "run" / "lock").mkdir()
    with pytest.raises(OutputError, match=r"lock: .* left as it is"), folder.locked():
        pass


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    left = [tmp_path / ".model.safetensors.0123abcd.partial", tmp_path / "run" / ".state.pt.0123abcd.partial"]
    for path in left:
        path.write_bytes(b"half")
    (tmp_path / "mine.partial").write_text("mine")
    with folder.locked():
        assert not any(path.exists() for path in left)
    assert (tmp_path / "mine.partial").exists()


def test_a_finished_run_is_known(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    assert folder.result() is None
    folder.finish({"step": 8, "best": None})
    assert RunFolder(tmp_path, SETTINGS).result() == {"step": 8, "best": None}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == 8
