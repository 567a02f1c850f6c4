"""`bt duplicates`."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.pictures import photo
from tests.cli.conftest import Bt


@pytest.fixture
def copies(bt: Bt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture, its equal copy, a smaller one, and another picture; indexed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BT_INDEX", str(tmp_path / "index"))
    folder = tmp_path / "photos"
    folder.mkdir()
    photo(1, 320, 240).save(folder / "one.png")
    shutil.copy2(folder / "one.png", folder / "a copy.png")
    photo(1, 320, 240).resize((160, 120)).save(folder / "small.png")
    photo(2, 320, 240).save(folder / "two.png")
    assert bt("index", folder).exit_code == 0
    return folder


def test_a_table_shows_what_to_keep(bt: Bt, copies: Path) -> None:
    done = bt("duplicates")
    assert done.exit_code == 0
    kinds = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert kinds == ["keep", "equal", "keep", "similar"]
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()[1:]] == [
        "photos/one.png",
        "photos/a copy.png",
        "photos/one.png (+1)",
        "photos/small.png",
    ]
    assert " 160 x 120 " in done.stdout.splitlines()[4]
    size, small = ((copies / name).stat().st_size / 1000 for name in ("one.png", "small.png"))
    assert done.stderr == (
        f"1 equal group: 1 file more than needed, {size:.3g} kB; "
        f"1 similar group: 1 picture more than needed, {small:.3g} kB\n"
    )


def test_json_is_one_object_a_group(bt: Bt, copies: Path) -> None:
    equal, similar = map(json.loads, bt("duplicates", "--json").stdout.splitlines())
    assert [equal["kind"], similar["kind"]] == ["equal", "similar"]
    assert equal["keep"]["path"] == similar["keep"]["path"] == str(copies / "one.png")
    copy = str(copies / "a copy.png")
    assert equal["others"] == [{**equal["keep"], "similarity": 1.0, "path": copy, "paths": [copy]}]
    [small] = similar["others"]
    assert (small["width"], small["height"], small["taken_at"]) == (160, 120, None)
    assert small["size"] == (copies / "small.png").stat().st_size
    assert 0.85 < small["similarity"] <= 1
    assert similar["keep"]["paths"] == [str(copies / "one.png"), str(copies / "a copy.png")]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["a copy.png", "small.png"]),
        (["--equal"], ["a copy.png"]),
        (["--similar"], ["small.png"]),
        (["--equal", "--similar"], ["a copy.png", "small.png"]),
    ],
)
def test_bare_paths_are_those_that_are_not_kept(bt: Bt, copies: Path, options: list[str], names: list[str]) -> None:
    paths = [str(copies / name) for name in names]
    assert bt("duplicates", "--paths", *options).stdout == "".join(f"{path}\n" for path in paths)
    assert bt("duplicates", "-0", *options).stdout == "".join(f"{path}\0" for path in paths)


def test_none_is_exit_code_1(bt: Bt, library: Path) -> None:
    done = bt("duplicates")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "no match: no duplicates among 4 pictures\n"
    done = bt("duplicates", "--json", "--under", "elsewhere")
    assert (done.exit_code, done.stdout) == (1, "")
    assert json.loads(done.stderr)["no_match"].startswith("nothing in the index lies under ")


def test_an_empty_index_says_how_to_fill_it(bt: Bt, copies: Path) -> None:
    bt("forget", copies)
    done = bt("duplicates")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "no match: the index in index is empty; fill it with `bt index PHOTOS`\n"


def test_no_index_is_an_error(bt: Bt, photos: Path) -> None:
    done = bt("duplicates")
    assert done.exit_code == 5 and done.stderr.startswith("error: ")


def test_what_has_changed_is_left_out_and_said(bt: Bt, copies: Path) -> None:
    (copies / "a copy.png").write_bytes(b"another")
    (copies / "small.png").unlink()
    done = bt("duplicates")
    assert done.exit_code == 1
    changed, gone = (
        "left out 1 file that changed since the last `bt index`",
        "passed over 1 picture whose files are gone",
    )
    assert changed in done.stderr and gone in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["--json", "--paths"],
        ["--equal", "--similarity", "0.9"],
        ["--similarity", "2"],
    ],
)
def test_wrong_options_are_refused(bt: Bt, copies: Path, wrong: list[str]) -> None:
    done = bt("duplicates", *wrong)
    assert (done.exit_code, done.stdout) == (2, "")


def test_search_shows_a_view_once(bt: Bt, copies: Path) -> None:
    rows = bt("search", "white", "--unique").stdout.splitlines()[1:]
    assert [row.split("  ")[-1] for row in rows if "like it" in row] == ["photos/a copy.png (+1) (+1 like it)"]
    assert len(rows) == 2
    first = next(
        row for row in map(json.loads, bt("search", "white", "--unique", "--json").stdout.splitlines()) if row["like"]
    )
    assert (first["path"], first["like"]) == (str(copies / "a copy.png"), [str(copies / "small.png")])
    assert len(bt("search", "white", "--unique", "--paths").stdout.splitlines()) == 2
    assert all("like" not in json.loads(line) for line in bt("search", "white", "--json").stdout.splitlines())
    page = bt("search", "white", "--unique", "--html", "-").stdout
    assert "<p>320 × 240, 2 files, 1 like it</p>" in page


def test_words_of_other_tools_lead_here(bt: Bt) -> None:
    assert bt("dedupe").stderr == "error: dedupe is no command of bt: did you mean bt duplicates?\n"
    assert "did you mean --similarity?" in bt("duplicates", "--threshold", "0.9").stderr
