"""Batch the work of requests that run together, fairly.

A request asks its model for little at a time: a text, or the match of a few pictures. Each such call waits for its turn
with the calls of other requests, in the order in which they came. A call with many texts or pairs is split into slices,
each of which waits for a turn. When a turn comes, further calls of the same kind share one pass through the network. So
a request with a hundred candidates takes no more turns in a row than one with five. No number depends on who shares a
pass: see `bridgetower.encoders.torch_network`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bridgetower import Fingerprint, Head, Judge, MaskedPrediction, Pictures, Preprocessing, RecallEncoder, Texts

_Vectors = npt.NDArray[np.float32]  # [B, E]

SLICE_S = 0.1  # most seconds of a shared pass, by the pace of those before it, so that nobody waits long for a turn
_LEAST_PAIRS = 4  # in a slice, also before a pace is known: as many as a search of pictures that are read asks for
_LEAST_TEXTS = 16  # in a slice: the tower may map its weights again for each
_OLDER = 0.8  # the weight of earlier passes in the pace: the first one may have read the weights


@dataclass(slots=True)
class Batches:
    """The passes of one kind of work, so far."""

    passes: int = 0
    calls: int = 0
    items: int = 0
    _pace: tuple[float, float] = (0.0, 0.0)  # items and seconds, of which older passes count less and less

    def add(self, calls: int, items: int, seconds: float) -> None:
        self.passes += 1
        self.calls += calls
        self.items += items
        self._pace = items + _OLDER * self._pace[0], seconds + _OLDER * self._pace[1]

    @property
    def most(self) -> float:
        """How many items fill SLICE_S at the recent pace."""
        items, seconds = self._pace
        return SLICE_S * items / seconds if seconds else 0.0


@dataclass(frozen=True, slots=True)
class _Rows:
    """The features of pictures as a judge made them, and of how many pictures."""

    number: int
    pictures: Pictures


@dataclass(eq=False, slots=True)
class _Call:
    """A call that waits for its turn, or has had it."""

    kind: str
    share: "Callable[[list[Any]], Sequence[Any]]"  # runs the work of several calls of this kind
    work: Any
    items: int
    done: bool = False
    result: Any = None
    error: BaseException | None = None


class Turns:
    """Calls of a model, one pass at a time. A thread that waits for its own call runs those of others, too.

    Passes that run together would be slower: those of a large network use all processors, and those of a small one hold
    the interpreter lock for most of their time.
    """

    def __init__(self, kinds: dict[str, Batches] | None = None) -> None:
        """`kinds` counts the passes of each kind of work."""
        self.kinds = {} if kinds is None else kinds
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._is_running = False

    def take(self, kind: str, share: "Callable[[list[Any]], Sequence[Any]]", work: Any, items: int) -> Any:
        """Wait for a turn, run `share` on a list of works that has this one, and return its result. Raises its error.

        `share` gets the works of as many waiting calls with the same `share` as fit in SLICE_S, and returns a result
        for each. If it fails, each work runs by itself, so that a request suffers from no other. `kind` is the name
        under which passes are counted.
        """
        call = _Call(kind, share, work, items)
        with self._changed:
            self._waiting.append(call)
            while not call.done:
                if self._is_running or not self._waiting:
                    self._changed.wait()
                    continue
                together = self._next()
                self._is_running = True
                self._changed.release()
                try:
                    self._run(together)
                finally:
                    self._changed.acquire()
                    self._is_running = False
                    self._changed.notify_all()
        if call.error is not None:
            raise call.error
        return call.result

    def take_slices(
        self,
        kind: str,
        share: "Callable[[list[Any]], Sequence[Any]]",
        work: Callable[[slice], Any],
        items: int,
        least: int,
    ) -> list[Any]:
        """Take a turn for each slice of the items of one call, and return the results of the slices in order.

        A slice has as many items as fill SLICE_S, but at least `least`; `work` returns the work of a slice. Calls of
        others have their turn between two slices. Raises as `take`.
        """
        results: list[Any] = []
        start = 0
        while start < items or not results:
            pace = self.kinds.get(kind)
            stop = min(items, start + max(least, 0 if pace is None else int(pace.most)))
            results.append(self.take(kind, share, work(slice(start, stop)), stop - start))
            start = stop
        return results

    def _next(self) -> list[_Call]:
        """Take the call that has waited longest, and those with the same `share` that fit into the same pass."""
        first = self._waiting.popleft()
        together, items = [first], first.items
        most = self.kinds.setdefault(first.kind, Batches()).most
        for call in [call for call in self._waiting if call.share == first.share]:
            if items + call.items > most:
                break
            together.append(call)
            items += call.items
        taken = set(map(id, together))
        self._waiting = deque(call for call in self._waiting if id(call) not in taken)
        return together

    def _run(self, together: list[_Call]) -> None:
        """Run calls, and mark them as done, whatever happens."""
        first, began = together[0], time.perf_counter()
        try:
            results = first.share([call.work for call in together])
            for call, result in zip(together, results, strict=True):
                call.result = result
        except BaseException as error:  # noqa: BLE001  # each caller gets its own
            if len(together) == 1:
                first.error = error
            else:
                for call in together:
                    try:
                        [call.result] = call.share([call.work])
                    except BaseException as own:  # noqa: BLE001
                        call.error = own
        for call in together:
            call.done = True
        items = sum(call.items for call in together)
        with self._changed:
            self.kinds[first.kind].add(len(together), items, time.perf_counter() - began)


class BatchedEncoder:
    """A recall encoder whose calls take turns."""

    def __init__(self, encoder: RecallEncoder, turns: Turns) -> None:
        self._encoder, self._turns = encoder, turns

    @property
    def fingerprint(self) -> Fingerprint:
        return self._encoder.fingerprint

    @property
    def preprocessing(self) -> Preprocessing:
        return self._encoder.preprocessing

    @property
    def batch_size(self) -> int:
        return self._encoder.batch_size

    def truncates(self, text: str) -> bool:
        return self._encoder.truncates(text)

    def embed_images(self, pixels: npt.NDArray[np.float32]) -> _Vectors:
        vectors: _Vectors = self._turns.take("vectors", self._embed_images, pixels, len(pixels))
        return vectors

    def _embed_images(self, several: list[npt.NDArray[np.float32]]) -> list[_Vectors]:
        return _split(self._encoder.embed_images(np.concatenate(several)), several)

    def embed_texts(self, texts: Sequence[str]) -> _Vectors:
        vectors: list[_Vectors] = self._turns.take_slices(
            "texts", self._embed_texts, lambda part: texts[part], len(texts), _LEAST_TEXTS
        )
        return np.concatenate(vectors)

    def _embed_texts(self, several: list[Sequence[str]]) -> list[_Vectors]:
        rows = {text: row for row, text in enumerate(dict.fromkeys(text for texts in several for text in texts))}
        vectors = self._encoder.embed_texts(list(rows))
        return [vectors[[rows[text] for text in texts]] for texts in several]


class BatchedJudge:
    """A judge whose calls take turns."""

    def __init__(self, judge: Judge, turns: Turns) -> None:
        self._judge, self._turns = judge, turns

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def heads(self) -> frozenset[Head]:
        return self._judge.heads

    @property
    def preprocessing(self) -> Preprocessing:
        return self._judge.preprocessing

    @property
    def default_depth(self) -> int:
        return self._judge.default_depth

    @property
    def features_id(self) -> str:
        return self._judge.features_id

    def truncates(self, text: str) -> bool:
        return self._judge.truncates(text)

    def word(self, token: int) -> str:
        return self._judge.word(token)

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        encoded: list[Texts] = self._turns.take_slices(
            "texts of pairs", self._encode_texts, lambda part: texts[part], len(texts), _LEAST_TEXTS
        )
        return encoded[0] if len(encoded) == 1 else self._judge.join_texts(encoded)

    def _encode_texts(self, several: list[Sequence[str]]) -> list[Texts]:
        return [self._judge.encode_texts(texts) for texts in several]

    def join_texts(self, batches: Sequence[Texts]) -> Texts:
        return self._judge.join_texts(batches)

    def encode_images(self, pixels: npt.NDArray[np.float32]) -> Pictures:
        encoded: Pictures = self._turns.take("pictures", self._encode_images, pixels, len(pixels))
        return encoded

    def _encode_images(self, several: list[npt.NDArray[np.float32]]) -> list[Pictures]:
        return [_counted(len(pixels), self._judge.encode_images(pixels)) for pixels in several]

    def pack(self, images: Pictures) -> list[bytes]:
        return self._judge.pack(images.features.pictures)

    def unpack(self, packed: bytes) -> Pictures:
        return _counted(1, self._judge.unpack(packed))

    def join(self, batches: Sequence[Pictures]) -> Pictures:
        joined = self._judge.join([batch.features.pictures for batch in batches])
        return _counted(sum(batch.features.number for batch in batches), joined)

    def match(self, texts: Texts, images: Pictures, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logits: list[npt.NDArray[np.float32]] = self._turns.take_slices(
            "pairs", self._match, lambda part: (texts, images, pairs[part]), len(pairs), _LEAST_PAIRS
        )
        return np.concatenate(logits)

    def _match(self, several: list[tuple[Texts, Pictures, npt.NDArray[np.int64]]]) -> list[npt.NDArray[np.float32]]:
        if len(several) == 1:
            [(texts, images, pairs)] = several
            return [self._judge.match(texts, images.features.pictures, pairs)]
        texts = self._judge.join_texts([texts for texts, _, _ in several])
        images = self._judge.join([images.features.pictures for _, images, _ in several])
        rows, start = [], np.zeros(2, np.int64)
        for some, of, pairs in several:
            rows.append(pairs + start)  # a copy
            start += (len(some.masks), of.features.number)
        return _split(self._judge.match(texts, images, np.concatenate(rows)), rows)

    def predict_masked(self, text: Texts, images: Pictures) -> MaskedPrediction:
        work = partial(self._judge.predict_masked, text, images.features.pictures)
        predicted: MaskedPrediction = self._turns.take("masks", _call_each, work, 1)
        return predicted


def _counted(number: int, pictures: Pictures) -> Pictures:
    return Pictures(pictures.vectors, _Rows(number, pictures))


def _call_each(works: list[Callable[[], Any]]) -> list[Any]:
    return [work() for work in works]


def _split(rows: npt.NDArray[np.float32], parts: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
    """Split the rows of a result as the parts that they came from."""
    return np.split(rows, np.cumsum([len(part) for part in parts])[:-1])
