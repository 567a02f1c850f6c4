"""Recall@k over a captions file: of the recall stage alone, and after re-ranking to one or more depths.

    {"image": "cat.jpg", "captions": ["a cat", "a cat on a couch"]}      one line a picture, paths relative to the file

IR: each caption searches the pictures; TR: each picture searches the captions, and any of its own counts. Percent, as
in the literature. Re-ranking verifies the first `depth` candidates of each query and leaves the rest in their order.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bridgetower.encoder import Encoder
from bridgetower.errors import InputError
from bridgetower.model import require_heads
from bridgetower.pictures import PICTURES_AT_ONCE, load
from bridgetower.records import Head

RANKS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture and the texts that belong to it."""

    image: Path
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Recall@1, 5, 10 in percent of one method."""

    method: str  # "recall" or "rerank"
    depth: int  # candidates verified for each query; 0 for "recall"
    ir: tuple[float, float, float]  # text -> picture
    tr: tuple[float, float, float]  # picture -> text
    pictures: int
    texts: int

    @property
    def rsum(self) -> float:
        return sum(self.ir) + sum(self.tr)


def read_captions(file: Path) -> list[Captioned]:
    """Read a captions file. Raises InputError that names the line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text ({error}); give a file of JSON lines") from error
    captioned = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                captioned.append(_captioned(json.loads(line), file.parent))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f'{file}, line {number}: not {{"image": "path", "captions": ["text", ...]}} ({error}); mend it'
                ) from error
    if not captioned:
        raise InputError(f"{file}: no captions in it; give one JSON object a line")
    return captioned


def _captioned(row: Any, folder: Path) -> Captioned:
    captions = row["captions"]
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) and c.strip() for c in captions):
        raise ValueError("captions must be a list of texts")
    return Captioned(folder / row["image"], tuple(captions))


def evaluate(
    encoder: Encoder,
    captioned: Sequence[Captioned],
    *,
    depths: Sequence[int] = (20,),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Evaluation]:
    """Measure recall alone, then re-ranking at each of `depths`. Raises PictureError, ModelError.

    `on_progress(done, total)` counts pictures, over both passes.
    """
    require_heads(encoder.heads, Head.ITC, *([Head.ITM] if depths else []))
    texts = [caption for item in captioned for caption in item.captions]
    owner = np.array([row for row, item in enumerate(captioned) for _ in item.captions])  # [Q]
    passes = 2 if depths else 1
    batches = [range(i, min(i + PICTURES_AT_ONCE, len(captioned))) for i in range(0, len(captioned), PICTURES_AT_ONCE)]

    def pixels(rows: range) -> npt.NDArray[np.float32]:
        return np.stack([load(captioned[row].image, encoder.preprocessing) for row in rows])

    vectors = []
    for rows in batches:
        vectors.append(encoder.embed_images(pixels(rows)))
        on_progress(rows.stop, passes * len(captioned))
    text_vectors = [encoder.embed_texts(texts[i : i + 256]) for i in range(0, len(texts), 256)]
    similarity = np.concatenate(text_vectors) @ np.concatenate(vectors).T  # [Q, B]
    yield _measure("recall", 0, similarity, similarity.T, owner)
    if not depths:
        return

    # Every pair that any query verifies, once; picture by picture, so that each is encoded once.
    deepest = max(depths)
    wanted = _head(similarity, deepest) | _head(similarity.T, deepest).T  # bool [Q, B]
    margins = np.full(similarity.shape, -np.inf, np.float32)
    for rows in batches:
        columns = np.arange(rows.start, rows.stop)
        asked = np.flatnonzero(wanted[:, columns].any(axis=1))  # the texts that meet any of these pictures
        pairs = np.argwhere(wanted[np.ix_(asked, columns)])
        logits = encoder.match([texts[i] for i in asked], pixels(rows), pairs)
        margins[asked[pairs[:, 0]], columns[pairs[:, 1]]] = logits[:, 1] - logits[:, 0]
        on_progress(len(captioned) + rows.stop, passes * len(captioned))
    for depth in depths:
        yield _measure(
            "rerank", depth, _reranked(similarity, margins, depth), _reranked(similarity.T, margins.T, depth), owner
        )


def _head(scores: npt.NDArray[np.float32], depth: int) -> npt.NDArray[np.bool_]:
    """Which columns are among the `depth` best of each row; bool, the shape of `scores`."""
    chosen = np.zeros(scores.shape, bool)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def _reranked(
    similarity: npt.NDArray[np.float32], margins: npt.NDArray[np.float32], depth: int
) -> npt.NDArray[np.float32]:
    """Scores that order each row as a search does: the verified head by margin, then the rest by similarity."""
    above_all = similarity.max() + 1 - np.where(np.isfinite(margins), margins, np.inf).min()
    return np.where(_head(similarity, depth), margins + above_all, similarity)


def _measure(
    method: str,
    depth: int,
    text_to_image: npt.NDArray[np.float32],
    image_to_text: npt.NDArray[np.float32],
    owner: npt.NDArray[np.int64],
) -> Evaluation:
    """Scores [Q, B] and [B, Q]; `owner` [Q] is the picture that each text belongs to."""
    ranked_images = np.argsort(-text_to_image, axis=1, kind="stable")[:, : max(RANKS)]
    ranked_texts = np.argsort(-image_to_text, axis=1, kind="stable")[:, : max(RANKS)]
    found_image = ranked_images == owner[:, None]
    found_text = owner[ranked_texts] == np.arange(len(image_to_text))[:, None]

    def percent(found: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
        one, five, ten = (100.0 * float(found[:, :k].any(axis=1).mean()) for k in RANKS)
        return one, five, ten

    return Evaluation(method, depth, percent(found_image), percent(found_text), len(image_to_text), len(owner))
