"""The databases that the tests of tables run on."""

from collections.abc import Iterator
from typing import Protocol

import pytest

from bridgetower.index.stores.table import VectorTable
from tests.cluster.milvus_server import Milvus, milvus_server


class Database(Protocol):
    """A server that can be killed, and started again with its data."""

    has_transactions: bool

    def table(self, name: str, dim: int) -> VectorTable: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


@pytest.fixture(scope="session")
def milvus() -> Iterator[Milvus]:
    with milvus_server() as server:
        yield server


@pytest.fixture(params=["milvus"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database whose tables arrange 3,000 rows as they would very many, which takes minutes to build."""
    monkeypatch.setattr("bridgetower.index.stores.milvus.EXACT_MOST", 2999)
    database: Database = request.getfixturevalue(request.param)
    return database
