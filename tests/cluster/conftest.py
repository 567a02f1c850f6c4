"""The databases that the tests of tables run on."""

from collections.abc import Iterator
from typing import Protocol

import pytest

from bridgetower.index.stores.postgres import PostgresTable
from bridgetower.index.stores.table import VectorTable
from tests.cluster.postgres_server import PostgresServer, postgres_server


class Database(Protocol):
    """A server that can be killed, and started again with its data."""

    has_transactions: bool

    def table(self, name: str, dim: int) -> VectorTable: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Postgres:
    has_transactions = True

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.kill, self.start = server.kill, server.start

    def table(self, name: str, dim: int) -> VectorTable:
        return PostgresTable.connect(self.server.local, name, dim, None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server("fsync = off") as server:
        yield server


@pytest.fixture(params=["postgres"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database whose tables arrange 3,000 rows as they would very many, which takes minutes to build."""
    monkeypatch.setattr("bridgetower.index.stores.postgres._EXACT_UP_TO", 2999)
    monkeypatch.setattr("bridgetower.index.stores.postgres._ROWS_FOR_CANDIDATE", 1)
    return {"postgres": Postgres}[request.param](request.getfixturevalue(request.param))
