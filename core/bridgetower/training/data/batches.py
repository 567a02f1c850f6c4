"""The batches of a run, from any step on."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import count, islice

import numpy as np
import torch

from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.training.batch import Batch
from bridgetower.training.data.decoding import Wanted, pixels
from bridgetower.training.data.order import Order, slice_of
from bridgetower.training.data.pairs import Pairs, true_of


class Batches:
    """`batches(step)` yields the batches from a step on, without end: the same for any step that it starts from."""

    def __init__(
        self,
        streams: Sequence[Pairs],
        order: Order,
        *,
        preprocessing: Preprocessing,
        tokenizer: Tokenizer,
        augment: bool = True,
        rank: int = 0,
        ranks: int = 1,
        processes: int | None = None,
    ) -> None:
        """`streams` are the pairs of `order`: to train on, and where there are any, to replay.

        A process of several has the texts of the whole batch, and the pictures of its rank. `processes` decode, by
        default its share of the cores. Raises UsageError where there are more processes than pictures in a batch.
        """
        self._streams, self._order = streams, order
        self._preprocessing, self._tokenizer = preprocessing, tokenizer
        self._augment, self._processes = augment, processes
        self._own = slice_of(order.batch, rank, ranks)

    def __call__(self, step: int) -> Generator[Batch]:
        """Yield batches; pictures are decoded one batch ahead. Close it to end the processes that decode.

        Raises InputError where a file has changed since it was checked, ProcessError, ResourceError.
        """
        with closing(
            pixels(self._wanted(step), self._preprocessing, window=len(self._own), processes=self._processes)
        ) as decoded:
            for now in count(step):
                pairs = [self._streams[item.stream][item.pair] for item in self._order.items(now)]
                texts = [text for _, text in pairs]
                ids, mask = self._tokenizer.encode_batch(texts)
                yield Batch(
                    torch.from_numpy(np.stack(list(islice(decoded, len(self._own))))),
                    torch.from_numpy(ids),
                    torch.from_numpy(mask),
                    torch.from_numpy(true_of(texts, [picture for picture, _ in pairs])),
                    self._own.start,
                )

    def _wanted(self, step: int) -> Iterator[Wanted]:
        for now in count(step):
            items = self._order.items(now)
            for item in items[self._own.start : self._own.stop]:
                picture, _ = self._streams[item.stream][item.pair]
                yield Wanted(picture, self._order.draw(item) if self._augment else None)
