"""The order of pairs: every pair once an epoch, the same from wherever the stream starts, replay in its share."""

from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetower.errors import UsageError
from bridgetower.training.data.order import REPLAY, TRAIN, Item, Order, slice_of


def items(order: Order, start: int, stop: int) -> list[Item]:
    return [item for step in range(start, stop) for item in order.items(step)]


@given(st.integers(4, 60), st.integers(1, 4), st.integers(0, 2**40))
def test_each_epoch_has_each_pair_once_and_nothing_is_dropped(pairs: int, batch: int, seed: int) -> None:
    seen = items(Order(pairs, batch=batch, seed=seed), 0, 3 * pairs)[: 3 * pairs]
    for epoch in range(3):
        part = seen[epoch * pairs : (epoch + 1) * pairs]
        assert sorted(item.pair for item in part) == list(range(pairs))
        assert [(item.epoch, item.position) for item in part] == [(epoch, position) for position in range(pairs)]


@given(st.integers(8, 50), st.integers(8, 50), st.integers(2, 8), st.integers(0, 30), st.sampled_from([0.25, 0.5, 0.6]))
def test_the_stream_from_any_step_is_the_tail_of_the_whole(
    pairs: int, replay: int, batch: int, start: int, share: float
) -> None:
    def order() -> Order:
        return Order(pairs, replay, batch=batch, replay_share=max(share, 1 / batch), seed=3)

    assert items(order(), start, 40) == items(order(), 0, 40)[start * batch :]


def test_epochs_and_seeds_and_streams_have_orders_of_their_own() -> None:
    order = Order(30, 30, batch=2, seed=1)
    streams = [[item.pair for item in items(order, 0, 60) if item.stream == stream] for stream in (TRAIN, REPLAY)]
    orders = [streams[0][:30], streams[0][30:], streams[1][:30], streams[1][30:]]
    orders.append([item.pair for item in items(Order(30, batch=1, seed=2), 0, 30)])
    assert all(sorted(each) == list(range(30)) for each in orders)
    assert len({tuple(each) for each in orders}) == 5


@pytest.mark.parametrize(("batch", "share", "replayed"), [(8, 0.5, 4), (64, 0.1, 6), (10, 0.25, 2), (3, 0.5, 2)])
def test_the_replay_has_its_share_of_each_batch_spread_evenly(batch: int, share: float, replayed: int) -> None:
    order = Order(100, 100, batch=batch, replay_share=share, seed=0)
    assert order.replayed == replayed
    for step in range(5):
        places = [place for place, item in enumerate(order.items(step)) if item.stream == REPLAY]
        assert len(places) == replayed
        gaps = [b - a for a, b in pairwise(places)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_no_two_draws_are_the_same() -> None:
    order = Order(6, 6, batch=4, seed=0)
    drawn = Counter(order.draw(item).random() for item in items(order, 0, 9))
    assert max(drawn.values()) == 1 and len(drawn) == 36
    again = Order(6, 6, batch=4, seed=0)
    assert [again.draw(item).random() for item in items(again, 3, 4)] == list(islice(drawn, 12, 16))
    assert Order(6, 6, batch=4, seed=1).draw(Item(TRAIN, 0, 0, 0)).random() not in drawn


@pytest.mark.parametrize(
    ("pairs", "replay", "batch", "share", "complaint"),
    [
        (7, 0, 8, 0.5, "the training data has 7 pairs, fewer than the 8 in each batch: use a smaller --batch"),
        (3, 9, 8, 0.5, "the training data has 3 pairs, fewer than the 4 in each batch"),
        (
            9,
            3,
            8,
            0.5,
            "the replay data has 3 pairs, fewer than the 4 in each batch: use a smaller --batch or --replay",
        ),
        (9, 9, 8, 0.01, "--replay-share 0.01 of --batch 8 is 0 pairs: at least one must be of the replay"),
        (9, 9, 8, 1.0, "--replay-share 1 of --batch 8 is 8 pairs: at least one must be of the replay"),
    ],
)
def test_a_stream_fills_its_part_of_a_batch(pairs: int, replay: int, batch: int, share: float, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Order(pairs, replay, batch=batch, replay_share=share, seed=0)


def test_processes_share_a_batch_out() -> None:
    assert [slice_of(10, rank, 3) for rank in range(3)] == [range(3), range(3, 6), range(6, 10)]
    with pytest.raises(UsageError, match="--batch 2 is fewer than the 3 processes"):
        slice_of(2, 0, 3)
