"""Requests to Milvus: the driver, the connection, and how long a request waits for a Milvus that is not ready."""

import logging
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bridgetower.errors import RefusedPasswordError, StoreError, UnreachableStoreError, UsageError
from bridgetower.index.stores.address import Address

if TYPE_CHECKING:
    from pymilvus import MilvusClient

ANSWER_S: Final = 30.0  # for which a request is waited for
PAUSE_S: Final = 0.25  # between two of the same request
_CONNECT_S: Final = 4.5
_RECOVERY_S: Final = 90.0  # a Milvus that was killed answers, but not all requests, until it has read its log
_RELEASED_S: Final = 5.0  # for less, another process may be changing the index

NO_COLLECTION, _NOT_LOADED, NO_INDEX = 100, 101, 700  # codes of errors
# Not ready, unavailable, too many requests, not loaded, no index; the ranges of replicas, channels, segments, nodes.
_RECOVERING_CODES = frozenset(
    {1, 2, 4, 8, 101, 102, 103, 700, *range(400, 410), *range(500, 510), *range(600, 610), *range(901, 910)}
)
_RECOVERING = re.compile(
    r"not (?:fully )?loaded|not ready|not available|unavailable|not healthy|offline|node not (?:found|match)|"
    r"no available|channel (?:not found|lack)|recovering",
    re.IGNORECASE,
)

Answer = TypeVar("Answer")


def opener(address: Address, password: str | None) -> Callable[[], "MilvusClient"]:
    """Return what opens a connection. Raises UsageError if pymilvus is not installed."""
    driver = _driver()
    secure = dict(address.parameters).get("secure", "false").lower() in ("1", "true", "yes", "on")
    host = f"[{address.host}]" if ":" in address.host else address.host

    def open_client() -> "MilvusClient":
        return driver.MilvusClient(
            f"{'https' if secure else 'http'}://{host}:{address.port}",
            user=address.user or "",
            password=password or "",
            db_name=address.database or "",
            timeout=_CONNECT_S,
            dedicated=True,
            secure=secure,
            grpc_options={
                # a deadline for requests that are sent once, without a deadline of their own
                "grpc.service_config": f'{{"methodConfig": [{{"name": [{{}}], "timeout": "{ANSWER_S}s"}}]}}',
                "grpc.enable_http_proxy": 0,  # as drivers of databases do
                "grpc.max_reconnect_backoff_ms": 1000,
            },
        )

    return open_client


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

        raise UsageError(f"milvus://: needs the extra milvus: {how_to_install('milvus')}") from error
    finally:
        del os.environ["PYTHON_DOTENV_DISABLED"]
        os.environ.update(before)
    for name in ("pymilvus", "pymilvus.milvus_client"):  # it logs each error with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return pymilvus


class Patience:
    """How much longer the requests of one call wait for a Milvus that is not ready."""

    def __init__(self) -> None:
        self.seconds = _RECOVERY_S


def patiently(
    address: Address,
    request: Callable[[], Answer],
    patience: Patience | None = None,
    load: Callable[[float], None] | None = None,
) -> Answer:
    """Return the answer to a request, repeated while Milvus answers that it is not ready yet and patience is left.

    A collection that stays released is loaded. Raises UnreachableStoreError and StoreError.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    patience, begin, failed = patience or Patience(), time.monotonic(), False
    while True:
        try:
            answer = request()
        except (MilvusException, grpc.RpcError) as error:
            failed = True
            if (cause := _transport_error(error)) is not None:
                raise _unreachable(address, cause) from error
            why = _line(error)
            if error.code not in _RECOVERING_CODES and not _RECOVERING.search(why):
                raise StoreError(f"{address}: {why}") from error
            left = patience.seconds - (seconds := time.monotonic() - begin)
            if left < 0:
                raise UnreachableStoreError(str(address), why) from error
            if seconds > _RELEASED_S:
                if error.code == NO_INDEX:
                    raise StoreError(f"{address}: {why}") from error
                if error.code == _NOT_LOADED and load is not None:
                    try:
                        load(left)
                    except (MilvusException, grpc.RpcError) as failure:  # after others, the request tells why it fails
                        if failure.code in (NO_COLLECTION, NO_INDEX):
                            raise StoreError(f"{address}: {_line(failure)}") from failure
        else:
            if failed:
                patience.seconds -= time.monotonic() - begin
            return answer
        time.sleep(PAUSE_S)


def _line(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(getattr(error, "message", error)).split())


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
