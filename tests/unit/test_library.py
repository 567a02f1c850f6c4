"""The stable Python interface, used as a reader of the README would."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bridgetower
from bridgetower import Head, Library, Model, ModelError, NoIndexError, PictureError, StoreError
from bridgetower.network import int8
from tests.fakes import COLOURS, paint

pytestmark = pytest.mark.usefixtures("decode_here")

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "examples" / "gallery"
CAT = GALLERY / "a-cat-on-a-couch-in-a-meadow.jpg"
TWO_CATS = GALLERY / "two-cats-on-a-couch-in-the-desert.jpg"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("demo", device="cpu", precision="fp32")


@pytest.fixture
def library(tmp_path: Path, model: Model) -> Iterator[Library]:
    with Library(tmp_path / "index", model) as library:
        library.index([CAT, TWO_CATS])
        yield library


def test_every_public_name_is_there_and_documented() -> None:
    assert set(bridgetower.__all__) <= set(dir(bridgetower))
    for name in bridgetower.__all__:
        assert inspect.getdoc(getattr(bridgetower, name)), name


def test_type_checkers_are_told_of_every_public_name() -> None:
    source = inspect.getsource(bridgetower)
    told = re.findall(r"^    from bridgetower\.([\w.]+) import (\w+) as (\w+)$", source, flags=re.MULTILINE)
    assert sorted(told) == sorted((home, name, name) for name, home in bridgetower._HOME_OF.items())


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        bridgetower.no_such_name  # noqa: B018


def test_every_public_method_is_documented() -> None:
    for kind in (Model, Library):
        for name, member in inspect.getmembers(kind):
            if not name.startswith("_"):
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_a_model_is_found_without_reading_its_weights() -> None:
    model = Model("demo")
    assert model.heads == set(Head)
    assert "_network" not in vars(model)


def test_a_model_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelError):
        Model("no-such-model")


def test_a_library_is_indexed_and_searched(library: Library) -> None:
    assert len(library) == 2
    results = library.search("two cats on a couch", top=2)
    assert [hit.path for hit in results.hits] == [TWO_CATS, CAT]
    assert results.verified == 2
    assert library.search(image=CAT, top=1, keep_self=True).hits[0].path == CAT
    assert library.search(image=CAT, top=1).hits[0].path == TWO_CATS
    assert library.search("two cats on a couch", depth=0).verified == 0


def test_a_library_sees_what_it_has_added(library: Library) -> None:
    assert len(library) == 2
    library.index([GALLERY / "a-dog-on-a-couch-in-the-rain.jpg"])
    assert len(library) == 3


def test_a_library_is_exported_and_imported(library: Library, model: Model, tmp_path: Path) -> None:
    assert library.export(tmp_path / "export").images == 2
    with Library(tmp_path / "other", model) as other:
        assert other.import_folder(tmp_path / "export").images == 2
        assert other.search("two cats on a couch") == library.search("two cats on a couch")


def test_a_library_of_foreign_vectors_has_a_judge(model: Model, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(2))
    (tmp_path / "x.jsonl").write_text(json.dumps(str(CAT)) + "\n" + json.dumps(str(TWO_CATS)) + "\n")
    with Library(tmp_path / "index", model) as library:
        report = library.import_vectors(tmp_path / "x.npy", tmp_path / "x.jsonl", "clip", queries=tmp_path / "x.npy")
        assert (report.images, report.queries) == (2, 2)
        query = np.array([1, 0], np.float32)
        assert [hit.path for hit in library.search(vector=query).hits] == [CAT, TWO_CATS]
        assert [hit.path for hit in library.search("two cats on a couch", vector=query).hits] == [TWO_CATS, CAT]
        with pytest.raises(StoreError, match="--query-vector"):
            library.search("two cats on a couch")
    with Library(tmp_path / "index") as library, pytest.raises(StoreError, match="foreign"):
        _ = library.model


def test_a_library_knows_the_model_that_made_it(library: Library) -> None:
    with Library(library.directory) as again:
        assert again.model.name == "demo"
        assert len(again) == 2
        assert again.summary().files == 2


def test_a_library_that_is_not_there_is_named_before_it_is_made(tmp_path: Path) -> None:
    with Library(tmp_path / "nothing") as library:
        for ask in (library.summary, library.skipped, lambda: library.search("a cat"), lambda: len(library)):
            with pytest.raises(NoIndexError):
                ask()
    assert not (tmp_path / "nothing").exists()


def test_a_library_is_true_even_where_there_is_none_yet(tmp_path: Path, model: Model) -> None:
    library = Library(tmp_path / "nothing", model)
    assert library
    with pytest.raises(StoreError):
        len(library)


def test_words_are_read_out_of_pictures_and_of_the_library(library: Library, model: Model) -> None:
    alone = model.fill("a <mask> on a couch", [CAT], top=2)
    assert [word.rank for word in alone.words] == [1, 2]
    assert alone.words[0].images == (CAT,)
    assert {path for word in library.fill("a <mask> on a couch").words for path in word.images} <= {CAT, TWO_CATS}


def test_pictures_are_matched_and_ordered(model: Model) -> None:
    scores = model.match([CAT, TWO_CATS], ["a cat on a couch", "two cats on a couch"])
    assert [(score.image, score.text[:3]) for score in scores] == [
        (CAT, "a c"), (CAT, "two"), (TWO_CATS, "a c"), (TWO_CATS, "two")
    ]  # fmt: skip
    results = model.rerank("two cats on a couch", [str(CAT), str(TWO_CATS)])
    best = max((score for score in scores if score.text == "two cats on a couch"), key=lambda score: score.match or 0)
    assert results.hits[0].path == best.image
    assert results.hits[0].match == pytest.approx(best.match, abs=1e-4)


def test_vectors_are_those_of_the_index(model: Model, library: Library) -> None:
    images, texts = model.embed_images([CAT, TWO_CATS]), model.embed_texts(["two cats on a couch"])
    assert images.shape == (2, 128)
    assert texts.shape == (1, 128)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    hits = library.search("two cats on a couch", depth=0).hits
    by_path = dict(zip([CAT, TWO_CATS], (images @ texts.T)[:, 0].tolist(), strict=True))
    assert {hit.path: pytest.approx(hit.similarity, abs=1e-3) for hit in hits} == by_path
    assert model.embed_images([]).shape == (0, 128)
    assert model.embed_texts([]).shape == (0, 128)


def test_an_unreadable_picture_is_an_error_that_names_it(model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        model.embed_images([broken])


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "two-cats-on-a-couch-in-the-desert.jpg" in done.stdout
    assert done.stderr == ""


def test_importing_a_record_does_not_load_the_network() -> None:
    code = "import sys; from bridgetower import Hit, StoreError; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout.strip().lower()) is False


@pytest.mark.skipif(not int8.is_possible(), reason="no int8 on this processor")
def test_an_index_begun_in_int8_is_added_to_in_int8_and_read_in_any_precision(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    paint(photos / "red.png", COLOURS["red"])
    with Library(tmp_path / "index", Model("demo", precision="int8")) as library:
        library.index([photos])
        assert library.summary().fingerprint.precision_family == "int8"
    paint(photos / "blue.png", COLOURS["blue"])
    with Library(tmp_path / "index") as library:
        assert library.index([photos]).encoded == 1
        runtime = library.model.runtime
        assert runtime is not None and runtime.precision != "int8"
        assert len(library.search("a cat").hits) == 2
    with (
        Library(tmp_path / "index", Model("demo", precision="fp32")) as library,
        pytest.raises(StoreError, match="use precision int8"),
    ):
        library.index([photos])
