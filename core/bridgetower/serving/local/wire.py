"""Messages on the socket: a length of 4 bytes, JSON in ASCII, then the bytes of `blob` if the JSON announces them.

Records, paths, times, tuples and errors become JSON objects with one key that no message has, and come back equal:
floats are written so that they are exact, and bytes of a path that are not UTF-8 become lone surrogates, as in Python.
"""

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bridgetower import errors, records
from bridgetower.errors import BridgeTowerError
from bridgetower.retrieval import results

PROTOCOL = 3  # raise it with any change of the messages
MOST_JSON = 1 << 28  # bytes of a message
MOST_BLOB = records.MAX_PICTURE_BYTES
_LENGTH = struct.Struct(">I")
_PART = 1 << 20  # bytes that are sent at once, as a time limit is for one call

_RECORDS = {
    kind.__name__: kind
    for kind in (
        records.Hit,
        records.PairScore,
        records.Skipped,
        records.Word,
        records.WordCount,
        results.Filled,
        results.Found,
        results.Results,
    )
}

Message = dict[str, Any]


class Broken(Exception):
    """The other end is gone, or what it sent is no message."""


def send(connection: socket.socket, message: Mapping[str, Any], blob: bytes | None = None) -> None:
    """Send a message and, with it, bytes. Raises Broken if it is too long or the other end takes nothing."""
    if blob is not None:
        message = {**message, "blob": len(blob)}
    data = json.dumps({key: _to_json(value) for key, value in message.items()}, separators=(",", ":")).encode("ascii")
    if len(data) > MOST_JSON or (blob is not None and len(blob) > MOST_BLOB):
        raise Broken("the message is too long")
    try:
        connection.sendall(_LENGTH.pack(len(data)) + data)
        rest = memoryview(blob or b"")
        for start in range(0, len(rest), _PART):
            connection.sendall(rest[start : start + _PART])
    except OSError as error:
        raise Broken(error.strerror or str(error)) from error


def receive(connection: socket.socket) -> tuple[Message, bytes]:
    """Receive a message, and the bytes with it. Raises Broken; its cause is a TimeoutError if nothing came in time."""
    [length] = _LENGTH.unpack(_read(connection, _LENGTH.size))
    if length > MOST_JSON:
        raise Broken("a message that is too long")
    data = _read(connection, length)
    try:
        message = json.loads(data, object_hook=_from_json)
        size = message.get("blob", 0)
        if not isinstance(size, int) or not 0 <= size <= MOST_BLOB:
            raise ValueError("a blob that is too long")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Broken("no message of this protocol") from error
    return message, bytes(_read(connection, size))


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    try:
        while rest:
            if not (got := connection.recv_into(rest)):
                raise Broken("the connection was closed")
            rest = rest[got:]
    except OSError as error:
        raise Broken(error.strerror or str(error)) from error
    return data


def _to_json(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return {"/path": str(value)}
    if isinstance(value, tuple):
        return {"/tuple": [_to_json(item) for item in value]}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, datetime):
        return {"/time": value.isoformat()}
    if isinstance(value, BridgeTowerError):
        kind = next(base.__name__ for base in type(value).__mro__ if base.__module__ == errors.__name__)
        return {"/error": [kind, _to_json(value.args), {name: _to_json(one) for name, one in vars(value).items()}]}
    if is_dataclass(value) and type(value).__name__ in _RECORDS:
        held = [_to_json(getattr(value, field.name)) for field in fields(value)]
        return {"/record": [type(value).__name__, *held]}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _from_json(found: dict[str, Any]) -> Any:
    """Return what a JSON object stands for. Raises ValueError, TypeError, KeyError, AttributeError."""
    if len(found) != 1:
        return found
    [(key, value)] = found.items()
    if key == "/path":
        return Path(value)
    if key == "/tuple":
        return tuple(value)
    if key == "/time":
        return datetime.fromisoformat(value)
    if key == "/record":
        return _RECORDS[value[0]](*value[1:])
    if key == "/error":
        return _error(*value)
    return found


def _error(name: str, args: tuple[Any, ...], attributes: dict[str, Any]) -> BridgeTowerError:
    kind = getattr(errors, name)
    if not (isinstance(kind, type) and issubclass(kind, BridgeTowerError)):
        raise ValueError(name)
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error
