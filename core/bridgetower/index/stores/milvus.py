"""A `VectorTable` in Milvus: one collection for each index.

Milvus keeps rows in segments: growing ones, and sealed ones, each with a graph of its own. It merges sealed segments by
itself (compaction), which lowers the recall that a setting of the search reaches, because fewer graphs are searched.
Rows are written to a log before an insertion is acknowledged, so they outlast the death of the server. The stamp is a
property of the collection, set after new rows are acknowledged, and before rows are deleted.

Tried with Milvus 2.3.5 alone, which stores vectors as float32. Milvus 2.4 or newer is asked for float16, and for
float32 if it refuses that; only the encoding of float16 by pymilvus 3.0.2 was tested, without such a server.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bridgetower.errors import StoreError, UnreachableStoreError
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.milvus_requests import (
    ANSWER_S,
    NO_COLLECTION,
    NO_INDEX,
    PAUSE_S,
    Patience,
    opener,
    patiently,
)
from bridgetower.index.stores.table import Effort, Stamp
from bridgetower.index.vectors.catalog_vectors import few
from bridgetower.index.vectors.measure import RECALL_AT

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_ROWS_A_CALL: Final = 2000  # in one request: with vectors of 2,048 numbers 16 MB, a quarter of what Milvus takes
_M, _EF_CONSTRUCTION = 16, 200
_EFS = (100, 150, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000, 8000)  # Milvus wants at least the limit
_EF_MOST: Final = 32_768
_LIMIT_MOST: Final = 16_384  # rows that Milvus returns for one query
_AMONG_MOST: Final = 4000
_ID_MOST: Final = 2**63 - 1
# Milvus compares all rows of a segment that pass a filter if these are less than 7 % of it. Each part is 3 %.
_PARTS: Final = 32

_FLUSH_S: Final = 600.0
_BUILD_S: Final = 3600.0  # without any progress
_DROPS: Final = 5  # of one index, while other processes load the collection in between

Answer = TypeVar("Answer")

_INDEX = "vector"  # the name of the index, and of its column
_STAMP, _LAYOUT = "bridgetower.stamp", "bridgetower.layout"  # properties of the collection
_SEALED_STATES = frozenset({3, 4, 5})  # sealed, flushed, flushing
_DELETIONS_LEVEL: Final = 1  # of segments that hold deletions only


def _one_call(method: Callable[..., Answer]) -> Callable[..., Answer]:
    """Let the requests of a method wait _RECOVERY_S together for a Milvus that is not ready."""

    @wraps(method)
    def call(table: "MilvusTable", *arguments: Any) -> Answer:
        if table._patience is not None:  # a part of another call
            return method(table, *arguments)
        table._patience = Patience()
        try:
            return method(table, *arguments)
        finally:
            table._patience = None

    return call


class MilvusTable:
    """A collection with the columns id and vector, searched by inner product."""

    def __init__(self, open_client: Callable[[], "MilvusClient"], address: Address, name: str, dim: int) -> None:
        self._open_client = open_client
        self._opened: MilvusClient | None = None
        self._address, self._name, self._dim = address, name, dim
        self._half: bool | None = None  # whether vectors are stored as float16; None: not known yet
        self._seen: str | None = None  # the stamp that was read last
        self._is_current = False  # whether reads see all rows of that stamp, and all that this process wrote
        self._patience: Patience | None = None  # of the present call; None between calls

    @classmethod
    def connect(cls, address: Address, name: str, dim: int, password: str | None) -> "MilvusTable":
        """Connect to a Milvus for a collection of vectors with `dim` numbers.

        Raises UnreachableStoreError within 5 seconds if nothing answers, RefusedPasswordError for a wrong one, and
        UsageError if pymilvus is not installed.
        """
        open_client = opener(address, password)
        table = cls(open_client, address, name, dim)
        table._opened = patiently(address, open_client)
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

    @_one_call
    def create(self, stamp: Stamp) -> None:
        self.drop()
        version = self._ask(self._client.get_server_version)
        if "milvus_lite" in version:
            raise StoreError(f"{self._address}: {version} does not show its segments, as bt needs: use a Milvus server")
        may_be_half = _numbers(version) >= (2, 4)  # Milvus 2.3 takes float16, and then returns nothing
        try:
            self._create(stamp, may_be_half)
        except UnreachableStoreError:
            raise
        except StoreError:
            if not may_be_half:
                raise
            self.drop()
            self._create(stamp, half=False)

    def _create(self, stamp: Stamp, half: bool) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(_INDEX, DataType.FLOAT16_VECTOR if half else DataType.FLOAT_VECTOR, dim=self._dim)
        self._ask(
            self._client.create_collection,
            self._name,
            schema=schema,
            index_params=self._index(graph=False),
            consistency_level="Strong",
            num_shards=1,
            properties={_STAMP: _text(stamp)},
        )
        self._half = half

    @_one_call
    def drop(self) -> None:
        self._half, self._is_current = None, False
        self._ask(self._client.drop_collection, self._name)

    @_one_call
    def prepare(self, new: int) -> None:
        self._ensure_index()
        if self._has_graph() and new > self.count():
            self._change_index(graph=False)

    @_one_call
    def insert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], stamp: Stamp) -> None:
        self._ensure_index()
        stored = self._stored(vectors)
        for start in range(0, len(ids), _ROWS_A_CALL):
            part = slice(start, start + _ROWS_A_CALL)
            rows = [{"id": id, _INDEX: vector} for id, vector in zip(ids[part].tolist(), stored[part], strict=True)]
            self._write(rows)
        self._set({_STAMP: _text(stamp)})

    @_one_call
    def remove(self, ids: NDArray[np.int64], stamp: Stamp) -> None:
        self._ensure_index()
        self._set({_STAMP: _text(stamp)})
        for start in range(0, len(ids), _ROWS_A_CALL):
            self._ask(self._client.delete, self._name, filter=_among(ids[start : start + _ROWS_A_CALL]))
        self._is_current = False

    @_one_call
    def remove_above(self, id: int) -> None:
        self._ensure_index()
        above = f"id > {id}"
        while self._count(above):
            self._ask(self._client.delete, self._name, filter=above, consistency_level="Strong")
            self._is_current = False

    @_one_call
    def arrange(self) -> str:
        self._ensure_index()
        self._ask(self._client.flush, self._name, seconds=_FLUSH_S)
        graph = not few(self.count())
        if graph != self._has_graph():
            if graph:  # merge first: the graph of a segment that is merged later was built in vain
                self._compact()
            self._change_index(graph)
        self._set({_LAYOUT: ",".join(map(str, sorted(self._wait_for_segments())))})
        arranged = f"HNSW, M {_M}, efConstruction {_EF_CONSTRUCTION}" if graph else "exact"
        if self._is_half():
            return arranged
        return f"{arranged}, float32 (the Milvus that made this table has no float16)"

    @_one_call
    def compacted(self) -> bool:
        described = self._described()
        layout = "" if described is None else described.get("properties", {}).get(_LAYOUT, "")
        if not layout:
            return False
        return not {int(id) for id in layout.split(",")} <= self._sealed_segments()

    @_one_call
    def efforts(self) -> Sequence[Effort]:
        every = Effort(0, RECALL_AT)
        return [*(Effort(ef, RECALL_AT) for ef in _EFS), every] if self._has_graph() else [every]

    @_one_call
    def search(self, query: NDArray[np.float32], k: int, effort: Effort) -> NDArray[np.int64]:
        share = max(1.0, k / RECALL_AT)
        limit = max(k, ceil(effort.candidates * share))
        ef = max(limit, ceil(effort.effort * share))
        if effort.effort == 0 or limit > _LIMIT_MOST or ef > _EF_MOST:
            found = self._compare_all(query, limit)
        else:
            found, _ = self._nearest(query, limit, ef)
        if len(found) < k and len(found) < self.count():
            return self._all_ids()
        return found

    @property
    def among_most(self) -> int:
        return _AMONG_MOST

    @_one_call
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

    @_one_call
    def count(self) -> int:
        self._is_current = False
        return self._count("")

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        self._is_current = False
        for page in self._pages(_ROWS_A_CALL, ["id", _INDEX]):
            rows = {row["id"]: row[_INDEX] for row in page}
            ids = sorted(rows)
            yield np.array(ids, np.int64), np.stack([self._read(rows[id]) for id in ids])

    def vectors(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, len(ids), _ROWS_A_CALL):
            page = self._query(_among(ids[start : start + _ROWS_A_CALL]), ["id", _INDEX])
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
            self._opened = patiently(self._address, self._open_client)
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
            search_params={"metric_type": "IP", "params": {"ef": min(max(ef, limit), _EF_MOST)}},
        )[0]
        return np.array(hits.ids, np.int64), np.array(hits.distances, np.float32)

    def _compare_all(self, query: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
        """Return the ids of the nearest rows, comparing all of them.

        Milvus can not be told to leave a graph aside, but does so for a filter that few rows pass. Where a filter lets
        more rows of a segment pass, the largest `ef` makes up for it.
        """
        if limit <= _LIMIT_MOST and not self._has_graph():
            return self._nearest(query, limit, _EF_MOST)[0]
        asked = min(limit, RECALL_AT + 4 * ceil(limit / _PARTS))  # of each part
        while asked <= _LIMIT_MOST:
            parts = [self._nearest(query, asked, _EF_MOST, f"id % {_PARTS} == {part}") for part in range(_PARTS)]
            ids, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            best = np.argsort(-scores)[:limit]
            least = scores[best[-1]] if len(best) == limit else -np.inf
            if all(len(near) < asked or near[-1] <= least for _, near in parts):  # else a part may have more of them
                found: NDArray[np.int64] = ids[best]
                return found
            asked *= 4
        return self._all_ids()

    def _all_ids(self) -> NDArray[np.int64]:
        pages = [np.array([row["id"] for row in page], np.int64) for page in self._pages(_LIMIT_MOST, ["id"])]
        return np.unique(np.concatenate(pages)) if pages else np.empty(0, np.int64)

    def _pages(self, width: int, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield all rows, in pages that ascend by id; a page is a range of `width` ids, and not in order.

        A limit is no help: Milvus may leave out rows with smaller ids than those that it returns.
        """
        above, span = -1, width
        while True:
            last = min(above + span, _ID_MOST)
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
                described: dict[str, Any] = self._client.describe_collection(self._name, timeout=ANSWER_S)
            except MilvusException as error:
                if error.code == NO_COLLECTION:
                    return None
                raise
            return described

        return self._patiently(describe)

    def _set(self, properties: dict[str, str]) -> None:
        self._ask(self._client.alter_collection_properties, self._name, properties)

    def _index(self, graph: bool) -> Any:
        index = self._client.prepare_index_params()
        kind, parameters = ("HNSW", {"M": _M, "efConstruction": _EF_CONSTRUCTION}) if graph else ("FLAT", {})
        index.add_index(_INDEX, index_type=kind, index_name=_INDEX, metric_type="IP", params=parameters)
        return index

    def _has_graph(self) -> bool:
        return bool(self._described_index()["index_type"] == "HNSW")

    def _described_index(self) -> dict[str, Any]:
        """Return what Milvus knows about the index. Where another process changes it, there is none for a moment."""
        from pymilvus.exceptions import MilvusException

        def describe() -> dict[str, Any]:
            described: dict[str, Any] | None = self._client.describe_index(self._name, _INDEX, timeout=ANSWER_S)
            if described is None:
                raise MilvusException(NO_INDEX, f"{self._name} has no index: run `bt index`")
            return described

        return self._patiently(describe)

    def _ensure_index(self) -> None:
        """Complete a change of the index that was broken off."""
        if not self._ask(self._client.list_indexes, self._name):
            self._change_index(graph=False)

    def _change_index(self, graph: bool) -> None:
        """Replace the index. Searches of other processes wait until the new one is loaded, not until it is built."""
        self._drop_index()
        self._ask(self._client.create_index, self._name, self._index(graph), sync=False)
        self._ask(self._client.load_collection, self._name, seconds=_BUILD_S)

    def _drop_index(self) -> None:
        """Release the collection and drop its index, if there is one.

        A reader that finds the collection released may load it before the index is dropped, which Milvus then refuses.
        """
        for attempt in range(_DROPS):
            self._ask(self._client.release_collection, self._name)
            if not self._ask(self._client.list_indexes, self._name):
                return
            try:
                self._ask(self._client.drop_index, self._name, _INDEX)
                return
            except UnreachableStoreError:
                raise
            except StoreError:
                if attempt == _DROPS - 1:
                    raise

    def _compact(self) -> None:
        """Merge the segments and wait until this is done."""
        self._wait_for_segments()
        job = self._ask(self._client.compact, self._name)
        until = time.monotonic() + _BUILD_S
        while self._ask(self._client.get_compaction_state, job) != "Completed":
            if time.monotonic() > until:
                raise StoreError(f"{self._address}: {self._name} is still not compacted: look into the log of Milvus")
            time.sleep(PAUSE_S)

    def _sealed_segments(self) -> set[int]:
        """Return the ids of the sealed segments that hold rows."""
        return _sealed(self._ask(self._client.list_persistent_segments, self._name))

    def _wait_for_segments(self) -> set[int]:
        """Wait until the index is built, and exactly the sealed segments are loaded with it; return their ids."""
        until, seen = time.monotonic() + _BUILD_S, None
        while True:
            index = self._described_index()
            loaded = _sealed(self._ask(self._client.list_loaded_segments, self._name))
            sealed = self._sealed_segments()
            if index["state"] == "Failed":
                raise StoreError(f"{self._address}: Milvus can not build the index of {self._name}: look into its log")
            is_built = index["state"] == "Finished" and not index["pending_index_rows"]
            if is_built and loaded == sealed:
                return sealed
            if seen != (progress := (index["indexed_rows"], sealed, loaded)):
                until, seen = time.monotonic() + _BUILD_S, progress
            if time.monotonic() > until:
                raise StoreError(f"{self._address}: Milvus does not build the index of {self._name}: look into its log")
            time.sleep(PAUSE_S)

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
        """Read all that was written before.

        The first read after a write or a failure is Strong, which costs a wait of 0.2 seconds. Milvus answers later
        ones from all that was written until 5 seconds before (Bounded), also after a restart that no request notices.
        """

        def read() -> Any:
            level = "Bounded" if self._is_current else "Strong"
            return request(*arguments, consistency_level=level, timeout=ANSWER_S, **options)

        answer = self._patiently(read)
        self._is_current = True
        return answer

    def _ask(
        self,
        request: Callable[..., Any],
        *arguments: Any,
        seconds: float = ANSWER_S,
        **options: Any,
    ) -> Any:
        """Send a request that may be repeated."""
        return self._patiently(lambda: request(*arguments, timeout=seconds, **options))

    def _patiently(self, request: Callable[[], Answer]) -> Answer:
        def attempt() -> Answer:
            try:
                return request()
            except BaseException:
                self._is_current = False  # Milvus may have been started again, and not have read its log
                raise

        return patiently(self._address, attempt, self._patience, self._load)

    def _load(self, seconds: float) -> None:
        """Load the collection, unless Milvus is at it. A change of the index that was broken off leaves it released."""
        state = self._client.get_load_state(self._name, timeout=ANSWER_S)["state"].name
        if state in ("NotLoad", "NotExist"):  # for the latter, the error says so
            self._client.load_collection(self._name, timeout=seconds)


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
