"""Pairs of a text and a picture: `score` of vLLM."""

import secrets
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bridgetower.serving.engine import Engine
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.http.bodies import GivenPicture, read_json
from bridgetower.serving.http.errors import unusable
from bridgetower.serving.http.routes.answers import as_json
from bridgetower.serving.http.routes.foreign.items import Item, items_of
from bridgetower.serving.http.routes.foreign.matches import matches, model_of
from bridgetower.serving.http.routes.foreign.schemas import (
    NO_USAGE,
    ScoreAnswer,
    ScoreFields,
    routes_of,
)
from bridgetower.serving.http.running import run
from bridgetower.serving.request_queue import RequestQueue

_PATHS = {"/v1/score": "score_v1", "/score": "score"}
_FIELDS = ("text_1", "text_2")


def router(engine: Engine, queue: RequestQueue) -> APIRouter:
    """Return the routes of `score`."""

    async def score(request: Request) -> Response:
        """Score one text with each picture, one picture with each text, or pairs."""
        fields = await read_json(request, lambda _: ScoreFields)

        def work(hearing: Hearing) -> dict[str, Any]:
            return _score(engine, fields, hearing)

        return as_json(await run(request, queue, work))

    answer = {"model": ScoreAnswer, "description": "Matches, in the order of the request."}
    return routes_of(score, _PATHS, answer, ScoreFields)


def _score(engine: Engine, fields: ScoreFields, hearing: Hearing) -> dict[str, Any]:
    """Return a ScoreAnswer. Raises Problem."""
    sides = [items_of(given, field) for given, field in zip((fields.text_1, fields.text_2), _FIELDS, strict=True)]
    counts = [len(side) for side in sides]
    if counts[0] not in (1, counts[1]):
        raise unusable(
            f"text_1 has {counts[0]}, text_2 {counts[1]}: give one and several, or as many of each", "text_1"
        )
    kinds = [_kind_of(side, field) for side, field in zip(sides, _FIELDS, strict=True)]
    if kinds[0] == kinds[1]:
        raise unusable(f"text_1 and text_2 are both {kinds[0]}: texts are scored with pictures", "text_2")
    texts = [item for side in sides for item in side if isinstance(item, str)]
    pictures = [item for side in sides for item in side if isinstance(item, GivenPicture)]
    found = matches(engine, texts, pictures, _FIELDS[kinds.index("pictures")], hearing)
    return {
        "id": f"score-{secrets.token_hex(16)}",
        "object": "list",
        "created": int(time.time()),
        "model": model_of(engine),
        "data": [{"index": place, "object": "score", "score": match.probability} for place, match in enumerate(found)],
        "usage": NO_USAGE,
    }


def _kind_of(side: list[Item], field: str) -> str:
    kinds = {"texts" if isinstance(item, str) else "pictures" for item in side}
    if len(kinds) > 1:
        raise unusable(f"{field} has texts and pictures: one side is texts, the other pictures", field)
    return kinds.pop()
