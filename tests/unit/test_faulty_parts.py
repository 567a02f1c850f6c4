"""Parts that do not hold their protocols: every error is one of ours and names the part, and nothing is lost."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridgetower import (
    Embedded,
    FileContent,
    Library,
    MaskedPrediction,
    Model,
    ModelError,
    Pictures,
    Refused,
    Texts,
    UsageError,
)
from bridgetower.index.reader import IndexReader
from tests.fakes import FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("decode_here")

STEPS = 10
RED = np.array([1, 0, 0], np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures from green to red, r0 (green) to r9 (red)."""
    for step in range(STEPS):
        paint(tmp_path / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    return tmp_path / "photos"


# An engine


class Counted:
    """Gives as many results as it is told, each with a vector of its own, by an iterator that cannot be closed."""

    def __init__(self, results: int, batch_size: int = 4) -> None:
        self.results, self.batch_size = results, batch_size

    def embed(self, contents: Iterable[FileContent], *, max_pixels: int | None = None) -> Iterator[Embedded | Refused]:
        left = iter(contents)

        def result(place: int) -> Embedded:
            next(left, None)
            return Embedded(40, 32, None, np.array([np.cos(place / 10), np.sin(place / 10), 0], np.float32))

        return map(result, range(self.results))


def entries(directory: Path) -> list[tuple[str, float]]:
    """Names and first numbers of vectors, in the order in which they were added."""
    with IndexReader.open(directory) as reader:
        return [
            (entry.files[0].path.stem, float(np.frombuffer(entry.vector, "<f2")[0]))
            for entry in reader.catalog.entries()
        ]


def test_an_engine_need_give_no_more_than_an_iterator(photos: Path, tmp_path: Path) -> None:
    fake = FakeEncoder()
    with Library(tmp_path / "index", Model.from_parts(fake, engine=Counted(STEPS))) as library:
        assert library.index([photos]).encoded == STEPS


@pytest.mark.parametrize(("results", "said"), [(STEPS - 1, "fewer"), (3, "fewer"), (0, "fewer"), (STEPS + 1, "more")])
def test_one_result_for_each_content_is_demanded_and_what_came_is_kept(
    photos: Path, tmp_path: Path, results: int, said: str
) -> None:
    fake, directory = FakeEncoder(), tmp_path / "index"
    with (
        Library(directory, Model.from_parts(fake, engine=Counted(results))) as library,
        pytest.raises(ModelError, match=rf"^Counted\.embed: {said} results"),
    ):
        library.index([photos])
    kept = entries(directory)
    assert [name for name, _ in kept] == [f"r{step}" for step in range(min(results, STEPS))]
    assert [first for _, first in kept] == pytest.approx([np.cos(step / 10) for step in range(len(kept))], abs=1e-3)
    with Library(directory, Model.from_parts(fake)) as library:  # the next run takes the rest
        assert library.index([photos]).encoded == STEPS - len(kept)


def one_result(result: object) -> Any:
    class Odd(Counted):
        def embed(self, contents: Iterable[FileContent], *, max_pixels: int | None = None) -> Iterator[Any]:
            return (result for _ in contents)

    return Odd(0)


@pytest.mark.parametrize(
    "result",
    [
        None,
        (40, 32, None, RED),
        Embedded(40, 32, None, RED[:2]),
        Embedded(40, 32, None, 2 * RED),
        Embedded(40, 32, None, np.full(3, np.nan, np.float32)),
        Embedded(40, 32, None, np.array([1, 0, 0])),
        Embedded(40, 32, None, [1.0, 0.0, 0.0]),  # type: ignore[arg-type]
        Embedded(40.5, 32, None, RED),  # type: ignore[arg-type]
        Embedded(40, 32, 2**63, RED),
    ],
)
def test_what_an_engine_gives_is_checked(photos: Path, tmp_path: Path, result: object) -> None:
    model = Model.from_parts(FakeEncoder(), engine=one_result(result))
    with Library(tmp_path / "index", model) as library, pytest.raises(ModelError, match=r"^Odd\.embed: "):
        library.index([photos])


def test_an_engine_that_gives_nothing_to_iterate_over_or_a_bad_batch_size_is_told(photos: Path, tmp_path: Path) -> None:
    silent, sizeless = Counted(0), Counted(STEPS, batch_size=0)
    silent.embed = lambda contents, *, max_pixels=None: None  # type: ignore[method-assign,assignment,return-value]
    for engine, member in ((silent, "embed"), (sizeless, "batch_size")):
        model = Model.from_parts(FakeEncoder(), engine=engine)
        with Library(tmp_path / "index", model) as library, pytest.raises(ModelError, match=rf"^Counted\.{member}: "):
            library.index([photos])


def test_pictures_are_encoded_in_batches_of_the_encoders_size(photos: Path, tmp_path: Path) -> None:
    class Measured(FakeEncoder):
        batch_size = 3
        batches: list[int] = []  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 3

        def embed_images(self, pixels):  # type: ignore[no-untyped-def]
            self.batches.append(len(pixels))
            return super().embed_images(pixels)

    fake = Measured()
    with Library(tmp_path / "index", Model.from_parts(fake)) as library:
        library.index([photos])
    assert fake.batches == [3, 3, 3, 1]


# An encoder and a judge


class Spoilt(FakeEncoder):
    """Gives of one member what a test says; `spoil` gets what is right."""

    def __init__(self, member: str, spoil: Callable[[Any], Any]) -> None:
        super().__init__()
        self._member, self._spoil = member, spoil

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_") or name != self._member:
            return value
        spoil = self._spoil
        return (lambda *given: spoil(value(*given))) if callable(value) else spoil(value)


VECTORS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda right: right.tolist(),
    "one too few": lambda right: right[:-1],
    "longer": lambda right: np.hstack([right, right]),
    "flat": lambda right: right[0],
    "whole numbers": lambda right: right.astype(np.int64),
    "no numbers": lambda right: right * np.nan,
    "infinite": lambda right: right.astype(np.float64) * 1e300,
    "huge": lambda right: right * np.float32(1e30),
    "no unit vectors": lambda right: right * 1.01,
    "zero": lambda right: right * 0,
    "nothing": lambda right: None,
}


