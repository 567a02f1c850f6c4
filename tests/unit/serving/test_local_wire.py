"""Messages between the command line and a server: all comes back as it was."""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgetower import errors
from bridgetower.errors import BridgeTowerError
from bridgetower.records import Hit, PairScore, Skipped, Word, WordCount
from bridgetower.retrieval.results import Filled, Found, Results
from bridgetower.serving.local import wire
from bridgetower.serving.local.wire import Broken, receive, send

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PATHS = st.binary(min_size=1, max_size=8).map(lambda name: Path(os.fsdecode(name.replace(b"\0", b"_"))))
FLOATS = st.floats(allow_nan=False)
SKIPPED = st.lists(st.builds(Skipped, PATHS, TEXTS), max_size=2).map(tuple)
HITS = st.builds(
    Hit,
    PATHS,
    st.none() | FLOATS,
    st.none() | FLOATS,
    st.booleans(),
    st.none() | st.datetimes(datetime(1, 1, 1)),
    st.none() | st.integers(0, 99),
    st.none() | st.integers(0, 99),
    st.none() | TEXTS,
    st.lists(PATHS, max_size=2).map(tuple),
)
MANY_HITS = st.lists(HITS, max_size=2).map(tuple)
WORDS = st.builds(
    Word, st.integers(), st.integers(), TEXTS, FLOATS, st.lists(PATHS, max_size=2).map(tuple), st.integers(0, 99),
    st.lists(TEXTS, max_size=2).map(tuple),
)  # fmt: skip
COUNTS = st.builds(
    WordCount, st.integers(), st.integers(), TEXTS, st.integers(), FLOATS, st.lists(PATHS, max_size=2).map(tuple)
)
SCORES = st.builds(PairScore, PATHS, TEXTS, st.none() | FLOATS, st.none() | st.tuples(FLOATS, FLOATS), FLOATS)
RECORDS = st.one_of(
    MANY_HITS,
    SCORES,
    st.builds(Results, MANY_HITS, st.integers(), st.none() | FLOATS, SKIPPED),
    st.builds(
        Found, MANY_HITS, st.integers(), FLOATS, SKIPPED, st.integers(), SKIPPED, st.just((Path("a"),)), TEXTS,
        st.integers(),
    ),
    st.builds(
        Filled, st.lists(WORDS, max_size=2).map(tuple), FLOATS, SKIPPED, st.integers(), SKIPPED,
        counts=st.lists(COUNTS, max_size=2).map(tuple), fitting=st.integers(), read=st.integers(),
    ),
)  # fmt: skip


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        other.settimeout(5)
        yield one, other


def sent(message: dict[str, Any]) -> dict[str, Any]:
    one, other = socket.socketpair()
    with one, other:
        send(one, message)
        return receive(other)[0]


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_records_come_back_equal(record: object) -> None:
    assert sent({"event": "result", "result": record}) == {"event": "result", "result": record}


ERRORS = [
    errors.UsageError("wrong"),
    errors.NoIndexError("no index at /a", Path("/a")),
    errors.LockedError(Path("/a"), "process 7"),
    errors.DamagedLogError(Path("/a/log"), 2),
    errors.DamagedFileError(Path("/a/file"), "cut off"),
    errors.PixelLimitError(Path(os.fsdecode(b"a\xff.jpg")), "too many pixels"),
    errors.MissingExtraError(Path("a.heic"), "needs an extra"),
    errors.ProcessError("none"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_come_back_with_their_messages_and_attributes(error: BridgeTowerError) -> None:
    found = sent({"error": error})["error"]
    assert type(found) is type(error)
    assert (str(found), found.args, vars(found), found.exit_code) == (
        str(error),
        error.args,
        vars(error),
        error.exit_code,
    )


def test_an_error_of_a_kind_that_the_other_end_may_lack_is_sent_as_its_base() -> None:
    class OddError(errors.StoreError):
        pass

    assert type(sent({"error": OddError("odd")})["error"]) is errors.StoreError


def test_bytes_follow_their_message(ends: tuple[socket.socket, socket.socket]) -> None:
    content = os.urandom(3 << 20)
    thread = threading.Thread(target=send, args=(ends[0], {"place": 3}, content))
    thread.start()
    assert receive(ends[1]) == ({"place": 3, "blob": len(content)}, content)
    thread.join()


def framed(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack(">I", len(data)) + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        framed({"a": 1})[:-1],
        framed(b"{"),
        framed([1]),
        framed(b"\xff"),
        framed(b"[" * 100_000),
        framed({"blob": -1}),
        framed({"blob": 1 << 60}),
        framed({"blob": "1"}),
        framed({"blob": 10}) + b"short",
        framed({"event": {"/record": ["Secret", 1]}}),
        framed({"event": {"/record": ["Hit", 1]}}),
        framed({"event": {"/error": ["Path", {"/tuple": []}, {}]}}),
        framed({"event": {"/path": 3}}),
        struct.pack(">I", wire.MOST_JSON + 1),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].sendall(data)
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(Broken):
        receive(ends[1])


def test_a_message_that_is_too_long_is_not_sent(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MOST_JSON", 100)
    with pytest.raises(Broken, match="too long"):
        send(ends[0], {"text": "a" * 100})
    send(ends[0], {"text": "a"})
    assert receive(ends[1])[0] == {"text": "a"}
