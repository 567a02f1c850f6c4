"""A deterministic encoder and judge that sees nothing but colour: fast, without weights, predicted by hand."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bridgetower.encoders.protocol import MaskedPrediction, Pictures, Pixels, Texts, Vectors
from bridgetower.errors import UsageError
from bridgetower.index.reader import IndexReader
from bridgetower.pictures.decode_pool import DecodePool, Picture, Square, read_answer, read_square
from bridgetower.pictures.decode_worker import answer
from bridgetower.pictures.likeness import worker
from bridgetower.pictures.likeness.grids import Grid, GridPool, as_grid
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Fingerprint, Head, Refused
from bridgetower.retrieval.results import Found
from bridgetower.retrieval.search.pages import pages

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
WORDS = ("", *COLOURS)  # column 0 is no word


def stored(store: IndexReader, image: int) -> npt.NDArray[np.float32]:
    """The vector `[E]` of an image, as it was stored."""
    [[(_, vector)]] = store.catalog.vectors_of([image])
    return np.frombuffer(vector, "<f2").astype(np.float32)


def search(*parts: Any, **options: Any) -> Found:
    """The first page of `bridgetower.retrieval.search.pages.pages` with these arguments."""
    with closing(pages(*parts, **options)) as results:
        return next(results)


class FakeEncoder:
    """A picture's vector is its mean colour; a text's is the sum of the colours that it names.

    The matching logit is 20 * (cosine - 0.9); a picture says at each `<mask>` which colour it is, by softmax(20 cos).
    """

    def __init__(self, heads: frozenset[Head] = frozenset(Head), weights: str = "fake") -> None:
        self.heads = heads
        self.name = "fake"
        self.preprocessing = Preprocessing(32, 32)
        self.batch_size, self.default_depth = 16, 20
        digest = hashlib.sha256(weights.encode()).hexdigest()
        self.fingerprint = Fingerprint("fake", "local", digest, "c" * 64, "hf", 1, "float", 3)
        self.encoded = 0  # pictures that were asked for a vector
        self.matched = 0  # pairs that were asked for a match

    def embed_images(self, pixels: Pixels) -> Vectors:
        self.encoded += len(pixels)
        return self._colour(pixels)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._named(text) for text in texts])

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        masks = tuple(tuple(range(text.count("<mask>"))) for text in texts)
        return Texts(self.embed_texts(texts) if Head.ITC in self.heads else None, masks, tuple(texts))

    def join_texts(self, batches: Sequence[Texts]) -> Texts:
        masks = tuple(mask for batch in batches for mask in batch.masks)
        texts = tuple(text for batch in batches for text in batch.features)
        return Texts(self.embed_texts(texts) if Head.ITC in self.heads else None, masks, texts)

    def encode_images(self, pixels: Pixels) -> Pictures:
        return Pictures(self._colour(pixels) if Head.ITC in self.heads else None, pixels)

    @property
    def features_id(self) -> str:
        return f"{self.fingerprint.weights_sha256}-1"

    def pack(self, images: Pictures) -> list[bytes]:
        return [picture.tobytes() for picture in images.features]

    def unpack(self, packed: bytes) -> Pictures:
        side = self.preprocessing.crop_size
        return Pictures(None, np.frombuffer(packed, np.float32).reshape(1, 3, side, side))

    def join(self, batches: Sequence[Pictures]) -> Pictures:
        return Pictures(None, np.concatenate([batch.features for batch in batches]))

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        self.matched += len(pairs)
        cosine = (self.embed_texts(texts.features) @ self._colour(images.features).T)[pairs[:, 0], pairs[:, 1]]
        return np.stack([np.zeros_like(cosine), 20 * (cosine - 0.9)], axis=1)

    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        [masks] = text.masks
        if not masks:
            raise UsageError("no <mask>: write it where a word is wanted")
        colour = self._colour(images.features)
        named = np.stack([np.zeros(3), *(np.array(rgb) / np.linalg.norm(rgb) for rgb in COLOURS.values())])
        logits = (20 * colour @ named.T).astype(np.float32)  # [B, V]
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        itm = self.match(text, images, np.array([[0, row] for row in range(len(colour))]))
        return MaskedPrediction(itm, np.repeat(log_probabilities[:, None], len(masks), axis=1))

    def word(self, token: int) -> str:
        return WORDS[token]

    def truncates(self, text: str) -> bool:
        return len(text) > 1000

    def _colour(self, pixels: Pixels) -> Vectors:
        spec = self.preprocessing
        rgb = pixels.mean(axis=(2, 3)) * np.array(spec.std) + np.array(spec.mean)
        return _unit(np.maximum(rgb, 0) + 1e-3)

    def _named(self, text: str) -> npt.NDArray[np.float32]:
        if not text.strip():
            raise UsageError("the text is empty; give at least one word")
        named = [np.array(rgb, np.float64) for word, rgb in COLOURS.items() if word in text.lower()]
        return _unit(np.sum(named, axis=0) if named else np.array([1.0, 1.0, 1.0]))


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class DecodePoolHere(DecodePool):
    """Decodes in this process, for tests of other things: starting another takes a tenth of a second."""

    def decode(self, content: bytes) -> Picture | Refused:
        return read_answer(self._answer(content), self._preprocessing)

    def square(self, content: bytes) -> Square | Refused:
        return read_square(self._answer(content), self._preprocessing)

    def _answer(self, content: bytes) -> BytesIO:
        max_pixels = json.loads(self._settings)["max_pixels"]
        return BytesIO(answer(content, self._preprocessing, max_pixels, None))


class GridPoolHere(GridPool):
    """Makes grids in this process."""

    def grid(self, content: bytes) -> Grid | Refused:
        settings = json.loads(self._settings)
        made = worker.answer(content, self._preprocessing, settings["max_pixels"], None)
        found = read_square(BytesIO(made), self._preprocessing)
        return found if isinstance(found, Refused) else as_grid(found)


@contextmanager
def handles_left(number: int) -> Iterator[None]:
    """Inside, this process can have so many more files open and no others; POSIX only."""
    import resource

    taken = [os.dup(0) for _ in range(number + 1)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def paint(path: Path, colour: tuple[int, int, int] | str, size: tuple[int, int] = (40, 32)) -> Path:
    """Write a picture of one colour; the format is that of the extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour] if isinstance(colour, str) else colour).save(path)
    return path


# A `bridgetower.pictures.decode_worker` that does what the content of a file says, and adds its number to "pids" in the
# folder that is its last argument.
HOSTILE = [
    sys.executable,
    "-c",
    """
import os, sys, time
from bridgetower.pictures import decode_worker

def obey(content, *rest, **options):
    if content == b"print":
        os.write(1, b"a warning")
    elif content == b"stack":
        sys.setrecursionlimit(10**9)
        loop = lambda: [*map(lambda _: loop(), [0])]
        loop()
    elif content == b"sleep":
        time.sleep(1000)
    elif content == b"mute":
        os.closerange(0, 100)
        time.sleep(1000)
    elif content.startswith(b"wait"):
        time.sleep(1)
        content = content[4:]
    elif content == b"spin":
        while True: pass
    elif content.startswith(b"die "):
        os.kill(os.getpid(), int(content[4:]))
    elif content.startswith(b"exit "):
        os._exit(int(content[5:]))
    return decode(content, *rest, **options)

decode, decode_worker.decode = decode_worker.decode, obey
with open(os.path.join(sys.argv[-1], "pids"), "a") as pids:
    print(os.getpid(), file=pids)
decode_worker.serve()
""",
]
