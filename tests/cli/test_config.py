"""`bt config`: flag > environment > file > default, each setting declared once, and a file that keeps its comments."""

import json
import os
import stat
from pathlib import Path

import platformdirs
import pytest

from bridgetower.errors import UsageError
from bridgetower_cli.config.file import place, read, user_folder
from bridgetower_cli.config.keys import KEYS, MIN_MATCH, TOP
from bridgetower_cli.settings import settle
from bridgetower_cli.terminal import hyperlinks
from tests.cli.conftest import Bt

WORDED = """# mine
top = 3  # few

[libraries]  # by name
scans = "/scans.index"
"""
TWO_VALUES = {"min-match": ("0.25", "0.5"), "top": ("1", "2"), "depth": ("1", "2"), "features-cache": ("1MB", "2MB")}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of settings, which is not there yet."""
    monkeypatch.setenv("BT_CONFIG", str(tmp_path / "settings" / "config.toml"))
    (tmp_path / "settings").mkdir()
    return tmp_path / "settings" / "config.toml"


def shown(bt: Bt) -> dict[str, dict[str, object]]:
    done = bt("config", "show", "--json")
    assert done.exit_code == 0, done.stderr
    return {row["key"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_the_place_is_that_of_the_platform(tmp_path: Path) -> None:
    assert place() == tmp_path / "home" / "config" / "bridgetower" / "config.toml"
    assert read(place()).values == {}


@pytest.mark.parametrize("home", ["/home/ada", "/home/ada/", "relative", "", None])
@pytest.mark.parametrize("named", ["/xdg", "/xdg/", "relative", "~/xdg", " ", " /xdg", "", None])
def test_the_folders_of_the_user_are_those_of_platformdirs(
    named: str | None, home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"HOME": home, "XDG_CONFIG_HOME": named, "XDG_DATA_HOME": named}.items():
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    for kind, asked in {"config": platformdirs.user_config_dir, "data": platformdirs.user_data_dir}.items():
        try:
            expected = asked("bridgetower", appauthor=False)
        except RuntimeError:
            expected = None
        found = user_folder(kind)
        assert (found and os.path.normpath(found)) == (expected and os.path.normpath(expected))


@pytest.mark.usefixtures("models")
def test_without_a_home_there_is_no_file(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name)
    assert place() is None
    done = bt("config", "set", "top", 5)
    assert done.exit_code == 2 and "no home folder to keep settings in" in done.stderr
    assert "no home folder to keep an index in" in bt("config", "show").stderr


def test_each_value_says_where_it_is_from(bt: Bt, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file.write_text('# mine\nprecision = "fp32"\nmodel = "one"\n\n[libraries]\nscans = "scans.index"\n')
    monkeypatch.setenv("BT_MODEL", "two")
    rows = shown(bt)
    assert [*rows] == [*KEYS, "library.scans"]
    assert rows["model"] == {
        "key": "model", "value": "two", "origin": "environment", "where": "BT_MODEL", "problem": None,
    }  # fmt: skip
    assert rows["precision"] | {"key": ""} == {
        "key": "", "value": "fp32", "origin": "file", "where": f"{file}:2", "problem": None,
    }  # fmt: skip
    assert (rows["top"]["value"], rows["top"]["origin"], rows["top"]["where"]) == (10, "default", None)
    assert rows["index"]["value"] == str(tmp_path / "home" / "data" / "bridgetower" / "index")
    assert (rows["library.scans"]["value"], rows["library.scans"]["where"]) == (
        str(file.parent / "scans.index"),
        f"{file}:6",
    )
    done = bt("config", "show")
    [row] = [line.split() for line in done.stdout.splitlines() if line.startswith("precision")]
    assert row == ["precision", "fp32", f"{file}:2"]
    assert done.stderr == f"the file of settings is {file}\n"


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_has_an_option_and_its_variable_goes_before_the_file(
    key: str, bt: Bt, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = KEYS[key].words[:2] or TWO_VALUES.get(key, ("one", "other"))
    option = {"server": "--no-server"}.get(key, f"--{key}")
    if key not in ("hyperlinks", "history"):  # these two have a variable alone
        assert option in bt("search", "--help").stdout
    for variable in [name for name in os.environ if name.startswith("BT_") and name != "BT_CONFIG"]:
        monkeypatch.delenv(variable)
    assert bt("config", "set", key, one).exit_code == 0
    assert shown(bt)[key]["origin"] == "file"
    kept = shown(bt)[key]["value"]
    monkeypatch.setenv(KEYS[key].variable, other)
    assert (shown(bt)[key]["origin"], shown(bt)[key]["where"]) == ("environment", KEYS[key].variable)
    assert shown(bt)[key]["value"] != kept
    assert f"note: {KEYS[key].variable}={other} goes before it" in bt("config", "set", key, one).stderr
    monkeypatch.delenv(KEYS[key].variable)
    assert bt("config", "unset", key).exit_code == 0
    assert shown(bt)[key]["origin"] == "default"


def test_a_flag_goes_before_the_environment_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(
        'precision = "fp32"\nmodel = "one"\ntop = 4\nserver = "off"\nfeatures-cache = "3MB"\nindex = "here"\n'
    )
    settings = settle()
    assert (settings.precision, settings.named_precision, settings.named_model) == ("fp32", None, None)
    assert (settings.model, settings.given_model, settings.features_cache) == ("one", "one", 3_000_000)
    assert (settings.chosen(TOP, None), settings.server_off) == (4, f"{file}:4: server off")
    assert settings.index == file.parent / "here"
    for name, value in {"PRECISION": "bf16", "TOP": "5", "SERVER": "auto", "INDEX": "/there"}.items():
        monkeypatch.setenv(f"BT_{name}", value)
    settings = settle()
    assert (settings.precision, settings.chosen(TOP, None), settings.server_off) == ("bf16", 5, None)
    assert settings.index == Path("/there")
    settings = settle(precision="int8", index=Path("/mine"))
    assert (settings.precision, settings.chosen(TOP, 6), settings.index) == ("int8", 6, Path("/mine"))
    assert settings.chosen(MIN_MATCH, None) is None


def test_links_are_shown_as_the_file_says(file: Path) -> None:
    for value, shown in (("on", True), ("auto", False)):
        file.write_text(f'hyperlinks = "{value}"\n')
        settle()
        assert hyperlinks.are_shown({"TERM": "xterm"}) is shown
        assert hyperlinks.are_shown({"TERM": "xterm", "BT_HYPERLINKS": "off"}) is False


def test_a_search_takes_its_top_depth_and_least_match_from_the_file(bt: Bt, library: Path, file: Path) -> None:
    file.write_text("top = 3\ndepth = 2\n")
    rows = [json.loads(line) for line in bt("search", "red", "--json").stdout.splitlines()]
    assert [row["verified"] for row in rows] == [True, True, False]
    rows = [json.loads(line) for line in bt("search", "red", "--json", "--top", 2, "--depth", 1).stdout.splitlines()]
    assert [row["verified"] for row in rows] == [True, False]
    file.write_text("min-match = 0.5\n")
    assert len(bt("search", "red", "--json").stdout.splitlines()) == 1
    assert len(bt("search", "--image", library / "red.png", "--self", "--json").stdout.splitlines()) == 4
    file.write_text("depth = 0\nmin-match = 0.5\n")
    assert len(bt("search", "red", "--json").stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("device", "abacus", "choose one of auto, cpu, cuda, mps"),
        ("precision", "fp8", "choose one of auto, fp32, bf16, int8"),
        ("server", "on", "choose one of auto, off"),
        ("min-match", "50%", "a probability is between 0 and 1, as 0.5"),
        ("top", "0", "error: top: '0': a whole number of at least 1 is wanted, as 10"),
        ("features-cache", "2 gigs", "write it as 500MB or 2GB"),
        ("model", " ", "an empty name is no model"),
        ("index", "", "an empty path names nothing"),
        ("library", "a/b", "is no name of a library"),
        ("library.a b", "/x", "is no name of a library"),
        ("library.default", "/x", "default is the index that is used where none is named"),
        ("divice", "cpu", "'divice' is no setting: did you mean device?"),
        ("libraries.scans", "/x", "is no setting: a library is set as library.NAME"),
        ("colour", "red", "'colour' is no setting: `bt config show` lists all"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_is_written(key: str, value: str, said: str, bt: Bt, file: Path) -> None:
    file.write_text(WORDED)
    done = bt("config", "set", key, value)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert file.read_text() == WORDED


def test_the_rest_of_the_file_stays_as_it_is(bt: Bt, file: Path) -> None:
    file.write_text(WORDED + "# the end\n")
    file.chmod(0o640)
    assert bt("config", "set", "device", "cpu").exit_code == 0
    assert bt("config", "set", "top", 4).exit_code == 0
    assert bt("config", "set", "min-match", "0.3").exit_code == 0
    assert bt("config", "set", "library.trips", "trips.index").exit_code == 0
    text = file.read_text()
    assert "# mine\ntop = 4  # few\n" in text and "[libraries]  # by name\n" in text and "# the end" in text
    assert text.index('device = "cpu"') < text.index("[libraries]") < text.index("trips")
    assert f'trips = "{Path.cwd() / "trips.index"}"' in text and "min-match = 0.3\n" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    for key in ("device", "min-match", "library.trips"):
        assert bt("config", "unset", key).exit_code == 0
    bt("config", "set", "top", 3)
    assert file.read_text() == WORDED + "# the end\n"
    assert [entry.name for entry in file.parent.iterdir()] == ["config.toml"]
    done = bt("config", "unset", "device")
    assert done.exit_code == 0 and "says nothing about device" in done.stderr


def test_a_link_is_followed_and_a_new_file_gets_its_folder(
    bt: Bt, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = tmp_path / "dotfiles" / "bt.toml"
    file.symlink_to(real)
    assert bt("config", "set", "top", 7).exit_code == 0
    assert file.is_symlink() and real.read_text() == "top = 7\n"


def test_a_folder_of_a_model_is_kept_as_an_absolute_path(bt: Bt, photos: Path, file: Path) -> None:
    bt("config", "set", "model", "photos")
    assert file.read_text() == f'model = "{photos}"\n'
    bt("config", "set", "model", "owner/name")
    assert file.read_text() == 'model = "owner/name"\n'


def test_an_unknown_key_is_a_note_with_its_line_and_the_nearest_one(bt: Bt, library: Path, file: Path) -> None:
    file.write_text('top = 2\n\ndivice = "cpu"\n[colours]\nred = 1\n')
    done = bt("search", "red")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 3)
    assert f"note: {file}:3: 'divice' is no setting and has no effect: did you mean device?\n" in done.stderr
    assert f"note: {file}:4: 'colours' is no setting and has no effect: `bt config show` lists all\n" in done.stderr
    assert "divice" not in bt("search", "red", "--quiet").stderr
    assert "divice" in bt("config", "show").stderr
    assert bt("config", "unset", "divice").exit_code == 0
    assert "divice" not in file.read_text()


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"top = 3\ndevice = \n", 2, "this is no TOML"),
        (b'top = 3\n\ndevice = "cpu', 3, "this is no TOML"),
        (b"top = 3\ntop = 4\n", 2, "this is no TOML"),
        (b"top = 3\n# \xff\n", 2, "this is no UTF-8 text: save the file as UTF-8"),
        (b"libraries = 3\n", 1, 'a table is wanted: write [libraries], and below NAME = "FOLDER"'),
    ],
)
@pytest.mark.parametrize("command", [["search", "red"], ["config", "show"], ["config", "set", "library.a", "/a"]])
def test_a_damaged_file_is_one_line_with_the_line_number(
    content: bytes, line: int, said: str, command: list[str], bt: Bt, library: Path, file: Path
) -> None:
    file.write_bytes(content)
    if command[0] == "search" and b"libraries" in content:
        command = [*command, "--library", "scans"]
    done = bt(*command)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {file}:{line}: ") and said in done.stderr
    assert file.read_bytes() == content


def test_what_is_no_file_is_refused_and_never_waited_for(bt: Bt, file: Path) -> None:
    os.mkfifo(file)
    done = bt("config", "show")
    assert done.exit_code == 2 and f"{file}: no regular file" in done.stderr
    file.unlink()
    file.mkdir()
    assert bt("config", "set", "top", 3).exit_code == 2


def test_a_file_that_cannot_be_written_is_told(bt: Bt, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_CONFIG", "/proc/none/config.toml")
    done = bt("config", "set", "top", 3)
    assert done.exit_code == 6 and done.stderr.startswith(
        "error: /proc/none/config.toml: the settings cannot be written"
    )


def test_a_wrong_value_in_the_file_is_told_with_its_line(bt: Bt, library: Path, file: Path) -> None:
    file.write_text('top = 2\nprecision = "fp8"\ndepth = [1]\n')
    done = bt("search", "red")
    assert done.exit_code == 2
    assert done.stderr == f"error: {file}:2: precision: 'fp8' is unknown: choose one of auto, fp32, bf16, int8\n"
    assert bt("search", "red", "--precision", "fp32", "--depth", 1).exit_code == 0
    done = bt("search", "red", "--precision", "fp32")
    assert done.stderr == (
        f"error: {file}:3: depth: a text or a number is wanted: `bt config set depth VALUE` writes it\n"
    )
    rows = shown(bt)
    assert rows["precision"]["value"] == "fp8" and str(rows["precision"]["problem"]).startswith(f"{file}:2: ")
    assert "is unknown" in bt("config", "show").stderr
    file.write_text('[library]\nscans = "/scans.index"\n')
    assert f"note: {file}:1: the table of libraries is called [libraries]: rename it\n" in bt("config", "show").stderr


def test_a_byte_order_mark_and_an_inline_table_are_read(bt: Bt, file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbftop = 4\nlibraries = {scans = "/scans"}\n')
    rows = shown(bt)
    assert (rows["top"]["value"], rows["library.scans"]["value"]) == (4, "/scans")
    assert rows["library.scans"]["where"] == f"{file}:2"
    assert bt("config", "set", "library.trips", "/trips").exit_code == 0
    assert shown(bt)["library.trips"]["value"] == "/trips"


def test_an_index_and_a_library_in_one_place_are_refused(bt: Bt, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bt("config", "set", "library", "trips")
    done = bt("config", "set", "index", "/x")
    assert done.exit_code == 2 and "library names an index already: first `bt config unset library`" in done.stderr
    file.write_text('index = "/x"\nlibrary = "trips"\n')
    with pytest.raises(UsageError, match=r"config.toml:1 and .*config.toml:2 both name an index: remove one of them"):
        settle()
    monkeypatch.setenv("BT_INDEX", "/y")
    assert settle().index == Path("/y")
    monkeypatch.setenv("BT_LIBRARY", "trips")
    with pytest.raises(UsageError, match="BT_INDEX and BT_LIBRARY both name an index"):
        settle()
