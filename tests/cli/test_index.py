"""`bt index`: what it says, what it leaves, and how it ends."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridgetower.checkpoints.find import resolve as resolve_in_earnest
from bridgetower.encoders.runtime import Runtime
from bridgetower.index.roots import nothing_in
from bridgetower.pictures.extras.extra import Extra
from tests.cli.conftest import Bt, Models
from tests.clouds import evict, leave_stub
from tests.fakes import FakeEncoder, paint
from tests.pictures import by_extra, take_away

FORMAT_2 = Path(__file__).parents[1] / "data" / "index-format-2"


def test_it_counts_what_it_did(bt: Bt, photos: Path) -> None:
    done = bt("index", photos)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "indexed 4, reused 0, unchanged 0, removed 0, skipped 0: 4 files" in done.stderr

    (photos / "copy.png").write_bytes((photos / "red.png").read_bytes())
    (photos / "green.png").unlink()
    done = bt("index", photos)
    assert "indexed 0, reused 1, unchanged 3, removed 1, skipped 0: 4 files" in done.stderr


def test_files_that_cannot_be_read_are_named_and_the_rest_is_indexed(bt: Bt, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "empty.jpg").write_bytes(b"")
    done = bt("index", photos)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "skipped photos/bad.jpg: not a picture" in done.stderr
    assert "skipped photos/empty.jpg: the file is empty" in done.stderr
    assert "indexed 4, reused 0, unchanged 0, removed 0, skipped 2: 6 files" in done.stderr
    assert len(bt("search", "red", "--paths").stdout.splitlines()) == 4


def test_pictures_of_more_pixels_than_allowed_are_skipped(bt: Bt, photos: Path) -> None:
    paint(photos / "large.png", "red", size=(1000, 501))
    done = bt("index", photos, "--max-pixels", "0.5MP")
    assert done.exit_code == 3
    assert "skipped photos/large.png: 0.5 megapixels, more than the limit of 0.5; --max-pixels" in done.stderr
    assert "indexed 4" in done.stderr


@pytest.mark.parametrize("number", ["0", "many", "2GB", "-5", "0.1", "99999999MP"])
def test_what_is_no_number_of_pixels_is_wrong_usage(bt: Bt, photos: Path, number: str) -> None:
    done = bt("index", photos, f"--max-pixels={number}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "200MP" in done.stderr and done.stderr.count("\n") == 1


def test_files_of_other_kinds_are_counted_and_pictures_that_need_an_extra_too(
    bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.mp4"):
        (photos / name).write_bytes(b"x")
    for name in ("c.HEIC", "d.heic", "e.nef"):
        (photos / name).write_bytes(by_extra(Extra.HEIF))
    with monkeypatch.context() as patched:
        take_away(Extra.HEIF, patched)
        for _ in range(2):
            done = bt("index", photos)
            assert (done.exit_code, done.stdout) == (0, "")
            note, last = done.stderr.splitlines()
            assert note.startswith("note: 3 pictures need the extra heif and cannot be indexed without it: ")
            assert "pip install" in note
            assert "skipped 0, without their extra 3: 7 files" in last and last.endswith(
                "; ignored 2 files of other kinds"
            )
    assert "indexed 1, reused 2, unchanged 4" in bt("index", photos).stderr


def test_skipped_files_are_named_again_as_long_as_they_are_there(bt: Bt, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    bt("index", photos)
    done = bt("index", photos)
    assert done.exit_code == 3
    assert "skipped photos/bad.jpg" in done.stderr


def test_a_path_that_does_not_exist_is_an_error_before_a_model_is_fetched(
    bt: Bt, photos: Path, models: Models, tmp_path: Path
) -> None:
    done = bt("index", photos / "nowhere")
    assert (done.exit_code, done.stdout) == (6, "")
    assert done.stderr.startswith("error: ") and "nowhere" in done.stderr
    assert models.resolved == []
    assert not (tmp_path / "index").exists()


def test_nothing_to_do_loads_no_weights(bt: Bt, library: Path, models: Models) -> None:
    models.loaded.clear()
    assert bt("index", library).exit_code == 0
    assert models.loaded == []


def test_an_index_keeps_its_model(bt: Bt, photos: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bt("index", photos, "--model", "mine").exit_code == 0
    paint(photos / "new.png", (9, 99, 199))
    models.resolved.clear()
    done = bt("index", photos)  # BT_MODEL=fake
    assert (done.exit_code, models.resolved) == (0, ["mine"])
    assert "keeps its model mine" in done.stderr


def test_another_model_is_refused_and_nothing_is_lost(bt: Bt, library: Path) -> None:
    done = bt("index", library, "--model", "other")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "--index" in done.stderr
    assert len(bt("search", "red", "--paths").stdout.splitlines()) == 4


def test_an_index_without_pictures_goes_on_with_the_model_that_it_was_begun_with(
    bt: Bt, photos: Path, tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BT_MODEL", raising=False)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.jpg").write_bytes(b"no picture")
    assert bt("index", tmp_path / "bad", "--model", "first").exit_code == 3
    assert bt("index", photos).exit_code == 0
    assert json.loads(bt("status", "--json").stdout)["model"] == "first"
    assert set(models.resolved) == {"first"}


def test_an_index_without_pictures_takes_the_model_that_is_asked_for(
    bt: Bt, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nothing").mkdir()
    assert bt("index", "nothing", "--model", "first").exit_code == 0
    monkeypatch.setenv("BT_MODEL", "second")
    assert bt("index", photos).exit_code == 0
    assert json.loads(bt("status", "--json").stdout)["model"] == "second"


def test_what_lies_on_a_disk_that_is_not_there_is_kept(bt: Bt, library: Path) -> None:
    for picture in library.iterdir():
        picture.unlink()
    done = bt("index", library)
    assert done.exit_code == 0
    assert "is kept" in done.stderr


def test_an_index_elsewhere(bt: Bt, photos: Path, tmp_path: Path) -> None:
    assert bt("index", photos, "--index", tmp_path / "elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere" / "manifest.sqlite").exists()
    assert not (tmp_path / "index").exists()
    assert bt("search", "red", "--index", tmp_path / "elsewhere").exit_code == 0


def test_a_folder_of_something_else_is_not_taken_for_an_index(bt: Bt, photos: Path) -> None:
    done = bt("index", photos, "--index", photos)
    assert done.exit_code == 5
    assert sorted(path.name for path in photos.iterdir()) == ["blue.png", "green.png", "red.png", "white.png"]


def test_the_folder_of_the_index_is_no_folder_of_pictures(bt: Bt, library: Path, models: Models) -> None:
    own = library.parent / "index"
    paint(own / "features" / "red.png", "red")
    (library / "link").symlink_to(own)
    models.resolved.clear()
    for path, lies in (("index", "is"), (own / "features", "lies in"), (library / "link" / "features", "lies in")):
        done = bt("index", library, path, "--model", "other")
        assert (done.exit_code, done.stdout, models.resolved) == (2, "", [])
        assert done.stderr.startswith(f"error: {path}: {lies} the folder of the index itself: ")
    (library.parent / "new").mkdir()
    assert bt("index", "new", "--index", "new").exit_code == 2
    assert not any((library.parent / "new").iterdir())
    for around in (["."], [library, "--follow-symlinks"]):
        done = bt("index", *around, "--hidden")
        assert "unchanged 4, removed 0, skipped 0: 4 files" in done.stderr and "ignored" not in done.stderr


def test_it_wants_a_path(bt: Bt) -> None:
    assert bt("index").exit_code == 2


@pytest.mark.parametrize(
    "arguments", [[""], ["photos", ""], ["photos", "--index", ""], ["photos", "--index", "~nosuchuser/x"]], ids=" ".join
)
def test_a_path_that_names_nothing_is_wrong_usage(bt: Bt, photos: Path, arguments: list[str]) -> None:
    done = bt("index", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]


@pytest.mark.parametrize("model", [[], ["--model", "mine"]], ids=" ".join)
def test_a_damaged_index_is_told_before_a_model_is_fetched(
    bt: Bt, library: Path, models: Models, model: list[str]
) -> None:
    catalog = library.parent / "index" / "manifest.sqlite"
    for log in catalog.parent.glob("manifest.sqlite-*"):
        log.unlink()
    catalog.write_bytes(b"no database, and long enough not to be taken for an empty one" * 20)
    models.resolved.clear()
    done = bt("index", library, *model)
    assert (done.exit_code, models.resolved) == (5, [])
    assert "damaged" in done.stderr


def test_a_place_that_is_taken_is_told_before_a_model_is_fetched(bt: Bt, photos: Path, models: Models) -> None:
    for place in (photos, photos / "red.png"):
        assert bt("index", photos, "--index", place).exit_code == 5
    assert models.resolved == []


def test_a_model_folder_that_has_moved_is_asked_for_and_its_new_place_remembered(
    bt: Bt, photos: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str, **options: object) -> SimpleNamespace:
        """Folders, all with the same weights; of one that is gone, the real one tells."""
        if not (tmp_path / name).is_dir():
            resolve_in_earnest(name, fetch=False)
        encoder = models.encoder_type()
        encoder.fingerprint = replace(encoder.fingerprint, model=str(tmp_path / name))
        return models.checkpoint(name, encoder)

    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", resolve)
    (tmp_path / "old").mkdir()
    assert bt("index", photos, "--model", "old").exit_code == 0
    (tmp_path / "old").rename(tmp_path / "new")
    paint(photos / "new.png", (9, 99, 199))
    for command in (["index", photos], ["search", "red"]):
        done = bt(*command)
        assert (done.exit_code, done.stdout) == (4, "")
        assert str(tmp_path / "old") in done.stderr and "--model" in done.stderr
    assert bt("index", photos, "--model", "new").exit_code == 0
    assert bt("search", "red").exit_code == 0
    assert bt("index", photos).exit_code == 0


def test_an_index_keeps_its_preprocessing(bt: Bt, photos: Path) -> None:
    assert bt("index", photos, "--preprocessing", "plain").exit_code == 0
    assert json.loads(bt("status", "--json").stdout)["preprocessing"] == "plain"
    paint(photos / "new.png", (10, 20, 30))
    assert "indexed 1" in bt("index", photos).stderr
    assert bt("search", "red").exit_code == 0
    refused = bt("index", photos, "--preprocessing", "hf")
    assert refused.exit_code == 5
    assert "preprocessing" in refused.stderr


def test_an_unknown_preprocessing_is_wrong_usage(bt: Bt, photos: Path) -> None:
    refused = bt("index", photos, "--preprocessing", "square")
    assert refused.exit_code == 2
    assert "hf, plain" in refused.stderr


def test_what_is_left_out(bt: Bt, photos: Path) -> None:
    (photos / ".btignore").write_text("red.png\n")
    paint(photos / ".hidden.png", (1, 2, 3))
    (photos / "link.png").symlink_to(photos / "blue.png")
    done = bt("index", photos, "--exclude", "gr*", "--exclude", "/white.png")
    assert done.exit_code == 0
    assert "indexed 1, " in done.stderr and "1 file in" in done.stderr
    assert done.stderr.endswith("; left out 3 by patterns; passed over 1 link (--follow-symlinks)\n")
    done = bt("index", photos, "--hidden", "--follow-symlinks")
    assert "indexed 3, reused 1, unchanged 1, removed 0, skipped 0: 5 files" in done.stderr
    assert "passed over" not in done.stderr


def test_what_is_left_out_by_default_is_counted_and_named_when_it_was_indexed(bt: Bt, photos: Path) -> None:
    for name in ("@eaDir/red.png/SYNOPHOTO_THUMB_M.png", "@eaDir/red.png/SYNOPHOTO_THUMB_XL.png", "#recycle/a.png"):
        paint(photos / name, (len(name), 2, 3))
    assert "indexed 7" in bt("index", photos, "--no-default-excludes").stderr
    left_out = "note: left out 2 pictures in @eaDir, 1 in recycle bins (--no-default-excludes takes them in)\n"
    dropped = (
        "note: 3 indexed pictures in @eaDir and recycle bins are left out now, as in photos/@eaDir, photos/#recycle; "
        "--no-default-excludes takes them in again without encoding, until `bt prune`\n"
    )
    done = bt("index", photos)
    assert done.exit_code == 0
    assert done.stderr.startswith(
        left_out + dropped + "indexed 0, reused 0, unchanged 4, removed 3, skipped 0: 4 files"
    )
    again = bt("index", photos)
    assert again.stderr.startswith(left_out + "indexed 0, reused 0, unchanged 4, removed 0")
    done = bt("index", photos, "--no-default-excludes")
    assert done.stderr.startswith("indexed 0, reused 3, unchanged 4")


def test_a_single_picture_that_is_left_out_by_default(bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(photos / "@eaDir" / "a.png", (1, 2, 3))
    bt("index", photos, "--no-default-excludes")
    done = bt("index", photos)
    assert "note: left out 1 picture in @eaDir (" in done.stderr
    assert "note: 1 indexed picture in @eaDir is left out now, as in photos/@eaDir; " in done.stderr
    monkeypatch.setattr("bridgetower.files.ignore._MOST_COUNTED", 1)
    assert "note: left out at least 1 picture" in bt("index", photos).stderr


def test_pictures_in_the_cloud_are_counted_and_never_opened(
    bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bt("index", photos)
    evict(monkeypatch, photos / "red.png")
    leave_stub(photos / "new.png")
    done = bt("index", photos)
    assert done.exit_code == 0
    assert done.stderr.startswith(
        "note: 2 pictures are in the cloud only: not opened, as that would download them\n"
        "indexed 0, reused 0, unchanged 3, removed 0, skipped 0: 3 files"
    )
    note = "note: 1 picture is in the cloud only: not opened, as that would download it\n"
    found = bt("search", "red", "--json")
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert note in found.stderr
    assert {Path(row["path"]).name for row in rows if not row["verified"]} == {"red.png"}
    none = bt("search", "red", "--min-match", "0.9")
    assert (none.exit_code, none.stdout) == (1, "") and note in none.stderr
    assert note in bt("fill", "a <mask>").stderr


def test_a_pattern_that_is_none_is_wrong_usage(bt: Bt, photos: Path, models: Models) -> None:
    done = bt("index", photos, "--exclude", "[a")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: '[a' is no pattern")
    assert models.resolved == [] and not (photos.parent / "index").exists()


def test_a_line_of_a_btignore_that_is_no_pattern_is_named(bt: Bt, photos: Path) -> None:
    (photos / ".btignore").write_text("red.png\n!\n")
    done = bt("index", photos)
    assert done.exit_code == 3
    assert "skipped photos/.btignore: '!' is no pattern" in done.stderr
    assert "indexed 3" in done.stderr


def test_skipped_files_can_be_tried_again(bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    bt("index", photos)
    whole = (photos / "red.png").read_bytes()
    monkeypatch.setattr("bridgetower.files.content.read", lambda path: whole)
    assert "skipped 1:" in bt("index", photos).stderr
    done = bt("index", photos, "--retry")
    assert done.exit_code == 0
    assert "indexed 0, reused 1, unchanged 4, removed 0, skipped 0: 5 files" in done.stderr


def test_no_model_is_looked_for_where_there_is_nothing_to_encode(bt: Bt, library: Path, models: Models) -> None:
    models.resolved.clear()
    (library / "red.png").rename(library / "renamed.png")
    assert "reused 1" in bt("index", library).stderr
    assert models.resolved == []


def test_weights_that_have_changed_under_their_name_are_refused_when_they_are_needed(
    bt: Bt, library: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(name: str, **options: object) -> SimpleNamespace:
        return models.checkpoint(name, FakeEncoder(weights="changed"))

    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", other)
    assert bt("index", library).exit_code == 0
    paint(library / "new.png", (9, 99, 199))
    done = bt("index", library)
    assert (done.exit_code, done.stdout) == (5, "")
    assert "weights" in done.stderr and "--index" in done.stderr
    assert json.loads(bt("status", "--json").stdout)["files"] == 4


def test_an_index_of_an_older_format_is_brought_forward(bt: Bt, photos: Path, models: Models) -> None:
    index = photos.parent / "index"
    shutil.copytree(FORMAT_2, index)
    models.encoder_type = FakeEncoder
    done = bt("index", photos)  # the model of that index is not here, and pictures are to be encoded
    assert (done.exit_code, "some/model" in done.stderr) == (4, True)
    assert bt("status").exit_code == 0


def begun_in(models: Models, family: str) -> None:
    """From now on models make indexes of this family."""

    def in_family(**options: Any) -> FakeEncoder:
        encoder = FakeEncoder(**options)
        encoder.fingerprint = replace(encoder.fingerprint, precision_family=family)
        return encoder

    models.encoder_type = in_family


@pytest.mark.parametrize(
    ("family", "variable", "option", "taken"),
    [
        ("float", "int8", None, "auto"),  # what the environment says is for new indexes
        ("float", "bf16", None, "bf16"),
        ("float", None, "int8", "int8"),  # what was asked for is refused by the index, or not
        ("int8", None, None, "int8"),
        ("int8", "bf16", None, "int8"),
        ("int8", "int8", None, "int8"),
        ("int8", "int8", "fp32", "fp32"),
    ],
)
def test_an_index_keeps_its_precision(
    bt: Bt,
    models: Models,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    variable: str | None,
    option: str | None,
    taken: str,
) -> None:
    begun_in(models, family)
    assert bt("index", photos).exit_code == 0
    paint(photos / "new.png", (9, 99, 199))
    asked: list[str] = []

    def choose_runtime(device: str, precision: str) -> Runtime:
        asked.append(precision)
        return Runtime(device, precision, "as the test says")

    monkeypatch.setattr("bridgetower.encoders.runtime.choose_runtime", choose_runtime)
    if variable:
        monkeypatch.setenv("BT_PRECISION", variable)
    done = bt("index", photos, *(["--precision", option] if option else []))
    assert done.exit_code == 0
    assert asked == [taken]
    kept = "int8" if family == "int8" else "fp32 or bf16"
    told = f"the index keeps its precision, {kept}; {variable} is for new ones" in done.stderr
    assert told == (option is None and variable is not None and taken != variable)


def test_a_device_that_is_not_there_is_refused_also_where_there_is_nothing_to_do(bt: Bt, library: Path) -> None:
    done = bt("index", library, "--device", "mps" if sys.platform != "darwin" else "cuda")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--device auto" in done.stderr


def test_what_the_index_knows_and_is_gone_is_told_as_such(bt: Bt, library: Path) -> None:
    """Also where a link of that name is left."""
    away = library.rename(library.with_name("away"))
    for link in (False, True):
        if link:
            library.symlink_to(library.with_name("nowhere"))
        done = bt("index", library)
        assert (done.exit_code, done.stdout) == (6, "")
        assert done.stderr == f"error: {nothing_in(library)}\n"
    library.unlink()
    away.rename(library)
    assert "unchanged 4" in bt("index", library).stderr