@pytest.mark.parametrize("spoil", VECTORS.values(), ids=VECTORS)
def test_vectors_are_checked(photos: Path, tmp_path: Path, spoil: Callable[[Any], Any]) -> None:
    paths = [photos / "r1.png", photos / "r9.png"]
    for member in ("embed_images", "embed_texts"):
        model = Model.from_parts(Spoilt(member, spoil))
        with pytest.raises(ModelError, match=rf"^Spoilt\.{member}: "):
            model.embed_images(paths) if member == "embed_images" else model.embed_texts(["red", "green"])
    model = Model.from_parts(Spoilt("embed_images", spoil))
    with Library(tmp_path / "index", model) as library, pytest.raises(ModelError, match=r"^Spoilt\.embed_images: "):
        library.index([photos])


def test_vectors_in_float64_are_taken(photos: Path) -> None:
    model = Model.from_parts(Spoilt("embed_texts", lambda right: right.astype(np.float64)))
    assert model.embed_texts(["red"]).dtype == np.float32


PREDICTED: dict[str, Callable[[MaskedPrediction], Any]] = {
    "a tuple": lambda right: (right.itm, right.log_probabilities),
    "one too few": lambda right: replace(right, log_probabilities=right.log_probabilities[:-1]),
    "a mask too many": lambda right: replace(right, log_probabilities=right.log_probabilities.repeat(2, axis=1)),
    "no words": lambda right: replace(right, log_probabilities=right.log_probabilities[:, :, :0]),
    "no numbers": lambda right: replace(right, log_probabilities=right.log_probabilities * np.nan),
    "logits": lambda right: replace(right, log_probabilities=right.log_probabilities + 30),
    "a match too few": lambda right: replace(right, itm=right.itm[:-1]),  # type: ignore[index]
    "a match that is infinite": lambda right: replace(right, itm=right.itm * np.inf),  # type: ignore[arg-type,operator]
}


@pytest.mark.parametrize("spoil", PREDICTED.values(), ids=PREDICTED)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_predicted_words_are_checked(photos: Path, spoil: Callable[[Any], Any]) -> None:
    model = Model.from_parts(None, Spoilt("predict_masked", spoil))
    with pytest.raises(ModelError, match=r"^Spoilt\.predict_masked: "):
        model.fill("a red <mask>", [photos / "r1.png", photos / "r9.png"])


