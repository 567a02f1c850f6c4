"""The databases that the tests of tables run on."""

from collections.abc import Iterator
from typing import Protocol

import pytest

from bridgetower.index.stores.postgres import PostgresTable
from bridgetower.index.stores.table import VectorTable
from tests.cluster.postgres_server import PASSWORD, PostgresServer, postgres_server


class Database(Protocol):
    """A server that can be killed, and started again with its data."""

    has_transactions: bool
    url: str  # for --store
    password: str

    def table(self, name: str, dim: int) -> VectorTable: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def start_again(self) -> None:
        """Start the server if it does not run."""


class Postgres:
    has_transactions, password = True, PASSWORD

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = str(server.tcp)
        self.start = server.start
        self._is_killed = False

    def kill(self) -> None:
        self.server.kill()
        self._is_killed = True

    def start_again(self) -> None:
        if self._is_killed:
            self.server.start()
            self._is_killed = False

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
