"""Pictures ordered by a text: `rerank` of Jina, Cohere and text-embeddings-inference."""

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bridgetower.serving.engine import Engine
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.http.bodies import read_json
from bridgetower.serving.http.routes.answers import as_json
from bridgetower.serving.http.routes.foreign.items import pictures_of, text_of
from bridgetower.serving.http.routes.foreign.matches import Match, matches, model_of
from bridgetower.serving.http.routes.foreign.schemas import (
    NO_USAGE,
    RankedText,
    RerankAnswer,
    RerankFields,
    RerankTextsFields,
    routes_of,
)
from bridgetower.serving.http.routes.schemas import Given
from bridgetower.serving.http.running import run
from bridgetower.serving.request_queue import RequestQueue

_PATHS = {"/v1/rerank": "rerank_v1", "/v2/rerank": "rerank_v2", "/rerank": "rerank"}


def router(engine: Engine, queue: RequestQueue) -> APIRouter:
    """Return the routes of `rerank`."""

    async def rerank(request: Request) -> Response:
        """Order pictures by the match of a text. With `texts` the answer is that of text-embeddings-inference."""
        fields = await read_json(request, _kind_of)
        version = "2" if request.scope["path"].startswith("/v2/") else "1"

        def work(hearing: Hearing) -> Any:
            if isinstance(fields, RerankTextsFields):
                return _rerank_texts(engine, fields, hearing)
            assert isinstance(fields, RerankFields)
            return _rerank(engine, fields, version, hearing)

        return as_json(await run(request, queue, work))

    answer = {"model": RerankAnswer | list[RankedText], "description": "Pictures by falling match."}
    return routes_of(rerank, _PATHS, answer, RerankFields, RerankTextsFields)


def _kind_of(given: Mapping[str, Any]) -> type[Given]:
    return RerankTextsFields if "texts" in given else RerankFields


def _rerank(engine: Engine, fields: RerankFields, version: str, hearing: Hearing) -> dict[str, Any]:
    """Return a RerankAnswer. Raises Problem."""
    query, pictures = text_of(fields.query, "query"), pictures_of(fields.documents, "documents")
    results: list[dict[str, Any]] = [
        {"index": place, "relevance_score": match.probability}
        for place, match in _ranked(matches(engine, [query], pictures, "documents", hearing))[: fields.top_n]
    ]
    if fields.return_documents:
        sent = _sent(fields.documents)
        for result in results:
            result["document"] = _document(sent[result["index"]])
    return {
        "id": f"rerank-{secrets.token_hex(16)}",
        "model": model_of(engine),
        "results": results,
        "meta": {"api_version": {"version": version}, "warnings": hearing.notes},
        "usage": NO_USAGE,
    }


def _sent(documents: Any) -> list[Any]:
    if isinstance(documents, dict) and "content" in documents:
        documents = documents["content"]
    return documents if isinstance(documents, list) else [documents]


def _document(sent: Any) -> dict[str, Any]:
    """Return a document as it was sent; each has a text, which clients expect."""
    return {"text": sent} if isinstance(sent, str) else {"text": "", **sent}


def _rerank_texts(engine: Engine, fields: RerankTextsFields, hearing: Hearing) -> list[dict[str, Any]]:
    """Return a list of RankedText. Raises Problem."""
    query, pictures = text_of(fields.query, "query"), pictures_of(fields.texts, "texts")
    return [
        {
            "index": place,
            "score": match.margin if fields.raw_scores else match.probability,
            **({"text": fields.texts[place]} if fields.return_text else {}),
        }
        for place, match in _ranked(matches(engine, [query], pictures, "texts", hearing))
    ]


def _ranked(found: list[Match]) -> list[tuple[int, Match]]:
    """Return matches with their places, best first; the margin orders those that round to the same probability."""
    return sorted(enumerate(found), key=lambda one: (-one[1].margin, one[0]))
