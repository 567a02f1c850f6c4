"""Have a pool of workers embed batches, and return the results in order. Knows nothing of Ray.

At most `AHEAD` batches a worker are under way. A batch whose worker is lost is submitted again. If workers die on it
`MOST_DEATHS` times, it is halved, and so on until one picture is left, which is refused.

The run ends if workers die on whatever they get. Deaths count as one unless a batch was submitted between them, so that
the loss of a machine counts as one death, however many workers it had.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bridgetower.encoders.protocol import Embedded
from bridgetower.errors import ProcessError
from bridgetower.pictures.decode_pool import Square
from bridgetower.records import Refused

AHEAD = 2  # batches under way for each worker: one is computed while the next is on its way
MOST_DEATHS = 3  # of workers on a batch before it is halved, or its only picture refused
_MOST_DEATHS_IN_A_ROW = 20  # each on a batch submitted after the last one, and none done: one picture causes fewer
_WAITING = 4  # batches a worker that are under way, or done but after one that is not


class Located(NamedTuple):
    """A file that the machines share."""

    path: Path
    hash: bytes  # SHA-256 of its content


Sent = Square | Located | bytes  # a decoded picture, a file that the worker reads, or the content of a file


class Unread(NamedTuple):
    """The answer for a file that a worker could not read, or that has another content there."""

    worker: str
    why: str


Answer = Embedded | Refused | Unread


class Done(NamedTuple):
    """A batch came back."""

    ticket: int
    answers: Sequence[Answer]  # one for each item


class Lost(NamedTuple):
    """A batch will not come back."""

    ticket: int
    died_on_it: bool  # whether its worker was at it; else it waited for its turn
    why: str  # which worker, and the cause if it is known


class Pool(Protocol):
    """Workers that embed batches. They may join and leave at any time."""

    @property
    def size(self) -> int:
        """The number of workers now."""
        ...

    def submit(self, ticket: int, batch: Sequence[Sent]) -> None:
        """Give a batch to a worker."""
        ...

    def wait(self) -> Iterable[Done | Lost]:
        """Wait until a batch is done or lost, or a worker has joined or left; return what is known of batches.

        Raises ProcessError if no worker is left and none joins, ModelError.
        """
        ...


class _Piece:
    """Successive items: the results that there are, and the items that have none yet."""

    def __init__(self, items: Sequence[Sent | Refused]) -> None:
        self.deaths = 0  # of workers that were at it
        self.results: list[Embedded | Refused | None] = [None] * len(items)
        self.open: dict[int, Sent] = {}  # items without a result, by place
        for place, item in enumerate(items):
            if isinstance(item, Refused):
                self.results[place] = item
            else:
                self.open[place] = item

    def finish(self, place: int, result: Embedded | Refused) -> None:
        self.results[place] = result
        del self.open[place]

    def halves(self) -> "list[_Piece]":
        """Divide it in the middle of the items without a result.

        The next death on a half divides that; only a single item is tried as often as the first time.
        """
        middle = [*self.open][len(self.open) // 2]
        halves = []
        for part in (range(middle), range(middle, len(self.results))):
            half = _Piece(())
            half.results = [self.results[place] for place in part]
            half.open = {place - part.start: self.open[place] for place in part if place in self.open}
            half.deaths = MOST_DEATHS - 1 if len(half.open) > 1 else 0
            halves.append(half)
        return halves


def in_order(
    pool: Pool,
    batches: Iterable[Sequence[Sent | Refused]],
    read: Callable[[Unread, Sent], Sent | Refused],
) -> Generator[Embedded | Refused]:
    """Yield one result for each item of `batches`, in order. An item that is Refused already is its own result.

    `read` returns what is sent instead of an item whose file a worker could not read, or the result. Raises
    ProcessError, ModelError, and what `batches` and `read` raise.
    """
    source = iter(batches)
    pieces: deque[_Piece] = deque()  # in order, until their results are yielded
    again: list[_Piece] = []  # pieces that are to be submitted before new ones
    under_way: dict[int, _Piece] = {}  # by ticket
    tickets = deaths_in_a_row = last_before_death = 0
    is_more = True
    while True:
        while len(under_way) < AHEAD * pool.size:
            if again:
                piece = min(again, key=pieces.index)
                again.remove(piece)
            elif is_more and len(pieces) < _WAITING * pool.size:
                items = next(source, None)
                if items is None:
                    is_more = False
                    continue
                pieces.append(piece := _Piece(items))
            else:
                break
            if piece.open:
                tickets += 1
                under_way[tickets] = piece
                pool.submit(tickets, [*piece.open.values()])
        if pieces and not pieces[0].open:
            yield from (result for result in pieces.popleft().results if result is not None)
            continue  # there may be room for further batches now
        if not pieces and not is_more:
            return
        for event in pool.wait():
            piece = under_way.pop(event.ticket)
            if isinstance(event, Done):
                deaths_in_a_row = 0
                for (place, item), answer in zip([*piece.open.items()], event.answers, strict=True):
                    given = read(answer, item) if isinstance(answer, Unread) else answer
                    if isinstance(given, Embedded | Refused):
                        piece.finish(place, given)
                    else:
                        piece.open[place] = given
                if piece.open:
                    again.append(piece)
                continue
            piece.deaths += event.died_on_it
            if event.died_on_it and event.ticket > last_before_death:
                deaths_in_a_row += 1
                last_before_death = tickets  # workers that have older batches may be on the machine that was lost
            if deaths_in_a_row > _MOST_DEATHS_IN_A_ROW:
                raise ProcessError(
                    f"{deaths_in_a_row} workers died one after the other: {event.why}; the logs of Ray say more"
                )
            if piece.deaths < MOST_DEATHS:
                again.append(piece)
            elif len(piece.open) == 1:
                [place] = piece.open
                reason = f"the worker died on it {MOST_DEATHS} times, last {event.why}"
                piece.finish(place, Refused(reason, lasting=False))
            else:
                halves = piece.halves()
                at = pieces.index(piece)
                del pieces[at]
                for half in reversed(halves):
                    pieces.insert(at, half)
                again += halves
