"""The databases that the tests of tables run on."""

from collections.abc import Iterator
from typing import Protocol

import pytest

from bridgetower.index.stores.postgres import PostgresTable
from bridgetower.index.stores.table import VectorTable
from tests.cluster.milvus_server import Milvus, milvus_server
from tests.cluster.postgres_server import PASSWORD, PostgresServer, postgres_server


class Database(Protocol):
    """A server that can be killed, and started again with its data."""

    @property
    def has_transactions(self) -> bool: ...

    @property
    def url(self) -> str:
        """The value of --store."""

    @property
    def password(self) -> str: ...

    def table(self, name: str, dim: int) -> VectorTable: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def start_again(self) -> None:
        """Start the server if it was killed."""


class Postgres:
    has_transactions, password = True, PASSWORD

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = str(server.tcp)
        self._is_killed = False

    def table(self, name: str, dim: int) -> VectorTable:
        return PostgresTable.connect(self.server.local, name, dim, None)

    def kill(self) -> None:
        self.server.kill()
        self._is_killed = True

    def start(self) -> None:
        self.server.start()
        self._is_killed = False

    def start_again(self) -> None:
        if self._is_killed:
            self.start()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server("fsync = off") as server:
        yield server


@pytest.fixture(scope="session")
def milvus() -> Iterator[Milvus]:
    with milvus_server() as server:
        yield server


@pytest.fixture(params=["postgres", "milvus"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database whose tables arrange 3,000 rows as they would very many, which takes minutes to build."""
    monkeypatch.setattr("bridgetower.index.vectors.catalog_vectors.EXACT_MOST", 2999)
    monkeypatch.setattr("bridgetower.index.stores.postgres._ROWS_FOR_CANDIDATE", 1)
    server = request.getfixturevalue(request.param)
    return Postgres(server) if isinstance(server, PostgresServer) else server
