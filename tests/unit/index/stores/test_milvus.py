"""The table in Milvus, where there is no Milvus: a double speaks its protocol, with vectors of float16."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from bridgetower.errors import StoreError, UsageError
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.milvus import MilvusTable
from bridgetower.index.stores.table import Effort, Stamp

DIM = 8
FIRST, SECOND = Stamp(1, 0, -5), Stamp(2, 1, 2**63 - 1)


class Double:
    """Answers as Milvus does, from rows in memory. Bytes of vectors are kept and returned as they came."""

    def __init__(self, refused: tuple[int, ...], version: str) -> None:
        self.refused, self.version = refused, version
        self.schema: Any = None
        self.properties: dict[str, str] = {}
        self.rows: dict[int, bytes] = {}
        self.fails = 0  # so many searches more
        self.guarantees: list[str] = []  # of the searches

    @property
    def kind(self) -> int:
        return next(int(field.data_type) for field in self.schema.fields if field.name == "vector")

    def answer(self, method: str, request: Any) -> Any:
        from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

        if method in ("Insert", "Upsert"):
            fields = {field.field_name: field for field in request.fields_data}
            vectors = fields["vector"].vectors
            assert vectors.dim == DIM
            data = vectors.float16_vector or np.array(vectors.float_vector.data, np.float32).tobytes()
            ids = fields["id"].scalars.long_data.data
            size = len(data) // len(ids)
            self.rows |= {id: data[turn * size : (turn + 1) * size] for turn, id in enumerate(ids)}
            return milvus_pb2.MutationResult(IDs=schema_pb2.IDs(int_id=schema_pb2.LongArray(data=ids)))
        if method == "CreateCollection":
            schema = schema_pb2.CollectionSchema.FromString(request.schema)
            if any(field.data_type in self.refused for field in schema.fields):
                return common_pb2.Status(code=1100, error_code=1, reason="data type is not\nsupported")
            self.schema, self.properties = schema, {pair.key: pair.value for pair in request.properties}
        if method == "DropCollection":
            self.schema, self.rows = None, {}
        if method == "AlterCollection":
            self.properties |= {pair.key: pair.value for pair in request.properties}
        if method == "GetVersion":
            return milvus_pb2.GetVersionResponse(version=self.version)
        if method == "DescribeCollection":
            if self.schema is None:
                return milvus_pb2.DescribeCollectionResponse(status=common_pb2.Status(code=100, error_code=4))
            pairs = [common_pb2.KeyValuePair(key=key, value=value) for key, value in self.properties.items()]
            return milvus_pb2.DescribeCollectionResponse(schema=self.schema, properties=pairs)
        if method == "DescribeIndex":
            kind = common_pb2.KeyValuePair(key="index_type", value="FLAT")
            index = milvus_pb2.IndexDescription(index_name="vector", field_name="vector", params=[kind], state=3)
            return milvus_pb2.DescribeIndexResponse(index_descriptions=[index])
        if method == "GetLoadingProgress":
            return milvus_pb2.GetLoadingProgressResponse(progress=100)
        if method == "Query":
            return self.query(request)
        if method == "Search":
            return self.search(request)
        types = {"Connect": milvus_pb2.ConnectResponse(identifier=1)}
        return types.get(method, common_pb2.Status())

    def among(self, request: Any) -> list[int]:
        expression = getattr(request, "dsl", "") or getattr(request, "expr", "")
        return [id for id in self.rows if not expression or eval(expression, {"id": id})]  # Python reads it alike

    def query(self, request: Any) -> Any:
        from pymilvus.grpc_gen import milvus_pb2, schema_pb2

        ids = self.among(request)

        def numbers(name: str, values: list[int]) -> Any:
            scalars = schema_pb2.ScalarField(long_data=schema_pb2.LongArray(data=values))
            return schema_pb2.FieldData(type=5, field_name=name, scalars=scalars)

        if list(request.output_fields) == ["count(*)"]:
            return milvus_pb2.QueryResults(fields_data=[numbers("count(*)", [len(ids)])])
        data = b"".join(self.rows[id] for id in ids)
        if self.kind == 102:
            vectors = schema_pb2.VectorField(dim=DIM, float16_vector=data)
        else:
            floats = schema_pb2.FloatArray(data=np.frombuffer(data, np.float32).tolist())
            vectors = schema_pb2.VectorField(dim=DIM, float_vector=floats)
        stored = schema_pb2.FieldData(type=self.kind, field_name="vector", vectors=vectors)
        return milvus_pb2.QueryResults(fields_data=[numbers("id", ids), stored], output_fields=["id", "vector"])

    def search(self, request: Any) -> Any:
        from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

        self.guarantees.append({0: "Strong", 2: "Bounded"}.get(request.guarantee_timestamp, "none"))
        if self.fails:
            self.fails -= 1
            return milvus_pb2.SearchResults(status=common_pb2.Status(code=503, error_code=1, reason="not ready"))
        half = self.kind == 102
        placeholder = common_pb2.PlaceholderGroup.FromString(request.placeholder_group).placeholders[0]
        assert placeholder.type == (102 if half else 101)
        kind = np.float16 if half else np.float32
        query = np.frombuffer(placeholder.values[0], kind).astype(np.float32)
        limit = next(int(pair.value) for pair in request.search_params if pair.key == "topk")
        ids = self.among(request)
        scores = {id: float(np.frombuffer(self.rows[id], kind).astype(np.float32) @ query) for id in ids}
        best = sorted(ids, key=lambda id: -scores[id])[:limit]
        found = schema_pb2.SearchResultData(
            num_queries=1,
            top_k=len(best),
            ids=schema_pb2.IDs(int_id=schema_pb2.LongArray(data=best)),
            scores=[scores[id] for id in best],
            topks=[len(best)],
        )
        return milvus_pb2.SearchResults(results=found)


@pytest.fixture
def serve() -> Iterator[Any]:
    """Start a double, and connect a table to it."""
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("pymilvus.grpc_gen.milvus_pb2").DESCRIPTOR.services_by_name["MilvusService"]
    message_of = pytest.importorskip("google.protobuf.message_factory").GetMessageClass
    ends: list[Any] = []

    def start(refused: tuple[int, ...] = (), version: str = "v2.4.0") -> tuple[Double, MilvusTable]:
        double = Double(refused, version)

        def handler(method: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                lambda request, _: double.answer(method.name, request),
                request_deserializer=message_of(method.input_type).FromString,
                response_serializer=message_of(method.output_type).SerializeToString,
            )

        handlers = {method.name: handler(method) for method in service.methods}
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        table = MilvusTable.connect(Address("milvus", "127.0.0.1", port, None, None), "bt_1", DIM, None)
        ends.extend((table.close, lambda: server.stop(None).wait()))
        return double, table

    yield start
    for end in ends:
        end()


def unit(number: int) -> Any:
    vectors = np.random.default_rng(0).standard_normal((number, DIM), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def assert_answers(table: MilvusTable, vectors: Any) -> None:
    """The rows come back bit by bit, and searches find the nearest of them."""
    ids = np.arange(1, len(vectors) + 1)
    table.insert(ids, vectors, SECOND)
    assert table.stamp() == SECOND and table.count() == len(ids)
    (found_ids, found), *others = table.rows()
    assert not others and np.array_equal(found_ids, ids) and found.dtype == np.float32
    assert found.tobytes() == vectors.tobytes()
    assert all(np.array_equal(vector, vectors[id - 1]) for id, vector in table.vectors(ids[3:7]))
    for query in vectors[:5]:
        order = ids[np.argsort(-(vectors @ query), kind="stable")]
        assert table.search(query, 10, Effort(0, 10))[:10].tolist() == order[:10].tolist()
        some = ids[::3]
        assert table.search_among(query, 5, some).tolist() == order[np.isin(order, some)][:5].tolist()


def test_vectors_of_float16_are_encoded_as_numpy_does(serve: Any) -> None:
    double, table = serve()
    table.create(FIRST)
    assert double.kind == 102 and table.stamp() == FIRST
    vectors = unit(50)
    vectors[49] = [0, -0.0, 2**-24, -(2**-24), 2**-14, 1, 0.5, 1 / 3]
    vectors[49] = vectors[49].astype(np.float16)
    assert_answers(table, vectors)
    assert double.rows == {id: vector.astype("<f2").tobytes() for id, vector in enumerate(vectors, 1)}


@pytest.mark.parametrize(("refused", "version"), [((102,), "v2.5.1"), ((), "v2.3.5")])
def test_vectors_are_float32_where_float16_is_refused(refused: tuple[int, ...], version: str, serve: Any) -> None:
    double, table = serve(refused, version)
    table.create(FIRST)
    assert double.kind == 101 and table.stamp() == FIRST
    assert_answers(table, unit(50))


def test_a_refusal_of_both_is_one_line(serve: Any) -> None:
    _, table = serve((101, 102))
    with pytest.raises(StoreError, match=r"data type is not supported$"):
        table.create(FIRST)


def test_reads_are_strong_after_each_write_and_each_failure(serve: Any) -> None:
    """Bounded reads see what is older than 5 seconds. Those of a session see nothing that other processes wrote."""
    double, table = serve()
    table.create(FIRST)
    table.insert(np.arange(1, 4), unit(3), FIRST)

    def levels(searches: int) -> list[str]:
        double.guarantees.clear()
        for _ in range(searches):
            table.search(unit(1)[0], 2, Effort(100, 2))
        return list(double.guarantees)

    table.stamp()
    assert levels(3) == ["Strong", "Bounded", "Bounded"]
    double.fails = 2
    assert levels(2) == ["Bounded", "Strong", "Strong", "Bounded"]
    table.stamp()
    assert levels(1) == ["Bounded"]
    double.properties["bridgetower.stamp"] = "8,0,9"  # another process has written
    table.stamp()
    assert levels(2) == ["Strong", "Bounded"]
    table.remove(np.array([1]), SECOND)
    assert levels(2) == ["Strong", "Bounded"]


def test_without_pymilvus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UsageError, match=r"milvus://: needs the extra milvus: .*pip.*\[milvus\]"):
        MilvusTable.connect(Address("milvus", "localhost", 19530, None, None), "bt_1", 8, None)
