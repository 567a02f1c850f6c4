"""When a folder that was indexed counts as away."""

import os
import unicodedata
from pathlib import Path

from bridgetower.index.roots import is_away, known_place


def test_a_folder_without_a_file_at_any_depth_is_away(tmp_path: Path) -> None:
    assert is_away(tmp_path / "gone")
    (tmp_path / "mount" / "inner").mkdir(parents=True)
    assert is_away(tmp_path / "mount")
    (tmp_path / "mount" / "inner" / ".hidden").touch()
    assert is_away(tmp_path / "mount")
    (tmp_path / "mount" / "inner" / ".icloud").touch()
    assert is_away(tmp_path / "mount")
    (tmp_path / "mount" / "inner" / ".a.jpg.icloud").touch()
    assert not is_away(tmp_path / "mount")
    (tmp_path / "mount" / "inner" / ".a.jpg.icloud").unlink()
    (tmp_path / "mount" / "inner" / "notes.txt").touch()
    assert not is_away(tmp_path / "mount")


def test_a_link_is_something_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "gone")
    assert not is_away(tmp_path / "folder")


def test_a_file_is_away_when_it_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    assert is_away(file)
    file.touch()
    assert not is_away(file)


def test_a_place_is_known_by_its_name_or_by_where_its_links_lead(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = Path(os.path.realpath(tmp_path / "real"))
    assert known_place(tmp_path / "link", {real}.__contains__) == real
    assert known_place(tmp_path / "link", {tmp_path / "link"}.__contains__) == tmp_path / "link"
    assert known_place(tmp_path / "link", set[Path]().__contains__) is None


def test_a_place_is_known_by_composed_and_decomposed_letters() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    mixed = Path("/", decomposed, composed, "é")
    known = {mixed, *mixed.parents}
    for first in (composed, decomposed):
        for second in (composed, decomposed):
            assert known_place(Path("/", first, second, "é"), known.__contains__) == mixed
    assert known_place(Path("/", composed, "Zurich"), known.__contains__) is None
    both = known | {Path("/", composed)}
    assert known_place(Path("/", composed), both.__contains__) == Path("/", composed)  # as it is written, first
    assert known_place(Path("/", composed, composed), both.__contains__) == Path("/", decomposed, composed)
