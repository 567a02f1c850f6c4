"""A table of `bt` in Milvus beside one that an expert writes by hand with pymilvus, for benchmarks/stores.py."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgetower.index.stores import milvus
from bridgetower.index.stores.milvus import MilvusTable
from bridgetower.index.stores.table import Effort, Stamp

ROWS_A_CALL = 2000


class MilvusByHand:
    """Both tables, empty; the one by hand has a category for each row, and the index that `bt` builds for many rows."""

    def __init__(self, table: MilvusTable, dim: int, k: int) -> None:
        from pymilvus import DataType

        self.table, self._k, self._client = table, k, table._client
        self.table.create(Stamp(0, 0))
        self._client.drop_collection("hand")
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("category", DataType.INT32)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        self._client.create_collection("hand", schema=schema, num_shards=1)

    def insert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], categories: NDArray[np.int32]) -> None:
        for start in range(0, len(ids), ROWS_A_CALL):
            part = slice(start, start + ROWS_A_CALL)
            columns = zip(ids[part].tolist(), categories[part].tolist(), vectors[part], strict=True)
            self._client.insert(
                "hand", [{"id": id, "category": category, "vector": vector} for id, category, vector in columns]
            )

    def arrange(self) -> None:
        """Build the index, which takes as long as that of `bt`, and load the collection."""
        self._client.flush("hand")
        index = self._client.prepare_index_params()
        parameters = {"M": milvus._M, "efConstruction": milvus._EF_CONSTRUCTION}
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=parameters)
        self._client.create_index("hand", index)
        self._client.load_collection("hand")

    def search(self, query: NDArray[np.float32], ef: int, collection: str = "hand", filter: str = "") -> list[int]:
        """Return the ids of the k nearest."""
        hits: list[dict[str, Any]] = self._client.search(
            collection,
            data=[query],
            anns_field="vector",
            filter=filter,
            limit=self._k,
            search_params={"metric_type": "IP", "params": {"ef": ef}},
            consistency_level="Eventually",
        )[0]
        return [hit["id"] for hit in hits]

    def search_graph(self, query: NDArray[np.float32], effort: Effort) -> list[int]:
        """Return the ids of the k nearest in the table of `bt`."""
        return self.search(query, effort.effort, "bt")

    def search_category(self, query: NDArray[np.float32], category: int) -> list[int]:
        """Return the ids of the k nearest of a category; Milvus compares all its rows, if they are few."""
        return self.search(query, self._k, filter=f"category == {category}")

    def search_ids(self, query: NDArray[np.float32], ids: NDArray[np.int64]) -> list[int]:
        return self.search(query, self._k, filter=f"id in {ids.tolist()}")


@contextlib.contextmanager
def milvus_by_hand(dim: int, k: int) -> Iterator[MilvusByHand]:
    from tests.cluster.milvus_server import milvus_server

    with milvus_server() as server:
        yield MilvusByHand(server.table("bt", dim), dim, k)
