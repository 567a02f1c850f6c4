"""Indexes by name: `--library NAME`, `bt libraries`."""

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Bt
from tests.test_docs import commands, options


@pytest.fixture
def holidays(bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a library with the photos, made without any setting."""
    monkeypatch.delenv("BT_INDEX")
    done = bt("index", photos, "--library", "holidays")
    assert done.exit_code == 0, done.stderr
    assert "holidays is a new library, in home/data/bridgetower/libraries/holidays\n" in done.stderr
    return photos.parent / "home" / "data" / "bridgetower" / "libraries" / "holidays"


def listed(bt: Bt) -> dict[str, dict[str, object]]:
    done = bt("libraries", "--json")
    assert done.exit_code == 0, done.stderr
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_every_command_with_an_index_takes_a_library() -> None:
    with_index = [name for name, command in commands().items() if "--index" in options(command)]
    assert len(with_index) > 10
    assert [name for name in with_index if "--library" not in options(commands()[name])] == []


def test_a_library_is_made_searched_and_shown_by_its_name(
    bt: Bt, holidays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (holidays / "manifest.sqlite").is_file()
    assert "new library" not in bt("index", holidays.parents[4] / "photos", "--library", "holidays").stderr
    found = bt("search", "red", "--library", "holidays", "--top", 1, "--paths")
    assert (found.exit_code, Path(found.stdout.strip()).name) == (0, "red.png")
    assert bt("search", "red").exit_code == 5  # the default index is another one
    for command in (["status", "--library", "holidays"], ["status", "--index", holidays]):
        status = json.loads(bt(*command, "--json").stdout)
        assert (status["library"], status["index"]) == ("holidays", str(holidays))
    assert ["library", "holidays"] in [
        line.split() for line in bt("status", "--library", "holidays").stdout.splitlines()
    ]
    monkeypatch.setenv("BT_LIBRARY", "holidays")
    assert bt("search", "red").exit_code == 0
    assert bt("search", "red", "--library", "default").exit_code == 5
    assert bt("search", "red", "--index", "elsewhere").exit_code == 5


def test_an_index_without_a_name_has_none(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(bt("status", "--json").stdout)["library"] is None
    assert "library" not in bt("status").stdout


def test_the_file_gives_a_folder_a_name(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bt("config", "set", "library.mine", library.parent / "index").exit_code == 0
    monkeypatch.delenv("BT_INDEX")
    assert bt("search", "red", "--library", "mine").exit_code == 0
    assert bt("config", "set", "library", "mine").exit_code == 0
    assert json.loads(bt("status", "--json").stdout)["library"] == "mine"
    [row] = [line.split() for line in bt("config", "show").stdout.splitlines() if line.startswith("index ")]
    assert row == ["index", str(library.parent / "index"), "library", "mine"]
    assert bt("config", "unset", "library.mine").exit_code == 0
    done = bt("status")
    assert done.exit_code == 5 and "no library 'mine'" in done.stderr
    assert (library.parent / "index" / "manifest.sqlite").is_file()


def test_libraries_are_listed_with_their_pictures(bt: Bt, holidays: Path) -> None:
    bt("config", "set", "library.gone", holidays.parents[4] / "gone")
    bt("config", "set", "library.torn", holidays.parents[4] / "torn")
    (holidays.parents[4] / "torn").mkdir()
    (holidays.parents[4] / "torn" / "manifest.sqlite").write_bytes(b"no database, but long enough" * 100)
    rows = listed(bt)
    assert [*rows] == ["default", "gone", "holidays", "torn"]
    assert rows["holidays"] == {"name": "holidays", "folder": str(holidays), "pictures": 4, "problem": None}
    assert (rows["gone"]["pictures"], rows["gone"]["problem"]) == (None, None)
    assert rows["torn"]["pictures"] is None and "torn" in str(rows["torn"]["problem"])
    done = bt("libraries")
    assert ["holidays", "4", str(holidays)] in [line.split() for line in done.stdout.splitlines()]
    assert done.stderr.startswith("note: ") and str(rows["torn"]["problem"]) in done.stderr


def test_a_wrong_name_names_the_nearest(bt: Bt, holidays: Path) -> None:
    for command in (["search", "red"], ["status"], ["prune"], ["verify"], ["serve", "--stop"]):
        done = bt(*command, "--library", "holyday")
        assert (done.exit_code, done.stdout) == (5, "")
        assert done.stderr == (
            "error: no library 'holyday': did you mean holidays? If not, `bt index PHOTOS --library holyday` makes it\n"
        )
    done = bt("status", "--library", "xyz")
    assert "`bt libraries` lists all; `bt index PHOTOS --library xyz` makes it" in done.stderr
    assert not (holidays.parent / "holyday").exists()


@pytest.mark.parametrize("named", ["", "--index 'a b'", "--library mine", "--library default"])
def test_the_way_out_makes_the_index_that_was_asked(
    bt: Bt, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    folder = Path("a b" if named.startswith("--index") else "mine").absolute()
    monkeypatch.setenv("BT_INDEX", str(folder))  # not what the option names
    assert bt("config", "set", "library.mine", folder).exit_code == 0
    option = named.replace("a b", str(folder))
    make = f"`bt index PHOTOS {option}`" if option else "`bt index PHOTOS`"
    words = shlex.split(named)
    for command in (["search", "red"], ["status"], ["duplicates"], ["fill", "a <mask>"], ["search", "red", "--json"]):
        done = bt(*command, *words)
        assert done.exit_code == 5 and f": make one there with {make}" in done.stderr
    assert bt("fill", "a <mask>", *words).stderr.endswith(f"{make}, or name a picture with --image FILE\n")
    (tmp_path / "nothing").mkdir()
    assert bt("index", "nothing", *words).exit_code == 0
    (tmp_path / "texts").write_text("red\n")
    for command in (["search", "red"], ["duplicates"], ["fill", "a <mask>"], ["search", "--texts-from", "texts"]):
        done = bt(*command, *words)
        assert done.exit_code == 1 and f"is empty; fill it with {make}" in done.stderr
    done = bt(*[str(photos) if word == "PHOTOS" else word for word in shlex.split(make.strip("`"))[1:]])
    assert done.exit_code == 0 and bt("search", "red", *words).exit_code == 0


@pytest.mark.usefixtures("holidays")
def test_what_needs_no_index_runs_whatever_library_is_set(
    bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BT_LIBRARY", "gone")
    assert bt("match", photos / "red.png", "--text", "red").exit_code == 0
    assert bt("rerank", "red", input=str(photos / "red.png")).exit_code == 0
    assert bt("fill", "a <mask>", "--image", photos / "red.png").exit_code == 0
    (photos / "captions.jsonl").write_text('{"image": "red.png", "captions": ["red"]}\n')
    assert bt("eval", photos / "captions.jsonl").exit_code == 0
    assert bt("audit", photos / "captions.jsonl").exit_code in (0, 1)
    assert bt("fill", "a <mask>").exit_code == 5


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "x" * 65, "a.", "ä\n", "a\udc80"])
def test_a_name_that_is_none_is_wrong_usage(name: str, bt: Bt, photos: Path) -> None:
    done = bt("index", photos, f"--library={name}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is no name of a library: up to 64 letters, digits, '-', '_' and '.'" in done.stderr
    assert not (photos.parent / "home" / "data" / "bridgetower").exists()


@pytest.mark.parametrize("name", ["a", "2019", "Überlingen", "a.b-c_d", "x" * 64])
def test_a_name_may_have_letters_digits_and_three_signs(
    name: str, bt: Bt, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BT_INDEX")
    assert bt("index", photos / "red.png", "--library", name).exit_code == 0
    assert listed(bt)[name]["pictures"] == 1


def test_an_index_and_a_library_are_refused(bt: Bt, photos: Path) -> None:
    done = bt("status", "--index", "here", "--library", "there")
    assert done.exit_code == 2 and "--index and --library both name an index: choose one" in done.stderr


def test_an_entry_that_is_no_folder_is_told_with_its_line_and_harms_no_other(
    bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = library.parent / "config.toml"
    monkeypatch.setenv("BT_CONFIG", str(file))
    file.write_text('[libraries]\nok = "index"\n"not ok" = "/y"\nnumber = 3\n')
    done = bt("status", "--library", "number")
    assert (done.exit_code, done.stderr) == (
        2,
        f'error: {file}:4: a folder is wanted: write it as number = "/home/me/number.index"\n',
    )
    done = bt("libraries")
    assert done.exit_code == 0 and [line.split()[0] for line in done.stdout.splitlines()] == [
        "library",
        "default",
        "ok",
    ]
    notes = done.stderr.splitlines()
    assert notes[0].startswith(f"note: {file}:3: 'not ok' is no name of a library") and f"{file}:4: " in notes[1]
    assert json.loads(bt("status", "--json").stdout)["library"] == "ok"
