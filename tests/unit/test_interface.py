"""What the public interface takes and refuses, says of itself, and gives back."""

import dataclasses
import importlib
import inspect
import io
import json
import math
import os
import shutil
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bridgetower
from bridgetower import (
    BridgeTowerError,
    Captioned,
    Finding,
    Folder,
    Found,
    Hit,
    Library,
    Model,
    Prepared,
    ResourceError,
    Results,
    SearchRequest,
    TrainSettings,
    UnknownPlaceError,
    UsageError,
    convert_model,
    prepare_training,
    pull_model,
    read_captions,
    train_model,
)
from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.protocol import Vectors
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.index.vectors.faiss.store import FaissStore
from bridgetower.moments import Moment
from bridgetower.records import DEMO
from tests.clouds import evict
from tests.fakes import FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("decode_here")

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
CATS = GALLERY / "two-cats-on-a-couch-in-the-desert.jpg"
TEXT = "two cats on a couch"
SPACED = [TEXT, f" {TEXT}", f"{TEXT} ", "two  cats on a couch", "two\tcats on a couch", "two\u00a0cats on\na couch"]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("demo", device="cpu", precision="fp32")


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Pictures of two years in two folders, seen by a double."""
    for name, year in (("old/red", 2023), ("old/green", 2024), ("new/red", 2024), ("new/blue", 2025)):
        path = paint(tmp_path / "photos" / f"{name}.jpg", name.partition("/")[2])
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"{year}:05:17 12:00:00"
        Image.open(path).resize((40, 32 + year - 2020)).save(path, exif=exif)
    fake = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        library.index([tmp_path / "photos"])
        yield library


def found(library: Library, **asked: Any) -> set[str]:
    """Folder and name of each picture that a search finds."""
    return {"/".join(hit.path.with_suffix("").parts[-2:]) for hit in library.search("red", **asked)}


# Texts


def test_blanks_around_and_between_words_change_no_number(model: Model, tmp_path: Path) -> None:
    def once(measure: Callable[[str], Any]) -> None:
        results = [measure(text) for text in SPACED]
        assert all(result == results[0] for result in results), results

    with Library(tmp_path / "index", model) as library:
        library.index([CATS, GALLERY / "a-cat-on-a-couch-in-a-meadow.jpg"])
        once(lambda text: [(score.match, score.similarity) for score in model.match([CATS], [text])])
        once(lambda text: library.search(text))
        once(lambda text: library.fill(f"{text} by the <mask>", top=2))
        once(lambda text: model.fill(f"{text} by the <mask>", [CATS], top=2))
        once(lambda text: model.rerank(text, [CATS]))
        once(lambda text: model.embed_texts([text]).tolist())


def test_captions_are_measured_without_their_blanks() -> None:
    seen: set[str] = set()

    class Listening(FakeEncoder):
        def embed_texts(self, texts: Sequence[str]) -> Vectors:
            seen.update(texts)
            return super().embed_texts(texts)

    fake = Listening()
    [recall, verified] = Model.from_parts(fake, fake).evaluate([Captioned(CATS, tuple(SPACED))])
    assert seen == {TEXT}
    assert (recall.texts, verified.depth) == (len(SPACED), 20)


def test_the_encoder_itself_takes_texts_as_they_are(model: Model) -> None:
    raw, normalised = model.encoder.embed_texts([f"  {TEXT}", TEXT])
    assert not np.allclose(raw, normalised, atol=1e-3)


def test_another_tokenizer_than_that_of_the_index_is_told_once(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve(DEMO).folder, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with Library(tmp_path / "index", model) as library:
        library.index([CATS])
    for given in (str(folder), Model(str(folder))):
        said: list[str] = []
        with Library(tmp_path / "index", given, say=said.append) as library:
            for _ in range(2):
                library.search("two cats", depth=0)
        assert [line for line in said if "tokenizer" in line] == [said[0]]
        assert said[0].startswith(f"note: the tokenizer of {folder} is another than when the index was made")
    unchanged: list[str] = []
    with Library(tmp_path / "index", model, say=unchanged.append) as library:
        library.search("two cats", depth=0)
    assert unchanged == []


# Places and dates


def test_a_search_is_limited_to_a_place_by_any_name_of_it(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "photos" / "new")
    monkeypatch.chdir(tmp_path / "photos")
    for place in ("new", "../photos/new/", Path("new"), tmp_path / "photos" / "new", tmp_path / "link"):
        assert found(library, under=place) == {"new/red", "new/blue"}
    assert found(library, under="new/red.jpg") == {"new/red"}
    assert library.locate("new") == tmp_path / "photos" / "new"
    assert library.locate("elsewhere") is None
    assert library.forget([tmp_path / "link"], dry_run=True).forgotten[0].path == tmp_path / "photos" / "new"
    library.forget([tmp_path / "link"])
    assert library.locate("new") is None


def test_folders_of_a_library(library: Library, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    below = [Folder(photos / "new", 2), Folder(photos / "old", 2)]
    assert library.folders() == [Folder(photos, 4)]
    assert library.folders(photos) == library.folders(f"{photos}/new/../") == below
    assert library.folders(photos, most=1) == below[:1] and library.folders(photos / "new") == []
    assert library.folders(tmp_path / "elsewhere") == []
    single = paint(tmp_path / "single.png", "white")
    library.index([single])
    assert library.folders() == [Folder(photos, 4), Folder(single, 1)]
    assert library.folders(single) == []


def test_a_search_is_limited_to_several_places_and_kept_from_others(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    everything = {"old/red", "old/green", "new/red", "new/blue"}
    assert found(library, under=[photos / "old", photos / "new" / "red.jpg"]) == everything - {"new/blue"}
    assert found(library, under=(one for one in [photos / "old"])) == {"old/red", "old/green"}
    assert found(library, not_under=photos / "old") == {"new/red", "new/blue"}
    assert found(library, not_under=[photos / "old", photos / "new" / "red.jpg"]) == {"new/blue"}
    assert found(library, under=photos / "old", not_under=photos / "old" / "red.jpg") == {"old/green"}
    assert found(library, not_under=[]) == everything
    with pytest.raises(UnknownPlaceError, match=r"lies under .*nothing"):
        library.search("red", under=[photos, photos / "nothing"])
    with pytest.raises(UnknownPlaceError, match=r"lies under .*nothing"):
        library.search("red", not_under=photos / "nothing")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for glob in (
        "old",
        "*/old/*",
        "o?d",
        "photos/[o]ld",
        "old/**",
        "~/photos/ol*",
        "./*/old",
        f"{photos}/o*/",
        "*/old/*.jpg",
    ):
        if glob != "old":
            assert found(library, under=glob) == {"old/red", "old/green"}, glob
            assert found(library, not_under=glob) == {"new/red", "new/blue"}, glob
    assert found(library, under=["*/red.*", "*/bl*.jpg"]) == everything - {"old/green"}
    assert found(library, under=["*/red.*", photos / "new"], not_under="old/*") == {"new/red", "new/blue"}
    assert found(library, under="./ol*") == set()  # of the current folder
    assert found(library, under=["*/r*", "./*/r*"], not_under="./*/old/*") == {"new/red"}
    assert found(library, under="re*", not_under="./re*") == {"old/red", "new/red"}
    assert found(library, under="*/OLD/*") == set()
    with pytest.raises(UnknownPlaceError):
        library.search("red", under="old[")  # no pattern, so it is a name


def test_a_pattern_in_a_name_is_that_name_and_letters_are_composed_or_not(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "a[b]* c"
    paint(folder / "Zu\u0308rich.png", "red")
    paint(tmp_path / "ab c" / "other.png", "white")
    library.index([folder, tmp_path / "ab c"])
    assert found(library, under=folder) == {f"{folder.name}/Zu\u0308rich"}
    request = SearchRequest("red", under=f"{tmp_path}/ab*", top=1)
    assert [hit.path.stem for hit in library.search(request)] == ["other"]
    for name in ("Z\u00fcrich", "Zu\u0308rich"):
        assert found(library, under=f"*/{name}.*") == {f"{folder.name}/Zu\u0308rich"}
        assert found(library, under=folder / f"{name}.png") == {f"{folder.name}/Zu\u0308rich"}


def test_a_place_that_the_index_does_not_know_is_an_error(library: Library, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path / "elsewhere", tmp_path / "photos" / "nothing"):
        with pytest.raises(UnknownPlaceError, match="nothing in the index lies"):
            library.search("red", under=place)
        for dry_run in (True, False):
            with pytest.raises(UnknownPlaceError, match="the index knows nothing there"):
                library.forget([place], dry_run=dry_run)


def test_what_was_named_stays_the_same_in_another_folder(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image": "photos/old/red.jpg", "captions": ["red"]}))
    monkeypatch.chdir(tmp_path)
    reports = library.watch(["photos"])
    place = SearchRequest("red", under="photos/new")
    picture = SearchRequest(image="photos/new/blue.jpg", top=1, keep_self=True)
    captioned = [*read_captions("captions.jsonl"), Captioned("photos/old/red.jpg", ["red"])]
    fake = FakeEncoder()
    results = Model.from_parts(fake, fake).evaluate("captions.jsonl")
    monkeypatch.chdir(tmp_path / "photos")
    assert next(reports).files == 4
    assert {hit.path.parent.name for hit in library.search(place)} == {"new"}
    assert library.search(picture)[0].path.name == "blue.jpg"
    assert [one.image for one in captioned] == [tmp_path / "photos" / "old" / "red.jpg"] * 2
    assert [result.pictures for result in results] == [1, 1]


def test_a_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="the current folder is gone"):
        Library("index")


def test_a_home_is_meant_only_where_a_library_or_a_model_is_named(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert Library("~/index").directory == tmp_path / "home" / "index"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "model").symlink_to(resolve(DEMO).folder)
    assert Model("~/model").heads == Model("demo").heads
    paint(tmp_path / "~" / "blue.png", "blue")
    library.index(["~"])
    assert [hit.path for hit in library.search("blue", under="~")] == [tmp_path / "~" / "blue.png"]
    assert library.export("~/exported").folder == tmp_path / "~" / "exported"


# Requests


def test_a_request_says_all_that_a_search_does(library: Library, tmp_path: Path) -> None:
    said: dict[str, Any] = {"under": tmp_path / "photos" / "new", "since": "2024", "before": date(2025, 1, 1), "top": 2}
    request = SearchRequest("red", **said)
    assert library.search(request) == library.search("red", **said)
    assert {hit.path.stem for hit in library.search(request)} == {"red"}
    with pytest.raises(UnknownPlaceError):
        library.search(SearchRequest("red", under=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "beside",
    [
        {"image": np.zeros((9, 9, 3), np.uint8)},
        {"vector": np.ones(3, np.float32)},
        {"under": "photos"},
        {"not_under": "photos"},
        {"since": "2024"},
        {"before": "2024"},
        {"taken": "2024"},
        {"top": 3},
        {"depth": 0},
        {"min_match": 0.5},
        {"budget": 1.0},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_nothing_is_given_beside_a_request(library: Library, beside: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="nothing can be given beside it"):
        library.search(SearchRequest("red"), **beside)


REQUESTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an empty text": {"text": " "},
    "an image": {"image": 3},
    "an image of floats": {"image": np.zeros((9, 9))},
    "a vector": {"vector": 3},
    "a vector of texts": {"vector": ["a", "b", "c"]},
    "a ragged vector": {"vector": [[1], [1, 2]]},
    "two vectors": {"vector": np.ones((2, 3))},
    "an empty vector": {"vector": []},
    "since": {"text": "red", "since": 2024},
    "no time": {"text": "red", "since": "2024", "before": "2024"},
    "two times": {"text": "red", "since": "2024", "taken": "2024"},
    "taken": {"text": "red", "taken": "2024..2023"},
    "under": {"text": "red", "under": 3},
    "under nothing": {"text": "red", "under": ""},
    "top": {"text": "red", "top": 0},
    "depth": {"text": "red", "depth": "2"},
    "budget": {"text": "red", "budget": "2s"},
}


@pytest.mark.parametrize("values", REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_checked_when_it_is_made(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SearchRequest(**values)


def test_a_request_can_be_used_twice(library: Library) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([7, 0, 0], np.float32))
    stream.seek(0)
    request = SearchRequest(vector=stream, top=2)
    assert library.search(request) == library.search(request) == library.search(vector=[1, 0, 0], top=2)  # type: ignore[arg-type]


def test_the_checked_values_are_those_that_are_used(library: Library, model: Model) -> None:
    values: dict[str, Any] = {"top": np.int64(2), "depth": np.int8(1), "min_match": Decimal(0), "budget": Decimal(9)}
    request = SearchRequest("red", **values)
    held = {name: getattr(request, name) for name in values}
    assert held == {"top": 2, "depth": 1, "min_match": 0.0, "budget": 9.0}
    assert {name: type(value) for name, value in held.items()} == {
        "top": int, "depth": int, "min_match": float, "budget": float
    }  # fmt: skip
    assert library.search(request) == library.search("red", top=2, depth=1, min_match=0, budget=9)
    assert len(model.rerank("a cat", [CATS, CATS], top=np.int8(1), min_match=Decimal(0))) == 1  # type: ignore[arg-type]


# Captions


def test_captioned_pictures_are_checked() -> None:
    captioned = Captioned(CATS, (text for text in (f" {TEXT} ", "cats")))  # type: ignore[arg-type]
    assert captioned.captions == (TEXT, "cats")
    with pytest.raises(UsageError, match="a list of texts"):
        Captioned(CATS, "cats")
    for captions in ([], [3], [""]):
        with pytest.raises(UsageError):
            Captioned(CATS, captions)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Captioned("a\0b", ["cats"])


def test_captioned_pictures_may_be_in_memory() -> None:
    fake = FakeEncoder()
    pixels = np.asarray(Image.open(CATS))
    measured = [
        list(Model.from_parts(fake, fake).evaluate(Captioned(picture, ["red"]) for picture in pictures))
        for pictures in ([pixels, CATS.read_bytes()], [Image.open(CATS), CATS])
    ]
    assert measured[0] == measured[1]
    descriptor = os.open(CATS, os.O_RDONLY)
    for wrong in (descriptor, None, np.zeros((9, 9))):
        with pytest.raises(UsageError):
            Model.from_parts(fake, fake).evaluate([Captioned(wrong, ["red"])])
    os.close(descriptor)  # it is still open


# Want of resources


def test_want_of_threads_is_told(library: Library, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for work in (lambda: model.match([CATS], ["a cat"]), lambda: next(library.watch([CATS]))):
        with pytest.raises(ResourceError, match="no thread can be started"):
            work()


def test_want_of_memory_is_told_by_whatever_computes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    encoder = model.encoder
    assert isinstance(encoder, TorchEncoder)
    monkeypatch.setattr(encoder.load()._model, "embed_image", exhausted)
    with pytest.raises(ResourceError, match="not enough memory on the GPU"):
        model.embed_images([CATS])
    monkeypatch.setattr(encoder._text_tower, "hidden", lambda ids: np.zeros((1 << 50, 8)))
    with pytest.raises(ResourceError, match="not enough memory"):
        model.embed_texts(["a text that is new"])


def test_want_of_handles_in_a_search_or_a_change_is_told(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise ImportError("libfaiss.so: cannot open shared object file: Too many open files")

    monkeypatch.setattr("bridgetower.queries.pages", exhausted)
    monkeypatch.setattr("bridgetower.index.maintenance.prune", exhausted)
    for work in (lambda: library.search("red"), library.prune):
        with pytest.raises(ResourceError, match="too many open files"):
            work()


@pytest.mark.parametrize("year", [2024, "2024", "2024-01", "2024-01-01", "2024-01-01T00:00", date(2024, 1, 1)], ids=str)
def test_dates_are_texts_or_dates(library: Library, year: Moment) -> None:
    if isinstance(year, int):
        year = datetime(year, 1, 1)
    assert found(library, since=year, before="2025") == {"old/green", "new/red"}
    assert found(library, before=year) == {"old/red"}


@pytest.mark.parametrize("bounds", [("2024", "2024"), ("2025", date(2024, 1, 1)), ("soon", None), (None, "2024-13")])
def test_dates_that_bound_nothing_and_no_dates_are_errors_of_usage(
    library: Library, bounds: tuple[Moment, Moment]
) -> None:
    with pytest.raises(UsageError):
        library.search("red", since=bounds[0], before=bounds[1])


# Errors

LISTS: dict[str, Callable[[Library, Model], object]] = {
    "index": lambda library, model: library.index("photos"),
    "index bytes": lambda library, model: library.index(b"photos"),  # type: ignore[arg-type]
    "index a path": lambda library, model: library.index(Path("photos")),  # type: ignore[arg-type]
    "exclude": lambda library, model: library.index(["a"], exclude="*.png"),
    "watch": lambda library, model: next(library.watch("photos")),
    "forget": lambda library, model: library.forget("photos"),
    "match texts": lambda library, model: model.match([CATS], "cat"),
    "match one picture": lambda library, model: model.match(str(CATS), ["cat"]),
    "rerank one picture": lambda library, model: model.rerank("cat", CATS),  # type: ignore[arg-type]
    "fill one picture": lambda library, model: model.fill("a <mask>", Image.new("RGB", (9, 9))),  # type: ignore[arg-type]
    "embed one array": lambda library, model: model.embed_images(np.zeros((9, 9, 3), np.uint8)),
    "embed bytes": lambda library, model: model.embed_images(b"picture"),  # type: ignore[arg-type]
    "embed texts": lambda library, model: model.embed_texts("cat"),
    "captions": lambda library, model: model.evaluate(3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("use", LISTS.values(), ids=LISTS)
def test_one_thing_in_place_of_a_list_is_an_error_of_usage(
    library: Library, model: Model, use: Callable[[Library, Model], object]
) -> None:
    with pytest.raises(UsageError, match="a list of"):
        use(library, model)


VALUES: dict[str, Callable[[Library, Model], object]] = {
    "no text": lambda library, model: model.match([CATS], [7]),  # type: ignore[list-item]
    "an empty text": lambda library, model: model.embed_texts([" "]),
    "nothing": lambda library, model: library.search(),
    "top": lambda library, model: library.search("red", top=0),
    "top a text": lambda library, model: library.search("red", top="3"),  # type: ignore[arg-type]
    "top a fraction": lambda library, model: library.search("red", top=3.0),  # type: ignore[arg-type]
    "top none": lambda library, model: library.search("red", top=None),  # type: ignore[arg-type]
    "top true": lambda library, model: library.search("red", top=True),
    "min_match a text": lambda library, model: library.search("red", min_match="0.5"),  # type: ignore[arg-type]
    "budget a text": lambda library, model: library.search("red", budget="2s"),  # type: ignore[arg-type]
    "budget a span": lambda library, model: library.search("red", budget=timedelta(1)),  # type: ignore[arg-type]
    "budget no number": lambda library, model: library.search("red", budget=math.nan),
    "under surrogate": lambda library, model: library.search("red", under="\ud800"),
    "fill depth": lambda library, model: library.fill("a <mask>", depth=0),
    "index no paths": lambda library, model: library.index([]),
    "watch no paths": lambda library, model: library.watch([]),
    "more pixels": lambda library, model: library.index(["photos"], max_pixels=10**10 + 1),
    "index surrogate": lambda library, model: library.index(["\ud800"]),
    "match surrogate": lambda library, model: model.match(["\ud800"], ["a"]),
    "library surrogate": lambda library, model: Library("\ud800"),
    "library of nobody": lambda library, model: Library("~nosuchuser/i"),
    "features of nobody": lambda library, model: Library("a", features_dir="~nosuchuser/i"),
    "pull": lambda library, model: pull_model(3),  # type: ignore[arg-type]
    "convert": lambda library, model: convert_model(3, "a"),  # type: ignore[arg-type]
    "convert nowhere": lambda library, model: convert_model("demo", ""),
    "library preprocessing": lambda library, model: Library("a", preprocessing=[1]),  # type: ignore[arg-type]
    "library preprocessing name": lambda library, model: Library("a", preprocessing="square"),
    "library device": lambda library, model: Library("a", device="abacus"),
    "library precision": lambda library, model: Library("a", precision=[1]),  # type: ignore[arg-type]
    "library default precision": lambda library, model: Library("a", default_precision="fp7"),
    "library model": lambda library, model: Library("a", 3),  # type: ignore[arg-type]
    "library default model": lambda library, model: Library("a", default_model=3),  # type: ignore[arg-type]
    "preprocessing": lambda library, model: Model("demo", preprocessing="square"),
    "since a number": lambda library, model: library.search("red", since=2024),  # type: ignore[arg-type]
    "since with a zone": lambda library, model: library.search("red", since=datetime(2024, 1, 1, tzinfo=UTC)),
    "under a number": lambda library, model: library.search("red", under=3),  # type: ignore[arg-type]
    "under a list of numbers": lambda library, model: library.search("red", under=[3]),  # type: ignore[list-item]
    "under no place": lambda library, model: library.search("red", under=[]),
    "under many places": lambda library, model: library.search("red", under=[str(n) for n in range(101)]),
    "not under a number": lambda library, model: library.search("red", not_under=3),  # type: ignore[arg-type]
    "not under nothing": lambda library, model: library.search("red", not_under=[""]),
    "under nul": lambda library, model: library.search("red", under="a\0b"),
    "under nothing": lambda library, model: library.search("red", under=""),
    "folders": lambda library, model: library.folders(3),  # type: ignore[arg-type]
    "folders most": lambda library, model: library.folders(most=0),
    "locate": lambda library, model: library.locate(3),  # type: ignore[arg-type]
    "image a number": lambda library, model: library.search(image=3),  # type: ignore[arg-type]
    "image nul": lambda library, model: library.search(image="a\0b"),
    "vector ragged": lambda library, model: library.search(vector=[[1], [1, 2]]),  # type: ignore[arg-type]
    "vector a number": lambda library, model: library.search(vector=3),  # type: ignore[arg-type]
    "vector nul": lambda library, model: library.search(vector="a\0b"),
    "index a number": lambda library, model: library.index(3),  # type: ignore[arg-type]
    "index numbers": lambda library, model: library.index([3]),  # type: ignore[list-item]
    "index bytes": lambda library, model: library.index([b"photos"]),  # type: ignore[list-item]
    "index nothing": lambda library, model: library.index([""]),
    "index nul": lambda library, model: library.index(["a\0b"]),
    "exclude": lambda library, model: library.index(["a"], exclude=[3]),  # type: ignore[list-item]
    "max_pixels": lambda library, model: library.index(["a"], max_pixels="x"),  # type: ignore[arg-type]
    "no pixels": lambda library, model: library.index(["a"], max_pixels=-1),
    "watch, before it begins": lambda library, model: library.watch(3),  # type: ignore[arg-type]
    "forget": lambda library, model: library.forget([3]),  # type: ignore[list-item]
    "export": lambda library, model: library.export(3),  # type: ignore[arg-type]
    "export nul": lambda library, model: library.export("a\0b"),
    "moves": lambda library, model: library.import_folder("a", moves="b"),  # type: ignore[arg-type]
    "library": lambda library, model: Library(3),  # type: ignore[arg-type]
    "library nul": lambda library, model: Library("a\0b"),
    "cache": lambda library, model: Library("a", features_cache=-1),
    "model": lambda library, model: Model(3),  # type: ignore[arg-type]
    "fill": lambda library, model: model.fill("a <mask>", [CATS], top="2"),  # type: ignore[arg-type]
    "fill without mask": lambda library, model: model.fill("a", [CATS]),
    "fill with numbers": lambda library, model: model.fill("a <mask>", np.zeros((9, 9))),
    "rerank an array of fractions": lambda library, model: model.rerank("a", [np.zeros((9, 9))]),  # type: ignore[list-item]
    "rerank min_match": lambda library, model: model.rerank("a", [CATS], min_match=math.nan),
    "rerank top": lambda library, model: model.rerank("a", [CATS], top=0),
    "depths a number": lambda library, model: model.evaluate([], depths=20),  # type: ignore[arg-type]
    "depths a text": lambda library, model: model.evaluate([], depths="20"),  # type: ignore[arg-type]
    "depths none": lambda library, model: model.evaluate([], depths=[0]),
    "captions": lambda library, model: model.evaluate(["a cat"]),  # type: ignore[list-item]
    "depth": lambda library, model: library.search("red", depth=-1),
    "min_match": lambda library, model: library.search("red", min_match=2),
    "budget": lambda library, model: library.search("red", budget=-1),
    "no mask": lambda library, model: library.fill("red"),
    "shape": lambda library, model: library.search(vector=np.ones(4, np.float32)),
    "no numbers": lambda library, model: library.search(vector=np.array(["a", "b", "c"])),
    "no captions": lambda library, model: model.evaluate([]),
    "device": lambda library, model: Model("demo", device="abacus"),
    "precision": lambda library, model: Model("demo", precision="fp7"),
}


@pytest.mark.parametrize("use", VALUES.values(), ids=VALUES)
def test_values_out_of_range_are_errors_of_usage(
    library: Library, model: Model, use: Callable[[Library, Model], object]
) -> None:
    with pytest.raises(UsageError) as raised:
        use(library, model)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)


BESIDE: dict[str, dict[str, Any]] = {
    "device": {"device": "cpu"},
    "precision": {"precision": "int8"},
    "preprocessing": {"preprocessing": "plain"},
    "default_model": {"default_model": "demo"},
    "default_precision": {"default_precision": "bf16"},
}


@pytest.mark.parametrize("options", BESIDE.values(), ids=BESIDE)
def test_nothing_is_insisted_on_beside_a_model_that_is_ready(model: Model, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Library("index", model, **options)
    Library("index", model, progress=True, features_cache=0)


SETTINGS = TrainSettings("captions.jsonl", "demo", "new")
PREPARED: Any = None  # the listeners come first
TOLD = "say on_progress on_publish on_hits on_row on_look on_start on_step on_validation should_stop".split()
LISTENERS: dict[str, Callable[[Library, Model, Any], object]] = {
    "Library say": lambda library, model, none: Library("a", say=none),
    "Library.search on_progress": lambda library, model, none: library.search("red", on_progress=none),
    "Library.search on_hits": lambda library, model, none: library.search("red", on_hits=none),
    "Library.fill on_progress": lambda library, model, none: library.fill("a <mask>", on_progress=none),
    "Library.index on_progress": lambda library, model, none: library.index([CATS], on_progress=none),
    "Library.index on_publish": lambda library, model, none: library.index([CATS], on_publish=none),
    "Library.watch on_progress": lambda library, model, none: library.watch([CATS], on_progress=none),
    "Library.watch on_publish": lambda library, model, none: library.watch([CATS], on_publish=none),
    "Library.duplicates on_progress": lambda library, model, none: library.duplicates(on_progress=none),
    "Library.duplicates on_look": lambda library, model, none: library.duplicates(on_look=none),
    "Library.prune on_progress": lambda library, model, none: library.prune(on_progress=none),
    "Library.check on_progress": lambda library, model, none: library.check(on_progress=none),
    "Library.repair on_progress": lambda library, model, none: library.repair(on_progress=none),
    "Library.export on_progress": lambda library, model, none: library.export("nowhere", on_progress=none),
    "Library.move_store on_publish": lambda library, model, none: library.move_store("faiss", on_publish=none),
    "Library.import_folder on_progress": lambda library, model, none: library.import_folder("a", on_progress=none),
    "Library.import_vectors on_progress": lambda library, model, none: library.import_vectors(
        "a", "b", "c", on_progress=none
    ),
    "Library.pages on_progress": lambda library, model, none: library.pages(SearchRequest("a"), on_progress=none),
    "Library.pages on_hits": lambda library, model, none: library.pages(SearchRequest("a"), on_hits=none),
    "Model say": lambda library, model, none: Model("demo", say=none),
    "Model.from_parts say": lambda library, model, none: Model.from_parts(FakeEncoder(), say=none),
    "Model.embed_images on_progress": lambda library, model, none: model.embed_images([CATS], on_progress=none),
    "Model.match on_progress": lambda library, model, none: model.match([CATS], ["a"], on_progress=none),
    "Model.rerank on_progress": lambda library, model, none: model.rerank("a", [CATS], on_progress=none),
    "Model.fill on_progress": lambda library, model, none: model.fill("a <mask>", [CATS], on_progress=none),
    "Model.evaluate on_progress": lambda library, model, none: model.evaluate(
        [Captioned(CATS, ["a"])], on_progress=none
    ),
    "Model.audit on_progress": lambda library, model, none: model.audit([Captioned(CATS, ["a"])], on_progress=none),
    "Model.audit on_row": lambda library, model, none: model.audit([Captioned(CATS, ["a"])], on_row=none),
    "pull_model say": lambda library, model, none: pull_model("demo", say=none),
    "prepare_training on_progress": lambda library, model, none: prepare_training(SETTINGS, on_progress=none),
    "prepare_training say": lambda library, model, none: prepare_training(SETTINGS, say=none),
    "train_model on_start": lambda library, model, none: train_model(PREPARED, on_start=none),
    "train_model on_step": lambda library, model, none: train_model(PREPARED, on_step=none),
    "train_model on_validation": lambda library, model, none: train_model(PREPARED, on_validation=none),
    "train_model should_stop": lambda library, model, none: train_model(PREPARED, should_stop=none),
    "convert_model say": lambda library, model, none: convert_model("demo", "nowhere", say=none),
}


@pytest.mark.parametrize("use", LISTENERS.values(), ids=LISTENERS)
def test_who_is_told_nothing_is_left_out(
    library: Library, model: Model, use: Callable[[Library, Model, Any], object]
) -> None:
    with pytest.raises(UsageError, match="None: a function is wanted"):
        use(library, model, None)


def test_every_listener_is_tried() -> None:
    functions = {function.__qualname__: function for function in public_functions()}
    functions |= {"Library": Library, "Model": Model}
    found = {
        f"{name} {parameter}"
        for name, function in functions.items()
        for parameter in inspect.signature(function).parameters
        if parameter in TOLD
    }
    assert found == LISTENERS.keys()


def test_values_of_kinds_that_mean_the_same_are_taken(library: Library) -> None:
    numbers: dict[str, Any] = {"top": np.int64(2), "depth": np.int8(1), "min_match": np.float32(0), "budget": 9}
    assert library.search("red", **numbers) == library.search("red", top=2, depth=1, min_match=0, budget=9.0)


def test_no_pictures_or_no_texts_have_no_scores(model: Model) -> None:
    assert model.match([], ["cat"]) == model.match([CATS], []) == []


def test_a_vector_of_any_length_recalls_and_one_without_a_direction_is_an_error(library: Library) -> None:
    unit = library.search(vector=np.array([1, 0, 0], np.float32))
    for vector in (np.array([7, 0, 0], np.float64), np.array([3, 0, 0]), [0.5, 0, 0], np.array([[2.0, 0, 0]])):
        assert library.search(vector=vector) == unit  # type: ignore[arg-type]
    for senseless in ([0, 0, 0], [np.nan, 1, 0]):
        with pytest.raises(BridgeTowerError, match="no direction"):
            library.search(vector=np.array(senseless, np.float32))


def test_every_public_error_is_one_of_ours() -> None:
    errors = [name for name in bridgetower.__all__ if name.endswith("Error")]
    assert len(errors) > 10
    assert all(issubclass(getattr(bridgetower, name), BridgeTowerError) for name in errors)


# What it says of itself


def test_a_library_a_model_and_a_request_say_what_they_are(library: Library, model: Model) -> None:
    assert repr(library) == f"<Library {str(library.directory)!r}>"
    assert repr(model) == "<Model 'demo' (ITC ITM MLM, fp32 on cpu)>"
    request = SearchRequest("red", vector=np.ones(768, np.float32), top=3)
    assert repr(request).startswith("SearchRequest(text='red', ") and "top=3" in repr(request)
    assert len(repr(request)) < 300 and "\n" not in repr(request)
    assert len(repr(SearchRequest(image=bytes(10**6)))) < 300
    fake = FakeEncoder()
    [encoder, engine] = [model.encoder, Model.from_parts(fake).engine]
    assert repr(encoder) == "<TorchEncoder 'demo', fp32 on cpu>"
    assert repr(engine) == "<LocalEngine, preprocessing hf, batches of 16>"
    assert repr(FaissStore()) == "<FaissStore>"


def test_results_say_how_many_they_are_and_which_is_the_best() -> None:
    hit = Hit(Path("photos/first.jpg"), 0.93, 0.5, verified=True)
    assert repr(Results((hit,), 1, 0.93, ())) == "<Results 1 hit, best 0.93 'first.jpg'>"
    unverified = dataclasses.replace(hit, match=None, verified=False)
    for first, score in ((hit, "0.93"), (unverified, "0.50")):
        found = Found((first,) * 150, 1, 0.93, (), 0, (), (), None, 1)
        assert repr(found) == f"<Found 150 hits, best {score} 'first.jpg'>"
    assert repr(Results((), 0, None, ())) == "<Results 0 hits>"


def test_a_picture_in_memory_is_not_taken_for_a_file(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("<picture 1>").write_bytes(CATS.read_bytes())
    names = {str(hit.path) for hit in model.rerank("a", ["<picture 1>", np.asarray(Image.open(CATS))])}
    assert names == {"<picture 1>", "<<picture 1>>"}


def test_a_finding_says_whether_its_part_can_be_made_again() -> None:
    parts = "images files roots queries counts log manifest backup vectors features".split()
    assert {part for part in parts if Finding(part, "damaged").derived} == {"counts", "backup", "vectors", "features"}


def test_results_are_a_sequence_of_hits(library: Library) -> None:
    results = library.search("red", top=3)
    assert len(results) == 3 and list(results) == list(results.hits)
    assert results[0] == results.hits[0] and results[-1] == results.hits[-1]
    best: Hit = results[0]
    first: tuple[Hit, ...] = results[:2]
    assert (best, *first[1:]) == results.hits[:2]


def test_results_show_themselves_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = paint(tmp_path / "<b> & co.png", "red")
    gone = tmp_path / "gone.png"
    hits = (Hit(there, 0.91234, 0.5, verified=True), Hit(gone, None, 0.25, verified=False))
    shown = Results(hits, 1, 0.9, ())._repr_html_()
    assert shown.count('<img src="data:image/jpeg;base64,') == 1
    assert "&lt;b&gt; &amp; co.png" in shown and "<b>" not in shown
    assert "gone.png" in shown and "0.912" in shown and "unverified" in shown
    evict(monkeypatch, there)  # it would be downloaded
    assert "<img" not in Results(hits, 1, 0.9, ())._repr_html_()
    many = Results(tuple(Hit(gone, None, 0.25, verified=False) for _ in range(60)), 0, None, ())._repr_html_()
    assert many.count("gone.png") == 50 and "and 10 more" in many
    assert Results((), 3, 0.25, ())._repr_html_() == "<p>no match; the best one is 0.250</p>"


# What it gives back


def ours(annotation: object) -> Iterator[type]:
    """The classes of this project in an annotation."""
    if isinstance(annotation, type) and annotation.__module__.partition(".")[0] == "bridgetower":
        yield annotation
    for argument in typing.get_args(annotation):
        yield from ours(argument)


def resolved(function: Callable[..., object]) -> dict[str, object]:
    """The annotations of a public function, those that are imported for a type checker only included."""
    module = importlib.import_module(function.__module__)
    names: dict[str, object] = {name: getattr(bridgetower, name) for name in bridgetower.__all__}
    for part in (
        "retrieval.encode_pictures.AnyPicture",
        "pictures.decode.AnyImage",
        "encoders.protocol.Vectors",
        "transfer.path_map.PathMap",
    ):
        home, _, name = part.rpartition(".")
        names[name] = getattr(importlib.import_module(f"bridgetower.{home}"), name)
    return typing.get_type_hints(function, vars(module), names)


def public_functions() -> Iterator[Callable[..., object]]:
    for name in bridgetower.__all__:
        value = getattr(bridgetower, name)
        if isinstance(value, types.FunctionType):
            yield value
    for kind in (Library, Model):
        for name, member in inspect.getmembers(kind):
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not name.startswith("_"):
                assert isinstance(function, types.FunctionType), name
                yield function


def test_every_type_that_comes_back_can_be_imported_from_the_package() -> None:
    pending = [kind for function in public_functions() for kind in ours(resolved(function)["return"])]
    seen: set[type] = set()
    while pending:
        kind = pending.pop()
        if kind in seen:
            continue
        seen.add(kind)
        assert kind.__name__ in bridgetower.__all__, kind
        assert getattr(bridgetower, kind.__name__) is kind
        # Those of a `Checkpoint` are for networks alone, and those of a `Prepared` for the training.
        if dataclasses.is_dataclass(kind) and kind not in (Checkpoint, Prepared):
            fields = typing.get_type_hints(kind).values()
            pending += [part for field in fields for part in ours(field)]
    assert len(seen) > 20
