"""Which model a library works with, found once, and what is said about it."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridgetower import Library, Model, ModelError
from bridgetower.checkpoints.find import resolve
from bridgetower.models.model_choice import ModelChoice, ModelOptions, Notes
from bridgetower.records import DEMO

pytestmark = pytest.mark.usefixtures("decode_here")

CATS = Path(__file__).parents[3] / "examples" / "gallery" / "two-cats-on-a-couch-in-the-desert.jpg"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The demo model in a folder, as a model of one's own."""
    (tmp_path / "model").symlink_to(resolve(DEMO).folder)
    return (tmp_path / "model").resolve()


def test_a_model_is_one_by_all_its_names(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with Library("index", default_model="./model", device="cpu", say=said.append) as library:
        new = library.model
        library.index([CATS])
        assert library.model is new
        assert library.search("two cats", depth=0)[0].path == CATS
        library.index([CATS], retry=True)
    assert said == []  # the index has the model that is the default here: there is nothing to keep


def test_another_default_model_than_that_of_the_index_is_told_once(demo: Path, tmp_path: Path) -> None:
    with Library(tmp_path / "index", str(demo), device="cpu") as library:
        library.index([CATS])
    said: list[str] = []
    with Library(tmp_path / "index", default_model="demo", device="cpu", say=said.append) as library:
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).write_bytes(CATS.read_bytes() + name.encode())
            library.index([tmp_path / name])
    assert said == [f"note: the index keeps its model {demo}; demo is for new ones"]


@pytest.mark.parametrize("option", ["model", "default_model"])
@pytest.mark.usefixtures("demo")
def test_a_folder_of_a_model_stays_the_same_in_another_folder(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named: dict[str, Any] = {option: "./model"}
    library = Library("index", **named)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert library.model.heads == Model("demo").heads


def test_a_folder_that_is_not_there_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"\./owner/name: no such folder"):
        Model("./owner/name")


def test_an_index_of_a_preprocessing_that_is_not_known_is_an_error_of_the_model(tmp_path: Path) -> None:
    made = replace(Model("demo").fingerprint, preprocessing="square")
    models = ModelChoice(tmp_path, ModelOptions(), Notes(print))
    with pytest.raises(ModelError, match="preprocessing square"):
        models.that_made(made)


def test_what_is_said_holds_nobody_up(tmp_path: Path) -> None:
    """A line may be passed on by another thread, which works with the same library."""
    with Library(tmp_path / "other", "demo", device="cpu") as other:
        other.index([CATS])

    def say(line: str) -> None:
        thread = threading.Thread(target=lambda: seen.append(len(library)), daemon=True)
        thread.start()
        thread.join(60)

    seen: list[int] = []
    with Library(tmp_path / "other", device="cpu", say=say) as library:
        library.search("two cats", depth=0)
    assert seen == [1]


def test_notes_are_passed_on_once_each() -> None:
    said: list[str] = []
    notes = Notes(said.append)
    for line in ("a", "b", "a", "b"):
        notes(line)
    assert said == ["a", "b"]
    for number in range(3000):
        notes(str(number))
    assert len(notes._told) <= 1000


def test_a_model_may_be_named_by_a_path(demo: Path) -> None:
    assert Model(demo, device="cpu").name == str(demo)


def test_an_option_that_says_what_the_index_says_needs_no_model(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(demo)
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32", "preprocessing": "hf"}
    with Library(tmp_path / "index", demo, **how) as library:
        library.index([CATS])
    looked_for: list[str] = []

    def resolve_none(name: str, **_: object) -> object:
        looked_for.append(name)
        raise ModelError(f"{name} is looked for")

    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", resolve_none)
    same: list[dict[str, Any]] = [
        {"model": demo},
        {"model": tmp_path / "link"},
        {"precision": "bf16"},
        {"precision": "auto"},
        {"preprocessing": "hf"},
    ]
    for options in same:
        with Library(tmp_path / "index", **options) as library:
            assert library.index([CATS]).unchanged == 1
    assert looked_for == []
    others: list[dict[str, Any]] = [{"model": "demo"}, {"preprocessing": "plain"}]
    for options in others:
        with Library(tmp_path / "index", **options) as library, pytest.raises(ModelError, match="looked for"):
            library.index([CATS])
