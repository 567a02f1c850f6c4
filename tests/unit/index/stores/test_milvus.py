"""The table in Milvus, where there is no Milvus."""

import sys

import pytest

from bridgetower.errors import UsageError
from bridgetower.index.stores.address import Address
from bridgetower.index.stores.milvus import MilvusTable


def test_without_pymilvus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UsageError, match=r"a store in Milvus needs the extra milvus: .*pip.*\[milvus\]"):
        MilvusTable.connect(Address("milvus", "localhost", 19530, None, None), "bt_1", 8, None)
