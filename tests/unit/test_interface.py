"""What the public interface takes and refuses, says of itself, and gives back."""

import dataclasses
import importlib
import inspect
import json
import math
import shutil
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bridgetower
from bridgetower import BridgeTowerError, Captioned, Hit, InputError, Library, Model, Results, SearchRequest, UsageError
from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.checkpoints.find import DEMO, resolve
from bridgetower.encoders.protocol import Vectors
from bridgetower.inputs import Moment
from tests.fakes import FakeEncoder, paint

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
    for given in (str(folder), Model(str(folder), device="cpu")):
        said: list[str] = []
        with Library(tmp_path / "index", given, device="cpu", say=said.append) as library:
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


def test_a_place_that_the_index_does_not_know_is_an_error(library: Library, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path / "elsewhere", tmp_path / "photos" / "nothing"):
        with pytest.raises(InputError, match="nothing in the index lies"):
            library.search("red", under=place)


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
    "exclude": lambda library, model: library.index([], exclude="*.png"),
    "watch": lambda library, model: next(library.watch("photos")),
    "forget": lambda library, model: library.forget("photos"),
    "match texts": lambda library, model: model.match([CATS], "cat"),
    "match one picture": lambda library, model: model.match(str(CATS), ["cat"]),
    "rerank one picture": lambda library, model: model.rerank("cat", CATS),  # type: ignore[arg-type]
    "fill one picture": lambda library, model: model.fill("a <mask>", Image.new("RGB", (9, 9))),  # type: ignore[arg-type]
    "embed one array": lambda library, model: model.embed_images(np.zeros((9, 9, 3), np.uint8)),
    "embed bytes": lambda library, model: model.embed_images(b"picture"),  # type: ignore[arg-type]
    "embed texts": lambda library, model: model.embed_texts("cat"),
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
    "filter": lambda library, model: SearchRequest("red", filter={}),  # type: ignore[arg-type]
    "since a number": lambda library, model: library.search("red", since=2024),  # type: ignore[arg-type]
    "since with a zone": lambda library, model: library.search("red", since=datetime(2024, 1, 1, tzinfo=UTC)),
    "under a number": lambda library, model: library.search("red", under=3),  # type: ignore[arg-type]
    "under a list": lambda library, model: library.search("red", under=["a"]),  # type: ignore[arg-type]
    "under nul": lambda library, model: library.search("red", under="a\0b"),
    "under nothing": lambda library, model: library.search("red", under=""),
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
    "exclude": lambda library, model: library.index([], exclude=[3]),  # type: ignore[list-item]
    "max_pixels": lambda library, model: library.index([], max_pixels="x"),  # type: ignore[arg-type]
    "no pixels": lambda library, model: library.index([], max_pixels=-1),
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
    assert "first.jpg" in repr(Results((Hit(Path("first.jpg"), 1.0, 0.5, verified=True),), 1, 1.0, ()))


def test_results_are_a_sequence_of_hits(library: Library) -> None:
    results = library.search("red", top=3)
    assert len(results) == 3 and list(results) == list(results.hits)
    assert results[0] == results.hits[0] and results[-1] == results.hits[-1]


def test_results_show_themselves_in_a_notebook(tmp_path: Path) -> None:
    there = paint(tmp_path / "<b> & co.png", "red")
    gone = tmp_path / "gone.png"
    hits = (Hit(there, 0.91234, 0.5, verified=True), Hit(gone, None, 0.25, verified=False))
    shown = Results(hits, 1, 0.9, ())._repr_html_()
    assert shown.count('<img src="data:image/jpeg;base64,') == 1
    assert "&lt;b&gt; &amp; co.png" in shown and "<b>" not in shown
    assert "gone.png" in shown and "0.912" in shown and "unverified" in shown
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
    for part in ("retrieval.encode_pictures.AnyPicture", "encoders.protocol.Vectors", "transfer.path_map.PathMap"):
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
        if dataclasses.is_dataclass(kind) and kind is not Checkpoint:  # whose fields are for those who build networks
            fields = typing.get_type_hints(kind).values()
            pending += [part for field in fields for part in ours(field)]
    assert len(seen) > 20
