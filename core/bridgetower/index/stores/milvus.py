"""A `VectorTable` in Milvus: one collection for each index.

Milvus keeps rows in segments: growing ones, and sealed ones, each with a graph of its own. It merges sealed segments by
itself (compaction), which lowers the recall that a setting of the search reaches, because fewer graphs are searched.
Rows are written to a log before an insertion is acknowledged, so they outlast the death of the server. The stamp is a
property of the collection, set after the rows are acknowledged.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import RefusedPasswordError, StoreError, UnreachableStoreError, UsageError
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.table import Effort, Stamp
from bridgetower.index.vectors.measure import RECALL_AT

if TYPE_CHECKING:
    from pymilvus import MilvusClient

EXACT_MOST: Final = 50_000  # rows of a table without a graph
ROWS_A_CALL: Final = 2000  # in one request: with vectors of 2,048 numbers 16 MB, a quarter of what Milvus takes
M, EF_CONSTRUCTION = 16, 200
EFS = (100, 150, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000, 8000)  # Milvus wants at least the limit
EF_MOST: Final = 32_768
LIMIT_MOST: Final = 16_384  # rows that Milvus returns for one query
AMONG_MOST: Final = 4000
ID_MOST: Final = 2**63 - 1
# Milvus compares all rows of a segment that pass a filter if these are less than 7 % of it. Each part is 3 %.
PARTS: Final = 32

CONNECT_SECONDS: Final = 4.5
ANSWER_SECONDS: Final = 30.0
RECOVERY_SECONDS: Final = 90.0  # a Milvus that was killed answers, but not all requests, until it has read its log
FLUSH_SECONDS: Final = 600.0
BUILD_SECONDS: Final = 3600.0  # without any progress
PAUSE_SECONDS: Final = 0.25
RELEASED_SECONDS: Final = 5.0  # for less, another process may be changing the index

Answer = TypeVar("Answer")

_INDEX = "vector"  # the name of the index, and of its column
_STAMP, _LAYOUT = "bridgetower.stamp", "bridgetower.layout"  # properties of the collection
_NO_COLLECTION, _NOT_LOADED = 100, 101  # codes of errors
_SEALED_STATES = frozenset({3, 4, 5})  # sealed, flushed, flushing
_DELETIONS_LEVEL: Final = 1  # of segments that hold deletions only
# Not ready, unavailable, too many requests, not loaded, no index; the ranges of replicas, channels, segments, nodes.
_RECOVERING_CODES = frozenset(
    {1, 2, 4, 8, 101, 102, 103, 700, *range(400, 410), *range(500, 510), *range(600, 610), *range(901, 910)}
)
_RECOVERING = re.compile(
    r"not (?:fully )?loaded|not ready|not available|unavailable|not healthy|offline|node not (?:found|match)|"
    r"no available|channel (?:not found|lack)|recovering",
    re.IGNORECASE,
)


def _driver() -> Any:
    """Import pymilvus, without what its import does by itself.

    It reads a file `.env` of any folder above into the environment of this process, fails for a MILVUS_URI that it
    can not read, and lets gRPC and each failure write to stderr.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    names = ("PYTHON_DOTENV_DISABLED", "MILVUS_URI", "MILVUS_DEFAULT_CONNECTION")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        import pymilvus
    except ImportError as error:
        from bridgetower.installation import how_to_install

        raise UsageError(f"a store in Milvus needs the extra milvus: {how_to_install('milvus')}") from error
    finally:
        del os.environ["PYTHON_DOTENV_DISABLED"]
        os.environ.update(before)
    for name in ("pymilvus", "pymilvus.milvus_client"):  # it logs each error with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return pymilvus


