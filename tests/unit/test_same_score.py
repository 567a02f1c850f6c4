"""A picture and a text have one match and one similarity: in a search, whatever is kept, and in every other call."""

import shutil
from pathlib import Path

import pytest

from bridgetower import Captioned, Library, Model
from bridgetower.network import int8

GALLERY = sorted((Path(__file__).parents[2] / "examples" / "gallery").glob("*.jpg"))[:9]
TEXT = "a cat looking out of a window in the snow"
PRECISIONS = ["fp32", "bf16", pytest.param("int8", marks=pytest.mark.skipif(not int8.is_possible(), reason="no int8"))]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_way_to_ask_gives_the_same_scores(precision: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for picture in GALLERY:
        shutil.copy(picture, photos)
    files = sorted(photos.iterdir())
    model = Model("demo", device="cpu", precision=precision)
    asked = model.match(files, ["a dog", TEXT])
    pairs = {pair.image: (pair.match, pair.similarity) for pair in asked if pair.text == TEXT}

    def searched(kept: int | None, cache: int, depth: int) -> dict[Path, tuple[float | None, float | None]]:
        with Library(tmp_path / f"index {kept}", model, features_cache=cache) as library:
            library.index([photos], keep_features=kept)
            found = library.search(TEXT, depth=depth, top=len(files))
            again = library.search(TEXT, depth=depth, top=len(files))
        assert [hit.path for hit in again] == [hit.path for hit in found]
        assert [hit.match for hit in again] == [hit.match for hit in found]
        return {hit.path: (hit.match, hit.similarity) for hit in found}

    everything = len(files)
    for found in (searched(None, 0, everything), searched(None, 10**9, everything), searched(10**9, 10**9, everything)):
        assert found == pairs
    first = searched(None, 0, 3)  # other neighbours in the batch
    assert {path: scores for path, scores in first.items() if scores[0] is not None}.items() <= pairs.items()
    assert {path: similarity for path, (_, similarity) in first.items()} == {
        path: similarity for path, (_, similarity) in pairs.items()
    }
    for some in (files[::-1], files[2:5], files[:1]):
        assert {hit.path: hit.match for hit in model.rerank(TEXT, some)} == {path: pairs[path][0] for path in some}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_audit_gives_the_scores_of_a_match(precision: str) -> None:
    model = Model("demo", device="cpu", precision=precision)
    texts, pictures = ["two sharks in the boat", "a dog"], GALLERY[:3]
    captioned = [Captioned(picture, texts[place % 2 :]) for place, picture in enumerate(pictures)]
    rows = model.audit(captioned, worst=1.0).rows
    asked = {(pair.image, pair.text): pair.match for pair in model.match(pictures[::-1], texts)}
    assert len(rows) == sum(len(item.captions) for item in captioned)
    assert all(row.match == asked[row.image, row.caption] for row in rows)
    mended = [row for row in rows if row.word is not None and row.at is not None]
    assert mended
    for row in mended[:2]:
        assert row.at is not None
        text = f"{row.caption[: row.at]}{row.suggestion}{row.caption[row.at + len(row.word or '') :]}"
        assert row.suggested_match == model.match([row.image], [text])[0].match
