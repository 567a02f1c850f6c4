"""Folders of painted pictures, and runs over them with an encoder that sees nothing but colour."""

import hashlib
from pathlib import Path

import pytest

from bridgetower.encoders.runtime import BATCH_SIZE
from bridgetower.files.ignore import USUAL_RULES, Rules
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from bridgetower.models.model import Model
from bridgetower.retrieval.indexing import IndexReport, index
from tests.fakes import FakeEncoder, paint


def run(
    paths: list[Path],
    directory: Path,
    encoder: FakeEncoder | None = None,
    rules: Rules = USUAL_RULES,
    *,
    retry: bool = False,
) -> IndexReport:
    encoder = encoder or FakeEncoder()
    with IndexWriter.open(directory, encoder.fingerprint) as writer:
        return index(paths, writer, lambda: Model.from_parts(encoder), rules, retry=retry)


def never() -> Model:
    raise AssertionError("a model was looked for though nothing had to be encoded")


def content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def indexed(directory: Path) -> set[Path]:
    """The files that lead to a picture."""
    with IndexReader.open(directory) as store:
        images = [neighbour.image for neighbour in store.recall(FakeEncoder().embed_texts(["red"]), 1000)[0]]
        return {path for image in images for path in store.catalog.paths_of(image)}


def some(folder: Path, *names: str) -> list[Path]:
    """Pictures of different colours at these names in `folder`."""
    return [paint(folder / name, (9 * n, 255 - 7 * n, 40), size=(20 + n, 20)) for n, name in enumerate(names)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(BATCH_SIZE + 3):  # more than a batch
        paint(folder / f"{number:03}.png", (number * 10, 255 - number * 10, 7))
    return folder