class MilvusTable:
    """A collection with the columns id and vector, searched by inner product."""

    def __init__(self, open_client: Callable[[], "MilvusClient"], address: Address, name: str, dim: int) -> None:
        self._open_client = open_client
        self._opened: MilvusClient | None = None
        self._address, self._name, self._dim = address, name, dim
        self._half: bool | None = None  # whether vectors are stored as float16; None: not known yet
        self._seen: str | None = None  # the stamp that was read last
        self._is_current = False  # whether reads see all rows of that stamp, and all that this process wrote

    @classmethod
    def connect(cls, address: Address, name: str, dim: int, password: str | None) -> "MilvusTable":
        """Connect to a Milvus for a collection of vectors with `dim` numbers.

        Raises UnreachableStoreError within 5 seconds if nothing answers, RefusedPasswordError for a wrong one, and
        UsageError if pymilvus is not installed.
        """
        driver = _driver()
        secure = dict(address.parameters).get("secure", "false").lower() in ("1", "true", "yes", "on")
        host = f"[{address.host}]" if ":" in address.host else address.host

        def open_client() -> "MilvusClient":
            return driver.MilvusClient(
                f"{'https' if secure else 'http'}://{host}:{address.port}",
                user=address.user or "",
                password=password or "",
                db_name=address.database or "",
                timeout=CONNECT_SECONDS,
                dedicated=True,
                secure=secure,
                grpc_options={
                    # a deadline for requests that are sent once, without a deadline of their own
                    "grpc.service_config": f'{{"methodConfig": [{{"name": [{{}}], "timeout": "{ANSWER_SECONDS}s"}}]}}',
                    "grpc.enable_http_proxy": 0,  # as drivers of databases do
                    "grpc.max_reconnect_backoff_ms": 1000,
                },
            )

        table = cls(open_client, address, name, dim)
        table._opened = _patiently(address, open_client)
        return table

    def stamp(self) -> Stamp | None:
        if (described := self._described()) is None:
            return None
        vector = next((field for field in described["fields"] if field["name"] == _INDEX), None)
        written = described.get("properties", {}).get(_STAMP)
        if vector is None or written is None or vector["params"].get("dim") != self._dim:
            return None
        if written != self._seen:
            self._seen, self._is_current = written, False
        return Stamp(*map(int, written.split(",")))

    def create(self, stamp: Stamp) -> None:
        from pymilvus import DataType

        self.drop()
        version = self._ask(self._client.get_server_version)
        if "milvus_lite" in version:
            raise StoreError(f"{self._address}: {version} does not show its segments, as bt needs: use a Milvus server")
        self._half = _numbers(version) >= (2, 4)
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        kind = DataType.FLOAT16_VECTOR if self._half else DataType.FLOAT_VECTOR
        schema.add_field(_INDEX, kind, dim=self._dim)
        self._ask(
            self._client.create_collection,
            self._name,
            schema=schema,
            index_params=self._index(graph=False),
            consistency_level="Strong",
            num_shards=1,
            properties={_STAMP: _text(stamp)},
        )

    def drop(self) -> None:
        self._half, self._is_current = None, False
        self._ask(self._client.drop_collection, self._name)

    def prepare(self, new: int) -> None:
        self._ensure_index()
        if self._has_graph() and new > self.count():
            self._change_index(graph=False)

    def insert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], stamp: Stamp) -> None:
        self._ensure_index()
        stored = self._stored(vectors)
        for start in range(0, len(ids), ROWS_A_CALL):
            part = slice(start, start + ROWS_A_CALL)
            rows = [{"id": id, _INDEX: vector} for id, vector in zip(ids[part].tolist(), stored[part], strict=True)]
            self._write(rows)
        self._set({_STAMP: _text(stamp)})

    def remove(self, ids: NDArray[np.int64], stamp: Stamp) -> None:
        self._ensure_index()
        for start in range(0, len(ids), ROWS_A_CALL):
            self._ask(self._client.delete, self._name, filter=_among(ids[start : start + ROWS_A_CALL]))
        self._is_current = False
        self._set({_STAMP: _text(stamp)})

    def remove_above(self, id: int) -> None:
        self._ensure_index()
        above = f"id > {id}"
        while self._count(above):
            self._ask(self._client.delete, self._name, filter=above, consistency_level="Strong")
            self._is_current = False

    def arrange(self) -> str:
        self._ensure_index()
        self._ask(self._client.flush, self._name, seconds=FLUSH_SECONDS)
        graph = self.count() > EXACT_MOST
        if graph != self._has_graph():
            if graph:  # merge first: the graph of a segment that is merged later was built in vain
                self._compact()
            self._change_index(graph)
        self._set({_LAYOUT: ",".join(map(str, sorted(self._wait_for_segments())))})
        arranged = f"HNSW, M {M}, efConstruction {EF_CONSTRUCTION}" if graph else "exact"
        if self._is_half():
            return arranged
        return f"{arranged}, float32 (the Milvus that made this table has no float16)"

    def compacted(self) -> bool:
        described = self._described()
        layout = "" if described is None else described.get("properties", {}).get(_LAYOUT, "")
        if not layout:
            return False
        return not {int(id) for id in layout.split(",")} <= self._sealed_segments()

    def efforts(self) -> Sequence[Effort]:
        every = Effort(0, RECALL_AT)
        return [*(Effort(ef, RECALL_AT) for ef in EFS), every] if self._has_graph() else [every]

    def search(self, query: NDArray[np.float32], k: int, effort: Effort) -> NDArray[np.int64]:
        share = max(1.0, k / RECALL_AT)
        limit = max(k, ceil(effort.candidates * share))
        ef = max(limit, ceil(effort.effort * share))
        if effort.effort == 0 or limit > LIMIT_MOST or ef > EF_MOST:
            found = self._compare_all(query, limit)
        else:
            found, _ = self._nearest(query, limit, ef)
        if len(found) < k and len(found) < self.count():
            return self._all_ids()
        return found

    @property
    def among_most(self) -> int:
        return AMONG_MOST

    def search_among(self, query: NDArray[np.float32], k: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        # With a limit of all the rows, an answer that has all of them has compared all of them.
        if not len(ids):
            return ids
        found, _ = self._nearest(query, len(ids), len(ids), _among(ids))
        if len(found) == len(ids):
            return found[:k]
        rows = list(self.vectors(ids))
        if not rows:
            return np.empty(0, np.int64)
        scores = np.stack([vector for _, vector in rows]) @ query
        return np.array([id for id, _ in rows], np.int64)[np.argsort(-scores)[:k]]

    def count(self) -> int:
        self._is_current = False
        return self._count("")

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        self._is_current = False
        for page in self._pages(ROWS_A_CALL, ["id", _INDEX]):
            rows = {row["id"]: row[_INDEX] for row in page}
            ids = sorted(rows)
            yield np.array(ids, np.int64), np.stack([self._read(rows[id]) for id in ids])

    def vectors(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, len(ids), ROWS_A_CALL):
            page = self._query(_among(ids[start : start + ROWS_A_CALL]), ["id", _INDEX])
            rows = {row["id"]: row[_INDEX] for row in page}  # Milvus may return a row twice
            for id in sorted(rows):
                yield id, self._read(rows[id])

    def close(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            client.close()

    @property
    def _client(self) -> "MilvusClient":
        if self._opened is None:
            self._opened = _patiently(self._address, self._open_client)
        return self._opened

    def _nearest(
        self, query: NDArray[np.float32], limit: int, ef: int, filter: str = ""
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ids `[n]` of the nearest rows, each once, and their similarities `[n]`, falling."""
        hits = self._read_current(
            self._client.search,
            self._name,
            data=[query.astype(np.float16) if self._is_half() else query],
            anns_field=_INDEX,
            filter=filter,
            limit=limit,
            search_params={"metric_type": "IP", "params": {"ef": min(max(ef, limit), EF_MOST)}},
        )[0]
        return np.array(hits.ids, np.int64), np.array(hits.distances, np.float32)

    def _compare_all(self, query: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
        """Return the ids of the nearest rows, comparing all of them.

        Milvus can not be told to leave a graph aside, but does so for a filter that few rows pass. Where a filter lets
        more rows of a segment pass, the largest `ef` makes up for it.
        """
        if limit <= LIMIT_MOST and not self._has_graph():
            return self._nearest(query, limit, EF_MOST)[0]
        asked = min(limit, RECALL_AT + 4 * ceil(limit / PARTS))  # of each part
        while asked <= LIMIT_MOST:
            parts = [self._nearest(query, asked, EF_MOST, f"id % {PARTS} == {part}") for part in range(PARTS)]
            ids, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            best = np.argsort(-scores)[:limit]
            least = scores[best[-1]] if len(best) == limit else -np.inf
            if all(len(near) < asked or near[-1] <= least for _, near in parts):  # else a part may have more of them
                found: NDArray[np.int64] = ids[best]
                return found
            asked *= 4
        return self._all_ids()

    def _all_ids(self) -> NDArray[np.int64]:
        pages = [np.array([row["id"] for row in page], np.int64) for page in self._pages(LIMIT_MOST, ["id"])]
        return np.unique(np.concatenate(pages)) if pages else np.empty(0, np.int64)

    def _pages(self, width: int, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield all rows, in pages that ascend by id; a page is a range of `width` ids, and not in order.

        A limit is no help: Milvus may leave out rows with smaller ids than those that it returns.
        """
        above, span = -1, width
        while True:
            last = min(above + span, ID_MOST)
            within = f"id > {above} and id <= {last}"
            if span > width and self._count(within):
                span //= 2
                continue
            if span == width:
                if page := self._query(within, fields):
                    yield page
                    above = last
                    continue
                if not self._count(f"id > {last}"):
                    return
            above, span = last, 2 * span  # a gap

    def _query(self, filter: str, fields: list[str]) -> list[dict[str, Any]]:
        query = self._client.query
        return list(self._read_current(query, self._name, filter=filter, output_fields=fields, strict_float32=True))

    def _count(self, filter: str) -> int:
        return int(self._query(filter, ["count(*)"])[0]["count(*)"])

    def _stored(self, vectors: NDArray[np.float32]) -> NDArray[Any]:
        return vectors.astype(np.float16) if self._is_half() else vectors

    def _read(self, vector: Any) -> NDArray[np.float32]:
        """Return a vector of an answer `[E]`."""
        if self._is_half():
            number = vector[0] if isinstance(vector, list) else vector
            return np.frombuffer(number, np.float16).astype(np.float32)
        return np.asarray(vector, np.float32)

    def _is_half(self) -> bool:
        if self._half is None:
            from pymilvus import DataType

            described = self._described()
            if described is None:
                raise StoreError(f"{self._address}: there is no collection {self._name}: run `bt index`")
            kinds = {field["name"]: field["type"] for field in described["fields"]}
            self._half = kinds.get(_INDEX) == DataType.FLOAT16_VECTOR
        return self._half

    def _described(self) -> dict[str, Any] | None:
        """Return what Milvus knows about the collection; None if there is none."""
        from pymilvus.exceptions import MilvusException

        def describe() -> dict[str, Any] | None:
            try:
                described: dict[str, Any] = self._client.describe_collection(self._name, timeout=ANSWER_SECONDS)
            except MilvusException as error:
                if error.code == _NO_COLLECTION:
                    return None
                raise
            return described

        return self._patiently(describe)

    def _set(self, properties: dict[str, str]) -> None:
        self._ask(self._client.alter_collection_properties, self._name, properties)

    def _index(self, graph: bool) -> Any:
        index = self._client.prepare_index_params()
        kind, parameters = ("HNSW", {"M": M, "efConstruction": EF_CONSTRUCTION}) if graph else ("FLAT", {})
        index.add_index(_INDEX, index_type=kind, index_name=_INDEX, metric_type="IP", params=parameters)
        return index

    def _has_graph(self) -> bool:
        return bool(self._ask(self._client.describe_index, self._name, _INDEX)["index_type"] == "HNSW")

    def _ensure_index(self) -> None:
        """Complete a change of the index that was broken off."""
        if not self._ask(self._client.list_indexes, self._name):
            self._change_index(graph=False)

    def _change_index(self, graph: bool) -> None:
        """Replace the index. Searches of other processes wait until the new one is loaded, not until it is built."""
        self._ask(self._client.release_collection, self._name)
        if self._ask(self._client.list_indexes, self._name):
            self._ask(self._client.drop_index, self._name, _INDEX)
        self._ask(self._client.create_index, self._name, self._index(graph), sync=False)
        self._ask(self._client.load_collection, self._name, seconds=BUILD_SECONDS)

    def _compact(self) -> None:
        """Merge the segments and wait until this is done."""
        self._wait_for_segments()
        job = self._ask(self._client.compact, self._name)
        until = time.monotonic() + BUILD_SECONDS
        while self._ask(self._client.get_compaction_state, job) != "Completed":
            if time.monotonic() > until:
                raise StoreError(f"{self._address}: {self._name} is still not compacted: look into the log of Milvus")
            time.sleep(PAUSE_SECONDS)

    def _sealed_segments(self) -> set[int]:
        """Return the ids of the sealed segments that hold rows."""
        return _sealed(self._ask(self._client.list_persistent_segments, self._name))

    def _wait_for_segments(self) -> set[int]:
        """Wait until the index is built, and exactly the sealed segments are loaded with it; return their ids."""
        until, seen = time.monotonic() + BUILD_SECONDS, None
        while True:
            index = self._ask(self._client.describe_index, self._name, _INDEX)
            loaded = _sealed(self._ask(self._client.list_loaded_segments, self._name))
            sealed = self._sealed_segments()
            if index["state"] == "Failed":
                raise StoreError(f"{self._address}: Milvus can not build the index of {self._name}: look into its log")
            is_built = index["state"] == "Finished" and not index["pending_index_rows"]
            if is_built and loaded == sealed:
                return sealed
            if seen != (progress := (index["indexed_rows"], sealed, loaded)):
                until, seen = time.monotonic() + BUILD_SECONDS, progress
            if time.monotonic() > until:
                raise StoreError(f"{self._address}: Milvus does not build the index of {self._name}: look into its log")
            time.sleep(PAUSE_SECONDS)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Insert rows; if an attempt may have been applied, the next one replaces them.

        pymilvus repeats requests that have a deadline of their own, and would insert rows twice.
        """
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            write = self._client.insert if attempts == 1 else self._client.upsert
            write(self._name, rows, retry_times=0)

        self._is_current = False
        self._patiently(attempt)

    def _read_current(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Read what was written before; that costs a wait of 0.2 seconds for the first read after a write."""
        level = "Session" if self._is_current else "Strong"
        answer = self._ask(request, *arguments, consistency_level=level, **options)
        self._is_current = True
        return answer

    def _ask(
        self,
        request: Callable[..., Any],
        *arguments: Any,
        seconds: float = ANSWER_SECONDS,
        **options: Any,
    ) -> Any:
        """Send a request that may be repeated."""
        return self._patiently(lambda: request(*arguments, timeout=seconds, **options))

    def _patiently(self, request: Callable[[], Answer]) -> Answer:
        return _patiently(self._address, request, self._load)

    def _load(self) -> None:
        """Load the collection, unless Milvus is at it. A change of the index that was broken off leaves it released."""
        if self._client.get_load_state(self._name, timeout=ANSWER_SECONDS)["state"].name == "NotLoad":
            self._client.load_collection(self._name, timeout=RECOVERY_SECONDS)


def _patiently(address: Address, request: Callable[[], Answer], load: Callable[[], None] | None = None) -> Answer:
    """Return the answer to a request, repeated for 90 seconds while Milvus answers that it is not ready yet.

    Raises UnreachableStoreError and StoreError.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    begin = time.monotonic()
    while True:
        try:
            return request()
        except (MilvusException, grpc.RpcError) as error:
            if (cause := _transport_error(error)) is not None:
                raise _unreachable(address, cause) from error
            why = " ".join(str(getattr(error, "message", error)).split())
            if error.code not in _RECOVERING_CODES and not _RECOVERING.search(why):
                raise StoreError(f"{address}: {why}") from error
            seconds = time.monotonic() - begin
            if seconds > RECOVERY_SECONDS:
                raise UnreachableStoreError(str(address), why) from error
            if error.code == _NOT_LOADED and load is not None and seconds > RELEASED_SECONDS:
                with suppress(MilvusException, grpc.RpcError):  # the request fails again, and tells why
                    load()
        time.sleep(PAUSE_SECONDS)


def _transport_error(error: BaseException | None) -> Any:
    """Return the error of gRPC that is behind an error of pymilvus; None if Milvus has answered."""
    import grpc

    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, grpc.RpcError):
            return error
        seen.append(error)
        error = error.__context__ if error.__cause__ in (None, error) else error.__cause__  # some are their own cause
    return None


def _unreachable(address: Address, error: Any) -> StoreError:
    import grpc

    code, details = error.code(), error.details() or ""
    if code in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    ):
        return StoreError(f"{address}: {' '.join(details.split())}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableStoreError(str(address), "it does not answer in time")
    why = details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")
    if "auth" in why:  # "auth check failure", "missing authorization in header"
        return RefusedPasswordError(str(address), why)
    return UnreachableStoreError(str(address), why)


def _sealed(segments: Iterable[Any]) -> set[int]:
    """Return the ids of the sealed segments that hold rows."""
    return {
        segment.segment_id
        for segment in segments
        if segment.num_rows and int(segment.state) in _SEALED_STATES and int(segment.level) != _DELETIONS_LEVEL
    }


def _among(ids: NDArray[np.int64]) -> str:
    return f"id in [{','.join(map(str, ids.tolist()))}]"


def _text(stamp: Stamp) -> str:
    return ",".join(map(str, stamp))


def _numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version such as "v2.3.5-lite"; (0, 0) if there are none."""
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
