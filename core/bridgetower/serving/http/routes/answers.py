"""Answers as JSON."""

import json
from typing import Any

from starlette.responses import Response


def to_json(value: Any) -> bytes:
    """Return JSON; a name that is no Unicode is written in escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def as_json(value: Any) -> Response:
    """Return an answer of JSON."""
    return Response(to_json(value), media_type="application/json")