JUDGED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a logit for a pair": ("match", lambda right: right[:, 1]),
    "one pair too few": ("match", lambda right: right[:-1]),
    "no logits": ("match", lambda right: right * np.nan),
    "texts as vectors": ("encode_texts", lambda right: right.vectors),
    "a text too few": ("encode_texts", lambda right: Texts(right.vectors, right.masks[:-1], right.features)),
    "vectors of a text too few": ("encode_texts", lambda right: replace(right, vectors=right.vectors[:-1])),
    "pictures as vectors": ("encode_images", lambda right: right.vectors),
    "long vectors": ("encode_images", lambda right: Pictures(2 * right.vectors, right.features)),
    "vectors of another length": (
        "encode_images",
        lambda right: replace(right, vectors=np.eye(4, dtype=np.float32)[:1]),
    ),
    "a set of names": ("heads", lambda right: {"itm"}),
    "no preprocessing": ("preprocessing", lambda right: (32, 32)),
    "half a depth": ("default_depth", lambda right: 0.5),
    "a path": ("features_id", lambda right: "../../elsewhere"),
    "nothing in the name": ("features_id", lambda right: ""),
    "too long a name": ("features_id", lambda right: "a" * 151),
    "nothing packed": ("pack", lambda right: [b"" for one in right]),
    "arrays": ("pack", lambda right: [np.frombuffer(one, np.uint8) for one in right]),
    "one packed too few": ("pack", lambda right: right[:-1]),
    "bytes": ("unpack", lambda right: b""),
    "a list": ("join", lambda right: [right]),
    "no word": ("word", lambda right: None),
}


@pytest.mark.parametrize(("member", "spoil"), JUDGED.values(), ids=JUDGED)
def test_what_a_judge_returns_is_checked(
    photos: Path, tmp_path: Path, member: str, spoil: Callable[[Any], Any]
) -> None:
    with Library(tmp_path / "index", Model.from_parts(FakeEncoder())) as library:
        library.index([photos])
    with pytest.raises(ModelError, match=rf"^Spoilt\.{member}: "):  # noqa: PT012
        model = Model.from_parts(FakeEncoder(), Spoilt(member, spoil))
        with Library(tmp_path / "index", model) as library:
            library.search("red", top=1)
            library.search("red", depth=1)  # its features are cached now
            library.fill("a red <mask>")
        model.match([photos / "r1.png"], ["red", "green"])


def test_a_features_id_may_have_points_and_underscores(photos: Path, tmp_path: Path) -> None:
    fake = Spoilt("features_id", lambda right: "judge_2.1-b")
    with Library(tmp_path / "index", Model.from_parts(fake, fake)) as library:
        library.index([photos])
        library.search("red", depth=1)
        [kept] = (tmp_path / "index" / "features").iterdir()
        assert kept.name.endswith("-judge_2.1-b.features")
        (photos / "r9.png").unlink()
        library.index([photos])
        assert library.prune().features == 1


def test_a_text_and_a_picture_that_cancel_out_are_refused(photos: Path, tmp_path: Path) -> None:
    picture = photos / "r3.png"
    opposite = -Model.from_parts(FakeEncoder()).embed_images([picture])
    with Library(tmp_path / "index", Model.from_parts(Spoilt("embed_texts", lambda right: opposite))) as library:
        library.index([photos])
        with pytest.raises(UsageError, match="opposite"):
            library.search("red", image=picture, depth=0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Model.from_parts("demo"), r"'demo' is no RecallEncoder: it lacks .*embed_images"),  # type: ignore[arg-type]
        (lambda: Model.from_parts(None, "demo"), "'demo' is no Judge"),  # type: ignore[arg-type]
        (lambda: Model.from_parts(FakeEncoder), "FakeEncoder is a class"),  # type: ignore[arg-type]
        (lambda: Model.from_parts(FakeEncoder(), engine=FakeEncoder()), "no ImageEngine: it lacks embed$"),  # type: ignore[arg-type]
        (lambda: Model.from_parts(Counted(1)), "no RecallEncoder"),  # type: ignore[arg-type]
        (lambda: Library("index", store="faiss"), "'faiss' is no RecallStore"),  # type: ignore[arg-type]
        (lambda: Library("index", store=FakeEncoder()), "no RecallStore: it lacks open, files"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_part_is_refused_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()
