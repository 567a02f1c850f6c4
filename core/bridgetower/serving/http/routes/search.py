"""The routes of a search: one answer, a stream of events, and the pages after the first."""

import math
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from bridgetower import Found, Hit, SearchRequest
from bridgetower.serving.cursors import Cursors, Page, UnknownCursor
from bridgetower.serving.engine import Engine
from bridgetower.serving.fields import finite, hits_of, skipped_of
from bridgetower.serving.http.bodies import given_pictures, read_fields
from bridgetower.serving.http.errors import Problem, problem_of, unusable
from bridgetower.serving.http.routes.answers import as_json, to_json
from bridgetower.serving.http.routes.pictures import EnginePicture, UploadedPicture, engine_pictures
from bridgetower.serving.http.routes.schemas import (
    PictureReference,
    SearchAnswer,
    SearchFields,
    SearchQuery,
    body_of,
    failures,
)
from bridgetower.serving.http.running import EventHearing, run, stream
from bridgetower.serving.places import places
from bridgetower.serving.request_queue import RequestQueue

_EVENTS = "text/event-stream"


def router(engine: Engine, queue: RequestQueue, cursors: Cursors[Page]) -> APIRouter:
    """Return the routes of a search."""
    routes = APIRouter()
    searching = _Searching(engine, queue, cursors)
    answers = failures(400, 404, 408, 410, 413, 415, 422, 429)
    events = {"schema": {"type": "string", "description": "The events recalled, verified, and result or error."}}
    answers[200] = {"model": SearchAnswer, "description": "A page of hits.", "content": {_EVENTS: events}}

    @routes.get("/search", responses=answers, response_class=Response, operation_id="search_by_url")
    async def search_by_url(request: Request, fields: Annotated[SearchQuery, Query()]) -> Response:
        """Find pictures; the parameters of the URL are the fields of a search. Other pictures than by id: see POST."""
        images = [PictureReference(id=one) for one in fields.image]
        given = fields.model_dump(exclude={"image"}, exclude_unset=True, by_alias=True)
        return await searching.answer(request, SearchFields(images=images, **given), [])

    @routes.post(
        "/search",
        responses=answers,
        response_class=Response,
        operation_id="search",
        openapi_extra=body_of(SearchFields),
    )
    async def search(request: Request) -> Response:
        """Find pictures for a text, pictures, or both. `Accept: text/event-stream` asks for events."""
        return await searching.answer(request, *await read_fields(request, SearchFields))

    return routes


@dataclass(frozen=True, slots=True)
class _Searching:
    engine: Engine
    queue: RequestQueue
    cursors: Cursors[Page]

    async def answer(self, request: Request, fields: SearchFields, files: list[bytes]) -> Response:
        if fields.cursor is not None and (files or fields.model_fields_set - {"cursor"} - _empty(fields)):
            raise unusable("a cursor goes on with its search as it was: give it alone")

        def work(hearing: EventHearing) -> dict[str, Any]:
            return self._first_page(fields, files, hearing) if fields.cursor is None else self._next_page(fields.cursor)

        if not _wants_events(request):
            return as_json(await run(request, self.queue, work))
        events = stream(request, self.queue, work)
        first = await anext(events)  # so that a refusal has its status
        return StreamingResponse(_written(first, events), media_type=_EVENTS)

    def _first_page(self, fields: SearchFields, files: list[bytes], hearing: EventHearing) -> dict[str, Any]:
        images = engine_pictures(self.engine, given_pictures(fields.images, files))
        request = _request(fields, images)
        found = self.engine.pages(request, say=hearing.say, on_progress=hearing.on_progress, on_hits=hearing.on_hits)
        pages = _pages(found, request.top)
        page = next(pages)
        for image in images:
            if isinstance(image, UploadedPicture):
                image.forget()  # further pages need none, and may wait for minutes
        if page.is_last:
            pages.close()
        return answer_of(page, None if page.is_last else self.cursors.keep(pages), hearing.notes)

    def _next_page(self, cursor: str) -> dict[str, Any]:
        try:
            page, following = self.cursors.next(cursor)
        except UnknownCursor:
            raise Problem(410, "unknown_cursor", "the cursor leads nowhere any more: ask again without it") from None
        return answer_of(page, following, [])


def _empty(fields: SearchFields) -> set[str]:
    return {name for name in ("images", "without") if not getattr(fields, name)}


def _request(fields: SearchFields, images: list[EnginePicture]) -> SearchRequest:
    """Return the request of the library. Raises UsageError, Problem."""
    return SearchRequest(
        text=fields.text,
        image=images or None,
        under=None if fields.under is None else places(fields.under),
        not_under=places(fields.not_under or []),
        since=fields.since,
        before=fields.before,
        taken=fields.taken,
        top=fields.top,
        depth=fields.depth,
        min_match=fields.min_match,
        min_similarity=fields.min_similarity,
        exact=fields.exact,
        without=fields.without,
        weights=fields.weights,
        keep_self=fields.keep_self,
        unique=fields.unique,
        budget=math.inf if fields.budget_s is None else fields.budget_s,
    )


def _pages(pages: Generator[Found], top: int) -> Generator[Page, None, None]:
    """Yield pages, the last one with fewer than `top` hits."""
    before = 0
    last: Found | None = None
    with closing(pages):
        for found in pages:
            is_last = len(found.hits) < top
            yield Page(found, before, is_last)
            if is_last:
                return
            before += top
            last = found
    assert last is not None  # a search has a first page
    yield Page(replace(last, hits=()), before, is_last=True)


# Events


def _wants_events(request: Request) -> bool:
    kinds = ",".join(request.headers.getlist("accept")).lower().split(",")
    return any(kind.partition(";")[0].strip() == _EVENTS for kind in kinds)


async def _written(first: tuple[str, Any], events: AsyncIterator[tuple[str, Any]]) -> AsyncIterator[bytes]:
    async with aclosing(events):  # type: ignore[type-var]  # an asynchronous generator
        yield _event(*first)
        try:
            async for name, value in events:
                yield _event(name, value)
        except Exception as error:  # noqa: BLE001  # the status is sent, so the event alone can tell it
            yield b"event: error\ndata: " + problem_of(error).body() + b"\n\n"


def _event(name: str, value: Any) -> bytes:
    if name == "beat":
        return b": still here\n\n"
    if name in ("recalled", "verified"):
        hits, done, total = value
        value = {"hits": _hits(hits, 0)}
        if name == "verified":
            value |= {"done": done, "total": total}
    return f"event: {name}\ndata: ".encode() + to_json(value) + b"\n\n"


# Answers


def _hits(hits: Sequence[Hit], before: int) -> list[dict[str, Any]]:
    """Return hits with their ranks, each with those that were folded into it."""
    return [
        {**fields, "like": [str(path) for path in hit.like]}
        for fields, hit in zip(hits_of(hits, before), hits, strict=True)
    ]


def answer_of(page: Page, cursor: str | None, notes: list[str]) -> dict[str, Any]:
    """Return a SearchAnswer."""
    found = page.found
    return {
        "hits": _hits(found.hits, page.before),
        "verified": found.verified,
        "ruled_out": found.ruled_out,
        "best_match": finite(found.best_match),
        "best_similarity": finite(found.best_similarity),
        "depth": found.depth,
        "skipped": skipped_of(found.skipped),
        "barred": skipped_of(found.barred),
        "gone": found.gone,
        "away": [str(path) for path in found.away],
        "in_cloud": found.in_cloud,
        "damaged": found.damage is not None,
        "notes": notes,
        "cursor": cursor,
    }
