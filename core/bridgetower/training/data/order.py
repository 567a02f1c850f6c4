"""Which pairs each step learns from: an endless stream of epochs, each in an order of its own; replay mixed in."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bridgetower.errors import UsageError

TRAIN, REPLAY = 0, 1  # streams
_SHUFFLE, _AUGMENT = 0, 1  # so that no two draws have the same seed


class Item(NamedTuple):
    """A pair of a stream, and where in the stream it stands."""

    stream: int  # TRAIN or REPLAY
    epoch: int  # from 0
    position: int  # in the epoch, from 0
    pair: int  # number of the pair


class Order:
    """The items of each step, a function of the seed and the step.

    Step s takes the next items of both streams after those of step s - 1; no item is dropped at the end of an epoch.
    """

    def __init__(self, pairs: int, replay: int = 0, *, batch: int, replay_share: float = 0.5, seed: int) -> None:
        """`pairs` and `replay` are the numbers of pairs in the two streams; without replay all items are of the first.

        Raises UsageError where a stream has fewer pairs than its part of a batch, or no part of it.
        """
        self._sizes = pairs, replay
        self.batch, self.seed = batch, seed
        self.replayed = round(batch * replay_share) if replay else 0
        if replay and not 0 < self.replayed < batch:
            raise UsageError(
                f"--replay-share {replay_share:g} of --batch {batch} is {self.replayed} pairs: at least one must be of "
                "the replay, and one of the training data"
            )
        _require(pairs, batch - self.replayed, "training data", "use a smaller --batch, or more pictures")
        _require(replay, self.replayed, "replay data", "use a smaller --batch or --replay-share, or more pictures")

    def items(self, step: int) -> list[Item]:
        """Return the items of a step from 0, those of the replay spread evenly among the others."""
        taken = [step * (self.batch - self.replayed), step * self.replayed]  # before this step
        items = []
        for place in range(self.batch):
            stream = (
                REPLAY if (place + 1) * self.replayed // self.batch > place * self.replayed // self.batch else TRAIN
            )
            epoch, position = divmod(taken[stream], self._sizes[stream])
            taken[stream] += 1
            pair = int(_permutation(self.seed, stream, epoch, self._sizes[stream])[position])
            items.append(Item(stream, epoch, position, pair))
        return items

    def draw(self, item: Item) -> np.random.Generator:
        """Return the generator for the augmentation of an item."""
        return np.random.default_rng([self.seed, _AUGMENT, item.stream, item.epoch, item.position])


@lru_cache(maxsize=4)
def _permutation(seed: int, stream: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, _SHUFFLE, stream, epoch]).permutation(size)


def slice_of(batch: int, rank: int, ranks: int) -> range:
    """Return the places in a batch of which a process, of several, has the pictures."""
    if batch < ranks:
        raise UsageError(f"--batch {batch} is fewer than the {ranks} processes: use a larger one, or fewer processes")
    return range(batch * rank // ranks, batch * (rank + 1) // ranks)


def _require(pairs: int, wanted: int, what: str, way_out: str) -> None:
    if pairs < wanted:
        raise UsageError(f"the {what} has {pairs} pairs, fewer than the {wanted} in each batch: {way_out}")
