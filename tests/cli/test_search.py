"""`bt search`: formats, thresholds, and which model answers."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from typer.testing import Result

import bridgetower.checkpoints.find
from bridgetower.errors import ModelError
from bridgetower.index.roots import KEPT
from bridgetower.index.writer import IndexWriter
from bridgetower.records import Head
from bridgetower_cli.settings import DEFAULT_MODEL
from tests.cli.conftest import Bt, Models
from tests.conftest import Zone
from tests.fakes import COLOURS, paint

RESOLVE = bridgetower.checkpoints.find.resolve  # the real one: tests have another in its place


def lines(done: Result) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_lines_hold_the_fields_that_are_promised(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--json", "--depth", 2)
    assert (done.exit_code, done.stderr) == (0, "")
    first, second, third, fourth = lines(done)
    assert first == {
        "rank": 1,
        "path": str(library / "red.png"),
        "match": pytest.approx(0.88, abs=0.02),
        "similarity": pytest.approx(1, abs=1e-3),
        "verified": True,
        "taken_at": None,
        "width": 40,
        "height": 32,
        "hash": hashlib.sha256((library / "red.png").read_bytes()).hexdigest(),
        "paths": [str(library / "red.png")],
    }
    assert second["path"] == str(library / "white.png") and second["verified"] is True
    assert (third["rank"], third["match"], third["verified"]) == (3, None, False)
    assert fourth["similarity"] <= third["similarity"]


def test_the_table_shows_both_scores_and_paths_from_here(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--depth", 1, "--top", 2)
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["match", "similarity", "picture"]
    assert first.split()[1:] == ["1.000", "photos/red.png"]
    assert second.split()[0] == "unverified"


def test_copies_and_pairs_are_marked_and_named(bt: Bt, library: Path) -> None:
    for name in ("b.png", "deep/a.png"):
        (library / name).parent.mkdir(exist_ok=True)
        shutil.copy(library / "red.png", library / name)
    shutil.copy(library / "blue.png", library / "IMG_20190704_101500.png")
    paint(library / "painted.png", (0, 9, 250)).rename(library / "IMG_20190704_101500.CR2")
    assert bt("index", library).exit_code == 0
    for options in ([], ["--no-rerank"]):
        table = bt("search", "red", *options).stdout.splitlines()
        assert [row.split(maxsplit=2 - len(options))[-1] for row in table[1:2]] == ["photos/b.png (+2)"]
        assert [row.partition("photos/")[2] for row in table if "/white" in row] == ["white.png"]
    [row, *_] = lines(bt("search", "red", "--json"))
    assert row["paths"] == [str(library / name) for name in ("b.png", "deep/a.png", "red.png")]
    [row] = lines(bt("search", "red", "--json", "--under", library / "deep"))
    assert row["paths"] == [str(library / name) for name in ("deep/a.png", "b.png", "red.png")]
    [row] = lines(bt("search", "--image", library / "red.png", "--self", "--top", 1, "--json"))
    assert row["paths"] == [str(library / name) for name in ("red.png", "b.png", "deep/a.png")]
    [row] = lines(bt("search", "blue", "--top", 1, "--json"))
    assert (row["path"], row["taken_at"]) == (str(library / "IMG_20190704_101500.png"), "2019-07-04T10:15:00")
    assert row["paths"] == [str(library / f"{name}") for name in (
        "IMG_20190704_101500.png", "IMG_20190704_101500.CR2", "blue.png"
    )]  # fmt: skip
    assert bt("search", "blue", "--top", 1, "--paths").stdout == f"{row['path']}\n"


def test_without_verification_there_is_no_match_to_show(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--no-rerank")
    assert done.stdout.splitlines()[0].split() == ["similarity", "picture"]
    assert {row["match"] for row in lines(bt("search", "red", "--no-rerank", "--json"))} == {None}


def test_bare_paths(bt: Bt, library: Path) -> None:
    assert bt("search", "red", "--paths", "--top", 1).stdout == f"{library / 'red.png'}\n"
    assert bt("search", "red", "-0", "--top", 1).stdout == f"{library / 'red.png'}\0"
    assert bt("search", "red", "--null", "--top", 1).stdout == f"{library / 'red.png'}\0"


def test_fewer_results_are_the_first_of_more(bt: Bt, library: Path) -> None:
    every = bt("search", "green", "--json").stdout.splitlines()
    assert len(every) == len(COLOURS)
    assert bt("search", "green", "--json", "--top", 2).stdout.splitlines() == every[:2]


def test_a_picture_as_the_query(bt: Bt, library: Path, tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", (10, 10, 250))
    [first, *rest] = lines(bt("search", "--image", query, "--json"))
    assert first["path"] == str(library / "blue.png")
    assert not any(row["verified"] for row in [first, *rest])


def test_several_query_pictures_count_alike(bt: Bt, library: Path) -> None:
    red, blue = library / "red.png", library / "blue.png"
    for arguments in ([red, blue], [blue, red]):
        found = lines(bt("search", *(word for image in arguments for word in ("--image", image)), "--self", "--json"))
        similarity = {row["path"]: row["similarity"] for row in found}
        assert similarity[str(red)] == pytest.approx(similarity[str(blue)], abs=0.01)
        assert similarity[str(red)] > similarity[str(library / "green.png")]
    [first, *_] = lines(bt("search", "--image", red, "--image", red, "--image", blue, "--self", "--json"))
    assert first["path"] == str(red)
    done = bt("search", "--image", red, "--image", "nowhere.png")
    assert (done.exit_code, done.stdout) == (6, "") and "nowhere.png" in done.stderr


def test_a_search_by_picture_may_be_cut_by_similarity(bt: Bt, library: Path) -> None:
    every = lines(bt("search", "--image", library / "red.png", "--self", "--json"))
    least = (every[1]["similarity"] + every[2]["similarity"]) / 2
    kept = bt("search", "--image", library / "red.png", "--self", "--json", "--min-similarity", least)
    assert lines(kept) == every[:2]
    (library / "red.png").rename(library.parent / "red.png")
    bt("index", library)
    done = bt("search", "--image", "red.png", "--min-similarity", "0.9999")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"no match: the most similar picture has {every[1]['similarity']:.3f}\n"
    for arguments in (["red"], ["red", "--image", "red.png"]):
        done = bt("search", *arguments, "--min-similarity", "0.5")
        assert (done.exit_code, done.stdout) == (2, "") and "with a text, give a least match" in done.stderr


def test_a_query_that_nothing_fits_says_so(bt: Bt, library: Path) -> None:
    for form in ([], ["--json"], ["--paths"]):
        (library / "red.png").touch()
        done = bt("search", "red", *form)
        assert done.stderr == ""
    (library / "red.png").unlink()
    bt("index", library)
    for form in ([], ["--json"], ["--paths"]):
        done = bt("search", "red", *form)
        assert done.exit_code == 0 and len(done.stdout.splitlines()) == (4 if form == [] else 3)
        assert re.fullmatch(
            r"note: nothing fits well: the best of 3 verified pictures has 0\.[0-4]\d\d; --min-match keeps only what "
            r"fits\n",
            done.stderr,
        )
    assert bt("search", "red", "--no-rerank").stderr == bt("search", "--image", library / "blue.png").stderr == ""
    assert bt("search", "red", "--min-match", "0").stderr == ""


def test_a_least_match_has_a_default(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_MIN_MATCH", "0.5")
    assert len(lines(bt("search", "red", "--json"))) == 1
    assert len(lines(bt("search", "red", "--json", "--min-match", "0"))) == 4
    for unverified in (["red", "--no-rerank"], ["red", "--depth", "0"], ["--self", "--image", library / "red.png"]):
        assert len(lines(bt("search", *unverified, "--json"))) == 4
    assert bt("rerank", "red", input="photos/red.png\nphotos/blue.png\n").stdout == "photos/red.png\n"
    monkeypatch.setenv("BT_MIN_MATCH", "50%")
    done = bt("search", "red")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: BT_MIN_MATCH: '50%': a probability is between 0 and 1, as 0.5\n",
    )


def test_a_quiet_command_says_its_errors_alone(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower_cli.progress._LINE_EVERY_S", 0.0)
    (library / "bad.jpg").write_bytes(b"no picture")
    done = bt("index", library, "-q")
    assert (done.exit_code, done.stderr) == (3, "")
    assert bt("search", "red " * 300, "--quiet").stderr == ""
    done = bt("search", "red", "--min-match", "0.99", "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "")
    assert bt("search", "-q").stderr.startswith("error: nothing to search for")
    assert bt("-q", "search", "red").exit_code == 2
    assert "searching:" in bt("search", "red").stderr  # the next command in this process says all


def test_a_query_picture_that_cannot_be_read(bt: Bt, library: Path) -> None:
    done = bt("search", "--image", "nowhere.png")
    assert (done.exit_code, done.stdout) == (6, "")
    assert "nowhere.png" in done.stderr


def test_no_match_is_an_answer(bt: Bt, library: Path) -> None:
    kept = bt("search", "red", "--min-match", 0.5, "--paths")
    assert (kept.exit_code, kept.stdout) == (0, f"{library / 'red.png'}\n")
    for form in ([], ["--json"], ["--paths"], ["-0"]):
        none = bt("search", "red", "--min-match", 0.99, *form)
        assert (none.exit_code, none.stdout) == (1, "")
        said = '{"no_match": "' if form == ["--json"] else "no match: "
        assert none.stderr.startswith(f"{said}the best of 4 verified pictures has 0.8")


def test_an_empty_index_is_said_to_be_empty(bt: Bt, photos: Path, tmp_path: Path, models: Models) -> None:
    (tmp_path / "nothing").mkdir()
    bt("index", "nothing")
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is empty" in done.stderr and "bt index" in done.stderr
    assert models.loaded == []


def test_no_index_is_said_with_the_way_out(bt: Bt, photos: Path) -> None:
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "bt index" in done.stderr and str(photos.parent / "index") in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["  "],
        ["red", "--top", "0"],
        ["red", "--top", "many"],
        ["red", "--depth", "-1"],
        ["red", "--min-match", "1.5"],
        ["red", "--min-match", "-0.1"],
        ["red", "--min-match", "nan"],
        ["red", "--min-match", "0.5", "--no-rerank"],
        ["red", "--min-match", "0.5", "--depth", "0"],
        ["--image", "red.png", "--min-match", "0.5"],
        ["red", "--no-rerank", "--depth", "5"],
        ["red", "--since", "2024-05", "--before", "2024-04-30T23:59"],
        ["red", "--since", "2024", "--before", "2024"],
        ["red", "--taken", "2024", "--since", "2020"],
        ["red", "--taken", "2024..2023"],
        ["red", "--taken", "soon"],
        ["red", "--json", "--paths"],
        ["red", "--json", "-0"],
        ["red", "--device", "abacus"],
        ["red", "--precision", "fp7"],
        ["red", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_before_anything_is_looked_for(bt: Bt, photos: Path, arguments: list[str]) -> None:
    done = bt("search", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith('{"error": ' if "--json" in arguments else "error: ") and done.stderr.count("\n") == 1


def test_the_model_is_that_of_the_index_whatever_the_environment_says(
    bt: Bt, library: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BT_MODEL", "other")
    models.resolved.clear()
    assert bt("search", "red").exit_code == 0
    assert models.resolved == ["fake"]


def test_another_model_is_refused(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--model", "other")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "fake" in done.stderr


def test_a_model_folder_that_has_moved_is_asked_for(
    bt: Bt, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bt("index", photos, "--model", "moved")
    with IndexWriter.resume(tmp_path / "index") as writer, writer.catalog.transaction():
        made_by = replace(writer.catalog.fingerprint(), model=str(tmp_path / "moved"))
        writer.catalog.set_fingerprint(made_by)
    with monkeypatch.context() as real:
        real.setattr("bridgetower.checkpoints.find.resolve", RESOLVE)
        done = bt("search", "red")
    assert done.exit_code == 4
    assert "--model" in done.stderr and str(tmp_path / "moved") in done.stderr
    assert bt("search", "red", "--model", "moved").exit_code == 0


@pytest.mark.parametrize("command", [["search", "red"], ["fill", "a <mask>"], ["index", "photos"]], ids=" ".join)
def test_a_model_is_fetched_where_a_person_names_it_and_not_where_an_index_does(
    command: list[str], bt: Bt, library: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(library / "new.png", (9, 99, 199))  # so that there is something to encode
    real, fetched = models.resolve, []

    def resolve(name: str, *, fetch: bool, **options: object) -> object:
        fetched.append((name, fetch))
        raise ModelError(f"{name} is not here")

    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", resolve)
    for model in ("other", "fake"):
        monkeypatch.setenv("BT_MODEL", model)
        assert bt(*command).exit_code == 4
    monkeypatch.delenv("BT_MODEL")
    assert bt(*command).exit_code == 4
    assert bt(*command, "--model", "fake").exit_code == 4
    assert fetched == [("fake", False), ("fake", True), ("fake", False), ("fake", True)]
    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", real)
    assert bt(*command).exit_code == 0


def test_the_default_model_is_not_fetched_either_because_an_index_names_it(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexWriter.resume(library.parent / "index") as writer, writer.catalog.transaction():
        writer.catalog.set_fingerprint(replace(writer.catalog.fingerprint(), model=DEFAULT_MODEL))
    monkeypatch.delenv("BT_MODEL")
    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", RESOLVE)
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == (
        f"error: {DEFAULT_MODEL}: the index was made with this model, which is not on this machine: fetch it with "
        f"`bt model pull {DEFAULT_MODEL}`, or say where it is with --model\n"
    )


def test_a_model_without_matching_head_can_still_recall(bt: Bt, photos: Path, models: Models) -> None:
    models.heads = frozenset({Head.ITC})
    bt("index", photos)
    done = bt("search", "red")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "bridgetower-large-itm-mlm-itc; or verify nothing: --no-rerank, or a depth of 0" in done.stderr
    assert [bt("search", "red", *fast).exit_code for fast in (["--no-rerank"], ["--depth", 0])] == [0, 0]


@pytest.mark.parametrize("arguments", [[], ["--no-rerank"], ["--depth", "1"]], ids=" ".join)
def test_pictures_that_vanished_are_counted_and_left_out(bt: Bt, library: Path, arguments: list[str]) -> None:
    (library / "red.png").unlink()
    done = bt("search", "red", "--paths", *arguments)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 3)
    assert str(library / "red.png") not in done.stdout
    gone, *others = done.stderr.splitlines()
    assert gone.startswith("note: passed over 1 picture whose files are gone") and "bt index" in gone
    assert [line.partition(":")[2][:18] for line in others] == (
        [] if arguments == ["--no-rerank"] else [" nothing fits well"]
    )


@pytest.mark.parametrize("left", [False, True])
def test_a_folder_that_is_away_is_said_to_be_by_every_command(bt: Bt, library: Path, left: bool) -> None:
    """Or one in which nothing is left, as where a disk is not mounted."""
    alone = paint(library.parent / "alone" / "black.png", "red", size=(50, 50))
    bt("index", alone)
    library.rename(library.parent / "elsewhere")
    if left:
        library.mkdir()
    note = f"note: nothing found in photos, so {KEPT}\n"
    done = bt("search", "red", "--paths")
    assert (done.exit_code, done.stdout) == (0, f"{alone}\n")
    assert done.stderr == note
    assert bt("fill", "a <mask>").stderr.endswith(note)
    assert bt("prune").stderr == note
    assert bt("index", ".", "--exclude", "elsewhere").stderr.startswith(note)
    done = bt("index", "photos")
    if left:
        assert done.exit_code == 0 and done.stderr.startswith(note)
    else:
        assert (done.exit_code, done.stderr) == (6, note.replace("note", "error"))
    assert "indexed 0, reused 4" in bt("index", "elsewhere").stderr
    assert bt("search", "red").stderr == ""
    green = library.parent / "elsewhere" / "green.png"
    green.rename(library.parent / "green.png")
    assert bt("search", "red", "--under", "elsewhere").stderr.count("\n") == 1  # which is not away
    (library.parent / "green.png").rename(green)
    alone.unlink()
    alone.parent.rmdir()
    assert "nothing found in alone, so" in bt("search", "red").stderr
    assert [bt("forget", away).exit_code for away in ("photos", "alone")] == [0, 0]
    assert bt("search", "red").stderr == bt("prune").stderr == ""


def test_what_lies_on_a_disk_that_is_away_is_not_looked_for(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the first, however many they are."""
    monkeypatch.setattr("bridgetower.retrieval.candidates._RESTART_EVERY", 1)
    alone = paint(library.parent / "alone" / "black.png", "red", size=(50, 50))
    copy = library.parent / "alone" / "copy.png"
    shutil.copy(library / "red.png", copy)
    bt("index", alone, copy)
    library.rename(library.parent / "elsewhere")
    asked: list[str] = []
    stat = os.stat

    def ask(path: Any, **how: Any) -> os.stat_result:
        asked.append(str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", ask)
    done = bt("search", "red", "--paths", "--top", "9")
    assert done.stdout.splitlines() == [str(copy), str(alone)]
    assert len({path for path in asked if path.startswith(str(library)) and path.endswith(".png")}) <= 1


def test_no_match_names_what_was_given(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--under", "*/2019/*", "--not-under", library)
    assert (done.exit_code, done.stderr) == (1, "no match: no picture of the index passes --under, --not-under\n")
    for date in ("--since=2200", "--before=1970"):
        done = bt("search", "red", date)
        assert (done.exit_code, done.stderr) == (1, f"no match: no picture of the index passes {date[:-5]}\n")


def test_what_may_not_be_looked_at_is_not_said_to_be_gone(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = library / "locked"
    paint(locked / "pink.png", (255, 60, 60))
    bt("index", library)
    before = json.loads(bt("status", "--json").stdout)["files"]
    deny(monkeypatch, locked)
    for arguments in (["search", "red", "--json"], ["search", "red", "--no-rerank", "--json"]):
        done = bt(*arguments)
        assert (done.exit_code, len(done.stdout.splitlines())) == (0, 4)
        assert done.stderr == (
            "note: passed over 1 picture whose files cannot be looked at (photos/locked/pink.png: Permission denied); "
            "the index keeps them\n"
        )
    assert "cannot be looked at" in bt("fill", "a <mask>").stderr
    done = bt("index", library)
    assert done.exit_code == 3 and "removed 0, skipped 1" in done.stderr
    assert done.stderr.startswith("skipped photos/locked: the folder cannot be read: Permission denied\n")
    assert json.loads(bt("prune", "--json").stdout)["files"] == 0
    assert json.loads(bt("status", "--json").stdout)["files"] == before

    deny(monkeypatch, library)
    done = bt("search", "red")
    assert done.exit_code == 1 and "gone" not in done.stderr and "5 pictures" in done.stderr
    done = bt("index", library)
    assert done.exit_code == 3 and "nothing found" not in done.stderr
    done = bt("prune", "--json")
    assert (json.loads(done.stdout)["files"], done.stderr) == (0, "")
    assert json.loads(bt("status", "--json").stdout)["files"] == before


def deny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on this process may neither list a folder nor look at what is in it."""

    def denying(look: Any, closed: Any) -> Any:
        def see(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str | bytes | os.PathLike) and closed(Path(os.fsdecode(path))):
                raise PermissionError(13, "Permission denied", path)
            return look(path, *arguments, **options)

        return see

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, denying(getattr(os, name), lambda path: folder in path.parents))
    monkeypatch.setattr(os, "scandir", denying(os.scandir, lambda path: folder in (path, *path.parents)))


def test_pictures_that_vanished_are_no_reason_for_no_match(bt: Bt, library: Path) -> None:
    (library / "red.png").unlink()
    (library / "crimson.png").write_bytes(paint(library / "x.png", (255, 60, 60)).read_bytes())
    bt("index", library / "crimson.png")
    done = bt("search", "red", "--min-match", 0.5, "--depth", 1, "--paths")
    assert (done.exit_code, done.stdout) == (0, f"{library / 'crimson.png'}\n")


def test_verifying_shows_how_far_it_is(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower_cli.progress._LINE_EVERY_S", 0.0)
    done = bt("search", "red", "--json", "--depth", 3)
    assert (done.exit_code, len(lines(done))) == (0, 4)
    assert "searching: 3 of 3 pictures" in done.stderr


def test_a_text_beyond_what_the_model_reads_is_told(bt: Bt, library: Path) -> None:
    done = bt("search", "red " * 300)
    assert done.exit_code == 0
    assert done.stderr.count("longer than the model reads") == 1


def test_the_demo_model_says_what_it_knows(bt: Bt, photos: Path) -> None:
    for command in (["index", photos, "--model", "demo"], ["search", "red"]):
        done = bt(*command)
        assert done.exit_code == 0
        assert done.stderr.count("the demo model knows drawn scenes only") == 1
        assert "demo model" not in done.stdout


def test_names_that_are_no_utf8(bt: Bt, photos: Path) -> None:
    name = os.fsencode(photos) + b"/caf\xe9.png"
    os.rename(photos / "red.png", name)
    bt("index", photos)
    as_json = bt("search", "red", "--json", "--top", 1)
    assert as_json.stdout.isascii()
    assert os.fsencode(json.loads(as_json.stdout)["path"]) == name
    assert bt("search", "red", "--paths", "--top", 1).stdout_bytes == name + b"\n"
    assert bt("search", "red", "-0", "--top", 1).stdout_bytes == name + b"\0"
    assert "photos/caf\\xe9.png" in bt("search", "red", "--top", 1).stdout


def test_names_that_could_steer_a_terminal(bt: Bt, photos: Path) -> None:
    (photos / "red.png").rename(photos / "two\nlines \x1b[31m[bold]\u202e.png")
    bt("index", photos)
    _, row = bt("search", "red", "--top", 1).stdout.splitlines()
    assert row.endswith("photos/two\\nlines \\x1b[31m[bold]\\u202e.png")
    [hit] = lines(bt("search", "red", "--json", "--top", 1))
    assert hit["path"] == f"{photos}/two\nlines \x1b[31m[bold]\u202e.png"


def test_features_are_kept_below_the_index_unless_told_otherwise(bt: Bt, library: Path, tmp_path: Path) -> None:
    kept = tmp_path / "index" / "features"
    assert bt("search", "red", "--features-cache", "0").exit_code == 0
    assert not kept.exists()
    fresh = bt("search", "red", "--json")
    assert len(list(kept.iterdir())) == 4
    again = bt("search", "red", "--json")
    assert [json.loads(line)["path"] for line in again.stdout.splitlines()] == [
        json.loads(line)["path"] for line in fresh.stdout.splitlines()
    ]
    assert bt("fill", "a <mask>").exit_code == 0
    assert bt("index", library).exit_code == 0  # what is there is no obstacle to a writer


@pytest.mark.parametrize("size", ["much", "12", "-1GB", ""])
def test_a_cache_of_no_size_is_wrong_usage(bt: Bt, library: Path, size: str) -> None:
    refused = bt("search", "red", "--features-cache", size)
    assert refused.exit_code == 2
    assert "500MB" in refused.stderr


def test_a_budget_says_how_many_were_verified(bt: Bt, library: Path) -> None:
    done = bt("search", "red", "--budget", "0s", "--json")
    assert done.exit_code == 0
    assert "verified 4 pictures of at most 20" in done.stderr
    assert bt("search", "red", "--budget", "soon").exit_code == 2
    assert bt("search", "red", "--budget", "1s", "--no-rerank").exit_code == 2
    assert "verified" not in bt("search", "red").stderr


@pytest.fixture
def dated(bt: Bt, photos: Path) -> Path:
    """Red is from 2020, green from May 2024; blue lies in a folder, and white beside it is a copy of it from 2020."""
    (photos / "sub").mkdir()
    (photos / "blue.png").rename(photos / "sub" / "blue.png")
    (photos / "white.png").write_bytes((photos / "sub" / "blue.png").read_bytes())
    for name, when in (
        ("red", "2020-07-01"),
        ("green", "2024-05-17"),
        ("sub/blue", "2024-06-01"),
        ("white", "2020-01-01"),
    ):
        moment = datetime.fromisoformat(when + "T12:00").timestamp()
        os.utime(photos / f"{name}.png", (moment, moment))
    assert bt("index", photos).exit_code == 0
    return photos


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--under photos/sub", ["sub/blue.png"]),
        ("--under photos/green.png", ["green.png"]),
        ("--under photos/green.png --under photos/sub", ["green.png", "sub/blue.png"]),
        ("--under gr*.png --under */sub/*", ["green.png", "sub/blue.png"]),
        ("--under ./photos/r*", ["red.png"]),
        ("--not-under photos/sub", ["green.png", "red.png", "white.png"]),
        ("--not-under sub/* --not-under photos/red.png --since 2024", ["green.png"]),
        ("--under photos", ["green.png", "red.png", "sub/blue.png"]),
        ("--since 2024", ["green.png", "sub/blue.png"]),
        ("--before 2024", ["red.png", "white.png"]),
        ("--since 2024-05-17T11:59 --before 2024-05-18", ["green.png"]),
        ("--taken 2020", ["red.png", "white.png"]),
        ("--taken 2020-07..2024-05", ["green.png", "red.png"]),
        ("--taken ..2020-01-01", ["white.png"]),
        ("--taken yesterday", []),
        ("--since 2020 --before 2024-06 --under photos/sub", []),
    ],
)
@pytest.mark.parametrize("verified", [True, False])
def test_only_what_passes_the_filters_is_found(
    bt: Bt, dated: Path, options: str, found: list[str], verified: bool
) -> None:
    done = bt("search", "red", "--paths", *options.split(), *([] if verified else ["--no-rerank"]))
    assert sorted(done.stdout.splitlines()) == [str(dated / name) for name in found]
    assert done.exit_code == (0 if found else 1)
    if not found:
        given = {option for option in options.split() if option.startswith("--")}
        assert set(done.stderr.strip().partition(" passes ")[2].split(", ")) == given


@pytest.mark.parametrize("here", ["America/Los_Angeles", "Asia/Tokyo", "UTC"])
def test_a_time_is_what_the_clock_showed(bt: Bt, tmp_path: Path, zone: Zone, here: str) -> None:
    """In the picture that of the camera, wherever that was; of a file that of this machine."""
    zone(here)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, offset in (("wall", None), ("zoned", "+05:30")):
        exif = Image.Exif()
        tags = exif.get_ifd(ExifTags.IFD.Exif)
        tags[ExifTags.Base.DateTimeOriginal] = "2024:05:17 18:30:00"
        if offset:
            tags[ExifTags.Base.OffsetTimeOriginal] = offset
        Image.new("RGB", (40, 40), "red").save(folder / f"{name}.jpg", exif=exif)
    file = paint(folder / "file.png", COLOURS["green"])
    moment = datetime(2024, 5, 17, 18, 30).timestamp()
    os.utime(file, (moment, moment))
    assert bt("index", folder).exit_code == 0
    every = [str(folder / name) for name in ("file.png", "wall.jpg", "zoned.jpg")]
    for options, found in (
        (["--since", "2024-05-17T18:30"], every),
        (["--since", "2024-05-17T18:31"], []),
        (["--before", "2024-05-17T18:31"], every),
        (["--before", "2024-05-17T18:30"], []),
        (["--since", "0001", "--before", "9999-12-31T23:59"], every),
    ):
        assert sorted(bt("search", "red", "--paths", *options).stdout.splitlines()) == found, options


@pytest.mark.parametrize("options", [[], ["--no-rerank"], ["--min-match", "0"]], ids=" ".join)
def test_pictures_that_are_gone_did_pass_the_filters(bt: Bt, dated: Path, options: list[str]) -> None:
    (dated / "sub" / "blue.png").unlink()
    done = bt("search", "red", "--under", dated / "sub", *options)
    assert done.exit_code == 1
    assert "are gone" in done.stderr and "passes" not in done.stderr


def test_pictures_that_cannot_be_read_did_pass_the_filters(bt: Bt, dated: Path) -> None:
    (dated / "sub" / "blue.png").write_bytes(b"no picture")
    done = bt("search", "red", "--under", dated / "sub")
    assert done.exit_code == 1
    assert "skipped" in done.stderr and "passes" not in done.stderr


def test_a_folder_is_known_through_a_link(bt: Bt, dated: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dated, target_is_directory=True)
    done = bt("search", "red", "--under", "link/sub", "--paths")
    assert (done.exit_code, done.stdout) == (0, f"{dated / 'sub' / 'blue.png'}\n")


def test_a_folder_that_was_indexed_through_a_link_keeps_that_name(bt: Bt, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    assert bt("index", "link").exit_code == 0
    done = bt("search", "red", "--under", "link/red.png", "--paths")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'link' / 'red.png'}\n")


def test_a_folder_that_the_index_does_not_know_is_named(bt: Bt, library: Path, models: Models, tmp_path: Path) -> None:
    models.loaded.clear()
    done = bt("search", "red", "--under", "photos/elsewhere")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"nothing in the index lies under {tmp_path / 'photos' / 'elsewhere'}" in done.stderr
    assert models.loaded == []
    done = bt("search", "red", "--under", "photos/gren.png")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"gren.png; did you mean {tmp_path / 'photos' / 'green.png'}" in done.stderr


@pytest.mark.parametrize("date", ["tomorrow", "2024..2025", "2024-13", "2024-1-1", "24", "2024-05-17T25:00", "0000"])
def test_what_is_no_date_is_wrong_usage(bt: Bt, library: Path, date: str) -> None:
    done = bt("search", "red", "--since", date)
    assert done.exit_code == 2 and done.stderr.startswith(f"error: '{date}' is ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def many(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """More pictures than are compared one by one."""
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", 120)
    for number in range(126):
        paint(photos / f"{number}.png", (number % 5 * 60, number % 11 * 25, number * 2))
    return photos


def test_a_damaged_search_file_is_told_and_the_answer_is_the_same(bt: Bt, many: Path, tmp_path: Path) -> None:
    assert bt("index", many).exit_code == 0
    before = bt("search", "red")
    assert "note:" not in before.stderr
    (codes,) = (tmp_path / "index").glob("*.codes")
    codes.write_bytes(codes.read_bytes()[:-1])
    after = bt("search", "red")
    assert (after.exit_code, after.stdout) == (0, before.stdout)
    assert "the search did without it" in after.stderr and "manifest" not in after.stderr
    assert "`bt verify --repair`" in after.stderr
    assert bt("verify", "--repair").exit_code == 0
    assert bt("search", "red").stderr == before.stderr


def test_a_large_index_says_how_much_it_recalls(bt: Bt, many: Path) -> None:
    for number in range(20):
        (many / f"{number}.png").rename(many.parent / f"{number}.png")
    assert bt("index", many).exit_code == 0
    assert "recall" not in bt("status").stdout
    assert json.loads(bt("status", "--json").stdout)["exact"] is True
    for number in range(20):
        (many.parent / f"{number}.png").rename(many / f"{number}.png")
    assert bt("index", many).exit_code == 0
    assert "recall    100.0% of the true 100 nearest, measured with 256 texts and" in bt("status").stdout
    assert [" lists are read " in bt("status", *verbose).stdout for verbose in ([], ["-v"])] == [False, True]
    fields = json.loads(bt("status", "--json").stdout)
    assert (fields["exact"], fields["tuning"]["texts"]) == (False, 256)


# What the model saw in pictures


def test_a_features_folder_that_is_a_link_is_named_and_not_used(bt: Bt, library: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "index" / "features").symlink_to(tmp_path / "elsewhere")
    for command in (("search", "red"), ("fill", "a <mask> car")):
        done = bt(*command)
        assert done.exit_code == 0
        assert done.stderr.count("index/features: a link, and not used") == 1 and "--features-dir DIR" in done.stderr
    assert bt("search", "red", "--features-cache", 0).stderr == ""
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_features_are_kept_in_another_folder_that_is_named(
    bt: Bt, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large")
    assert bt("search", "red", "--features-dir", tmp_path / "link" / "bt").stderr == ""
    assert len(list((tmp_path / "large" / "bt").iterdir())) == len(COLOURS)
    assert not (tmp_path / "index" / "features").exists()
    monkeypatch.setenv("BT_FEATURES_DIR", str(tmp_path / "other"))
    assert bt("fill", "a <mask> car").stderr == ""
    assert len(list((tmp_path / "other").iterdir())) == len(COLOURS)
    (tmp_path / "file").touch()
    done = bt("search", "red", "--features-dir", tmp_path / "file")
    assert (done.exit_code, done.stderr.splitlines()[-1][:6]) == (5, "error:")


@pytest.mark.parametrize("command", [("index", "photos"), ("prune",)])
def test_a_folder_that_holds_other_files_is_there_and_its_pictures_are_gone(
    command: tuple[str, ...], bt: Bt, library: Path
) -> None:
    for picture in library.iterdir():
        picture.unlink()
    (library / "deep" / "down").mkdir(parents=True)
    assert "nothing found in photos" in bt(*command).stderr  # folders alone may be those of disks
    assert "nothing found in photos" in bt("search", "red").stderr
    (library / "deep" / "down" / "notes.txt").write_text("no picture")
    assert "whose files are gone" in bt("search", "red").stderr
    done = bt(*command)
    assert done.exit_code == 0 and "nothing found" not in done.stderr
    done = bt("search", "red")
    assert done.exit_code == 1 and "gone" not in done.stderr
