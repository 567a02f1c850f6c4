"""What is given becomes a root of the index, unless it is a file that the walk of one meets."""

from pathlib import Path

import pytest

from bridgetower.files.ignore import Rules
from bridgetower.index.reader import IndexReader
from tests.fakes import paint
from tests.unit.retrieval.indexing.conftest import indexed, run, some

pytestmark = pytest.mark.usefixtures("decode_here")


def roots(directory: Path) -> list[Path]:
    with IndexReader.open(directory) as store:
        return [root.path for root in store.summary().roots]


@pytest.mark.parametrize("together", [True, False])
def test_a_file_that_the_walk_of_a_root_meets_is_part_of_it(tmp_path: Path, together: bool) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, b = some(photos, "a.png", "sub/b.png")
    for paths in [[b, photos]] if together else [[photos], [b]]:
        run(paths, index)
    assert roots(index) == [photos]
    paint(b, "blue", size=(50, 50))
    new = paint(photos / "new" / "c.png", "white")
    report = run([b, new], index)
    assert (report.files, report.encoded, roots(index)) == (2, 2, [photos])
    new.unlink()
    assert (run([photos], index).removed, indexed(index)) == (1, {a, b})


def test_a_file_that_the_walk_passes_over_is_a_root_and_stays(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    plain, hidden, inside, excluded = some(photos, "a.png", ".b.png", ".c/d.png", "e.png")
    odd = paint(photos / "f.png", "red").rename(photos / "f.dat")
    (photos / "link.png").symlink_to(plain)
    (photos / ".btignore").write_text("e.png\n")
    alone = [hidden, inside, excluded, odd, photos / "link.png"]
    run([photos], index)
    run(alone, index)
    assert set(roots(index)) == {photos, *alone}
    assert run([photos], index).removed == 0
    assert indexed(index) == {plain, *alone}


def test_options_of_a_run_make_no_root_of_a_file_and_none_of_it_less(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, hidden = some(photos, "a.png", ".b.png")
    run([photos, a, hidden], index, rules=Rules(exclude=("a.png",), hidden=True))
    assert (roots(index), indexed(index)) == ([photos, hidden], {a, hidden})
    assert run([photos], index).removed == 0


def test_a_file_in_a_folder_that_became_a_root_by_the_way_is_met_there(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    inside, *_ = some(photos, ".album/a.png", "b.png")
    run([photos, photos / ".album", inside], index)
    assert roots(index) == [photos, photos / ".album"]


def test_a_file_that_was_a_root_before_its_folder_is_one_for_good(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    a, *_ = some(photos, "a.png", "b.png")
    run([a], index)
    run([photos], index)
    assert roots(index) == [photos, a]
