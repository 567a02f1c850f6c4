"""The routes of the tasks that score given pictures: match and fill."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bridgetower.serving.engine import Engine
from bridgetower.serving.fields import finite, score_of, skipped_of, word_of
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.http.bodies import GivenPicture, given_pictures, read_fields
from bridgetower.serving.http.errors import unusable
from bridgetower.serving.http.routes.answers import as_json
from bridgetower.serving.http.routes.pictures import engine_pictures
from bridgetower.serving.http.routes.schemas import FillAnswer, FillFields, MatchAnswer, MatchFields, body_of, failures
from bridgetower.serving.http.running import run
from bridgetower.serving.limits import MOST_PAIRS
from bridgetower.serving.request_queue import RequestQueue


def router(engine: Engine, queue: RequestQueue) -> APIRouter:
    """Return the routes of match and fill."""
    routes = APIRouter()
    refusals = failures(400, 404, 408, 413, 415, 422, 429)

    @routes.post(
        "/match",
        responses={**refusals, 200: {"model": MatchAnswer, "description": "The scores of all pairs."}},
        response_class=Response,
        operation_id="match",
        openapi_extra=body_of(MatchFields),
    )
    async def match(request: Request) -> Response:
        """Score every picture with every text."""
        fields, files = await read_fields(request, MatchFields)

        def work(hearing: Hearing) -> dict[str, Any]:
            return _match(engine, fields, given_pictures(fields.images, files), hearing)

        return as_json(await run(request, queue, work))

    @routes.post(
        "/fill",
        responses={**refusals, 200: {"model": FillAnswer, "description": "The words of each mask."}},
        response_class=Response,
        operation_id="fill",
        openapi_extra=body_of(FillFields),
    )
    async def fill(request: Request) -> Response:
        """Predict the word of each `<mask>` from the pictures; without any, from the pictures of the index."""
        fields, files = await read_fields(request, FillFields)

        def work(hearing: Hearing) -> dict[str, Any]:
            return _fill(engine, fields, given_pictures(fields.images, files), hearing)

        return as_json(await run(request, queue, work))

    return routes


def _match(engine: Engine, fields: MatchFields, pictures: list[GivenPicture], hearing: Hearing) -> dict[str, Any]:
    """Return a MatchAnswer. Raises Problem."""
    if not pictures:
        raise unusable("no picture: give at least one")
    if len(pictures) * len(fields.texts) > MOST_PAIRS:
        raise unusable(f"at most {MOST_PAIRS} pairs of a picture and a text can be scored")
    found = engine.match(
        engine_pictures(engine, pictures), fields.texts, say=hearing.say, on_progress=hearing.on_progress
    )
    scores = [
        {
            "image": pictures[place // len(fields.texts)].label,
            **score_of(score),
            "itm_logits": None if score.itm_logits is None else [finite(logit) for logit in score.itm_logits],
        }
        for place, score in enumerate(found)
    ]
    return {"scores": scores, "notes": hearing.notes}


def _fill(engine: Engine, fields: FillFields, pictures: list[GivenPicture], hearing: Hearing) -> dict[str, Any]:
    """Return a FillAnswer. Raises Problem."""
    if pictures and fields.depth is not None:
        raise unusable("depth is for the pictures of the index: give it without pictures")
    given = engine_pictures(engine, pictures) or None
    found = engine.fill(
        fields.text, given, top=fields.top, depth=fields.depth, say=hearing.say, on_progress=hearing.on_progress
    )
    labels = {picture.name: picture.label for picture in pictures}
    words = [
        {
            **word_of(word),
            "images": [labels.get(path, str(path)) for path in word.images],
            "ids": word.hashes,
        }
        for word in found.words
    ]
    return {
        "words": words,
        "best_match": finite(found.best_match),
        "skipped": skipped_of(found.skipped),
        "gone": found.gone,
        "in_cloud": found.in_cloud,
        "notes": hearing.notes,
    }
